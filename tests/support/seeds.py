"""Seeds of a simulation: one that the environment names, many from a fresh start, or those until a mutant is found."""

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from random import Random

import pytest

from streamproc.testing.sim_checks import Violation

SEEDS_MAX = 600
CHUNK = 50
TOLD_CHUNKS = 50
NAMED = os.environ.get("STREAMPROC_SEED")


def seeds(count: int) -> range:
    """Return the seed `STREAMPROC_SEED` alone where it is set, else `count` of them."""
    if NAMED is not None:
        return range(int(NAMED), int(NAMED) + 1)
    first = Random().randrange(10**9)
    print(f"seeds from {first}")  # noqa: T201  (to repeat a failure)
    return range(first, first + count)


def run_many(
    run: Callable[[str, range], Counter[str]],
    kind: str,
    count: int,
    capsys: pytest.CaptureFixture[str],
) -> Counter[str]:
    """Return what `run` has counted over all seeds, in as many processes as there are processors.

    It takes long, so the terminal is told now and then how far it is.
    """
    chosen = seeds(count)
    chunks = [chosen[at : at + CHUNK] for at in range(0, len(chosen), CHUNK)]
    tally = Counter[str]()
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for number, done in enumerate(pool.map(partial(run, kind), chunks), 1):
            tally.update(done)
            if number % TOLD_CHUNKS == 0:
                with capsys.disabled():
                    print(f"{kind}: {number * CHUNK} from {chosen[0]}", flush=True)  # noqa: T201
    print(len(chosen), kind, dict(tally))  # noqa: T201  (what the seeds did)
    return tally


def find(name: str, run: Callable[[int], object]) -> None:
    """Run seeds from 0 on until one raises `Violation`; fail if none of `SEEDS_MAX` does."""
    for seed in range(SEEDS_MAX):
        try:
            run(seed)
        except Violation as violation:
            print(f"{name}: {seed + 1} seeds: {violation}")  # noqa: T201  (what it saw)
            return
    pytest.fail(f"{SEEDS_MAX} seeds did not find: {name}")
