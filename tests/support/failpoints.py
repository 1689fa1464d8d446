"""What the kill tests share: topics, their records, and the straight run's answer."""

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.core.record import LogRecord
from streamproc.core.values import TopicPartition
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from streamproc.testing.sim_log import LogReader
from tests.support.service import RAZLOG, Rig, closed, definition, published, traffic

COUNT = 1500
TOPICS = {
    RAZLOG: 2,
    "telemetry.signals": 1,
    "telemetry.abandon": 1,
    "telemetry.interrupted-3": 2,
    "telemetry.interrupted-10": 2,
    "telemetry.memory": 2,
    "telemetry.bucket": 2,
    "telemetry.bucket-all": 2,
}


async def fill(
    connection: KafkaConnection,
    topic: str,
    partitions: int,
    count: int,
    devices: int = 3,
) -> None:
    """Produce `traffic` to every partition."""
    async with KafkaProduce(connection) as produce:
        await produce.send(
            [
                Message(topic, value, b"key", partition)
                for partition in range(partitions)
                for value in traffic(count, devices=devices)
            ]
        )


async def straight_run(
    root: Path, topic: str, partitions: int, count: int, devices: int = 3
) -> None:
    """Let an undisturbed service in this process do the same."""
    source = ScriptedSource({topic: partitions}, records_max=100)
    values = traffic(count, devices=devices)
    for partition in range(partitions):
        source.produce(TopicPartition(topic, partition), values)
    options = ServiceOptions(until_end=True, close=True)
    made = definition(topic_cities=((topic, "razlog"),))
    await Rig(root, source, ManualClock(), options=options, definition=made).run()


def assert_same_result(root: Path, straight: Path) -> None:
    """Compare everything that does not depend on where commits cut late parts."""
    for dataset in ("readings", "late", "quarantine"):
        assert _rows(root, dataset) == _rows(straight, dataset), dataset
    assert closed(root) == closed(straight)
    assert _merged(root) == _merged(straight)
    alerts = [_ids(folder) for folder in (root, straight)]
    assert alerts[0] == alerts[1]
    assert alerts[0]


def _rows(root: Path, dataset: str) -> list[dict[str, Any]]:
    # Sorted again without what was left out: the same reading comes from two partitions.
    return sorted(map(_data, published(root, dataset)), key=repr)


def _data(row: dict[str, Any]) -> dict[str, Any]:
    # A scripted record has no broker time, by which quarantine is filed.
    unknown = {"ingest_time", "broker_time"} | ({"date"} if "reason" in row else set())
    return {k: v for k, v in row.items() if k not in unknown}


def _ids(root: Path) -> list[tuple[str, int]]:
    return sorted((r["alert_id"], r["transition"]) for r in published(root, "alerts"))


def _merged(root: Path) -> dict[tuple[Any, ...], tuple[int, float]]:
    found: dict[tuple[Any, ...], list[float]] = defaultdict(lambda: [0, 0.0])
    for row in published(root, "aggregates"):
        keys = ("window", "city", "source", "device", "property", "start")
        cell = found[tuple(row[key] for key in keys)]
        cell[0] += row["count"]
        cell[1] += row["sum"]
    return {key: (int(n), round(total, 6)) for key, (n, total) in found.items()}


def verified_logs(root: Path, *, ended: bool = True) -> dict[str, list[LogRecord]]:
    """Return every log below `root`, its chain and its files checked.

    After something has not `ended` in order, files may still have to be published.
    """
    decoder = msgspec.json.Decoder(LogRecord)
    logs: dict[str, list[LogRecord]] = {}
    named: set[str] = set()
    files = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.glob("_streamproc/*/*/*/[al]*/*")
        if path.is_file()
    }
    for folder in sorted(root.glob("_streamproc/*/*/*/log")):
        home = folder.parent.relative_to(root).as_posix()
        found = LogReader(home).read(files)
        assert found.fault is None, found.fault
        before, digest = None, ""
        for n, data in sorted(found.records.items()):
            record = decoder.decode(data)
            assert record.prev_sha256 == digest, (home, n)
            if before is not None:
                assert (record.n, record.start) == (before.n + 1, before.next), n
            for file in record.files:
                named.add(file.path)
                if not ended and not (root / file.path).exists():
                    continue
                content = (root / file.path).read_bytes()
                assert hashlib.sha256(content).hexdigest() == file.sha256, file.path
            before, digest = record, hashlib.sha256(data).hexdigest()
            logs.setdefault(str(folder), []).append(record)
    visible = {
        str(path.relative_to(root))
        for path in root.rglob("*.parquet")
        if "_streamproc" not in path.parts
    }
    assert visible == named if ended else visible <= named
    return logs


def mailbox(path: Path) -> list[tuple[str, int]]:
    """Return what the alert sink of a child got, in order."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [(found[0], found[1]) for found in map(json.loads, lines)]
