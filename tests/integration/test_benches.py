"""The benches against a real broker, at tiny sizes: what they send arrives, what they run is right."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from bench import commit_cost, endtoend, fairness, rebalance, theodolite
from bench.bulk import Bulk
from bench.load import Stream
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.core.values import Records, TopicPartition
from streamproc.testing.kafka_broker import ApacheKafka, KafkaUnavailable, jars
from tests.support.kafka import (
    Recorder,
    fresh,
    open_at,
    options_for,
    take,
    until_assigned,
)

PARTITIONS = 3


@pytest.mark.parametrize(
    "codec",
    ["lz4", *(pytest.param(c, marks=pytest.mark.long) for c in ("none", "zstd"))],
)
def test_a_broker_takes_batches_made_whole(kafka: ApacheKafka, codec: str) -> None:
    stream = Stream(
        servers=kafka.bootstrap_servers,
        topic=fresh("bulk"),
        partitions=PARTITIONS,
        devices=1_000,
        rate=5_000,
        seconds=0.5,
        start_us=SystemClock().wall_us(),
        linger_ms=20.0,
        schema_id=1,
        compression=codec,
    )
    told, found = asyncio.run(sent_and_read(kafka, stream))
    assert (told["sent"], told["failed"]) == (stream.total, 0)
    keys = [bytes(key or b"") for records in found for key in records.keys]
    assert sorted(keys) == sorted(
        b"s_%07d" % (number % stream.devices) for number in range(stream.total)
    )
    times_us = np.sort(np.concatenate([records.broker_us for records in found]))
    due_us = stream.due_us(np.arange(stream.total)) // 1000 * 1000
    assert np.abs(times_us - due_us).max() <= 1_000


async def sent_and_read(
    kafka: ApacheKafka, stream: Stream
) -> tuple[dict[str, float], list[Records]]:
    async with KafkaProduce(kafka.connection) as producer:
        await producer.create_topics([stream.topic], PARTITIONS)
        # `Bulk` never sends again: every partition is to have its leader before.
        await producer.send(
            [Message(stream.topic, b"first", partition=p) for p in range(PARTITIONS)]
        )
    told = await Bulk(stream).run()
    source, recorder = (
        KafkaSource(options_for(kafka.connection, topics=(stream.topic,))),
        Recorder(),
    )
    await source.start(recorder)
    await until_assigned(source, recorder)
    open_at(source, 1, *(TopicPartition(stream.topic, p) for p in range(PARTITIONS)))
    found = await take(source, stream.total)
    await source.stop()
    return told, found


@pytest.fixture
def broker_can_be_started() -> None:
    try:
        jars()
    except KafkaUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.long
@pytest.mark.usefixtures("broker_can_be_started")
def test_two_workers_of_one_group_read_everything_once(tmp_path: Path) -> None:
    given = ["--rows", "3000", "--series", "100", "--repeat", "1", "--workers", "2"]
    endtoend.main([*given, "--interval", "6", "--output", str(tmp_path)])
    (path,) = tmp_path.iterdir()
    document = json.loads(path.read_text())
    assert document["order"]["workers"] == 2
    assert document["median"]["readings"] == 3_000


@pytest.mark.long
@pytest.mark.usefixtures("broker_can_be_started", "s3")
def test_a_service_that_writes_to_a_bucket_is_measured_and_checked(
    tmp_path: Path,
) -> None:
    given = ["--rows", "3000", "--series", "100", "--repeat", "1", "--store", "s3"]
    endtoend.main([*given, "--output", str(tmp_path)])
    (path,) = tmp_path.iterdir()
    document = json.loads(path.read_text())
    assert document["order"]["store"] == "s3"
    assert document["median"]["readings"] == 3_000


@pytest.mark.long
@pytest.mark.usefixtures("s3")
def test_a_commit_costs_what_its_files_ask_for(tmp_path: Path) -> None:
    given = ["--rows", "20000", "--cities", "3", "--commits", "8"]
    assert commit_cost.main([*given, "--output", str(tmp_path)]) == 0
    costs = json.loads((tmp_path / "commit-cost.json").read_text())["costs"]
    local, bucket = costs
    assert (local["store"], bucket["store"]) == ("local, 3 cities", "s3, 3 cities")
    assert local["files"] == bucket["files"] == 6
    assert local["bytes_per_reading"] == pytest.approx(
        bucket["bytes_per_reading"], 1e-3
    )
    assert local["bytes_per_reading"] > 5
    # Of each file: upload, look, copy, look. The record, one deletion, a hint of eight commits.
    assert (local["requests"], bucket["requests"]) == (0, 6 * 4 + 2 + 1 / 8)


@pytest.mark.long
@pytest.mark.usefixtures("broker_can_be_started")
def test_a_short_search_for_the_most_sensors_has_a_result(tmp_path: Path) -> None:
    given = ["uc2", "--loads", "500", "--warm-up", "3", "--seconds", "6"]
    assert theodolite.main([*given, "--output", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "theodolite-uc2.json").read_text())
    (run,) = document["runs"]
    assert run["sensors"] == 500
    assert document["most_sensors"] == 500, run


@pytest.mark.long
@pytest.mark.usefixtures("broker_can_be_started")
@pytest.mark.parametrize("mode", rebalance.MODES)
def test_a_rebalance_is_measured_until_every_partition_has_a_record(
    tmp_path: Path, mode: str
) -> None:
    order = ["--partitions", "4", "--series", "2000", "--settle", "1"]
    assert rebalance.main([*order, "--mode", mode, "--output", str(tmp_path)]) == 0

    (run,) = json.loads((tmp_path / "rebalance.json").read_text())["runs"]
    assert run["mode"] == mode
    assert run["moved_s"] > 0
    assert run["hot_s"] > 0


@pytest.mark.long
@pytest.mark.usefixtures("broker_can_be_started")
def test_a_flood_is_measured_beside_what_others_send(tmp_path: Path) -> None:
    order = ["--cities", "2", "--backlog", "100000", "--seconds", "2"]
    assert fairness.main([*order, "--output", str(tmp_path)]) == 0

    quiet, flooded = json.loads((tmp_path / "fairness.json").read_text())["runs"]
    assert quiet["records"] > 0.9 * 2 * 2 * 200
    assert flooded["records"] > 0.9 * 2 * 2 * 200
    assert flooded["flood_records"] >= 100_000
