"""Several processes of the service, kept running: started, restarted, stopped together.

Each process is a member of the consumer group like any other; nothing is shared between them but
the group and the store, so nothing here is needed for correctness. One that ends by itself is
started again after a pause that doubles, with full jitter, so that what is broken for all is not
hammered by all at once. One that keeps ending without having run for a while will not get better:
then all are drained and the error is told.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from streamproc.core.ports import Clock
from streamproc.errors import ConfigError, WorldError
from streamproc.runtime.sleeping import sleep_unless

USAGE: Final = 2
"""Exit code of a process whose configuration cannot be used: no start will change that."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a process is started again, and when no more. Times in seconds."""

    first_s: float = 1.0
    longest_s: float = 30.0
    steady_s: float = 60.0
    tries: int = 5

    def pause_s(self, failures: int, jitter: float) -> float:
        """Return the pause after so many ends in a row (1 and more); `jitter` in [0, 1)."""
        return jitter * min(self.longest_s, self.first_s * 2.0 ** (failures - 1))

    def failures(self, before: int, lived_s: float) -> int:
        """Return the ends in a row, with one after `lived_s`."""
        return 1 if lived_s >= self.steady_s else before + 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to run.

    Attributes:
        count: how many processes, numbered from 1.
        grace_s: how long a drain may take before a process is killed.
        until_done: processes end by themselves with 0 when there is nothing left to do.
        policy: when one is started again.
    """

    count: int
    grace_s: float
    until_done: bool = False
    policy: RestartPolicy = RestartPolicy()


class Process(Protocol):
    """A process that was started."""

    async def ended(self) -> int:
        """Return its exit code, negative for a signal, once it has ended."""
        ...

    def drain(self) -> None:
        """Ask it to stop in order; asked twice it abandons. Safe when it has ended."""
        ...

    def kill(self) -> None:
        """End it at once. Safe when it has ended."""
        ...


class Watcher:
    """Told what becomes of processes. Every method does nothing here."""

    def started(self, number: int, again: int) -> None:
        """Take note that process `number` runs, for the `again`-th time after the first."""

    def ended(self, number: int, code: int, pause_s: float | None) -> None:
        """Take note of an end; `pause_s` until it is started again, None if it is not."""


class Supervisor:
    """Runs the processes of a plan. Runs once.

    Args:
        plan: what is to run.
        launch: starts process `number`.
        clock: for pauses and ages.
        jitter: returns numbers in [0, 1).
        watcher: told what happens.
    """

    def __init__(
        self,
        plan: Plan,
        launch: Callable[[int], Awaitable[Process]],
        clock: Clock,
        jitter: Callable[[], float],
        watcher: Watcher | None = None,
    ) -> None:
        self._plan = plan
        self._policy = plan.policy
        self._launch = launch
        self._clock = clock
        self._jitter = jitter
        self._watcher = watcher or Watcher()
        self._stopping = asyncio.Event()
        self._running: dict[int, Process] = {}
        self._fault: Exception | None = None

    @property
    def running(self) -> Mapping[int, Process]:
        """Return the processes that run now, by number."""
        return self._running

    def stop(self) -> None:
        """Ask every process to drain, and start none any more. Safe twice."""
        if not self._stopping.is_set():
            self._stopping.set()
            for process in self._running.values():
                process.drain()

    def abandon(self) -> None:
        """Tell every process to leave at once; what it held is done again later."""
        for process in self._running.values():
            process.drain()

    async def run(self) -> None:
        """Run until stopped or, with `until_done`, until all are done.

        Raises:
            ConfigError: a process refuses its configuration.
            WorldError: a process keeps ending, or one had to be killed or failed at the end.
        """
        tasks = [
            asyncio.create_task(self._keep(number))
            for number in range(1, self._plan.count + 1)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for process in self._running.values():
                process.kill()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._fault is not None:
            raise self._fault

    async def _keep(self, number: int) -> None:
        """Keep one process running."""
        failures = again = 0
        while not self._stopping.is_set():
            began_us = self._clock.monotonic_us()
            code = await self._one(number, again)
            if self._stopping.is_set():
                self._ended_in_the_end(number, code)
                return
            if code == 0 and self._plan.until_done:
                self._watcher.ended(number, code, None)
                return
            lived_s = (self._clock.monotonic_us() - began_us) / 1e6
            failures = self._policy.failures(failures, lived_s)
            if code == USAGE or failures >= self._policy.tries:
                self._give_up(number, code, failures)
                return
            pause_s = self._policy.pause_s(failures, self._jitter())
            self._watcher.ended(number, code, pause_s)
            await sleep_unless(self._clock, pause_s, self._stopping)
            again += 1

    async def _one(self, number: int, again: int) -> int:
        """Run a process once; one that does not drain in time is killed."""
        process = await self._launch(number)
        self._running[number] = process
        self._watcher.started(number, again)
        if self._stopping.is_set():
            process.drain()
        ended = asyncio.create_task(process.ended())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                grace = asyncio.create_task(self._clock.sleep(self._plan.grace_s))
                await asyncio.wait({ended, grace}, return_when=asyncio.FIRST_COMPLETED)
                grace.cancel()
            if not ended.done():
                process.kill()
            return await ended
        finally:
            stopping.cancel()
            del self._running[number]

    def _ended_in_the_end(self, number: int, code: int) -> None:
        self._watcher.ended(number, code, None)
        # One that was told before it could listen held nothing yet.
        if code not in (0, -signal.SIGTERM) and self._fault is None:
            msg = f"worker {number} ended with {code} instead of draining"
            self._fault = WorldError(msg)

    def _give_up(self, number: int, code: int, failures: int) -> None:
        self._watcher.ended(number, code, None)
        if code == USAGE:
            msg = f"worker {number} refuses its configuration; it says why above"
            self._fault = self._fault or ConfigError(msg)
        else:
            msg = (
                f"worker {number} has ended {failures} times in a row, last with {code}, and "
                f"never ran for {self._policy.steady_s:.0f} s: giving up"
            )
            self._fault = self._fault or WorldError(msg)
        self.stop()
