"""How long nothing moves at a rebalance: from the first revocation to the last partition's record.

    python -m bench.rebalance --partitions 64 --series 1000000 --mode join --repeat 3

A real broker, one topic of so many partitions in which every series has reported once, and members
as children (`bench.member`). `join`: a second member joins one that has everything;
half stays where it is (hot), half is restored from the store. `leave`: it is stopped by SIGTERM. `kill`: it is killed, and the
session timeout comes on top, which is shown beside. While it happens, every partition gets some
records a second (`bench.trickle`), so that each has a record to show. Everything is measured with
one clock of the machine.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Self

from bench import configs
from bench.configs import Job
from bench.machine import facts
from bench.preload import Load, preload
from bench.workloads import START_US
from streamproc.testing.kafka_broker import ApacheKafka

TOPIC = "rebalance.razlog"
MODES = ("join", "leave", "kill")
WAIT_S = 300.0
SESSION_S = 6
WANTED_S = {"kept": 2.0, "restored": 10.0}


@dataclass(frozen=True, slots=True)
class Result:
    """One rebalance, in seconds from the first revocation.

    Attributes:
        revoked_s: until all that was held was committed and given back.
        hot_s: until the last partition that stayed where it was had a record.
        moved_s: until the last one that moved had.
        told_s: from the cause to the first revocation: heartbeats, or the session.
        slowest_open_s: the longest opening of one partition.
    """

    mode: str
    revoked_s: float
    hot_s: float | None
    moved_s: float | None
    told_s: float
    slowest_open_s: float


class Member:
    """A child whose lines are kept as they come."""

    changed = Condition()

    def __init__(self, config: Path, name: str) -> None:
        self.name = name
        self.said: list[list[Any]] = []
        self._log = config.with_suffix(f".{name}.log").open("wb")
        self.child = subprocess.Popen(  # noqa: S603  (ours)
            [sys.executable, "-m", "bench.member", str(config)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            with self.changed:
                self.said.append(json.loads(line))
                self.changed.notify_all()
        with self.changed:
            self.said.append(["ended", time.monotonic_ns()])
            self.changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        self._reader.join()
        if self.child.stdout is not None:
            self.child.stdout.close()
        self._log.close()

    def since(self, moment_ns: int, word: str) -> list[list[Any]]:
        """Return what was said of one kind since a moment."""
        return [said for said in self.said if said[0] == word and said[-1] >= moment_ns]

    def has(self) -> set[str]:
        """Return what it has opened since it last gave everything back."""
        revoked = [said[-1] for said in self.said if said[0] == "revoked"]
        return {said[1] for said in self.since(max(revoked, default=0), "opened")}


def wait_until(happened: Callable[[], object], what: str) -> None:
    """Wait for something that members say. Raises `RuntimeError` where it takes too long."""
    until = time.perf_counter() + WAIT_S
    with Member.changed:
        while not happened():
            if not Member.changed.wait(max(0.0, until - time.perf_counter())):
                msg = f"did not happen within {WAIT_S} s: {what}"
                raise RuntimeError(msg)


class Bench:
    """A broker with a filled topic, and rebalances of a group on it."""

    def __init__(self, broker: ApacheKafka, folder: Path, given: argparse.Namespace):
        self._broker = broker
        self._folder = folder
        self._given = given
        self.partitions = given.partitions

    def config(self, name: str) -> Path:
        made = Job(
            name=name,
            servers=self._broker.bootstrap_servers,
            topics=TOPIC.replace("razlog", "{city}"),
            format="json",
            root=self._folder / f"data-{name}",
            options={
                "metrics.enabled": "false",
                "source.heartbeat": '"500ms"',
                "source.session_timeout": f'"{SESSION_S}s"',
                "processing.idle_after": '"1h"',
                "processing.future_max": '"366d"',
                "output.flush_age": f'"{self._given.flush_age}"',
            },
        )
        path = self._folder / f"{name}.toml"
        lines = made.lines() + configs.windows(configs.windows_of("core"))
        lines = ['log.level = "warning"' if "log.level" in x else x for x in lines]
        path.write_text(configs.text(lines))
        return path

    def measure(self, mode: str, lap: int) -> list[Result]:
        """Let one member own everything, then a second one come, and go as `mode` says."""
        config = self.config(f"rebalance-{mode}-{lap}")
        results = []
        with Member(config, "one") as one:
            self._until_all(one, 0)
            self._until_caught_up(one)
            with self._trickle():
                began = time.monotonic_ns()
                with Member(config, "two") as two:
                    joined = self._after([one, two], began, "join")
                    if mode == "join":
                        results.append(joined)
                    else:
                        self._until_caught_up(two)
                        began = time.monotonic_ns()
                        number = {"leave": signal.SIGTERM, "kill": signal.SIGKILL}[mode]
                        two.child.send_signal(number)
                        results.append(self._after([one], began, mode))
            one.child.send_signal(signal.SIGTERM)
            wait_until(lambda: one.said[-1][0] == "ended", "the first one's drain")
        return results

    def _trickle(self) -> "subprocess.Popen[bytes]":
        given = {
            "servers": self._broker.bootstrap_servers,
            "topics": [TOPIC],
            "partitions": self.partitions,
            "devices": self.partitions,
            "rate": self.partitions * 10,
            "event_us": START_US + 30_000_000,
            "seconds": 3600,
        }
        return _Killed(
            [sys.executable, "-m", "bench.trickle", json.dumps(given)],
            stdout=subprocess.DEVNULL,
        )

    def _until_all(self, member: Member, since_ns: int) -> None:
        wait_until(
            lambda: (
                len({s[1] for s in member.since(since_ns, "record")}) == self.partitions
            ),
            "every partition has a record",
        )

    def _until_caught_up(self, member: Member) -> None:
        """Every series is in the state: nothing was folded for a moment."""
        time.sleep(self._given.settle)
        assert member.child.poll() is None, member.said[-3:]

    def _after(self, members: Sequence[Member], began_ns: int, mode: str) -> Result:
        """Wait until every partition has had a record since the last assignment of `members`."""
        had = {member.name: member.has() for member in members}

        def first_revocation() -> int | None:
            found = [s for m in members for s in m.since(began_ns, "revoking")]
            return min((s[-1] for s in found), default=None)

        wait_until(lambda: first_revocation() is not None, "a revocation")
        revoking_ns = first_revocation()
        assert revoking_ns is not None

        def recorded() -> dict[str, tuple[str, int]]:
            """Source to who has a record of it since its last opening, and when."""
            found: dict[str, tuple[str, int]] = {}
            for member in members:
                for said in member.since(revoking_ns, "record"):
                    if said[1] not in found or said[-1] > found[said[1]][1]:
                        found[said[1]] = (member.name, said[-1])
            return found

        def over() -> bool:
            shares = [
                len({s[1] for s in m.since(revoking_ns, "record")}) for m in members
            ]
            return len(recorded()) == self.partitions and all(shares)

        wait_until(over, "every partition has a record again")
        time.sleep(1.0)
        seconds = {
            source: (who, (ns - revoking_ns) / 1e9)
            for source, (who, ns) in recorded().items()
        }
        stayed = [s for source, (who, s) in seconds.items() if source in had[who]]
        moved = [s for source, (who, s) in seconds.items() if source not in had[who]]
        revoked = [s for m in members for s in m.since(revoking_ns, "revoked")]
        opened = [s for m in members for s in m.since(revoking_ns, "opened")]
        return Result(
            mode=mode,
            revoked_s=(revoked[0][-1] - revoking_ns) / 1e9,
            hot_s=max(stayed, default=None),
            moved_s=max(moved, default=None),
            told_s=(revoking_ns - began_ns) / 1e9,
            slowest_open_s=max(said[2] for said in opened),
        )


class _Killed(subprocess.Popen):  # type: ignore[type-arg]
    """A child that is killed at the end of its block."""

    def __exit__(self, *args: object) -> None:
        self.kill()
        self.wait()


def table(results: Sequence[Result]) -> str:
    names = ("mode", "told s", "revoked s", "hot s", "moved s", "slowest open s")
    lines = ["".join(f"{name:>15}" for name in names)]
    for r in results:
        values = (r.told_s, r.revoked_s, r.hot_s, r.moved_s, r.slowest_open_s)
        cells = [r.mode, *("-" if v is None else f"{v:.2f}" for v in values)]
        lines.append("".join(f"{cell:>15}" for cell in cells))
    for name, wanted in (
        ("hot_s", WANTED_S["kept"]),
        ("moved_s", WANTED_S["restored"]),
    ):
        found = [getattr(r, name) for r in results if getattr(r, name) is not None]
        if found:
            middle = statistics.median(found)
            lines.append(
                f"{name}: median {middle:.2f}, worst {max(found):.2f} (wanted < {wanted:g})"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partitions", type=int, default=64)
    parser.add_argument("--series", type=int, default=1_000_000)
    parser.add_argument("--mode", choices=(*MODES, "all"), default="all")
    parser.add_argument(
        "--flush-age",
        default="5s",
        help="[output] flush_age; each has committed once then",
    )
    parser.add_argument(
        "--settle", type=float, default=10.0, help="seconds before each"
    )
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(".benchmarks"))
    given = parser.parse_args(arguments)
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as name:
        folder = Path(name)
        with ApacheKafka(folder / "kafka") as broker:
            load = Load(TOPIC, given.partitions, given.series, given.series)
            preload(broker.connection, load)
            bench = Bench(broker, folder, given)
            for lap in range(given.repeat):
                for mode in MODES if given.mode == "all" else (given.mode,):
                    results += bench.measure(mode, lap)
    print(table(results))
    given.output.mkdir(exist_ok=True)
    path = given.output / "rebalance.json"
    document = {
        "order": {k: v for k, v in vars(given).items() if k != "output"},
        "machine": facts(),
        "runs": [asdict(result) for result in results],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
