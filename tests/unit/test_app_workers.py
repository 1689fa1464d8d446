"""Supervisor and children, put together: pages, logs, restarts and signals; the children are scripts."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from streamproc.app import workers
from streamproc.config import load
from streamproc.errors import ConfigError, WorldError
from streamproc.runtime.observer import Totals
from streamproc.runtime.supervisor import RestartPolicy

STUB = Path(__file__).parents[1] / "support" / "stub_worker.py"
WAIT_S = 60.0
CONFIG = """
job.name = "crew"
source = {{ bootstrap_servers = "localhost:9", topics = "telemetry.{{city}}" }}
output.root = "{root}"
metrics.port = 0
cities.razlog.timezone = "Europe/Sofia"
windows = [{{ name = "1m", every = "1m" }}]
"""


@pytest.fixture(autouse=True)
def stubs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workers, "COMMAND", (sys.executable, str(STUB)))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))


class Running:
    """`run_workers` as a task, and what it says."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.said = ""
        config = folder / "crew.toml"
        config.write_text(CONFIG.format(root=folder / "data"))
        self.settings, self.config = load(config, {}), config

    def log(self) -> list[dict[str, object]]:
        self.said += self._capsys.readouterr().err
        lines = self.said.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def events(self, name: str) -> list[dict[str, object]]:
        return [entry for entry in self.log() if entry["event"] == name]

    @asynccontextmanager
    async def started(
        self, count: int
    ) -> AsyncIterator["asyncio.Task[tuple[Totals, bool]]"]:
        task = asyncio.create_task(
            workers.run_workers(
                self.settings, self.config, count, [], until_end=False, env=os.environ
            )
        )
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, happened: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not happened():  # noqa: ASYNC110  (a child tells nobody)
                await asyncio.sleep(0.01)

    async def page(self, path: str) -> tuple[int, str]:
        (listening,) = self.events("listening")
        port = int(str(listening["port"]))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split(" ")[1]), body


async def test_pages_are_merged_logs_have_numbers_and_a_signal_drains_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Running(tmp_path, capsys)
    async with run.started(2) as task:
        await run.until(lambda: len(run.events("hello")) == 2)
        status, page = await run.page("/metrics")
        assert status == 200
        assert 'records_total{worker="1"} 3.0' in page
        assert 'records_total{worker="2"} 3.0' in page
        assert 'streamproc_workers_running{worker="supervisor"} 2.0' in page
        status, said = await run.page("/readyz")
        assert (status, json.loads(said)["ready"]) == (200, True)
        os.kill(os.getpid(), signal.SIGTERM)
        totals, stopped = await task

    assert stopped
    assert (totals.records, totals.readings) == (2, 2)
    run.log()
    assert "worker 1: a plain line" in run.said
    assert "worker 2: a plain line" in run.said
    assert {e["code"] for e in run.events("worker ended")} == {0}


async def test_a_killed_child_is_started_again_and_meanwhile_nobody_is_ready(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.999)
    run = Running(tmp_path, capsys)
    async with run.started(2) as task:
        await run.until(lambda: len(run.events("hello")) == 2)
        (second,) = [e for e in run.events("worker started") if e["worker"] == 2]
        os.kill(int(str(second["pid"])), signal.SIGKILL)
        await run.until(
            lambda: run.events("worker ended by itself and is started again")
        )
        status, said = await run.page("/readyz")
        assert status == 503
        assert json.loads(said)["reasons"] == ["worker 2: is not running"]
        assert (await run.page("/healthz"))[0] == 200
        await run.until(lambda: len(run.events("hello")) == 3)
        _, page = await run.page("/metrics")
        assert (
            'streamproc_worker_restarts_total{worker="supervisor",number="2"} 1.0'
            in page
        )
        os.kill(os.getpid(), signal.SIGTERM)
        await task


async def test_a_stopped_child_that_does_not_answer_is_not_ready(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "ASK_S", 0.2)
    run = Running(tmp_path, capsys)
    async with run.started(1) as task:
        await run.until(lambda: run.events("hello"))
        (started,) = run.events("worker started")
        pid = int(str(started["pid"]))
        os.kill(pid, signal.SIGSTOP)
        status, said = await run.page("/readyz")
        assert status == 503
        assert json.loads(said)["reasons"] == ["worker 1: does not answer"]
        assert (await run.page("/healthz"))[0] == 200
        os.kill(pid, signal.SIGCONT)
        os.kill(os.getpid(), signal.SIGTERM)
        await task


async def test_children_that_keep_ending_are_given_up(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    monkeypatch.setenv("STUB_CODE", "7")
    run = Running(tmp_path, capsys)
    async with run.started(1) as task:
        with pytest.raises(WorldError, match="ended 5 times in a row, last with 7"):
            await task
    assert RestartPolicy().tries == 5


async def test_a_refused_configuration_is_told_as_one(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STUB_CODE", "2")
    run = Running(tmp_path, capsys)
    async with run.started(2) as task:
        with pytest.raises(ConfigError, match="refuses its configuration"):
            await task
