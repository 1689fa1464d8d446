"""Merging files keeps every row, bit for bit, and a merge that would not is refused."""

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (a test reads what was written)
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamproc.connectors.compacted_files import FileMerger, Limits
from streamproc.connectors.local_store import LocalStore
from streamproc.core.schemas import PUBLISHED
from streamproc.core.swaps import InputFile, OutputEntry
from streamproc.errors import StoreFault
from tests.support.tables import Row, batch, part, reading

NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000007))[0]
TEXT_SHA256 = hashlib.sha256(b"no Parquet").hexdigest()
VALUES = st.sampled_from([0.0, -0.0, 1.5, -2.25, 5e-324, math.inf])


def written(store: LocalStore, name: str, rows: Sequence[Row]) -> InputFile:
    """Stage a file of readings as a commit would leave it."""
    table = pa.Table.from_batches([batch(rows, PUBLISHED["readings"])])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data = sink.getvalue().to_pybytes()
    store.stage(name, data)
    return InputFile(name, hashlib.sha256(data).hexdigest(), len(rows))


def bits(root: Path, paths: list[str]) -> Counter[tuple[Any, ...]]:
    found: Counter[tuple[Any, ...]] = Counter()
    for path in paths:
        with pq.ParquetFile(root / path) as file:
            for row in file.read().to_pylist():
                row["value"] = struct.pack("<d", row["value"])
                found[tuple(row.values())] += 1
    return found


def name_of(k: int, of: int) -> str:
    return f"{k}of{of}.parquet"


ROWS = st.lists(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.sampled_from(["pm10", "no2", "ä"]),
            st.integers(0, 3),
            VALUES,
        ),
        min_size=1,
        max_size=6,
    ),
    min_size=1,
    max_size=5,
)


@given(files=ROWS, limit=st.integers(1, 20))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_files_keep_their_rows_and_come_out_sorted(
    tmp_path: Path, files: list[list[tuple[int, str, int, float]]], limit: int
) -> None:
    store = LocalStore(tmp_path, ballast_bytes=0)
    inputs, offset = [], 0
    for number, rows in enumerate(files):
        made = []
        for device, kind, step, value in rows:
            changes = {"device": f"d{device}", "property": kind, "value": value}
            made.append(
                reading(offset, event_time=1_700_000_000_000_000 + step, **changes)
            )
            offset += 1
        inputs.append(written(store, f"in/{number}", made))
    merger = FileMerger(store, "test", limits=Limits(rows=limit))

    outputs = merger.merge("readings", inputs, "out", name_of)

    assert bits(tmp_path, [o.staged for o in outputs]) == bits(
        tmp_path, [i.path for i in inputs]
    )
    keys = []
    for output in outputs:
        with pq.ParquetFile(tmp_path / output.staged) as file:
            keys += [
                (row["device"].encode(), row["property"].encode(), row["event_time"])
                for row in file.read().to_pylist()
            ]
    assert keys == sorted(keys)
    assert [o.name for o in outputs] == [
        name_of(k, len(outputs)) for k in range(len(outputs))
    ]
    store.close()


def test_a_nan_keeps_its_bits(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, ballast_bytes=0)
    file = written(store, "in/0", [reading(0, value=NAN), reading(1, value=math.nan)])

    (output,) = FileMerger(store, "test").merge("readings", [file], "out", name_of)

    assert bits(tmp_path, [output.staged]) == bits(tmp_path, ["in/0"])


def lose(table: pa.Table) -> pa.Table:
    return table.slice(1)


def double(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(1), table.slice(1, 1)])


def flip(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("value")
    values = table.column(at).to_pylist()
    changed = [-0.0 if value == 0.0 else value for value in values]
    return table.set_column(at, table.schema.field(at), pa.array(changed))


def swap(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("value")
    values = table.column(at).to_pylist()
    return table.set_column(at, table.schema.field(at), pa.array(values[::-1]))


@pytest.mark.parametrize("mistake", [lose, double, flip, swap])
def test_a_merge_that_makes_a_mistake_is_refused(
    tmp_path: Path, mistake: Callable[[pa.Table], pa.Table]
) -> None:
    class Mistaken(FileMerger):
        def _write(
            self, dataset: str, staged: str, name: str, table: pa.Table
        ) -> OutputEntry:
            return super()._write(dataset, staged, name, mistake(table))

    store = LocalStore(tmp_path, ballast_bytes=0)
    file = written(store, "in/0", [reading(n) for n in range(4)])

    with pytest.raises(StoreFault, match="rows were written, and not the 4 read"):
        Mistaken(store, "test").merge("readings", [file], "out", name_of)


@pytest.mark.parametrize(
    ("path", "sha256", "rows", "expected"),
    [
        ("in/0", "0" * 64, 4, "its sha256 is not the one in the log"),
        ("in/0", None, 7, "has 4 rows, the log says 7"),
        ("in/absent", "0" * 64, 4, "is not there any more"),
        ("in/text", TEXT_SHA256, 4, "cannot be read back"),
    ],
)
def test_an_input_that_is_not_what_the_log_says_is_refused(
    tmp_path: Path, path: str, sha256: str | None, rows: int, expected: str
) -> None:
    store = LocalStore(tmp_path, ballast_bytes=0)
    known = written(store, "in/0", [reading(n) for n in range(4)])
    store.stage("in/text", b"no Parquet")
    file = InputFile(path, sha256 or known.sha256, rows)

    with pytest.raises(StoreFault, match=expected):
        FileMerger(store, "test").merge("readings", [file], "out", name_of)


def test_a_column_of_a_later_version_is_null_where_it_was_not_yet_there(
    tmp_path: Path,
) -> None:
    """Columns are only ever added, nullable, at the end; `coverage` stands for such a one."""
    store = LocalStore(tmp_path, ballast_bytes=0)
    schema = PUBLISHED["aggregates"]
    table = pa.Table.from_batches([batch([part([1.0])], schema)])
    sink = pa.BufferOutputStream()
    pq.write_table(table.drop_columns(["coverage"]), sink)
    data = sink.getvalue().to_pybytes()
    store.stage("in/0", data)
    file = InputFile("in/0", hashlib.sha256(data).hexdigest(), 1)

    (output,) = FileMerger(store, "test").merge("aggregates", [file], "out", name_of)

    with pq.ParquetFile(tmp_path / output.staged) as parquet:
        assert parquet.schema_arrow.equals(schema)
        assert parquet.read().column("coverage").to_pylist() == [None]
