"""The service while it follows its topics: a child whose metrics are looked at."""

import os
import socket
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.child import Child, Cost

READY_S = 120.0
_POLL_S = 0.1


class LiveService:
    """`streamproc run CONFIG` with its metrics on `port`; stopped by SIGTERM.

    `core` is the only processor it may use, None for any.
    """

    def __init__(self, config: Path, port: int, core: int | None = None) -> None:
        self._config = config
        self._url = f"http://127.0.0.1:{port}/metrics"
        self._core = core
        self._log = config.with_suffix(".log")
        self._child: Child | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "streamproc", "run", str(self._config)]
        with self._log.open("wb") as log:
            self._child = Child(command, log, log)
        if self._core is not None:
            pin(self._child.pid, {self._core})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._child is not None:
            self.stop()

    def stop(self) -> Cost:
        """Let it drain; return what it cost. Raises `RuntimeError` where it had failed."""
        child, self._child = self._child, None
        assert child is not None
        if child.alive():
            child.terminate()
        cost = child.wait()
        if child.returncode:
            said = self._log.read_text(errors="replace")[-4000:]
            msg = f"the service ended with {child.returncode}: {said}"
            raise RuntimeError(msg)
        return cost

    def wait_until_it_owns(self, partitions: int) -> None:
        """Raises `RuntimeError` where that takes too long."""
        until = time.perf_counter() + READY_S
        while self._partitions() < partitions:
            assert self._child is not None
            if not self._child.alive() or time.perf_counter() > until:
                said = self._log.read_text(errors="replace")[-4000:]
                msg = f"the service does not get its partitions: {said}"
                raise RuntimeError(msg)
            time.sleep(_POLL_S)

    def _partitions(self) -> float:
        try:
            return self.metrics().get("streamproc_owned_partitions", 0)
        except OSError:
            return 0

    def metrics(self) -> Mapping[str, float]:
        """Return the metrics' page, each metric summed over its labels."""
        with urllib.request.urlopen(self._url, timeout=30) as answer:  # noqa: S310 (ours)
            return summed(answer.read().decode())


def summed(page: str) -> Mapping[str, float]:
    """Return metrics of a page in Prometheus' text format, summed over their labels."""
    found: Counter[str] = Counter()
    for line in page.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name.partition("{")[0]] += float(value)  # type: ignore[assignment]
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def pin(pid: int, cores: set[int]) -> None:
    """Leave all threads that a process has, and will start, only these processors."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)
