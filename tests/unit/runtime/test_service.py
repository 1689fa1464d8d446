"""The service over a scripted source: reading on, restarting, ending, flushing."""

from pathlib import Path

import pytest

from streamproc.core.flush import (
    BufferPolicy,
    FlushPolicy,
    FlushReason,
    SnapshotPolicy,
)
from streamproc.core.values import TopicPartition
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.service import (
    ANGE,
    NEVER,
    RAZLOG,
    ROOMY,
    Rig,
    accounted,
    closed,
    left_in_staging,
    log_of,
    published,
    reading,
    readings_of,
    traffic,
)

P0 = TopicPartition(RAZLOG, 0)
P1 = TopicPartition(RAZLOG, 1)
A0 = TopicPartition(ANGE, 0)
TO_END = ServiceOptions(until_end=True)
TO_CLOSE = ServiceOptions(until_end=True, close=True)


def scripted(
    records: dict[TopicPartition, list[bytes]], cut: int = 10
) -> ScriptedSource:
    topics = {origin.topic: 0 for origin in records}
    for origin in records:
        topics[origin.topic] = max(topics[origin.topic], origin.partition + 1)
    source = ScriptedSource(topics, records_max=cut)
    for origin, values in records.items():
        source.produce(origin, values)
    return source


async def test_every_record_is_published_once_and_the_log_says_so(
    tmp_path: Path,
) -> None:
    source = scripted({P0: traffic(100), P1: traffic(60, first=7), A0: traffic(30)})
    rig = Rig(tmp_path, source, ManualClock(), options=TO_CLOSE)

    await rig.run()

    wanted = [
        (o.source, n) for o, c in ((A0, 30), (P0, 100), (P1, 60)) for n in range(c)
    ]
    assert accounted(tmp_path) == sorted(wanted)
    assert len(set(readings_of(tmp_path))) == len(readings_of(tmp_path))
    head = log_of(tmp_path)[-1]
    assert (head.start, head.next) == (0, 100)
    assert head.counts.records == head.counts.decoded + head.counts.quarantined == 100
    assert not left_in_staging(tmp_path)
    assert source.hints[P0] == (100, f"n={head.n}")
    assert any(
        row["close_reason"] == "final" for row in published(tmp_path, "aggregates")
    )


async def test_a_second_run_adds_nothing(tmp_path: Path) -> None:
    records = {P0: traffic(50)}
    await Rig(tmp_path, scripted(records), ManualClock(), options=TO_CLOSE).run()
    before = {
        name: published(tmp_path, name) for name in ("readings", "aggregates", "alerts")
    }
    second = Rig(tmp_path, scripted(records), ManualClock(), options=TO_CLOSE)

    await second.run()

    assert before == {name: published(tmp_path, name) for name in before}
    assert not second.watch.commits
    assert log_of(tmp_path)[-1].kind == "takeover"


@pytest.mark.parametrize(
    "snapshot", [NEVER, SnapshotPolicy(rows_max=40)], ids=["refold", "snapshot"]
)
async def test_a_run_in_pieces_ends_where_a_straight_one_does(
    tmp_path: Path, snapshot: SnapshotPolicy
) -> None:
    """Crashes after any commit; spans are cut alike, so late parts are, too."""
    everything = traffic(240)
    policy = FlushPolicy(rows_max=1)
    straight = Rig(
        tmp_path / "straight", scripted({P0: everything}, 20), ManualClock(),
        options=TO_CLOSE, flush=policy, snapshot=snapshot,
    )  # fmt: skip
    await straight.run()
    for piece in range(0, 240, 60):
        source = scripted({P0: everything[: piece + 60]}, 20)
        rig = Rig(
            tmp_path / "pieces", source, ManualClock(), flush=policy, snapshot=snapshot
        )
        await rig.crash_at(piece + 60)
    last = Rig(
        tmp_path / "pieces", scripted({P0: everything}, 20), ManualClock(),
        options=TO_CLOSE, snapshot=snapshot,
    )  # fmt: skip
    await last.run()

    for dataset in ("readings", "late", "quarantine"):
        assert published(tmp_path / "pieces", dataset) == published(
            tmp_path / "straight", dataset
        )
    assert closed(tmp_path / "pieces") == closed(tmp_path / "straight")
    alerts = [published(tmp_path / name, "alerts") for name in ("pieces", "straight")]
    assert alerts[0] == alerts[1]
    assert alerts[0]


@pytest.mark.parametrize(
    "snapshot", [NEVER, SnapshotPolicy(rows_max=40)], ids=["refold", "snapshot"]
)
async def test_a_restored_state_is_the_state_that_was_lost(
    tmp_path: Path, snapshot: SnapshotPolicy
) -> None:
    source = scripted({P0: traffic(200)}, 20)
    rig = Rig(
        tmp_path,
        source,
        ManualClock(),
        flush=FlushPolicy(rows_max=30),
        snapshot=snapshot,
    )
    lost = await rig.crash_at(200)
    lost_state = lost[P0].processor.snapshot()
    again = Rig(tmp_path, source, ManualClock(), snapshot=snapshot)
    worker = again.make_worker(P0, f"{RAZLOG}-1")

    worker.open(again.definition, lambda: pytest.fail("there is a log"))

    restored = worker.processor.snapshot()
    assert restored.keys() == lost_state.keys()
    for name, table in lost_state.items():
        assert restored[name].to_pylist() == table.to_pylist(), name


async def test_a_tail_of_control_records_is_an_end_too(tmp_path: Path) -> None:
    source = scripted({P0: traffic(5)})
    source.skip(P0, 3)
    rig = Rig(tmp_path, source, ManualClock(), options=TO_END)

    await rig.run()

    head = log_of(tmp_path)[-1]
    assert (head.next, head.counts.records, head.counts.skipped) == (8, 5, 3)


async def test_an_empty_topic_ends_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, scripted({P0: []}), ManualClock(), options=TO_CLOSE)

    await rig.run()

    assert [record.kind for record in log_of(tmp_path)] == ["genesis"]


async def test_without_a_partition_it_ends_and_says_so(tmp_path: Path) -> None:
    source = ScriptedSource({RAZLOG: 1}, assign=frozenset())
    rig = Rig(tmp_path, source, ManualClock(), options=TO_END)

    await rig.run()

    assert rig.watch.failures == [("reading", "no_partitions")]


async def test_a_rebalance_is_not_the_end(tmp_path: Path) -> None:
    """Between `revoked` and `assigned` there is nothing of ours, yet nothing is done."""
    source = scripted({P0: traffic(40)}, 5)
    rig = Rig(tmp_path, source, ManualClock(), options=TO_END)
    async with rig.running() as task:
        await rig.watch.until(lambda: rig.watch.stepped_to)
        await rig.service._owner.revoked(frozenset({P0}))
        source.pause(P0)
        for _ in range(20):
            await source.fetch(1)
        assert not task.done()
        await source.rebalance(frozenset({P0}))
        await task

    assert len(accounted(tmp_path)) == 40


async def test_windows_stay_open_unless_asked_to_close(tmp_path: Path) -> None:
    source = scripted({P0: [reading(0, 1.0), reading(90, 2.0)]})
    await Rig(tmp_path, source, ManualClock(), options=TO_END).run()

    assert {row["close_reason"] for row in published(tmp_path, "aggregates")} == {
        "watermark"
    }

    await Rig(
        tmp_path,
        scripted({P0: [reading(0, 1.0), reading(90, 2.0)]}),
        ManualClock(),
        options=TO_CLOSE,
    ).run()

    rows = published(tmp_path, "aggregates")
    assert {row["close_reason"] for row in rows} == {"watermark", "final"}
    assert all(row["partial"] for row in rows if row["close_reason"] == "final")
    assert log_of(tmp_path)[-1].kind == "final"


async def test_rows_flush_after_the_batch_that_reaches_them(tmp_path: Path) -> None:
    source = scripted({P0: [reading(0, 1.0)] * 25})
    rig = Rig(
        tmp_path, source, ManualClock(), options=TO_END, flush=FlushPolicy(rows_max=15)
    )

    await rig.run()

    assert [(c.reason, c.record.next) for _, c in rig.watch.commits] == [
        ("rows", 20),
        ("drain", 25),
    ]


async def test_bytes_flush(tmp_path: Path) -> None:
    source = scripted({P0: [reading(0, 1.0)] * 25})
    rig = Rig(
        tmp_path, source, ManualClock(), options=TO_END, flush=FlushPolicy(bytes_max=1)
    )

    await rig.run()

    # What was due behind a commit under way may be drained in the end.
    reasons = [c.reason for _, c in rig.watch.commits]
    assert reasons[:2] == ["bytes", "bytes"]
    assert reasons[2:] in (["bytes"], ["drain"])


async def test_the_partition_that_holds_most_is_committed_when_all_hold_too_much(
    tmp_path: Path,
) -> None:
    source = scripted({P0: traffic(100), P1: [reading(0, 1.0)]})
    options = ServiceOptions(until_end=True, buffer=BufferPolicy(8_000))
    rig = Rig(tmp_path, source, ManualClock(), options=options)

    await rig.run()

    commits = [(origin, c.reason) for origin, c in rig.watch.commits]
    assert commits.count((P0, FlushReason.BUFFER)) >= 2
    assert [reason for origin, reason in commits if origin == P1] == ["drain"]


@pytest.mark.parametrize("bytes_max", [1, 8_000, 20_000])
async def test_a_bound_on_all_partitions_changes_no_result(
    tmp_path: Path, bytes_max: int
) -> None:
    records = {P0: traffic(240), P1: traffic(60, first=7), A0: traffic(120)}
    straight = Rig(
        tmp_path / "straight", scripted(records), ManualClock(), options=TO_CLOSE
    )
    await straight.run()
    options = ServiceOptions(until_end=True, close=True, buffer=BufferPolicy(bytes_max))
    bound = Rig(tmp_path / "bound", scripted(records), ManualClock(), options=options)
    await bound.run()

    assert "buffer" in {c.reason for _, c in bound.watch.commits}
    for dataset in ("readings", "late", "quarantine", "alerts"):
        assert published(tmp_path / "bound", dataset) == published(
            tmp_path / "straight", dataset
        )
    assert closed(tmp_path / "bound") == closed(tmp_path / "straight")


async def test_age_flushes_without_a_further_record(tmp_path: Path) -> None:
    clock, source = ManualClock(), scripted({P0: [reading(0, 1.0)]})
    rig = Rig(tmp_path, source, clock, flush=FlushPolicy(age_us_max=2_000_000))
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to)
        await rig.pass_time(1.0)
        await rig.watch.until(lambda: rig.watch.ends)
        assert not rig.watch.commits
        await rig.pass_time(1.0)
        await rig.watch.until(lambda: rig.watch.commits)

    assert [c.reason for _, c in rig.watch.commits] == ["age"]


async def test_a_stop_commits_what_is_held_and_closes_nothing(tmp_path: Path) -> None:
    rig = Rig(
        tmp_path,
        scripted({P0: traffic(20)}),
        ManualClock(),
        options=ServiceOptions(close=True),
    )
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to.get(P0) == 20)
        rig.service.stop()
        rig.service.stop()

    assert log_of(tmp_path)[-1].kind == "commit"
    assert log_of(tmp_path)[-1].snapshot is not None
    assert len(accounted(tmp_path)) == 20


async def test_the_rate_is_kept_by_the_clock(tmp_path: Path) -> None:
    clock = ManualClock()
    options = ServiceOptions(until_end=True, max_rate=10.0)
    rig = Rig(tmp_path, scripted({P0: traffic(30)}), clock, options=options)
    async with rig.running() as task:
        for count in range(1, 30):
            await rig.watch.until_at(P0, count)
            assert rig.watch.stepped_to[P0] == count
            await rig.pass_time(0.1, asleep=2 if count == 29 else 3)
        await task

    assert clock.monotonic_us() == 2_900_000
    assert len(accounted(tmp_path)) == 30


async def test_a_stop_ends_a_pause_of_the_rate(tmp_path: Path) -> None:
    clock = ManualClock()
    options = ServiceOptions(max_rate=0.01)
    rig = Rig(
        tmp_path, scripted({P0: traffic(30)}), clock, options=options, flush=ROOMY
    )
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.stepped_to.get(P0) == 1)
        rig.service.stop()

    assert log_of(tmp_path)[-1].next == 1
