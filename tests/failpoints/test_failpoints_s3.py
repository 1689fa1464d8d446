"""The kill tests with the output in a bucket of a real S3 server.

The server keeps objects as files under their keys, so what was published is read there.
"""

from dataclasses import asdict
from pathlib import Path

import pytest

from streamproc.connectors.embedded_broker import EmbeddedBrokerProcess
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.runtime.failpoint import POINTS
from streamproc.testing.s3_server import S3Server
from tests.support.failpoints import (
    assert_same_result,
    fill,
    mailbox,
    straight_run,
    verified_logs,
)
from tests.support.kafka import fresh
from tests.support.service import accounted, left_in_staging, published
from tests.support.service_process import KILLED, Orders, ServiceProcess

BUCKET = "kills"

SOME = ("staging.after", "record.after", "publish.middle", "takeover.after")
"""Before the record, after it, between two copies, and just after fencing."""


async def _killed_at(
    points: tuple[str, ...],
    topic: str,
    count: int,
    broker: EmbeddedBrokerProcess,
    s3: S3Server,
    tmp_path: Path,
) -> None:
    prefix, inbox, straight = fresh("root"), tmp_path / "inbox", tmp_path / "straight"
    options, root = s3.options(BUCKET, prefix), s3.folder(BUCKET) / prefix
    await fill(
        KafkaConnection(bootstrap_servers=broker.bootstrap_servers), topic, 2, count
    )

    def orders(**more: object) -> Orders:
        return Orders(
            broker.bootstrap_servers,
            str(root),
            fresh("kills-s3"),
            (topic,),
            snapshot_rows=60,
            alerts=str(inbox),
            bucket=asdict(options),
            **more,  # type: ignore[arg-type]
        )

    for number, point in enumerate(points):
        times = 1 if point.startswith("takeover") else 1 + number % 3
        with ServiceProcess(orders(), f"{point}:{times}") as process:
            assert process.ended() == KILLED, (point, process.errors)
    with ServiceProcess(orders(close=True)) as process:
        assert process.ended() == 0, process.errors

    await straight_run(straight, topic, 2, count)
    assert accounted(root) == sorted(
        (f"{topic}/{p}", n) for p in (0, 1) for n in range(count)
    )
    assert_same_result(root, straight)
    assert not left_in_staging(root)
    verified_logs(root)
    sent = set(mailbox(inbox))
    assert sent == {(r["alert_id"], r["transition"]) for r in published(root, "alerts")}


@pytest.mark.fault(
    "F1",
    how="SIGKILL at four steps, output in a bucket",
    seen="same tables; nothing twice",
)
async def test_killed_at_four_steps_a_bucket_holds_what_a_straight_run_writes(
    broker: EmbeddedBrokerProcess, s3: S3Server, tmp_path: Path
) -> None:
    await _killed_at(SOME, "telemetry.bucket", 600, broker, s3, tmp_path)


@pytest.mark.long
@pytest.mark.fault(
    "F1",
    how="SIGKILL at each step, output in a bucket",
    seen="same tables; nothing twice",
)
async def test_killed_at_every_step_a_bucket_holds_what_a_straight_run_writes(
    broker: EmbeddedBrokerProcess, s3: S3Server, tmp_path: Path
) -> None:
    await _killed_at(POINTS, "telemetry.bucket-all", 1500, broker, s3, tmp_path)
