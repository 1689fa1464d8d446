"""Retention has overtaken the log: the partition stops, and a person accepts what is lost."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from streamproc.analytics.inspect import inspect
from streamproc.analytics.verify import verify
from streamproc.connectors.local_store import LocalStore
from streamproc.core.chain import LogIdentity
from streamproc.core.definition import STATE_VERSION
from streamproc.core.ports import Bounds
from streamproc.core.record import log_folder
from streamproc.core.values import Records, TopicPartition
from streamproc.errors import Fenced, SourceMismatch
from streamproc.runtime.gap import GapOrder, accept_gap
from streamproc.runtime.opening import position_fault
from streamproc.runtime.partition_log import Draft, PartitionLog
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.logs import attempts
from tests.support.service import RAZLOG, Rig, accounted, definition, log_of, traffic

P0 = TopicPartition(RAZLOG, 0)
TO_END = ServiceOptions(until_end=True)


def _source(count: int, begin: int = 0) -> ScriptedSource:
    source = ScriptedSource({RAZLOG: 1}, records_max=16)
    source.produce(P0, traffic(count))
    if begin:
        source.delete_records(P0, begin)
    return source


def _log(root: Path, owner: str = "operator") -> PartitionLog:
    made = definition()
    topic_id = f"{RAZLOG}-1"
    identity = LogIdentity(
        job=made.job,
        topic=RAZLOG,
        topic_id=topic_id,
        partition=0,
        owner=owner,
        code_version="test",
        state_version=STATE_VERSION,
    )
    store = LocalStore(root, ballast_bytes=0)
    folder = log_folder(made.job, RAZLOG, topic_id, 0)
    return PartitionLog(store, folder, identity, attempts(owner))


def _order(start: int, end: int) -> GapOrder:
    return GapOrder(P0, start, end, "broker disk lost", "ann@host")


async def test_the_message_is_the_command_and_after_it_the_service_goes_on(
    tmp_path: Path,
) -> None:
    await Rig(tmp_path, _source(20), ManualClock(), options=TO_END).run()

    overtaken = _source(60, begin=33)
    with pytest.raises(SourceMismatch) as stopped:
        await Rig(tmp_path, overtaken, ManualClock(), options=TO_END).run()
    told = str(stopped.value)
    assert f"{RAZLOG} partition 0" in told
    assert "offset 20" in told
    assert "[33, 60)" in told
    assert f"accept-gap CONFIG --topic {RAZLOG} --partition 0 --from 20 --to 33" in told

    record = accept_gap(_log(tmp_path), definition(), _order(20, 33), Bounds(33, 60))
    await Rig(tmp_path, _source(60, begin=33), ManualClock(), options=TO_END).run()

    assert (record.kind, record.start, record.next) == ("gap", 20, 33)
    assert (record.note, record.by) == ("broker disk lost", "ann@host")
    assert accounted(tmp_path) == [
        (f"{RAZLOG}/0", n) for n in (*range(20), *range(33, 60))
    ]
    assert [r.next - r.start for r in log_of(tmp_path) if r.kind == "gap"] == [13]
    (partition,) = inspect(tmp_path).partitions
    assert [(g.start, g.next, g.by) for g in partition.gaps] == [(20, 33, "ann@host")]
    report = verify(tmp_path)
    assert report.findings == ()
    assert (report.offsets, report.gap_offsets) == (60, 13)


async def test_a_service_that_is_overtaken_while_it_runs_says_the_same(
    tmp_path: Path,
) -> None:
    class Overtaken(ScriptedSource):
        """Loses what comes next after the first batch."""

        async def fetch(
            self,
            timeout_ms: int,
            among: Collection[TopicPartition] | None = None,
        ) -> Sequence[Records]:
            found = await super().fetch(timeout_ms, among)
            if found:
                self.delete_records(P0, 40)
            return found

    source = Overtaken({RAZLOG: 1}, records_max=16)
    source.produce(P0, traffic(60))

    with pytest.raises(SourceMismatch, match="--from 16 --to 40"):
        await Rig(tmp_path, source, ManualClock(), options=TO_END).run()
    assert accounted(tmp_path) == [(f"{RAZLOG}/0", n) for n in range(16)]


@pytest.mark.parametrize(
    ("order", "bounds", "message"),
    [
        ((20, 32), Bounds(33, 60), "from 20 to 33, not from 20 to 32"),
        ((19, 33), Bounds(33, 60), "from 20 to 33, not from 19 to 33"),
        ((20, 33), Bounds(34, 60), "from 20 to 34, not from 20 to 33"),
        ((20, 33), Bounds(0, 60), "no offset is missing"),
        ((20, 21), Bounds(20, 60), "no offset is missing"),
        ((20, 33), Bounds(0, 10), "no offset is missing"),
    ],
)
async def test_bounds_that_are_not_exact_write_nothing_and_fence_nobody(
    order: tuple[int, int], bounds: Bounds, message: str, tmp_path: Path
) -> None:
    await Rig(tmp_path, _source(20), ManualClock(), options=TO_END).run()
    before = log_of(tmp_path)

    with pytest.raises(SourceMismatch, match=message):
        accept_gap(_log(tmp_path), definition(), _order(*order), bounds)

    assert log_of(tmp_path) == before


def test_a_partition_this_job_never_read_has_no_gap(tmp_path: Path) -> None:
    with pytest.raises(SourceMismatch, match="no log"):
        accept_gap(_log(tmp_path), definition(), _order(0, 5), Bounds(5, 9))


async def test_a_running_owner_is_fenced_by_a_gap(tmp_path: Path) -> None:
    await Rig(tmp_path, _source(20), ManualClock(), options=TO_END).run()
    owner = _log(tmp_path, "owner")
    owner.open(definition(), lambda: pytest.fail("there is a log"))

    accept_gap(_log(tmp_path), definition(), _order(20, 33), Bounds(33, 60))

    with pytest.raises(Fenced):
        owner.commit(Draft("commit", 21))


def test_a_topic_that_ends_before_the_log_can_be_accepted_by_nobody() -> None:
    fault = position_fault(P0, 20, Bounds(0, 12))

    assert fault is not None
    assert "offset 20" in fault
    assert "[0, 12)" in fault
    assert "accept-gap" not in fault
    assert position_fault(P0, 12, Bounds(0, 12)) is None
    assert position_fault(P0, 12, Bounds(12, 12)) is None
