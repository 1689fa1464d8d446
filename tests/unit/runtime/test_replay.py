"""Files through the same workers: a second run adds nothing, an interrupted one goes on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streamproc.core.flush import BufferPolicy, FlushPolicy, FlushReason
from streamproc.core.payloads import Payloads
from streamproc.core.record import InputFile, InputPlan
from streamproc.core.values import Decoded, OffsetSpan, Records, TopicPartition
from streamproc.runtime.replay import FILE_TOPIC_ID, Replay, ReplayParts
from streamproc.runtime.schemas import Schemas
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.service import (
    RAZLOG,
    ROOMY,
    Inbox,
    Rig,
    accounted,
    left_in_staging,
    log_of,
    published,
    traffic,
)

P0 = TopicPartition(RAZLOG, 0)
P1 = TopicPartition(RAZLOG, 1)
PLAN = InputPlan(
    base=0,
    total=100,
    files=(InputFile(path="a", sha256="s", size=1, rows=100, start_row=0),),
)


def replay(root: Path) -> Replay:
    return replay_of(rig_of(root))


def rig_of(root: Path, flush: FlushPolicy = FlushPolicy(rows_max=30)) -> Rig:  # noqa: B008  (frozen)
    source = ScriptedSource({RAZLOG: 1})
    return Rig(root, source, ManualClock(), flush=flush, sinks={"topic": Inbox()})


def replay_of(rig: Rig, buffer: BufferPolicy = BufferPolicy()) -> Replay:  # noqa: B008  (frozen)
    clock = rig.clock
    return Replay(
        ReplayParts(
            make_worker=rig.make_worker,
            decoder_for=rig._decoder,
            schemas=Schemas(None, clock, 0, lambda: False),
            definition=rig.definition,
            clock=clock,
            observer=rig.watch,
            buffer=buffer,
        )
    )


def batches(
    count: int, size: int = 20, origin: TopicPartition = P0
) -> Iterator[tuple[Records, Decoded | None]]:
    values = traffic(count)
    for start in range(0, count, size):
        rows = values[start : start + size]
        yield (
            Records(
                origin,
                np.arange(start, start + len(rows), dtype=np.int64),
                np.full(len(rows), -1, np.int64),
                Payloads.of(rows),
                Payloads.nulls(len(rows)),
                OffsetSpan(start, start + len(rows)),
            ),
            None,
        )


async def test_a_second_replay_adds_nothing(tmp_path: Path) -> None:
    first = replay(tmp_path)
    await first.feed(batches(100), PLAN)
    await first.finish(close=True)
    before = {
        name: published(tmp_path, name) for name in ("readings", "aggregates", "alerts")
    }
    second = replay(tmp_path)
    await second.feed(batches(100), PLAN)
    await second.finish(close=True)

    assert accounted(tmp_path) == [(P0.source, n) for n in range(100)]
    assert before == {name: published(tmp_path, name) for name in before}
    assert log_of(tmp_path, topic_id=FILE_TOPIC_ID)[-1].inputs == (PLAN,)
    assert not left_in_staging(tmp_path)


@pytest.mark.parametrize("reached", [20, 50, 70])
async def test_a_longer_file_goes_on_where_the_shorter_one_ended(
    tmp_path: Path, reached: int
) -> None:
    first = replay(tmp_path)
    await first.feed(batches(reached))
    await first.finish(close=False)
    second = replay(tmp_path)
    await second.feed(batches(100, size=15))
    await second.finish(close=True)

    assert accounted(tmp_path) == [(P0.source, n) for n in range(100)]


async def test_a_stop_ends_after_the_batch_and_closes_nothing(tmp_path: Path) -> None:
    run = replay(tmp_path)

    def stopping() -> Iterator[tuple[Records, Decoded | None]]:
        for number, batch in enumerate(batches(100)):
            if number == 2:
                run.stop()
            yield batch

    await run.feed(stopping())
    await run.finish(close=True)

    assert accounted(tmp_path) == [(P0.source, n) for n in range(60)]
    reasons = {row["close_reason"] for row in published(tmp_path, "aggregates")}
    assert "final" not in reasons


async def test_the_partition_that_holds_most_is_committed_when_all_hold_too_much(
    tmp_path: Path,
) -> None:
    rig = rig_of(tmp_path, ROOMY)
    run = replay_of(rig, BufferPolicy(8_000))

    await run.feed(batches(1, origin=P1))
    await run.feed(batches(100))
    await run.finish(close=False)

    commits = [(origin, c.reason) for origin, c in rig.watch.commits]
    assert commits.count((P0, FlushReason.BUFFER)) >= 2
    assert [reason for origin, reason in commits if origin == P1] == ["drain"]
    assert len(accounted(tmp_path)) == 101
