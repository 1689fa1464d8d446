"""Commits beside what is folded next: what may overlap, and what waits."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest

from streamproc.core.flush import BufferPolicy, FlushPolicy
from streamproc.core.values import TopicPartition
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.service import (
    RAZLOG,
    ROOMY,
    Inbox,
    Rig,
    Watch,
    accounted,
    log_of,
    reading,
    readings_of,
    traffic,
)

P0 = TopicPartition(RAZLOG, 0)
P1 = TopicPartition(RAZLOG, 1)
EACH = FlushPolicy(rows_max=1)
TO_END = ServiceOptions(until_end=True)
WAIT_S = 60


@dataclass
class Gate:
    """A failpoint that holds whoever reaches `step` for the first time."""

    step: str
    reached: Event = field(default_factory=Event)
    opened: Event = field(default_factory=Event)

    def __call__(self, name: str) -> None:
        if name == self.step and not self.reached.is_set():
            self.reached.set()
            assert self.opened.wait(WAIT_S)

    async def until_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, WAIT_S)


def one(count: int, cut: int = 10) -> ScriptedSource:
    source = ScriptedSource({RAZLOG: 1}, records_max=cut)
    source.produce(P0, traffic(count))
    return source


def single(values: list[bytes]) -> ScriptedSource:
    """Return a source that hands over record by record."""
    source = ScriptedSource({RAZLOG: 1}, records_max=1)
    source.produce(P0, values)
    return source


def spans(root: Path) -> list[tuple[int, int]]:
    return [(r.start, r.next) for r in log_of(root) if r.next > r.start]


async def test_the_next_batch_is_folded_while_a_commit_is_written(
    tmp_path: Path,
) -> None:
    gate = Gate("record.before")
    rig = Rig(tmp_path, one(40), ManualClock(), flush=EACH, failpoint=gate)
    async with rig.running():
        await gate.until_reached()
        await rig.watch.until_at(P0, 20)
        assert not rig.watch.commits
        gate.opened.set()
        await rig.watch.until(lambda: rig.watch.records[-1:] and spans(tmp_path)[3:])

    assert spans(tmp_path) == [(0, 10), (10, 20), (20, 30), (30, 40)]
    assert accounted(tmp_path) == [(P0.source, n) for n in range(40)]


async def test_a_partition_has_one_commit_under_way_and_not_two(
    tmp_path: Path,
) -> None:
    gate = Gate("record.before")
    rig = Rig(tmp_path, one(40), ManualClock(), flush=EACH, failpoint=gate)
    async with rig.running():
        await gate.until_reached()
        await rig.watch.until_at(P0, 20)
        # The second span is due and waits, but nobody waits for it under the turn.
        for _ in range(100):
            async with asyncio.timeout(5), rig.service._owner.turn:
                await asyncio.sleep(0)
        assert rig.watch.stepped_to[P0] == 20
        gate.opened.set()

    assert accounted(tmp_path) == [
        (P0.source, n) for n in range(spans(tmp_path)[-1][1])
    ]


async def test_what_was_folded_beside_a_commit_that_was_fenced_is_done_again(
    tmp_path: Path,
) -> None:
    gate = Gate("record.before")
    source = one(40)
    rig = Rig(tmp_path, source, ManualClock(), flush=EACH, failpoint=gate)
    async with rig.running():
        await gate.until_reached()
        await rig.watch.until_at(P0, 20)
        await Rig(tmp_path, one(15), ManualClock(), options=TO_END, owner="two").run()
        gate.opened.set()
        await rig.watch.until(lambda: len(rig.watch.opened_at) == 2)
        await rig.watch.until_at(P0, 40)

    assert rig.watch.failures == [("writing", "fenced")]
    assert rig.watch.opened_at[1] == (P0, 15)
    assert accounted(tmp_path) == [(P0.source, n) for n in range(40)]
    assert len(set(readings_of(tmp_path))) == len(readings_of(tmp_path))


async def test_a_partition_that_leaves_and_comes_back_waits_for_its_last_commit(
    tmp_path: Path,
) -> None:
    gate = Gate("record.before")
    source = one(30)
    options = ServiceOptions(drain_s=0.05)
    rig = Rig(
        tmp_path,
        source,
        ManualClock(),
        flush=FlushPolicy(rows_max=15),
        options=options,
        failpoint=gate,
    )
    async with rig.running():
        await gate.until_reached()
        await rig.watch.until_at(P0, 30)
        await source.rebalance(frozenset({P0}))
        assert ("writing", "drain_budget") in rig.watch.failures
        rig.watch.stepped_to.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await rig.watch.until(lambda: len(rig.watch.opened_at) == 2)
        gate.opened.set()
        await rig.watch.until(lambda: len(rig.watch.opened_at) == 2)
        await rig.watch.until_at(P0, 30)

    assert rig.watch.opened_at[1] == (P0, 20)
    assert not any(kind == "fenced" for _, kind in rig.watch.failures)
    assert accounted(tmp_path) == [(P0.source, n) for n in range(30)]


async def test_an_early_alert_of_the_next_span_does_not_leave_again_with_it(
    tmp_path: Path,
) -> None:
    gate, topic = Gate("record.before"), Inbox()
    source = single([reading(0, 20.0), reading(1, 50.0)])
    rig = Rig(
        tmp_path, source, ManualClock(), flush=EACH, failpoint=gate,
        sinks={"topic": topic}, early=topic,
    )  # fmt: skip
    async with rig.running():
        await gate.until_reached()
        await rig.watch.until(lambda: topic.got)
        gate.opened.set()
        await rig.watch.until(lambda: len(spans(tmp_path)) == 2)

    assert len(topic.got) == 1
    assert len(log_of(tmp_path)[-1].outbox) == 1


async def test_the_log_does_not_note_alerts_of_a_commit_under_way_as_sent(
    tmp_path: Path,
) -> None:
    watch, gate = Watch(), Gate("publish.after")
    hook = Inbox(watch)
    hook.gate = asyncio.Event()
    values = [reading(0, 50.0), reading(1, 50.0), reading(2, 20.0)]

    def at_the_third(name: str) -> None:
        if len(spans(tmp_path)) == 3:
            gate(name)

    rig = Rig(
        tmp_path, single(values), ManualClock(), flush=EACH, failpoint=at_the_third,
        sinks={"hook": hook}, watch=watch,
    )  # fmt: skip
    async with rig.running() as task:
        await gate.until_reached()
        # The second alert is in the log by now, and in no outbox yet.
        hook.gate.set()
        await rig.watch.until(lambda: len(hook.got) == 1)
        hook.gate = asyncio.Event()
        gate.opened.set()
        await rig.watch.until(lambda: hook.sends == 2)
        await rig.crash(task)

    again = Inbox()
    await Rig(
        tmp_path, single(values), ManualClock(), options=TO_END, sinks={"hook": again}
    ).run()
    (second,) = next(r.outbox for r in log_of(tmp_path) if r.next == 3)
    assert (second.alert_id, second.transition) in again.got


async def test_the_bound_of_all_buffers_counts_what_is_being_written(
    tmp_path: Path,
) -> None:
    gate = Gate("record.before")
    source = ScriptedSource({RAZLOG: 2}, records_max=10)
    source.produce(P0, traffic(40))
    source.produce(P1, traffic(40))
    options = ServiceOptions(buffer=BufferPolicy(bytes_max=1))
    rig = Rig(
        tmp_path, source, ManualClock(), flush=ROOMY, options=options, failpoint=gate
    )
    async with rig.running():
        await gate.until_reached()
        for _ in range(100):
            async with asyncio.timeout(5), rig.service._owner.turn:
                await asyncio.sleep(0)
        assert sum(rig.watch.stepped_to.values()) == 10
        gate.opened.set()

    assert len(set(readings_of(tmp_path))) == len(readings_of(tmp_path))


async def test_a_bug_in_the_writer_ends_the_service(tmp_path: Path) -> None:
    def broken(name: str) -> None:
        if name == "record.before":
            msg = "a bug"
            raise RuntimeError(msg)

    rig = Rig(tmp_path, one(40), ManualClock(), flush=EACH, failpoint=broken)
    with pytest.raises(RuntimeError, match="a bug"):
        await rig.run()
