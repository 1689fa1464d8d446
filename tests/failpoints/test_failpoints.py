"""A real process is killed at every named step; what it leaves is complete and without doubles."""

import signal
from pathlib import Path

import pytest

from streamproc.connectors.embedded_broker import EmbeddedBrokerProcess
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.core.record import decode_record
from streamproc.errors import ConfigError
from streamproc.runtime.failpoint import POINTS, VARIABLE, failpoint_from
from tests.support.failpoints import (
    COUNT,
    assert_same_result,
    fill,
    mailbox,
    straight_run,
    verified_logs,
)
from tests.support.kafka import fresh
from tests.support.service import RAZLOG, accounted, left_in_staging, published
from tests.support.service_process import KILLED, Orders, ServiceProcess


def orders(
    broker: EmbeddedBrokerProcess, root: Path, topic: str, **more: object
) -> Orders:
    return Orders(
        broker.bootstrap_servers,
        str(root),
        fresh("kills"),
        (topic,),
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.fault(
    "F1",
    how="SIGKILL at each of fifteen named steps of a real process",
    seen="the same tables as a straight run, staging empty",
)
@pytest.mark.fault(
    "F3",
    how="SIGKILL before and after the takeover's record",
    seen="chain intact, the next owner goes on",
)
async def test_killed_once_at_every_step_it_ends_where_a_straight_run_does(
    broker: EmbeddedBrokerProcess, tmp_path: Path
) -> None:
    root, straight, inbox = (
        tmp_path / "killed",
        tmp_path / "straight",
        tmp_path / "inbox",
    )
    await fill(
        KafkaConnection(bootstrap_servers=broker.bootstrap_servers), RAZLOG, 2, COUNT
    )
    heads = []
    for number, point in enumerate(POINTS):
        count = 1 if point.startswith("takeover") else 1 + number % 3
        given = orders(broker, root, RAZLOG, snapshot_rows=60, alerts=str(inbox))
        with ServiceProcess(given, f"{point}:{count}") as process:
            assert process.ended() == KILLED, (point, process.errors)
        heads.append(progress(root))
    with ServiceProcess(
        orders(broker, root, RAZLOG, close=True, alerts=str(inbox))
    ) as process:
        assert process.ended() == 0, process.errors

    await straight_run(straight, RAZLOG, 2, COUNT)
    assert accounted(root) == sorted(
        (f"{RAZLOG}/{p}", n) for p in (0, 1) for n in range(COUNT)
    )
    assert_same_result(root, straight)
    assert not left_in_staging(root)
    verified_logs(root)
    assert len(set(heads)) > len(POINTS) // 2, "hardly any kill came after progress"
    sent = set(mailbox(inbox))
    assert sent == {(r["alert_id"], r["transition"]) for r in published(root, "alerts")}


def progress(root: Path) -> int:
    """Return how many offsets the logs have passed."""
    heads = [max(log.glob("*.json")) for log in root.glob("_streamproc/*/*/*/log")]
    return sum(decode_record(head.read_bytes(), str(head)).next for head in heads)


@pytest.mark.fault(
    "F5",
    how="SIGTERM with rows held, nothing committed yet",
    seen="commit with a snapshot, exit 0 within 30 s",
)
async def test_a_stop_by_signal_commits_and_ends_well(
    broker: EmbeddedBrokerProcess, tmp_path: Path
) -> None:
    topic = "telemetry.signals"
    await fill(
        KafkaConnection(bootstrap_servers=broker.bootstrap_servers), topic, 1, 300
    )
    given = orders(
        broker, tmp_path, topic, until_end=False, max_rate=100.0, rows_max=10**9
    )
    with ServiceProcess(given) as process:
        process.until(lambda said: said[0] == "stepped" and said[2] >= 20)
        process.signal(signal.SIGTERM)
        assert process.ended(30) == 0, process.errors
    (log,) = verified_logs(tmp_path).values()
    assert log[-1].kind == "commit"
    assert log[-1].snapshot is not None
    assert 20 <= log[-1].next < 300
    assert len(accounted(tmp_path)) == log[-1].next


@pytest.mark.fault(
    "F6",
    how="a second SIGTERM while the drain hangs on a dead sink",
    seen="exit 1 at once; the next start has everything once",
)
async def test_a_second_signal_abandons_at_once_and_loses_nothing(
    broker: EmbeddedBrokerProcess, tmp_path: Path
) -> None:
    """The first drain hangs on a sink that never answers."""
    topic, root, inbox = "telemetry.abandon", tmp_path / "root", tmp_path / "inbox"
    await fill(
        KafkaConnection(bootstrap_servers=broker.bootstrap_servers), topic, 1, 300
    )
    given = orders(
        broker, root, topic, until_end=False, alerts=str(inbox), dead_sink=True
    )
    with ServiceProcess(given) as process:
        process.until(lambda said: said[0] == "sending")
        process.signal(signal.SIGTERM)
        process.until(lambda said: said[0] == "stopping")
        process.signal(signal.SIGTERM)
        assert process.ended(10) == 1
    assert not mailbox(inbox)
    with ServiceProcess(
        orders(broker, root, topic, close=True, alerts=str(inbox))
    ) as process:
        assert process.ended() == 0, process.errors
    assert accounted(root) == [(f"{topic}/0", n) for n in range(300)]
    wanted = [(r["alert_id"], r["transition"]) for r in published(root, "alerts")]
    assert sorted(mailbox(inbox)) == sorted(wanted)
    verified_logs(root)


@pytest.mark.parametrize(
    "wrong", ["record.before", "record.before:0", "nowhere:1", "record.before:x"]
)
def test_a_failpoint_that_cannot_be_meant_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="give <step>:<count>"):
        failpoint_from({VARIABLE: wrong})


def test_without_the_variable_nothing_happens() -> None:
    for point in POINTS:
        failpoint_from({})(point)
