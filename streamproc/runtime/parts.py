"""What a service is put together from: its options and the parts the root hands in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from streamproc.core.definition import Definition
from streamproc.core.flush import MEBIBYTE, BufferPolicy
from streamproc.core.ports import (
    AlertSink,
    Clock,
    Decoder,
    Failpoint,
    Source,
    Store,
    no_failpoint,
)
from streamproc.core.values import TopicPartition
from streamproc.runtime.caution import CarefulDecoder
from streamproc.runtime.observer import Observer
from streamproc.runtime.opening import Start
from streamproc.runtime.outbox import Outbox
from streamproc.runtime.schemas import Schemas
from streamproc.runtime.worker import PartitionWorker


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How the service runs. Durations in microseconds, budgets in seconds.

    `until_end`: stop at the end offsets seen when each partition was first opened;
    `close`: then close every open window by a logged decision. `accept_recreated`: topics
    that may have been deleted and created anew since their log was written. `buffer`:
    what all partitions may hold together. `bytes_max`: with what is fetched besides.
    `weights`: city to its share of the intake.
    """

    start: Start = field(default_factory=Start)
    until_end: bool = False
    close: bool = False
    idle_us: int = 60_000_000
    tick_us: int = 1_000_000
    drain_s: float = 60.0
    max_rate: float | None = None
    accept_recreated: frozenset[str] = frozenset()
    buffer: BufferPolicy = field(default_factory=BufferPolicy)
    bytes_max: int = 768 * MEBIBYTE
    weights: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServiceParts:
    """What the composition root hands in.

    `make_worker` gets a partition and its topic's id. `outboxes` by name: the one called
    `departures.EARLY_SINK` leaves out what `early` has accepted. `make_decoder` returns a fresh
    decoder for a topic; without `careful_decoder_for` crashes of decoders are nobody's business.
    """

    source: Source
    store: Store
    make_decoder: Callable[[str], Decoder]
    schemas: Schemas
    make_worker: Callable[[TopicPartition, str], PartitionWorker]
    definition: Definition
    clock: Clock
    observer: Observer
    careful_decoder_for: Callable[[str], CarefulDecoder] | None = None
    outboxes: Mapping[str, Outbox] = field(default_factory=dict)
    early: AlertSink | None = None
    failpoint: Failpoint = no_failpoint
