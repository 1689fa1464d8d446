"""A real process that gets no more memory: what it leaves is complete and without doubles.

Linux counts what a process may write to (`RLIMIT_DATA`): with a limit below what it has already,
whoever asks next gets none, be it Python, a kernel's loader, Arrow or a thread's stack.
"""

import resource
from pathlib import Path

import pytest

from streamproc.connectors.embedded_broker import EmbeddedBrokerProcess
from streamproc.connectors.kafka_settings import KafkaConnection
from tests.support.failpoints import (
    assert_same_result,
    fill,
    straight_run,
    verified_logs,
)
from tests.support.kafka import fresh
from tests.support.service import accounted
from tests.support.service_process import Orders, ServiceProcess

TOPIC = "telemetry.memory"
COUNT = 4_000
DEVICES = COUNT
DEATHS = 3
RATE = 2_000.0
"""Records a second: what dies a second later than it might has not read them all."""

EVERY = sorted((f"{TOPIC}/{p}", n) for p in (0, 1) for n in range(COUNT))


def orders(broker: EmbeddedBrokerProcess, root: Path, **more: object) -> Orders:
    return Orders(
        *(broker.bootstrap_servers, str(root), fresh("memory"), (TOPIC,)),
        rows_max=300,
        records_max=100,
        **{"max_rate": RATE, **more},  # type: ignore[arg-type]
    )


def give_no_more_memory(process: ServiceProcess) -> None:
    status = Path(f"/proc/{process.child.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmData:"))
    limit = int(line.split()[1]) * 1024 // 2
    resource.prlimit(process.child.pid, resource.RLIMIT_DATA, (limit, limit))


@pytest.mark.long
@pytest.mark.fault(
    "F40",
    how="prlimit of a real process below the memory it has, in the middle of its commits, again and again",
    seen="it dies, of whatever gets no memory first; the same tables as a straight run",
)
async def test_a_process_that_gets_no_more_memory_dies_and_loses_or_doubles_nothing(
    broker: EmbeddedBrokerProcess, tmp_path: Path
) -> None:
    root, straight = tmp_path / "died", tmp_path / "straight"
    connection = KafkaConnection(bootstrap_servers=broker.bootstrap_servers)
    await fill(connection, TOPIC, 2, COUNT, DEVICES)
    reached = []
    for number in range(DEATHS):
        with ServiceProcess(orders(broker, root)) as process:
            for _ in range(1 + number):
                process.until(lambda said: said[0] == "committed")
            give_no_more_memory(process)
            assert process.ended() != 0
        verified_logs(root, ended=False)
        seen = accounted(root)
        assert len(set(seen)) == len(seen)
        reached.append(len(seen))
    assert 0 < reached[0] <= reached[-1] < len(EVERY)

    with ServiceProcess(orders(broker, root, close=True, max_rate=None)) as process:
        assert process.ended() == 0, process.errors
    assert accounted(root) == EVERY
    verified_logs(root)
    await straight_run(straight, TOPIC, 2, COUNT, DEVICES)
    assert_same_result(root, straight)
