"""The contract of `Source`, for the shipped double, the embedded broker and a real one."""

from collections.abc import AsyncIterator, Iterator

import pytest

from streamproc.connectors.embedded_broker import EmbeddedBroker
from streamproc.core.ports import Source
from streamproc.core.values import Records
from streamproc.errors import SourceMismatch, Unreachable, WorldError
from streamproc.testing.kafka_broker import ApacheKafka
from tests.support.kafka import (
    FETCH_MS,
    FETCHES_MAX,
    Recorder,
    open_at,
    shared_kafka,
    take,
    until_assigned,
    values_of,
)
from tests.support.sources import ApacheRig, EmbeddedRig, Rig, ScriptedRig


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    with shared_kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(params=["scripted", "embedded", "apache", "apache, ordinary path"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param == "scripted":
        yield ScriptedRig()
    elif request.param == "embedded":
        with EmbeddedBroker() as broker:
            yield EmbeddedRig(broker)
    else:
        kafka: ApacheKafka = request.getfixturevalue("kafka")
        yield ApacheRig(kafka, raw=request.param == "apache")


@pytest.fixture
def listener() -> Recorder:
    return Recorder()


@pytest.fixture
async def source(rig: Rig) -> AsyncIterator[Source]:
    """A source of a topic with two partitions, not started."""
    made = await rig.source(partitions=2)
    yield made
    await made.stop()


def numbered(count: int, start: int = 0) -> list[bytes | None]:
    return [b"value %d" % number for number in range(start, start + count)]


async def test_everything_arrives_paused_and_without_a_position(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await rig.produce(0, numbered(3))

    await source.start(listener)
    owned = await until_assigned(source, listener)

    assert owned == {rig.at(0), rig.at(1)}
    assert not await source.fetch(FETCH_MS)


async def test_nothing_is_delivered_before_both_seek_and_resume(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await rig.produce(0, numbered(3))
    await rig.produce(1, numbered(3, 10))
    await source.start(listener)
    await until_assigned(source, listener)

    source.resume(rig.at(0))
    source.seek(rig.at(1), 0)

    assert not await source.fetch(FETCH_MS)
    assert not await source.fetch(FETCH_MS)
    source.seek(rig.at(0), 1)
    assert values_of(await take(source, 2)) == numbered(2, 1)


async def test_only_those_asked_for_deliver_and_the_others_lose_nothing(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await rig.produce(0, numbered(3))
    await rig.produce(1, numbered(3, 10))
    await source.start(listener)
    open_at(source, 0, *await until_assigned(source, listener))

    found: list[Records] = []
    for _ in range(FETCHES_MAX):
        found += await source.fetch(FETCH_MS, {rig.at(1)})
        if sum(map(len, found)) == 3:
            break
    assert {batch.origin for batch in found} == {rig.at(1)}
    assert values_of(found) == numbered(3, 10)
    assert not await source.fetch(0, {rig.at(1)})
    assert values_of(await take(source, 3)) == numbered(3)
    assert source.held_bytes >= 0
    assert source.coming_bytes >= 0


async def test_records_come_in_order_with_all_that_was_sent(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    values: list[bytes | None] = [*numbered(30), b"", None]
    keys: list[bytes | None] = [b"key %d" % (n % 3) for n in range(31)]
    keys += [b"tombstone"]
    keys[5] = None
    times_ms = [1_700_000_000_000 + 1000 * n for n in range(32)]
    await rig.produce(1, values, keys=keys, times_ms=times_ms)
    await source.start(listener)
    open_at(source, 0, *await until_assigned(source, listener))

    batches = await take(source, 32)

    assert {batch.origin for batch in batches} == {rig.at(1)}
    assert values_of(batches) == values
    assert [k for b in batches for k in b.keys] == keys
    assert [o for b in batches for o in b.offsets.tolist()] == list(range(32))
    times_us = [t for b in batches for t in b.broker_us.tolist()]
    assert times_us == [1000 * time for time in times_ms]
    ends = [batch.span.end for batch in batches]
    assert [batch.span.start for batch in batches] == [0, *ends[:-1]]
    assert ends[-1] == 32


async def test_partitions_share_a_fetch_with_one_batch_each(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await rig.produce(0, numbered(5))
    await rig.produce(1, numbered(5, 100))
    await source.start(listener)
    open_at(source, 0, *await until_assigned(source, listener))

    batches = await take(source, 10)

    by_partition = {
        n: values_of([b for b in batches if b.origin.partition == n]) for n in (0, 1)
    }
    assert by_partition == {0: numbered(5), 1: numbered(5, 100)}


async def test_seek_goes_back_and_forth_and_drops_what_was_not_returned(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await rig.produce(0, numbered(20))
    await source.start(listener)
    await until_assigned(source, listener)
    open_at(source, 0, rig.at(0))
    await take(source, 1)

    source.seek(rig.at(0), 15)
    assert values_of(await take(source, 5)) == numbered(5, 15)
    source.seek(rig.at(0), 3)
    batches = await take(source, 17)

    assert values_of(batches) == numbered(17, 3)
    assert batches[0].span.start == 3


async def test_a_paused_partition_is_silent_and_goes_on_without_a_gap(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await rig.produce(0, numbered(20))
    await source.start(listener)
    await until_assigned(source, listener)
    open_at(source, 0, rig.at(0))
    first = await take(source, 1)

    source.pause(rig.at(0))
    await rig.produce(0, numbered(5, 20))

    assert not await source.fetch(FETCH_MS)
    assert not await source.fetch(FETCH_MS)
    source.resume(rig.at(0))
    rest = await take(source, 25 - sum(map(len, first)))
    assert values_of([*first, *rest]) == numbered(25)
    assert rest[0].span.start == first[-1].span.end


async def test_an_idle_fetch_returns_nothing_and_new_records_follow(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await source.start(listener)
    open_at(source, 0, *await until_assigned(source, listener))

    assert not await source.fetch(FETCH_MS)
    await rig.produce(0, numbered(2))

    assert values_of(await take(source, 2)) == numbered(2)


async def test_bounds_are_fresh(rig: Rig, source: Source, listener: Recorder) -> None:
    await source.start(listener)
    await until_assigned(source, listener)

    empty = await source.bounds(rig.at(0))
    await rig.produce(0, numbered(9))
    full = await source.bounds(rig.at(0))
    await rig.delete_records(0, 4)
    trimmed = await source.bounds(rig.at(0))

    assert (empty.begin, empty.end) == (0, 0)
    assert (full.begin, full.end) == (0, 9)
    assert (trimmed.begin, trimmed.end) == (4, 9)


@pytest.mark.parametrize("rig", ["scripted", "apache"], indirect=True)
async def test_a_time_leads_to_the_first_record_not_before_it(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await rig.produce(0, numbered(5), times_ms=[1000, 2000, 3000, 4000, 5000])
    await source.start(listener)
    await until_assigned(source, listener)

    assert await source.offset_at(rig.at(0), 0) == 0
    assert await source.offset_at(rig.at(0), 3_000_000) == 2
    assert await source.offset_at(rig.at(0), 3_000_001) == 3
    assert await source.offset_at(rig.at(0), 5_000_001) is None
    assert await source.offset_at(rig.at(1), 0) is None


async def test_a_topic_keeps_its_id(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await source.start(listener)

    first = await source.topic_id(rig.topic)

    assert first == await source.topic_id(rig.topic)
    assert first
    assert "/" not in first


async def test_the_partitions_of_a_topic_are_counted(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await source.start(listener)
    await until_assigned(source, listener)

    assert await source.partition_count(rig.topic) == 2


async def test_one_record_is_read_without_disturbing_the_others(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await rig.produce(0, numbered(20), keys=[b"k%d" % n for n in range(20)])
    await source.start(listener)
    await until_assigned(source, listener)
    open_at(source, 0, rig.at(0))
    first = await take(source, 1)

    found = await source.read_one(rig.at(0), 13)

    assert found.offsets.tolist() == [13]
    assert list(found.values) == [b"value 13"]
    assert list(found.keys) == [b"k13"]
    rest = await take(source, 20 - sum(map(len, first)))
    assert values_of([*first, *rest]) == numbered(20)


async def test_a_record_that_is_not_there_reads_as_none(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await rig.produce(0, numbered(10))
    await source.start(listener)
    await until_assigned(source, listener)
    await rig.delete_records(0, 5)

    assert len(await source.read_one(rig.at(0), 4)) == 0
    assert len(await source.read_one(rig.at(0), 5)) == 1
    assert len(await source.read_one(rig.at(0), 10)) == 0


async def test_a_hint_is_taken_for_our_partitions_only(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    assert not await source.hint(rig.at(0), 1, "1:00000000")
    await source.start(listener)
    await until_assigned(source, listener)

    assert await source.hint(rig.at(0), 0, "7:0a1b2c3d")
    assert not await source.hint(rig.at(5), 0, "7:0a1b2c3d")


async def test_a_rebalance_revokes_then_assigns_and_closes_every_gate(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await rig.produce(0, numbered(4))
    await rig.produce(1, numbered(4))
    await source.start(listener)
    everything = await until_assigned(source, listener)
    open_at(source, 0, *everything)
    await take(source, 8)
    await rig.produce(0, numbered(2, 4))
    await rig.produce(1, numbered(2, 4))
    source.pause(rig.at(0))
    source.pause(rig.at(1))

    await rig.rebalance(source, listener)

    assert listener.events[:3] == [
        ("assigned", everything),
        ("revoked", everything),
        ("assigned", listener.events[2][1]),
    ]
    owned = await until_assigned(source, listener)
    assert not await source.fetch(FETCH_MS)
    open_at(source, 4, *(tp for tp in owned if tp.topic == rig.topic))
    assert values_of(await take(source, 2))[:2] == numbered(2, 4)


@pytest.mark.parametrize("callback", ["assigned", "revoked"])
async def test_a_failing_listener_stops_the_fetching(
    rig: Rig, source: Source, listener: Recorder, callback: str
) -> None:
    listener.fail_on = callback
    with pytest.raises(RuntimeError, match=f"{callback} failed on purpose"):  # noqa: PT012 (whichever fetch sees it)
        await source.start(listener)
        await until_assigned(source, listener)
        await rig.rebalance(source, listener)
        await source.fetch(FETCH_MS)

    with pytest.raises(RuntimeError):
        await source.fetch(FETCH_MS)


async def test_a_position_that_retention_removed_is_a_mismatch_and_others_go_on(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await rig.produce(0, numbered(10))
    await rig.produce(1, numbered(3))
    await source.start(listener)
    await until_assigned(source, listener)
    await rig.delete_records(0, 6)
    open_at(source, 2, rig.at(0))

    with pytest.raises(SourceMismatch, match=r"offset 2 is gone.*\[6, 10\)") as caught:
        await take(source, 1)

    assert caught.value.source == rig.at(0).source
    open_at(source, 0, rig.at(1))
    assert values_of(await take(source, 3)) == numbered(3)


async def test_calls_for_a_partition_that_is_not_ours_are_ignored(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await rig.produce(0, numbered(1))
    await source.start(listener)
    await until_assigned(source, listener)

    open_at(source, 0, rig.at(9))
    source.pause(rig.at(9))
    open_at(source, 0, rig.at(0))

    assert values_of(await take(source, 1)) == numbered(1)


async def test_stopping_is_safe_before_the_start_and_twice(
    rig: Rig, listener: Recorder
) -> None:
    never = await rig.source()
    await never.stop()
    source = never if isinstance(rig, ScriptedRig) else rig.member()  # type: ignore[attr-defined]
    if not isinstance(rig, ScriptedRig):
        await source.start(listener)
    await source.stop()
    await source.stop()

    with pytest.raises(WorldError):
        await source.fetch(FETCH_MS)
    assert all(event != "revoked" for event, _ in listener.events)


@pytest.mark.parametrize("rig", ["scripted", "embedded"], indirect=True)
async def test_an_unreachable_broker_is_said_to_be_unreachable(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    await rig.produce(0, numbered(2))
    await source.start(listener)
    await until_assigned(source, listener)

    with rig.cut_off():
        with pytest.raises(Unreachable):
            await source.bounds(rig.at(0))
        with pytest.raises(Unreachable):
            await source.read_one(rig.at(0), 0)
        assert not await source.fetch(FETCH_MS)

    assert (await source.bounds(rig.at(0))).end == 2


@pytest.mark.parametrize("rig", ["scripted", "embedded"], indirect=True)
async def test_starting_without_a_broker_is_unreachable(
    rig: Rig, source: Source, listener: Recorder
) -> None:
    with rig.cut_off(), pytest.raises(Unreachable):
        await source.start(listener)
