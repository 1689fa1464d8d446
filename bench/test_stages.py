"""What each stage costs, one core; divide by `extra_info["rows"]` for ns per reading.

Floors to compare with are in the shared HOT_PATH.md; this suite only measures.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import workloads as w
from streamproc.codecs.select import make_decoder
from streamproc.codecs.strict import FieldOptions
from streamproc.codecs.wire_schemas import READING_AVSC, READING_PROTO
from streamproc.connectors.local_store import LocalStore
from streamproc.connectors.parquet_sink import FileFacts, ParquetWriter
from streamproc.core.ports import Decoder, StagedFile, WireSchema
from streamproc.core.processor import PartitionProcessor
from streamproc.core.sketch import encode, merge, quantile
from streamproc.core.values import Emission, OffsetSpan

ROWS = 50_000
ZONES = {"razlog": ZoneInfo("Europe/Sofia")}


def per_row(benchmark: BenchmarkFixture, rows: int) -> None:
    benchmark.extra_info["rows"] = rows
    if benchmark.stats is not None:
        nanoseconds = benchmark.stats.stats.median / rows * 1e9
        benchmark.extra_info["ns_per_reading"] = round(nanoseconds, 1)


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def in_rounds(
    benchmark: BenchmarkFixture,
    function: Callable[..., object],
    setup: Callable[[], Arguments] | None,
    rounds: int,
) -> None:
    """Time one call a round, on arguments made afresh."""
    pedantic: Any = benchmark.pedantic
    pedantic(function, setup=setup, rounds=rounds, iterations=1)


def decoder_of(name: str) -> Decoder:
    if name == "protobuf":
        decoder = make_decoder("protobuf", FieldOptions(time="time_us", time_unit="us"))
        decoder.learn(1, WireSchema("protobuf", READING_PROTO))
    elif name == "avro":
        decoder = make_decoder("avro")
        decoder.learn(1, WireSchema("avro", READING_AVSC))
    elif name == "json":
        decoder = make_decoder("json")
    elif name == "packed":
        decoder = make_decoder("packed", w.PACKED)
    elif name == "chirpstack":
        decoder = make_decoder("chirpstack", w.UPLINKS)
    else:
        decoder = make_decoder("arrow")
    return decoder


@pytest.mark.parametrize(
    "name", ["json", "avro", "protobuf", "arrow", "packed", "chirpstack"]
)
def test_decode(benchmark: BenchmarkFixture, name: str) -> None:
    decoder = decoder_of(name)
    records = w.records(w.encoded(name, ROWS, 10_000))
    assert decoder.decode(records).readings.num_rows == ROWS

    benchmark(decoder.decode, records)

    per_row(benchmark, ROWS)


FETCH_ROWS = 20_000
"""What one fetch hands over at most (`records_max`)."""


class Folding:
    """A processor whose series are all known, fed fetch by fetch in order of time.

    Every device reports once a minute, so each reading opens a window of a minute and
    closes the one before: the most closing there can be.
    """

    def __init__(self, profile: str, series: int) -> None:
        self.processor = PartitionProcessor(w.ORIGIN, w.definition(profile), ZONES)
        self._series = series
        self._lap = 0
        for _ in range(2 + series // FETCH_ROWS):
            (records, decoded, now_us), _ = self.next()
            self.processor.step(records, decoded, now_us)
        assert self.processor.series_count == series

    def next(self) -> Arguments:
        """Return the arguments of the next step."""
        self._lap += 1
        return (*w.decoded(FETCH_ROWS, self._series, self._lap - 1), 0), {}


@pytest.mark.parametrize("series", [10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("profile", ["core", "full"])
def test_fold(benchmark: BenchmarkFixture, profile: str, series: int) -> None:
    folding = Folding(profile, series)

    in_rounds(benchmark, folding.processor.step, folding.next, 40)

    benchmark.extra_info["state_bytes_per_series"] = round(
        folding.processor.state_bytes / max(1, folding.processor.series_count)
    )
    per_row(benchmark, FETCH_ROWS)


def test_sketch_encode(benchmark: BenchmarkFixture) -> None:
    values = np.random.default_rng(1).gamma(4.0, 7.0, 3_600)

    benchmark(encode, values)

    per_row(benchmark, 3_600)


def test_sketch_merge_a_day_of_hours(benchmark: BenchmarkFixture) -> None:
    rng = np.random.default_rng(1)
    hours = [encode(rng.gamma(4.0, 7.0, 3_600)) for _ in range(24)]

    merged = benchmark(merge, hours)

    assert quantile(merged, 0.5) > 0


def test_close_a_window_of_100_000_series(benchmark: BenchmarkFixture) -> None:
    series = 100_000

    def loaded() -> Arguments:
        processor = PartitionProcessor(w.ORIGIN, w.definition("core"), ZONES)
        records, decoded = w.decoded(series, series)
        processor.step(records, decoded, 0)
        return (processor,), {}

    def close(processor: PartitionProcessor) -> int:
        closed = sum(
            processor.take(timer, 0).aggregates.num_rows
            for timer in processor.finals(series)
        )
        assert closed >= 0.9 * series  # the rest closed while loading
        return closed

    in_rounds(benchmark, close, loaded, 5)

    per_row(benchmark, series)


def emitted(rows: int, cities: int) -> list[Emission]:
    """Return what a commit of `rows` readings holds: one emission a fetch."""
    processor = PartitionProcessor(w.ORIGIN, w.definition("core"), ZONES)
    laps = range(-(-rows // FETCH_ROWS))
    emissions = [processor.step(*w.decoded(FETCH_ROWS, 10_000, lap), 0) for lap in laps]
    return [
        replace(
            emission,
            readings=spread_over(emission.readings, cities),
            aggregates=spread_over(emission.aggregates, cities),
        )
        for emission in emissions
    ]


def spread_over(rows: pa.RecordBatch, cities: int) -> pa.RecordBatch:
    """Give each device one of `cities`."""
    device: Any = rows.column("device")
    names = pa.array([f"city-{n}" for n in range(cities)])
    codes = pa.array(device.indices.to_numpy() % cities, pa.int32())
    at = rows.schema.get_field_index("city")
    column = pa.DictionaryArray.from_arrays(codes, names)
    return rows.set_column(at, rows.schema.field(at), column)


@pytest.mark.parametrize("cities", [1, 64])
@pytest.mark.parametrize("rows", [100_000, 1_000_000])
@pytest.mark.parametrize("dataset", ["readings", "aggregates"])
def test_write(
    benchmark: BenchmarkFixture, tmp_path: Path, dataset: str, rows: int, cities: int
) -> None:
    emissions = [
        replace(
            emission,
            readings=emission.readings.slice(0, None if dataset == "readings" else 0),
            aggregates=emission.aggregates.slice(
                0, None if dataset == "aggregates" else 0
            ),
        )
        for emission in emitted(rows, cities)
    ]
    store = LocalStore(tmp_path)
    laps = iter(range(10**6))
    written: list[StagedFile] = []

    def write() -> None:
        writer = make_writer()
        for emission in emissions:
            writer.append(emission)
        lap = next(laps)
        written[:] = writer.write(
            store, f"_streamproc/staging/{lap}", f"t-p0-n{lap}", OffsetSpan(0, rows)
        )

    write()
    in_rounds(benchmark, write, None, 5)

    rows_written = sum(file.rows for file in written)
    size = sum(file.size for file in written)
    benchmark.extra_info["bytes_per_row"] = round(size / rows_written, 2)
    per_row(benchmark, rows_written)


def make_writer() -> ParquetWriter:
    facts = FileFacts("bench", "bench", "0" * 64, {"razlog": "Europe/Sofia"})
    return ParquetWriter(facts, lambda _city, _us: date(2026, 3, 1))
