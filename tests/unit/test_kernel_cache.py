"""Compiled kernels are kept, and never outlive the source of what they call."""

import os
import subprocess
import sys
from pathlib import Path

CALLEE = """
from streamproc.kernels._jit import kernel

@kernel
def callee(x):
    return x + {number}
"""
CALLER = """
from kernels_under_test._callee import callee
from streamproc.kernels._jit import kernel

@kernel
def caller(x):
    return callee(x)
"""
PAIR = """
from collections import namedtuple
{name} = namedtuple("{name}", "left right")
made = {name}(1, 2)
"""
TAKES_PAIR = """
from kernels_under_test._callee import made
from streamproc.kernels._jit import kernel

@kernel
def taking(pair):
    return pair.left + pair.right

def caller(x):
    return x + taking(made)

caller.stats = taking.stats
"""
PROGRAM = """
import sys
from pathlib import Path
from streamproc.kernels import _jit
folder = Path({folder!r})
_jit.SOURCE_STAMP = "".join(p.read_text() for p in sorted(folder.glob("*.py")))
from kernels_under_test.caller import caller
print(caller(1), sum(caller.stats.cache_hits.values()))
"""


def run(folder: Path) -> tuple[int, int]:
    """Return what the caller answers and how many compilations were found in the cache."""
    path = os.pathsep.join([str(folder.parent), *sys.path])
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(folder=str(folder))],
        check=True,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": path,
            "NUMBA_CACHE_DIR": str(folder.parent / "cache"),
        },
    ).stdout
    answer, hits = output.split()
    return int(answer), int(hits)


def test_a_changed_callee_in_another_file_is_compiled_into_its_caller(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "kernels_under_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "caller.py").write_text(CALLER)
    (folder / "_callee.py").write_text(CALLEE.format(number=10))

    assert run(folder) == (11, 0)
    assert run(folder) == (11, 1)
    (folder / "_callee.py").write_text(CALLEE.format(number=20))
    assert run(folder) == (21, 0)


def test_a_class_that_has_moved_does_not_make_what_was_kept_unreadable(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "kernels_under_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "caller.py").write_text(TAKES_PAIR)
    (folder / "_callee.py").write_text(PAIR.format(name="Pair"))

    assert run(folder) == (4, 0)
    assert run(folder) == (4, 1)
    (folder / "_callee.py").write_text(PAIR.format(name="Couple"))
    assert run(folder) == (4, 0)
