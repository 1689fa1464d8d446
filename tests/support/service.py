"""A service put together from its parts, without configuration, and what to ask of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (a test reads what was published)

from streamproc.codecs.select import make_decoder
from streamproc.connectors.local_store import LocalStore
from streamproc.connectors.object_client import ObjectOptions
from streamproc.connectors.object_store import ObjectStore
from streamproc.connectors.parquet_sink import FileFacts, ParquetWriter
from streamproc.connectors.refold_reader import read_readings
from streamproc.core.chain import LogIdentity
from streamproc.core.definition import (
    STATE_VERSION,
    CitySpec,
    Definition,
    PropertySpec,
    RuleSpec,
    WindowSpec,
)
from streamproc.core.flush import FlushPolicy, SnapshotPolicy
from streamproc.core.ports import (
    AlertSink,
    Clock,
    Decoder,
    Failpoint,
    SchemaRegistry,
    Source,
    no_failpoint,
)
from streamproc.core.record import LogRecord, log_folder
from streamproc.core.squash import HOUSEKEEPING, Housekeeping
from streamproc.core.values import AlertTransition, Emission, Records, TopicPartition
from streamproc.errors import Unreachable
from streamproc.runtime.observer import Observer, Observers
from streamproc.runtime.outbox import Outbox
from streamproc.runtime.partition_log import PartitionLog
from streamproc.runtime.parts import ServiceOptions, ServiceParts
from streamproc.runtime.schemas import Schemas
from streamproc.runtime.service import Service
from streamproc.runtime.worker import (
    Committed,
    PartitionWorker,
    WorkerOptions,
    WorkerTools,
)
from streamproc.testing.clock import ManualClock
from tests.support.buckets import store_at

MINUTE_US = 60_000_000
START_US = 1_750_000_020_000_000
"""A full minute in June 2025."""

RAZLOG = "telemetry.razlog"
ANGE = "telemetry.ange"
WAIT_S = 120.0
"""How long a test waits for something before it fails; the first one compiles kernels, perhaps
on a busy machine."""

TIMERS = 2
"""The tasks of a service that sleep between their turns: ticker and watch."""

ROOMY = FlushPolicy(rows_max=10**9, bytes_max=10**12, age_us_max=10**15, again_max=0)
"""Nothing is committed but by a drain, a revocation or a timer."""

NEVER = SnapshotPolicy(rows_max=10**12, age_us_max=10**15)

WINDOW = WindowSpec("1m", MINUTE_US, MINUTE_US, 0, (0.5,))
HOPPING = WindowSpec("5m", 5 * MINUTE_US, MINUTE_US, 30_000_000)
HOT = RuleSpec("hot", "temperature", None, "value > 40", "value < 35", 0, "warning")
WARM = RuleSpec("warm", "temperature", "1m", "mean > 20", None, 0, "info")
SILENT = RuleSpec(
    "silent", "temperature", None, None, None, 0, "info", no_data_us=3 * MINUTE_US
)


def definition(**changes: Any) -> Definition:
    made = Definition(
        job="test",
        windows=(WINDOW, HOPPING),
        rules=(HOT, WARM),
        properties=(
            PropertySpec("temperature", "Cel"),
            PropertySpec("pm10", "ug/m3"),
        ),
        cities=(
            CitySpec("razlog", "Razlog", "Europe/Sofia"),
            CitySpec("ange", "Ånge", "Europe/Stockholm"),
        ),
        topic_cities=((RAZLOG, "razlog"), (ANGE, "ange")),
        future_us=10**15,
    )
    return replace(made, **changes)


def reading(
    step: int, value: float, device: str = "d1", kind: str = "temperature"
) -> bytes:
    """Return a flat JSON reading `step` seconds after START_US."""
    document = {
        "device": device,
        "property": kind,
        "time": (START_US + step * 1_000_000) // 1000,
        "value": value,
    }
    return json.dumps(document).encode()


def traffic(count: int, *, first: int = 0, devices: int = 3) -> list[bytes]:
    """Return plausible records: two properties, disorder, some late, some malformed."""
    records = []
    for number in range(first, first + count):
        device = f"d{number % devices}"
        step = number * 4 - (number % 7) * 3 - (200 if number % 31 == 30 else 0)
        value = round(15 + 10 * ((number * 37) % 29) / 29 + (number % 41 == 40) * 30, 3)
        kind = "pm10" if number % 3 == 2 else "temperature"
        broken = number % 53 == 52
        records.append(b"{nonsense" if broken else reading(step, value, device, kind))
    return records


def zones(made: Definition) -> Mapping[str, tzinfo]:
    return {city.slug: ZoneInfo(city.timezone) for city in made.cities}


class Watch(Observer):
    """Remembers what it is told and wakes whoever waits for it."""

    def __init__(self) -> None:
        self.given: list[frozenset[TopicPartition]] = []
        self.opened_at: list[tuple[TopicPartition, int]] = []
        self.commits: list[tuple[TopicPartition, Committed]] = []
        self.stepped_to: dict[TopicPartition, int] = {}
        self.sent: list[AlertTransition] = []
        self.released_: list[TopicPartition] = []
        self.failures: list[tuple[str, str]] = []
        self.messages: list[str] = []
        self.store_: list[tuple[TopicPartition, str]] = []
        self.ends: list[int] = []
        self.told = asyncio.Event()

    def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self.given.append(partitions)
        self.told.set()

    def opened(self, worker: PartitionWorker, seconds: float) -> None:
        self.opened_at.append((worker.origin, worker.position))
        self.told.set()

    def stepped(self, records: Records, emission: Emission, seconds: float) -> None:
        self.stepped_to[records.origin] = records.span.end
        self.told.set()

    def committed(self, worker: PartitionWorker, committed: Committed) -> None:
        self.commits.append((worker.origin, committed))
        self.told.set()

    def lag(self, worker: PartitionWorker, end: int) -> None:
        self.ends.append(end)
        self.told.set()

    def alerts_sent(self, alerts: Sequence[AlertTransition]) -> None:
        self.sent.extend(alerts)
        self.told.set()

    def released(self, origin: TopicPartition) -> None:
        self.released_.append(origin)
        self.told.set()

    def failed(self, stage: str, kind: str, message: str) -> None:
        self.failures.append((stage, kind))
        self.messages.append(message)
        self.told.set()

    def store(self, origin: TopicPartition, problem: str) -> None:
        self.store_.append((origin, problem))
        self.told.set()

    async def until_failed(self, stage: str, kind: str, times: int) -> None:
        """Return once that was told `times` times, not more."""
        await self.until(lambda: self.failures.count((stage, kind)) >= times)
        assert self.failures.count((stage, kind)) == times

    async def until_at(self, origin: TopicPartition, offset: int) -> None:
        """Return once everything below `offset` has been folded."""
        await self.until(lambda: self.stepped_to.get(origin, 0) >= offset)

    async def until(self, happened: Callable[[], object]) -> None:
        """Return once `happened()` is true; looked at whenever something was told."""
        async with asyncio.timeout(WAIT_S):
            while not happened():
                self.told.clear()
                await self.told.wait()

    @property
    def records(self) -> list[LogRecord]:
        return [committed.record for _, committed in self.commits]


class Inbox:
    """An alert sink that keeps what it gets; refuses the next `refuse` times."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.got: list[tuple[str, int]] = []
        self.sends = 0
        self.refuse = 0
        self.gate: asyncio.Event | None = None
        self.closed = False
        self._watch = watch

    async def send(self, alerts: Sequence[AlertTransition]) -> None:
        self.sends += 1
        if self._watch is not None:
            self._watch.told.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.refuse > 0:
            self.refuse -= 1
            msg = "refused on purpose"
            raise Unreachable(msg)
        self.got += [(alert.alert_id, alert.transition) for alert in alerts]
        if self._watch is not None:
            self._watch.told.set()

    async def close(self) -> None:
        self.closed = True


@dataclass
class Rig:
    """One process' worth of parts on an output root; `service` makes them a service."""

    root: Path
    source: Source
    clock: Clock
    definition: Definition = field(default_factory=definition)
    flush: FlushPolicy = ROOMY
    snapshot: SnapshotPolicy = NEVER
    options: ServiceOptions = field(default_factory=ServiceOptions)
    sinks: Mapping[str, AlertSink] = field(default_factory=dict)
    early: AlertSink | None = None
    registry: SchemaRegistry | None = None
    patience_us: int = 5_000_000
    failpoint: Failpoint = no_failpoint
    owner: str = "one"
    keeping: Housekeeping = HOUSEKEEPING
    formats: Mapping[str, Any] = field(default_factory=dict)
    decoder: Callable[[], Decoder] | None = None
    """Makes the decoder of every topic; the format's, without options, where it is None."""

    watch: Watch = field(default_factory=Watch)
    also: Sequence[Observer] = ()
    bucket: ObjectOptions | None = None
    """Write there; `root` is then where the server keeps it."""

    def __post_init__(self) -> None:
        self.store: LocalStore | ObjectStore = (
            LocalStore(self.root, ballast_bytes=0)
            if self.bucket is None
            else store_at(self.bucket)
        )
        self.service = Service(self._parts(), self.options)

    def _parts(self) -> ServiceParts:
        return ServiceParts(
            source=self.source,
            store=self.store,
            make_decoder=self._decoder,
            schemas=Schemas(
                self.registry,
                self.clock,
                self.patience_us,
                lambda: self.service.stopping,
            ),
            make_worker=self.make_worker,
            definition=self.definition,
            clock=self.clock,
            observer=Observers(*self.also, self.watch),
            outboxes={
                name: Outbox(sink, self.clock, self.watch)
                for name, sink in self.sinks.items()
            },
            early=self.early,
            failpoint=self.failpoint,
        )

    def _decoder(self, topic: str) -> Decoder:
        if self.decoder is not None:
            return self.decoder()
        return make_decoder(self.formats.get(topic, "json"))

    def make_worker(self, origin: TopicPartition, topic_id: str) -> PartitionWorker:
        identity = LogIdentity(
            job=self.definition.job,
            topic=origin.topic,
            topic_id=topic_id,
            partition=origin.partition,
            owner=self.owner,
            code_version="test",
            state_version=STATE_VERSION,
        )
        folder = log_folder(
            self.definition.job, origin.topic, topic_id, origin.partition
        )
        tools = WorkerTools(
            log=PartitionLog(
                self.store,
                folder,
                identity,
                lambda: uuid4().hex,
                self.failpoint,
                self.keeping,
            ),
            make_writer=make_writer,
            store=self.store,
            clock=self.clock,
            read_readings=partial(read_readings, self.store),
            zones=zones,
            failpoint=self.failpoint,
        )
        return PartitionWorker(origin, tools, WorkerOptions(self.flush, self.snapshot))

    async def run(self) -> None:
        """Run until it ends by itself."""
        async with asyncio.timeout(WAIT_S):
            await self.service.run()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        """Run in the background; stops and waits at the end, unless it has ended.

        Whoever expects it to end by itself awaits the task.
        """
        task = asyncio.create_task(self.service.run())
        try:
            yield task
            if not task.done():
                self.service.stop()
                async with asyncio.timeout(WAIT_S):
                    await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def pass_time(self, seconds: float, *, asleep: int = TIMERS) -> None:
        """Advance the manual clock once `asleep` tasks wait for it, and until they do again."""
        assert isinstance(self.clock, ManualClock)
        await self._until_asleep(asleep)
        self.clock.advance(seconds)
        await self._until_asleep(asleep)

    async def until_written(self) -> None:
        """Return once nothing is being written."""
        async with asyncio.timeout(WAIT_S):
            while self.service._owner.writes.sizes():  # noqa: ASYNC110  (a thread tells nobody)
                await asyncio.sleep(0)

    async def _until_asleep(self, tasks: int) -> None:
        assert isinstance(self.clock, ManualClock)
        async with asyncio.timeout(WAIT_S):
            while self.clock.sleeping < tasks:  # noqa: ASYNC110  (a clock tells nobody)
                await asyncio.sleep(0)

    async def crash_at(self, offset: int) -> dict[TopicPartition, PartitionWorker]:
        """Run until a commit has reached `offset`, crash, and return the lost workers."""
        task = asyncio.create_task(self.service.run())
        await self.watch.until(
            lambda: any(record.next == offset for record in self.watch.records)
        )
        lost = dict(self.service.workers)
        await self.crash(task)
        return lost

    async def crash(self, task: "asyncio.Task[None]") -> None:
        """End as by SIGKILL, as far as a test in one process can."""
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def make_writer(made: Definition) -> ParquetWriter:
    names = {city.slug: city.timezone for city in made.cities}
    facts = FileFacts(made.job, "test", made.sha256(), names)

    def date_of(city: str, time_us: int) -> Any:
        zone = ZoneInfo(names.get(city, "UTC"))
        return datetime.fromtimestamp(time_us / 1e6, UTC).astimezone(zone).date()

    return ParquetWriter(facts, date_of)


# --- what was published ---------------------------------------------------------------


def published(root: Path, dataset: str) -> list[dict[str, Any]]:
    """Return every row of a dataset with the path's columns, in canonical order."""
    rows: list[dict[str, Any]] = []
    for path in sorted((root / dataset).rglob("*.parquet")):
        parts = path.relative_to(root).parts[1:-1]
        keys = dict(part.split("=", 1) for part in parts)
        with pq.ParquetFile(path) as file:
            table: pa.Table = file.read()
        rows += [{**row, **keys} for row in table.to_pylist()]
    return sorted(rows, key=repr)


def readings_of(root: Path) -> list[tuple[str, int, int]]:
    """Return (source, offset, ordinal) of every published reading, sorted."""
    rows = published(root, "readings")
    return sorted((r["source"], r["offset"], r["ordinal"]) for r in rows)


def accounted(root: Path) -> list[tuple[str, int]]:
    """Return (source, offset) of every published or quarantined record, sorted."""
    rows = published(root, "readings") + published(root, "quarantine")
    return sorted((r["source"], r["offset"]) for r in rows)


def closed(root: Path) -> list[tuple[Any, ...]]:
    """Return what the first parts of all windows say, without which part it was."""
    names = ("window", "city", "device", "property", "start", "count", "sum", "mean",
             "min", "max", "m2", "first", "last", "close_reason", "sketch")  # fmt: skip
    rows = [r for r in published(root, "aggregates") if r["part"] == 0]
    return sorted((tuple(r[name] for name in names) for r in rows), key=repr)


def log_of(
    root: Path, topic: str = RAZLOG, partition: int = 0, topic_id: str = ""
) -> list[LogRecord]:
    """Return a partition's records, oldest first."""
    folder = log_folder("test", topic, topic_id or f"{topic}-1", partition)
    decoder = msgspec.json.Decoder(LogRecord)
    return [
        decoder.decode(path.read_bytes())
        for path in sorted((root / folder / "log").glob("*.json"))
    ]


def left_in_staging(root: Path) -> list[str]:
    """Return the files below any staging folder."""
    return [
        str(path.relative_to(root))
        for path in root.rglob("staging/**/*")
        if path.is_file()
    ]
