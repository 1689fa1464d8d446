"""The Kafka source: a group consumer on aiokafka that delivers nothing unasked.

Theory of operation
-------------------
The truth about positions is the commit log, so this source never follows Kafka's: every
partition arrives paused with a placeholder position, and `seek` says where to begin.
What aiokafka hands out passes a gate of our own: each owned partition has a `Gate` that
knows which offset comes next and whether delivery is wanted; what does not fit (fetched
before a seek, drained just before a pause, of an earlier assignment) is dropped and the
client is set back, so that a record is delivered once and in order, or not at all.

`getmany` is never cancelled. It runs as a task of its own that survives a `fetch` whose
time is up, because during a rebalance it waits without a limit; so `fetch` keeps its
promise about time and a drain can begin at any moment.

Questions go over connections of their own (`kafka_probe`): on the consumer's they would wait.

The consumer shares the caller's event loop with the heartbeats, so no CPU work may live there
(A1, A2): `kafka_fetch` makes `Records` of raw batches on a thread. What is on its way through
that thread is judged by its gate only when it comes out.

aiokafka's traps (EXACTLY_ONCE.md 2.1)
--------------------------------------
| trap | handled |
|---|---|
| A1, A2 | no CPU on the loop: a thread and kernels without the GIL; the ordinary path is bounded, about 50 ms a fetch |
| A3 | `_Listener.on_partitions_assigned` pauses and closes gates before its first await |
| A4 | `_call` keeps a callback's failure, every `fetch` after it raises it |
| A5 | `_poll` is never cancelled while the consumer lives; `timeout_ms` bounds it |
| A6 | `kafka_client.store` waits `hint_timeout_s`, then takes the outcome as unknown |
| A7 | recorded: offsets are a hint, the commit log decides |
| A8 | no deserialisers |
| A9 | limits count compressed bytes; `kafka_batches` bounds what a batch may become, `check` looks at `max.message.bytes` |
| A10 | `kafka_faults`: `RecordTooLargeError` is fatal; empty spans come only from a position seen before a fetch that was quiet, so the skipped offset is never reported as consumed |
| A11 | `_poll` names `_NOBODY` when nothing is assigned, never an empty list |
| A12 | recorded: health is progress against `bounds`, judged by the runtime |
| A13 | every assignment begins paused, at a placeholder position |
| A14 | no transactions here; `kafka_produce` is idempotent only |
| A15 | expired sessions reconnect with the same password |
| A16 | recorded: new certificates need a restart (one context per client) |
| A17 | fetch limits 4 MiB a partition, 16 MiB a broker; received into arenas |
| A18 | `kafka_client.finish` has its own limit and survives `CancelledError` |
| further | the sticky assignor keeps its memory on the *class*: each source subclasses it |
| further | an error raised by `getmany` also leaks `_fetch_count`: every one is fatal but `NoOffsetForPartitionError`, which the placeholder position makes rare |
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AioTopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.sticky.sticky_assignor import (
    StickyPartitionAssignor,
)
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NoOffsetForPartitionError,
)

from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_client import finish, position_of, store
from streamproc.connectors.kafka_connect import why_unreachable
from streamproc.connectors.kafka_faults import concerned, fault_of, leaves_others
from streamproc.connectors.kafka_fetch import path_for
from streamproc.connectors.kafka_gates import Gate, Polled, Seen
from streamproc.connectors.kafka_instance import Instance
from streamproc.connectors.kafka_probe import KafkaProbes
from streamproc.connectors.kafka_records import nothing
from streamproc.connectors.kafka_rights import lacking, refused
from streamproc.connectors.kafka_settings import KafkaOptions
from streamproc.core.ports import AssignmentListener, Bounds
from streamproc.core.values import OffsetSpan, Records, TopicPartition
from streamproc.errors import Forbidden, WorldError

_NOBODY = AioTopicPartition("__streamproc_nobody", 0)
"""Fetching for it returns nothing, but reports errors and counts as a sign of life."""

_GRACE_S = 0.1
"""How much longer than its timeout a `getmany` is waited for before it is left running."""


class KafkaSource:
    """Implements `core.ports.Source`. One instance is started once.

    `seek`, `pause` and `resume` for a partition that is not ours are ignored: the
    rebalance was faster than the caller.
    """

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._path = path_for(options)
        self._probe = KafkaProbes(options.connection, timeout_s=options.ask_timeout_s)
        self._admin = KafkaAdmin(options.connection, timeout_s=options.ask_timeout_s)
        self._instance = Instance(options, self._admin)
        self._consumer: AIOKafkaConsumer | None = None
        self._listener: AssignmentListener | None = None
        self._gates: dict[AioTopicPartition, Gate] = {}
        self._polling: asyncio.Task[Polled] | None = None
        self._kept: BaseException | None = None
        self._refused: list[Forbidden] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what does not work as it should, for somebody to say at the start."""
        return self._path.notes

    # --- lifecycle ------------------------------------------------------------------

    async def start(self, listener: AssignmentListener) -> None:
        """Connect and join; a wrong password or certificate is a plain `WorldError`.

        Raises:
            Forbidden: without a right on the group, the alert topic or any topic.
        """
        assert self._consumer is None, "a source is started once"
        options = self._options
        assignor = type("StickyAssignor", (StickyPartitionAssignor,), {})
        consumer = AIOKafkaConsumer(
            partition_assignment_strategy=(assignor,), **options.aiokafka()
        )
        self._path.prepare(consumer)
        self._listener = listener
        self._consumer = consumer
        try:
            await consumer.start()
            lacks = await lacking(self._admin, options)
            self._refused += refused(options.connection.security.username, lacks)
        except KafkaConnectionError as error:
            await self.stop()
            raise await why_unreachable(options.connection) from error
        except BaseException:
            await self.stop()
            raise
        bridge = _Bridge(self)
        if options.pattern is None:
            consumer.subscribe(topics=list(options.topics), listener=bridge)
        else:
            # aiokafka matches a prefix; we mean the whole name.
            whole = re.compile(rf"(?:{options.pattern})\Z")
            consumer.subscribe(pattern=whole, listener=bridge)

    async def stop(self) -> None:
        """Leave the group; gives up politeness after `stop_timeout_s`."""
        consumer, self._consumer = self._consumer, None
        self._gates.clear()
        if consumer is not None:
            await finish(consumer.stop(), self._options.stop_timeout_s)
        polling, self._polling = self._polling, None
        if polling is not None:
            # The consumer is gone: there is no count left to leak (A5).
            polling.cancel()
            await asyncio.wait({polling})
            _ = polling.cancelled() or polling.exception()
        self._path.close()
        await self._probe.close()
        await self._admin.close()

    # --- records --------------------------------------------------------------------

    @property
    def held_bytes(self) -> int:
        """What the arenas hold; 0 on the ordinary path, where nobody counts."""
        return self._path.bytes_held

    @property
    def coming_bytes(self) -> int:
        """One answer of every broker: partitions that are paused are not asked for again."""
        if self._consumer is None:
            return 0
        # Nothing of aiokafka's public interface tells how many brokers there are.
        brokers = self._consumer._client.cluster.brokers()  # noqa: SLF001
        return max(1, len(brokers)) * self._options.fetch_bytes_max

    async def fetch(
        self, timeout_ms: int, among: Collection[TopicPartition] | None = None
    ) -> Sequence[Records]:
        """Return what has arrived; control batches alone give an empty batch with a span.

        A partition whose position is gone is closed, and so is a topic that we may not read;
        fetching may go on without them.
        """
        self._raise_kept()
        if self._refused:
            raise self._refused.pop()
        if self._consumer is None:
            msg = "Kafka: the source is stopped"
            raise WorldError(msg)
        if self._polling is None:
            self._polling = asyncio.create_task(
                self._poll(self._consumer, timeout_ms, among)
            )
        polling = self._polling
        await asyncio.wait({polling}, timeout=timeout_ms / 1000 + _GRACE_S)
        self._raise_kept()
        if self._polling is not polling or not polling.done():
            return ()  # stopped meanwhile, or a rebalance is on
        self._polling = None
        try:
            return self._admit(polling.result())
        except NoOffsetForPartitionError:
            return ()  # set before the placeholder position was; a seek will follow
        except KafkaError as error:
            self._shut(error)
            fault = await fault_of(error, self._options, self._probe)
            if isinstance(fault, WorldError) and not leaves_others(fault):
                self._kept = fault  # the client's position may be beyond what was lost
            raise fault from error
        except Exception as error:
            self._kept = error  # likewise
            raise

    async def _poll(
        self,
        consumer: AIOKafkaConsumer,
        timeout_ms: int,
        among: Collection[TopicPartition] | None,
    ) -> Polled:
        """Ask aiokafka once; nothing is awaited between its answer and the positions.

        A partition that was moved meanwhile is named without records.
        """
        gates = {tp: (gate, gate.epoch) for tp, gate in self._gates.items()}
        opened = [
            tp
            for tp, (gate, _) in gates.items()
            if gate.open
            and (among is None or TopicPartition(tp.topic, tp.partition) in among)
        ]
        before = {}
        for tp in opened:
            position = await position_of(consumer, tp)
            if position is not None:
                before[tp] = position
        fetched = await consumer.getmany(
            # Asked for what is paused, aiokafka throws away what it has fetched ahead.
            *(opened or (_NOBODY,)),
            timeout_ms=timeout_ms,
            max_records=self._path.items_max,
        )
        ends = {tp: await consumer.position(tp) for tp in fetched}
        wanted = {}
        for tp, items in fetched.items():
            gate = self._current(gates, tp)
            if gate is not None and gate.next is not None:
                wanted[tp] = items, OffsetSpan(gate.next, ends[tp])
        made = await self._path.read(wanted)
        return Polled(gates, before, {tp: made.get(tp, ()) for tp in fetched}, ends)

    def _admit(self, polled: Polled) -> Sequence[Records]:
        """Let through what is still wanted; set the client back where it is not."""
        if not polled.fetched:
            return self._admit_silence(polled)
        admitted: list[Records] = []
        for tp, made in polled.fetched.items():
            gate = self._current(polled.gates, tp)
            if gate is None or gate.next is None or not gate.wanted:
                self._set_back(tp)
                continue
            gate.next = polled.ends[tp]
            admitted += made
        return admitted

    def _set_back(self, tp: AioTopicPartition) -> None:
        """Let the client fetch again what is dropped here.

        Also where the gate is another one by now: a `getmany` that was waiting while the
        partition came back hands out what was fetched for the new gate.
        """
        gate = self._gates.get(tp)
        if gate is not None and gate.next is not None:
            self._client_seek(tp, gate.next)

    def _admit_silence(self, polled: Polled) -> Sequence[Records]:
        """Account for offsets without records that the client has passed.

        Positions were read before the call: had a record been skipped because it is too
        large (A10), the call would have raised.
        """
        admitted = []
        for tp, position in polled.before.items():
            gate = self._current(polled.gates, tp)
            if gate is None or not gate.open or gate.next is None:
                continue
            if position > gate.next:
                span = OffsetSpan(gate.next, position)
                gate.next = position
                admitted.append(nothing(TopicPartition(tp.topic, tp.partition), span))
        return admitted

    def _current(self, seen: Seen, tp: AioTopicPartition) -> Gate | None:
        """Return the partition's gate unless it was moved since the poll began."""
        gate, epoch = seen.get(tp, (None, 0))
        if gate is None or self._gates.get(tp) is not gate or gate.epoch != epoch:
            return None
        return gate

    def _shut(self, error: KafkaError) -> None:
        """Close the gates of what an error concerns, where it is not everything."""
        for tp in concerned(error, list(self._gates)):
            self.pause(TopicPartition(tp.topic, tp.partition))

    # --- gates ----------------------------------------------------------------------

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Move the gate first: whatever is on its way from elsewhere no longer fits."""
        tp = AioTopicPartition(partition.topic, partition.partition)
        gate = self._gates.get(tp)
        if gate is None:
            return
        gate.epoch += 1
        gate.next = offset
        self._client_seek(tp, offset)
        if gate.wanted:
            self._client_resume(tp)

    def pause(self, partition: TopicPartition) -> None:
        """Close the gate; what aiokafka has prefetched is fetched again later."""
        tp = AioTopicPartition(partition.topic, partition.partition)
        gate = self._gates.get(tp)
        if gate is None:
            return
        gate.wanted = False
        if self._assigned(tp):
            self._client.pause(tp)

    def resume(self, partition: TopicPartition) -> None:
        """Open the gate; without a `seek` before, it takes effect with the `seek`."""
        tp = AioTopicPartition(partition.topic, partition.partition)
        gate = self._gates.get(tp)
        if gate is None:
            return
        gate.wanted = True
        if gate.next is not None:
            self._client_resume(tp)

    @property
    def _client(self) -> Any:
        assert self._consumer is not None, "gates exist only while there is a consumer"
        return self._consumer

    def _assigned(self, tp: AioTopicPartition) -> bool:
        """Tell whether the client still knows it: a new topic may be changing that."""
        return tp in self._client.assignment()

    def _client_seek(self, tp: AioTopicPartition, offset: int) -> None:
        if self._assigned(tp):
            self._client.seek(tp, offset)

    def _client_resume(self, tp: AioTopicPartition) -> None:
        if self._assigned(tp):
            self._client.resume(tp)

    # --- questions --------------------------------------------------------------------

    async def bounds(self, partition: TopicPartition) -> Bounds:
        """`end` is the last stable offset: what a reader of committed records reaches."""
        return await self._probe.bounds(partition)

    async def offset_at(self, partition: TopicPartition, time_us: int) -> int | None:
        """Kafka has milliseconds; the time is rounded up to the next one."""
        return await self._probe.offset_at(partition, time_us)

    async def topic_id(self, topic: str) -> str:
        """Ask librdkafka; the embedded broker has ids, too."""
        return await self._admin.topic_id(topic)

    async def partition_count(self, topic: str) -> int:
        """Ask librdkafka, as for the id."""
        return (await self._admin.describe([topic]))[topic].partitions

    async def read_one(self, partition: TopicPartition, offset: int) -> Records:
        """Read with a consumer of its own; this one is not disturbed."""
        return await self._probe.read_one(partition, offset)

    async def hint(self, partition: TopicPartition, offset: int, note: str) -> bool:
        """False also where no answer came in time: nobody knows then, nothing depends on it."""
        consumer = self._consumer
        if consumer is None:
            return False
        tp = AioTopicPartition(partition.topic, partition.partition)
        return await store(consumer, {tp: (offset, note)}, self._options.hint_timeout_s)

    # --- the group ------------------------------------------------------------------

    async def revoke(self, revoked: frozenset[AioTopicPartition]) -> None:
        """Close and forget the gates, then let the listener finish. For the bridge."""
        for tp in revoked:
            self._gates.pop(tp, None)
        if revoked:
            assert self._listener is not None
            await self._call(self._listener.revoked, revoked)
        if self._consumer is not None:
            fault = await self._instance.taken(self._consumer)
            if fault is not None:
                self._kept = fault
                # No `Exception`, so aiokafka's task ends here: joining again would take the
                # membership back.
                raise asyncio.CancelledError

    async def assign(self, assigned: frozenset[AioTopicPartition]) -> None:
        """Pause all of it before the first await (A3), then tell. For the bridge."""
        if self._consumer is None:
            return
        self._instance.joined(self._consumer)
        self._gates = {tp: Gate() for tp in assigned}
        for tp in assigned:
            self._client.pause(tp)
            # A placeholder: with a position, aiokafka asks for no committed offset, and
            # so cannot fail for want of one.
            self._client.seek(tp, 0)
        assert self._listener is not None
        await self._call(self._listener.assigned, assigned)

    async def _call(
        self,
        callback: Callable[[frozenset[TopicPartition]], Awaitable[None]],
        partitions: frozenset[AioTopicPartition],
    ) -> None:
        try:
            await callback(
                frozenset(TopicPartition(tp.topic, tp.partition) for tp in partitions)
            )
        except Exception as error:  # noqa: BLE001 (kept: aiokafka swallows it, `fetch` raises it)
            if self._kept is None:
                self._kept = error

    def _raise_kept(self) -> None:
        if self._kept is not None:
            raise self._kept


class _Bridge(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """aiokafka's listener: hands over."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    async def on_partitions_revoked(self, revoked: set[AioTopicPartition]) -> None:
        await self._source.revoke(frozenset(revoked))

    async def on_partitions_assigned(self, assigned: set[AioTopicPartition]) -> None:
        await self._source.assign(frozenset(assigned))
