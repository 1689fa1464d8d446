"""The JSON kernels read at most `PAD` bytes beyond a record, and none before it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamproc.kernels.bytes_raw import PAD
from tests.support.guarded import FORMATS

ROOT = Path(__file__).parents[3]


def decode_at_the_end_of_memory(
    name: str, pad: int
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.support.guarded", name, str(pad)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect, and SIGSEGV for it")
@pytest.mark.parametrize("name", FORMATS)
def test_no_kernel_reads_beyond_the_padding(name: str) -> None:
    done = decode_at_the_end_of_memory(name, PAD)

    assert (done.returncode, done.stderr) == (0, "")
    _, documents = FORMATS[name]
    assert int(done.stdout) == sum(len(document) + 1 for document in documents)


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect, and SIGSEGV for it")
@pytest.mark.parametrize("name", FORMATS)
def test_without_padding_the_guarded_page_is_hit(name: str) -> None:
    """So the page is where it should be, and the test above can fail."""
    assert decode_at_the_end_of_memory(name, 0).returncode == -signal.SIGSEGV
