"""Partitions that come, go and come back."""

import asyncio
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from streamproc.core.flush import FlushReason
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.partitions import BOTH, EACH, P0, P1, TO_END, every, no_genesis, two
from tests.support.service import (
    RAZLOG,
    ROOMY,
    Rig,
    accounted,
    log_of,
    reading,
    traffic,
)


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


async def commit_first(rig: Rig, source: ScriptedSource) -> None:
    """Let both partitions read and commit one record."""
    for origin in (P0, P1):
        source.produce(origin, [reading(0, 1.0)])
    await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 1, P1: 1})
    for worker in list(rig.service.workers.values()):
        async with rig.service._owner.turn:
            assert await rig.service._owner.commit(worker, FlushReason.AGE)


def more(count: int, first: int = 1) -> list[bytes]:
    return [reading(step, 1.0) for step in range(first, first + count)]


async def test_what_is_done_again_faster_than_committed_is_not_committed_when_it_is_revoked(
    tmp_path: Path,
) -> None:
    source = ScriptedSource({RAZLOG: 2}, records_max=10)
    lazy = replace(ROOMY, again_max=39)
    rig = Rig(tmp_path, source, ManualClock(), flush=lazy)
    async with rig.running():
        await commit_first(rig, source)
        source.produce(P0, more(39))
        source.produce(P1, more(41))
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 40, P1: 42})
        before = dict(rig.service.workers)
        await source.rebalance(BOTH)
        await rig.watch.until(lambda: rig.service.workers.keys() == BOTH)
        assert rig.service.workers == before
        assert [record.next for record in rig.watch.records] == [1, 1, 42]
        source.produce(P0, more(1))
        await rig.watch.until(lambda: rig.watch.stepped_to[P0] == 41)

    assert [(r.kind, r.next) for r in log_of(tmp_path)] == [
        ("genesis", 0),
        ("commit", 1),
        ("commit", 41),
    ]
    assert accounted(tmp_path) == sorted(every(41, P0) + every(42, P1))


async def test_what_was_not_committed_is_void_where_somebody_else_has_gone_on(
    tmp_path: Path,
) -> None:
    source = ScriptedSource({RAZLOG: 2}, records_max=10)
    rig = Rig(tmp_path, source, ManualClock(), flush=replace(ROOMY, again_max=100))
    async with rig.running():
        await commit_first(rig, source)
        for origin in BOTH:
            source.produce(origin, more(39))
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 40, P1: 40})
        parked = rig.service.workers[P0]
        await source.rebalance(frozenset())
        assert [record.next for record in rig.watch.records] == [1, 1]
        other = ScriptedSource({RAZLOG: 2})
        for origin in BOTH:
            other.produce(origin, [reading(0, 1.0), *more(59)])
        await Rig(tmp_path, other, ManualClock(), options=TO_END, owner="two").run()
        for origin in BOTH:
            source.produce(origin, more(30, first=40))
        await source.rebalance(BOTH)
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 70, P1: 70})
        assert rig.service.workers[P0] is not parked

    assert accounted(tmp_path) == every(70, P0, P1)


async def test_an_owner_that_has_committed_nothing_yet_does_when_it_is_revoked(
    tmp_path: Path,
) -> None:
    """Else a partition that moves all the time would never get anywhere."""
    rig = Rig(
        tmp_path, source := two(5), ManualClock(), flush=replace(ROOMY, again_max=100)
    )
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 5, P1: 5})
        await source.rebalance(frozenset())
        assert [record.next for record in rig.watch.records] == [5, 5]


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
        options=ServiceOptions(drain_s=1.0),  # enough to get as far as the record
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
