"""Processes of tests that end with us, however we go, and waiting for what they say.

A guard is a shell that reads a pipe of ours: when we are gone the pipe ends, and the guard
kills the process.
"""

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from streamproc.connectors.clock import SystemClock

_POLL_S: Final = 0.1


class GuardedProcess:
    """A process that writes into a log, in a session of its own, and its guard."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        folder: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start both; `log` is appended to."""
        with log.open("ab") as out:
            self.process = subprocess.Popen(  # noqa: S603 (the caller's command)
                command,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        kill = ["/bin/sh", "-c", 'read -r _; kill -KILL "$1"', "guard"]
        self._guard = subprocess.Popen(  # noqa: S603 (a fixed script)
            [*kill, str(self.process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def stop(self, limit_s: float) -> None:
        """Send SIGTERM, and SIGKILL if that takes too long."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(limit_s)
        self.kill()

    def kill(self) -> None:
        """Send SIGKILL to both and wait for them."""
        self.process.kill()
        self.process.wait()
        assert self._guard.stdin is not None
        self._guard.kill()
        self._guard.wait()
        self._guard.stdin.close()


class Server(ABC):
    """What is started, and stopped at the end of its context."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Start and return once it answers."""

    @abstractmethod
    def stop(self) -> None:
        """Stop in order. Safe twice."""


def answers(
    process: "subprocess.Popen[bytes]", asked: Callable[[], bool], limit_s: float
) -> bool:
    """Ask until the answer is yes; False once the process has ended or it took too long."""
    clock = SystemClock()
    deadline_us = clock.monotonic_us() + int(limit_s * 1e6)
    while clock.monotonic_us() < deadline_us and process.poll() is None:
        if asked():
            return True
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            continue
    return False
