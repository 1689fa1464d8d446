"""Faults of the consumer group: members that hang, come and go, or carry one name; refused offsets."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamproc.connectors.embedded_broker import EmbeddedBroker
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.core.flush import FlushPolicy
from streamproc.testing.kafka_broker import ApacheKafka
from tests.support.failpoints import fill, verified_logs
from tests.support.kafka import fresh
from tests.support.service import Rig, Watch, accounted
from tests.support.service_kafka import FOREVER, all_of, rig, topic_with
from tests.support.service_process import (
    BLOCK,
    Orders,
    ServiceProcess,
    first_to_step,
)

OFFSET_COMMIT = 8
"""The request's number in Kafka's protocol."""

VISITS = 8


def member_of(
    kafka: ApacheKafka, root: Path, topic: str
) -> Callable[..., ServiceProcess]:
    """Return what makes processes of one new group; it takes the rest of their `Orders`."""
    address, group = kafka.connection.bootstrap_servers, fresh("group")

    def process(**more: Any) -> ServiceProcess:
        orders = Orders(
            *(address, str(root), group, (topic,)),
            until_end=False,
            max_rate=100.0,
            **more,
        )
        return ServiceProcess(orders)

    return process


@pytest.mark.long
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.fault(
    "F7",
    how="event loop blocked until the heir has committed, threads go on; session 6 s",
    seen="rebalance; every record once; a member again afterwards",
)
async def test_a_member_whose_loop_was_blocked_beyond_its_session_doubles_nothing(
    static: bool, kafka: ApacheKafka, tmp_path: Path
) -> None:
    topic = await topic_with(kafka.connection, "blocked", 1, 400)
    shared = member_of(kafka, tmp_path, topic)
    one, two = (
        shared(
            owner=owner,
            rows_max=10**9,
            age_us_max=3_000_000,
            again_max=0,  # it tries to commit what it held, and is fenced
            instance_id=owner if static else None,
        )
        for owner in ("one", "two")
    )
    with one, two:
        blocked, heir = await asyncio.to_thread(first_to_step, one, two)
        blocked.signal(BLOCK)
        await until(blocked, "blocked")
        await until(heir, "committed", topic, at_least=50)
        blocked.unblock()
        await until(blocked, "failed", "writing", "fenced")
        await until(heir, "committed", topic, at_least=400)
        await stopped(heir)
        await fill(kafka.connection, topic, 1, 50)
        await until(blocked, "committed", topic, at_least=450)
        await stopped(blocked)

    assert accounted(tmp_path) == all_of(topic, 1, 450)
    verified_logs(tmp_path)


@pytest.mark.long
@pytest.mark.fault(
    "F8",
    how=f"{VISITS} members one after the other join, half of them leave at once",
    seen="records that come meanwhile are read meanwhile, each once",
)
async def test_members_that_come_and_go_all_the_time_do_not_hold_up_what_comes(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    topic = await topic_with(kafka.connection, "storm", 2, 0)
    shared, watch = {"group": fresh("group")}, Watch()

    def member(owner: str) -> Rig:
        return rig(
            tmp_path,
            kafka.connection,
            topic,
            options=FOREVER,
            flush=FlushPolicy(rows_max=30),
            kafka=shared,
            owner=owner,
            watch=watch,
        )

    async with member("host").running():
        await watch.until(lambda: len(watch.opened_at) == 2)
        for visit in range(VISITS):
            guest = member(f"guest {visit}")
            async with guest.running():
                await until_it_owns(guest)
                await fill(kafka.connection, topic, 2, 40)
                if visit % 2:
                    await until_read(watch, 40 * (visit + 1))
        await until_read(watch, 40 * VISITS)

    assert accounted(tmp_path) == all_of(topic, 2, 40 * VISITS)
    logs = verified_logs(tmp_path)
    owners = {record.owner for log in logs.values() for record in log}
    assert owners >= {"host", *(f"guest {visit}" for visit in range(1, VISITS, 2))}


@pytest.mark.long
@pytest.mark.fault(
    "F10",
    how="two processes with one instance id, in one group on Apache Kafka",
    seen="the older one ends and says why, the newer one goes on; every record once",
)
async def test_of_two_processes_with_one_instance_id_the_older_one_ends(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    topic = await topic_with(kafka.connection, "namesakes", 1, 300)
    shared = member_of(kafka, tmp_path, topic)
    older, newer = (
        shared(owner=owner, age_us_max=1_000_000, instance_id="pod-0")
        for owner in ("older", "newer")
    )
    with older:
        await until(older, "committed", topic, at_least=40)
        with newer:
            assert await asyncio.to_thread(older.ended, 60.0) == 1
            assert "another process" in older.errors
            assert "instance_id 'pod-0'" in older.errors
            await fill(kafka.connection, topic, 1, 50)
            await until(newer, "committed", topic, at_least=350)
            await stopped(newer)

    assert accounted(tmp_path) == all_of(topic, 1, 350)
    verified_logs(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(22, id="ILLEGAL_GENERATION", marks=pytest.mark.long),
        pytest.param(25, id="UNKNOWN_MEMBER_ID"),
        pytest.param(27, id="REBALANCE_IN_PROGRESS", marks=pytest.mark.long),
    ],
)
@pytest.mark.fault(
    "F14",
    how="the embedded broker refuses two offset commits",
    seen="said; joins again and goes on; every record once; later offsets are accepted",
)
async def test_offset_commits_that_are_refused_cost_and_double_nothing(
    error: int, tmp_path: Path
) -> None:
    topic = fresh("refused")
    with EmbeddedBroker({topic: 2}) as broker:
        connection = KafkaConnection(bootstrap_servers=broker.bootstrap_servers)
        await fill(connection, topic, 2, 100)
        broker.refuse(OFFSET_COMMIT, [error] * 2)
        run = rig(
            tmp_path,
            connection,
            topic,
            options=FOREVER,
            flush=FlushPolicy(rows_max=30),
            kafka={"session_timeout_s": 3},
        )
        async with run.running():
            await run.watch.until(lambda: len(run.watch.given) >= 2)
            await fill(connection, topic, 2, 100)
            await until_read(run.watch, 200)

    # More than the two where a hint of the other partition was on its way by then.
    assert set(run.watch.failures) == {("writing", "offset_hint")}
    assert len(run.watch.failures) >= 2
    assert len(run.watch.commits) > 2
    assert accounted(tmp_path) == all_of(topic, 2, 200)
    logs = verified_logs(tmp_path)
    assert [log[-1].next for log in logs.values()] == [200, 200]


async def until_it_owns(guest: Rig) -> None:
    """Return once it has opened a partition."""
    await guest.watch.until(lambda: guest.service.workers)


async def until_read(watch: Watch, end: int) -> None:
    """Return once both partitions have been folded up to there, by whomever."""
    await watch.until(lambda: list(watch.stepped_to.values()) == [end, end])


async def until(process: ServiceProcess, *words: str, at_least: int = 0) -> None:
    """Return once the process has said a line that begins so and, if asked, ends so high."""

    def happened(said: list[object]) -> bool:
        begins = all(
            str(found).startswith(word)
            for found, word in zip(said, words, strict=False)
        )
        last = said[-1]
        return begins and (not at_least or (isinstance(last, int) and last >= at_least))

    await asyncio.to_thread(process.until, happened)


async def stopped(process: ServiceProcess) -> None:
    """Ask it to stop and return once it has, in order."""
    process.signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.ended) == 0
