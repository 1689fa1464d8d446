"""Every kernel runs with its indices checked, and it is known that they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bounds_checked import SEEN, all_kernels

ROOT = Path(__file__).parents[2]
CANARY = "from tests.support.bounds_checked import sings; print(sings())"

TESTS = [
    "tests/property",
    "tests/unit/codecs",
    "tests/unit/core",
    "tests/unit/connectors/files",
    "tests/unit/connectors/test_kafka_batches.py",
    "tests/unit/test_warmup.py",
]
EXEMPT: dict[str, str] = {}
"""Kernels that no such run has to meet, and why."""


OURS = ("NUMBA_BOUNDSCHECK", "HYPOTHESIS_PROFILE")
"""Not inherited: the long profile would make the checked run one of half an hour."""


def checked(
    cache: Path, *arguments: str, on: bool = True, seen: Path | None = None
) -> str:
    """Run Python with a cache of its own, indices checked or not; return what it printed."""
    mode = {"NUMBA_BOUNDSCHECK": "1"} if on else {}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={
            **{k: v for k, v in os.environ.items() if k not in OURS},
            "NUMBA_CACHE_DIR": str(cache),
            **mode,
            SEEN: str(seen),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout.strip()


def test_an_index_outside_of_its_array_is_noticed_when_asked_for(
    tmp_path: Path,
) -> None:
    """Also where the cache was filled without checks: numba alone would not notice that."""
    assert checked(tmp_path, "-c", CANARY, on=False) == "False"
    assert list(tmp_path.rglob("*.nbc"))
    assert checked(tmp_path, "-c", CANARY) == "True"
    assert checked(tmp_path, "-c", CANARY, on=False) == "False"


def test_a_run_of_kernels_that_do_not_check_does_not_begin(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="do not check their indices"):
        checked(tmp_path, *_pytest("tests/unit/core/test_flush.py"), on=False)


@pytest.mark.long
def test_every_kernel_keeps_within_its_arrays(tmp_path: Path) -> None:
    """All tests of kernels again, each index checked, nothing from any cache."""
    report = tmp_path / "seen.json"
    print(  # noqa: T201  (figures for the reader of -s)
        checked(tmp_path / "cache", *_pytest(*TESTS), seen=report)[-2000:]
    )

    seen = json.loads(report.read_text())
    assert sorted(seen) == sorted(name for name, _ in all_kernels())
    unmet = {name for name, signatures in seen.items() if not signatures}
    assert unmet == set(EXEMPT)


def _pytest(*paths: str) -> list[str]:
    plugins = ["-p", "no:cacheprovider", "-p", "tests.support.bounds_checked"]
    return ["-m", "pytest", "-q", *plugins, *paths]
