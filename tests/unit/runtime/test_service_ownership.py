"""Partitions that come, go, change or fail."""

import asyncio
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from streamproc.core.chain import Genesis
from streamproc.core.flush import FlushPolicy, FlushReason
from streamproc.core.ports import Bounds, StartAt
from streamproc.core.values import TopicPartition
from streamproc.errors import (
    Forbidden,
    LogCorrupt,
    SourceMismatch,
    Unreachable,
    WorldError,
)
from streamproc.runtime.opening import Start
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.service import (
    ANGE,
    RAZLOG,
    ROOMY,
    WINDOW,
    Inbox,
    Rig,
    accounted,
    definition,
    log_of,
    published,
    reading,
    readings_of,
    traffic,
)

P0 = TopicPartition(RAZLOG, 0)
P1 = TopicPartition(RAZLOG, 1)
BOTH = frozenset({P0, P1})
TO_END = ServiceOptions(until_end=True)
EACH = FlushPolicy(rows_max=1)


def no_genesis() -> Genesis:
    pytest.fail("there is a log")


def two(count: int = 40, cut: int = 10) -> ScriptedSource:
    source = ScriptedSource({RAZLOG: 2}, records_max=cut)
    for origin in (P0, P1):
        source.produce(origin, traffic(count))
    return source


def every(count: int, *origins: TopicPartition) -> list[tuple[str, int]]:
    return sorted((origin.source, n) for origin in origins for n in range(count))


# --- rebalances -----------------------------------------------------------------------


async def test_a_partition_that_comes_back_untouched_is_kept_hot(
    tmp_path: Path,
) -> None:
    source = two()
    rig = Rig(tmp_path, source, ManualClock())
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 40, P1: 40})
        before = dict(rig.service.workers)
        await source.rebalance(BOTH)
        assert {r.kind for r in rig.watch.records} == {"commit"}
        await rig.watch.until(lambda: rig.service.workers.keys() == BOTH)
        assert rig.service.workers == before
        source.produce(P0, traffic(10, first=40))
        await rig.watch.until(lambda: rig.watch.stepped_to[P0] == 50)

    assert [r.kind for r in log_of(tmp_path)] == ["genesis", "commit", "commit"]
    assert len(accounted(tmp_path)) == 90


LAZY = replace(ROOMY, again_max=39)
"""Forty readings are worth a commit, fewer are not."""


async def test_what_is_done_again_faster_than_committed_is_not_committed_when_it_is_revoked(
    tmp_path: Path,
) -> None:
    source = ScriptedSource({RAZLOG: 2}, records_max=10)
    for origin, count in ((P0, 39), (P1, 41)):
        source.produce(origin, [reading(step, 1.0) for step in range(count)])
    rig = Rig(tmp_path, source, ManualClock(), flush=LAZY)
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 39, P1: 41})
        before = dict(rig.service.workers)
        await source.rebalance(BOTH)
        await rig.watch.until(lambda: rig.service.workers.keys() == BOTH)
        assert rig.service.workers == before
        assert [record.next for record in rig.watch.records] == [41]
        source.produce(P0, [reading(39, 1.0)])
        await rig.watch.until(lambda: rig.watch.stepped_to[P0] == 40)

    assert [(r.kind, r.next) for r in log_of(tmp_path)] == [
        ("genesis", 0),
        ("commit", 40),
    ]
    assert accounted(tmp_path) == sorted(every(40, P0) + every(41, P1))


async def test_what_was_not_committed_is_void_where_somebody_else_has_gone_on(
    tmp_path: Path,
) -> None:
    lazy = replace(ROOMY, again_max=100)
    source = two()
    rig = Rig(tmp_path, source, ManualClock(), flush=lazy)
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 40, P1: 40})
        parked = rig.service.workers[P0]
        await source.rebalance(frozenset())
        assert not rig.watch.records
        await Rig(tmp_path, two(60), ManualClock(), options=TO_END, owner="two").run()
        for origin in BOTH:
            source.produce(origin, traffic(30, first=40))
        await source.rebalance(BOTH)
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 70, P1: 70})
        assert rig.service.workers[P0] is not parked

    assert accounted(tmp_path) == every(70, P0, P1)


async def test_what_was_kept_for_later_is_not_given_twice_to_a_worker_that_comes_back(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, two(), ManualClock())
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 40, P1: 40})
        intake, owner = rig.service._intake_of, rig.service._owner
        worker = rig.service.workers[P0]
        intake.keep(worker, await owner._source.read_one(P0, 39), 39)
        del owner.workers[P0]
        intake.forget_lost()
        owner.workers[P0] = worker

        assert not intake._keeps(worker)


async def test_a_partition_somebody_else_had_meanwhile_is_restored(
    tmp_path: Path,
) -> None:
    source = two()
    rig = Rig(tmp_path, source, ManualClock())
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 40, P1: 40})
        parked = rig.service.workers[P0]
        await source.rebalance(frozenset())
        other_source = two(60)
        await Rig(
            tmp_path, other_source, ManualClock(), options=TO_END, owner="two"
        ).run()
        source.produce(P0, traffic(30, first=40))
        source.produce(P1, traffic(20, first=40))
        await source.rebalance(BOTH)
        await rig.watch.until(lambda: rig.watch.stepped_to[P0] == 70)
        assert rig.service.workers[P0] is not parked

    assert accounted(tmp_path) == sorted(every(70, P0) + every(60, P1))


async def test_a_worker_parked_before_another_owner_is_not_kept_hot(
    tmp_path: Path,
) -> None:
    source = two()
    rig = Rig(tmp_path, source, ManualClock())
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 40, P1: 40})
        parked = rig.service.workers[P0]
        await rig.service._owner.revoked(BOTH)
        await Rig(tmp_path, two(50), ManualClock(), options=TO_END, owner="two").run()
        source.produce(P0, traffic(20, first=40))
        source.produce(P1, traffic(20, first=40))
        await rig.service._owner.assigned(BOTH)
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 60, P1: 60})
        assert rig.service.workers[P0] is not parked

    assert accounted(tmp_path) == every(60, P0, P1)


@pytest.mark.fault(
    "F9",
    how="decoding hangs longer than the drain may take",
    seen="abandoned, then done again; every record once",
)
async def test_work_beyond_the_drain_budget_is_abandoned_and_done_again(
    tmp_path: Path,
) -> None:
    held, go_on = Event(), Event()

    def hold(name: str) -> None:
        if name == "decode.before" and not held.is_set():
            held.set()
            assert go_on.wait(30)

    source = ScriptedSource({RAZLOG: 1})
    source.produce(P0, traffic(40))
    rig = Rig(
        tmp_path,
        source,
        ManualClock(),
        options=ServiceOptions(drain_s=0.05),
        failpoint=hold,
    )
    async with rig.running():
        await asyncio.to_thread(held.wait, 30)
        await source.rebalance(frozenset({P0}))
        assert ("writing", "drain_budget") in rig.watch.failures
        go_on.set()
        await rig.watch.until(lambda: rig.watch.stepped_to.get(P0) == 40)

    assert accounted(tmp_path) == every(40, P0)
    assert [r.kind for r in log_of(tmp_path)] == ["genesis", "takeover", "commit"]


@pytest.mark.fault(
    "F9", how="a commit hangs longer than the drain may take", seen="not doubled"
)
async def test_a_commit_cut_off_by_the_drain_budget_is_not_doubled(
    tmp_path: Path,
) -> None:
    held, go_on = Event(), Event()

    def hold(name: str) -> None:
        if name == "record.before" and not held.is_set():
            held.set()
            assert go_on.wait(30)

    source = ScriptedSource({RAZLOG: 1})
    source.produce(P0, traffic(40))
    rig = Rig(
        tmp_path,
        source,
        ManualClock(),
        options=ServiceOptions(drain_s=0.05),
        failpoint=hold,
    )
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to.get(P0) == 40)
        await source.rebalance(frozenset({P0}))
        await asyncio.to_thread(held.wait, 30)
        go_on.set()
        await rig.watch.until(lambda: len(rig.watch.opened_at) == 2)

    assert rig.watch.opened_at[1] == (P0, 40)
    assert accounted(tmp_path) == every(40, P0)


@pytest.mark.fault(
    "F4",
    how="another owner takes over while one holds work",
    seen="fenced, its work is dropped and done again",
)
async def test_a_zombie_is_fenced_drops_its_work_and_takes_over_again(
    tmp_path: Path,
) -> None:
    clock, source = ManualClock(), two()
    zombie = Rig(tmp_path, source, clock)
    async with zombie.running():
        await zombie.watch.until(lambda: zombie.watch.stepped_to == {P0: 40, P1: 40})
        await Rig(tmp_path, two(), ManualClock(), options=TO_END, owner="two").run()
        source.produce(P0, traffic(10, first=40))
        async with zombie.service._owner.turn:
            for worker in list(zombie.service.workers.values()):
                assert not await zombie.service._owner.commit(worker, FlushReason.DRAIN)
        await zombie.watch.until(lambda: len(zombie.watch.opened_at) == 4)
        await zombie.watch.until(lambda: zombie.watch.stepped_to[P0] == 50)

    assert zombie.watch.failures == [("writing", "fenced")] * 2
    assert accounted(tmp_path) == sorted(every(50, P0) + every(40, P1))


@pytest.mark.fault(
    "F4",
    how="another owner takes over, then the group takes the partition away",
    seen="fenced; what is not ours any more is not opened again",
)
async def test_a_zombie_that_loses_the_partition_does_not_fence_its_heir(
    tmp_path: Path,
) -> None:
    source = two()
    zombie = Rig(tmp_path, source, ManualClock())
    async with zombie.running():
        await zombie.watch.until(lambda: zombie.watch.stepped_to == {P0: 40, P1: 40})
        await Rig(tmp_path, two(), ManualClock(), options=TO_END, owner="two").run()
        await source.rebalance(frozenset({P1}))
        await zombie.watch.until(lambda: len(zombie.watch.opened_at) == 3)
        source.produce(P1, traffic(10, first=40))
        await zombie.watch.until(lambda: zombie.watch.stepped_to[P1] == 50)
        assert zombie.service.workers.keys() == {P1}

    assert zombie.watch.failures == [("writing", "fenced")] * 2
    assert log_of(tmp_path)[-1].owner == "two"
    assert accounted(tmp_path) == sorted(every(40, P0) + every(50, P1))


async def test_one_that_is_fenced_again_and_again_gives_up(tmp_path: Path) -> None:
    clock, source = ManualClock(), ScriptedSource({RAZLOG: 1})
    source.produce(P0, traffic(5))
    rig = Rig(tmp_path, source, clock, flush=EACH)
    rival = Rig(tmp_path, source, ManualClock(), owner="two")

    def interfere(name: str) -> None:
        if name == "decode.after":
            rival.make_worker(P0, f"{RAZLOG}-1").open(rival.definition, no_genesis)

    rig.failpoint = interfere
    async with rig.running() as task:
        for times in range(1, 6):
            await rig.watch.until_failed("writing", "fenced", times)
            if times < 5:
                await rig.pass_time(10.0)
        with pytest.raises(Exception, match="another owner"):
            await task
    assert rig.watch.failures.count(("writing", "fenced")) == 5
    assert not accounted(tmp_path)


def spoil(root: Path, partition: str) -> None:
    for record in root.glob(f"_streamproc/test/{RAZLOG}-*/{partition}/log/*1.json"):
        record.write_bytes(b"{}")


# --- faults ---------------------------------------------------------------------------


@pytest.mark.fault(
    "F11",
    how="the log of one partition cannot be read at its opening",
    seen="it stops, the others go on, the process ends with the error",
)
async def test_a_faulty_partition_stops_alone_and_is_told_at_the_end(
    tmp_path: Path,
) -> None:
    await Rig(tmp_path, two(), ManualClock(), options=TO_END).run()
    spoil(tmp_path, "0")
    rig = Rig(tmp_path, two(60), ManualClock(), options=TO_END)

    with pytest.raises(LogCorrupt):
        await rig.run()

    assert rig.service.stopped.keys() == {P0}
    assert accounted(tmp_path) == sorted(every(40, P0) + every(60, P1))


async def test_a_service_whose_every_partition_is_faulty_ends(tmp_path: Path) -> None:
    await Rig(tmp_path, two(), ManualClock(), options=TO_END).run()
    spoil(tmp_path, "*")

    with pytest.raises(LogCorrupt):
        await Rig(tmp_path, two(60), ManualClock()).run()


@pytest.mark.fault(
    "F19",
    how="records deleted beyond the position",
    seen="the partition stops and says so; what it held is committed",
)
async def test_retention_that_overtakes_a_running_partition_stops_it_and_keeps_its_work(
    tmp_path: Path,
) -> None:
    source = two()
    rig = Rig(tmp_path, source, ManualClock())
    async with rig.running() as task:
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 40, P1: 40})
        source.pause(P0)
        source.produce(P0, traffic(20, first=40))
        source.delete_records(P0, 50)
        source.resume(P0)
        await rig.watch.until(lambda: rig.service.stopped)
        source.produce(P1, traffic(20, first=40))
        await rig.watch.until(lambda: rig.watch.stepped_to[P1] == 60)
        rig.service.stop()
        with pytest.raises(SourceMismatch, match="--from 40 --to 50"):
            await task

    assert accounted(tmp_path) == sorted(every(40, P0) + every(60, P1))
    gone = two(60)
    gone.delete_records(P0, 50)
    with pytest.raises(SourceMismatch, match="--from 40 --to 50"):
        await Rig(tmp_path, gone, ManualClock(), options=TO_END).run()


async def test_a_topic_that_is_forbidden_stops_with_what_it_has_and_others_go_on(
    tmp_path: Path,
) -> None:
    source = ScriptedSource({RAZLOG: 1, ANGE: 1})
    here, there = TopicPartition(RAZLOG, 0), TopicPartition(ANGE, 0)
    for origin in (here, there):
        source.produce(origin, traffic(20))
    rig = Rig(tmp_path, source, ManualClock())
    async with rig.running() as task:
        await rig.watch.until(lambda: rig.watch.stepped_to == {here: 20, there: 20})
        source.fail_fetch(Forbidden("never seen", topic="telemetry.hidden"))
        source.fail_fetch(Forbidden("no more", topic=ANGE))
        await rig.watch.until(lambda: rig.service.stopped)
        for origin in (here, there):
            source.produce(origin, traffic(20, first=20))
        await rig.watch.until(lambda: rig.watch.stepped_to[here] == 40)
        rig.service.stop()
        with pytest.raises(Forbidden, match="no more"):
            await task

    assert accounted(tmp_path) == sorted(every(40, here) + every(20, there))
    assert rig.watch.failures == [("reading", "forbidden"), ("processing", "Forbidden")]


async def test_a_group_that_is_forbidden_ends_the_service(tmp_path: Path) -> None:
    source = two()
    rig = Rig(tmp_path, source, ManualClock())
    source.fail_fetch(Forbidden("the group"))

    with pytest.raises(Forbidden, match="the group"):
        await rig.run()


async def test_a_topic_whose_last_record_differs_is_refused(tmp_path: Path) -> None:
    await Rig(tmp_path, two(), ManualClock(), options=TO_END).run()
    other = ScriptedSource({RAZLOG: 2})
    for origin in (P0, P1):
        other.produce(origin, traffic(45, first=1))

    with pytest.raises(SourceMismatch, match="not the one that was consumed"):
        await Rig(tmp_path, other, ManualClock(), options=TO_END).run()

    assert accounted(tmp_path) == every(40, P0, P1)


@pytest.mark.fault("F20", how="another topic id", seen="refused; accepted by option")
async def test_a_topic_created_anew_is_refused_until_accepted(tmp_path: Path) -> None:
    source = two()
    await Rig(tmp_path, source, ManualClock(), options=TO_END).run()
    source = two()
    source.recreate(RAZLOG)
    for origin in (P0, P1):
        source.produce(origin, [reading(n, 1.0) for n in range(50)])

    with pytest.raises(SourceMismatch, match=f"{RAZLOG}-2.*{RAZLOG}-1"):
        await Rig(tmp_path, source, ManualClock(), options=TO_END).run()
    assert accounted(tmp_path) == every(40, P0, P1)

    source = two()
    source.recreate(RAZLOG)
    for origin in (P0, P1):
        source.produce(origin, [reading(n, 1.0) for n in range(50)])
    accepting = ServiceOptions(
        until_end=True,
        accept_recreated=frozenset({RAZLOG}),
        start=Start(StartAt.LATEST),
    )
    await Rig(tmp_path, source, ManualClock(), options=accepting).run()

    genesis = log_of(tmp_path, topic_id=f"{RAZLOG}-2")[0]
    assert (genesis.next, f"{RAZLOG}-1" in genesis.note) == (0, True)
    assert (
        len(readings_of(tmp_path))
        == 100 + len([r for r in traffic(40) if r.startswith(b'{"')]) * 2
    )


async def test_a_topic_with_a_similar_name_is_no_recreation(tmp_path: Path) -> None:
    made = definition(topic_cities=((RAZLOG, "razlog"), (f"{RAZLOG}-north", "razlog")))
    north = ScriptedSource({f"{RAZLOG}-north": 1})
    north.produce(TopicPartition(f"{RAZLOG}-north", 0), traffic(5))
    await Rig(tmp_path, north, ManualClock(), options=TO_END, definition=made).run()

    await Rig(tmp_path, two(5), ManualClock(), options=TO_END, definition=made).run()

    assert len(accounted(tmp_path)) == 15


class NotYet(ScriptedSource):
    """Answers no question before the fourth."""

    refusals = 3

    async def bounds(self, partition: TopicPartition) -> Bounds:
        if self.refusals:
            self.refusals -= 1
            msg = "not yet"
            raise Unreachable(msg)
        return await super().bounds(partition)


@pytest.mark.fault(
    "F12",
    how="a broker that does not answer at an opening",
    seen="asked again until it does",
)
async def test_a_broker_that_does_not_answer_yet_is_asked_again(tmp_path: Path) -> None:
    source = NotYet({RAZLOG: 1})
    source.produce(P0, traffic(40))
    rig = Rig(tmp_path, source, ManualClock())
    async with rig.running():
        for tries in (1, 2, 3):
            await rig.watch.until_failed("reading", "unreachable", tries)
            await rig.pass_time(0.5)
            assert len(rig.watch.failures) == tries
            await rig.pass_time(0.4)
            assert len(rig.watch.failures) == tries
            await rig.pass_time(0.1)
        await rig.watch.until(lambda: rig.watch.stepped_to.get(P0) == 40)

    assert rig.watch.failures == [("reading", "unreachable")] * 3


async def test_a_source_that_gives_up_ends_the_service(tmp_path: Path) -> None:
    source = two()
    rig = Rig(tmp_path, source, ManualClock())
    source.fail_fetch(WorldError("gave up"))

    with pytest.raises(WorldError, match="gave up"):
        await rig.run()


async def test_a_timer_that_fails_ends_the_service_with_its_error(
    tmp_path: Path,
) -> None:
    clock, source = ManualClock(), two()
    rig = Rig(tmp_path, source, clock)

    async def broken(partition: TopicPartition) -> object:
        msg = "a bug"
        raise RuntimeError(msg)

    async with rig.running() as task:
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 40, P1: 40})
        source.bounds = broken  # type: ignore[method-assign,assignment]
        await rig._until_asleep(2)
        clock.advance(1.0)
        with pytest.raises(RuntimeError, match="a bug"):
            await task


async def test_a_sink_that_fails_unexpectedly_ends_the_service(tmp_path: Path) -> None:
    class Broken(Inbox):
        async def send(self, alerts: object) -> None:
            msg = "a bug in a sink"
            raise RuntimeError(msg)

    source = ScriptedSource({RAZLOG: 1})
    source.produce(P0, [reading(0, 50.0)])
    rig = Rig(tmp_path, source, ManualClock(), sinks={"webhook": Broken()}, flush=EACH)

    with pytest.raises(RuntimeError, match="a bug in a sink"):
        await rig.run()


# --- a new definition -----------------------------------------------------------------


async def test_a_changed_definition_is_logged_with_a_snapshot_and_closes_what_went(
    tmp_path: Path,
) -> None:
    source = ScriptedSource({RAZLOG: 1})
    source.produce(P0, [reading(0, 1.0), reading(1, 2.0)])
    await Rig(tmp_path, source, ManualClock(), options=TO_END).run()
    assert not published(tmp_path, "aggregates")
    changed = definition(windows=(WINDOW,), rules=())
    source = ScriptedSource({RAZLOG: 1})
    source.produce(P0, [reading(0, 1.0), reading(1, 2.0), reading(70, 3.0)])

    await Rig(tmp_path, source, ManualClock(), options=TO_END, definition=changed).run()

    kinds = [record.kind for record in log_of(tmp_path)]
    assert kinds == ["genesis", "commit", "takeover", "config", "commit"]
    config = log_of(tmp_path)[3]
    assert config.definition == changed.sha256()
    assert config.snapshot is not None
    assert config.snapshot.n == config.n
    rows = published(tmp_path, "aggregates")
    assert {(r["window"], r["close_reason"], r["count"]) for r in rows} == {
        ("5m", "final", 2),
        ("1m", "watermark", 2),
    }
    again = Rig(tmp_path, source, ManualClock(), options=TO_END, definition=changed)
    again.source = ScriptedSource({RAZLOG: 1})
    worker = again.make_worker(P0, f"{RAZLOG}-1")
    assert worker.open(changed, no_genesis) is None


async def test_a_city_that_left_the_configuration_is_still_filed_by_its_own_zone(
    tmp_path: Path,
) -> None:
    source = ScriptedSource({RAZLOG: 1})
    source.produce(P0, [reading(0, 30.0)])
    await Rig(tmp_path, source, ManualClock(), options=TO_END).run()
    ange = definition().cities[1:]
    moved = definition(cities=ange, topic_cities=((RAZLOG, "ange"),))

    source = ScriptedSource({RAZLOG: 1})
    source.produce(P0, [reading(0, 30.0)])
    await Rig(tmp_path, source, ManualClock(), options=TO_END, definition=moved).run()

    assert {r["city"] for r in published(tmp_path, "aggregates")} == {"razlog"}
    assert {r["city"] for r in published(tmp_path, "alerts")} == {"razlog"}


# --- the start ------------------------------------------------------------------------


async def test_latest_is_used_once(tmp_path: Path) -> None:
    source = two(10)
    latest = ServiceOptions(until_end=True, start=Start(StartAt.LATEST))
    await Rig(tmp_path, source, ManualClock(), options=latest).run()
    source = two(25)

    await Rig(tmp_path, source, ManualClock(), options=latest).run()

    assert log_of(tmp_path)[0].note == "start = latest"
    assert accounted(tmp_path) == [
        (o.source, n) for o in (P0, P1) for n in range(10, 25)
    ]


@pytest.mark.fault(
    "F22",
    how="a partition added under start = latest, with records before it is noticed",
    seen="read from its beginning; those of the first start from the end they had",
)
async def test_a_partition_that_was_added_under_latest_is_read_from_its_beginning(
    tmp_path: Path,
) -> None:
    latest = ServiceOptions(until_end=True, start=Start(StartAt.LATEST))
    await Rig(tmp_path, two(10), ManualClock(), options=latest).run()
    added = TopicPartition(RAZLOG, 2)
    grown = ScriptedSource({RAZLOG: 3})
    for origin, count in ((P0, 10), (P1, 12), (added, 5)):
        grown.produce(origin, traffic(count))

    await Rig(tmp_path, grown, ManualClock(), options=latest).run()

    assert accounted(tmp_path) == [
        *[(P1.source, n) for n in (10, 11)],
        *[(added.source, n) for n in range(5)],
    ]
    genesis = log_of(tmp_path, partition=2)[0]
    assert (genesis.start, genesis.partitions) == (0, 3)
    assert "added after the job's first start" in genesis.note


async def test_latest_holds_for_every_partition_of_the_first_start_whenever_it_is_opened(
    tmp_path: Path,
) -> None:
    latest = ServiceOptions(until_end=True, start=Start(StartAt.LATEST))
    for origin in (P0, P1):
        source = ScriptedSource({RAZLOG: 2}, assign=frozenset({origin}))
        source.produce(origin, traffic(10))
        await Rig(tmp_path, source, ManualClock(), options=latest).run()

    assert log_of(tmp_path, partition=1)[0].note == "start = latest"
    assert accounted(tmp_path) == []


async def test_a_partition_added_to_a_job_that_began_elsewhere_has_no_claim_to_latest(
    tmp_path: Path,
) -> None:
    await Rig(tmp_path, two(3), ManualClock(), options=TO_END).run()
    latest = ServiceOptions(until_end=True, start=Start(StartAt.LATEST))
    added = TopicPartition(RAZLOG, 2)
    grown = ScriptedSource({RAZLOG: 3})
    grown.produce(added, traffic(5))
    for origin in (P0, P1):
        grown.produce(origin, traffic(3))

    await Rig(tmp_path, grown, ManualClock(), options=latest).run()

    assert [n for where, n in accounted(tmp_path) if where == added.source] == [
        *range(5)
    ]


async def test_a_time_begins_at_the_first_record_of_that_time(tmp_path: Path) -> None:
    source = ScriptedSource({RAZLOG: 1})
    source.produce(P0, traffic(10), broker_us=list(range(0, 1000, 100)))
    options = ServiceOptions(until_end=True, start=Start(StartAt.TIME, 450))

    await Rig(tmp_path, source, ManualClock(), options=options).run()

    assert accounted(tmp_path) == [(P0.source, n) for n in range(5, 10)]
