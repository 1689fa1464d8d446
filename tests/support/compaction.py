"""Roots to compact: days of commits by the real log, and what a reader sees of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # noqa: TID251  (a test reads what was published)

from streamproc.analytics.live import Wanted, live_files
from streamproc.connectors.compacted_files import FileMerger, Limits
from streamproc.connectors.local_store import LocalStore
from streamproc.core.compaction import POINTS, Compacting
from streamproc.core.ports import Failpoint, Store, no_failpoint
from streamproc.core.swaps import Unit
from streamproc.core.values import Emission
from streamproc.runtime.compactor import DATASETS, Compactor, Outcome
from tests.support.tables import (
    START_US,
    Town,
    alert,
    date_of,
    emission,
    late_row,
    part,
    reading,
    refused,
    town,
)

DAY = date_of("razlog", START_US)
READINGS = Unit("readings", "", "razlog", DAY)

Row = tuple[Any, ...]


def mixed(first: int, rows: int = 3) -> Emission:
    """Return an emission with rows of every dataset; `first` is its first offset."""
    last = first + rows - 1
    return emission(
        [
            reading(n, device=f"d{(7 - n) % 4}", value=-0.0 if n % 3 else 1.5 * n)
            for n in range(first, last)
        ],
        [part([float(first)], START_US, device=f"d{first % 3}", part=first)],
        late=[late_row(first)],
        quarantine=[refused(last)],
        alerts=[alert(first, alert_id=f"a{first}")],
    )


def filled(root: Path, commits: int = 8, city: str = "razlog") -> Town:
    """Return a town after so many commits of three records each, and a restart.

    The last one has a snapshot, and the restart moved the head on, so all are settled.
    """
    here = town(root, city)
    mine = {"city": city, "source": f"telemetry.{city}/0"}
    for number in range(commits):
        made = (
            mixed(3 * number)
            if city == "razlog"
            else emission(
                [reading(n, **mine) for n in range(3 * number, 3 * number + 3)]
            )
        )
        here.commit(made, 3, snapshot=number == commits - 1)
    return town(root, city)


def continued(here: Town, root: Path, commits: int = 8) -> Town:
    """Return the town after further commits like those of `filled`, and a restart."""
    for number in range(commits):
        here.commit(mixed(here.next), 3, snapshot=number == commits - 1)
    return town(root)


def compactor(
    root: Path | Store,
    owner: str = "one",
    failpoint: Failpoint = no_failpoint,
    limits: Limits | None = None,
) -> Compactor:
    """Return a compactor of the job `region` that has surveyed the logs."""
    store = LocalStore(root, ballast_bytes=0) if isinstance(root, Path) else root
    numbers = count()
    made = Compactor(
        store,
        Compacting("region", owner, "test"),
        FileMerger(store, "test", limits=limits),
        lambda: f"{owner[:2]:_<2}{next(numbers):06d}-{owner}",
        failpoint,
    )
    made.survey()
    return made


def compact_all(made: Compactor) -> list[Outcome]:
    """Compact every folder that is not at rest."""
    return [made.compact(unit) for unit, at_rest in made.units() if not at_rest]


def rows_of(root: Path, paths: Sequence[str]) -> Counter[Row]:
    """Return the rows of files below a root with their folder, as a multiset by bits."""
    found: Counter[Row] = Counter()
    for path in paths:
        with pq.ParquetFile(root / path) as file:
            rows = file.read().to_pylist()
        folder = path.rpartition("/")[0]
        found.update((folder, *map(_bits, row.values())) for row in rows)
    return found


def _bits(value: Any) -> Any:
    return value.hex() if isinstance(value, float) else value


def visible_paths(root: Path) -> list[str]:
    """Return what a reader of folders finds."""
    return [
        path.relative_to(root).as_posix()
        for dataset in DATASETS
        for path in sorted((root / dataset).rglob("*.parquet"))
    ]


def exact_paths(root: Path) -> list[str]:
    """Return what the logs say holds each row once."""
    return [
        file.at for dataset in DATASETS for file in live_files(root, Wanted(dataset))
    ]


def exact_rows(root: Path) -> Counter[Row]:
    """Return the rows of what the logs say holds each row once; staged ones by their folder."""
    found: Counter[Row] = Counter()
    for dataset in DATASETS:
        for file in live_files(root, Wanted(dataset)):
            rows = rows_of(root, [file.at])
            for row, times in rows.items():
                found[(file.unit.folder, *row[1:])] += times
    return found


class Killed(BaseException):
    """What a test's failpoint raises in place of a SIGKILL."""


def killing(step: str) -> Callable[[str], None]:
    """Return a failpoint that ends everything at a step of the swap that is being made.

    What `open` finishes for others before goes through the same steps, unharmed.
    """
    armed = False

    def reached(name: str) -> None:
        nonlocal armed
        armed = armed or name == POINTS[0]
        if armed and name == step:
            raise Killed(name)

    return reached
