"""The service with its output in a bucket of a real S3 server, and what reads it there."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from streamproc.analytics.dataset import open_readings, time_zones
from streamproc.analytics.merge import aggregates
from streamproc.app.reading import open_root
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.core.flush import FlushPolicy, SnapshotPolicy
from streamproc.core.values import TopicPartition
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.kafka_broker import ApacheKafka
from streamproc.testing.s3_front import Fault, FaultFront, always, share
from streamproc.testing.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, at_endpoint
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.failpoints import (
    assert_same_result,
    fill,
    straight_run,
    verified_logs,
)
from tests.support.kafka import fresh, options_for
from tests.support.service import (
    Rig,
    accounted,
    definition,
    left_in_staging,
    published,
    traffic,
)

BUCKET = "region"
FAST = ServiceOptions(until_end=True, close=True, tick_us=100_000)

CONFIG = """
[job]
name = "test"
[source]
bootstrap_servers = "{servers}"
topics = "{topic}"
[output]
root = "s3://{bucket}/{prefix}"
[s3]
endpoint = "{endpoint}"
access_key_id = "{key}"
secret_access_key_file = "s3.secret"
path_style = true
[metrics]
enabled = false
[cities.razlog]
timezone = "Europe/Sofia"
[[windows]]
name = "1m"
every = "1m"
"""


async def test_a_bucket_gets_the_tables_that_a_folder_gets(
    kafka: ApacheKafka, s3: S3Server, tmp_path: Path
) -> None:
    topic, prefix = fresh("bucket"), fresh("root")
    async with KafkaAdmin(kafka.connection) as admin:
        await admin.create_topics([topic], 2)
        await admin.wait_for_topics([topic])
    await fill(kafka.connection, topic, 2, 800)
    root = s3.folder(BUCKET) / prefix

    def rig(options: ServiceOptions) -> Rig:
        source = KafkaSource(
            options_for(kafka.connection, topics=(topic,), group=fresh("group"))
        )
        return Rig(
            root,
            source,
            SystemClock(),
            bucket=s3.options(BUCKET, prefix),
            definition=definition(topic_cities=((topic, "razlog"),)),
            flush=FlushPolicy(rows_max=100),
            snapshot=SnapshotPolicy(250, 10**15),
            options=options,
        )

    first = rig(FAST)
    await first.run()
    first.store.close()

    await straight_run(tmp_path / "script", topic, 2, 800)
    assert_same_result(root, tmp_path / "script")
    assert not left_in_staging(root)
    verified_logs(root)

    before = {name: published(root, name) for name in ("readings", "aggregates")}
    second = rig(FAST)  # It restores from the bucket, and finds nothing to do.
    await second.run()
    second.store.close()
    assert before == {name: published(root, name) for name in before}
    assert not second.watch.commits
    assert not second.watch.failures


@pytest.mark.fault(
    "F28",
    how="HTTP front: three requests of a service in ten fail",
    seen="same tables as undisturbed",
)
@pytest.mark.fault(
    "F29",
    how="HTTP front: half of a service's failed requests were applied",
    seen="same tables as undisturbed",
)
async def test_a_service_on_a_store_that_fails_all_the_time_writes_the_same_tables(
    s3: S3Server, tmp_path: Path
) -> None:
    """Three requests in ten fail, half of those after they took effect."""
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    faults = (
        *(Fault.SLOW_DOWN, Fault.INTERNAL, Fault.RESET, Fault.CONFLICT),
        *(Fault.APPLIED_500, Fault.APPLIED_RESET, Fault.TRUNCATED, Fault.APPLIED_500),
    )
    topic, prefix = "telemetry.razlog", fresh("failing")
    source = ScriptedSource({topic: 2}, records_max=100)
    for partition in range(2):
        source.produce(TopicPartition(topic, partition), traffic(400))
    with FaultFront(s3.endpoint) as front:
        front.judge = share(faults, 0.3, seed)
        run = Rig(
            s3.folder(BUCKET) / prefix,
            source,
            ManualClock(),
            bucket=at_endpoint(s3.options(BUCKET, prefix), front.endpoint),
            definition=definition(topic_cities=((topic, "razlog"),)),
            flush=FlushPolicy(rows_max=100),
            snapshot=SnapshotPolicy(250, 10**15),
            options=ServiceOptions(until_end=True, close=True),
        )
        await run.run()
        run.store.close()

    await straight_run(tmp_path / "straight", topic, 2, 400)
    assert_same_result(s3.folder(BUCKET) / prefix, tmp_path / "straight")
    verified_logs(s3.folder(BUCKET) / prefix)
    assert not run.watch.failures


def town(
    folder: Path,
    prefix: str,
    endpoint: str,
    *,
    servers: str = "127.0.0.1:1",
    topic: str = "telemetry.{city}",
) -> Path:
    """Write a configuration whose output is a bucket, and the secret beside it."""
    (folder / "s3.secret").write_text(SECRET_KEY)
    config = folder / "town.toml"
    config.write_text(
        CONFIG.format(
            servers=servers,
            topic=topic,
            bucket=BUCKET,
            prefix=prefix,
            endpoint=endpoint,
            key=ACCESS_KEY,
        )
    )
    return config


def _run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "streamproc", *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


async def test_every_command_works_on_a_bucket(
    kafka: ApacheKafka, s3: S3Server, tmp_path: Path
) -> None:
    topic, prefix = fresh("commands") + ".razlog", fresh("root")
    async with KafkaAdmin(kafka.connection) as admin:
        await admin.create_topics([topic], 1)
        await admin.wait_for_topics([topic])
    await fill(kafka.connection, topic, 1, 300)
    s3.options(BUCKET)
    pattern = topic.replace("razlog", "{city}")
    config = town(
        tmp_path, prefix, s3.endpoint, servers=kafka.bootstrap_servers, topic=pattern
    )
    url = f"s3://{BUCKET}/{prefix}"

    ran = _run("run", str(config), "--until-end", "--close")
    assert ran.returncode == 0, ran.stderr
    checked = _run("check", str(config), "--connect", "--json")
    assert checked.returncode == 0, checked.stderr
    assert "one winner each" in json.loads(checked.stdout)["store"]
    assert len(json.loads(checked.stdout)["restart"]) == 1
    root = s3.folder(BUCKET) / prefix
    assert accounted(root) == [(f"{topic}/0", n) for n in range(300)]

    seen = _run("inspect", url, "--config", str(config), "--verify", "--json")
    assert seen.returncode == 0, seen.stderr
    report = json.loads(seen.stdout)
    assert report["verification"]["findings"] == []
    assert report["summary"]["partitions"][0]["next"] == 300
    rows = {d["dataset"]: d["rows"] for d in report["summary"]["datasets"]}
    assert rows["readings"] == len(published(root, "readings"))

    letters = _run("dead-letters", "list", url, "--config", str(config), "--json")
    assert letters.returncode == 0, letters.stderr
    found = sum(group["records"] for group in json.loads(letters.stdout))
    assert found == len(published(root, "quarantine")) > 0
    shown = _run("dead-letters", "show", url, "--config", str(config), "--json")
    assert len(json.loads(shown.stdout)) == min(20, found)

    bucket = open_root(url, config)
    assert open_readings(bucket).collect().height == rows["readings"]
    assert time_zones(bucket) == {"razlog": "Europe/Sofia"}
    merged = aggregates(bucket, "1m")
    assert merged.height == aggregates(root, "1m").height > 0

    one = next(iter(sorted((root / "readings").rglob("*.parquet"))))
    one.unlink()
    seen = _run(
        *("inspect", url, "--verify"),
        STREAMPROC_S3__ENDPOINT=s3.endpoint,
        STREAMPROC_S3__ACCESS_KEY_ID=ACCESS_KEY,
        STREAMPROC_S3__SECRET_ACCESS_KEY=SECRET_KEY,
        STREAMPROC_S3__PATH_STYLE="true",
    )
    assert seen.returncode == 3, seen.stderr
    assert f"{one.relative_to(root)}: missing" in seen.stderr


def test_files_are_replayed_into_a_bucket_once(s3: S3Server, tmp_path: Path) -> None:
    prefix = fresh("replayed")
    s3.options(BUCKET)
    config = town(tmp_path, prefix, s3.endpoint)
    with config.open("a") as file:
        file.write('[files]\ncity_fixed = "razlog"\n')
    day = tmp_path / "day.ndjson"
    lines = [
        f'{{"device":"a","time":"2026-03-01T08:{minute:02d}:00Z","values":{{"pm10":{minute}}}}}'
        for minute in range(30)
    ]
    day.write_text("\n".join(lines) + "\n")

    for _ in range(2):
        ran = _run("replay", str(config), str(day))
        assert ran.returncode == 0, ran.stderr

    assert len(published(s3.folder(BUCKET) / prefix, "readings")) == 30
    seen = _run(
        *("inspect", f"s3://{BUCKET}/{prefix}"), "--config", str(config), "--verify"
    )
    assert seen.returncode == 0, seen.stderr


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ('access_key_id = "nobody"', "s3://region/"),
        ('endpoint = "http://127.0.0.1:1"', "connection refused"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_said_before_anything_is_read(
    s3: S3Server, tmp_path: Path, changed: str, said: str
) -> None:
    config = town(tmp_path, fresh("root"), s3.endpoint)
    key = changed.split(" = ", maxsplit=1)[0]
    lines = config.read_text().splitlines()
    kept = [changed if line.startswith(key) else line for line in lines]
    text = "\n".join(kept).replace("path_style", 'patience = "1s"\npath_style')
    config.write_text(text)

    ran = _run("run", str(config), "--until-end")

    assert ran.returncode == 1
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert SECRET_KEY not in ran.stderr


def test_a_bucket_is_not_asked_by_a_check_that_shall_not_connect(
    tmp_path: Path,
) -> None:
    checked = _run("check", str(town(tmp_path, "somewhere", "http://127.0.0.1:1")))

    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("command", [("run",), ("check", "--connect")])
def test_a_service_that_loses_races_is_not_written_to(
    kafka: ApacheKafka, s3: S3Server, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Whoever wants to be the only writer has a zombie of its own after the first pause."""
    prefix = fresh("racy")
    s3.options(BUCKET)
    with FaultFront(s3.endpoint) as front:
        front.judge = always(Fault.RACY)
        servers = kafka.bootstrap_servers
        config = town(tmp_path, prefix, front.endpoint, servers=servers)

        ran = _run(command[0], str(config), *command[1:])

    assert ran.returncode == 1
    assert "does not keep conditional creates" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not list((s3.folder(BUCKET) / prefix).glob("_streamproc/test"))
