"""SIGKILL for a real `streamproc compact` at each of its steps; the next one finishes."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from streamproc.analytics.verify import verify
from streamproc.core.compaction import POINTS
from streamproc.runtime.failpoint import VARIABLE
from tests.support.compaction import (
    exact_rows,
    filled,
    rows_of,
    visible_paths,
)


def compacted(root: Path, failpoint: str = "") -> int:
    """Run the command on a folder; return its exit code."""
    command = [sys.executable, "-m", "streamproc", "compact", str(root)]
    done = subprocess.run(
        [*command, "--closed-after", "0s", "--json"],
        env={**os.environ, VARIABLE: failpoint},
        capture_output=True,
        check=False,
        timeout=120,
    )
    return done.returncode


def test_killed_once_at_every_step_it_ends_as_if_nothing_had_happened(
    tmp_path: Path,
) -> None:
    filled(tmp_path / "sound")
    before = rows_of(tmp_path / "sound", visible_paths(tmp_path / "sound"))
    for point in POINTS:
        root = tmp_path / point
        shutil.copytree(tmp_path / "sound", root)

        assert compacted(root, f"{point}:1") == -signal.SIGKILL, point

        assert not before - rows_of(root, visible_paths(root)), point
        assert exact_rows(root) == before, point
    # One heir for all: what follows does not depend on where its ancestor died.
    for point in POINTS:
        root = tmp_path / point
        assert compacted(root) == 0, point
        assert rows_of(root, visible_paths(root)) == before, point
        assert len(visible_paths(root)) == 5, point
        assert verify(root).findings == (), point
