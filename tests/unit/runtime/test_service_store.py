"""A store that falls silent, stalls, runs full or loses answers: intake pauses and goes on by itself."""

import asyncio
import re
from pathlib import Path

import pytest

from streamproc.core.flush import (
    BufferPolicy,
    FlushPolicy,
    FlushReason,
    SnapshotPolicy,
)
from streamproc.core.squash import Housekeeping
from streamproc.core.values import TopicPartition
from streamproc.runtime.parts import ServiceOptions
from streamproc.runtime.writes import RETRY_S, SLOW_US
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from streamproc.testing.troubled_store import TroubledStore
from tests.support.failpoints import verified_logs
from tests.support.service import (
    ANGE,
    RAZLOG,
    ROOMY,
    Rig,
    accounted,
    log_of,
    readings_of,
    traffic,
)

P0 = TopicPartition(RAZLOG, 0)
P1 = TopicPartition(RAZLOG, 1)
BOTH = frozenset({P0, P1})
EACH = FlushPolicy(rows_max=1)
TO_END = ServiceOptions(until_end=True)
WAITS = 3
"""Ticker, watch, and a write that is to be tried again."""


class TroubledRig(Rig):
    """A rig whose store is troubled when a test says so."""

    def _parts(self) -> object:  # type: ignore[override]
        self.troubled = TroubledStore(self.store)
        self.store = self.troubled  # type: ignore[assignment]
        return super()._parts()


def source(partitions: int, count: int, cut: int = 10) -> ScriptedSource:
    made = ScriptedSource({RAZLOG: partitions}, records_max=cut)
    for number in range(partitions):
        made.produce(TopicPartition(RAZLOG, number), traffic(count))
    return made


def every(count: int, *origins: TopicPartition) -> list[tuple[str, int]]:
    return sorted((origin.source, n) for origin in origins for n in range(count))


def staged_files(root: Path) -> list[Path]:
    return list(root.rglob("staging/*/*.parquet"))


async def committed(rig: TroubledRig) -> bool:
    """Commit P0 and let time pass until it is done; tell whether it is still ours."""
    owner, clock = rig.service._owner, rig.clock
    assert isinstance(clock, ManualClock)
    async with asyncio.timeout(30), owner.turn:
        done = asyncio.create_task(owner.finished(rig.service.workers[P0]))
        while not done.done():
            await asyncio.sleep(0)
            clock.advance(0.001)
        return await done


def nothing_is_doubled(root: Path) -> bool:
    found = readings_of(root)
    return len(set(found)) == len(found)


def news(rig: TroubledRig) -> list[str]:
    """Return what was told about the store, "" for good news."""
    return [problem for _, problem in rig.watch.store_]


@pytest.mark.parametrize("trouble", ["silent", "full"])
async def test_a_store_that_takes_nothing_pauses_its_partition_and_is_tried_for_ever(
    tmp_path: Path, trouble: str
) -> None:
    clock, records = ManualClock(), source(1, 40)
    rig = TroubledRig(tmp_path, records, clock, flush=EACH)
    async with rig.running():
        await rig.watch.until(lambda: len(rig.watch.commits) >= 1)
        setattr(rig.troubled, trouble, True)
        records.produce(P0, traffic(100, first=40))
        await rig.watch.until(lambda: rig.watch.store_)
        await rig.pass_time(RETRY_S[0], asleep=WAITS)
        folded = rig.watch.stepped_to[P0]
        for _ in range(20):
            await rig.pass_time(RETRY_S[-1], asleep=WAITS)
        assert folded < 140
        assert rig.watch.stepped_to[P0] == folded
        assert rig.service.workers.keys() == {P0}
        assert not rig.service.stopped
        assert len(rig.watch.store_) == 1
        setattr(rig.troubled, trouble, False)
        await rig.pass_time(RETRY_S[-1], asleep=2)
        await rig.watch.until_at(P0, 140)

    assert [told == "" for told in news(rig)] == [False, True]
    assert len(rig.watch.opened_at) == 1
    assert accounted(tmp_path) == every(140, P0)
    assert nothing_is_doubled(tmp_path)


async def test_a_record_whose_answer_was_lost_is_asked_for_again_and_is_there_once(
    tmp_path: Path,
) -> None:
    rig = TroubledRig(tmp_path, source(1, 40), ManualClock(), flush=ROOMY)
    async with rig.running():
        await rig.watch.until_at(P0, 40)
        rig.troubled.deaf = 2
        worker = rig.service.workers[P0]
        assert await committed(rig)

    kinds = [record.kind for record in log_of(tmp_path)]
    assert kinds == ["genesis", "commit"]
    assert rig.service.workers[P0] is worker
    assert accounted(tmp_path) == every(40, P0)


async def test_what_failed_after_the_files_were_staged_is_not_staged_again(
    tmp_path: Path,
) -> None:
    """A snapshot that finds no room must not cost the files that did."""
    rig = TroubledRig(tmp_path, source(1, 40), ManualClock(), flush=ROOMY)
    stage = rig.troubled.stage

    def no_room_for_snapshots(path: str, content: object) -> int:
        rig.troubled.full = full[0] and path.endswith(".arrow")
        try:
            return stage(path, content)  # type: ignore[arg-type]
        finally:
            rig.troubled.full = False

    full = [True]
    rig.troubled.stage = no_room_for_snapshots  # type: ignore[method-assign]
    async with rig.running():
        await rig.watch.until_at(P0, 40)
        committing = asyncio.create_task(committed(rig))
        await rig.watch.until(lambda: rig.watch.store_)
        full[0] = False
        assert await committing

    assert accounted(tmp_path) == every(40, P0)
    assert nothing_is_doubled(tmp_path)


async def test_files_of_a_failed_try_do_not_stay(tmp_path: Path) -> None:
    rig = TroubledRig(tmp_path, source(1, 40), ManualClock(), flush=ROOMY)
    staged: list[str] = []
    stage = rig.troubled.stage

    def second_does_not_fit(path: str, content: object) -> int:
        staged.append(path)
        rig.troubled.full = len(staged) == 2
        try:
            return stage(path, content)  # type: ignore[arg-type]
        finally:
            rig.troubled.full = False

    rig.troubled.stage = second_does_not_fit  # type: ignore[method-assign]
    async with rig.running():
        await rig.watch.until_at(P0, 40)
        committing = asyncio.create_task(committed(rig))
        await rig.watch.until(lambda: rig.watch.store_)
        assert not staged_files(tmp_path)
        assert await committing

    assert accounted(tmp_path) == every(40, P0)


async def test_other_partitions_keep_their_membership_while_a_store_stalls(
    tmp_path: Path,
) -> None:
    """The source is asked all the time, and heartbeats have the loop: nobody waits inside."""
    records = source(2, 40)
    asked = 0
    fetch = records.fetch

    async def counting(*args: object, **more: object) -> object:
        nonlocal asked
        asked += 1
        return await fetch(*args, **more)  # type: ignore[arg-type]

    records.fetch = counting  # type: ignore[method-assign,assignment]
    clock = ManualClock()
    rig = TroubledRig(tmp_path, records, clock, flush=EACH)
    async with rig.running():
        await rig.watch.until(lambda: len(rig.service.workers) == 2)
        rig.troubled.stall()
        await rig.watch.until(lambda: len(rig.service._owner.writes.sizes()) == 2)
        before = asked
        while asked < before + 50:  # noqa: ASYNC110  (a source tells nobody)
            await asyncio.sleep(0)
        async with asyncio.timeout(5), rig.service._owner.turn:
            pass
        await rig.pass_time(SLOW_US / 1e6)
        await rig.watch.until(lambda: len(rig.watch.store_) == 2)
        assert {o for o, _ in rig.watch.store_} == BOTH
        assert "goes on" in news(rig)[0]
        rig.troubled.go_on()
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 40, P1: 40})

    assert accounted(tmp_path) == every(40, P0, P1)
    assert news(rig)[2:] == ["", ""]


async def test_a_rebalance_does_not_wait_for_a_store_that_does_not_answer(
    tmp_path: Path,
) -> None:
    records = source(2, 40)
    rig = TroubledRig(tmp_path, records, ManualClock(), flush=ROOMY)
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 40, P1: 40})
        rig.troubled.silent = True
        async with rig.service._owner.turn:
            await rig.service._owner.flush(rig.service.workers[P0], FlushReason.AGE)
        await rig.watch.until(lambda: rig.watch.store_)
        async with asyncio.timeout(30):
            await records.rebalance(frozenset())
        assert not rig.service.workers
        assert ("writing", "drain_budget") not in rig.watch.failures
        rig.troubled.silent = False
        rig.watch.stepped_to.clear()
        await records.rebalance(BOTH)
        await rig.watch.until(lambda: rig.watch.stepped_to == {P0: 40, P1: 40})

    assert accounted(tmp_path) == every(40, P0, P1)
    assert nothing_is_doubled(tmp_path)


async def test_a_partition_is_opened_as_soon_as_the_store_answers(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    rig = TroubledRig(tmp_path, source(1, 40), clock)
    rig.troubled.silent = True
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.store_)
        for _ in range(10):
            await rig.pass_time(1.0)
        assert not rig.service.workers
        rig.troubled.silent = False
        await rig.pass_time(1.0)
        await rig.watch.until_at(P0, 40)

    assert [told == "" for told in news(rig)] == [False, True]
    assert ("reading", "unreachable") not in rig.watch.failures
    assert accounted(tmp_path) == every(40, P0)


@pytest.mark.parametrize("kilobytes", [32, 128])
@pytest.mark.fault(
    "F28", how="a store that stalls", seen="what is held stays within its bound"
)
async def test_what_is_held_never_exceeds_its_bound_while_a_store_stalls(
    tmp_path: Path, kilobytes: int
) -> None:
    bound = kilobytes * 1024
    records = source(4, 800, cut=40)
    options = ServiceOptions(buffer=BufferPolicy(bytes_max=bound // 2), bytes_max=bound)
    rig = TroubledRig(tmp_path, records, ManualClock(), flush=ROOMY, options=options)
    held: list[int] = []

    def look() -> None:
        writing = sum(rig.service._owner.writes.sizes().values())
        buffered = sum(rig.service._intake_of.buffered().values())
        held.append(records.held_bytes + buffered + writing)

    stepped = rig.watch.stepped

    def stepped_and_looked(*told: object) -> None:
        stepped(*told)  # type: ignore[arg-type]
        look()

    rig.watch.stepped = stepped_and_looked  # type: ignore[method-assign,assignment]
    async with rig.running():
        await rig.watch.until(lambda: len(rig.service.workers) == 4)
        rig.troubled.stall()
        async with asyncio.timeout(30):
            while len(rig.service._intake_of._paused) < 4:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0)
        for _ in range(200):
            await asyncio.sleep(0)
            look()
        assert sum(rig.watch.stepped_to.values()) < 3200
        rig.troubled.go_on()
        await rig.watch.until(lambda: sum(rig.watch.stepped_to.values()) == 3200)

    assert bound // 4 < max(held) <= bound
    origins = [TopicPartition(RAZLOG, number) for number in range(4)]
    assert accounted(tmp_path) == every(800, *origins)


async def test_what_was_fetched_beyond_its_share_is_given_back_and_fetched_again(
    tmp_path: Path,
) -> None:
    records = source(1, 40)
    options = ServiceOptions(buffer=BufferPolicy(bytes_max=1 << 20), bytes_max=2 << 20)
    sought: list[int] = []
    seek = records.seek

    def noting(origin: TopicPartition, offset: int) -> None:
        sought.append(offset)
        records.held_bytes = 0
        seek(origin, offset)

    records.seek = noting  # type: ignore[method-assign,assignment]
    rig = TroubledRig(tmp_path, records, ManualClock(), options=options)
    async with rig.running():
        await rig.watch.until_at(P0, 40)
        records.held_bytes = 3 << 20
        records.produce(P0, traffic(20, first=40))
        await rig.watch.until_at(P0, 60)

    assert sought == [0, 40]
    assert accounted(tmp_path) == every(60, P0)
    assert nothing_is_doubled(tmp_path)


@pytest.mark.fault(
    "F39",
    how="one city floods while the store stalls",
    seen="it may fill three quarters of the buffers, the other city is read on",
)
async def test_a_flood_leaves_room_for_the_others_while_a_store_stalls(
    tmp_path: Path,
) -> None:
    flood, quiet = P0, TopicPartition(ANGE, 0)
    records = ScriptedSource({RAZLOG: 1, ANGE: 1}, records_max=40)
    buffer = BufferPolicy(bytes_max=64 * 1024)
    options = ServiceOptions(
        buffer=buffer, bytes_max=128 * 1024, weights={"razlog": 1, "ange": 1}
    )
    rig = TroubledRig(tmp_path, records, ManualClock(), flush=ROOMY, options=options)
    async with rig.running():
        await rig.watch.until(lambda: len(rig.service.workers) == 2)
        rig.troubled.stall()
        records.produce(flood, traffic(2000))
        async with asyncio.timeout(30):
            while flood not in rig.service._intake_of._paused:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0)
        folded = rig.watch.stepped_to[flood]
        records.produce(quiet, traffic(40))
        await rig.watch.until_at(quiet, 40)
        assert rig.watch.stepped_to[flood] == folded < 2000
        rig.troubled.go_on()
        await rig.watch.until_at(flood, 2000)

    wanted = [(flood.source, n) for n in range(2000)]
    assert accounted(tmp_path) == sorted(
        wanted + [(quiet.source, n) for n in range(40)]
    )
    verified_logs(tmp_path)


async def test_a_service_deletes_nothing_but_its_own_leftovers(tmp_path: Path) -> None:
    """Below `staging`, `snap`, `log` and `archive` of its job: a role may forbid all else."""
    gone: list[str] = []
    for lap in range(4):
        rig = TroubledRig(
            tmp_path,
            source(2, 40 * (lap + 1)),
            ManualClock(),
            flush=EACH,
            snapshot=SnapshotPolicy(rows_max=20),
            keeping=Housekeeping(squash_every=4),
            options=TO_END,
            owner=f"owner {lap}",
        )
        await rig.run()
        gone += rig.troubled.deleted

    allowed = re.compile(r"_streamproc/test/[^/]+/\d+/(staging|snap|log|archive)/.+")
    kinds = {found[1] for path in gone if (found := allowed.fullmatch(path))}
    assert not [path for path in gone if not allowed.fullmatch(path)]
    assert kinds >= {"staging", "snap", "log"}
