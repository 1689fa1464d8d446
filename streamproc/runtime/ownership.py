"""Which partitions are ours: how they come, how they go, and when one must stop.

Theory of operation
-------------------
The source's callbacks hand over: `assigned` only takes note and the intake lets what came be
opened (S0-S4), several at once and beside what is read. `revoked` waits for the turn and commits
within the drain budget, else abandons; what is done again faster than committed is not committed.
A worker that left in order is parked with its state ("keep hot"): should the partition come back
and the log's head still be ours, it goes on without a restore, with what it had not committed. An opening that was overtaken by a revocation comes to nothing: it has another lease.

`turn` is held by whoever works on a worker, and never across a question to the broker, nor while
waiting for the store, except where the work of a partition ends. A cancelled holder may leave the
compute thread busy with a worker; such a worker has been dropped from `workers` by then, and
whatever comes next waits for the thread.

Commits overlap with what is folded next: a span is frozen under the turn and written by a task
(`writes`) in a thread of its own, one at a time for each partition. Whoever needs it durable waits
for it (`settled`): a revocation, an opening, the end. The intake does not wait, it reads other
partitions: neither a due span behind one under way, nor anything behind a snapshot (the state is
not copied for it) or a timer's decision is folded before that is durable.

A fault stops its partition for good in this process, the others go on. A store that does not
answer or has no room is no fault: the write is tried again for as long as the partition is ours,
with its state. Being fenced is none either: only opening the log again tells.
"""

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

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
from streamproc.runtime.caution import Caution
from streamproc.runtime.compute import Compute
from streamproc.runtime.departures import Departures
from streamproc.runtime.opening import check_source, position_fault
from streamproc.runtime.openings import OPENERS, Openings
from streamproc.runtime.parts import ServiceOptions, ServiceParts
from streamproc.runtime.sleeping import cancel_all
from streamproc.runtime.worker import Committed, PartitionWorker
from streamproc.runtime.writes import Writes

LOST_MAX: Final = 5
"""Times in a row a partition that is still assigned is opened again before it stops."""

LOST_WAIT_US: Final = 2_000_000
"""Longer each time: a zombie hears of its lost membership before it fences its successor."""

UNREACHABLE_WAIT_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A partition that waits to be opened, from a time on; another one for each assignment."""

    from_us: int
    lease: int


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
        self.writes = Writes(parts, writing, self._keeps)
        self.caution = Caution(parts.careful_decoder_for, parts.observer)
        self._parts = parts
        self._options = options
        self._compute = compute
        self._openings = Openings(parts, options, self._not_stored)
        self._departures = departures
        self._source = parts.source
        self._clock = parts.clock
        self._observer = parts.observer
        self._settled = False
        self._leaving: frozenset[TopicPartition] = frozenset()
        self._leases = 0
        self._fresh: dict[TopicPartition, _Fresh] = {}
        self._opening: dict[TopicPartition, asyncio.Task[None]] = {}
        self._asking = asyncio.Semaphore(OPENERS)
        self._parked: dict[TopicPartition, PartitionWorker] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._lost: dict[TopicPartition, int] = {}

    def _owns(self, worker: PartitionWorker) -> bool:
        return self.workers.get(worker.origin) is worker

    def _keeps(self, worker: PartitionWorker) -> bool:
        return self._owns(worker) and worker.origin not in self._leaving

    # --- the source's callbacks -------------------------------------------------------

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Take note; the intake opens them."""
        self._settled = True
        self._leases += 1
        fresh = _Fresh(self._clock.monotonic_us(), self._leases)
        self._fresh |= dict.fromkeys(partitions - self.stopped.keys(), fresh)
        for origin in self._parked.keys() - partitions:
            del self._parked[origin]
        self._observer.assigned(partitions)

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Commit what is held within the drain budget, else abandon it.

        What waits for the store is abandoned at once: whoever comes next finds out what
        became of it, and holding up the group would help nobody.
        """
        self._settled, self._leaving = False, partitions
        for origin in partitions:
            if self._fresh.pop(origin, None) is not None:
                self.writes.settled(origin)
        try:
            async with asyncio.timeout(self._options.drain_s), self.turn:
                await self._release(partitions & self.workers.keys())
                # A hint that arrives after we have joined again is refused for its old
                # generation, and aiokafka then leaves and joins once more.
                await self._departures.hinted()
        except TimeoutError:
            self._observer.failed(
                "writing", "drain_budget", "abandoned uncommitted work"
            )
        for origin in partitions & self.workers.keys():
            self._drop(self.workers[origin])
        self._leaving = frozenset()

    async def _release(self, partitions: AbstractSet[TopicPartition]) -> None:
        """Commit what is worth it, and park; the commits are written one behind the other."""
        for origin in partitions:
            if self.writes.waiting(origin) is not None:
                self._drop(self.workers[origin])
        leaving = [self.workers[o] for o in sorted(partitions & self.workers.keys())]
        for worker in leaving:
            if await self.settled(worker) and worker.worth_committing:
                await self.flush(worker, FlushReason.REVOKE)
        for worker in leaving:
            if await self.settled(worker):
                self._drop(worker)
                self._parked[worker.origin] = worker

    def _drop(self, worker: PartitionWorker) -> None:
        del self.workers[worker.origin]
        self.writes.give_up(worker.origin)
        self._departures.lost(worker.origin)
        self.caution.lost(worker.origin)
        self._observer.released(worker.origin)

    # --- opening ----------------------------------------------------------------------

    def open_fresh(self) -> None:
        """Begin to open every partition that is waiting and whose time has come.

        They are opened beside what is read, several at once: most of it is waiting for
        answers of the broker and the store.
        """
        now_us = self._clock.monotonic_us()
        # What was kept hot goes first: it is quick, and nothing of it has changed.
        for origin in sorted(self._fresh, key=lambda o: (o not in self._parked, o)):
            fresh = self._fresh[origin]
            if fresh.from_us <= now_us and origin not in self._opening:
                self._opening[origin] = asyncio.create_task(self._try(origin, fresh))

    async def _try(self, origin: TopicPartition, fresh: _Fresh) -> None:
        try:
            async with self._asking:
                await self._own(origin, fresh)
        except StreamprocError as error:
            if self._fresh.get(origin) == fresh:
                self._not_opened(origin, fresh, error)
        # Not where it raises a bug: `raise_bugs` is to find it.
        del self._opening[origin]

    def _not_stored(self, origin: TopicPartition, problem: str) -> None:
        if origin in self._fresh:
            self.writes.trouble(origin, problem)

    def _not_opened(
        self, origin: TopicPartition, fresh: _Fresh, error: StreamprocError
    ) -> None:
        if isinstance(error, Fenced):
            self._try_later(origin, error, fresh.lease)
        elif isinstance(error, Unreachable):
            if self.writes.waiting(origin) is None:
                self._observer.failed("reading", "unreachable", str(error))
            again_us = self._clock.monotonic_us() + UNREACHABLE_WAIT_US
            self._fresh[origin] = replace(fresh, from_us=again_us)
        else:
            self.stop(origin, error)

    async def _own(self, origin: TopicPartition, fresh: _Fresh) -> None:
        began_us = self._clock.monotonic_us()
        await self.writes.done(origin)
        worker = await self._openings.worker(origin, self._parked.pop(origin, None))
        self.writes.settled(origin)
        bounds = await self._source.bounds(origin)
        await check_source(self._source, worker, bounds)
        async with self.turn:
            if self._fresh.get(origin) != fresh:
                return  # Revoked meanwhile: at worst we have fenced its next owner once.
            del self._fresh[origin]
            self.workers[origin] = worker
            self._departures.owned(worker)
            self._ends.setdefault(origin, bounds.end)
            self.caution.opened(worker, bounds.end)
            self._source.seek(origin, worker.position)
            self._source.resume(origin)
        seconds = (self._clock.monotonic_us() - began_us) / 1e6
        self._observer.opened(worker, seconds)

    @property
    def opening(self) -> bool:
        """Tell whether any partition is being opened or waits for it."""
        return bool(self._fresh)

    # --- committing -------------------------------------------------------------------

    async def flush(self, worker: PartitionWorker, reason: FlushReason) -> None:
        """Commit under the turn, beside what is folded next; nothing of it is under way."""
        frozen = await self._compute(worker.freeze, reason)
        if not self._owns(worker):
            return  # A drain that ran out of time has abandoned it meanwhile.
        sent = self._departures.frozen(worker.origin)
        self.writes.begin(
            worker,
            frozen,
            partial(self._written, worker, sent),
            partial(self._lose, worker),
        )

    async def commit(self, worker: PartitionWorker, reason: FlushReason) -> bool:
        """Commit under the turn and wait for it; False where the worker had to be dropped."""
        if not await self.settled(worker):
            return False
        await self.flush(worker, reason)
        return await self.settled(worker)

    async def finished(self, worker: PartitionWorker) -> bool:
        """Commit under the turn whatever is not durable yet; False where it was dropped."""
        if worker.dirty:
            return await self.commit(worker, FlushReason.DRAIN)
        return await self.settled(worker)

    async def settled(self, worker: PartitionWorker) -> bool:
        """Wait, under the turn, until nothing is being written; False where it was dropped."""
        await self.writes.done(worker.origin)
        return self._owns(worker)

    def _written(
        self,
        worker: PartitionWorker,
        sent: set[tuple[str, int]],
        committed: Committed,
    ) -> None:
        self._lost.pop(worker.origin, None)
        self._observer.committed(worker, committed)
        if self._owns(worker):
            self._departures.release(worker, committed, sent)

    def _lose(self, worker: PartitionWorker, error: StreamprocError) -> None:
        """Give up a worker whose log cannot be written: for a while, or for good."""
        if not self._owns(worker):
            return
        if isinstance(error, Unreachable):
            self._drop(worker)  # it is leaving
            return
        if not isinstance(error, Fenced):
            self.stop(worker.origin, error)
            return
        self._source.pause(worker.origin)
        self._drop(worker)
        self._leases += 1
        self._try_later(worker.origin, error, self._leases)

    async def close(self) -> None:
        """Give up what is being opened or written."""
        await cancel_all(list(self._opening.values()))
        await self.writes.close()
        self._openings.close()

    def _try_later(self, origin: TopicPartition, error: Fenced, lease: int) -> None:
        """Wait and open again; give up where that has not helped several times."""
        self._observer.failed("writing", "fenced", str(error))
        if origin in self._leaving:
            return  # opening it would fence whoever has it next
        times = self._lost.get(origin, 0) + 1
        self._lost[origin] = times
        if times >= LOST_MAX:
            self.stop(origin, error)
            return
        wait_us = LOST_WAIT_US * (times - 1)
        from_us = self._clock.monotonic_us() + wait_us
        self._fresh[origin] = _Fresh(from_us, lease)

    # --- stopping ---------------------------------------------------------------------

    def stop(self, origin: TopicPartition, error: StreamprocError) -> None:
        """Stop one partition for good: going on could lose or double a reading."""
        self._fresh.pop(origin, None)
        self.writes.give_up(origin)
        self.caution.lost(origin)
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
            Exception: what a write or an opening raised that is no fault of the world.
        """
        self.writes.raise_bugs()
        for task in self._opening.values():
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
