"""Processes that are kept running: when they are started again, when not, and how they stop."""

import asyncio
import signal
from collections.abc import Callable

import pytest

from streamproc.errors import ConfigError, WorldError
from streamproc.runtime.supervisor import (
    Plan,
    Process,
    RestartPolicy,
    Supervisor,
    Watcher,
)
from streamproc.testing.clock import ManualClock

WAIT_S = 30.0
POLICY = RestartPolicy(first_s=1.0, longest_s=8.0, steady_s=60.0, tries=4)


class Script(Process):
    """A process that ends when the test says so, or when it is asked to."""

    def __init__(self, *, obeys: bool = True) -> None:
        self.end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.asked = 0
        self.killed = False
        self._obeys = obeys

    async def ended(self) -> int:
        return await asyncio.shield(self.end)

    def exits(self, code: int) -> None:
        if not self.end.done():
            self.end.set_result(code)

    def drain(self) -> None:
        self.asked += 1
        if self._obeys:
            self.exits(0)

    def kill(self) -> None:
        self.killed = True
        self.exits(-9)


class Stage(Watcher):
    """Starts scripts and remembers them."""

    def __init__(self, plan: Plan, *, obeys: bool = True) -> None:
        self.clock = ManualClock()
        self.started_: dict[int, list[Script]] = {}
        self.pauses: list[float | None] = []
        self._obeys = obeys
        self._changed = asyncio.Event()
        self.supervisor = Supervisor(plan, self.launch, self.clock, lambda: 0.5, self)

    async def launch(self, number: int) -> Process:
        script = Script(obeys=self._obeys)
        self.started_.setdefault(number, []).append(script)
        self._changed.set()
        return script

    def ended(self, number: int, code: int, pause_s: float | None) -> None:
        self.pauses.append(pause_s)
        self._changed.set()

    async def until(self, happened: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not happened():  # noqa: ASYNC110  (a clock tells nobody)
                await asyncio.sleep(0)

    async def newest(self, number: int, count: int) -> Script:
        """Return the `count`-th process of a number, once it runs."""
        await self.until(
            lambda: (
                len(self.started_.get(number, [])) == count
                and number in self.supervisor.running
            )
        )
        return self.started_[number][-1]

    async def restart(self, number: int, count: int, seconds: float) -> Script:
        """Let the pause pass and return the next process."""
        await self.until(lambda: self.clock.sleeping)
        self.clock.advance(seconds)
        return await self.newest(number, count)


async def test_a_process_that_ends_is_started_again_after_pauses_that_double() -> None:
    stage = Stage(Plan(1, 10.0, policy=POLICY))
    running = asyncio.create_task(stage.supervisor.run())
    first = await stage.newest(1, 1)
    first.exits(-9)
    second = await stage.restart(1, 2, 0.5)
    second.exits(1)
    third = await stage.restart(1, 3, 1.0)
    assert stage.pauses == [0.5, 1.0]
    stage.supervisor.stop()
    await running
    assert third.asked == 1


async def test_no_process_is_started_before_its_pause_is_over() -> None:
    stage = Stage(Plan(1, 10.0, policy=POLICY))
    running = asyncio.create_task(stage.supervisor.run())
    (await stage.newest(1, 1)).exits(1)
    await stage.until(lambda: stage.clock.sleeping)
    stage.clock.advance(0.49)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(stage.started_[1]) == 1
    stage.supervisor.stop()
    await running


async def test_one_that_keeps_ending_ends_all_with_an_error_that_names_it() -> None:
    stage = Stage(Plan(2, 10.0, policy=POLICY))
    running = asyncio.create_task(stage.supervisor.run())
    other = await stage.newest(1, 1)
    script = await stage.newest(2, 1)
    for count in (2, 3, 4):
        script.exits(7)
        script = await stage.restart(2, count, 8.0)
    script.exits(7)
    with pytest.raises(WorldError, match=r"worker 2 has ended 4 times .* last with 7"):
        await running
    assert other.asked == 1


async def test_one_that_ran_for_long_is_forgiven_what_was_before() -> None:
    stage = Stage(Plan(1, 10.0, policy=POLICY))
    running = asyncio.create_task(stage.supervisor.run())
    script = await stage.newest(1, 1)
    for count in range(2, 12):
        stage.clock.advance(60.0)
        script.exits(1)
        script = await stage.restart(1, count, 0.5)
    stage.supervisor.stop()
    await running


async def test_a_refused_configuration_is_not_tried_again() -> None:
    stage = Stage(Plan(1, 10.0, policy=POLICY))
    running = asyncio.create_task(stage.supervisor.run())
    (await stage.newest(1, 1)).exits(2)
    with pytest.raises(ConfigError, match="worker 1 refuses"):
        await running
    assert len(stage.started_[1]) == 1


async def test_processes_that_are_done_are_not_started_again() -> None:
    stage = Stage(Plan(2, 10.0, until_done=True))
    running = asyncio.create_task(stage.supervisor.run())
    (await stage.newest(1, 1)).exits(0)
    (await stage.newest(2, 1)).exits(0)
    await running
    assert [len(found) for found in stage.started_.values()] == [1, 1]


async def test_one_that_does_not_drain_within_the_grace_is_killed_and_that_is_said() -> (
    None
):
    stage = Stage(Plan(1, 10.0), obeys=False)
    running = asyncio.create_task(stage.supervisor.run())
    script = await stage.newest(1, 1)
    stage.supervisor.stop()
    await stage.until(lambda: stage.clock.sleeping)
    stage.clock.advance(9.9)
    await asyncio.sleep(0)
    assert not script.killed
    stage.clock.advance(0.1)
    with pytest.raises(WorldError, match="ended with -9 instead of draining"):
        await running
    assert script.killed


async def test_one_that_was_told_before_it_could_listen_has_ended_in_order() -> None:
    stage = Stage(Plan(1, 10.0), obeys=False)
    running = asyncio.create_task(stage.supervisor.run())
    script = await stage.newest(1, 1)
    stage.supervisor.stop()
    script.exits(-signal.SIGTERM)
    await running


async def test_asked_to_abandon_each_process_is_asked_a_second_time() -> None:
    stage = Stage(Plan(2, 10.0), obeys=False)
    running = asyncio.create_task(stage.supervisor.run())
    scripts = [await stage.newest(number, 1) for number in (1, 2)]
    stage.supervisor.stop()
    stage.supervisor.stop()
    assert [script.asked for script in scripts] == [1, 1]
    stage.supervisor.abandon()
    assert [script.asked for script in scripts] == [2, 2]
    for script in scripts:
        script.exits(1)
    with pytest.raises(WorldError):
        await running


async def test_a_stop_during_a_pause_ends_at_once() -> None:
    stage = Stage(Plan(1, 10.0, policy=POLICY))
    running = asyncio.create_task(stage.supervisor.run())
    (await stage.newest(1, 1)).exits(1)
    await stage.until(lambda: stage.clock.sleeping)
    stage.supervisor.stop()
    await running
    assert len(stage.started_[1]) == 1
