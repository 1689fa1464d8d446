"""Kernels read at most `PAD` bytes beyond a record, none before it, and write where they may."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamproc.kernels.bytes_raw import PAD
from tests.support.guarded import CASES, DECODERS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="mprotect, and SIGSEGV for it"
)

BYTE_BY_BYTE = {"batches": 0, "varints": 0}
"""What is read without any padding; all else may read as far as a payload's padding."""


def at_the_end_of_memory(case: str, pad: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.support.guarded", case, str(pad)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize("case", [*DECODERS, *CASES.keys() - {"beyond"}])
def test_no_kernel_touches_what_is_beyond(case: str) -> None:
    done = at_the_end_of_memory(case, BYTE_BY_BYTE.get(case, PAD))

    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 10


@pytest.mark.parametrize("case", ["json", "names", "texts"])
def test_without_padding_the_guarded_page_is_hit(case: str) -> None:
    """So the page is where it should be, and the test above can fail."""
    assert at_the_end_of_memory(case, 0).returncode == -signal.SIGSEGV


@pytest.mark.parametrize("at", [0, -4 * 4096 - 1])
def test_a_single_byte_beyond_is_noticed(at: int) -> None:
    assert at_the_end_of_memory("beyond", at).returncode == -signal.SIGSEGV
