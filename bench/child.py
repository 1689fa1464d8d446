"""A child process, and what it cost: wall, CPU, memory."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Cost:
    """What the kernel counted for one process, from its start to its end."""

    wall_s: float
    user_s: float
    system_s: float
    rss_max_bytes: int

    @property
    def cpu_s(self) -> float:
        return self.user_s + self.system_s


def run_child(
    command: Sequence[str], env: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], Cost]:
    """Run a command that prints one JSON object; return it and the cost.

    Raises:
        RuntimeError: the command failed; the message ends with what it said.
    """
    (answer,) = run_together([command], env)
    return answer


def run_together(
    commands: Sequence[Sequence[str]], env: Mapping[str, str] | None = None
) -> list[tuple[dict[str, Any], Cost]]:
    """Run commands at once, each as `run_child` does; return when the last has ended."""
    with ExitStack() as stack:
        running = []
        for command in commands:
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            running.append((command, Child(command, out, err, env), out, err))
        costs = [child.wait() for _, child, _, _ in running]
        answers = []
        for (command, child, out, err), cost in zip(running, costs, strict=True):
            out.seek(0)
            err.seek(0)
            if child.returncode != 0:
                said = (out.read() + err.read()).decode(errors="replace")[-4000:]
                msg = f"{' '.join(command)} ended with {child.returncode}: {said}"
                raise RuntimeError(msg)
            answers.append((json.loads(out.read()), cost))
        return answers


def together(costs: Sequence[Cost]) -> Cost:
    """Return what processes that began at once have cost: the longest wall, sums else."""
    return Cost(
        wall_s=max(cost.wall_s for cost in costs),
        user_s=sum(cost.user_s for cost in costs),
        system_s=sum(cost.system_s for cost in costs),
        rss_max_bytes=sum(cost.rss_max_bytes for cost in costs),
    )


class Child:
    """A running command whose cost is known once it has ended."""

    def __init__(
        self,
        command: Sequence[str],
        out: Any,
        err: Any,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._began = time.perf_counter()
        self._process = subprocess.Popen(  # noqa: S603  (our own commands)
            command, stdout=out, stderr=err, env={**os.environ, **(env or {})}
        )
        self._peak = Peak(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def alive(self) -> bool:
        """Tell whether it is still running; its status is left for `wait`."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, options) is None

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self) -> Cost:
        """Wait for its end."""
        _, status, usage = os.wait4(self.pid, 0)
        wall_s = time.perf_counter() - self._began
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return Cost(wall_s, usage.ru_utime, usage.ru_stime, self._peak.end())


class Peak:
    """Looks at how large a process has been until it is gone."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._bytes = 0
        self._done = Event()
        self._thread = Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> int:
        """Return the most there was; the last tenth of a second may be missing."""
        self._done.set()
        self._thread.join()
        return self._bytes

    def _look(self) -> None:
        while not self._done.wait(POLL_S):
            self._bytes = max(self._bytes, peak_bytes(self._pid))


def peak_bytes(pid: int) -> int:
    """Return the largest the process has been since its exec; 0 where it is gone.

    `ru_maxrss` is of no use: it begins with the size of the process that forked it.
    """
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
