"""The Parquet writer: what files there are, what is in them, what they say of themselves."""

import hashlib
import resource
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (reads what the writer wrote)
import pytest

from streamproc.connectors.derived_files import (
    PROPERTIES,
    properties_parquet,
    write_properties,
)
from streamproc.connectors.local_store import LocalStore
from streamproc.connectors.parquet_files import ParquetOptions
from streamproc.connectors.parquet_sink import FileFacts, ParquetWriter
from streamproc.core.effects import Content
from streamproc.core.ports import StagedFile
from streamproc.core.schemas import PROPERTY, PUBLISHED, ROUTED_READING
from streamproc.core.values import OffsetSpan
from streamproc.errors import StoreFault
from tests.support.tables import (
    DEFINITION,
    START_US,
    ZONES,
    alert,
    batch,
    date_of,
    emission,
    late_row,
    part,
    reading,
    refused,
    writer,
)

SPAN = OffsetSpan(10, 20)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "root", ballast_bytes=0)


def _write(
    made: ParquetWriter, store: LocalStore, span: OffsetSpan = SPAN
) -> dict[str, StagedFile]:
    files = made.write(store, "_streamproc/staging/1-a", "stem", span)
    return {file.final: file for file in files}


def _read(store: LocalStore, file: StagedFile) -> pa.Table:
    with pq.ParquetFile(store.local_path(file.staged)) as opened:
        return opened.read()


def test_every_dataset_gets_its_own_hive_path(store: LocalStore) -> None:
    made = writer()
    made.append(
        emission(
            [reading(10), reading(11, city="nevers")],
            [part([1.0]), part([2.0], window="1d")],
            [late_row(12)],
            [refused(13), refused(14, city="_unknown")],
            [alert(15)],
        )
    )

    files = _write(made, store)

    assert sorted(files) == [
        "aggregates/window=1d/city=razlog/date=2023-11-15/stem.parquet",
        "aggregates/window=1h/city=razlog/date=2023-11-15/stem.parquet",
        "alerts/city=razlog/date=2023-11-15/stem.parquet",
        "late/city=razlog/date=2023-11-15/stem.parquet",
        "quarantine/city=_unknown/date=2023-11-15/stem.parquet",
        "quarantine/city=razlog/date=2023-11-15/stem.parquet",
        "readings/city=nevers/date=2023-11-14/stem.parquet",
        "readings/city=razlog/date=2023-11-15/stem.parquet",
    ]
    assert len({file.staged for file in files.values()}) == len(files)
    for final, file in files.items():
        assert file.dataset == final.split("/")[0]


def test_files_have_the_published_schema_without_hive_columns(
    store: LocalStore,
) -> None:
    made = writer()
    made.append(
        emission(
            [reading(10)], [part([1.0])], [late_row(11)], [refused(12)], [alert(13)]
        )
    )

    for file in _write(made, store).values():
        assert _read(store, file).schema.equals(PUBLISHED[file.dataset]), file.dataset


def test_an_entry_tells_size_sha256_rows_and_offsets(store: LocalStore) -> None:
    made = writer()
    made.append(
        emission([reading(12), reading(13, ordinal=1), reading(17)], [part([1.0])])
    )

    files = {file.dataset: file for file in _write(made, store).values()}

    file = files["readings"]
    data = Path(store.local_path(file.staged)).read_bytes()
    assert (file.rows, file.first_offset, file.last_offset) == (3, 12, 17)
    assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    aggregates = files["aggregates"]
    assert (aggregates.first_offset, aggregates.last_offset) == (10, 19)


def test_a_file_says_how_it_was_made(store: LocalStore) -> None:
    made = writer(code_version="1.2", definition="abc")
    made.append(emission([reading(10)], quarantine=[refused(11, city="_unknown")]))

    said = {}
    for file in _write(made, store).values():
        metadata = pq.read_schema(store.local_path(file.staged)).metadata
        said[file.dataset] = {
            k.decode(): v.decode() for k, v in metadata.items() if k != b"ARROW:schema"
        }

    assert said["readings"] == {
        "streamproc.dataset": "readings",
        "streamproc.job": "region",
        "streamproc.code_version": "1.2",
        "streamproc.definition": "abc",
        "streamproc.timezone": "Europe/Sofia",
    }
    assert said["quarantine"]["streamproc.timezone"] == "UTC"


def test_files_tell_the_definition_that_was_described_last(store: LocalStore) -> None:
    made = writer(definition="old")
    made.describe(
        FileFacts("region", "1", "new", ZONES), lambda city, us: date(2000, 1, 1)
    )
    made.append(emission([reading(10)], alerts=[alert(10)]))

    files = _write(made, store)

    assert "alerts/city=razlog/date=2000-01-01/stem.parquet" in files
    for file in files.values():
        metadata = pq.read_schema(store.local_path(file.staged)).metadata
        assert metadata[b"streamproc.definition"] == b"new"


def test_rows_of_one_city_and_date_keep_the_order_of_arrival(store: LocalStore) -> None:
    made = writer()
    cities = ["razlog", "nevers", "ange"]
    for start in (0, 40):
        rows = [
            reading(i, city=cities[i % 3], value=-i) for i in range(start, start + 40)
        ]
        made.append(emission(rows))

    for file in _write(made, store).values():
        offsets = _read(store, file)["offset"].to_numpy()
        assert (np.diff(offsets) > 0).all()
        assert len(offsets) == file.rows


def test_a_file_carries_only_the_names_it_uses(store: LocalStore) -> None:
    names = pa.array([f"device-{i}" for i in range(5000)])
    rows = [reading(i, city="razlog" if i % 2 else "nevers") for i in range(10)]
    plain = batch(rows, ROUTED_READING)
    codes = pa.array([4000 + i for i in range(10)], pa.int32())
    index = plain.schema.get_field_index("device")
    wide = plain.set_column(
        index, plain.schema.field(index), pa.DictionaryArray.from_arrays(codes, names)
    )
    made = writer()
    made.append(replace(emission(), readings=wide))

    files = _write(made, store)

    found = _read(store, files["readings/city=razlog/date=2023-11-15/stem.parquet"])
    dictionary = _names(found["device"])
    assert dictionary == [
        "device-4001",
        "device-4003",
        "device-4005",
        "device-4007",
        "device-4009",
    ]
    assert found["device"].to_pylist() == dictionary


def _names(column: Any) -> list[Any]:
    (chunk,) = column.chunks
    return list(chunk.dictionary.to_pylist())


def test_batches_with_different_dictionaries_are_told_apart(store: LocalStore) -> None:
    made = writer()
    made.append(emission([reading(0, device="a"), reading(1, device="b")]))
    made.append(emission([reading(2, device="b"), reading(3, device="c")]))
    made.append(emission([reading(4, device="c"), reading(5, device="a")]))

    (file,) = _write(made, store).values()

    assert _read(store, file)["device"].to_pylist() == ["a", "b", "b", "c", "c", "a"]


def test_nulls_of_aggregates_survive_the_scatter(store: LocalStore) -> None:
    made = writer()
    rows = [
        part([1.0, 2.0], device="x"),
        part([], device="x", coverage=None, invalid=3),
        part([5.0], city="nevers", partial=True),
        part([4.0], device="y", sketch=b"abc"),
    ]
    made.append(emission(aggregates=rows))

    files = _write(made, store)

    table = _read(
        store, files["aggregates/window=1h/city=razlog/date=2023-11-15/stem.parquet"]
    )
    assert table["mean"].to_pylist() == [1.5, None, 4.0]
    assert table["sketch"].to_pylist() == [None, None, b"abc"]
    assert table["coverage"].null_count == 1
    other = _read(
        store, files["aggregates/window=1h/city=nevers/date=2023-11-14/stem.parquet"]
    )
    assert other["partial"].to_pylist() == [True]


def test_late_parts_join_the_aggregates_of_the_commit(store: LocalStore) -> None:
    made = writer()
    made.append(emission(aggregates=[part([1.0])]))
    late = emission(aggregates=[part([2.0], part=7, close_reason="late")]).aggregates
    made.append_aggregates(late)

    (file,) = _write(made, store).values()

    assert _read(store, file)["part"].to_pylist() == [0, 7]


def test_alerts_are_filed_under_the_local_date_of_their_event_time(
    store: LocalStore,
) -> None:
    made = writer()
    before_midnight = START_US - 1
    made.append(
        emission(
            alerts=[alert(10), alert(11, 1), alert(12, 2, event_us=before_midnight)]
        )
    )

    files = _write(made, store)

    rows = {f: file.rows for f, file in files.items()}
    assert rows == {
        "alerts/city=razlog/date=2023-11-14/stem.parquet": 1,
        "alerts/city=razlog/date=2023-11-15/stem.parquet": 2,
    }
    first = files["alerts/city=razlog/date=2023-11-15/stem.parquet"]
    assert _read(store, first)["transition"].to_pylist() == [0, 1]
    assert (first.first_offset, first.last_offset) == (10, 11)


def test_what_is_held_is_counted_and_forgotten_after_a_write(store: LocalStore) -> None:
    made = writer()
    assert made.buffered() == (0, 0)
    made.append(emission([reading(10), reading(11)], alerts=[alert(10)]))
    rows, size_bytes = made.buffered()
    assert rows == 3
    assert size_bytes > 2 * 50

    _write(made, store)

    assert made.buffered() == (0, 0)
    assert not _write(made, store)


def test_a_shared_dictionary_counts_once_in_what_is_held() -> None:
    names = pa.array(["x" * 1000])
    plain = batch([reading(0)], ROUTED_READING)
    index = plain.schema.get_field_index("device")
    column = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), names)
    shared = plain.set_column(index, plain.schema.field(index), column)
    made = writer()
    for _ in range(10):
        made.append(replace(emission(), readings=shared))

    assert 1000 < made.buffered()[1] < 3000


def test_clear_drops_what_is_held(store: LocalStore) -> None:
    made = writer()
    made.append(emission([reading(10)], alerts=[alert(10)]))

    made.clear()

    assert not _write(made, store)


@pytest.mark.fault(
    "F24",
    how="ENOSPC while Parquet is written",
    seen="a fault of the store, rows are kept",
)
def test_a_full_disk_is_a_store_fault_and_nothing_is_forgotten(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = writer()
    made.append(emission([reading(10)]))

    class FullDisk(LocalStore):
        def stage(self, path: str, content: Content) -> int:
            msg = "disk full"
            raise StoreFault(msg)

    class FullLater(LocalStore):
        def settle(self) -> None:
            msg = "disk full"
            raise StoreFault(msg)

    for kind in (FullDisk, FullLater):
        full = kind(Path(store.local_path(kind.__name__)), ballast_bytes=0)
        with pytest.raises(StoreFault, match="disk full"):
            _write(made, full)
        assert made.buffered()[0] == 1

    assert len(_write(made, store)) == 1


def test_a_file_larger_than_its_row_groups_stays_one_file(store: LocalStore) -> None:
    made = ParquetWriter(
        FileFacts("region", "1", "x", ZONES), date_of, ParquetOptions(row_group_rows=4)
    )
    made.append(emission([reading(i) for i in range(10)]))

    (file,) = _write(made, store).values()

    metadata = pq.read_metadata(store.local_path(file.staged))
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [
        4,
        4,
        2,
    ]


def test_row_groups_are_also_bounded_in_bytes(store: LocalStore) -> None:
    options = ParquetOptions(row_group_bytes=100_000)
    made = ParquetWriter(FileFacts("region", "1", "x", ZONES), date_of, options)
    rows = [refused(i, payload=b"x" * 50_000, payload_bytes=50_000) for i in range(6)]
    made.append(emission(quarantine=rows))

    (file,) = _write(made, store).values()

    assert pq.read_metadata(store.local_path(file.staged)).num_row_groups == 6


@pytest.mark.parametrize("codec", ["zstd", "lz4", "none"])
def test_statistics_are_kept_on_time_and_value_only(
    store: LocalStore, codec: str
) -> None:
    made = ParquetWriter(
        FileFacts("region", "1", "x", ZONES),
        date_of,
        ParquetOptions(codec=codec),  # type: ignore[arg-type]  # parametrised
    )
    made.append(emission([reading(i) for i in range(10)]))

    (file,) = _write(made, store).values()

    group = pq.read_metadata(store.local_path(file.staged)).row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    kept = {c.path_in_schema for c in columns if c.is_stats_set}
    assert kept == {"event_time", "value"}
    expected = {"zstd": "ZSTD", "lz4": "LZ4", "none": "UNCOMPRESSED"}[codec]
    assert {c.compression for c in columns} == {expected}


@pytest.mark.parametrize(("codec", "plain"), [("lz4", True), ("none", False)])
def test_constants_are_plain_where_a_codec_makes_nothing_of_them(
    store: LocalStore, codec: str, plain: bool
) -> None:
    made = ParquetWriter(
        FileFacts("region", "1", "x", ZONES),
        date_of,
        ParquetOptions(codec=codec),  # type: ignore[arg-type]  # parametrised
    )
    made.append(emission([reading(i, flags=i % 2) for i in range(10)]))

    (file,) = _write(made, store).values()

    group = pq.read_metadata(store.local_path(file.staged)).row_group(0)
    columns = {
        group.column(i).path_in_schema: group.column(i).has_dictionary_page
        for i in range(group.num_columns)
    }
    assert columns["flags"]
    assert columns["quality"] is not plain
    assert columns["ordinal"] is not plain


def test_values_that_never_repeat_are_written_without_a_dictionary(
    store: LocalStore,
) -> None:
    made = writer()
    spread = np.random.default_rng(5).normal(size=10_000)
    made.append(emission([reading(i, value=float(v)) for i, v in enumerate(spread)]))

    (file,) = _write(made, store).values()

    group = pq.read_metadata(store.local_path(file.staged)).row_group(0)
    (column,) = (
        group.column(i)
        for i in range(group.num_columns)
        if group.column(i).path_in_schema == "value"
    )
    assert not column.has_dictionary_page
    assert _read(store, file)["value"].to_pylist() == spread.tolist()


def test_a_quarter_of_a_million_rows_need_little_more_memory_than_they_have(
    store: LocalStore,
) -> None:
    one = [reading(i, city=("razlog", "nevers")[i % 2]) for i in range(1000)]
    made = writer()
    for _ in range(250):
        made.append(emission(one))
    held = made.buffered()[1]
    before = pa.total_allocated_bytes()
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    _write(made, store)

    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before) * 1024
    assert grown < 6 * held + (64 << 20)
    assert pa.total_allocated_bytes() <= before


def test_polars_duckdb_and_pandas_read_a_written_tree_alike(
    store: LocalStore, tmp_path: Path
) -> None:
    made = writer()
    cities = list(ZONES)
    rows = [
        reading(i, city=cities[i % 4], event_time=START_US + i * 7_200_000_000)
        for i in range(100)
    ]
    made.append(emission(rows, [part([float(i)], device=f"d{i}") for i in range(5)]))
    for file in _write(made, store).values():
        store.publish(file.staged, file.final, file.size, file.sha256)
    root = tmp_path / "root"

    by_polars = (
        pl.scan_parquet(root / "readings", hive_partitioning=True)
        .group_by("city")
        .agg(pl.col("value").sum(), pl.len().alias("rows"))
        .sort("city")
        .collect()
        .rows()
    )
    by_duckdb = duckdb.execute(
        f"""SELECT city, sum(value), count(*)
        FROM read_parquet('{root}/readings/*/*/*.parquet', hive_partitioning = true)
        GROUP BY city ORDER BY city"""  # noqa: S608  (a path of this test)
    ).fetchall()
    frame = pd.read_parquet(root / "readings")
    by_pandas = frame.groupby("city", observed=True)["value"].agg(["sum", "size"])

    assert by_polars == by_duckdb
    assert [
        (c, *v) for c, v in zip(by_pandas.index, by_pandas.to_numpy(), strict=True)
    ] == by_polars
    assert sum(row[2] for row in by_polars) == 100
    assert len(pd.read_parquet(root / "aggregates")) == 5


# --- derived files --------------------------------------------------------------------


def test_properties_are_written_in_the_published_schema_and_sorted(
    store: LocalStore,
) -> None:
    write_properties(store, DEFINITION)

    table = pq.read_table(store.local_path(PROPERTIES))
    assert table.schema.equals(PROPERTY)
    assert table.to_pylist() == [
        {
            "property": "lid",
            "unit": "1",
            "name": None,
            "range_low": None,
            "range_high": None,
            "states": [("closed", 0.0), ("open", 1.0)],
        },
        {
            "property": "pm10",
            "unit": "ug/m3",
            "name": "Particles",
            "range_low": 0.0,
            "range_high": 1000.0,
            "states": None,
        },
    ]


def test_equal_definitions_give_equal_properties_bytes() -> None:
    twin = type(DEFINITION).from_canonical(DEFINITION.canonical())

    assert properties_parquet(twin) == properties_parquet(DEFINITION)
