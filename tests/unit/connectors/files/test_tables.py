import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (writes the files under test)
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.connectors.files.content import ROW_BYTES_MAX
from streamproc.connectors.files.mapping import ColumnMapping, FileMapping
from streamproc.connectors.files.tables import CsvReader, ParquetReader
from streamproc.errors import InputError
from tests.support.files import put

COLUMNS = {"b": ColumnMapping("pb"), "c": ColumnMapping("pc")}


def mapping(**more: Any) -> FileMapping:
    return FileMapping(time=("a",), device_fixed="d", columns=COLUMNS, **more)


def read(
    path: str, how: FileMapping, size: int = 1 << 20
) -> tuple[list[list[bytes | None]], list[bytes], dict[int, str], list[int]]:
    """Return (cells by row, raw rows, broken rows, places of the rows)."""
    cells: list[list[bytes | None]] = []
    raw: list[bytes] = []
    broken: dict[int, str] = {}
    starts: list[int] = []
    for piece in CsvReader(path, None, how).pieces(size):
        rows = piece.rows
        broken |= {len(raw) + row: what for row, what in rows.broken.items()}
        raw += rows.raw.to_pylist()
        columns = [rows.columns[name].to_pylist() for name in ("a", "b", "c")]
        cells += [list(row) for row in zip(*columns, strict=True)]
        assert piece.places is not None
        starts += piece.places[0].tolist()
    return cells, raw, broken, starts


def test_rows_keep_their_bytes_with_bom_crlf_quotes_and_bad_utf8(
    tmp_path: Path,
) -> None:
    content = (
        b'\xef\xbb\xbfa,b,"c"\r\n1,2,3\r\n\r\n"x,""y","new\r\nline",9\r\n'
        b'1,,""\r\n\xff,2,3\r\n7"5,8,9'
    )
    cells, raw, broken, starts = read(put(tmp_path / "x.csv", content), mapping())
    assert cells == [
        [b"1", b"2", b"3"],
        [b'x,"y', b"new\r\nline", b"9"],
        [b"1", b"", b""],
        [b"\xff", b"2", b"3"],
        [b'7"5', b"8", b"9"],
    ]
    assert raw == [
        b"1,2,3",
        b'"x,""y","new\r\nline",9',
        b'1,,""',
        b"\xff,2,3",
        b'7"5,8,9',
    ]
    assert [
        content[start : start + len(row)]
        for start, row in zip(starts, raw, strict=True)
    ] == raw
    assert not broken


def test_rows_of_another_width_are_broken_and_keep_their_place(tmp_path: Path) -> None:
    content = b"a,b,c\n1,2\n1,2,3\n\xff\n4,5,6,7\n7,8,9\n,\n"
    cells, raw, broken, _ = read(put(tmp_path / "x.csv", content), mapping())
    assert raw == [b"1,2", b"1,2,3", b"\xff", b"4,5,6,7", b"7,8,9", b","]
    assert broken == {
        0: "2 fields, the header has 3",
        2: "1 fields, the header has 3",
        3: "4 fields, the header has 3",
        5: "2 fields, the header has 3",
    }
    assert cells[1] == [b"1", b"2", b"3"]
    assert cells[4] == [b"7", b"8", b"9"]
    assert cells[0] == cells[5] == [None, None, None]


def test_a_file_of_nothing_but_broken_rows_is_read(tmp_path: Path) -> None:
    _, raw, broken, _ = read(put(tmp_path / "x.csv", b"a,b,c\n1\n2\n"), mapping())
    assert raw == [b"1", b"2"]
    assert sorted(broken) == [0, 1]


@pytest.mark.parametrize("size", [7, 1 << 20])
def test_a_quote_that_never_closes_costs_its_row_only(
    tmp_path: Path, size: int
) -> None:
    many = b"1,2,3\n" * 40_000
    content = b'a,b,c\n1,"oops,3\n' + many + b'4,"5,6\n7,8,9\n'
    cells, raw, broken, _ = read(
        put(tmp_path / "x.csv", content), mapping(), size * 1000
    )
    assert len(raw) == 40_003
    assert broken == {
        0: "a quote is never closed",
        40_001: "a quote is never closed",
    }
    assert raw[0] == b'1,"oops,3'
    assert cells[-1] == [b"7", b"8", b"9"]


def test_without_a_quote_character_quotes_are_text(tmp_path: Path) -> None:
    path = put(tmp_path / "x.csv", b'a;b;c\n"1;2;"3"\n')
    cells, _, broken, _ = read(path, mapping(separator=";", quote=None))
    assert cells == [[b'"1', b"2", b'"3"']]
    assert not broken


@pytest.mark.parametrize(
    "content", [b"", b"\xef\xbb\xbf", b"a,b,c", b"a,b,c\n", b"\n\r\n"]
)
def test_a_file_without_rows_has_none(tmp_path: Path, content: bytes) -> None:
    assert read(put(tmp_path / "x.csv", content), mapping())[1] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n", "no column 'c'; it has 'a', 'b'"),
        (b"a,b,c,b\n1,2,3,4\n", "more than one column 'b'"),
        (b"a,b,\xff\n1,2,3\n", "line 1 is no header"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = put(tmp_path / "x.csv", content)
    with pytest.raises(InputError, match=message) as caught:
        read(path, mapping())
    assert path in str(caught.value)


def test_a_row_without_end_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    path = put(tmp_path / "x.csv", b"a,b,c\n" + b"x" * (ROW_BYTES_MAX + (2 << 20)))
    with pytest.raises(InputError, match="the row at byte 6 is longer"):
        read(path, mapping())


CELL = st.text(st.sampled_from('ab1 ,;"\r\n\tä'), max_size=5)


@given(
    rows=st.lists(st.tuples(CELL, CELL, CELL), max_size=12),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    size=st.integers(1, 40),
    last=st.booleans(),
)
def test_csv_reads_back_what_python_wrote_wherever_pieces_are_cut(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    ending: str,
    size: int,
    last: bool,
) -> None:
    text = io.StringIO(newline="")
    # Python 3.11 leaves the CR or LF that does not end rows unquoted.
    if ending == "\r\n":
        writer = csv.writer(text, lineterminator=ending)
    else:
        writer = csv.writer(text, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b", "c"), *rows])
    content = text.getvalue().encode()
    content = content if last else content.removesuffix(ending.encode())
    path = put(tmp_path_factory.mktemp("csv") / "x.csv", content)
    cells, raw, broken, starts = read(path, mapping(), size)
    assert not broken
    assert cells == [[cell.encode() for cell in row] for row in rows]
    assert [
        content[start : start + len(row)]
        for start, row in zip(starts, raw, strict=True)
    ] == raw


@given(
    content=st.text(st.sampled_from('a1,"\r\n'), max_size=60).map(str.encode),
    size=st.integers(1, 30),
)
def test_no_byte_is_lost_and_no_cut_matters_whatever_the_text(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, size: int
) -> None:
    path = put(tmp_path_factory.mktemp("csv") / "x.csv", b"a,b,c\n" + content)
    whole = read(path, mapping())
    assert read(path, mapping(), size) == whole
    kept = b"".join(whole[1])
    assert len(kept) <= len(content)
    assert sorted(kept.replace(b"\r", b"").replace(b"\n", b"")) == sorted(
        content.replace(b"\r", b"").replace(b"\n", b"")
    )


def test_parquet_rows_come_with_their_json(tmp_path: Path) -> None:
    table = pa.table(
        {
            "a": ["2013-01-01"],
            "b": [1.5],
            "c": pa.array([None], pa.float64()),
            "n": ['ü"x'],
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    (piece,) = ParquetReader(str(tmp_path / "x.parquet"), mapping()).pieces(1 << 20)
    assert piece.places is None
    assert piece.rows.raw.to_pylist() == [
        '{"a":"2013-01-01","b":1.5,"c":null,"n":"ü\\"x"}'.encode()
    ]


def test_parquet_with_types_json_does_not_know_is_read_all_the_same(
    tmp_path: Path,
) -> None:
    table = pa.table({"a": ["2013-01-01"], "b": [b"\xff"], "c": [[1, 2]]})
    pq.write_table(table, tmp_path / "x.parquet")
    (piece,) = ParquetReader(str(tmp_path / "x.parquet"), mapping()).pieces(1 << 20)
    assert b'"c": [1, 2]' in piece.rows.raw.to_pylist()[0]


def test_what_is_no_parquet_is_refused_by_name(tmp_path: Path) -> None:
    path = put(tmp_path / "x.parquet", b"PAR1 no more")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        list(ParquetReader(path, mapping()).pieces(1 << 20))
