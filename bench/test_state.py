"""What commits, snapshots and alerts cost, and what the state takes."""

import hashlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import workloads as w
from bench.test_stages import ZONES, Arguments, in_rounds, per_row
from streamproc.connectors.local_store import LocalStore
from streamproc.core.chain import Draft, Genesis, LogIdentity
from streamproc.core.definition import STATE_VERSION, Definition, RuleSpec
from streamproc.core.ports import StagedFile
from streamproc.core.processor import PartitionProcessor
from streamproc.core.record import log_folder
from streamproc.core.values import OffsetSpan
from streamproc.runtime.partition_log import PartitionLog, read_tables, write_tables

SERIES = 100_000
FILES = 5


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[PartitionLog, LocalStore]]:
    store = LocalStore(tmp_path)
    identity = LogIdentity("bench", w.TOPIC, "id", 0, "me", "bench", STATE_VERSION)
    numbers = count()
    folder = log_folder("bench", w.TOPIC, "id", 0)
    opened = PartitionLog(store, folder, identity, lambda: f"{next(numbers):08d}")
    opened.open(w.definition("core"), lambda: Genesis(0, "start = earliest"))
    yield opened, store
    store.close()


def test_commit_of_five_small_files(
    benchmark: BenchmarkFixture, log: tuple[PartitionLog, LocalStore]
) -> None:
    commits, store = log
    content = b"x" * 10_000

    def commit() -> None:
        folder, next_offset = commits.staging(), commits.head.next
        span = OffsetSpan(next_offset, next_offset + 1000)
        files = [
            staged(
                store, f"{folder}/{n}", f"readings/f{n}-{commits.stem(span)}", content
            )
            for n in range(FILES)
        ]
        commits.commit(Draft("commit", span.end, files))
        commits.publish()
        commits.clean()

    in_rounds(benchmark, commit, None, 30)


def staged(store: LocalStore, place: str, final: str, content: bytes) -> StagedFile:
    return StagedFile(
        staged=place,
        final=final,
        size=store.stage(place, content),
        rows=1,
        sha256=hashlib.sha256(content).hexdigest(),
        dataset="readings",
        first_offset=0,
        last_offset=0,
    )


def loaded(definition: Definition, laps: int = 2) -> PartitionProcessor:
    """Return a processor of `SERIES` series that has seen each `laps` times."""
    processor = PartitionProcessor(w.ORIGIN, definition, ZONES)
    for lap in range(laps):
        processor.step(*w.decoded(SERIES, SERIES, lap), 0)
    return processor


@pytest.mark.parametrize("profile", ["core", "full"])
def test_snapshot_of_100_000_series(benchmark: BenchmarkFixture, profile: str) -> None:
    processor = loaded(w.definition(profile))

    def snapshot() -> int:
        out = pa.BufferOutputStream()
        write_tables(processor.snapshot(), out)
        return out.getvalue().size

    size = benchmark(snapshot)

    benchmark.extra_info["snapshot_bytes"] = size
    per_row(benchmark, SERIES)


@pytest.mark.parametrize("profile", ["core", "full"])
def test_restore_of_100_000_series(benchmark: BenchmarkFixture, profile: str) -> None:
    definition = w.definition(profile)
    processor = loaded(definition)
    out = pa.BufferOutputStream()
    write_tables(processor.snapshot(), out)
    data = out.getvalue().to_pybytes()

    def restore() -> PartitionProcessor:
        tables = read_tables(data)
        return PartitionProcessor.restore(w.ORIGIN, definition, ZONES, tables, 0)

    restored = benchmark(restore)

    assert restored.series_count == processor.series_count
    per_row(benchmark, SERIES)


RULES: dict[str, tuple[RuleSpec, ...]] = {
    "none": (),
    "never": (RuleSpec("r", "pm10", None, "value > 9e9", None, 0, "info"),),
    "ten": tuple(
        RuleSpec(f"r{n}", "pm10", None, f"value > {900 + n}", None, n, "info", 10**12)
        for n in range(10)
    ),
    "often": (RuleSpec("r", "pm10", None, "value > 28", "value < 20", 0, "info"),),
}


@pytest.mark.parametrize("rules", RULES)
def test_fold_with_rules(benchmark: BenchmarkFixture, rules: str) -> None:
    """The difference to `none` is what alerts cost; `often` fires for two in five."""
    rows, devices = 50_000, 10_000
    definition = w.with_rules(w.definition("core"), RULES[rules])
    processor = PartitionProcessor(w.ORIGIN, definition, ZONES)
    lap = count()

    def batch() -> Arguments:
        return (*w.decoded(rows, devices, next(lap)), 0), {}

    processor.step(*batch()[0])
    step: Callable[..., object] = processor.step

    in_rounds(benchmark, step, batch, 20)

    per_row(benchmark, rows)


@pytest.mark.parametrize("windows", [1, 4, 16])
def test_fold_with_many_windows_open(benchmark: BenchmarkFixture, windows: int) -> None:
    """Lateness keeps `windows` minutes open at once; the cost should not follow."""
    rows, devices = 50_000, 10_000
    definition = w.with_lateness(w.definition("core"), windows)
    processor = PartitionProcessor(w.ORIGIN, definition, ZONES)
    lap = count()

    def batch() -> Arguments:
        return (*w.decoded(rows, devices, next(lap)), 0), {}

    for _ in range(4):
        processor.step(*batch()[0])
    step: Callable[..., object] = processor.step

    in_rounds(benchmark, step, batch, 20)

    per_row(benchmark, rows)
