"""What each stage costs, one core; divide by `extra_info["rows"]` for ns per reading.

Floors to compare with are in the shared HOT_PATH.md; this suite only measures.
"""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import workloads as w
from streamproc.codecs.select import make_decoder
from streamproc.codecs.strict import FieldOptions
from streamproc.codecs.wire_schemas import READING_AVSC, READING_PROTO
from streamproc.connectors.local_store import LocalStore
from streamproc.connectors.parquet_sink import FileFacts, ParquetWriter
from streamproc.core.ports import Decoder, WireSchema
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


def decoder_of(name: str) -> Decoder:
    if name == "protobuf":
        decoder = make_decoder("protobuf", FieldOptions(time="time_us", time_unit="us"))
        decoder.learn(1, WireSchema("protobuf", READING_PROTO))
    elif name == "avro":
        decoder = make_decoder("avro")
        decoder.learn(1, WireSchema("avro", READING_AVSC))
    elif name == "json":
        decoder = make_decoder("json")
    else:
        decoder = make_decoder("arrow")
    return decoder


@pytest.mark.parametrize("name", ["json", "avro", "protobuf", "arrow"])
def test_decode(benchmark: BenchmarkFixture, name: str) -> None:
    decoder = decoder_of(name)
    records = w.records(w.encoded(name, ROWS, 10_000))
    assert decoder.decode(records).readings.num_rows == ROWS

    benchmark(decoder.decode, records)

    per_row(benchmark, ROWS)


class Folding:
    """A processor that is fed one lap after the other, so that windows really close."""

    def __init__(self, profile: str, series: int) -> None:
        self.processor = PartitionProcessor(w.ORIGIN, w.definition(profile), ZONES)
        self.laps = self._laps(series)
        rows = max(ROWS, series)
        for _ in range(max(1, series // rows)):
            self()

    @staticmethod
    def _laps(series: int) -> Iterator[tuple[object, object]]:
        lap = 0
        while True:
            yield w.decoded(ROWS, series, lap)
            lap += 1

    def next(self) -> tuple[tuple[object, ...], dict[str, object]]:
        records, decoded = next(self.laps)
        return (records, decoded, 0), {}

    def __call__(self) -> Emission:
        arguments, _ = self.next()
        step: Callable[..., Emission] = self.processor.step
        return step(*arguments)


@pytest.mark.parametrize("series", [10_000, 1_000_000])
@pytest.mark.parametrize("profile", ["core", "full"])
def test_fold(benchmark: BenchmarkFixture, profile: str, series: int) -> None:
    folding = Folding(profile, series)

    benchmark.pedantic(folding.processor.step, setup=folding.next, rounds=20, iterations=1)

    benchmark.extra_info["state_bytes_per_series"] = round(
        folding.processor.state_bytes / max(1, folding.processor.series_count)
    )
    per_row(benchmark, ROWS)


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

    def loaded() -> tuple[tuple[PartitionProcessor], dict[str, object]]:
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

    benchmark.pedantic(close, setup=loaded, rounds=5, iterations=1)

    per_row(benchmark, series)


@pytest.mark.parametrize("rows", [ROWS, 1_000_000])
def test_write(benchmark: BenchmarkFixture, tmp_path: Path, rows: int) -> None:
    processor = PartitionProcessor(w.ORIGIN, w.definition("core"), ZONES)
    emission = processor.step(*w.decoded(rows, 10_000), 0)
    store = LocalStore(tmp_path)
    laps = iter(range(10**6))

    def write() -> None:
        writer = make_writer()
        writer.append(emission)
        lap = next(laps)
        writer.write(store, f"_streamproc/staging/{lap}", f"t-p0-n{lap}", OffsetSpan(0, rows))

    benchmark.pedantic(write, rounds=5, iterations=1, warmup_rounds=1)

    per_row(benchmark, rows)


def make_writer() -> ParquetWriter:
    facts = FileFacts("bench", "bench", "0" * 64, {"razlog": "Europe/Sofia"})
    return ParquetWriter(facts, lambda _city, _us: date(2026, 3, 1))
