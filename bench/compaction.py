"""What compaction costs and gives: readings per CPU-second, bytes, and one device's day.

    python -m bench.compaction --devices 2000 --commits 480

One city's day is committed as the service commits it (`flush_age = "1m"`: a file a minute and
partition), by the real log and writer; then `readings/` is compacted. CPU time is the
process's, all threads. Queries are timed from the call to the frame, files in the page cache,
median of several; the device is one in the middle of the alphabet.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

from bench.machine import facts
from streamproc.analytics.dataset import open_readings
from streamproc.connectors.compacted_files import FileMerger
from streamproc.connectors.local_store import LocalStore
from streamproc.connectors.parquet_sink import FileFacts, ParquetWriter
from streamproc.core.chain import Draft, Genesis, LogIdentity
from streamproc.core.compaction import Compacting
from streamproc.core.definition import Definition
from streamproc.core.record import RecordCounts, log_folder
from streamproc.core.schemas import (
    ROUTED_AGGREGATE,
    ROUTED_LATE,
    ROUTED_QUARANTINE,
    ROUTED_READING,
)
from streamproc.core.swaps import Unit
from streamproc.core.values import Counts, Emission, OffsetSpan
from streamproc.runtime.compactor import Compactor, Outcome
from streamproc.runtime.partition_log import PartitionLog

DAY = date(2026, 1, 15)
CITY, JOB, TOPIC = "razlog", "bench", "telemetry.razlog"
PROPERTIES = ("humidity", "pm10", "temperature")
UNIT = Unit("readings", "", CITY, DAY)
DEFINITION = Definition(job=JOB, windows=(), rules=(), properties=(), cities=())
HINT_EVERY = 8


def emissions(devices: int, commits: int, partitions: int) -> Iterator[Emission]:
    """Yield a commit's readings, one partition after the other, minute after minute.

    Each device reports each property once per commit; values wander in steps of 0.1.
    """
    names = pa.array([f"razlog-air-{n:06d}" for n in range(devices)])
    rng = np.random.default_rng(1)
    values = np.round(rng.uniform(5, 25, (devices, len(PROPERTIES))), 1)
    start = int(datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC).timestamp() * 1e6)
    step = 86_400_000_000 // commits
    offsets = [0] * partitions
    for number in range(commits):
        values = np.round(values + rng.integers(-2, 3, values.shape) / 10, 1)
        for partition in range(partitions):
            mine = rng.permutation(np.arange(partition, devices, partitions))
            rows = len(mine) * len(PROPERTIES)
            device = np.repeat(mine, len(PROPERTIES)).astype(np.int32)
            kind = np.tile(np.arange(len(PROPERTIES), dtype=np.int32), len(mine))
            event = start + number * step + rng.integers(0, step, len(mine))
            event = np.repeat(np.sort(event), len(PROPERTIES))
            first = offsets[partition]
            offset = first + np.repeat(np.arange(len(mine)), len(PROPERTIES))
            offsets[partition] += len(mine)
            columns: dict[str, Any] = {
                "city": _same(CITY, rows),
                "date": pa.array(
                    np.full(rows, (DAY - date(1970, 1, 1)).days, np.int32)
                ),
                "device": pa.DictionaryArray.from_arrays(device, names),
                "property": pa.DictionaryArray.from_arrays(kind, pa.array(PROPERTIES)),
                "event_time": pa.array(event),
                "value": pa.array(values[device, kind]),
                "quality": pa.array(np.ones(rows, np.int8)),
                "flags": pa.array(np.zeros(rows, np.uint16)),
                "ingest_time": pa.array(event + 40_000),
                "source": _same(f"{TOPIC}/{partition}", rows),
                "offset": pa.array(offset),
                "ordinal": pa.array(kind),
            }
            arrays = [columns[field.name].cast(field.type) for field in ROUTED_READING]
            batch = pa.RecordBatch.from_arrays(arrays, schema=ROUTED_READING)
            yield Emission(
                OffsetSpan(first, offsets[partition]), batch,
                _none(ROUTED_AGGREGATE), _none(ROUTED_LATE), _none(ROUTED_QUARANTINE),
                (), Counts(),
            )  # fmt: skip


def _same(name: str, rows: int) -> "pa.Array[Any]":
    codes: pa.Int32Array = pa.repeat(pa.scalar(0, pa.int32()), rows)
    return pa.DictionaryArray.from_arrays(codes, pa.array([name]))


def _none(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)


def fill(store: LocalStore, devices: int, commits: int, partitions: int) -> int:
    """Commit the day; return its readings."""
    attempts = (f"{n:08d}" for n in count())
    logs = []
    for partition in range(partitions):
        identity = LogIdentity(JOB, TOPIC, "id", partition, "bench", "bench", 1)
        folder = log_folder(JOB, TOPIC, "id", partition)
        logs.append(PartitionLog(store, folder, identity, lambda: next(attempts)))
        logs[-1].open(DEFINITION, lambda: Genesis(0, "bench"))
    last = commits - 1 + HINT_EVERY
    told = FileFacts(JOB, "bench", DEFINITION.sha256(), {CITY: "UTC"})
    total = 0
    for number, made in enumerate(emissions(devices, commits, partitions)):
        log = logs[number % partitions]
        writer = ParquetWriter(told, lambda *_: DAY)
        writer.append(made)
        files = writer.write(store, log.staging(), log.stem(made.span), made.span)
        rows = made.readings.num_rows
        counts = RecordCounts(
            records=len(made.span), decoded=len(made.span), readings=rows
        )
        _commit(log, Draft("commit", made.span.end, tuple(files), counts))
        total += rows
    for log in logs:  # What a restart could still need is not compacted.
        for number in range(commits, last + 1):
            log.staging()
            ref = None
            if number == last:
                ref = log.stage_snapshot({"state": pa.table({"a": [1]})})
            _commit(log, Draft("commit", log.head.next, snapshot=ref))
    return total


def _commit(log: PartitionLog, draft: Draft) -> None:
    log.commit(draft)
    log.publish()
    log.clean()


def measure(store: LocalStore) -> tuple[Outcome, float, float]:
    """Compact the day; return the outcome, CPU and wall seconds."""
    numbers = count()
    compactor = Compactor(
        store,
        Compacting(JOB, "bench", "bench"),
        FileMerger(store, "bench"),
        lambda: f"{next(numbers):08d}",
    )
    cpu, wall = time.process_time(), time.perf_counter()
    compactor.survey()
    outcome = compactor.compact(UNIT)
    return outcome, time.process_time() - cpu, time.perf_counter() - wall


def queries(root: Path, device: str, repeat: int) -> dict[str, float]:
    """Return milliseconds of one device's day, by who is asked."""
    files = f"{root}/readings/*/*/*.parquet"
    one_device = f"select event_time, property, value from read_parquet('{files}', hive_partitioning=true) where device = '{device}'"  # noqa: S608  (a constant of this bench)

    def scan() -> pl.LazyFrame:
        return pl.scan_parquet(files, hive_partitioning=True)

    def chosen(frame: pl.LazyFrame) -> int:
        found = frame.filter(pl.col("device") == device)
        return len(found.select("event_time", "property", "value").collect())

    def by_duckdb() -> int:
        answer = duckdb.sql(one_device)
        assert answer is not None
        return int(answer.to_arrow_table().num_rows)

    asked: dict[str, Callable[[], int]] = {
        "polars, folder": lambda: chosen(scan()),
        "polars, open_readings": lambda: chosen(open_readings(root)),
        "DuckDB, folder": by_duckdb,
    }
    found = {}
    for name, ask in asked.items():
        times = []
        for _ in range(repeat + 1):
            began = time.perf_counter()
            rows = ask()
            times.append((time.perf_counter() - began) * 1000)
            assert rows, name
        found[name] = round(statistics.median(times[1:]), 2)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--commits", type=int, default=480, help="of each partition")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=5, help="of each query")
    parser.add_argument("--output", type=Path, default=Path(".benchmarks"))
    given = parser.parse_args(arguments)
    device = f"razlog-air-{given.devices // 2:06d}"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with closing(LocalStore(root)) as store:
            rows = fill(store, given.devices, given.commits, given.partitions)
            before = queries(root, device, given.repeat)
            outcome, cpu_s, wall_s = measure(store)
            after = queries(root, device, given.repeat)
    assert outcome.what == "compacted", outcome
    assert outcome.rows == rows, (outcome, rows)
    result = {
        "readings": rows,
        "files": [outcome.files, outcome.files_after],
        "bytes_a_reading": [outcome.size_bytes / rows, outcome.bytes_after / rows],
        "readings_per_cpu_s": rows / cpu_s,
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "query_ms": {name: [before[name], after[name]] for name in before},
    }
    print(table(result))
    given.output.mkdir(exist_ok=True)
    order = {key: str(value) for key, value in vars(given).items()}
    document = {"order": order, "machine": facts(), "result": result}
    path = given.output / "compaction.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written: {path}")
    return 0


def table(result: dict[str, Any]) -> str:
    """Return the result for people; before → after where there are two."""
    took = timedelta(seconds=round(result["wall_s"]))
    lines = [
        f"{result['readings']:,} readings, {result['readings_per_cpu_s']:,.0f} per CPU-second, {took}",
        "files      {:>10,} → {:,}".format(*result["files"]),
        "B/reading  {:>10.2f} → {:.2f}".format(*result["bytes_a_reading"]),
    ]
    for name, (before, after) in result["query_ms"].items():
        lines.append(f"one device's day, {name:22} {before:>9.1f} ms → {after:.1f} ms")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
