"""A day of 64 partitions, as the service's defaults cut it, ends in few files."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from streamproc.analytics.files import date_files
from streamproc.app.keeping import compact
from streamproc.core.chain import Genesis
from streamproc.core.definition import CitySpec, Definition, WindowSpec
from streamproc.core.flush import FlushPolicy, FlushReason, SnapshotPolicy
from streamproc.core.payloads import Payloads
from streamproc.core.values import OffsetSpan, Records, TopicPartition
from streamproc.runtime.worker import PartitionWorker
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.compaction import visible_paths
from tests.support.service import HOT, MINUTE_US, WARM, Rig, definition

PARTITIONS = 64
FILES_MAX = 5_000
DAY_MINUTES = 1_440
START_US = int(datetime(2026, 1, 15, tzinfo=UTC).timestamp()) * 1_000_000
SEVEN = {
    "fundao": "Europe/Lisbon",
    "ange": "Europe/Stockholm",
    "dodoni": "Europe/Athens",
    "jelgava": "Europe/Riga",
    "kezmarok": "Europe/Bratislava",
    "nevers": "Europe/Paris",
    "razlog": "Europe/Sofia",
}
WINDOWS = (
    WindowSpec("1m", MINUTE_US, MINUTE_US, 30_000_000, (0.5, 0.95)),
    WindowSpec("1h", 60 * MINUTE_US, 60 * MINUTE_US, 5 * MINUTE_US),
)


def seven_towns() -> Definition:
    return definition(
        cities=tuple(CitySpec(slug, slug, zone) for slug, zone in SEVEN.items()),
        topic_cities=tuple((f"telemetry.{slug}", slug) for slug in SEVEN),
        windows=WINDOWS,
        rules=(HOT, WARM),
    )


def origins() -> list[TopicPartition]:
    slugs = list(SEVEN)
    return [
        TopicPartition(f"telemetry.{slugs[n % 7]}", n // 7) for n in range(PARTITIONS)
    ]


def minute(origin: TopicPartition, number: int) -> Records:
    """Return a reading of each of two devices, one in fifty late, and now and then garbage."""
    values = []
    for device in range(2):
        late_us = 90 * MINUTE_US if number % 50 == 49 else 0
        document = {
            "device": f"{origin.topic}-{origin.partition}-{device}",
            "property": "temperature",
            "time": (START_US + number * MINUTE_US + device - late_us) // 1000,
            "value": 15 + number % 10 + 20 * (number % 400 == 399),
        }
        values.append(json.dumps(document).encode())
    if number % 100 == 0:
        values[1] = b"{nonsense"
    first = 2 * number
    return Records(
        origin,
        np.arange(first, first + 2, dtype=np.int64),
        np.full(2, START_US + number * MINUTE_US, np.int64),
        Payloads.of(values),
        Payloads.nulls(2),
        OffsetSpan(first, first + 2),
    )


def opened(rig: Rig) -> Iterator[PartitionWorker]:
    for origin in origins():
        worker = rig.make_worker(origin, f"{origin.topic}-1")
        worker.open(rig.definition, lambda: Genesis(0, "a day"))
        yield worker


def run(root: Path, minutes: int) -> None:
    """Let 64 workers with default policies live so long, then restart them once."""
    clock = ManualClock()
    source = ScriptedSource({origin.topic: 10 for origin in origins()})
    rig = Rig(
        root, source, clock,
        definition=seven_towns(), flush=FlushPolicy(), snapshot=SnapshotPolicy(),
    )  # fmt: skip
    workers = list(opened(rig))
    for number in range(minutes):
        for worker in workers:
            records = minute(worker.origin, number)
            worker.step(records, rig._decoder(worker.origin.topic).decode(records))
        clock.advance(60)
        for worker in workers:
            reason = worker.due()
            assert reason is FlushReason.AGE
            worker.commit(reason)
    for worker in workers:
        worker.decide(worker.finals())
        worker.commit(FlushReason.DRAIN)
    list(opened(rig))


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are counted here; to wait until half a million are durable would take an hour."""
    monkeypatch.setattr("streamproc.connectors.local_store.os.fsync", lambda _: None)


def counted(root: Path) -> tuple[int, Counter[str]]:
    """Return visible files, and rows by dataset."""
    rows: Counter[str] = Counter()
    for found in date_files(root):
        rows[found.dataset] += found.rows
    return len(visible_paths(root)), rows


def compacted(root: Path, minutes: int) -> None:
    run(root, minutes)
    before, rows = counted(root)
    last = date(2026, 1, 15) + timedelta(days=2)
    rig = Rig(root, ScriptedSource({"t": 1}), ManualClock())

    outcomes = list(compact(rig.store, "test", last, env={}))

    after, same = counted(root)
    print(f"{minutes} minutes: {before} files, then {after}; {dict(rows)}")  # noqa: T201  (figures for the reader of -s)
    assert {outcome.what for outcome in outcomes} == {"compacted"}
    assert before > PARTITIONS * minutes * 1.5
    assert after == len(outcomes) <= FILES_MAX
    assert same == rows
    assert rows["readings"] >= PARTITIONS * minutes * 1.9
    assert rows["quarantine"]


def test_a_quarter_of_an_hour_of_64_partitions_ends_in_few_files(
    tmp_path: Path,
) -> None:
    compacted(tmp_path, 15)


@pytest.mark.long
def test_a_day_of_64_partitions_ends_in_at_most_5000_files(tmp_path: Path) -> None:
    compacted(tmp_path, DAY_MINUTES)
