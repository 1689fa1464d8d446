"""Spans on their way to the store: one at a time of each partition, until they are there.

A store that does not answer, or has no room, is tried again for as long as the partition is ours:
giving up would cost the state and gain nothing. Meanwhile the partition is not read (`Intake`),
so what is held stays bounded, while the event loop goes on and with it the membership. The
observer is told once when a partition begins to wait for the store, also where a call just takes
very long, and once when it goes on.

Before anything is written the broker is asked whether the topic is still the one the log is of.
Offsets of a topic that was deleted and created anew may be valid in the new one, and aiokafka,
which knows topics by their names, reads on. Whoever asks after the last record was read, and
before the commit, can never commit such records. A broker that does not tell holds up nothing.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from streamproc.core.values import TopicPartition
from streamproc.errors import StreamprocError, Unreachable, WorldError
from streamproc.runtime.compute import Compute
from streamproc.runtime.opening import refuse_recreated
from streamproc.runtime.parts import ServiceParts
from streamproc.runtime.sleeping import cancel_all, sleep_unless
from streamproc.runtime.worker import Committed, Frozen, PartitionWorker

RETRY_S = (1.0, 2.0, 5.0, 10.0)
"""Pauses before a write is tried again; the last one for ever."""

SLOW_US = 10_000_000
"""A write that takes longer is reported: the store may never answer."""

ASK_S = 2.0
"""So long the broker may take to tell the topic's id."""


@dataclass(slots=True)
class _Write:
    task: "asyncio.Task[None]"
    size: int
    exclusive: bool
    since_us: int
    given_up: asyncio.Event


class Writes:
    """What is being written. Every method belongs to the event loop.

    Args:
        parts: source, clock and observer are used.
        writing: the thread in which logs are written.
        keeps: tells whether a worker stays the owner's; only then is it tried again.
    """

    def __init__(
        self,
        parts: ServiceParts,
        writing: Compute,
        keeps: Callable[[PartitionWorker], bool],
    ) -> None:
        self._source = parts.source
        self._clock = parts.clock
        self._observer = parts.observer
        self._writing = writing
        self._keeps = keeps
        self._under_way: dict[TopicPartition, _Write] = {}
        self._waiting: dict[TopicPartition, str] = {}
        self._ended: set[TopicPartition] = set()

    def begin(
        self,
        worker: PartitionWorker,
        frozen: Frozen,
        done: Callable[[Committed], None],
        failed: Callable[[StreamprocError], None],
    ) -> None:
        """Write a frozen span in a task of its own; nothing of its partition is under way.

        `done` or `failed` is called at the end; with `Unreachable` only for a worker that is
        not kept any more.
        """
        assert worker.origin not in self._under_way, worker.origin
        given_up = asyncio.Event()
        task = asyncio.create_task(self._write(worker, frozen, given_up, done, failed))
        now_us = self._clock.monotonic_us()
        self._under_way[worker.origin] = _Write(
            task, frozen.held_bytes, frozen.exclusive, now_us, given_up
        )

    async def _write(
        self,
        worker: PartitionWorker,
        frozen: Frozen,
        given_up: asyncio.Event,
        done: Callable[[Committed], None],
        failed: Callable[[StreamprocError], None],
    ) -> None:
        origin = worker.origin
        try:
            committed = await self._until_written(worker, frozen, given_up)
        except StreamprocError as error:
            self.settled(origin)
            failed(error)
        else:
            self.settled(origin)
            done(committed)
        del self._under_way[origin]
        self._ended.add(origin)

    async def _until_written(
        self, worker: PartitionWorker, frozen: Frozen, given_up: asyncio.Event
    ) -> Committed:
        tries = 0
        while True:
            try:
                await self._refuse_recreated(worker)
                return await self._writing(worker.write, frozen)
            except Unreachable as error:
                if not self._keeps(worker):
                    raise
                self.trouble(worker.origin, str(error))
                pause_s = RETRY_S[min(tries, len(RETRY_S) - 1)]
                await sleep_unless(self._clock, pause_s, given_up)
                if not self._keeps(worker):
                    raise
            tries += 1

    async def _refuse_recreated(self, worker: PartitionWorker) -> None:
        topic, known = worker.origin.topic, worker.head.topic_id
        try:
            async with asyncio.timeout(ASK_S):
                found = await self._source.topic_id(topic)
        except (WorldError, TimeoutError):
            return
        if found != known:
            refuse_recreated(topic, found, [known])

    # --- how things stand -------------------------------------------------------------

    def busy(self, origin: TopicPartition) -> bool:
        """Tell whether a span of this partition is being written."""
        return origin in self._under_way

    def exclusive(self, origin: TopicPartition) -> bool:
        """Tell whether nothing may be folded before the span under way is durable."""
        write = self._under_way.get(origin)
        return write is not None and write.exclusive

    def waiting(self, origin: TopicPartition) -> str | None:
        """Return why a partition waits for the store, None where it does not."""
        return self._waiting.get(origin)

    def take_ended(self) -> frozenset[TopicPartition]:
        """Return whose writes have ended since this was last asked."""
        ended = frozenset(self._ended)
        self._ended.clear()
        return ended

    def sizes(self) -> dict[TopicPartition, int]:
        """Return the bytes being written, by partition."""
        return {origin: write.size for origin, write in self._under_way.items()}

    def raise_bugs(self) -> None:
        """Raise what a write raised that is no fault of the world."""
        for write in self._under_way.values():
            if write.task.done():
                write.task.result()

    # --- waiting ----------------------------------------------------------------------

    async def done(self, origin: TopicPartition) -> None:
        """Wait for what is being written of a partition now. Nobody need hold the turn."""
        write = self._under_way.get(origin)
        if write is not None:
            await asyncio.shield(write.task)

    def trouble(self, origin: TopicPartition, problem: str) -> None:
        """Note that a partition waits for the store; told once."""
        if origin not in self._waiting:
            self._observer.store(origin, problem)
        self._waiting[origin] = problem

    def settled(self, origin: TopicPartition) -> None:
        """Note that a partition does not wait for the store (any more); told once."""
        if self._waiting.pop(origin, None) is not None:
            self._observer.store(origin, "")

    def give_up(self, origin: TopicPartition) -> None:
        """Try no further to write of a partition that is not ours any more."""
        self.settled(origin)
        write = self._under_way.get(origin)
        if write is not None:
            write.given_up.set()

    def look(self) -> None:
        """Report writes that take very long: the ticker's work."""
        now_us = self._clock.monotonic_us()
        for origin, write in self._under_way.items():
            for_us = now_us - write.since_us
            if for_us >= SLOW_US and not write.task.done():
                problem = f"a commit has taken {for_us // 1_000_000} s and goes on"
                self.trouble(origin, self._waiting.get(origin, problem))

    async def close(self) -> None:
        """Give up waiting for what is being written."""
        await cancel_all([write.task for write in self._under_way.values()])
