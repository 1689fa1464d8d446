"""What the sink published comes back as the processor folded it."""

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from streamproc.connectors.local_store import LocalStore
from streamproc.connectors.parquet_sink import FileFacts, ParquetWriter
from streamproc.connectors.refold_reader import read_readings
from streamproc.core.chain import file_entry
from streamproc.core.record import FileEntry
from streamproc.core.schemas import (
    ROUTED_AGGREGATE,
    ROUTED_LATE,
    ROUTED_QUARANTINE,
    ROUTED_READING,
)
from streamproc.core.values import Counts, Emission, OffsetSpan
from streamproc.errors import StoreFault


def rows_of(rows: list[tuple[int, int, str, str, str]]) -> pa.RecordBatch:
    """Each row is (offset, ordinal, city, device, date)."""
    columns: dict[str, list[Any]] = {
        "city": [city for _, _, city, _, _ in rows],
        "date": [date.fromisoformat(day) for *_, day in rows],
        "device": [device for _, _, _, device, _ in rows],
        "property": ["pm10"] * len(rows),
        "event_time": [offset * 10 for offset, *_ in rows],
        "value": [offset + 0.5 for offset, *_ in rows],
        "quality": [1] * len(rows),
        "flags": [3] * len(rows),
        "ingest_time": [7] * len(rows),
        "source": ["t/0"] * len(rows),
        "offset": [offset for offset, *_ in rows],
        "ordinal": [ordinal for _, ordinal, *_ in rows],
    }
    arrays = [pa.array(columns[f.name]).cast(f.type) for f in ROUTED_READING]
    return pa.RecordBatch.from_arrays(arrays, schema=ROUTED_READING)


def publish(
    store: LocalStore, stem: str, rows: list[tuple[int, int, str, str, str]]
) -> list[FileEntry]:
    writer = ParquetWriter(
        FileFacts("job", "test", "d", {}), lambda city, at: date(2025, 6, 1)
    )
    writer.append(
        Emission(
            OffsetSpan(0, 1),
            rows_of(rows),
            pa.RecordBatch.from_pylist([], ROUTED_AGGREGATE),
            pa.RecordBatch.from_pylist([], ROUTED_LATE),
            pa.RecordBatch.from_pylist([], ROUTED_QUARANTINE),
            (),
            Counts(),
        )
    )
    files = writer.write(store, f"staging/{stem}", stem, OffsetSpan(0, 1))
    for file in files:
        store.publish(file.staged, file.final, file.size, file.sha256)
    store.settle()
    return [file_entry(file) for file in files]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path, ballast_bytes=0)


def test_rows_come_back_in_order_of_offset_with_city_and_date(
    store: LocalStore,
) -> None:
    rows = [
        (5, 0, "razlog", "a", "2025-06-01"),
        (5, 1, "ange", "b", "2025-06-02"),
        (6, 0, "razlog", "c", "2025-06-02"),
        (7, 0, "ange", "b", "2025-06-02"),
        (7, 1, "razlog", "a", "2025-06-01"),
    ]
    files = publish(store, "one", rows)
    assert len(files) == 3

    found = read_readings(store, files)

    assert found.schema.equals(ROUTED_READING)
    assert found.to_pylist() == rows_of(rows).to_pylist()


def test_dictionaries_may_differ_from_file_to_file(store: LocalStore) -> None:
    late = [(n, 0, "razlog", f"d{9 - n}", "2025-06-01") for n in range(5, 9)]
    early = [(n, 0, "razlog", f"d{n}", "2025-06-01") for n in range(5)]
    files = [*publish(store, "late", late), *publish(store, "early", early)]

    found = read_readings(store, files)

    assert found.to_pylist() == rows_of([*early, *late]).to_pylist()
    assert all(column.num_chunks == 1 for column in found.columns)


def test_no_files_are_no_rows(store: LocalStore) -> None:
    assert read_readings(store, []).schema.equals(ROUTED_READING)


@pytest.mark.fault(
    "F31", how="a published file gone or changed before a refold", seen="refused"
)
def test_a_file_that_is_gone_or_changed_is_a_fault(
    store: LocalStore, tmp_path: Path
) -> None:
    (file,) = publish(store, "one", [(5, 0, "razlog", "a", "2025-06-01")])
    whole = (tmp_path / file.path).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 1
    for damaged in (b"not Parquet", whole[:-1], bytes(flipped)):
        (tmp_path / file.path).write_bytes(damaged)
        with pytest.raises(StoreFault, match="not the bytes that the log names"):
            read_readings(store, [file])
    (tmp_path / file.path).unlink()
    with pytest.raises(StoreFault, match="missing"):
        read_readings(store, [file])


def test_a_file_that_the_log_names_and_that_is_no_parquet_is_a_fault(
    store: LocalStore, tmp_path: Path
) -> None:
    (file,) = publish(store, "one", [(5, 0, "razlog", "a", "2025-06-01")])
    (tmp_path / file.path).write_bytes(b"not Parquet")
    named = hashlib.sha256(b"not Parquet").hexdigest()

    with pytest.raises(StoreFault, match="cannot be read back"):
        read_readings(store, [msgspec.structs.replace(file, sha256=named)])


def test_a_file_filed_elsewhere_is_a_fault(store: LocalStore) -> None:
    with pytest.raises(StoreFault, match="not the path of a readings file"):
        read_readings(
            store,
            [
                FileEntry(
                    dataset="readings",
                    staged="s",
                    path="readings/x.parquet",
                    size=1,
                    rows=1,
                    sha256="",
                    first_offset=0,
                    last_offset=0,
                )
            ],
        )
