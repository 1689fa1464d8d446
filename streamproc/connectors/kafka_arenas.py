"""Memory for what comes from a broker, used again as soon as nobody looks at it.

An arena is a numpy array that the pool owns. Whoever was given one may make views, memory
views, Arrow buffers of it and pass them on: each of them holds a reference to the array, so
the array's reference count tells when the last one is gone, and only then is it given out
again. Nobody has to say that they are done, and nobody can forget to. (CPython counts
references exactly; this rests on it.)

Pages that are in the cache and mapped already are what makes the second use cheap.
"""

import sys
from threading import Lock
from typing import Final

import numpy as np
import numpy.typing as npt

from streamproc.kernels.bytes_raw import PAD

U1 = npt.NDArray[np.uint8]

SMALL: Final = 64 * 1024
"""Below it, an array of its own costs less than looking for one."""

_WASTE_MAX: Final = 8


def _holders(arenas: list[U1]) -> list[int]:
    """Return the reference count of each, always taken in this one way."""
    return [sys.getrefcount(arena) for arena in arenas]


_UNUSED: Final = _holders([np.empty(1, np.uint8)])[0]
"""What is counted where only a list holds it; versions of Python count differently."""


class ArenaPool:
    """Gives out uint8 arrays. What is idle beyond `idle_max` bytes goes at the next request."""

    def __init__(self, idle_max: int) -> None:
        self._idle_max = idle_max
        self._arenas: list[U1] = []
        self._lock = Lock()

    def take(self, size: int) -> U1:
        """Return an array of at least `size` + `PAD` bytes, holding anything."""
        needed = size + PAD
        with self._lock:
            idle = self._idle()
            fitting = [a for a in idle if needed <= a.size <= _WASTE_MAX * needed]
            found = min(fitting, key=len, default=None)
            self._let_go([arena for arena in idle if arena is not found])
            if found is None:
                found = np.empty(_rounded(needed), np.uint8)
                if needed > SMALL:
                    self._arenas.append(found)
            return found

    def _idle(self) -> list[U1]:
        counts = _holders(self._arenas)
        return [a for a, n in zip(self._arenas, counts, strict=True) if n <= _UNUSED]

    def _let_go(self, idle: list[U1]) -> None:
        """Forget the largest of these until the rest may be kept."""
        spare = sum(map(len, idle)) - self._idle_max
        for arena in sorted(idle, key=len, reverse=True):
            if spare <= 0:
                break
            spare -= len(arena)
            self._arenas = [kept for kept in self._arenas if kept is not arena]

    @property
    def used(self) -> int:
        """Bytes of the arenas that somebody holds."""
        with self._lock:
            return sum(map(len, self._arenas)) - sum(map(len, self._idle()))

    @property
    def held(self) -> int:
        """Bytes of all arenas, used or idle."""
        with self._lock:
            return sum(map(len, self._arenas))


def _rounded(size: int) -> int:
    """Return the next size class: a quarter of a power of two above the last one."""
    step = 1 << max(12, size.bit_length() - 3)
    return -(-size // step) * step
