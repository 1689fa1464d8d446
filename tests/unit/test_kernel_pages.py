"""Kernels read at most `PAD` bytes beyond a record, none before it, and write where they may."""

import mmap
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamproc.kernels.bytes_raw import PAD
from tests.support.guarded import CASES, DECODERS, PAGES

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="mprotect, and SIGSEGV for it"
)

BYTE_BY_BYTE = {"arrow": 0, "batches": 0, "varints": 0}
"""What is read without any padding; all else may read as far as a payload's padding."""


def at_the_end_of_memory(pad: int, *cases: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.support.guarded", str(pad), *cases],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize("pad", [0, PAD])
def test_no_kernel_touches_what_is_beyond(pad: int) -> None:
    cases = [
        case
        for case in (*DECODERS, *CASES)
        if case != "beyond" and BYTE_BY_BYTE.get(case, PAD) == pad
    ]

    done = at_the_end_of_memory(pad, *cases)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert list(counts) == cases
    assert all(int(count) > 10 for count in counts.values()), counts


@pytest.mark.parametrize("case", ["json", "chirpstack", "names", "texts"])
def test_without_padding_the_guarded_page_is_hit(case: str) -> None:
    """So the page is where it should be, and the test above can fail."""
    assert at_the_end_of_memory(0, case).returncode == -signal.SIGSEGV


@pytest.mark.parametrize("at", [0, -PAGES * mmap.PAGESIZE - 1])
def test_a_single_byte_beyond_is_noticed(at: int) -> None:
    assert at_the_end_of_memory(at, "beyond").returncode == -signal.SIGSEGV
