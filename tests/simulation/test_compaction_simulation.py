"""Compaction and retention keep their promises on every schedule the seeds can think of.

`STREAMPROC_SEED=n` runs that seed alone.
"""

from collections import Counter
from dataclasses import asdict

import pytest

from streamproc.testing.bucket_simulation import CompactionBucketSimulation
from streamproc.testing.compaction_sim import CompactionSimulation
from streamproc.testing.simulation import Faults
from tests.support.seeds import NAMED, run_many, seeds

# Tracing Python line by line would take half of its time; unit tests cover the same code.
pytestmark = pytest.mark.no_cover

SEEDS = 40
SEEDS_LONG = 2_500
KINDS: dict[str, type[CompactionSimulation]] = {
    "a disk": CompactionSimulation,
    "an object store": CompactionBucketSimulation,
}


def _run(kind: str, chosen: range) -> Counter[str]:
    tally: Counter[str] = Counter()
    for seed in chosen:
        made = KINDS[kind](seed)
        tally.update(asdict(made.run()))
        tally.update(made.swaps)
    return tally


def test_without_faults_dates_are_compacted_and_each_row_stays_once() -> None:
    quiet = Faults(kill=0, power=0, sleep=0, reassign=0, lost_reply=0)

    made = CompactionSimulation(1, faults=quiet, records=100)
    made.run()

    assert made.swaps["compact"] >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_no_reader_sees_fewer_rows_and_none_twice_at_the_end_whatever_happens(
    kind: str,
) -> None:
    tally = _run(kind, seeds(SEEDS))

    print(dict(tally))  # noqa: T201  (what the seeds did)
    if NAMED is None:
        wanted = {"kills", "power_losses", "fenced", "compact", "retain"}
        wanted |= {"lost_replies", "snapshots_read", "begun_at_checkpoint"}
        wanted |= {"late"} if kind == "an object store" else set()
        assert {name for name in wanted if tally[name] < 20} == set(), tally


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_no_reader_sees_fewer_rows_on_many_seeds(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = run_many(_run, kind, SEEDS_LONG, capsys)

    assert tally["compact"]
