"""Compaction and retention, put together: which dates, which jobs, one folder after the other."""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

from streamproc import __version__
from streamproc.config import Settings
from streamproc.connectors.compacted_files import FileMerger
from streamproc.core.compaction import Compacting
from streamproc.core.ports import Store
from streamproc.core.replays import is_plan, replays_folder
from streamproc.core.swaps import Unit
from streamproc.runtime.compactor import DATASETS, Compactor, Outcome
from streamproc.runtime.failpoint import failpoint_from

# A local date has ended everywhere on Earth when it is noon in UTC on the next day.
_ENDED_AFTER = timedelta(days=1, hours=12)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which folders to look at; None means any."""

    datasets: Sequence[str] | None = None
    cities: Sequence[str] | None = None
    dates: Sequence[date] | None = None

    def has(self, unit: Unit) -> bool:
        """Tell whether a folder is one of them."""
        return (
            (self.datasets is None or unit.dataset in self.datasets)
            and (self.cities is None or unit.city in self.cities)
            and (self.dates is None or unit.day in self.dates)
        )


def last_ended(now_us: int, ago_us: int) -> date:
    """Return the newest local date that ended everywhere at least `ago_us` before now.

    Args:
        now_us: µs since 1970 UTC, from a clock; it decides nothing but what is due.
        ago_us: µs.
    """
    now = datetime.fromtimestamp(now_us / 1e6, UTC) - timedelta(microseconds=ago_us)
    return (now - _ENDED_AFTER).date()


def jobs_of(store: Store) -> list[str]:
    """Return the jobs that have commit logs below a root, sorted."""
    paths = (file.path.split("/") for file in store.list("_streamproc"))
    # A job's folder is two above `log`; scratch folders begin with a dot.
    return sorted({p[1] for p in paths if len(p) > 2 and p[1][0] != "."})  # noqa: PLR2004


def compact(
    store: Store,
    job: str,
    closed_before: date,
    chosen: Chosen | None = None,
    env: Mapping[str, str] = os.environ,
) -> Iterator[Outcome]:
    """Compact every closed folder of a job that is not one whole compaction; yield each.

    Args:
        store: the output root.
        job: whose files.
        closed_before: dates up to and including this one are closed.
        chosen: which folders; None for all.
        env: where `STREAMPROC_FAILPOINT` is looked for; nothing else.

    Raises:
        LogCorrupt: a chain or a log does not hold together.
        Unreachable: the store would not tell an outcome; the next run finds out.
    """
    compactor = _compactor(store, job, env)
    compactor.survey()
    for unit, at_rest in compactor.units(_datasets(chosen)):
        if not at_rest and unit.day <= closed_before and (chosen or Chosen()).has(unit):
            yield compactor.compact(unit)


def retain(
    store: Store,
    settings: Settings,
    now_us: int,
    *,
    dry: bool = False,
    env: Mapping[str, str] = os.environ,
) -> Iterator[Outcome]:
    """Delete the folders whose dates are older than `[retain]` says; yield each.

    Args:
        store: the output root.
        settings: `[retain]`, `[compaction]` and the job.
        now_us: µs since 1970 UTC.
        dry: only yield what would go, as `due`.
        env: where `STREAMPROC_FAILPOINT` is looked for; nothing else.

    Raises: as `compact`.
    """
    compactor = _compactor(store, settings.job.name, env)
    compactor.survey()
    for dataset in DATASETS:
        kept_us = settings.retain.of(dataset)
        if kept_us is None:
            continue
        kept_us = max(kept_us, settings.compaction.closed_after_us)
        last = last_ended(now_us, kept_us)
        note = f"retain: older than {last + timedelta(days=1)}"
        busy = dataset == "quarantine" and replay_is_unfinished(
            store, settings.job.name
        )
        for unit, _ in compactor.units((dataset,)):
            if unit.day > last:
                continue
            if busy:
                yield Outcome(unit, "waiting")
            else:
                yield Outcome(unit, "due") if dry else compactor.delete(unit, note)


def replay_is_unfinished(store: Store, job: str) -> bool:
    """Tell whether a replay of dead letters has claimed records and not folded them yet.

    It would not find them in `quarantine/` any more, and could not be finished.
    """
    paths = {file.path for file in store.list(replays_folder(job))}
    plans = [path for path in paths if is_plan(path)]
    return any(f"{path.removesuffix('.json')}.done" not in paths for path in plans)


def _datasets(chosen: Chosen | None) -> Sequence[str]:
    if chosen is None or chosen.datasets is None:
        return DATASETS
    return [name for name in DATASETS if name in chosen.datasets]


def _compactor(store: Store, job: str, env: Mapping[str, str]) -> Compactor:
    who = Compacting(job, f"{socket.gethostname()}:{os.getpid()}", __version__)
    return Compactor(
        store,
        who,
        FileMerger(store, __version__),
        lambda: uuid4().hex,
        failpoint_from(env),
    )
