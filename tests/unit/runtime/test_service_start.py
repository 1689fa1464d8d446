"""Where partitions without a log begin."""

from pathlib import Path

import pytest

from streamproc.core.ports import StartAt
from streamproc.core.values import TopicPartition
from streamproc.runtime.opening import Start
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.partitions import P0, P1, TO_END, two
from tests.support.service import (
    RAZLOG,
    Rig,
    accounted,
    log_of,
    traffic,
)


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
