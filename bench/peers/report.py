"""The table, as text and markdown, from what the runs gave."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.peers.workload import Job, Workload


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one system on one job."""

    wall_s: float
    cpu_s: float
    rss_max_bytes: int
    started_wall_s: float | None
    started_cpu_s: float | None


@dataclass(slots=True)
class Line:
    """One system on one job: all its runs, or why there are none."""

    name: str
    title: str
    setup: str
    versions: str
    lines: int
    work: Workload
    runs: list[Measured] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def per_cpu_s(self) -> float:
        """Records per CPU-second, start and end of the process included: the median."""
        return statistics.median(self.per_cpu_s_of_runs)

    @property
    def per_cpu_s_of_runs(self) -> list[float]:
        return [self.work.records / run.cpu_s for run in self.runs]

    @property
    def per_cpu_s_running(self) -> float | None:
        """The same without what was spent before the first record."""
        rates = [
            self.work.records / (run.cpu_s - run.started_cpu_s)
            for run in self.runs
            if run.started_cpu_s is not None
        ]
        return statistics.median(rates) if rates else None

    @property
    def verdict(self) -> str:
        """Say `yes`, or what was wrong and how often."""
        wrong = [verdict for verdict in self.verdicts if verdict]
        if not wrong:
            return f"yes, but then: {self.reason}" if self.reason else "yes"
        often = (
            f" ({len(wrong)} of {len(self.runs)} runs)" if len(self.runs) > 1 else ""
        )
        return f"no: {wrong[0]}{often}"


TARGETS: dict[tuple[Job, str, str], float] = {
    ("city", "streamproc", "confluent_polars"): 7.0,
    ("city", "streamproc_full", "confluent_polars"): 4.0,
    ("city", "streamproc", "flink"): 14.0,
}
"""Least ratios of records per CPU-second, from HOT_PATH.md."""

HEAD = (
    *("system", "records", "records per CPU-s", "min to max", "to by hand", "to Flink"),
    *("once started", "wall s", "start-up s (CPU s)", "peak MB", "lines", "correct"),
)


def cells(line: Line, baselines: Sequence[float | None]) -> list[str]:
    """Return one row; `baselines` are what the ratios are to."""
    if not line.runs:
        return [line.title, *["-"] * (len(HEAD) - 2), line.reason]
    rates = line.per_cpu_s_of_runs
    running = line.per_cpu_s_running
    wall = statistics.median(run.wall_s for run in line.runs)
    started = [
        (run.started_wall_s, run.started_cpu_s)
        for run in line.runs
        if run.started_wall_s is not None and run.started_cpu_s is not None
    ]
    start_up = "-"
    if started:
        seconds, cpu_s = (
            statistics.median(column) for column in zip(*started, strict=True)
        )
        start_up = f"{seconds:.1f} ({cpu_s:.1f})"
    return [
        line.title,
        f"{line.work.records:,}",
        f"{line.per_cpu_s:,.0f}",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        *(f"{line.per_cpu_s / rate:.3g}" if rate else "-" for rate in baselines),
        f"{running:,.0f}" if running else "-",
        f"{wall:.1f}",
        start_up,
        f"{statistics.median(run.rss_max_bytes for run in line.runs) / 1e6:,.0f}",
        str(line.lines),
        line.verdict,
    ]


def table(lines: Sequence[Line], baselines: tuple[str, str]) -> str:
    """Return the rows of one job as a markdown table, the fastest first."""
    rates = {line.name: line.per_cpu_s for line in lines if line.runs}
    ordered = sorted(lines, key=lambda line: -rates.get(line.name, 0.0))
    to = [rates.get(name) for name in baselines]
    rows = [list(HEAD), *(cells(line, to) for line in ordered)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = {0, len(HEAD) - 1}
    shown = [_row(row, widths, left) for row in rows]
    rule = [
        "-" * width if place in left else "-" * (width - 1) + ":"
        for place, width in enumerate(widths)
    ]
    return "\n".join([shown[0], _row(rule, widths, left), *shown[1:]])


def _row(row: Sequence[str], widths: Sequence[int], left: set[int]) -> str:
    padded = [
        cell.ljust(width) if place in left else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"


def against(job: Job, lines: Sequence[Line]) -> list[str]:
    """Return a paragraph that compares ratios with the targets, where both have run."""
    rates = {line.name: line.per_cpu_s for line in lines if line.runs}
    titles = {line.name: line.title for line in lines}
    told = [
        f"{titles[own]} to {titles[peer]}: {rates[own] / rates[peer]:.2f}, at least {least:g} wanted"
        for (of, own, peer), least in TARGETS.items()
        if of == job and own in rates and peer in rates
    ]
    return ["; ".join(told) + "."] if told else []


def markdown(
    jobs: Sequence[tuple[Job, Sequence[Line]]],
    baselines: tuple[str, str],
    facts: Mapping[str, object],
) -> str:
    """Return the whole report."""
    machine = ", ".join(f"{key} {value}" for key, value in facts.items())
    parts = ["# streamproc and its peers", machine]
    for job, lines in jobs:
        if not lines:
            continue
        most = max(lines, key=lambda line: line.work.records).work
        parts += [
            f"## {job}: {most.records:,} records, {most.series:,} series",
            table(lines, baselines),
        ]
        parts += against(job, lines)
    setups = {line.title: line for _, lines in jobs for line in lines}
    parts.append(
        "\n".join(
            f"- {title}: {line.setup} ({line.versions})"
            for title, line in setups.items()
        )
    )
    return "\n\n".join(parts) + "\n"
