"""The replays of dead letters below a root, as `core.replays` keeps them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from streamproc.analytics.logs import LOGS
from streamproc.analytics.roots import RootPath, in_order
from streamproc.core.replays import (
    ReplayPlan,
    all_taken,
    decode_plan,
    done_path,
    is_plan,
    plan_path,
    topic_id_of,
)
from streamproc.errors import LogCorrupt

_KEY = {"source": pl.String(), "offset": pl.Int64()}


@dataclass(frozen=True, slots=True)
class Conservation:
    """Refused records of a root: in quarantine, put back, and the rest.

    Attributes:
        quarantined: rows that the commit logs say went to quarantine/.
        replayed: of these, put back by a replay; `remaining` is the difference.
        runs: replays that put something back.
        unfinished: replays that were killed; the next one finishes them.
        refused_again: what the newest replay could not put back.
    """

    quarantined: int
    replayed: int
    remaining: int
    runs: int
    unfinished: int
    refused_again: int


def read_plans(root: RootPath) -> list[ReplayPlan]:
    """Return every replay of every job, in order. Raises `LogCorrupt`."""
    paths = in_order(root.glob(f"{LOGS}/*/dead-letters/*.json"))
    return [decode_plan(p.read_bytes(), str(p)) for p in paths if is_plan(p.as_posix())]


def taken_frame(plans: Sequence[ReplayPlan]) -> pl.LazyFrame:
    """Return (source, offset) of every record that was put back."""
    taken = all_taken(plans)
    pairs = [(source, n) for source, offsets in taken.items() for n in sorted(offsets)]
    return pl.LazyFrame(pairs, schema=_KEY, orient="row")


def replay_faults(
    root: RootPath, folded: Mapping[tuple[str, str], int]
) -> Iterator[str]:
    """Yield replays whose logs hold other records than they claim.

    `folded` are the records that were put back, by job and topic id.
    """
    try:
        plans = read_plans(root)
    except LogCorrupt as error:
        yield str(error)
        return
    for plan in plans:
        path = plan_path(plan.job, plan.k)
        found = folded.get((plan.job, topic_id_of(plan.k)), 0)
        if not (root / done_path(plan.job, plan.k)).is_file():
            yield f"{path}: not finished, the next replay of dead letters does it"
        elif found != plan.records:
            yield f"{path}: claims {plan.records} records, its logs hold {found}"


def conservation(root: RootPath, quarantined: int) -> Conservation:
    """Return how many of `quarantined` records were put back. Raises `LogCorrupt`."""
    plans = read_plans(root)
    replayed = sum(plan.records for plan in plans)
    done = len(list(root.glob(f"{LOGS}/*/dead-letters/*.done")))
    return Conservation(
        quarantined=quarantined,
        replayed=replayed,
        remaining=quarantined - replayed,
        runs=len(plans),
        unfinished=len(plans) - done,
        refused_again=plans[-1].refused if plans else 0,
    )
