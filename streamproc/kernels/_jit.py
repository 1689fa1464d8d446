"""The decorators every kernel uses, so that compile flags live in one place.

`nogil`: heartbeats go on while a kernel runs. `parallel=False`: numba's workqueue layer
aborts when entered from two threads (numba issue 8563). `fastmath=False`: results are part
of the contract, bit for bit. `cache=True`: compiled once per machine, or baked into the image.

What numba keeps is stamped with the source of *all* kernels: it looks at the file of the
function alone by itself, and would go on running a kernel whose callee in another file has
changed since. Bounds checks are part of the stamp, so asking for them is never in vain.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def _stamp() -> str:
    digest = hashlib.sha256(f"bounds checks: {numba.config.BOUNDSCHECK}".encode())  # type: ignore[attr-defined]  # set by numba at import
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


SOURCE_STAMP: Final = _stamp()
"""sha256 over every module of this package and the mode they are compiled in."""


def kernel(function: F) -> F:
    """Compile `function` on its first call for each set of argument types."""
    return _compiled(function, inside_callers=False)


def inlined(function: F) -> F:
    """Compile like `kernel`, and into every kernel that calls it: no call is left.

    For what scanners do for each value, where numba's calls cost as much as the work (a flat
    JSON record: 190 → 130 ns). Not numba's own `inline="always"`, which copies source and
    made helpers that return tuples 5 to 8 times slower.
    """
    return _compiled(function, inside_callers=True)


def _compiled(function: F, *, inside_callers: bool) -> F:
    compiled: Any = numba.njit(  # noqa: TID251
        nogil=True,
        parallel=False,
        fastmath=False,
        cache=True,
        error_model="numpy",
        forceinline=inside_callers,
    )(function)
    if not numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        # Numba has no public way to say what else a cached function depends on. Its version is
        # what it looks at before it unpickles anything: a class may have moved since.
        compiled._cache._cache_file._version += f" {SOURCE_STAMP}"  # noqa: SLF001
    return cast("F", compiled)
