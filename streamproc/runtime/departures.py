"""What leaves the process: early alerts, the outboxes of commits, Kafka's offset hints.

Theory of operation
-------------------
An alert that a record alone has triggered may leave at once, to the alert topic; everything
else leaves after the record that names it is durable (S10). What the topic accepted early is
left out of the commit's parcel to it. Delivery is the owner's: who takes a partition over
sends what the log does not know to have left, and who lost it forgets its parcels, so
receivers see few doubles, all under the ids they know.
"""

import asyncio
from collections.abc import Sequence

from streamproc.core.values import AlertTransition, Emission, TopicPartition
from streamproc.errors import Unreachable, WorldError
from streamproc.runtime.compute import Compute
from streamproc.runtime.parts import ServiceParts
from streamproc.runtime.worker import Committed, PartitionWorker

EARLY_SINK = "topic"
"""The outbox whose sink also takes early alerts."""

EARLY_ALERT_S = 2.0
"""How long an early alert may hold up its partition before it waits for the commit."""

EARLY_REST_US = 10_000_000
"""After a failure early alerts wait for their commits this long, so nothing is held up."""

HINTS_S = 5.0


class Departures:
    """Lets out what may leave. Every method belongs to the event loop.

    `writing` is the thread in which logs are written.
    """

    def __init__(self, parts: ServiceParts, writing: Compute) -> None:
        self._parts = parts
        self._boxes = parts.outboxes
        self._writing = writing
        self._clock = parts.clock
        self._observer = parts.observer
        self._early_sent: dict[TopicPartition, set[tuple[str, int]]] = {}
        self._early_again_us: int | None = None
        self._released: dict[TopicPartition, int] = {}
        self._hints: dict[TopicPartition, tuple[int, int]] = {}
        self._hinting: dict[TopicPartition, asyncio.Task[None]] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def early(self, worker: PartitionWorker, emission: Emission) -> None:
        """Send what a record alone has triggered; it waits for the commit if it must."""
        early = [alert for alert in emission.alerts if alert.early]
        if not early or self._parts.early is None or self._resting():
            return
        try:
            async with asyncio.timeout(EARLY_ALERT_S):
                await self._parts.early.send(early)
        except (TimeoutError, WorldError) as error:
            self._early_again_us = self._clock.monotonic_us() + EARLY_REST_US
            self._observer.failed("writing", "early_alert", str(error) or "no answer")
        else:
            self._early_again_us = None
            self._observer.alerts_sent(early)
            sent = self._early_sent.setdefault(worker.origin, set())
            sent.update((alert.alert_id, alert.transition) for alert in early)

    def _resting(self) -> bool:
        return (
            self._early_again_us is not None
            and self._clock.monotonic_us() < self._early_again_us
        )

    def frozen(self, origin: TopicPartition) -> set[tuple[str, int]]:
        """Return which alerts of the span that was frozen just now have left early."""
        return self._early_sent.pop(origin, set())

    def release(
        self,
        worker: PartitionWorker,
        committed: Committed,
        sent: set[tuple[str, int]],
    ) -> None:
        """Let out what the record allows to leave (S10), but for what was `sent` early."""
        self._parts.failpoint("ack.before")
        record, origin = committed.record, worker.origin
        for name, box in self._boxes.items():
            box.put(origin, self._left(name, record.outbox, sent))
        self._released[origin] = record.n
        self._note(worker)
        self._hints[origin] = (record.next, record.n)
        running = self._hinting.get(origin)
        if running is None or running.done():
            self._hinting[origin] = asyncio.create_task(self._hint(origin))

    def _left(
        self,
        name: str,
        alerts: Sequence[AlertTransition],
        sent: set[tuple[str, int]],
    ) -> Sequence[AlertTransition]:
        if name != EARLY_SINK:
            return alerts
        return [a for a in alerts if (a.alert_id, a.transition) not in sent]

    def _note(self, worker: PartitionWorker) -> None:
        """Note in its own time what has left: the store may be slow."""
        if worker.unsent():
            noting = asyncio.create_task(self.delivered(worker))
            self._noting.add(noting)
            noting.add_done_callback(self._noted)

    def _noted(self, noting: "asyncio.Task[None]") -> None:
        """Forget what has ended well or was given up; a fault is kept for `hinted` to raise."""
        if noting.cancelled() or noting.exception() is None:
            self._noting.discard(noting)

    def owned(self, worker: PartitionWorker) -> None:
        """Send again what the log does not know to have left."""
        unsent = worker.unsent()
        self._released[worker.origin] = worker.head.n
        alerts = [alert for record in unsent for alert in record.outbox]
        for box in self._boxes.values():
            box.forget(worker.origin)
            box.put(worker.origin, alerts)
        self._note(worker)

    async def delivered(self, worker: PartitionWorker) -> None:
        """Note beside the log that no alert of a partition is owed any more, if so.

        Up to the last record whose alerts have come here: the log may know of more by now.
        """
        released = self._released.get(worker.origin)
        if released is None or any(
            box.owes(worker.origin) for box in self._boxes.values()
        ):
            return
        try:
            await self._writing(worker.note_sent, released)
        except Unreachable as error:
            # Only a hint: what is not noted is sent again under the same ids.
            self._observer.failed("writing", "note_sent", str(error))

    def lost(self, origin: TopicPartition) -> None:
        """Forget a partition: whoever owns it next delivers."""
        self._early_sent.pop(origin, None)
        self._released.pop(origin, None)
        for box in self._boxes.values():
            box.forget(origin)

    async def _hint(self, origin: TopicPartition) -> None:
        """Tell Kafka for the operators' sake; the log is the truth."""
        while origin in self._hints:
            offset, n = self._hints.pop(origin)
            accepted = await self._parts.source.hint(origin, offset, f"n={n}")
            self._parts.failpoint("ack.after")
            if not accepted:
                self._observer.failed("writing", "offset_hint", origin.source)

    async def drained(self) -> None:
        """Return once every alert that was queued has left."""
        await asyncio.gather(*(box.drained() for box in self._boxes.values()))

    async def hinted(self) -> None:
        """Wait a while for hints and notes under way.

        Raises:
            Exception: what one raised that is neither a refusal nor a timeout.
        """
        under_way = self._under_way
        if under_way:
            done, _ = await asyncio.wait(under_way, timeout=HINTS_S)
            for task in done:
                task.result()

    @property
    def _under_way(self) -> "list[asyncio.Task[None]]":
        return [*self._hinting.values(), *self._noting]

    async def close(self) -> None:
        """Give up what is under way and release the sinks."""
        under_way = self._under_way
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        for box in self._boxes.values():
            await box.close()
        if self._parts.early is not None:
            await self._parts.early.close()
