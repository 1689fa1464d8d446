"""A real process gets a SIGTERM in the middle of a commit: it ends in order, and in time."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from streamproc.connectors.embedded_broker import EmbeddedBrokerProcess
from streamproc.connectors.kafka_settings import KafkaConnection
from tests.support.failpoints import (
    COUNT,
    assert_same_result,
    fill,
    straight_run,
    verified_logs,
)
from tests.support.kafka import fresh
from tests.support.service import accounted, left_in_staging
from tests.support.service_process import Orders, ServiceProcess

TOPIC = "telemetry.interrupted"
GRACE_S = 30.0
STEPS = ("staging.before", "record.before", "publish.middle")
"""One of S6, one of S8, one of S9."""

MORE_STEPS = (
    *("decode.before", "decode.after", "staging.after", "record.after"),
    *("publish.before", "publish.after", "clean.before"),
)


@pytest.mark.fault(
    "F5",
    how="SIGTERM while files are staged, before the record, in publishing",
    seen="the commit at hand is finished, all that was folded is committed, exit 0 within 30 s",
)
async def test_a_stop_in_the_middle_of_a_commit_finishes_it_and_ends_well(
    broker: EmbeddedBrokerProcess, tmp_path: Path
) -> None:
    topic = f"{TOPIC}-{len(STEPS)}"
    await fill(connection_to(broker), topic, 2, COUNT)
    stopped_at_each(STEPS, broker, tmp_path, topic)


@pytest.mark.long
@pytest.mark.fault(
    "F5",
    how="SIGTERM at each of ten named steps",
    seen="exit 0 within 30 s; in the end the same tables as a straight run",
)
async def test_stopped_at_every_step_it_ends_where_a_straight_run_does(
    broker: EmbeddedBrokerProcess, tmp_path: Path
) -> None:
    root, straight = tmp_path / "stopped", tmp_path / "straight"
    steps = (*STEPS, *MORE_STEPS)
    topic = f"{TOPIC}-{len(steps)}"
    await fill(connection_to(broker), topic, 2, COUNT)
    stopped_at_each(steps, broker, root, topic)
    with ServiceProcess(orders(broker, root, topic, close=True)) as process:
        assert process.ended() == 0, process.errors
    await straight_run(straight, topic, 2, COUNT)
    assert_same_result(root, straight)
    verified_logs(root)


def stopped_at_each(
    steps: Sequence[str], broker: EmbeddedBrokerProcess, root: Path, topic: str
) -> None:
    """Start again and again, and stop in the middle of another step each time."""
    done = [0]
    for number, step in enumerate(steps):
        given = orders(broker, root, topic, sigterm_at=f"{step}:{2 + number % 3}")
        with ServiceProcess(given) as process:
            assert process.ended(GRACE_S) == 0, (step, process.errors)
        assert_ended_in_order(process.said, step)
        heads = [log[-1] for log in verified_logs(root).values()]
        wanted = [(f"{topic}/{h.partition}", n) for h in heads for n in range(h.next)]
        assert accounted(root) == sorted(wanted), step
        assert not left_in_staging(root), step
        done.append(len(wanted))
    assert all(before < after for before, after in pairwise(done)), done
    assert done[-1] < 2 * COUNT, "the last one was not stopped in the middle"


def connection_to(broker: EmbeddedBrokerProcess) -> KafkaConnection:
    return KafkaConnection(bootstrap_servers=broker.bootstrap_servers)


def orders(
    broker: EmbeddedBrokerProcess, root: Path, topic: str, **more: object
) -> Orders:
    return Orders(
        *(broker.bootstrap_servers, str(root), fresh("interrupted"), (topic,)),
        **more,  # type: ignore[arg-type]
    )


def assert_ended_in_order(said: list[list[object]], step: str) -> None:
    """The signal was heard before the step went on, and what was folded was committed after."""
    kinds = [line[0] for line in said]
    assert kinds.count("stopping") == 1, step
    assert kinds.index("stopping") < kinds.index("went on"), step
    after = said[kinds.index("went on") :]
    folded = {line[1]: line[2] for line in said if line[0] == "stepped"}
    committed = {line[1]: line[3] for line in said if line[0] == "committed"}
    assert "committed" in [line[0] for line in after], step
    assert folded.items() <= committed.items(), step
