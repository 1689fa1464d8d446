"""A service that is killed, compacted and restarted ends where an undisturbed one does."""

import asyncio
from datetime import date
from pathlib import Path

import pytest

from streamproc.analytics.verify import verify
from streamproc.app.keeping import compact
from streamproc.connectors.local_store import LocalStore
from streamproc.core.flush import FlushPolicy, SnapshotPolicy
from streamproc.core.values import TopicPartition
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.compaction import rows_of, visible_paths
from tests.support.failpoints import assert_same_result, straight_run
from tests.support.service import RAZLOG, Rig, accounted, definition, traffic

P0 = TopicPartition(RAZLOG, 0)
COUNT = 1_500
LONG_AFTER = date(2026, 1, 1)


def rig(root: Path, owner: str) -> Rig:
    source = ScriptedSource({RAZLOG: 1}, records_max=25)
    source.produce(P0, traffic(COUNT))
    return Rig(
        root,
        source,
        ManualClock(),
        definition=definition(topic_cities=((RAZLOG, "razlog"),)),
        flush=FlushPolicy(rows_max=100),
        snapshot=SnapshotPolicy(rows_max=250, age_us_max=10**15),
        options=ServiceOptions(until_end=True, close=True),
        owner=owner,
    )


@pytest.mark.parametrize("offset", [325, 750, 1_250])
async def test_killed_compacted_and_restarted_it_ends_where_a_straight_run_does(
    tmp_path: Path, offset: int
) -> None:
    root, straight = tmp_path / "root", tmp_path / "straight"
    crashing = rig(root, "first")
    task = asyncio.create_task(crashing.service.run())
    await crashing.watch.until(
        lambda: any(record.next >= offset for record in crashing.watch.records)
    )
    await crashing.crash(task)
    before = rows_of(root, visible_paths(root))
    store = LocalStore(root, ballast_bytes=0)

    outcomes = list(compact(store, "test", LONG_AFTER, env={}))

    assert any(outcome.what == "compacted" for outcome in outcomes)
    assert rows_of(root, visible_paths(root)) == before
    await rig(root, "second").run()
    list(compact(store, "test", LONG_AFTER, env={}))
    await straight_run(straight, RAZLOG, 1, COUNT)
    assert accounted(root) == [(f"{RAZLOG}/0", n) for n in range(COUNT)]
    assert_same_result(root, straight)
    assert verify(root).findings == ()
