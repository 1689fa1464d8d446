"""What is read next: from whom, how much, and what waits in memory until it can be folded.

Theory of operation
-------------------
Before each fetch every partition of ours is asked whether it must wait, and is paused at the source
if so; what was fetched and cannot be folded yet waits in `_backlog`, in order. Nobody ever waits
inside a fetch or under the turn, so the source is polled all the time and the group keeps us,
however long a store takes. A partition waits

* while it waits for the store (`Writes`),
* behind a commit that must be durable first, or a due span behind one under way,
* while the process holds as much as it may (`core.admission.Room`), or its city too much of it.

What is fetched ahead beyond its share of the bound is given back: the source is set to where we
stand and fetches it again later. Among partitions that need not wait, cities take turns by weight
(`core.admission`): one in debt is not asked for as long as another one has anything.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from streamproc.core.admission import (
    Room,
    in_turn,
    next_round,
    quanta,
    served,
    too_greedy,
)
from streamproc.core.values import Records, TopicPartition
from streamproc.runtime.ownership import Ownership
from streamproc.runtime.parts import ServiceOptions, ServiceParts
from streamproc.runtime.worker import PartitionWorker

FETCH_TIMEOUT_MS: Final = 200
WAITING_TIMEOUT_MS: Final = 20
"""How long a fetch takes while somebody waits for something else than records."""


class Intake:
    """Reads for one service. Every method belongs to the event loop."""

    def __init__(
        self, parts: ServiceParts, options: ServiceOptions, owner: Ownership
    ) -> None:
        self._source = parts.source
        self._observer = parts.observer
        self._owner = owner
        self._buffer = options.buffer
        self._bytes_max = options.bytes_max
        self._weights = dict(options.weights)
        self._city_of = dict(parts.definition.topic_cities)
        self._quanta = quanta(self._weights)
        self._credit = dict(self._quanta)
        self._paused: dict[TopicPartition, PartitionWorker] = {}
        self._backlog: deque[tuple[PartitionWorker, Records]] = deque()

    # --- what is held -----------------------------------------------------------------

    def city(self, origin: TopicPartition) -> str:
        """Return whose turn a partition takes: its city's, or that of its shared topic."""
        name = self._city_of.get(origin.topic, origin.topic)
        if name not in self._quanta:
            self._weights[name] = 1
            self._quanta = quanta(self._weights)
            self._credit[name] = self._quanta[name]
        return name

    def buffered(self) -> dict[TopicPartition, int]:
        """Return the bytes that wait for a commit, by partition of ours."""
        workers = self._owner.workers
        return {origin: worker.held_bytes for origin, worker in workers.items()}

    def report(self) -> None:
        """Tell how much is held: the ticker's work."""
        writing = sum(self._owner.writes.sizes().values())
        buffered = sum(self.buffered().values())
        self._observer.holding(self._source.held_bytes, buffered, writing)

    def _held_by_city(self) -> Mapping[str, int]:
        held: dict[str, int] = {}
        for sizes in (self.buffered(), self._owner.writes.sizes()):
            for origin, size in sizes.items():
                city = self.city(origin)
                held[city] = held.get(city, 0) + size
        return held

    # --- who must wait ----------------------------------------------------------------

    def must_wait(self, worker: PartitionWorker) -> bool:
        """Tell whether nothing of a partition may be folded now: what came first is first."""
        return self._keeps(worker) or bool(self._waiting([worker]))

    def _waiting(self, workers: Collection[PartitionWorker]) -> list[PartitionWorker]:
        writes = self._owner.writes
        total = sum(self.buffered().values()) + sum(writes.sizes().values())
        if self._room().left(self._source.held_bytes, total) <= 0:
            return list(workers)
        if total >= self._buffer.bytes_max:
            return list(workers)
        greedy = self._greedy(total)
        return [
            worker
            for worker in workers
            if writes.waiting(worker.origin) is not None
            or writes.exclusive(worker.origin)
            or (writes.busy(worker.origin) and worker.due() is not None)
            or self.city(worker.origin) in greedy
        ]

    def _greedy(self, total: int) -> frozenset[str]:
        """Return the cities that must wait for commits; nobody where `total` is too little."""
        bound, weights = self._buffer.bytes_max, self._weights
        least = min(weights.values(), default=1)
        if not too_greedy({"": total}, {**weights, "": least}, bound):
            return frozenset()
        return too_greedy(self._held_by_city(), weights, bound)

    def _room(self) -> Room:
        """Half of what is not for buffers is kept for what is on its way, if so much may come."""
        ahead = self._bytes_max - self._buffer.bytes_max
        return Room(self._bytes_max, min(self._source.coming_bytes, ahead // 2))

    def _hold(self) -> None:
        """Pause whoever must wait, let go on whoever need not any more."""
        workers = self._owner.workers
        waiting = {w.origin: w for w in self._waiting(list(workers.values()))}
        for origin, worker in list(self._paused.items()):
            if workers.get(origin) is not worker:
                del self._paused[origin]  # it came paused, or goes on, with another one
            elif origin not in waiting:
                del self._paused[origin]
                self._source.resume(origin)
        for origin in waiting.keys() - self._paused.keys():
            self._paused[origin] = waiting[origin]
            self._source.pause(origin)
        self._give_back()

    def _give_back(self) -> None:
        """Let the source forget what it has fetched ahead beyond its share."""
        room = self._room()
        share = room.bytes_max - room.reserve - self._buffer.bytes_max
        if self._source.held_bytes <= share:
            return
        for origin, worker in self._paused.items():
            self._source.seek(origin, self._next(worker))

    def _next(self, worker: PartitionWorker) -> int:
        """Return the offset after all that has been handed to us of a partition."""
        kept = [records.span.end for of, records in self._backlog if of is worker]
        return kept[-1] if kept else worker.position

    # --- reading ----------------------------------------------------------------------

    async def read(self) -> Sequence[tuple[PartitionWorker, Records]]:
        """Return what may be folded next, with whose it is; perhaps nothing yet."""
        self._hold()
        ready = self._from_backlog()
        if ready:
            return ready
        open_ = {
            origin: worker
            for origin, worker in self._owner.workers.items()
            if origin not in self._paused
        }
        found = await self._in_turn(open_.keys())
        taken = []
        for records in found:
            self._credit = served(
                self._credit, self.city(records.origin), records.values.nbytes
            )
            worker = self._owner.workers.get(records.origin)
            if worker is not None:
                taken.append((worker, records))
        return taken

    async def _in_turn(self, origins: Collection[TopicPartition]) -> Sequence[Records]:
        """Fetch from those whose turn it is; as long as they have nothing, a new round begins.

        Each round lets at least one more city in, so the last one waits for all of them.
        """
        cities = {self.city(origin) for origin in origins}
        while (turn := in_turn(self._credit, cities)) != cities:
            if turn:
                among = {origin for origin in origins if self.city(origin) in turn}
                found = await self._source.fetch(0, among)
                if found:
                    return found
            self._credit = next_round(self._credit, self._quanta, cities - turn)
        timeout_ms = WAITING_TIMEOUT_MS if self._restless else FETCH_TIMEOUT_MS
        return await self._source.fetch(timeout_ms)

    @property
    def _restless(self) -> bool:
        return bool(self._paused or self._owner.opening)

    # --- what waits -------------------------------------------------------------------

    def keep(self, worker: PartitionWorker, records: Records, start: int) -> None:
        """Keep what was read and must wait, from offset `start` on; in order of offsets."""
        self._backlog.append((worker, records.between(start, records.span.end)))

    def forget_lost(self) -> None:
        """Drop what was read for partitions that are not ours now.

        Before any is opened again: a worker that comes back hot is the same one, and is given
        everything after its position anew.
        """
        workers = self._owner.workers
        mine = (x for x in self._backlog if workers.get(x[0].origin) is x[0])
        self._backlog = deque(mine)

    def _keeps(self, worker: PartitionWorker) -> bool:
        return any(of is worker for of, _ in self._backlog)

    def _from_backlog(self) -> Sequence[tuple[PartitionWorker, Records]]:
        """Take out what need not wait any more, and drop what is not ours any more."""
        self.forget_lost()
        mine = list(self._backlog)
        self._backlog = deque(x for x in mine if x[0].origin in self._paused)
        return [x for x in mine if x[0].origin not in self._paused]
