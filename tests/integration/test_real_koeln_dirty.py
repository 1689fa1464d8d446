"""A dirty copy of Cologne's March against the slow computation, as envelopes and by Kafka.

1 % of the readings are sent twice (a few times with another value), 1 % are invalid (half of
them cannot be decoded at all), 2 % come hours too late. All of it from a seed.
"""

import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from streamproc.testing.kafka_broker import ApacheKafka
from tests.support.real_data import (
    Row,
    assert_once,
    consume,
    frame,
    koeln_march,
    merged_hours,
    on_topic,
    produce,
    replay,
    settings,
    table,
    write_envelopes,
)
from tests.support.slow_windows import (
    CONFLICT,
    DUPLICATE,
    LATE,
    SlowReading,
    SlowWindows,
    slow_windows,
)

PARTITIONS = 2
MINUTE_US = 60_000_000
ROWS_LATE = (700, 12_000)
"""How far a displaced row moves: an hour is some 1,300 rows, so a few stay in time."""
BROKEN = (
    b'{"device":"ST001","property":"traffic_load","time":"2013-03',
    b'{"device":"ST001","property":"traffic_load","time":"2013-03-01T00:00:01Z","value":"high"}',
    b'{"device":"ST001","property":"traffic_load","time":"yesterday","value":1}',
    b'{"device":"ST001","property":"traffic_load","time":"2013-03-01T00:00:01Z","value":NaN}',
    b'{"device":"ST001","property":"trafic_load","time":"2013-03-01T00:00:01Z","value":1}',
    b'{"property":"traffic_load","time":"2013-03-01T00:00:01Z","value":1}',
    b"",
)


@dataclass
class Dirty:
    """Rows in order of sending, and per partition what is to come of them."""

    rows: list[Row] = field(default_factory=list)
    readings: list[list[SlowReading]] = field(
        default_factory=lambda: [[] for _ in range(PARTITIONS)]
    )
    broken: set[tuple[int, int]] = field(default_factory=set)
    slow: list[SlowWindows] = field(default_factory=list)


@dataclass(frozen=True)
class Sent:
    """One row before it has its place."""

    place: float
    device: str
    event_us: int
    value: int
    quality: int = 1
    broken: bytes | None = None

    def payload(self) -> bytes:
        if self.broken is not None:
            return self.broken
        return (
            f'{{"device":"{self.device}","property":"traffic_load",'
            f'"time":{self.event_us // 1000},"value":{self.value},"quality":{self.quality}}}'
        ).encode()


def dirtied(rng: random.Random, rows: list[tuple[str, int, int]]) -> list[Sent]:
    """Return the rows with their dirt, in order of sending."""
    sent = []
    for place, (device, event_us, value) in enumerate(rows):
        draw = rng.random()
        at = float(place)
        quality, broken = 1, None
        if draw < 0.02:
            at += rng.randint(*ROWS_LATE)
        elif draw < 0.025:
            quality = rng.choice((0, -1))
        elif draw < 0.03:
            broken = rng.choice(BROKEN)
        sent.append(Sent(at, device, event_us, value, quality, broken))
        if rng.random() < 0.01:
            other = value + rng.choice((0, 0, 0, 0, 1))
            again = at + rng.choice((0.5, rng.randint(1, 700)))
            sent.append(Sent(again, device, event_us, other))
    return sorted(sent, key=lambda row: row.place)


@pytest.fixture(scope="module")
def dirty() -> Dirty:
    seed = int(
        os.environ.get("STREAMPROC_SEED", "0")
    ) or random.SystemRandom().getrandbits(32)
    print(f"\nseed {seed}")  # noqa: T201  (to repeat it: STREAMPROC_SEED)
    found = (
        duckdb.connect()
        .execute(
            "select identifier, epoch_us(datetime_utc), auslastung from read_csv(?)",
            [str(koeln_march())],
        )
        .fetchall()
    )
    made = Dirty()
    offsets = [0] * PARTITIONS
    for row in dirtied(random.Random(seed), found):
        partition = int(row.device[2:]) % PARTITIONS
        offset = offsets[partition]
        offsets[partition] += 1
        made.rows.append(
            Row(partition, row.event_us, row.payload(), row.device.encode())
        )
        if row.broken is not None:
            made.broken.add((partition, offset))
            continue
        made.readings[partition].append(
            SlowReading(offset, row.device, row.event_us, float(row.value), row.quality)
        )
    made.slow = [
        slow_windows(readings, 60 * MINUTE_US, 5 * MINUTE_US, dedup=2)
        for readings in made.readings
    ]
    return made


def assert_dirt_is_there(made: Dirty) -> None:
    """Check that the copy is as dirty as it should be."""
    flags = Counter(
        bit
        for slow in made.slow
        for flag in slow.flags.values()
        for bit in (LATE, DUPLICATE, CONFLICT)
        if flag & bit
    )
    total = len(made.rows)
    assert flags[LATE] > 0.018 * total
    assert flags[DUPLICATE] > 0.004 * total
    assert flags[CONFLICT] > 0.001 * total
    assert len(made.broken) > 0.004 * total


def assert_as_computed(root: Path, made: Dirty) -> None:
    total = len(made.rows)
    assert_once(root, total, total - len(made.broken), len(made.broken))
    assert_flags(root, made)
    assert_late(root, made)
    assert_parts(root, made)
    assert_merged(root, made)


def partition_of(column: str = "source") -> str:
    return f"regexp_extract({column}::varchar, '/(\\d+)$', 1)::int"


def assert_flags(root: Path, made: Dirty) -> None:
    """Compare every reading: where it came from, what it says, how it is flagged."""
    published = frame(
        f'select {partition_of()} as p, "offset" as o, device::varchar as device,'  # noqa: S608  (paths of this test)
        " epoch_us(event_time) as t, value, quality::int as q, (flags & 7)::int as f"
        f" from {table(root, 'readings')} order by p, o"
    )
    wanted = [
        (
            partition,
            r.offset,
            r.device,
            r.event_us,
            r.value,
            r.quality,
            slow.flags[r.offset],
        )
        for partition, slow in enumerate(made.slow)
        for r in made.readings[partition]
    ]
    expected = pl.DataFrame(wanted, schema=published.schema, orient="row")
    assert published.equals(expected)
    refused = frame(
        f'select {partition_of()} as p, "offset" as o from {table(root, "quarantine")}'  # noqa: S608  (paths of this test)
    )
    assert set(refused.rows()) == made.broken


def assert_late(root: Path, made: Dirty) -> None:
    published = frame(
        f'select {partition_of()} as p, "offset" as o, epoch_us(start) as s, behind_us'  # noqa: S608  (paths of this test)
        f" from {table(root, 'late')} order by p, o"
    )
    wanted = [(p, *row) for p, slow in enumerate(made.slow) for row in slow.late]
    assert published.rows() == sorted(wanted)


def assert_parts(root: Path, made: Dirty) -> None:
    """Check that part 0 holds what was in time and the others what was not."""
    published = frame(
        "select device::varchar as device, epoch_us(start) as s, part = 0 as first,"  # noqa: S608  (paths of this test)
        " sum(count)::bigint as n, sum(invalid)::bigint as i"
        f" from read_parquet('{root}/aggregates/window=1h/*/*/*.parquet') group by all"
    )
    wanted = {
        (*key, first, *counts)
        for slow in made.slow
        for first, parts in ((True, slow.on_time), (False, slow.too_late))
        for key, counts in parts.items()
    }
    assert set(published.rows()) == wanted


def assert_merged(root: Path, made: Dirty) -> None:
    hours = {key: hour for slow in made.slow for key, hour in slow.hours.items()}
    for merged in merged_hours(root):
        keys = merged.select("device", "start_us").rows()
        expected = [hours[key] for key in keys]
        assert len(keys) == len(hours)
        assert merged["count"].to_list() == [hour.counted for hour in expected]
        assert merged["invalid"].to_list() == [hour.invalid for hour in expected]
        for name, column in (
            ("mean", "mean"), ("variance", "variance"), ("low", "min"),
            ("high", "max"), ("first", "first"), ("last", "last"),
        ):  # fmt: skip
            wanted = np.array([getattr(hour, name) for hour in expected], np.float64)
            np.testing.assert_allclose(
                merged[column].fill_null(np.nan).to_numpy(),
                wanted,
                1e-9,
                1e-9,
                err_msg=column,
            )


@pytest.mark.long
async def test_dirty_envelopes_give_what_the_slow_computation_says(
    dirty: Dirty, tmp_path: Path
) -> None:
    assert_dirt_is_there(dirty)
    path = tmp_path / "dirty.ndjson"
    write_envelopes(path, "telemetry.koeln", dirty.rows)
    root = tmp_path / "data"
    chosen = settings("koeln", root, output__flush_rows=150_000)
    totals = await replay(chosen, [path], "Köln dirty, envelopes")
    assert totals.commits > 4
    assert_as_computed(root, dirty)
    again = await replay(chosen, [path], "Köln dirty, envelopes again")
    assert (again.records, again.commits) == (0, 0)


async def test_dirty_records_from_kafka_give_what_the_slow_computation_says(
    dirty: Dirty, kafka: ApacheKafka, tmp_path: Path
) -> None:
    chosen, topic = on_topic(
        "koeln", tmp_path, kafka.connection, "koeln", output__flush_rows=150_000
    )
    await produce(kafka.connection, topic, dirty.rows, PARTITIONS)
    await consume(chosen, "Köln dirty, Kafka")
    assert_as_computed(tmp_path, dirty)
