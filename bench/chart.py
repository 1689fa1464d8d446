"""Charts of what the benches have written, as SVG for the documentation.

    python -m bench.chart --results .benchmarks --folder docs/charts

Takes what is there: `peers.json` (a chart a job), `endtoend-*.json` with `--stages` (where
the CPU time of each goes), `latency-*.json` (percentiles by rate). Charts carry date, commit
and processor; tables beside them have the rest.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.budget import END, LOOP, OTHER, START
from bench.svg import bars, marks, stacked

STAGES_REST = "the rest"
_SHORT = {LOOP: "event loop, receiving", OTHER: "other threads"}
_ONCE = {START, END}
"""Paid once, however many readings there are: not drawn."""


def peers(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (name, chart) of each job of `peers.json`."""
    for job, lines in document["jobs"].items():
        values = [
            (line["title"], statistics.median(rates))
            for line in lines
            if (rates := _rates(line))
        ]
        title = f"{job}: records per CPU-second, start-up included ({_of(document)})"
        if values:
            own = {name for name, _ in values if name.startswith("streamproc")}
            yield f"peers-{job}", bars(title, values, own)


def _rates(line: Mapping[str, Any]) -> list[float]:
    return [line["work"]["records"] / run["cpu_s"] for run in line["runs"]]


def stages(documents: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield one chart of all runs whose stages were measured."""
    rows: dict[str, dict[str, float]] = {}
    for document in documents:
        if found := document["stages_ns_per_reading"]:
            order = document["order"]
            name = f"{order['profile']}, {order['format']}, {order['interval']:g} s"
            if order["devices"] != 10_000:
                name += f", {order['devices']:,}"
            rows[name] = {
                _SHORT.get(part, part): ns
                for part, ns in found.items()
                if part not in _ONCE
            }
    if rows:
        title = f"CPU, ns a reading, without start and end ({_of(documents[0])})"
        yield "stages", stacked(title, rows, STAGES_REST)


def latency(profile: str, document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the percentiles of each rate; what never came is said in the name."""
    rows = {}
    for run in document["runs"]:
        found = {mark: ms for mark, ms in run["latency_ms"].items() if ms is not None}
        missing = f" ({run['missing']} missing)" if run["missing"] else ""
        if found:
            rows[f"{run['rate']:,.0f}/s{missing}"] = found
    title = f"{profile}: reading in Kafka to alert in Kafka, ms ({_of(document)})"
    if rows:
        yield f"latency-{profile}", marks(title, rows)


def _of(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    return f"{machine['date']}, {machine['commit']}, {machine['cores']} cores"


def charts(results: Path) -> dict[str, str]:
    """Return every chart that can be drawn from a folder of results, by name."""

    def read(pattern: str) -> dict[str, Any]:
        paths = sorted(results.glob(pattern))
        return {path.stem: json.loads(path.read_text()) for path in paths}

    made: dict[str, str] = {}
    for document in read("peers.json").values():
        made.update(peers(document))
    if runs := read("endtoend-*.json"):
        made.update(stages(list(runs.values())))
    for name, document in read("latency-*.json").items():
        made.update(latency(name.removeprefix("latency-"), document))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path(".benchmarks"))
    parser.add_argument("--folder", type=Path, default=Path("docs/charts"))
    given = parser.parse_args(arguments)
    made = charts(given.results)
    given.folder.mkdir(parents=True, exist_ok=True)
    for name, chart in made.items():
        path = given.folder / f"{name}.svg"
        path.write_text(chart)
        print(f"written: {path}")
    if not made:
        print(f"nothing to draw in {given.results}")
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main())
