"""An outbox alone: order, retries, and what a sink refuses for good."""

import asyncio
from collections.abc import Sequence

from streamproc.core.values import AlertTransition, TopicPartition
from streamproc.errors import Unreachable, WorldError
from streamproc.runtime.observer import Observer
from streamproc.runtime.outbox import REFUSALS_MAX, Outbox

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)


def alert(number: int) -> AlertTransition:
    return AlertTransition(
        alert_id=f"a{number}",
        transition=0,
        state="firing",
        rule="r",
        rule_version="v",
        severity="info",
        city="c",
        device="d",
        property="p",
        window=None,
        event_us=number,
        value=None,
        source="t/0",
        offset=number,
        early=False,
    )


class Restless:
    """A clock that never makes anybody wait."""

    def monotonic_us(self) -> int:
        return 0

    def wall_us(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Sink:
    """Takes alerts, but first raises what it is told to."""

    def __init__(self, *faults: WorldError) -> None:
        self._faults = list(faults)
        self.got: list[str] = []

    async def send(self, alerts: Sequence[AlertTransition]) -> None:
        if self._faults:
            raise self._faults.pop(0)
        self.got += [a.alert_id for a in alerts]

    async def close(self) -> None:
        pass


class Notes(Observer):
    def __init__(self) -> None:
        self.kinds: list[str] = []

    def failed(self, stage: str, kind: str, message: str) -> None:
        self.kinds.append(kind)


async def through(sink: Sink, notes: Notes) -> list[TopicPartition]:
    box = Outbox(sink, Restless(), notes)
    delivered: list[TopicPartition] = []

    async def note(origin: TopicPartition) -> None:
        delivered.append(origin)

    box.put(P0, [alert(1), alert(2)])
    box.put(P1, [alert(3)])
    running = asyncio.create_task(box.run(note))
    await box.drained()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not box.owes(P0)
    return delivered


async def test_alerts_leave_in_order() -> None:
    sink = Sink()

    delivered = await through(sink, Notes())

    assert sink.got == ["a1", "a2", "a3"]
    assert delivered == [P0, P1]


async def test_an_unreachable_sink_is_tried_for_as_long_as_it_takes() -> None:
    sink = Sink(*(Unreachable("down") for _ in range(50)))
    notes = Notes()

    await through(sink, notes)

    assert sink.got == ["a1", "a2", "a3"]
    assert notes.kinds == ["alert_sink"] * 50


async def test_what_is_refused_for_good_does_not_hold_up_what_follows() -> None:
    sink = Sink(*(WorldError("404") for _ in range(REFUSALS_MAX)))
    notes = Notes()

    await through(sink, notes)

    assert sink.got == ["a3"]
    assert notes.kinds[-1] == "alert_refused"
