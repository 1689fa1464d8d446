"""One run after the other: the topics, streamproc and its peers, and who is right."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.peers.contract import UC2_SCHEMA
from bench.peers.installs import CannotInstallError, own_python
from bench.peers.measured import Run, RunFailedError, run_measured
from bench.peers.own import MARKER as OWN_MARKER
from bench.peers.own import Profile, config, found
from bench.peers.pins import versions
from bench.peers.reference import Expected, expected, verdict
from bench.peers.report import Line, Measured
from bench.peers.systems import ENV, MARKER, PEERS, Peer
from bench.peers.topics import fill
from bench.peers.workload import Job, Workload, columns
from streamproc import __version__
from streamproc.testing.kafka_broker import ApacheKafka
from streamproc.testing.registry import LocalRegistry

OWN = "streamproc"
OWN_SETUP = "as operators run it: one process, Parquet per city, commit log, alerts"
OWN_FULL = "streamproc_full"
OWN_FULL_SETUP = "the same with windows of 15 minutes and an hour besides, and quantiles in all three"
OWNS: dict[str, Profile] = {OWN: "core", OWN_FULL: "full"}
NAMES = (*OWNS, *(peer.name for peer in PEERS))


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure."""

    jobs: Sequence[Job]
    names: Sequence[str]
    records: int
    series: int
    uc2_records: int
    sensors: int
    repeat: int
    limit_s: float

    def workload(self, job: Job, records_max: int | None) -> Workload:
        """Return the job's workload, or a prefix of it for a system that is slow.

        UC2's sensors shrink with it: each still reports once a second for as long.
        """
        total = self.records if job == "city" else self.uc2_records
        records = min(total, records_max or total)
        if job == "city":
            return Workload(job, records, self.series)
        return Workload(job, records, max(1, self.sensors * records // total))


class Suite:
    """The broker with its topics, filled as they are needed."""

    def __init__(self, order: Order, folder: Path) -> None:
        self._order = order
        self._folder = folder
        self._right: dict[Workload, Expected] = {}
        self._broker = ApacheKafka(folder / "kafka")
        self._registry = LocalRegistry()

    @contextmanager
    def started(self) -> Iterator[None]:
        with self._broker, self._registry:
            yield

    def lines(self) -> dict[Job, list[Line]]:
        """Run everything and return a line a system, for each job."""
        lines: dict[Job, list[Line]] = {}
        for job in self._order.jobs:
            names = [n for n in self._order.names if job == "city" or n != OWN_FULL]
            lines[job] = [self._line(job, name) for name in names]
            for lap in range(self._order.repeat):
                for line in lines[job]:
                    self._measure(line, lap)
        return lines

    def _line(self, job: Job, name: str) -> Line:
        if name in OWNS:
            work = self._order.workload(job, None)
            place = ("localhost:9092", "http://localhost", Path("data"))
            count = len(config(work, *place, OWNS[name]).splitlines())
            title = OWN if name == OWN else f"{OWN}, full"
            setup = OWN_SETUP if name == OWN else OWN_FULL_SETUP
            line = Line(name, title, setup, __version__, count, work)
            line.reason = self._make_ready(_warm_up)
            return line
        peer = _peer(name)
        work = self._order.workload(job, peer.records_max)
        line = Line(name, peer.title, peer.setup, versions(name), peer.lines(job), work)
        _tell(f"the environment of {name}")
        servers = self._broker.bootstrap_servers
        line.reason = self._make_ready(lambda: peer.command(work, servers))
        return line

    @staticmethod
    def _make_ready(install: Callable[[], object]) -> str:
        """Return why a system is not to be had here; nothing where it is."""
        try:
            install()
        except CannotInstallError as error:
            return f"cannot be installed: {error}"
        return ""

    def _measure(self, line: Line, lap: int) -> None:
        """Run a system once, unless it has failed already."""
        if line.reason:
            return
        right = self._filled(line.work)
        _tell(f"{line.work.job}, run {lap + 1}: {line.name}")
        try:
            if line.name in OWNS:
                run, wrong = self._run_own(line.work, right, OWNS[line.name])
            else:
                run, wrong = self._run_peer(_peer(line.name), line.work, right)
        except RunFailedError as error:
            line.reason = str(error)
            _tell(str(error))
            return
        line.runs.append(
            Measured(
                *(run.wall_s, run.cpu_s, run.rss_max_bytes),
                *(run.started_wall_s, run.started_cpu_s),
            )
        )
        line.verdicts.append(wrong)
        rate = line.work.records / run.cpu_s
        _tell(f"  {rate:,.0f} a CPU-second, {run.wall_s:.1f} s; {wrong or 'correct'}")

    def _filled(self, work: Workload) -> Expected:
        if work not in self._right:
            _tell(f"filling {work.topic} with {work.records:,} records")
            data = columns(work)
            self._right[work] = expected(work.job, data)
            schema_id = self._registry.register(
                f"{work.topic}-value", "avro", UC2_SCHEMA
            )
            fill(self._broker.connection, work, data, schema_id)
        return self._right[work]

    def _run_peer(self, peer: Peer, work: Workload, right: Expected) -> tuple[Run, str]:
        command = peer.command(work, self._broker.bootstrap_servers)
        env = {**ENV, **(peer.env or {})}
        run = run_measured(command, env, MARKER, self._order.limit_s)
        if "minutes" not in run.document:
            msg = f"told no totals but {run.document}"
            raise RunFailedError(msg)
        told = {int(start): row for start, row in run.document["minutes"].items()}
        wrong = verdict(work.job, right, told)
        late = run.document["late"]
        if not wrong and late not in {None, right.late}:
            wrong = f"{late:,} late for {right.late:,}"
        return run, wrong

    def _run_own(
        self, work: Workload, right: Expected, profile: Profile
    ) -> tuple[Run, str]:
        root = self._folder / "data"
        path = self._folder / "streamproc.toml"
        servers, registry = self._broker.bootstrap_servers, self._registry.url
        path.write_text(config(work, servers, registry, root, profile))
        command = [*_streamproc(), "run", str(path), "--until-end"]
        try:
            run = run_measured(
                [*command, "--close", "--json"], ENV, OWN_MARKER, self._order.limit_s
            )
            wrong = _own_verdict(work, right, root, run.document)
        finally:
            shutil.rmtree(root, ignore_errors=True)
        return run, wrong


def _own_verdict(
    work: Workload, right: Expected, root: Path, summary: dict[str, Any]
) -> str:
    published = found(work.job, root)
    wrong = verdict(work.job, right, published.rows)
    if summary["readings"] != work.sent:
        wrong = wrong or f"{summary['readings']:,} readings for {work.sent:,}"
    for window, count in published.counted.items():
        if count != work.sent:
            wrong = wrong or f"{count:,} readings in {window} for {work.sent:,}"
    if published.late != right.late:
        wrong = wrong or f"{published.late:,} late for {right.late:,}"
    if work.job == "city" and published.alerts != right.crossings:
        wrong = wrong or f"{published.alerts:,} alerts for {right.crossings:,}"
    return wrong


def _streamproc() -> list[str]:
    return [str(own_python()), "-m", "streamproc"]


@cache
def _warm_up() -> None:
    """Make streamproc's environment, and compile its kernels."""
    _tell("the environment of streamproc, and its kernels")
    subprocess.run(  # noqa: S603  (ourselves)
        [*_streamproc(), "warmup"],
        check=True,
        capture_output=True,
        env={**os.environ, **ENV},
    )


def _peer(name: str) -> Peer:
    return next(peer for peer in PEERS if peer.name == name)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
