"""A pytest plugin for a run in which every kernel checks its indices.

`NUMBA_BOUNDSCHECK=1 STREAMPROC_KERNELS_SEEN=file pytest -p tests.support.bounds_checked …`

A canary that reads behind an array has to raise, or the run does not begin: the mode is
easily lost without a word (a cache that was filled without it, a kernel that is not ours).
At the end the file has, by kernel, how many signatures of it were compiled.
"""

import json
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from streamproc import kernels
from streamproc.kernels._jit import kernel

SEEN = "STREAMPROC_KERNELS_SEEN"


@kernel
def canary(values: npt.NDArray[np.int64], index: int) -> int:
    """Read where there may be nothing."""
    return int(values[index])


def sings() -> bool:
    """Tell whether a kernel notices an index outside of its array."""
    two = np.array([7, 8])
    assert canary(two, 1) == 8
    try:
        canary(two[:1], 1)
    except IndexError:
        return True
    return False


def all_kernels() -> Iterator[tuple[str, Any]]:
    """Yield every compiled function of the package by module and name."""
    for module in iter_modules(kernels.__path__):
        loaded = import_module(f"{kernels.__name__}.{module.name}")
        for name, item in vars(loaded).items():
            if hasattr(item, "signatures") and item.__module__ == loaded.__name__:
                yield f"{module.name}.{name}", item


def pytest_configure(config: pytest.Config) -> None:
    if not sings():
        pytest.exit("kernels do not check their indices", returncode=3)


def pytest_sessionfinish(session: pytest.Session) -> None:
    seen = {name: len(item.signatures) for name, item in all_kernels()}
    Path(os.environ[SEEN]).write_text(json.dumps(seen), encoding="utf-8")
