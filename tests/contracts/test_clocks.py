"""The contract of `Clock`, and what the manual one promises beyond it."""

import asyncio

import pytest

from streamproc.connectors.clock import SystemClock
from streamproc.core.ports import Clock
from streamproc.testing.clock import ManualClock


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()])
async def test_time_never_goes_back_and_sleeping_takes_none_of_zero(
    clock: Clock,
) -> None:
    before = clock.monotonic_us()

    await clock.sleep(0)

    assert clock.monotonic_us() >= before
    assert clock.wall_us() >= 0


async def test_sleepers_wake_in_the_order_of_their_deadlines_and_not_before() -> None:
    clock = ManualClock(wall_us=1_000)
    woken = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3.0, 1.0, 2.0)]
    await asyncio.sleep(0)
    assert clock.sleeping == 3

    clock.advance(0.999999)
    await asyncio.sleep(0)
    assert woken == []
    clock.advance(1.000001)
    await asyncio.sleep(0)
    assert woken == [1.0, 2.0]
    assert clock.sleeping == 1
    assert (clock.monotonic_us(), clock.wall_us()) == (2_000_000, 2_001_000)

    clock.advance(10)
    await asyncio.gather(*tasks)
    assert woken == [1.0, 2.0, 3.0]


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(5))
    await asyncio.sleep(0)

    task.cancel()
    await asyncio.wait({task})

    assert clock.sleeping == 0
    clock.advance(10)


def test_the_wall_jumps_alone() -> None:
    clock = ManualClock(wall_us=5_000_000)

    clock.jump_wall(-2)

    assert (clock.monotonic_us(), clock.wall_us()) == (0, 3_000_000)
