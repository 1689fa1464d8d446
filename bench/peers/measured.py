"""A child process with all its children: wall, CPU, memory, and when it got going."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import IO, Any

import psutil

from bench.child import peak_bytes

POLL_S = 0.2
SAID_MAX = 200


@dataclass(frozen=True, slots=True)
class Run:
    """What one run cost, from the start of the process to its end.

    CPU is user + system of the process and of every child it waited for. Start-up ends
    with the first line that holds the marker; None where none did.
    """

    wall_s: float
    cpu_s: float
    rss_max_bytes: int
    started_wall_s: float | None
    started_cpu_s: float | None
    document: dict[str, Any]


class RunFailedError(Exception):
    """The program failed, took too long or told nothing; the message says which."""


class _Watch:
    """Reads what a child says and looks at how large it is, in threads of its own."""

    def __init__(self, child: "subprocess.Popen[bytes]", marker: str) -> None:
        self._process = psutil.Process(child.pid)
        self._marker = marker
        self._began = time.perf_counter()
        self._done = Event()
        self.rss_max_bytes = 0
        self.started: tuple[float, float] | None = None
        self.document: dict[str, Any] = {}
        self.said: list[str] = []
        assert child.stdout is not None
        assert child.stderr is not None
        self._threads = [
            Thread(target=self._listen, args=(child.stdout,), daemon=True),
            Thread(target=self._overhear, args=(child.stderr,), daemon=True),
            Thread(target=self._look, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _listen(self, pipe: IO[bytes]) -> None:
        lines = list(self._read(pipe))
        for text in ("\n".join(lines), lines[-1] if lines else ""):
            with suppress(ValueError):
                self.document = self.document or json.loads(text)

    def _overhear(self, pipe: IO[bytes]) -> None:
        for _ in self._read(pipe):
            pass

    def _read(self, pipe: IO[bytes]) -> Iterator[str]:
        for raw in pipe:
            line = raw.decode(errors="replace").rstrip()
            if self._marker in line and self.started is None:
                self.started = time.perf_counter() - self._began, self._cpu_s()
            self.said.append(line)
            del self.said[:-SAID_MAX]
            yield line

    def _look(self) -> None:
        while not self._done.wait(POLL_S):
            sizes = self._of_tree(lambda one: one.memory_info().rss)
            peak = peak_bytes(self._process.pid)
            self.rss_max_bytes = max(self.rss_max_bytes, int(sum(sizes)), peak)

    def _cpu_s(self) -> float:
        return sum(self._of_tree(lambda one: sum(one.cpu_times()[:2])))

    def _of_tree(self, ask: Callable[[psutil.Process], float]) -> list[float]:
        """Return the answers of those that are still there."""
        found: list[float] = []
        with suppress(psutil.Error):
            tree = [self._process, *self._process.children(recursive=True)]
            for one in tree:
                with suppress(psutil.Error):
                    found.append(ask(one))
        return found


def run_measured(
    command: Sequence[str], env: Mapping[str, str], marker: str, limit_s: float
) -> Run:
    """Run a command to its end; what it says, or its last line, is a JSON object.

    What a failed one has said goes to standard error.

    Raises:
        RunFailedError: it failed, or was still running after `limit_s` and was killed.
    """
    child = subprocess.Popen(  # noqa: S603  (our own commands)
        command,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    began = time.perf_counter()
    watch = _Watch(child, marker)
    over = Event()
    killer = Thread(target=_kill_after, args=(child.pid, limit_s, over), daemon=True)
    killer.start()
    _, status, usage = os.wait4(child.pid, 0)
    wall_s = time.perf_counter() - began
    over.set()
    child.returncode = os.waitstatus_to_exitcode(status)
    watch.end()
    if wall_s >= limit_s:
        msg = f"not done after {limit_s:.0f} s"
        raise RunFailedError(msg)
    if child.returncode or not watch.document:
        last = watch.said[-1] if watch.said else "nothing said"
        for line in watch.said:
            sys.stderr.write(f"  {line}\n")
        msg = f"ended with {child.returncode}: {last}"
        raise RunFailedError(msg)
    started_wall_s, started_cpu_s = watch.started or (None, None)
    return Run(
        wall_s,
        usage.ru_utime + usage.ru_stime,
        watch.rss_max_bytes,
        started_wall_s,
        started_cpu_s,
        watch.document,
    )


def _kill_after(pid: int, limit_s: float, over: Event) -> None:
    """Kill the child's process group, which is its own, if it takes too long."""
    if not over.wait(limit_s):
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
