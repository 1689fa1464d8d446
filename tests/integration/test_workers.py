"""`run --workers N`: real processes in one group on a real broker, and one page for all."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamproc.app.workers import warmed_file
from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.core.record import LogRecord, decode_record
from streamproc.runtime.failpoint import POISON
from streamproc.testing.kafka_broker import ApacheKafka
from tests.support.failpoints import fill
from tests.support.kafka import fresh
from tests.support.service import accounted, published, traffic

CHECKOUT = Path(__file__).parents[2]
WAIT_S = 240.0

CONFIG = """
job.name = "crew"
[source]
bootstrap_servers = "{servers}"
topics = "{topic}"
group = "{topic}"
session_timeout = "6s"
heartbeat = "500ms"
topics_refresh = "1s"
[output]
root = "{root}"
flush_age = "1s"
[processing]
future_max = "366d"
[metrics]
port = {port}
[cities.razlog]
timezone = "Europe/Sofia"
[[devices]]
city = "razlog"
device = "d0"
[[windows]]
name = "1m"
every = "1m"
[[properties]]
property = "pm10"
unit = "ug/m3"
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def filled(connection: KafkaConnection, partitions: int, count: int) -> str:
    topic = fresh("crew")
    async with KafkaAdmin(connection) as admin:
        await admin.create_topics([topic], partitions)
        await admin.wait_for_topics([topic])
    await fill(connection, topic, partitions, count)
    return topic


def logs(root: Path) -> dict[str, list[LogRecord]]:
    """Return the records of every partition's log, in order."""
    found: dict[str, list[LogRecord]] = {}
    for path in sorted(root.glob("_streamproc/*/*/*/log/*.json")):
        record = decode_record(path.read_bytes(), str(path))
        found.setdefault(str(path.parent), []).append(record)
    return found


async def until_gone(pids: list[int]) -> None:
    """Return once none of these processes is there."""
    while any(alive(pid) for pid in pids):  # noqa: ASYNC110  (nobody tells)
        await asyncio.sleep(0.2)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def all_of(topic: str, partitions: int, count: int) -> list[tuple[str, int]]:
    return [(f"{topic}/{p}", n) for p in range(partitions) for n in range(count)]


class Crew:
    """`streamproc run CONFIG --workers N …` as a child, killed at the end if it still lives."""

    def __init__(self, folder: Path, servers: str, topic: str, *options: str) -> None:
        self.port = free_port()
        self.root = folder / "data"
        config = folder / "crew.toml"
        config.write_text(
            CONFIG.format(servers=servers, topic=topic, root=self.root, port=self.port)
        )
        self._log = folder / "crew.log"
        # The kernels of this run are compiled; going through all of them again takes long.
        warmed_file(os.environ).touch()
        with self._log.open("wb") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "streamproc", "run", str(config), *options],
                cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=log, text=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.child.kill()
        self.child.communicate()

    @property
    def log(self) -> list[dict[str, Any]]:
        lines = self._log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def pid(self, number: int) -> int:
        """Return the newest process of a number."""
        started = [x for x in self.log if x["event"] == "worker started"]
        return [int(x["pid"]) for x in started if x["worker"] == number][-1]

    def page(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> dict[str, float]:
        """Return a metric's sums, by worker."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self.page("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name:
                    worker = sample.labels["worker"]
                    found[worker] = found.get(worker, 0.0) + sample.value
        return found

    async def until(self, happened: Callable[[], object]) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                while not await asyncio.to_thread(happened):
                    assert self.child.poll() is None, self._log.read_text()[-3000:]
                    await asyncio.sleep(0.2)
        except TimeoutError:
            pytest.fail(self._log.read_text()[-3000:])

    async def until_shared(self, partitions: int) -> None:
        """Return once both have partitions, and together all."""

        def shared() -> bool:
            owned = self.metric("streamproc_owned_partitions")
            return (
                sum(owned.values()) == partitions
                and len(owned) == 2
                and all(owned.values())
            )

        await self.until(shared)

    async def until_committed(self, partitions: int, count: int) -> None:
        """Return once every partition is committed up to `count`."""

        def committed() -> bool:
            heads = [log[-1].next for log in logs(self.root).values()]
            return heads == [count] * partitions

        await self.until(committed)

    async def ended(self) -> tuple[int, str]:
        out, _ = await asyncio.to_thread(self.child.communicate, timeout=WAIT_S)
        return self.child.returncode, out


async def test_workers_read_to_the_end_together_and_each_record_once(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    topic = await filled(kafka.connection, 4, 400)
    servers = kafka.connection.bootstrap_servers
    options = ("--workers", "2", "--until-end", "--close", "--json")
    with Crew(tmp_path, servers, topic, *options) as crew:
        code, out = await crew.ended()

    assert code == 0, crew.log[-5:]
    assert accounted(crew.root) == all_of(topic, 4, 400)
    assert json.loads(out)["records"] >= 1600


@pytest.mark.fault(
    "F2", how="a worker of a supervisor killed", seen="started again, every record once"
)
async def test_a_killed_worker_is_started_again_and_all_drain_in_the_end(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    topic = await filled(kafka.connection, 4, 200)
    servers = kafka.connection.bootstrap_servers
    with Crew(tmp_path, servers, topic, "--workers", "2") as crew:
        await crew.until_shared(4)
        await crew.until(lambda: crew.page("/readyz")[0] == 200)
        os.kill(crew.pid(2), signal.SIGKILL)
        await crew.until(lambda: crew.page("/readyz")[0] == 503)
        assert crew.page("/healthz")[0] == 200
        await crew.until(
            lambda: crew.metric("streamproc_worker_restarts_total") == {"supervisor": 1}
        )
        await fill(kafka.connection, topic, 4, 100)
        await crew.until_shared(4)
        await crew.until(lambda: crew.page("/readyz")[0] == 200)
        await crew.until_committed(4, 300)
        crew.child.send_signal(signal.SIGTERM)
        code, _ = await crew.ended()

    assert code == 0, crew.log[-5:]
    assert accounted(crew.root) == all_of(topic, 4, 300)
    numbers = {x["worker"] for x in crew.log if x["event"] == "partition opened"}
    assert numbers == {1, 2}
    owners = {r.owner for log in logs(crew.root).values() for r in log}
    assert len(owners) == 3


async def test_workers_whose_supervisor_is_killed_drain_by_themselves(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    topic = await filled(kafka.connection, 2, 50)
    servers = kafka.connection.bootstrap_servers
    with Crew(tmp_path, servers, topic, "--workers", "2") as crew:
        await crew.until_shared(2)
        pids = [crew.pid(number) for number in (1, 2)]
        crew.child.kill()
        async with asyncio.timeout(WAIT_S):
            await until_gone(pids)
    # They may have been told before they had read anything: another run reads the rest.
    with Crew(tmp_path, servers, topic, "--until-end", "--close") as after:
        code, _ = await after.ended()

    assert code == 0, after.log[-5:]
    assert accounted(crew.root) == all_of(topic, 2, 50)


async def test_a_second_signal_ends_all_at_once_and_loses_nothing(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    topic = await filled(kafka.connection, 2, 50)
    servers = kafka.connection.bootstrap_servers
    with Crew(tmp_path, servers, topic, "--workers", "2") as crew:
        await crew.until_shared(2)
        pids = [crew.pid(number) for number in (1, 2)]
        os.kill(pids[0], signal.SIGSTOP)  # it cannot drain
        crew.child.send_signal(signal.SIGTERM)
        crew.child.send_signal(signal.SIGINT)
        os.kill(pids[0], signal.SIGCONT)
        code, _ = await crew.ended()
        assert code == 1
        async with asyncio.timeout(WAIT_S):
            await until_gone(pids)

    options = ("--workers", "1", "--until-end")
    with Crew(tmp_path, servers, topic, *options) as again:
        code, _ = await again.ended()
    assert code == 0
    assert accounted(again.root) == all_of(topic, 2, 50)


async def test_workers_that_cannot_run_end_all_with_a_clear_error(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    """The output root is a file, so every process ends; the supervisor gives up."""
    (tmp_path / "data").write_text("a file")
    servers = kafka.connection.bootstrap_servers
    with Crew(tmp_path, servers, "nothing", "--workers", "2") as crew:
        code, _ = await crew.ended()

    assert code == 1
    text = (tmp_path / "crew.log").read_text()
    assert "giving up" in text
    assert "worker 1: StoreFault" in text
    assert "Traceback" not in text


@pytest.mark.long
@pytest.mark.fault(
    "F37",
    how="SIGSEGV of a real process whenever it decodes one record",
    seen="the third start lets a child go first: one record in quarantine, all else read",
)
async def test_a_record_that_crashes_the_process_costs_three_starts_and_no_other_record(
    kafka: ApacheKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await filled(kafka.connection, 2, 200)
    monkeypatch.setenv(POISON, '"time": 1750000160000')
    deadly = sum(b'"time": 1750000160000' in value for value in traffic(200))
    assert deadly == 1

    with Crew(
        tmp_path, kafka.bootstrap_servers, topic, "--workers", "1", "--until-end"
    ) as crew:
        code, _ = await crew.ended()

        assert code == 0, crew.log[-3:]
        ends = [x for x in crew.log if x["event"].startswith("worker ended")]
    assert [x["code"] for x in ends][:2] == [-signal.SIGSEGV] * 2
    assert accounted(crew.root) == all_of(topic, 2, 200)
    crashed = [
        r for r in published(crew.root, "quarantine") if r["reason"] == "crashed"
    ]
    assert {r["source"] for r in crashed} == {f"{topic}/0", f"{topic}/1"}
    assert all(b"1750000160000" in r["payload"] for r in crashed)
