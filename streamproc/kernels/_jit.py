"""The one decorator every kernel uses, so that compile flags live in one place.

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
    compiled = numba.njit(  # noqa: TID251
        nogil=True, parallel=False, fastmath=False, cache=True, error_model="numpy"
    )(function)
    return cast("F", compiled)
