"""The service on a real broker: complete, without doubles, alone and with others."""

import asyncio
import signal
from pathlib import Path

import pytest

from streamproc.core.flush import FlushPolicy
from streamproc.core.values import TopicPartition
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.kafka_broker import ApacheKafka
from tests.support.failpoints import (
    assert_same_result,
    fill,
    straight_run,
    verified_logs,
)
from tests.support.kafka import fresh
from tests.support.service import accounted, published
from tests.support.service_kafka import FOREVER, all_of, rig, topic_with
from tests.support.service_process import Orders, ServiceProcess, first_to_step


async def test_two_cities_are_consumed_to_the_end_and_a_second_run_adds_nothing(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    one = await topic_with(kafka.connection, "one", 3, 500)
    two = await topic_with(kafka.connection, "two", 2, 300)
    await rig(
        tmp_path, kafka.connection, one, two, flush=FlushPolicy(rows_max=200)
    ).run()

    assert accounted(tmp_path) == sorted(all_of(one, 3, 500) + all_of(two, 2, 300))
    cities = {
        (r["source"].split("/")[0], r["city"]) for r in published(tmp_path, "readings")
    }
    assert cities == {(one, "razlog"), (two, "ange")}
    before = {
        name: published(tmp_path, name)
        for name in ("readings", "aggregates", "alerts", "late")
    }
    logs = verified_logs(tmp_path)
    assert sorted(log[-1].next for log in logs.values()) == [300, 300, 500, 500, 500]

    second = rig(tmp_path, kafka.connection, one, two)
    await second.run()

    assert before == {name: published(tmp_path, name) for name in before}
    assert not second.watch.commits
    assert not second.watch.failures


async def test_a_real_topic_gives_what_a_scripted_one_does(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    topic = await topic_with(kafka.connection, "same", 2, 800)
    await rig(
        tmp_path / "kafka", kafka.connection, topic, flush=FlushPolicy(rows_max=100)
    ).run()
    await straight_run(tmp_path / "script", topic, 2, 800)

    assert_same_result(tmp_path / "kafka", tmp_path / "script")


async def test_an_empty_topic_ends(kafka: ApacheKafka, tmp_path: Path) -> None:
    topic = await topic_with(kafka.connection, "empty", 1, 0)

    await rig(tmp_path, kafka.connection, topic).run()

    assert not accounted(tmp_path)


async def test_a_topic_that_does_not_exist_ends_and_is_said(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    run = rig(tmp_path, kafka.connection, fresh("nowhere"))

    await run.run()

    assert ("reading", "no_partitions") in run.watch.failures


async def test_one_member_too_many_is_told_that_it_has_nothing(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    """What makes a standby ready: the group answers, and gives it no partition."""
    topic = await topic_with(kafka.connection, "standby", 1, 10)
    shared = {"group": fresh("group")}
    first, second = (
        rig(tmp_path, kafka.connection, topic, options=FOREVER, kafka=shared, owner=o)
        for o in ("one", "two")
    )
    async with first.running():
        await first.watch.until(lambda: first.watch.given)
        async with second.running():
            await second.watch.until(lambda: second.watch.given)
            await first.watch.until(lambda: len(first.watch.given) == 2)

    last = [first.watch.given[-1], second.watch.given[-1]]
    assert sorted(last, key=len) == [frozenset(), frozenset({TopicPartition(topic, 0)})]


@pytest.mark.fault(
    "F12",
    how="broker killed with -9 and started again",
    seen="goes on by itself, every record once",
)
async def test_a_restarted_broker_costs_nothing(
    own_kafka: ApacheKafka, tmp_path: Path
) -> None:
    topic = await topic_with(own_kafka.connection, "restart", 2, 600)
    options = ServiceOptions(
        until_end=True, close=True, tick_us=100_000, max_rate=400.0
    )
    run = rig(
        tmp_path,
        own_kafka.connection,
        topic,
        options=options,
        flush=FlushPolicy(rows_max=50),
        kafka={"records_max": 50},
    )
    task = asyncio.create_task(run.service.run())
    await run.watch.until(lambda: len(run.watch.commits) >= 2)
    await asyncio.to_thread(own_kafka.kill)
    await asyncio.to_thread(own_kafka.start)
    async with asyncio.timeout(90):
        await task

    assert accounted(tmp_path) == all_of(topic, 2, 600)
    verified_logs(tmp_path)


async def test_two_members_share_the_group_and_hand_over(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    """The second joins a running first one, takes a partition, and gives it back when it stops."""
    topic = await topic_with(kafka.connection, "shared", 2, 300)
    shared = {"group": fresh("group")}
    first = rig(tmp_path, kafka.connection, topic, options=FOREVER, kafka=shared)
    second = rig(
        tmp_path, kafka.connection, topic, options=FOREVER, kafka=shared, owner="two"
    )
    async with first.running():
        await first.watch.until(
            lambda: sorted(first.watch.stepped_to.values()) == [300, 300]
        )
        async with second.running():
            await second.watch.until(lambda: len(second.service.workers) == 1)
            await first.watch.until(lambda: len(first.service.workers) == 1)
            (given,) = second.service.workers
            await fill(kafka.connection, topic, 2, 100)
            await second.watch.until(lambda: second.watch.stepped_to.get(given) == 400)
        await first.watch.until(lambda: len(first.service.workers) == 2)
        await fill(kafka.connection, topic, 2, 50)
        await first.watch.until(
            lambda: sorted(first.watch.stepped_to.values()) == [450, 450]
        )

    assert accounted(tmp_path) == all_of(topic, 2, 450)
    owners = {
        record.owner for log in verified_logs(tmp_path).values() for record in log
    }
    assert owners == {"one", "two"}
    kept = TopicPartition(topic, 1 - given.partition)
    assert first.watch.opened_at[0][1] == 0
    assert kept in first.watch.stepped_to


@pytest.mark.long
@pytest.mark.fault(
    "F4",
    how="SIGSTOP until the heir has committed, SIGCONT",
    seen="fenced; every record once",
)
async def test_a_process_that_slept_beyond_its_session_is_fenced(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    topic = await topic_with(kafka.connection, "zombie", 1, 400)
    group = fresh("group")
    settings = {
        "until_end": False,
        "max_rate": 100.0,
        "rows_max": 10**9,
        "age_us_max": 3_000_000,
    }
    address = kafka.connection.bootstrap_servers
    zombie = Orders(address, str(tmp_path), group, (topic,), owner="zombie", **settings)  # type: ignore[arg-type]
    heir = Orders(address, str(tmp_path), group, (topic,), owner="heir", **settings)  # type: ignore[arg-type]
    with ServiceProcess(zombie) as one, ServiceProcess(heir) as two:
        # Whoever gets the partition sleeps.
        sleeper, other = await asyncio.to_thread(first_to_step, one, two)
        sleeper.signal(signal.SIGSTOP)
        await asyncio.to_thread(
            other.until, lambda said: said[0] == "committed" and said[3] >= 50
        )
        sleeper.signal(signal.SIGCONT)
        await asyncio.to_thread(
            sleeper.until, lambda said: said[0] == "failed" and said[2] == "fenced"
        )
        sleeper.signal(signal.SIGTERM)
        assert await asyncio.to_thread(sleeper.ended) == 0
        await asyncio.to_thread(
            other.until, lambda said: said[0] == "committed" and said[3] == 400
        )
        other.signal(signal.SIGTERM)
        assert await asyncio.to_thread(other.ended) == 0

    assert accounted(tmp_path) == all_of(topic, 1, 400)
    verified_logs(tmp_path)
