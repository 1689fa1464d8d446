"""Partitions that fail, and a definition that changes."""

from pathlib import Path

import pytest

from streamproc.core.flush import FlushReason
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
from tests.support.partitions import BOTH, EACH, P0, P1, TO_END, every, no_genesis, two
from tests.support.service import (
    ANGE,
    RAZLOG,
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


@pytest.mark.fault(
    "F20",
    how="deleted, created and written beyond our position while it is read",
    seen="nothing of the new topic is committed; the partition stops",
)
async def test_what_was_read_of_a_topic_created_anew_meanwhile_is_not_committed(
    tmp_path: Path,
) -> None:
    source = two()
    rig = Rig(tmp_path, source, ManualClock())
    async with rig.running() as task:
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 40, P1: 40})
        for worker in list(rig.service.workers.values()):
            async with rig.service._owner.turn:
                assert await rig.service._owner.commit(worker, FlushReason.AGE)
        source.recreate(RAZLOG)
        for origin in BOTH:
            source.produce(origin, traffic(60))
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 60, P1: 60})
        rig.service.stop()
        with pytest.raises(SourceMismatch, match=f"{RAZLOG}-2.*{RAZLOG}-1"):
            await task

    assert accounted(tmp_path) == every(40, P0, P1)


async def test_a_broker_that_does_not_tell_the_topic_s_id_holds_up_no_commit(
    tmp_path: Path,
) -> None:
    source = two()
    rig = Rig(tmp_path, source, ManualClock())
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 40, P1: 40})
        source.unreachable = True

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
