import gzip
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.connectors.files import inputs
from streamproc.connectors.files.inputs import StreamOptions
from streamproc.connectors.files.mapping import ColumnMapping, FileMapping
from streamproc.connectors.files.stream import open_stream
from streamproc.core.ports import Decoder
from streamproc.core.record import InputPlan
from streamproc.core.values import Records
from streamproc.errors import InputError
from tests.support.files import Row, TinyJson, line, plain, put

MAPPING = FileMapping(
    time=("t",), time_format="epoch_s", device="d", columns={"v": ColumnMapping("p")}
)
OPTIONS = StreamOptions("s", MAPPING, batch_rows=7)


class Log:
    """What the commit log remembers of a stream: its plans and its position."""

    def __init__(self) -> None:
        self.plans: list[InputPlan] = []
        self.next = 0
        self.rows: list[Row] = []

    def replay(
        self,
        files: Sequence[str],
        options: StreamOptions = OPTIONS,
        rows_max: int = 10**9,
        decoder: Decoder | None = None,
    ) -> list[Row]:
        """Replay as the runtime does, plan after plan; die after `rows_max` rows."""
        fresh: list[Row] = []
        while True:
            stream = open_stream(
                files, options, self.plans, self.next, decoder or TinyJson()
            )
            if stream.plan is None:
                assert stream.total_rows == 0
                assert not list(stream.batches())
                break
            rows = plain(stream.batches())
            assert len(rows) == stream.total_rows
            rows = rows[: rows_max - len(fresh)]
            if rows and stream.plan not in self.plans:
                self.plans.append(stream.plan)
            fresh += rows
            assert [row.offset for row in rows] == list(
                range(self.next, self.next + len(rows))
            )
            self.next += len(rows)
            if len(fresh) == rows_max:
                break
        self.rows += fresh
        return fresh


def payloads(rows: Sequence[Row]) -> list[bytes]:
    return [row.payload for row in rows]


def test_lines_and_tables_merge_by_time_then_path_then_row(tmp_path: Path) -> None:
    files = [
        put(tmp_path / "c.csv", b"t,d,v\n1,c,1\n3,c,2\n3,c,3\n"),
        put(
            tmp_path / "b.ndjson.gz",
            gzip.compress(line("b", 2_000_000) + line("b", 3_000_000)),
        ),
        put(tmp_path / "a.csv", b"t,d,v\r\n3,a,1\r\n4,a,2\r\n"),
    ]
    with pa.CompressedOutputStream(str(tmp_path / "e.jsonl.zst"), "zstd") as packed:
        packed.write(line("e", 0))
    tables = Log().replay([files[0], files[2]])
    assert payloads(tables) == [b"1,c,1", b"3,a,1", b"3,c,2", b"3,c,3", b"4,a,2"]
    lines = Log().replay([files[1], str(tmp_path / "e.jsonl.zst")])
    assert [row.readings[0][1] for row in lines] == ["e", "b", "b"]


def test_lines_that_cannot_be_decoded_keep_the_time_of_the_line_before(
    tmp_path: Path,
) -> None:
    files = [
        put(
            tmp_path / "a.ndjson",
            b"{\n" + line("a", 5) + b"\xff\r\n\n" + line("a", 9) + b"[]",
        ),
        put(tmp_path / "b.ndjson", line("b", 4) + line("b", 7)),
    ]
    rows = Log().replay(files)
    assert payloads(rows) == [
        line("b", 4).strip(),
        b"{",
        line("a", 5).strip(),
        b"\xff",
        line("b", 7).strip(),
        line("a", 9).strip(),
        b"[]",
    ]
    assert [row.offset for row in rows if row.reject] == [1, 3, 6]


def test_a_second_run_adds_nothing_even_when_names_and_packing_change(
    tmp_path: Path,
) -> None:
    content = b"t,d,v\n1,a,1\n2,a,2\n"
    log = Log()
    assert len(log.replay([put(tmp_path / "a.csv", content)])) == 2
    assert log.replay([put(tmp_path / "a.csv", content)]) == []
    assert log.replay([put(tmp_path / "other.csv.gz", gzip.compress(content))]) == []


def test_a_file_that_grew_is_read_on_behind_its_known_rows(tmp_path: Path) -> None:
    log = Log()
    content = b'\xef\xbb\xbft,d,v\n1,a,1\n2,"a\n",2\n'
    log.replay([put(tmp_path / "a.csv", content)])
    grown = content + b"2,a,3\n9,a,4"
    assert payloads(log.replay([put(tmp_path / "a.csv", grown)])) == [
        b"2,a,3",
        b"9,a,4",
    ]
    again = gzip.compress(grown) + gzip.compress(b"\n10,a,5\n")
    other = put(tmp_path / "new.csv", b"t,d,v\n0,n,0\n")
    files = [put(tmp_path / "a.csv.gz", again), str(tmp_path / "a.csv"), other]
    assert payloads(log.replay(files)) == [b"0,n,0", b"10,a,5"]
    assert [plan.base for plan in log.plans] == [0, 2, 4]
    assert log.plans[-1].files[0].start_row == 4


@pytest.mark.parametrize(
    "content",
    [b"t,d,v\n1,a,1\n2,a,22\n", b"t,d,v\n1,a,1\n2,b,2", b"t,d,v\n1,a,1\n", b"t,d,v\n"],
)
def test_a_known_path_that_changed_otherwise_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    log = Log()
    path = put(tmp_path / "a.csv", b"t,d,v\n1,a,1\n2,a,2")
    log.replay([path])
    put(tmp_path / "a.csv", content)
    with pytest.raises(InputError, match=r"a\.csv: changed since it was read"):
        log.replay([path])


def test_a_row_that_a_quote_carries_over_the_known_end_is_refused(
    tmp_path: Path,
) -> None:
    log = Log()
    start = b't,d,v\n1,a,1\n2,"a,2\n'
    path = put(tmp_path / "a.csv", start)
    assert log.replay([path])[1].reject == ("invalid_row", "a quote is never closed")
    put(tmp_path / "a.csv", start + b'3,a",3\n4,a,4\n')
    with pytest.raises(InputError, match="row 1 does not end any more"):
        log.replay([path])


def test_files_whose_times_go_back_are_refused_with_their_line(tmp_path: Path) -> None:
    bad = put(tmp_path / "b.csv", b'"t",d,v\n1,"a\n\n",1\n\n5,a,2\n,a,3\n4,a,4\n')
    good = put(tmp_path / "a.csv", b"t,d,v\n1,a,1\n")
    with pytest.raises(InputError, match=r"b\.csv: line 8: its time is before"):
        Log().replay([good, bad])
    lines = put(tmp_path / "l.ndjson", line("a", 5) + b"x\n" + line("a", 4))
    with pytest.raises(InputError, match=r"l\.ndjson: line 3: its time is before"):
        Log().replay([lines])


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    packed = gzip.compress(b"t,d,v\n1,a,1\n")
    for name, content in (("a.csv", packed[:-5]), ("b.csv.gz", packed[:14])):
        path = put(tmp_path / name, content)
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            Log().replay([path])
    for path in (str(tmp_path / "absent.csv"), str(tmp_path)):
        with pytest.raises(InputError):
            Log().replay([path])


def test_files_without_rows_make_no_plan_and_may_get_some_later(tmp_path: Path) -> None:
    log = Log()
    empty = put(tmp_path / "a.csv", b"t,d,v\n")
    assert log.replay([empty, put(tmp_path / "b.csv", b"")]) == []
    assert log.plans == []
    put(tmp_path / "a.csv", b"t,d,v\n1,a,1\n")
    assert payloads(log.replay([empty])) == [b"1,a,1"]


def test_an_interrupted_run_is_completed_before_new_files_count(tmp_path: Path) -> None:
    first = put(tmp_path / "b.csv", b"t,d,v\n1,b,1\n3,b,3\n5,b,5\n")
    second = put(tmp_path / "c.csv", b"t,d,v\n2,c,2\n4,c,4\n")
    early = put(tmp_path / "a.csv", b"t,d,v\n0,a,0\n")
    log = Log()
    log.replay([first, second], rows_max=2)
    with pytest.raises(InputError, match="give these files again"):
        log.replay([first, early])
    put(tmp_path / "c.csv", b"t,d,v\n2,c,2\n4,c,4\n4,c,6\n")
    log.replay([first, second, early])
    assert payloads(log.rows) == [
        b"1,b,1",
        b"2,c,2",
        b"3,b,3",
        b"4,c,4",
        b"5,b,5",
        b"0,a,0",
        b"4,c,6",
    ]


def test_a_line_that_is_being_written_is_left_for_the_next_run_to_refuse(
    tmp_path: Path,
) -> None:
    log = Log()
    path = put(tmp_path / "a.csv", b"t,d,v\n1,a,1\n2,a,2")
    assert len(log.replay([path])) == 2
    put(tmp_path / "a.csv", b"t,d,v\n1,a,1\n2,a,25\n")
    with pytest.raises(
        InputError, match="its last line, already read as row 1, was continued"
    ):
        log.replay([path])


class Framed(TinyJson):
    """A codec that knows schema ids."""

    def missing(self, records: Records) -> frozenset[int]:
        return frozenset({7})


def test_a_codec_that_needs_a_registry_cannot_read_lines(tmp_path: Path) -> None:
    path = put(tmp_path / "a.ndjson", line("a", 1))
    with pytest.raises(InputError, match="needs a schema registry"):
        Log().replay([path], decoder=Framed())


@settings(max_examples=40)
@given(
    files=st.lists(
        st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=15),
        min_size=1,
        max_size=4,
    ),
    chunk=st.integers(5, 40),
)
def test_rows_without_a_time_stay_behind_the_row_above_however_files_are_chunked(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[tuple[int, bool]]],
    chunk: int,
) -> None:
    folder = tmp_path_factory.mktemp("in")
    paths, expected = [], []
    for file, rows in enumerate(files):
        times = sorted(time for time, _ in rows)
        known = [time for time, (_, told) in zip(times, rows, strict=True) if told]
        place = known[0] if known else 0
        text = "t,d,v\n"
        for row, (time, (_, told)) in enumerate(zip(times, rows, strict=True)):
            place = time if told else place
            line_of = f"{time if told else ''},{file},{row}"
            expected.append((place, file, row, line_of.encode()))
            text += line_of + "\n"
        paths.append(put(folder / f"{file}.csv", text.encode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "_CHUNK_BYTES", chunk)
        patch.setattr(inputs, "_CHUNK_BYTES_MIN", chunk)
        rows_read = Log().replay(paths)
    assert payloads(rows_read) == [one[3] for one in sorted(expected)]


TIMES = st.lists(st.integers(0, 9), max_size=12).map(sorted)


@settings(max_examples=50)
@given(
    files=st.lists(TIMES, min_size=1, max_size=4),
    deaths=st.lists(st.integers(1, 9), max_size=4),
    more=TIMES,
)
def test_however_often_it_dies_every_row_has_one_offset_for_ever(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[int]],
    deaths: list[int],
    more: list[int],
) -> None:
    folder = tmp_path_factory.mktemp("in")
    paths = []
    for name, times in zip("abcd", files, strict=False):
        rows = "".join(f"{time},{name},{row}\n" for row, time in enumerate(times))
        paths.append(put(folder / f"{name}.csv", f"t,d,v\n{rows}".encode()))
    straight, broken = Log(), Log()
    straight.replay(paths)
    for rows_max in deaths:
        broken.replay(paths, rows_max=rows_max)
    broken.replay(paths)
    assert broken.rows == straight.rows
    assert broken.plans == straight.plans
    late = [9 + time for time in more]
    content = Path(paths[0]).read_bytes()
    content += "".join(f"{time},a,x{row}\n" for row, time in enumerate(late)).encode()
    put(Path(paths[0]), content)
    assert len(broken.replay(paths)) == len(late)
    assert len(set(payloads(broken.rows))) == sum(map(len, files)) + len(late)
