"""Which partitions are ours: how they come, how they go, and when one must stop.

Theory of operation
-------------------
The source's callbacks hand over: `assigned` only takes note and the intake opens what came
(S0-S4); `revoked` waits for the turn and commits within the drain budget, else abandons. A
worker that left in order is parked with its state ("keep hot"): should the partition come
back and the log's head still be ours, it goes on without a restore.

`turn` is held by whoever works on a worker, and never across a question to the broker. A
cancelled holder may leave the compute thread busy with a worker; such a worker has been
dropped from `workers` by then, and whatever comes next waits for the thread.

Commits overlap with what is folded next: a span is frozen under the turn and written by a task
in a thread of its own, one at a time for each partition. Whoever needs it durable waits for
it (`settled`): the next commit, a revocation, an opening, a timer's commit. A span with a
snapshot is written under the turn, since the state is not copied for it.

A fault stops its partition for good in this process, the others go on. Being fenced and not
knowing whether a record was created are no faults: only opening the log again tells.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from streamproc.core.chain import Genesis
from streamproc.core.flush import FlushReason
from streamproc.core.ports import Bounds
from streamproc.core.values import TopicPartition
from streamproc.errors import (
    Fenced,
    Forbidden,
    SourceMismatch,
    StreamprocError,
    Unreachable,
)
from streamproc.runtime.compute import Compute
from streamproc.runtime.departures import Departures
from streamproc.runtime.opening import (
    begin,
    check_source,
    earlier_topic_ids,
    genesis_of_a_new_topic,
    position_fault,
    refuse_recreated,
)
from streamproc.runtime.parts import ServiceOptions, ServiceParts
from streamproc.runtime.worker import Frozen, PartitionWorker

LOST_MAX = 5
"""Times in a row a partition that is still assigned is opened again before it stops."""

LOST_WAIT_US = 2_000_000
"""Longer each time: a zombie hears of its lost membership before it fences its successor."""

UNREACHABLE_WAIT_US = 1_000_000


class Ownership:
    """The partitions of this process. Implements `core.ports.AssignmentListener`."""

    def __init__(
        self,
        parts: ServiceParts,
        options: ServiceOptions,
        compute: Compute,
        writing: Compute,
        departures: Departures,
    ) -> None:
        self.turn = asyncio.Lock()
        self.workers: dict[TopicPartition, PartitionWorker] = {}
        self.stopped: dict[TopicPartition, StreamprocError] = {}
        self._parts = parts
        self._options = options
        self._compute = compute
        self._writing = writing
        self._departures = departures
        self._writes: dict[TopicPartition, asyncio.Task[None]] = {}
        self._frozen_bytes: dict[TopicPartition, int] = {}
        self._source = parts.source
        self._clock = parts.clock
        self._observer = parts.observer
        self._settled = False
        self._fresh: dict[TopicPartition, int] = {}
        self._parked: dict[TopicPartition, PartitionWorker] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._lost: dict[TopicPartition, int] = {}

    # --- the source's callbacks -------------------------------------------------------

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Take note; the intake opens them."""
        self._settled = True
        now_us = self._clock.monotonic_us()
        self._fresh |= dict.fromkeys(partitions - self.stopped.keys(), now_us)
        for origin in self._parked.keys() - partitions:
            del self._parked[origin]
        self._observer.assigned(partitions)

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Commit what is held within the drain budget, else abandon it."""
        self._settled = False
        for origin in partitions:
            self._fresh.pop(origin, None)
        try:
            async with asyncio.timeout(self._options.drain_s), self.turn:
                for origin in sorted(partitions & self.workers.keys()):
                    await self._release(self.workers[origin])
                # A hint that arrives after we have joined again is refused for its old
                # generation, and aiokafka then leaves and joins once more.
                await self._departures.hinted()
        except TimeoutError:
            self._observer.failed(
                "writing", "drain_budget", "abandoned uncommitted work"
            )
        for origin in partitions & self.workers.keys():
            self._drop(self.workers[origin])

    async def _release(self, worker: PartitionWorker) -> None:
        if not await self.finished(worker):
            return
        self._drop(worker)
        self._parked[worker.origin] = worker

    def _drop(self, worker: PartitionWorker) -> None:
        del self.workers[worker.origin]
        self._departures.lost(worker.origin)
        self._observer.released(worker.origin)

    # --- opening ----------------------------------------------------------------------

    async def open_fresh(self) -> None:
        """Try to open every partition that is waiting and whose time has come."""
        now_us = self._clock.monotonic_us()
        due = [origin for origin, from_us in self._fresh.items() if from_us <= now_us]
        for origin in sorted(due):
            if origin in self._fresh:
                await self._try(origin)

    async def _try(self, origin: TopicPartition) -> None:
        try:
            await self._own(origin)
        except Unreachable as error:
            self._observer.failed("reading", "unreachable", str(error))
            if origin in self._fresh:
                again_us = self._clock.monotonic_us() + UNREACHABLE_WAIT_US
                self._fresh[origin] = again_us
        except Fenced as error:
            if origin in self._fresh:
                self._try_later(origin, error)
        except StreamprocError as error:
            self.stop(origin, error)

    async def _own(self, origin: TopicPartition) -> None:
        began_us = self._clock.monotonic_us()
        await self.written(origin)
        worker = await self._hot(origin)
        if worker is None:
            worker = await self._take_over(origin)
        bounds = await self._source.bounds(origin)
        await check_source(self._source, worker, bounds)
        async with self.turn:
            if origin not in self._fresh:
                return  # Revoked meanwhile: at worst we have fenced its next owner once.
            del self._fresh[origin]
            self.workers[origin] = worker
            await self._departures.owned(worker)
            if self.workers.get(origin) is worker:
                self._ends.setdefault(origin, bounds.end)
                self._source.seek(origin, worker.position)
                self._source.resume(origin)
        seconds = (self._clock.monotonic_us() - began_us) / 1e6
        self._observer.opened(worker, seconds)

    async def _hot(self, origin: TopicPartition) -> PartitionWorker | None:
        worker = self._parked.pop(origin, None)
        if worker is None:
            return None
        async with self.turn:
            return worker if await self._compute(worker.still_ours) else None

    async def _take_over(self, origin: TopicPartition) -> PartitionWorker:
        bounds = await self._source.bounds(origin)
        topic_id = await self._source.topic_id(origin.topic)
        planned = await begin(self._source, self._options.start, origin, bounds)
        worker = self._parts.make_worker(origin, topic_id)
        genesis = partial(self._genesis, origin.topic, topic_id, bounds, planned)
        async with self.turn:
            committed = await self._compute(
                worker.open, self._parts.definition, genesis
            )
        if committed is not None:
            self._observer.committed(worker, committed)
        return worker

    def _genesis(
        self, topic: str, topic_id: str, bounds: Bounds, planned: Genesis
    ) -> Genesis:
        """Say where a new log begins; on the compute thread, only where there is none."""
        job = self._parts.definition.job
        earlier = earlier_topic_ids(self._parts.store, job, topic, topic_id)
        if topic not in self._options.accept_recreated:
            refuse_recreated(topic, topic_id, earlier)
        return genesis_of_a_new_topic(planned, earlier, topic, topic_id, bounds)

    # --- committing -------------------------------------------------------------------

    async def flush(self, worker: PartitionWorker, reason: FlushReason) -> None:
        """Commit under the turn, beside what is folded next."""
        if not await self.settled(worker):
            return
        frozen = await self._compute(worker.freeze, reason)
        if self.workers.get(worker.origin) is not worker:
            return  # A drain that ran out of time has abandoned it meanwhile.
        sent = self._departures.frozen(worker.origin)
        self._frozen_bytes[worker.origin] = frozen.held_bytes
        self._writes[worker.origin] = asyncio.create_task(
            self._write(worker, frozen, sent)
        )
        if frozen.snapshot is not None:
            await self.settled(worker)

    async def commit(self, worker: PartitionWorker, reason: FlushReason) -> bool:
        """Commit under the turn and wait for it; False where the worker had to be dropped."""
        await self.flush(worker, reason)
        return await self.settled(worker)

    async def finished(self, worker: PartitionWorker) -> bool:
        """Commit under the turn whatever is not durable yet; False where it was dropped."""
        if worker.dirty:
            return await self.commit(worker, FlushReason.DRAIN)
        return await self.settled(worker)

    async def written(self, origin: TopicPartition) -> None:
        """Wait for what is being written of a partition now. Nobody need hold the turn."""
        task = self._writes.get(origin)
        if task is not None:
            await asyncio.shield(task)

    async def settled(self, worker: PartitionWorker) -> bool:
        """Wait, under the turn, until nothing is being written; False where it was dropped."""
        await self.written(worker.origin)
        return self.workers.get(worker.origin) is worker

    async def all_settled(self) -> None:
        """Wait until nothing is being written."""
        for worker in list(self.workers.values()):
            await self.settled(worker)

    @property
    def frozen_bytes(self) -> int:
        """Return the size of what is being written of all partitions."""
        return sum(self._frozen_bytes.values())

    async def _write(
        self, worker: PartitionWorker, frozen: Frozen, sent: set[tuple[str, int]]
    ) -> None:
        """Write a frozen span, then let out what may leave; nobody need hold the turn."""
        origin = worker.origin
        try:
            committed = await self._writing(worker.write, frozen)
        except StreamprocError as error:
            if self.workers.get(origin) is worker:
                self._lose(worker, error)
        else:
            self._lost.pop(origin, None)
            self._observer.committed(worker, committed)
            if self.workers.get(origin) is worker:
                self._departures.release(worker, committed, sent)
        del self._writes[origin], self._frozen_bytes[origin]

    def _lose(self, worker: PartitionWorker, error: StreamprocError) -> None:
        """Give up a worker whose log cannot be written: for a while, or for good."""
        if not isinstance(error, (Fenced, Unreachable)):
            self.stop(worker.origin, error)
            return
        self._source.pause(worker.origin)
        self._drop(worker)
        self._try_later(worker.origin, error)

    async def close(self) -> None:
        """Give up waiting for what is being written."""
        writes = list(self._writes.values())
        for task in writes:
            task.cancel()
        await asyncio.gather(*writes, return_exceptions=True)

    def _try_later(self, origin: TopicPartition, error: StreamprocError) -> None:
        """Wait and open again; give up where that has not helped several times."""
        kind = "fenced" if isinstance(error, Fenced) else "unreachable"
        self._observer.failed("writing", kind, str(error))
        times = self._lost.get(origin, 0) + 1
        self._lost[origin] = times
        if times >= LOST_MAX:
            self.stop(origin, error)
            return
        wait_us = LOST_WAIT_US * (times - 1)
        self._fresh[origin] = self._clock.monotonic_us() + wait_us

    # --- stopping ---------------------------------------------------------------------

    def stop(self, origin: TopicPartition, error: StreamprocError) -> None:
        """Stop one partition for good: going on could lose or double a reading."""
        self._fresh.pop(origin, None)
        if self.workers.pop(origin, None) is not None:
            # What it has committed is still ours to deliver.
            self._observer.released(origin)
        self._source.pause(origin)
        self.stopped[origin] = error
        self._observer.failed("processing", type(error).__name__, str(error))

    async def overtaken(self, error: SourceMismatch) -> None:
        """Stop the partition whose position is gone, but keep what it has consumed."""
        bounds = await self._bounds_of(error.source)
        await self._stop_in_order(
            lambda origin: origin.source == error.source,
            lambda worker: _told(worker, error, bounds),
        )

    async def forbidden(self, error: Forbidden) -> None:
        """Stop a topic that we may not read any more, but keep what it has consumed."""
        if not any(origin.topic == error.topic for origin in self.workers):
            self._observer.failed("reading", "forbidden", str(error))
        await self._stop_in_order(
            lambda origin: origin.topic == error.topic, lambda _: error
        )

    async def _stop_in_order(
        self,
        concerned: Callable[[TopicPartition], bool],
        why: Callable[[PartitionWorker], StreamprocError],
    ) -> None:
        async with self.turn:
            for origin, worker in list(self.workers.items()):
                if concerned(origin) and await self.finished(worker):
                    self.stop(origin, why(worker))

    async def _bounds_of(self, source: str) -> Bounds | None:
        """Ask what a partition of ours has, for the message; None where nobody tells."""
        for origin in list(self.workers):
            if origin.source == source:
                with suppress(Unreachable):
                    return await self._source.bounds(origin)
        return None

    def raise_if_nothing_is_left(self) -> None:
        """Raise the first fault once every partition of ours has stopped.

        Raises:
            Exception: what a write raised that is no fault of the world.
        """
        for task in self._writes.values():
            if task.done():
                task.result()
        if self.stopped and self._settled and not self.workers and not self._fresh:
            raise next(iter(self.stopped.values()))

    # --- the end ----------------------------------------------------------------------

    @property
    def at_end(self) -> bool:
        """Tell whether every partition has reached the end first seen; also with none."""
        if not self._settled or self._fresh:
            return False
        return all(
            worker.position >= self._ends[origin]
            for origin, worker in self.workers.items()
        )

    @property
    def empty_handed(self) -> bool:
        """Tell whether the group gave us nothing."""
        return self._settled and not (self.workers or self._fresh or self.stopped)


def _told(
    worker: PartitionWorker, error: SourceMismatch, bounds: Bounds | None
) -> SourceMismatch:
    """Return the error with what is missing and what to do about it."""
    if bounds is None:
        return error
    fault = position_fault(worker.origin, worker.position, bounds)
    return error if fault is None else SourceMismatch(fault, error.source)
