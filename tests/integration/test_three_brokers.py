"""Three brokers that fail one after the other under a running service (T4: F13, F15, F22, F23, F44).

Each topic has three replicas, two must be in sync; the service has the manual's rights and no
more. After everything that is done to the cluster, every record was read once.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streamproc.analytics.merge import aggregates
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.core.flush import FlushPolicy
from streamproc.core.values import TopicPartition
from streamproc.errors import Unreachable
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.kafka_cluster import KafkaCluster, Tls
from tests.support.failpoints import fill, verified_logs
from tests.support.kafka import certificates, fresh, options_for, renew, started
from tests.support.service import Rig, accounted, definition, published, reading

pytestmark = pytest.mark.long

RIGHTS = {"topic:t4.": "READ DESCRIBE", "group:t4.": "READ"}
SLOW = ServiceOptions(until_end=True, close=True, tick_us=100_000, max_rate=400.0)
END = ServiceOptions(until_end=True, close=True, tick_us=100_000)
FOREVER = ServiceOptions(tick_us=100_000)
DONE_S = 180.0


@dataclass
class Region:
    cluster: KafkaCluster
    tls: Tls

    @property
    def admin(self) -> KafkaConnection:
        return self.cluster.connection()

    async def topic(self, partitions: int, config: dict[str, str] | None = None) -> str:
        name = fresh("t4.topic")
        async with KafkaAdmin(self.admin, timeout_s=30) as admin:
            await admin.create_topics([name], partitions, config, replicas=3)
        return name

    def rig(
        self,
        root: Path,
        topic: str,
        options: ServiceOptions,
        *,
        group: str = "",
        owner: str = "one",
    ) -> Rig:
        """A service of the user `service` that commits every 50 rows."""
        source = KafkaSource(
            options_for(
                self.cluster.connection("service"),
                topics=(topic,),
                group=group or fresh("t4.group"),
                records_max=50,
            )
        )
        return Rig(
            root,
            source,
            SystemClock(),
            definition=definition(topic_cities=((topic, "razlog"),)),
            options=options,
            flush=FlushPolicy(rows_max=50),
            owner=owner,
        )


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    folder = tmp_path_factory.mktemp("three-brokers")
    tls = certificates(folder / "tls")
    cluster = started(KafkaCluster(folder, tls, nodes=3, users=["service"]))
    cluster.allow("service", RIGHTS)
    yield Region(cluster, tls)
    cluster.stop()


@pytest.fixture
def region(brokers: Region) -> Iterator[Region]:
    """The cluster, whole again after each test."""
    yield brokers
    brokers.cluster.mend()


def every(topic: str, counts: Sequence[int]) -> list[tuple[str, int]]:
    return [(f"{topic}/{p}", n) for p, count in enumerate(counts) for n in range(count)]


@pytest.mark.fault(
    "F15",
    how="three brokers, the one that leads is killed -9 while the service reads and somebody writes",
    seen="every record once, under another leader",
)
async def test_a_leader_that_is_killed_costs_and_doubles_nothing(
    region: Region, tmp_path: Path
) -> None:
    """F15: the partition gets another leader while it is read, and is written to meanwhile."""
    topic = await region.topic(2)
    await fill(region.admin, topic, 2, 600)
    run = region.rig(tmp_path, topic, SLOW)
    leader = await asyncio.to_thread(region.cluster.leader, topic, 0)
    task = asyncio.create_task(run.service.run())
    await run.watch.until(lambda: len(run.watch.commits) >= 2)

    await asyncio.to_thread(region.cluster.kill, leader)
    await fill(region.admin, topic, 2, 100)
    async with asyncio.timeout(DONE_S):
        await task

    assert await asyncio.to_thread(region.cluster.leader, topic, 0) not in {leader, -1}
    assert set(accounted(tmp_path)) >= set(every(topic, [600, 600]))
    await region.rig(tmp_path, topic, END).run()
    assert accounted(tmp_path) == every(topic, [700, 700])
    verified_logs(tmp_path)


@pytest.mark.fault(
    "F12",
    how="three brokers, each of them killed -9 in turn and the same client asked for a topic's id",
    seen="told by the third question at the latest",
)
async def test_whichever_broker_is_gone_a_question_is_answered(region: Region) -> None:
    """Also where it is the one that was asked so far."""
    topic = await region.topic(1)
    for node in (1, 2, 3):
        async with KafkaAdmin(region.admin, timeout_s=2) as admin:
            wanted = await admin.topic_id(topic)
            await asyncio.to_thread(region.cluster.kill, node)
            assert await _told(admin, topic) == wanted
        await asyncio.to_thread(region.cluster.mend)


async def _told(admin: KafkaAdmin, topic: str) -> str:
    for _ in range(2):
        with suppress(Unreachable):
            return await admin.topic_id(topic)
    return await admin.topic_id(topic)


@pytest.mark.fault(
    "F13",
    how="three brokers, the coordinator is killed -9",
    seen="another one coordinates; a member that joins there gets its share; every record once",
)
async def test_a_group_whose_coordinator_is_killed_goes_on_at_another(
    region: Region, tmp_path: Path
) -> None:
    """F13: the group lives on; a member that joins at the new coordinator gets its share."""
    topic = await region.topic(2)
    group = fresh("t4.group")
    await fill(region.admin, topic, 2, 200)
    first = region.rig(tmp_path, topic, FOREVER, group=group)
    second = region.rig(tmp_path, topic, FOREVER, group=group, owner="two")
    async with first.running():
        await first.watch.until(
            lambda: sorted(first.watch.stepped_to.values()) == [200, 200]
        )
        before = await asyncio.to_thread(region.cluster.coordinator, group)
        await asyncio.to_thread(region.cluster.kill, before)
        await fill(region.admin, topic, 2, 100)
        await first.watch.until(
            lambda: sorted(first.watch.stepped_to.values()) == [300, 300]
        )
        async with second.running():
            await second.watch.until(lambda: len(second.service.workers) == 1)
            await first.watch.until(lambda: len(first.service.workers) == 1)
            (given,) = second.service.workers
            await fill(region.admin, topic, 2, 50)
            await second.watch.until(lambda: second.watch.stepped_to.get(given) == 350)
        after = await asyncio.to_thread(region.cluster.coordinator, group)
        await first.watch.until(lambda: len(first.service.workers) == 2)
        await fill(region.admin, topic, 2, 50)
        await first.watch.until(
            lambda: sorted(first.watch.stepped_to.values()) == [400, 400]
        )

    assert after != before
    assert accounted(tmp_path) == every(topic, [400, 400])
    verified_logs(tmp_path)


@pytest.mark.fault(
    "F22",
    how="a topic grows from one partition to three, a device's key moves in the middle of a minute",
    seen="every record once, both parts of the minute merge; they are not marked partial",
)
async def test_partitions_that_are_added_are_read_and_their_parts_merge(
    region: Region, tmp_path: Path
) -> None:
    """F22: a device's key moves in the middle of a minute; both parts of it are there."""
    topic = await region.topic(1)
    run = region.rig(tmp_path, topic, FOREVER)
    values = [float(n) for n in range(20)]
    old = TopicPartition(topic, 0)
    async with run.running():
        await _send(region.admin, topic, values[:7], 0)
        await run.watch.until(lambda: run.watch.stepped_to.get(old) == 7)
        await asyncio.to_thread(region.cluster.grow, topic, 3)
        await _send(region.admin, topic, values[7:], 2)
        new = TopicPartition(topic, 2)
        await run.watch.until(lambda: run.watch.stepped_to.get(new) == 13)
    await region.rig(tmp_path, topic, END).run()

    assert accounted(tmp_path) == every(topic, [7, 0, 13])
    parts = [row for row in published(tmp_path, "aggregates") if row["window"] == "1m"]
    assert {row["source"] for row in parts} == {f"{topic}/0", f"{topic}/2"}
    merged = aggregates(tmp_path, "1m")
    assert merged.height == 1
    (row,) = merged.select("count", "sum", "min", "max").to_dicts()
    assert row == {"count": 20, "sum": sum(values), "min": 0.0, "max": 19.0}
    verified_logs(tmp_path)


async def _send(
    connection: KafkaConnection, topic: str, values: Sequence[float], partition: int
) -> None:
    async with KafkaProduce(connection) as produce:
        await produce.send(
            [
                Message(topic, reading(int(value), value), b"d1", partition)
                for value in values
            ]
        )


@pytest.mark.fault(
    "F23",
    how="three brokers, a third of the transactions is aborted while the service reads",
    seen="committed records once, the log counts all offsets",
)
async def test_aborted_transactions_are_passed_and_committed_ones_read_once(
    region: Region, tmp_path: Path
) -> None:
    """F23: counted by records; markers and what was aborted are offsets without readings."""
    topic = await region.topic(1)
    run = region.rig(tmp_path, topic, FOREVER)
    origin = TopicPartition(topic, 0)
    producer = AIOKafkaProducer(
        transactional_id=fresh("t4.tx"), **region.admin.aiokafka()
    )
    await producer.start()
    kept: list[int] = []
    async with run.running():
        for turn in range(12):
            await producer.begin_transaction()
            sent = [
                await producer.send_and_wait(topic, reading(turn, 1.0 + n), b"d1", 0)
                for n in range(5)
            ]
            if turn % 3 == 1:
                await producer.abort_transaction()
            else:
                await producer.commit_transaction()
                kept += [place.offset for place in sent]
        await producer.stop()
        await run.watch.until(lambda: run.watch.stepped_to.get(origin) == 12 * 6)

    assert accounted(tmp_path) == [(f"{topic}/0", n) for n in kept]
    (log,) = verified_logs(tmp_path).values()
    assert log[-1].next == 12 * 6


@pytest.mark.fault(
    "F23",
    how="compaction removes records before the first run and between two runs",
    seen="what is left is read once; the log goes on",
)
async def test_holes_that_compaction_makes_are_passed_before_and_after_a_restart(
    region: Region, tmp_path: Path
) -> None:
    """F23: even the record whose fingerprint the log keeps may be gone."""
    compacted = {
        "cleanup.policy": "compact",
        "segment.ms": "10",  # less than it takes to connect for the next turn
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "500",
        "delete.retention.ms": "100",
    }
    topic = await region.topic(1, compacted)
    for turn in range(4):
        await _keyed(region.admin, topic, turn)
    await region.rig(tmp_path, topic, END).run()
    before = accounted(tmp_path)
    for turn in range(4, 8):
        await _keyed(region.admin, topic, turn)
    left = await _until_compacted(region, topic)

    await region.rig(tmp_path, topic, END).run()

    after = accounted(tmp_path)
    assert Counter(after).most_common(1)[0][1] == 1
    assert set(before) < set(after)
    assert {place for place in after if place not in before} == {
        (f"{topic}/0", n) for n in left if n >= 4 * 20
    }
    assert len(left) < 8 * 20
    (log,) = verified_logs(tmp_path).values()
    assert log[-1].next == 8 * 20


async def _keyed(connection: KafkaConnection, topic: str, turn: int) -> None:
    """Send a record for each of 20 keys; each turn is in a segment of its own."""
    async with KafkaProduce(connection) as produce:
        messages = [
            Message(topic, reading(turn * 20 + n, float(turn), f"d{n}"), b"d%d" % n, 0)
            for n in range(20)
        ]
        await produce.send(messages)


async def _until_compacted(region: Region, topic: str) -> list[int]:
    """Return the offsets left once compaction has removed some, and removes no more."""
    seen: list[list[int]] = []
    async with asyncio.timeout(DONE_S):
        while len(seen) < 2 or len(seen[-1]) == 160 or seen[-1] != seen[-2]:
            consumer = AIOKafkaConsumer(
                topic, auto_offset_reset="earliest", **region.admin.aiokafka()
            )
            await consumer.start()
            found: list[int] = []
            while not found or found[-1] < 159:
                for records in (await consumer.getmany(timeout_ms=1000)).values():
                    found += [record.offset for record in records]
            await consumer.stop()
            seen.append(found)
    return seen[-1]


@pytest.mark.fault(
    "F44",
    how="three brokers restart one by one with renewed certificates",
    seen="every record once",
)
async def test_brokers_that_restart_with_renewed_certificates_cost_nothing(
    region: Region, tmp_path: Path
) -> None:
    """F44: one broker after the other; the authority that we know has signed the new ones."""
    topic = await region.topic(3)
    await fill(region.admin, topic, 3, 1500)
    before = await asyncio.to_thread(_shown, region)
    run = region.rig(tmp_path, topic, SLOW)
    task = asyncio.create_task(run.service.run())
    await run.watch.until(lambda: len(run.watch.commits) >= 2)

    renew(region.tls)
    for number in (1, 2, 3):
        await asyncio.to_thread(region.cluster.restart, number)
    async with asyncio.timeout(DONE_S):
        await task

    assert await asyncio.to_thread(_shown, region) != before
    assert accounted(tmp_path) == every(topic, [1500, 1500, 1500])
    verified_logs(tmp_path)


def _shown(region: Region) -> list[str]:
    """Return the certificates that the brokers show."""
    places = (place.split(":") for place in region.cluster.bootstrap_servers.split(","))
    return [ssl.get_server_certificate((host, int(port))) for host, port in places]
