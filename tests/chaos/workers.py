"""The workers: real processes of `streamproc run`, and how they are treated."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from streamproc.app.workers import warmed_file
from streamproc.testing.guarded_process import GuardedProcess
from tests.support.real_data import CHECKOUT

STOP_S = 60.0
_TAIL = 2_000


@dataclass(frozen=True)
class End:
    """A worker that ended without being told to."""

    worker: int
    code: int
    words: str


class Workers:
    """`count` workers on one configuration; whoever is down unwantedly is started again."""

    def __init__(self, config: Path, folder: Path, count: int) -> None:
        self._config = config
        self._folder = folder
        self._running: list[GuardedProcess | None] = [None] * count
        self._away: set[int] = set()
        self._from: dict[int, int] = {}
        self.starts = 0
        self.ends: list[End] = []

    @property
    def count(self) -> int:
        return len(self._running)

    def log(self, worker: int) -> Path:
        return self._folder / f"worker-{worker}.log"

    def start(self, worker: int) -> None:
        log = self.log(worker)
        self._from[worker] = log.stat().st_size if log.exists() else 0
        command = [sys.executable, "-m", "streamproc", "run", str(self._config)]
        self._running[worker] = GuardedProcess(
            command, self.log(worker), folder=CHECKOUT, env={**os.environ}
        )
        self._away.discard(worker)
        self.starts += 1

    def start_all(self) -> None:
        """Start every worker, with kernels that are compiled: in a new checkout that takes minutes."""
        warmed = warmed_file(os.environ)
        if not warmed.exists():
            command = [sys.executable, "-m", "streamproc", "warmup"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            warmed.touch()
        for worker in range(self.count):
            self.start(worker)

    def signal(self, worker: int, number: int) -> None:
        running = self._running[worker]
        assert running is not None
        running.process.send_signal(number)

    def is_up(self, worker: int) -> bool:
        """Tell whether it has said something since it was started."""
        said = self.log(worker).read_bytes()[self._from[worker] :]
        return b'"logger": "streamproc"' in said

    def kill(self, worker: int) -> None:
        """Send SIGKILL and wait; it stays away until it is started."""
        self._away.add(worker)
        running, self._running[worker] = self._running[worker], None
        assert running is not None
        running.kill()

    async def terminate(self, worker: int, *, twice: bool = False) -> int:
        """Send SIGTERM, wait, and return the exit code; it stays away until started.

        Whoever is still loading modules dies of the signal, which is as good as 0.
        """
        self._away.add(worker)
        was_up = self.is_up(worker)
        self.signal(worker, signal.SIGTERM)
        if twice:
            await asyncio.sleep(0.3)
            self.signal(worker, signal.SIGTERM)
        running, self._running[worker] = self._running[worker], None
        assert running is not None
        try:
            async with asyncio.timeout(STOP_S):
                while running.process.poll() is None:  # noqa: ASYNC110  (a process tells nobody)
                    await asyncio.sleep(0.05)
            code = int(running.process.returncode)
            return 0 if code == -signal.SIGTERM and not was_up else code
        finally:
            running.kill()

    def revive(self) -> None:
        """Note who has ended by itself, and start it again."""
        for worker, running in enumerate(self._running):
            if worker in self._away or running is None:
                continue
            code = running.process.poll()
            if code is not None:
                running.kill()
                self.ends.append(End(worker, code, self.last_words(worker)))
                self.start(worker)

    def last_words(self, worker: int) -> str:
        return self.log(worker).read_text(errors="replace")[-_TAIL:]

    def processes(self) -> dict[int, psutil.Process]:
        return {
            worker: psutil.Process(running.process.pid)
            for worker, running in enumerate(self._running)
            if running is not None
        }

    def close(self) -> None:
        """Kill whoever is left."""
        for worker, running in enumerate(self._running):
            if running is not None:
                self.kill(worker)

    def events(self) -> Counter[str]:
        """Count what the workers themselves logged, by event and kind or reason."""
        found: Counter[str] = Counter()
        for worker in range(self.count):
            if not self.log(worker).exists():
                continue
            for line in self.log(worker).read_text(errors="replace").splitlines():
                if line.startswith("{"):
                    told = json.loads(line)
                    if told.get("logger") != "streamproc":
                        continue
                    kind = told.get("kind") or told.get("reason") or ""
                    found[f"{told.get('event')} {kind}".strip()] += 1
        return found
