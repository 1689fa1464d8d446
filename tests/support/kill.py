"""Killing the service again and again: a child process, a plan of deaths, and a tally.

A kill counts only where the child had consumed since its start. Two things prove it: the
partition's log has a record of its own that holds offsets, or the step it died at cannot be
reached without (the nth batch to decode, from the second on; files in staging). Every child
is `python -m streamproc run CONFIG --until-end --close`, as an operator starts it.
"""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from streamproc.analytics.logs import LogFolder, find_logs
from streamproc.core.record import decode_record, record_name
from streamproc.runtime.failpoint import VARIABLE
from tests.support.real_data import CHECKOUT

FAILPOINTS = {
    "decode": ("decode.before", "decode.after"),
    "staging": ("staging.before", "staging.after"),
    "record": ("record.before", "record.after"),
    "publish": ("publish.before", "publish.middle", "publish.after"),
    "acknowledge": ("ack.before", "ack.after"),
    "clean or snapshot": ("clean.before", "snapshot.after"),
}
SIGNALLED = "after the head advanced"
POLL_S = 0.02


@dataclass(frozen=True)
class Death:
    """How a child is to die: at a step's nth time, or by signal some time after a commit."""

    kind: str
    step: str = ""
    nth: int = 0
    pause_s: float = 0.0

    @property
    def failpoint(self) -> str:
        return f"{self.step}:{self.nth}" if self.step else ""


def planned(rng: random.Random, per_kind: int, signalled: int) -> list[Death]:
    """Return deaths in random order: `per_kind` of each kind of step, and by signal."""
    deaths = []
    for kind, steps in FAILPOINTS.items():
        first = rng.randrange(len(steps))
        for n in range(per_kind):
            step = steps[(first + n) % len(steps)]
            deaths.append(Death(kind, step, _nth(rng, step)))
    deaths += [
        Death(SIGNALLED, pause_s=rng.uniform(0.0, 1.5)) for _ in range(signalled)
    ]
    rng.shuffle(deaths)
    return deaths


def _nth(rng: random.Random, step: str) -> int:
    """Choose a time at which the child has consumed, and not an hour later.

    Ten batches a second are decoded, about one commit a second is made, and a snapshot
    every ten seconds. What taking over may reach too, or comes before anything is staged,
    has to be reached twice.
    """
    if step.startswith("decode"):
        return rng.randint(2, 20)
    if step == "snapshot.after":
        return 1
    twice = step.startswith(("publish", "clean")) or step == "staging.before"
    return rng.randint(1, 3) + twice


@dataclass(frozen=True)
class Head:
    """The log as a child left it or found it."""

    n: int
    next: int


@dataclass
class Tally:
    """What came of the kills; `str` is the table."""

    died: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    advanced: int = 0

    @property
    def total(self) -> int:
        return self.counted.total()

    def add(self, death: Death, before: Head, after: Head, staged: int) -> None:
        """Take note of one death, the log before and after it, and files left staged."""
        advanced = after.next > before.next
        by_construction = death.kind == "decode" and death.nth > 1
        self.died[death.kind] += 1
        if not (advanced or by_construction or staged):
            return
        self.counted[death.kind] += 1
        self.steps[death.step or "signal"] += 1
        self.advanced += advanced

    def __str__(self) -> str:
        rows = [f"{'kind':<26}{'killed':>8}{'counted':>9}"]
        rows += [
            f"{kind:<26}{n:>8}{self.counted[kind]:>9}"
            for kind, n in sorted(self.died.items())
        ]
        rows.append(f"{'all':<26}{self.died.total():>8}{self.total:>9}")
        rows.append(f"of which after the head had advanced: {self.advanced}")
        rows.append(", ".join(f"{step} {n}" for step, n in sorted(self.steps.items())))
        return "\n".join(rows)


class Victim:
    """The service on one configuration and one root, killed and started again."""

    def __init__(self, config: Path, root: Path, folder: Path) -> None:
        self._config = config
        self._root = root
        self._errors = folder / "stderr.log"
        self.starts = 0

    def die(self, death: Death, timeout_s: float) -> bool:
        """Start a child and let it die; False if it reached the end first.

        Raises:
            AssertionError: it failed by itself, or lived beyond `timeout_s`.
        """
        child = self._start(death.failpoint)
        try:
            if death.step:
                child.wait(timeout_s)
            else:
                self._wait_for_commit(child, timeout_s)
                with suppress(subprocess.TimeoutExpired):
                    child.wait(death.pause_s)
                child.kill()
                child.wait()
        finally:
            child.kill()
            child.wait()
        assert child.returncode in (0, -signal.SIGKILL), self.last_words()
        return child.returncode != 0

    def finish(self, timeout_s: float, **environment: str) -> None:
        """Let a child live to the end."""
        child = self._start("", **environment)
        try:
            child.wait(timeout_s)
        finally:
            child.kill()
            child.wait()
        assert child.returncode == 0, self.last_words()

    def head(self) -> Head:
        """Return the newest record's number and position."""
        log = self._log()
        if log is None:
            return Head(-1, 0)
        n = log.numbers()[-1]
        record = decode_record(log.at(f"log/{record_name(n)}").read_bytes(), str(n))
        return Head(n, record.next)

    def staged(self) -> int:
        """Count files in staging that hold something and are not committed."""
        log = self._log()
        if log is None:
            return 0
        head = self.head().n
        folder = self._root / log.folder / "staging"
        return sum(
            int(path.relative_to(folder).parts[0].split("-")[0]) > head
            for path in folder.rglob("*.parquet")
        )

    def last_words(self) -> str:
        return self._errors.read_text(errors="replace")[-3000:]

    def _log(self) -> LogFolder | None:
        logs = [log for log in find_logs(self._root) if any(log.at("log").iterdir())]
        assert len(logs) <= 1
        return logs[0] if logs else None

    def _wait_for_commit(
        self, child: "subprocess.Popen[bytes]", timeout_s: float
    ) -> None:
        before = self.head().next
        for _ in range(int(timeout_s / POLL_S)):
            if child.poll() is not None or self.head().next > before:
                return
            with suppress(subprocess.TimeoutExpired):
                child.wait(POLL_S)
        msg = f"nothing committed in {timeout_s} s: {self.last_words()}"
        raise AssertionError(msg)

    def _start(self, failpoint: str, **environment: str) -> "subprocess.Popen[bytes]":
        self.starts += 1
        every = {**os.environ, **environment, VARIABLE: failpoint}
        command = ["run", str(self._config), "--until-end", "--close"]
        with self._errors.open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "streamproc", *command],
                cwd=CHECKOUT,
                env=every,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )


def kill(
    victim: Victim,
    deaths: Sequence[Death],
    timeout_s: float,
    tell: Callable[[str], None],
) -> Tally:
    """Let children die one after the other; what does not count is tried again later.

    Returns early where the end of the topic is reached.
    """
    tally = Tally()
    waiting = list(deaths)
    tries = 0
    while waiting and tries < 2 * len(deaths):
        death = waiting.pop(0)
        tries += 1
        before = victim.head()
        if not victim.die(death, timeout_s):
            tell(f"the end was reached after {tries} deaths")
            break
        counted = tally.total
        after = victim.head()
        tally.add(death, before, after, victim.staged())
        if tally.total == counted:
            waiting.append(replace(death, nth=death.nth + 1))
        tell(
            f"{tries}: {death.kind} {death.failpoint} next {before.next} -> {after.next}"
        )
    return tally
