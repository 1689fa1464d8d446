"""The decorators every kernel uses, so that compile flags live in one place.

`nogil`: heartbeats go on while a kernel runs. `parallel=False`: numba's workqueue layer
aborts when entered from two threads (numba issue 8563). `fastmath=False`: results are part
of the contract, bit for bit. `cache=True`: compiled once per machine, or baked into the image.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


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
    compiled = numba.njit(  # noqa: TID251
        nogil=True,
        parallel=False,
        fastmath=False,
        cache=True,
        error_model="numpy",
        forceinline=inside_callers,
    )(function)
    return cast("F", compiled)
