"""Kafka no longer has what the log wants next: retention, a new topic, offsets that were reset.

On a real broker, through the command line: what an operator reads, types and gets.
"""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as AioTopicPartition

from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.core.values import TopicPartition
from streamproc.testing.kafka_broker import ApacheKafka
from tests.support.failpoints import fill
from tests.support.kafka import fresh
from tests.support.service import accounted
from tests.support.service_kafka import all_of, topic_with
from tests.support.service_process import BLOCK, Orders, ServiceProcess

CONFIG = """
[job]
name = "gaps"

[source]
topics = "{stem}.{{city}}"
group = "{group}"

[cities.razlog]
timezone = "Europe/Sofia"

[[windows]]
name = "1m"
every = "1m"

[metrics]
port = 0
"""


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    errors: str


@dataclass
class Desk:
    """An operator at a configuration, and a topic with one partition."""

    folder: Path
    kafka: ApacheKafka
    topic: str
    group: str
    sent: int = 0

    async def streamproc(self, *arguments: object) -> Ended:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-m", "streamproc"),
            *map(str, arguments),
            cwd=self.folder,
            env={
                **os.environ,
                "STREAMPROC_SOURCE__BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await process.communicate()
        assert process.returncode is not None
        assert "Traceback" not in errors.decode()
        return Ended(process.returncode, out.decode(), errors.decode())

    async def run(self, *more: str) -> Ended:
        return await self.streamproc("run", "town.toml", "--until-end", *more)

    async def accept(self, start: int, end: int, *more: str) -> Ended:
        return await self.streamproc(
            *("accept-gap", "town.toml", "--topic", self.topic, "--partition", 0),
            *("--from", start, "--to", end, "--reason", "disk lost, ticket 481", *more),
        )

    async def produce(self, count: int) -> None:
        messages = []
        for n in range(self.sent, self.sent + count):
            value: dict[str, object] = {"device": "d", "property": "pm10", "value": n}
            value["time"] = 1_700_000_000_000 + n * 1000
            messages.append(Message(self.topic, json.dumps(value).encode(), b"d", 0))
        async with KafkaProduce(self.kafka.connection) as producer:
            await producer.send(messages)
        self.sent += count

    async def inspected(self) -> dict[str, Any]:
        found = await self.streamproc("inspect", "data", "--verify", "--json")
        assert found.code == 0, found.errors + found.out
        shown: dict[str, Any] = json.loads(found.out)
        return shown

    def offsets(self) -> list[int]:
        rows = pl.read_parquet(self.folder / "data/readings/**/*.parquet")
        return sorted(rows["offset"].to_list())


@pytest.fixture
async def desk(kafka: ApacheKafka, tmp_path: Path) -> Desk:
    stem, group = fresh("gaps"), fresh("group")
    text = CONFIG.format(stem=stem, group=group)
    (tmp_path / "town.toml").write_text(text, encoding="utf-8")
    made = Desk(tmp_path, kafka, f"{stem}.razlog", group)
    async with KafkaAdmin(kafka.connection) as admin:
        await admin.create_topics([made.topic], 1)
        await admin.wait_for_topics([made.topic])
    return made


@pytest.mark.fault(
    "F19",
    how="records deleted on Apache Kafka",
    seen="stops with exact bounds; goes on after accept-gap",
)
async def test_retention_overtakes_and_a_person_accepts_the_gap(desk: Desk) -> None:
    await desk.produce(20)
    assert (await desk.run()).code == 0
    await desk.produce(40)
    async with KafkaAdmin(desk.kafka.connection) as admin:
        await admin.delete_records(TopicPartition(desk.topic, 0), 33)

    stopped = await desk.run()
    assert stopped.code == 1
    told = " ".join(stopped.errors.split())
    assert f"{desk.topic} partition 0: the log continues at offset 20" in told
    assert "the broker serves [33, 60)" in told
    assert f"--topic {desk.topic} --partition 0 --from 20 --to 33" in told
    wrong = await desk.accept(20, 34)
    assert wrong.code == 1
    assert "the gap is from 20 to 33, not from 20 to 34" in " ".join(
        wrong.errors.split()
    )
    accepted = await desk.accept(20, 33, "--by", "ann")
    again = await desk.accept(20, 33)
    ended = await desk.run()

    assert (accepted.code, ended.code) == (0, 0), accepted.errors + ended.errors
    assert again.code == 1, "there is nothing to accept twice"
    assert desk.offsets() == [*range(20), *range(33, 60)]
    shown = await desk.inspected()
    assert shown["verification"]["gap_offsets"] == 13
    (gap,) = shown["summary"]["partitions"][0]["gaps"]
    assert (gap["start"], gap["next"], gap["by"]) == (20, 33, "ann")
    assert gap["reason"] == "disk lost, ticket 481"


@pytest.mark.fault(
    "F20",
    how="topic deleted and created on Apache Kafka",
    seen="refused until accepted",
)
async def test_a_topic_created_anew_is_refused_until_it_is_accepted(desk: Desk) -> None:
    await desk.produce(20)
    assert (await desk.run()).code == 0
    async with KafkaAdmin(desk.kafka.connection) as admin:
        old = await admin.topic_id(desk.topic)
        await recreate(admin, desk.topic)
        new = await admin.topic_id(desk.topic)
    desk.sent = 0
    await desk.produce(50)

    stopped = await desk.run()
    told = " ".join(stopped.errors.split())
    assert stopped.code == 1
    assert f"{desk.topic} was deleted and created anew: its id is {new}" in told
    assert old in told
    assert f"--accept-recreated {desk.topic}" in told
    refused = await desk.accept(20, 33)
    assert refused.code == 1
    assert "no log" in refused.errors
    assert desk.offsets() == list(range(20))
    ended = await desk.run("--accept-recreated", desk.topic)

    assert ended.code == 0, ended.errors
    assert desk.offsets() == sorted([*range(20), *range(50)])
    assert (await desk.inspected())["verification"]["findings"] == []


@pytest.mark.fault(
    "F20",
    how="deleted, created and filled on Apache Kafka while the process does nothing",
    seen="nothing of the new topic is committed; the process ends and says why",
)
async def test_a_running_service_does_not_read_on_in_a_topic_created_anew(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    topic = await topic_with(kafka.connection, "anew", 1, 20)
    orders = Orders(
        kafka.bootstrap_servers,
        str(tmp_path),
        fresh("group"),
        (topic,),
        until_end=False,
        age_us_max=1_000_000,
        session_timeout_s=30,
    )
    with ServiceProcess(orders) as service:
        await asyncio.to_thread(
            service.until, lambda said: said[0] == "committed" and said[3] == 20
        )
        service.signal(BLOCK)
        await asyncio.to_thread(service.until, lambda said: said[0] == "blocked")
        async with KafkaAdmin(kafka.connection) as admin:
            await recreate(admin, topic)
        await fill(kafka.connection, topic, 1, 50)
        service.unblock()
        code = await asyncio.to_thread(service.ended)

    assert code == 1
    assert f"{topic} was deleted and created anew" in service.errors
    assert ["stepped", f"{topic}/0", 50] in service.said
    assert accounted(tmp_path) == all_of(topic, 1, 20)


async def recreate(admin: KafkaAdmin, topic: str) -> None:
    """Delete a topic and create it with one partition, which other records may fill."""
    await admin.delete_topics([topic])
    while topic in await admin.topics():
        pass
    await admin.create_topics([topic], 1)
    await admin.wait_for_topics([topic])


@pytest.mark.parametrize("offset", [0, 7, 10_000])
@pytest.mark.fault("F21", how="the group's offsets reset", seen="the log wins")
async def test_offsets_that_an_operator_resets_do_not_matter(
    desk: Desk, offset: int
) -> None:
    await desk.produce(20)
    assert (await desk.run()).code == 0
    await _reset(desk, offset)
    await desk.produce(15)

    ended = await desk.run()

    assert ended.code == 0, ended.errors
    assert desk.offsets() == list(range(35))
    assert (await desk.inspected())["verification"]["findings"] == []


async def _reset(desk: Desk, offset: int) -> None:
    tp = AioTopicPartition(desk.topic, 0)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=desk.kafka.bootstrap_servers,
        group_id=desk.group,
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        consumer.assign([tp])
        await consumer.commit({tp: OffsetAndMetadata(offset, "")})
        assert await consumer.committed(tp) == offset
    finally:
        await consumer.stop()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--reason", " "), "--reason"),
        (("--reason", "two\nlines"), "--reason"),
        (("--reason", "ok", "--by", "x" * 501), "--by"),
        ((), "--reason"),
    ],
)
async def test_a_gap_needs_a_reason_and_a_name_that_fit_a_line(
    given: tuple[str, ...], message: str, desk: Desk
) -> None:
    refused = await desk.streamproc(
        *("accept-gap", "town.toml", "--topic", desk.topic, "--partition", 0),
        *("--from", 0, "--to", 1, *given),
    )

    assert refused.code == 2
    assert message in refused.errors
