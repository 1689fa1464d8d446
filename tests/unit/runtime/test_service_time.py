"""Neither a wall clock that jumps nor a device's wrong clock changes what is published."""

from pathlib import Path

import pytest

from streamproc.core.flush import FlushPolicy
from streamproc.core.values import TopicPartition
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.service import (
    RAZLOG,
    START_US,
    Rig,
    closed,
    definition,
    log_of,
    published,
    reading,
    readings_of,
    traffic,
)

P0 = TopicPartition(RAZLOG, 0)
DAY_S = 86_400
TO_END = ServiceOptions(until_end=True, close=True)
YEAR_S = 365 * DAY_S


def source_of(values: list[bytes]) -> ScriptedSource:
    source = ScriptedSource({RAZLOG: 1}, records_max=10)
    source.produce(P0, values, broker_us=START_US + 60_000_000)
    return source


@pytest.mark.fault(
    "F32", how="the wall clock jumps by a day at every commit", seen="the same tables"
)
@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
async def test_a_wall_clock_that_jumps_changes_nothing(
    tmp_path: Path, jump_s: int
) -> None:
    straight = Rig(
        tmp_path / "straight", source_of(traffic(200)), ManualClock(), options=TO_END
    )
    await straight.run()
    clock = ManualClock(wall_us=START_US)
    jumped: list[str] = []

    def jump(step: str) -> None:
        if step == "staging.before":
            jumped.append(step)
            clock.jump_wall(jump_s)

    rig = Rig(
        tmp_path / "jumping",
        source_of(traffic(200)),
        clock,
        options=TO_END,
        flush=FlushPolicy(rows_max=20),
        failpoint=jump,
    )
    await rig.run()

    assert len(jumped) > 5
    assert readings_of(tmp_path / "jumping") == readings_of(tmp_path / "straight")
    assert closed(tmp_path / "jumping") == closed(tmp_path / "straight")


@pytest.mark.fault(
    "F33",
    how="event times of 1970 and in ten years among sound ones",
    seen="the future is refused, the watermark stays, 1970 is late",
)
async def test_clocks_of_devices_that_are_wrong_by_years_move_no_watermark(
    tmp_path: Path,
) -> None:
    since_1970_s = START_US // 1_000_000
    values = [
        reading(0, 1.0),
        reading(10 * YEAR_S, 2.0),
        reading(-since_1970_s, 3.0),
        reading(1, 4.0),
    ]
    rig = Rig(
        tmp_path,
        source_of(values),
        ManualClock(),
        options=ServiceOptions(until_end=True),
        definition=definition(future_us=300_000_000),
    )
    await rig.run()

    assert [offset for _, offset, _ in readings_of(tmp_path)] == [0, 2, 3]
    (refused,) = published(tmp_path, "quarantine")
    assert (refused["offset"], refused["reason"]) == (1, "future")
    late = {row["offset"] for row in published(tmp_path, "late")}
    assert late == {2}
    assert log_of(tmp_path)[-1].watermarks == {"razlog": START_US + 1_000_000}
