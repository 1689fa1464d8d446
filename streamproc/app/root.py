"""What service and replay share: the output root, its workers, and a decoder per topic."""

import os
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import partial
from uuid import uuid4

from streamproc import __version__
from streamproc.app.storing import open_store
from streamproc.codecs.select import Format, Options, make_decoder
from streamproc.config import Settings
from streamproc.config.zones import zone
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.decode_trial import DecodeTrial
from streamproc.connectors.derived_files import write_properties
from streamproc.connectors.parquet_files import ParquetOptions
from streamproc.connectors.parquet_sink import FileFacts, ParquetWriter
from streamproc.connectors.parts_of_replays import ReplayWriter
from streamproc.connectors.refold_reader import read_readings
from streamproc.core.chain import LogIdentity
from streamproc.core.definition import STATE_VERSION, Definition
from streamproc.core.ports import Decoder, TableWriter
from streamproc.core.record import LogRecord, decode_record, log_folder
from streamproc.core.replays import parts_source
from streamproc.core.squash import Housekeeping
from streamproc.core.values import TopicPartition
from streamproc.runtime.caution import CarefulDecoder
from streamproc.runtime.failpoint import POISON, failpoint_from, poisoned
from streamproc.runtime.partition_log import PartitionLog
from streamproc.runtime.replay import FILE_TOPIC_ID
from streamproc.runtime.worker import PartitionWorker, WorkerOptions, WorkerTools


class Decoders:
    """Decoders by the format of their topic; called, the same one for a topic each time."""

    def __init__(self, settings: Settings, env: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._poison = {POISON: env.get(POISON, "")}
        self._of: dict[str, Decoder] = {}

    def __call__(self, topic: str) -> Decoder:
        """Return the decoder of a topic."""
        decoder = self._of.get(topic)
        if decoder is None:
            decoder = self._of[topic] = self.make(topic)
        return decoder

    def make(self, topic: str) -> Decoder:
        """Return a fresh decoder for a topic."""
        return self._maker(topic)()

    def careful(self, topic: str) -> CarefulDecoder:
        """Return another decoder of a topic, which lets a child process go first."""
        make = self._maker(topic)
        return CarefulDecoder(make(), DecodeTrial(make))

    def _maker(self, topic: str) -> Callable[[], Decoder]:
        name: Format = self._settings.topics.format_of(topic)
        if topic == self._settings.files.stream:
            name = self._settings.files.format
        return partial(
            _make_decoder, name, self._settings.codecs.of(name), self._poison
        )


def _make_decoder(
    name: Format, options: Options | None, poison: Mapping[str, str]
) -> Decoder:
    return poisoned(make_decoder(name, options), poison)


class Root:
    """The output root, and how workers write to it."""

    def __init__(
        self, settings: Settings, clock: SystemClock, env: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self.clock = clock
        self.owner = f"{socket.gethostname()}:{os.getpid()}"
        self.failpoint = failpoint_from(env)
        self.store = open_store(settings, clock)
        try:
            self.store.self_test()
            write_properties(self.store, settings.definition)
        except BaseException:
            self.store.close()
            raise

    def peek(self, origin: TopicPartition) -> LogRecord | None:
        """Return the newest record of a stream's log without taking it over."""
        folder = log_folder(
            self._settings.definition.job,
            origin.topic,
            FILE_TOPIC_ID,
            origin.partition,
        )
        records = self.store.list(f"{folder}/log")
        if not records:
            return None
        newest = records[-1].path
        return decode_record(self.store.read(newest) or b"", newest)

    def definition_of(self, origin: TopicPartition, head: LogRecord) -> Definition:
        """Return the definition a record names."""
        folder = log_folder(head.job, origin.topic, FILE_TOPIC_ID, origin.partition)
        path = f"{folder}/definitions/{head.definition}.json"
        return Definition.from_canonical(self.store.read(path) or b"{}")

    def make_worker(self, origin: TopicPartition, topic_id: str) -> PartitionWorker:
        """Return a worker of one partition; nothing is read or written yet."""
        tools = WorkerTools(
            log=self.make_log(origin, topic_id),
            make_writer=lambda made: self._writer(made, origin, topic_id),
            store=self.store,
            clock=self.clock,
            read_readings=lambda files: read_readings(self.store, files),
            zones=zones_of,
            failpoint=self.failpoint,
        )
        options = WorkerOptions(self._settings.flush, self._settings.snapshot)
        return PartitionWorker(origin, tools, options)

    def make_log(self, origin: TopicPartition, topic_id: str) -> PartitionLog:
        """Return the commit log of one partition; nothing is read or written yet."""
        job = self._settings.definition.job
        identity = LogIdentity(
            job=job,
            topic=origin.topic,
            topic_id=topic_id,
            partition=origin.partition,
            owner=self.owner,
            code_version=__version__,
            state_version=STATE_VERSION,
        )
        folder = log_folder(job, origin.topic, topic_id, origin.partition)
        return PartitionLog(
            self.store,
            folder,
            identity,
            lambda: uuid4().hex,
            self.failpoint,
            Housekeeping(snapshots=self._settings.output.snapshots_kept),
        )

    def _writer(
        self, definition: Definition, origin: TopicPartition, topic_id: str
    ) -> TableWriter:
        source = parts_source(origin.source, topic_id)
        writer = self._make_writer(definition)
        return writer if source == origin.source else ReplayWriter(writer, source)

    def _make_writer(self, definition: Definition) -> ParquetWriter:
        output = self._settings.output
        facts = FileFacts(
            job=definition.job,
            code_version=__version__,
            definition=definition.sha256(),
            timezones={city.slug: city.timezone for city in definition.cities},
        )
        options = ParquetOptions(codec=output.codec, level=output.level)
        return ParquetWriter(facts, local_date_of(zones_of(definition)), options)


def zones_of(definition: Definition) -> dict[str, tzinfo]:
    """Return every city's time zone, from the tzdata package."""
    return {city.slug: zone(city.timezone) for city in definition.cities}


def local_date_of(zones: Mapping[str, tzinfo]) -> Callable[[str, int], date]:
    """Return a function from city and µs since 1970 UTC to the local date there."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)

    def date_of(city: str, time_us: int) -> date:
        moment = epoch + timedelta(microseconds=time_us)
        return moment.astimezone(zones.get(city, UTC)).date()

    return date_of
