"""The commit protocol keeps its promises on every schedule the seeds can think of.

`STREAMPROC_SEED=n` runs that seed alone.
"""

from collections import Counter
from dataclasses import asdict

import pytest

from streamproc.connectors.clock import SystemClock
from streamproc.testing.bucket_simulation import BucketSimulation
from streamproc.testing.simulation import Faults, Simulation
from tests.support.seeds import NAMED, run_many, seeds

# Tracing Python line by line would take half of its time; unit tests cover the same code.
pytestmark = pytest.mark.no_cover

SEEDS_MIN = 400
SECONDS = 40
"""In CI each kind takes so long, and so many seeds at least."""
SEEDS_LONG = 50_000
KINDS: dict[str, type[Simulation]] = {
    "a disk": Simulation,
    "an object store": BucketSimulation,
}


NEVER = {"a disk": {"late"}, "an object store": set[str]()}
"""What does not happen there: a filesystem does nothing later than it answers."""


def _run(kind: str, chosen: range) -> Counter[str]:
    tally: Counter[str] = Counter()
    for seed in chosen:
        tally.update(asdict(KINDS[kind](seed).run()))
    return tally


def test_without_faults_one_worker_publishes_everything_once() -> None:
    quiet = Faults(kill=0, power=0, sleep=0, reassign=0, lost_reply=0)

    tally = Simulation(1, faults=quiet, records=60).run()

    assert tally.commits >= 10
    assert tally.fenced == tally.kills == tally.power_losses == 0


FOUND = {
    # An opening record that came late to a name that was squashed, while another owner read.
    734030835: "an object store",
}
"""Seeds that once found a fault."""


@pytest.mark.parametrize("seed", FOUND)
def test_what_a_seed_once_found_is_mended(seed: int) -> None:
    assert KINDS[FOUND[seed]](seed).run().commits


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_repeats_its_run_exactly(kind: str) -> None:
    first, second = KINDS[kind](7), KINDS[kind](7)

    assert asdict(first.run()) == asdict(second.run())
    assert first.disk.files() == second.disk.files()


@pytest.mark.fault(
    "F26",
    how="simulated power loss between any two operations of the file system",
    seen="nothing lost or doubled",
)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_or_doubled_under_kills_zombies_and_lost_answers(
    kind: str,
) -> None:
    clock, count, tally = SystemClock(), 0, Counter[str]()
    until_us = clock.monotonic_us() + SECONDS * 1_000_000
    for seed in seeds(SEEDS_LONG):
        tally.update(_run(kind, range(seed, seed + 1)))
        count += 1
        if count >= SEEDS_MIN and clock.monotonic_us() >= until_us:
            break

    print(count, kind, dict(tally))  # noqa: T201  (what the seeds did)
    if NAMED is None:
        rare = {name for name, count in tally.items() if count < 20}
        assert rare <= {"gave_up", "fenced", "reopened_name", *NEVER[kind]}, tally


def test_giving_up_on_lost_replies_is_safe_too() -> None:
    deaf = Faults(lost_reply=0.85, deaf=True, kill=0.002, power=0.002)

    tally = Counter[str]()
    for seed in range(40):
        tally.update(asdict(Simulation(seed, faults=deaf).run()))

    assert tally["gave_up"] >= 5


@pytest.mark.long
@pytest.mark.fault("F26", how="the same on many seeds", seen="nothing lost or doubled")
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_or_doubled_on_many_seeds(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = run_many(_run, kind, SEEDS_LONG, capsys)

    assert tally["reopened_name"] or NAMED is not None
