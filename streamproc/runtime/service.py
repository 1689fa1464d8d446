"""The consumer service: the order of things between source, workers, alerts and stop.

Theory of operation
-------------------
Tasks share the event loop. The intake asks the source for batches (`Intake` says of whom) and
advances the workers. The read call waits without a timeout during a rebalance, so no timer may
live in it: the *ticker* commits by age, and the *watch* asks for end offsets, which may take a
broker's timeout, and judges silence. Each *outbox* delivers committed alerts. All work on a worker's
state happens on one compute thread and under `Ownership.turn`; what is complete is written on
another.

A fault stops its partition and is reported; the others go on. The service ends with the
first fault once none is left, or at the end.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from weakref import WeakKeyDictionary

from streamproc.core.flush import FlushReason
from streamproc.core.ports import Decoder
from streamproc.core.values import Emission, Records, TimerDecision, TopicPartition
from streamproc.errors import Forbidden, SourceMismatch, Unreachable
from streamproc.runtime.compute import Compute
from streamproc.runtime.departures import Departures
from streamproc.runtime.intake import Intake
from streamproc.runtime.ownership import Ownership
from streamproc.runtime.pace import Pace
from streamproc.runtime.parts import ServiceOptions, ServiceParts
from streamproc.runtime.sleeping import cancel_all, sleep_unless
from streamproc.runtime.worker import PartitionWorker

QUESTION_S = 3.0
"""How long the end waits for a question to the broker: cut off, it would leak a connection."""


class Service:
    """Consumes until stopped, or to the end where asked to. Runs once."""

    def __init__(self, parts: ServiceParts, options: ServiceOptions) -> None:
        self._parts = parts
        self._options = options
        self._source = parts.source
        self._clock = parts.clock
        self._observer = parts.observer
        self._compute = Compute("compute")
        self._writing = Compute("writer")
        self._departures = Departures(parts, self._writing)
        self._owner = Ownership(
            parts, options, self._compute, self._writing, self._departures
        )
        self._intake_of = Intake(parts, options, self._owner)
        self._pace = Pace(options.max_rate)
        # As long as the worker, also while it is parked.
        self._decoders: WeakKeyDictionary[PartitionWorker, Decoder] = (
            WeakKeyDictionary()
        )
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()

    # --- the outside ------------------------------------------------------------------

    def stop(self) -> None:
        """Ask for a drain: stop reading, commit what is held, leave. Safe twice."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Tell whether a drain was asked for."""
        return self._stopping.is_set()

    @property
    def workers(self) -> Mapping[TopicPartition, PartitionWorker]:
        """Return the partitions that are ours now."""
        return self._owner.workers

    @property
    def stopped(self) -> Mapping[TopicPartition, Exception]:
        """Return the partitions that a fault has stopped, with it."""
        return self._owner.stopped

    async def run(self) -> None:
        """Run until stopped or, with `until_end`, until done.

        Raises:
            StreamprocError: the first fault, once no partition is left or at the end.
        """
        timers: list[asyncio.Task[None]] = []
        others: list[asyncio.Task[None]] = []
        try:
            await self._source.start(self._owner)
            timers = [
                asyncio.create_task(self._repeat(self.commit_old)),
                asyncio.create_task(self._repeat(self.watch)),
            ]
            others = [
                asyncio.create_task(box.run(self._delivered))
                for box in self._parts.outboxes.values()
            ]
            intake = asyncio.create_task(self._intake())
            others.append(intake)
            await self._until_over(intake, [*timers, *others[:-1]])
            await self._finish(timers)
        finally:
            await cancel_all([*timers, *others])
            await self._source.stop()
            await self._owner.close()
            await self._departures.close()
            self._compute.close()
            self._owner.caution.close()
            self._writing.close()
        for error in self._owner.stopped.values():
            raise error

    async def _until_over(
        self, intake: "asyncio.Task[None]", side: "Sequence[asyncio.Task[None]]"
    ) -> None:
        """Wait for the intake's end; another task that ends has failed, and ends it all."""
        await asyncio.wait([intake, *side], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in side if task.done()]
        if failed:
            self._stopping.set()
        await intake
        for task in failed:
            task.result()

    # --- intake -----------------------------------------------------------------------

    async def _intake(self) -> None:
        while not self._stopping.is_set():
            self._intake_of.forget_lost()
            self._owner.caution.close_idle()
            self._owner.open_fresh()
            await self._commit_what_waited()
            for worker, records in await self._read():
                await self._advance(worker, records)
            if self._options.until_end and self._owner.at_end:
                if self._owner.empty_handed:
                    self._observer.failed(
                        "reading", "no_partitions", "the group gave us none to read"
                    )
                return
            self._owner.raise_if_nothing_is_left()

    async def _read(self) -> Sequence[tuple[PartitionWorker, Records]]:
        try:
            return await self._intake_of.read()
        except SourceMismatch as error:
            if not error.source:
                raise
            await self._owner.overtaken(error)
            return ()
        except Forbidden as error:
            if not error.topic:
                raise
            await self._owner.forbidden(error)
            return ()

    async def _advance(self, worker: PartitionWorker, records: Records) -> None:
        """Fold a batch piece by piece; what must wait is kept for later."""
        if self.workers.get(records.origin) is not worker:
            return
        for part in self._pace.slices(records):
            if self._intake_of.must_wait(worker):
                self._intake_of.keep(worker, records, part.span.start)
                return
            pause_s = self._pace.wait_s(self._clock.monotonic_us(), len(part))
            if pause_s > 0:
                await sleep_unless(self._clock, pause_s, self._stopping)
            if self._stopping.is_set():
                return
            decoder = self._decoder(worker)
            if not await self._parts.schemas.teach(decoder, part):
                return
            async with self._owner.turn:
                if self.workers.get(records.origin) is not worker:
                    return
                if self._owner.writes.exclusive(worker.origin):
                    # The ticker or the watch was faster than we.
                    self._intake_of.keep(worker, records, part.span.start)
                    return
                await self._step(worker, decoder, part)

    def _decoder(self, worker: PartitionWorker) -> Decoder:
        """Return the worker's own: the names it has learnt are those of its partition."""
        usual = self._decoders.get(worker)
        if usual is None:
            usual = self._parts.make_decoder(worker.origin.topic)
            self._decoders[worker] = usual
        return self._owner.caution.decoder(worker, usual)

    async def _step(
        self, worker: PartitionWorker, decoder: Decoder, records: Records
    ) -> None:
        began_us = self._clock.monotonic_us()
        emission = await self._compute(self._fold, worker, decoder, records)
        if self.workers.get(worker.origin) is not worker:
            return  # A drain that ran out of time has abandoned it meanwhile.
        seconds = (self._clock.monotonic_us() - began_us) / 1e6
        self._observer.stepped(records, emission, seconds)
        await self._departures.early(worker, emission)
        await self._commit_if_due(worker)
        await self._commit_if_full()

    def _fold(
        self, worker: PartitionWorker, decoder: Decoder, records: Records
    ) -> Emission:
        """Decode and fold; on the compute thread."""
        self._parts.failpoint("decode.before")
        return worker.step(records, decoder.decode(records))

    async def _commit_if_due(self, worker: PartitionWorker) -> None:
        """Under the turn; behind a commit under way nothing begins."""
        if self.workers.get(worker.origin) is not worker:
            return
        if self._owner.writes.busy(worker.origin):
            return
        reason = worker.due()
        if reason is not None:
            await self._owner.flush(worker, reason)

    async def _commit_if_full(self) -> None:
        """Under the turn: commit whoever holds most while all hold too much together.

        Half of the bound is for what is being written beside. Whose last commit is under way
        is passed over: intake stops before the bound.
        """
        writes = self._owner.writes
        held = self._intake_of.buffered()
        if self._options.buffer.halved.fullest(held) is None:
            return
        free = {o: size for o, size in held.items() if size and not writes.busy(o)}
        if free:
            fullest = max(free, key=lambda origin: free[origin])
            await self._owner.flush(self.workers[fullest], FlushReason.BUFFER)

    async def _commit_what_waited(self) -> None:
        """Commit spans that became due behind a commit that is done by now."""
        for origin in self._owner.writes.take_ended():
            worker = self.workers.get(origin)
            if worker is not None:
                async with self._owner.turn:
                    await self._commit_if_due(worker)
                    await self._commit_if_full()

    async def _delivered(self, origin: TopicPartition) -> None:
        worker = self.workers.get(origin)
        if worker is not None:
            await self._departures.delivered(worker)

    # --- timers -----------------------------------------------------------------------

    async def _repeat(self, action: Callable[[], Awaitable[None]]) -> None:
        tick_s = self._options.tick_us / 1e6
        while not self._ended.is_set():
            await sleep_unless(self._clock, tick_s, self._ended)
            if not self._ended.is_set():
                await action()

    async def commit_old(self) -> None:
        """Commit every span that is old enough, and look after the rest: the ticker's work."""
        self._owner.writes.look()
        self._intake_of.report()
        for worker in list(self.workers.values()):
            async with self._owner.turn:
                await self._commit_if_due(worker)

    async def watch(self) -> None:
        """Ask every partition's end offset and judge silence: the watch's work.

        An unreachable broker is not silence; nobody else is asked then. A topic that we may
        not read any more stops.
        """
        for worker in list(self.workers.values()):
            try:
                await self._judge(worker)
            except Unreachable as error:
                self._observer.failed("reading", "unreachable", str(error))
                return
            except Forbidden as error:
                if not error.topic:
                    raise
                await self._owner.forbidden(error)

    async def _judge(self, worker: PartitionWorker) -> None:
        """Take what silence justifies, if the end, asked for afterwards, confirms it."""
        proposed = await self._proposals(worker, None)
        bounds = await self._source.bounds(worker.origin)
        self._observer.lag(worker, bounds.end)
        if not proposed:
            return
        async with self._owner.turn:
            if self.workers.get(worker.origin) is not worker:
                return
            if worker.position < bounds.end or self._stopping.is_set():
                return
            if self._owner.writes.busy(worker.origin):
                return  # the next tick asks again
            timers = await self._propose(worker, frozenset(map(_key, proposed)))
            if timers:
                await self._compute(worker.decide, timers)
                await self._owner.flush(worker, FlushReason.TIMER)

    async def _proposals(
        self, worker: PartitionWorker, among: "frozenset[_Key] | None"
    ) -> Sequence[TimerDecision]:
        async with self._owner.turn:
            if self.workers.get(worker.origin) is not worker:
                return ()
            if self._owner.writes.exclusive(worker.origin):
                return ()  # its state is being written
            return await self._propose(worker, among)

    async def _propose(
        self, worker: PartitionWorker, among: "frozenset[_Key] | None"
    ) -> Sequence[TimerDecision]:
        found = await self._compute(worker.proposals, self._options.idle_us)
        return [t for t in found if among is None or _key(t) in among]

    # --- the end ----------------------------------------------------------------------

    async def _finish(self, timers: "Sequence[asyncio.Task[None]]") -> None:
        """Commit everything held, close windows if asked to, let alerts leave."""
        try:
            async with asyncio.timeout(self._options.drain_s):
                self._ended.set()
                await asyncio.wait(timers, timeout=QUESTION_S)
                async with self._owner.turn:
                    # Under the turn they are not in the middle of anything.
                    await cancel_all(timers)
                    for worker in list(self.workers.values()):
                        await self._finish_partition(worker)
                await self._departures.drained()
                await self._departures.hinted()
        except TimeoutError:
            self._observer.failed(
                "writing", "drain_budget", "alerts or work left for the next start"
            )

    async def _finish_partition(self, worker: PartitionWorker) -> None:
        if not await self._owner.settled(worker):
            return
        if self._options.close and not self._stopping.is_set():
            timers = await self._compute(worker.finals)
            await self._compute(worker.decide, timers)
        await self._owner.finished(worker)


_Key = tuple[str, str, str | None]


def _key(timer: TimerDecision) -> _Key:
    return timer.kind, timer.city, timer.device
