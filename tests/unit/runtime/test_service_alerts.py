"""What leaves the process, when, and in which order; and what silence decides."""

import asyncio
from pathlib import Path

import pytest

from streamproc.core.chain import Genesis
from streamproc.core.flush import FlushPolicy
from streamproc.core.values import TopicPartition
from streamproc.errors import StoreFault
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.service import (
    RAZLOG,
    SILENT,
    WINDOW,
    Inbox,
    Rig,
    definition,
    log_of,
    published,
    reading,
)

P0 = TopicPartition(RAZLOG, 0)
EACH = FlushPolicy(rows_max=1)
IDLE = ServiceOptions(idle_us=10_000_000, tick_us=1_000_000)


def source_with(*values: bytes, cut: int = 100) -> ScriptedSource:
    source = ScriptedSource({RAZLOG: 1}, records_max=cut)
    source.produce(P0, list(values))
    return source


def no_genesis() -> Genesis:
    pytest.fail("there is a log")


def alert_rows(root: Path) -> list[tuple[str, int]]:
    return [(r["alert_id"], r["transition"]) for r in published(root, "alerts")]


# --- alerts ---------------------------------------------------------------------------


async def test_an_early_alert_leaves_before_the_commit_and_only_once(
    tmp_path: Path,
) -> None:
    topic, hook = Inbox(), Inbox()
    rig = Rig(
        tmp_path, source_with(reading(0, 50.0)), ManualClock(),
        sinks={"topic": topic, "webhook": hook}, early=topic,
    )  # fmt: skip
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to)
        await rig.watch.until(lambda: topic.got)
        assert not rig.watch.commits
        assert not hook.got

    assert topic.got == hook.got == alert_rows(tmp_path)
    assert len(topic.got) == 1
    assert len(log_of(tmp_path)[-1].outbox) == 1
    again = Rig(
        tmp_path,
        source_with(reading(0, 50.0)),
        ManualClock(),
        options=ServiceOptions(until_end=True),
        sinks={"topic": topic},
    )
    await again.run()
    assert len(topic.got) == 1


async def test_an_early_alert_that_is_refused_leaves_with_the_commit(
    tmp_path: Path,
) -> None:
    topic = Inbox()
    topic.refuse = 1
    rig = Rig(
        tmp_path, source_with(reading(0, 50.0)), ManualClock(),
        sinks={"topic": topic}, early=topic,
    )  # fmt: skip
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.failures)
        await rig.watch.until(lambda: rig.watch.stepped_to)

    assert rig.watch.failures == [("writing", "early_alert")]
    assert topic.got == alert_rows(tmp_path)


async def test_an_early_lane_that_fails_rests_so_that_nothing_is_held_up(
    tmp_path: Path,
) -> None:
    topic, clock = Inbox(), ManualClock()
    topic.refuse = 10**6
    source = source_with(
        *[reading(n, 50.0 if n % 2 else 0.0) for n in range(20)], cut=1
    )
    rig = Rig(tmp_path, source, clock, early=topic)
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to.get(P0) == 20)
        assert topic.sends == 1
        clock.advance(11.0)
        source.produce(P0, [reading(30, 0.0), reading(31, 50.0)])
        await rig.watch.until(lambda: rig.watch.stepped_to.get(P0) == 22)
        assert topic.sends == 2


async def test_window_alerts_wait_for_their_commit(tmp_path: Path) -> None:
    topic = Inbox()
    rig = Rig(
        tmp_path, source_with(reading(0, 30.0), reading(61, 30.0)), ManualClock(),
        sinks={"topic": topic}, early=topic,
    )  # fmt: skip
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to)
        assert not topic.sends

    assert [r["rule"] for r in published(tmp_path, "alerts")] == ["warm"]
    assert topic.got == alert_rows(tmp_path)


async def test_alerts_leave_in_order_and_are_tried_again(tmp_path: Path) -> None:
    hook, clock = Inbox(), ManualClock()
    hook.refuse = 2
    values = [reading(n, 50.0 if n % 2 else 0.0) for n in range(10)]
    rig = Rig(
        tmp_path,
        source_with(*values, cut=2),
        clock,
        sinks={"webhook": hook},
        flush=EACH,
    )
    async with rig.running():
        await rig.watch.until(lambda: len(rig.watch.commits) == 5)
        for tries in (1, 2):
            await rig.watch.until_failed("writing", "alert_sink", tries)
            assert not hook.got
            clock.advance(1.0)
        await rig.watch.until(lambda: len(hook.got) == 9)

    logged = [(a.alert_id, a.transition) for r in log_of(tmp_path) for a in r.outbox]
    assert hook.got == logged
    assert hook.closed


@pytest.mark.fault(
    "F43", how="a sink that does not answer", seen="commits and other sinks go on"
)
async def test_a_slow_sink_holds_up_neither_commits_nor_the_other_sink(
    tmp_path: Path,
) -> None:
    hook, topic = Inbox(), Inbox()
    hook.gate = asyncio.Event()
    source = source_with(reading(0, 50.0))
    rig = Rig(
        tmp_path,
        source,
        ManualClock(),
        sinks={"webhook": hook, "topic": topic},
        flush=EACH,
    )
    async with rig.running():
        await rig.watch.until(lambda: len(topic.got) == 1)
        source.produce(P0, [reading(1, 0.0), reading(2, 50.0)])
        await rig.watch.until(lambda: len(topic.got) == 3)
        assert not hook.got
        hook.gate.set()
    assert hook.got == topic.got


@pytest.mark.fault(
    "F43", how="a crash with alerts in the outbox", seen="they leave after it, same ids"
)
async def test_what_had_not_left_before_a_crash_leaves_after_it_under_the_same_ids(
    tmp_path: Path,
) -> None:
    hook, topic = Inbox(), Inbox()
    hook.gate = asyncio.Event()
    source = source_with(reading(0, 50.0), reading(1, 0.0))
    rig = Rig(
        tmp_path,
        source,
        ManualClock(),
        sinks={"webhook": hook, "topic": topic},
        flush=EACH,
    )
    task = asyncio.create_task(rig.service.run())
    await rig.watch.until(lambda: len(topic.got) == 2)
    await rig.crash(task)
    hook.gate = None
    again = Rig(
        tmp_path, source_with(reading(0, 50.0), reading(1, 0.0)), ManualClock(),
        options=ServiceOptions(until_end=True), sinks={"webhook": hook, "topic": topic},
    )  # fmt: skip

    await again.run()

    assert hook.got == alert_rows(tmp_path)
    assert topic.got == alert_rows(tmp_path) * 2
    third = Rig(
        tmp_path, source_with(reading(0, 50.0), reading(1, 0.0)), ManualClock(),
        options=ServiceOptions(until_end=True), sinks={"webhook": hook},
    )  # fmt: skip
    await third.run()
    assert hook.got == alert_rows(tmp_path)


async def test_a_dead_sink_does_not_keep_a_stop_from_ending(tmp_path: Path) -> None:
    hook = Inbox()
    hook.gate = asyncio.Event()
    rig = Rig(
        tmp_path, source_with(reading(0, 50.0)), ManualClock(),
        sinks={"webhook": hook}, options=ServiceOptions(until_end=True, drain_s=0.3),
    )  # fmt: skip

    await rig.run()

    assert ("writing", "drain_budget") in rig.watch.failures
    assert len(log_of(tmp_path)[-1].outbox) == 1


# --- silence --------------------------------------------------------------------------


@pytest.mark.fault(
    "F34",
    how="no reading for idle_after, end offset reached",
    seen="windows close by a logged decision",
)
async def test_silence_closes_windows_by_a_logged_decision_and_data_may_go_on(
    tmp_path: Path,
) -> None:
    clock, source = ManualClock(), source_with(reading(0, 1.0), reading(10, 2.0))
    rig = Rig(tmp_path, source, clock, options=IDLE)
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to)
        await rig.pass_time(9.0)
        await rig.watch.until(lambda: rig.watch.ends)
        assert not rig.watch.commits
        await rig.pass_time(2.0)
        await rig.watch.until(lambda: rig.watch.commits)
        source.produce(P0, [reading(70, 3.0)])
        await rig.watch.until(lambda: rig.watch.stepped_to.get(P0) == 3)

    idle = [record for record in log_of(tmp_path) if record.timers]
    assert [(t.kind, t.city, t.device, t.offset) for r in idle for t in r.timers] == [
        ("idle", "razlog", None, 2)
    ]
    assert idle[0].next == 2
    rows = [r for r in published(tmp_path, "aggregates") if r["window"] == "1m"]
    assert [(row["close_reason"], row["count"]) for row in rows] == [("idle", 2)]


async def test_no_silence_while_the_broker_has_more(tmp_path: Path) -> None:
    clock, source = ManualClock(), source_with(reading(0, 1.0))
    rig = Rig(tmp_path, source, clock, options=IDLE)
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to)
        source.pause(P0)
        source.produce(P0, [reading(10, 2.0)])
        await rig.pass_time(20.0)
        await rig.watch.until(lambda: 2 in rig.watch.ends)
        await rig.pass_time(1.0)
        await rig.watch.until(lambda: rig.watch.ends.count(2) >= 2)
        assert not rig.watch.commits
        source.resume(P0)
        await rig.watch.until(lambda: rig.watch.stepped_to.get(P0) == 2)
        await rig.pass_time(9.0)
        await rig.watch.until(lambda: rig.watch.ends.count(2) >= 3)
        assert not rig.watch.commits
        await rig.pass_time(2.0)
        await rig.watch.until(lambda: rig.watch.commits)


@pytest.mark.fault(
    "F34",
    how="the broker does not answer while a town is silent",
    seen="nothing closes",
)
async def test_an_unreachable_broker_is_not_silence(tmp_path: Path) -> None:
    clock, source = ManualClock(), source_with(reading(0, 1.0))
    rig = Rig(tmp_path, source, clock, options=IDLE)
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to)
        source.unreachable = True
        await rig.pass_time(60.0)
        await rig.watch.until(lambda: rig.watch.failures)
        assert not rig.watch.commits
        source.unreachable = False
        await rig.pass_time(1.0)
        await rig.watch.until(lambda: rig.watch.commits)
    assert set(rig.watch.failures) == {("reading", "unreachable")}


async def test_nothing_is_decided_before_the_first_catch_up(tmp_path: Path) -> None:
    """A restored window is silent only once all that waits at the broker has been read."""
    first = Rig(
        tmp_path,
        source_with(reading(0, 1.0)),
        ManualClock(),
        options=ServiceOptions(until_end=True),
    )
    await first.run()
    clock, source = (
        ManualClock(),
        source_with(reading(0, 1.0), *[reading(n, 1.0) for n in range(1, 5)], cut=1),
    )
    rig = Rig(
        tmp_path,
        source,
        clock,
        options=ServiceOptions(idle_us=10_000_000, max_rate=1.0),
    )
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to.get(P0) == 2)
        source.pause(P0)
        await rig.pass_time(30.0)
        await rig.watch.until(lambda: rig.watch.ends)
        await rig.pass_time(1.0)
        await rig.watch.until(lambda: len(rig.watch.ends) >= 2)
        assert not rig.watch.commits


async def test_silence_judges_no_data_and_the_alert_survives_a_restart(
    tmp_path: Path,
) -> None:
    made = definition(rules=(SILENT,), windows=(WINDOW,))
    clock, hook = ManualClock(), Inbox()
    rig = Rig(
        tmp_path, source_with(reading(0, 1.0)), clock, definition=made,
        options=ServiceOptions(idle_us=10_000_000), sinks={"webhook": hook},
    )  # fmt: skip
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to)
        for _ in range(8):
            await rig.pass_time(30.0)
            await rig.until_written()
        await rig.watch.until(lambda: hook.got)

    kinds = [t.kind for record in log_of(tmp_path) for t in record.timers]
    assert kinds == ["idle", "silence"]
    assert [(r["rule"], r["state"]) for r in published(tmp_path, "alerts")] == [
        ("silent", "firing")
    ]
    source = source_with(reading(0, 1.0), reading(300, 1.0))
    again = Rig(
        tmp_path,
        source,
        ManualClock(),
        definition=made,
        options=ServiceOptions(until_end=True),
    )
    await again.run()
    assert sorted(r["state"] for r in published(tmp_path, "alerts")) == [
        "cleared",
        "firing",
    ]


async def test_a_restart_after_a_timer_decision_stands_where_it_stood(
    tmp_path: Path,
) -> None:
    clock, source = ManualClock(), source_with(reading(0, 1.0), reading(10, 2.0))
    rig = Rig(tmp_path, source, clock, options=IDLE)
    task = asyncio.create_task(rig.service.run())
    await rig.watch.until(lambda: rig.watch.stepped_to)
    await rig.pass_time(11.0)
    await rig.watch.until(lambda: rig.watch.commits)
    lost = rig.service.workers[P0].processor
    await rig.crash(task)
    again = Rig(tmp_path, source, ManualClock())
    worker = again.make_worker(P0, f"{RAZLOG}-1")

    worker.open(again.definition, no_genesis)

    for name, table in lost.snapshot().items():
        assert worker.processor.snapshot()[name].to_pylist() == table.to_pylist(), name


async def test_without_a_sink_nothing_is_owed(tmp_path: Path) -> None:
    """Else every start would read an ever longer list of alerts that nobody wants."""
    source = source_with(reading(0, 50.0))
    await Rig(
        tmp_path, source, ManualClock(), options=ServiceOptions(until_end=True)
    ).run()
    again = Rig(tmp_path, source, ManualClock())
    worker = again.make_worker(P0, f"{RAZLOG}-1")

    worker.open(again.definition, no_genesis)

    assert log_of(tmp_path)[1].outbox
    assert not worker.unsent()


async def test_a_store_that_fails_while_it_is_noted_what_has_left_ends_the_service(
    tmp_path: Path,
) -> None:
    """Nobody waits for a note; a fault of it comes out at the end at the latest."""
    options = ServiceOptions(until_end=True)
    source = source_with(
        reading(0, 50.0), *[reading(n, 1.0) for n in range(1, 20)], cut=1
    )
    rig = Rig(tmp_path, source, ManualClock(), flush=EACH, options=options)
    replace, refused = rig.store.replace, [False]

    def refuse_the_first_note(path: str, data: bytes) -> None:
        if path.endswith("/sent") and not refused[0]:
            refused[0] = True
            msg = "no note can be taken"
            raise StoreFault(msg)
        replace(path, data)

    rig.store.replace = refuse_the_first_note  # type: ignore[method-assign]
    with pytest.raises(StoreFault, match="no note can be taken"):
        await rig.run()

    assert alert_rows(tmp_path)
