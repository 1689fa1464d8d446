"""What is right: the totals by plain SQL over the generated columns, and the comparison.

Knows nothing of streamproc. A record is late when its partition has seen, before it, an
event time at or past the end of its window plus the lateness; late ones are not counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from bench.peers.contract import LATENESS_MS, THRESHOLD, WINDOW_MS
from bench.peers.workload import Columns, Job

MARGIN_MIN = 1e-6
RELATIVE = 1e-9
"""Sums of floating-point numbers depend on their order; counts do not."""

MEASURES: Mapping[Job, Sequence[str]] = {
    "city": ("windows", "readings", "minima", "maxima", "means", "alerts"),
    "uc2": (
        *("windows", "readings", "sums", "minima", "maxima", "means"),
        "variances",
    ),
}
"""The columns of a row of totals: the number of windows, then sums over the windows."""

Rows = dict[int, list[float]]

_WINDOWS = f"""
WITH known AS (
  SELECT *, time_ms - time_ms % {WINDOW_MS} AS start_ms,
         max(time_ms) OVER (PARTITION BY partition ORDER BY position
           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS seen_ms
  FROM records
),
judged AS (
  SELECT *, coalesce(seen_ms >= start_ms + {WINDOW_MS + LATENESS_MS}, false) AS late
  FROM known
),
windows AS (
  SELECT start_ms, series, count(*) AS readings, sum(value) AS total, min(value) AS low,
         max(value) AS high, avg(value) AS mean, var_pop(value) AS variance
  FROM judged WHERE NOT late OR $count_late GROUP BY start_ms, series
)
"""  # noqa: S608  (our own numbers)

_ROWS: Mapping[Job, str] = {
    "city": f"""
SELECT start_ms, count(*), sum(readings), sum(low), sum(high), sum(mean),
       count(*) FILTER (mean > {THRESHOLD})
FROM windows GROUP BY start_ms ORDER BY start_ms""",  # noqa: S608
    "uc2": """
SELECT start_ms, count(*), sum(readings), sum(total), sum(low), sum(high), sum(mean),
       sum(variance)
FROM windows GROUP BY start_ms ORDER BY start_ms""",
}

_CROSSINGS = f"""
SELECT count(*) FILTER (above AND NOT coalesce(before, false)), min(margin) FROM (
  SELECT above, margin, lag(above) OVER (PARTITION BY series ORDER BY start_ms) AS before
  FROM (SELECT *, mean > {THRESHOLD} AS above, abs(mean - {THRESHOLD}) AS margin
        FROM windows))"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Expected:
    """The exact totals. `crossings`: how often a series went above the threshold."""

    rows: Rows
    rows_with_late: Rows
    late: int
    crossings: int


def expected(job: Job, found: Columns) -> Expected:
    """Return the totals of these records, in this order."""
    table = pa.table(
        {
            "position": range(len(found.series)),
            "partition": found.partition,
            "series": found.series,
            "time_ms": found.time_ms,
            "value": found.value,
        }
    )
    with duckdb.connect() as database:
        database.register("records", table)

        def ask(query: str, *, count_late: bool = False) -> list[tuple[Any, ...]]:
            given = {"count_late": count_late}
            return database.execute(_WINDOWS + query, given).fetchall()

        rows = ask(_ROWS[job])
        with_late = ask(_ROWS[job], count_late=True)
        ((late,),) = ask(
            "SELECT count(*) FROM judged WHERE late AND $count_late", count_late=True
        )
        ((crossings, margin),) = ask(_CROSSINGS)
    assert job == "uc2" or margin > MARGIN_MIN, "a mean lies on the threshold"
    return Expected(_by_start(rows), _by_start(with_late), late, crossings)


def _by_start(rows: Sequence[tuple[Any, ...]]) -> Rows:
    return {start: [float(cell) for cell in row] for start, *row in rows}


def verdict(job: Job, right: Expected, told: Mapping[int, Sequence[float]]) -> str:
    """Return nothing where the totals are right, else what is wrong with them."""
    wrong = differences(job, right.rows, told)
    if wrong and not differences(job, right.rows_with_late, told):
        return f"counts the {right.late:,} late readings too, else right"
    return wrong


def differences(job: Job, right: Rows, told: Mapping[int, Sequence[float]]) -> str:
    """Say how what a system told differs from what is right; nothing where it does not.

    Minutes after the last of the reference hold only the records that close windows.
    """
    last = max(right)
    told = {start: row for start, row in told.items() if start <= last}
    parts = []
    for place, name in enumerate(MEASURES[job]):
        wrong = [
            start
            for start in right.keys() | told.keys()
            if not _same(_at(right, start, place), _at(told, start, place))
        ]
        if wrong:
            ours = sum(_at(told, start, place) for start in told)
            exact = sum(_at(right, start, place) for start in right)
            parts.append(
                f"{name} {ours:,.10g} for {exact:,.10g} ({len(wrong)} of "
                f"{len(right)} minutes)"
            )
    return "; ".join(parts)


def _at(rows: Mapping[int, Sequence[float]], start: int, place: int) -> float:
    row = rows.get(start)
    return row[place] if row is not None and place < len(row) else 0.0


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= RELATIVE * max(abs(one), abs(other))
