"""Arrays that grow by doubling, aligned to cache lines."""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from streamproc.kernels.bytes_raw import LINE_BYTES

CAPACITY_MIN = 64

T = TypeVar("T", bound=np.generic)


def aligned(shape: tuple[int, ...], kind: np.dtype[T]) -> npt.NDArray[T]:
    """Return an uninitialised array that begins at a cache line."""
    size = int(np.prod(shape)) * kind.itemsize
    raw = np.empty(size + LINE_BYTES, np.uint8)
    begin = -raw.ctypes.data % LINE_BYTES
    return raw[begin : begin + size].view(kind).reshape(shape)


def grown(old: npt.NDArray[T], size: int, used: int, fill: Any) -> npt.NDArray[T]:
    """Return `old` with room for `size` rows, doubling; rows from `used` on hold `fill`.

    `fill` None leaves them untouched, so that their pages cost nothing yet.
    """
    if size <= len(old):
        return old
    capacity = max(CAPACITY_MIN, len(old))
    while capacity < size:
        capacity *= 2
    new = aligned((capacity, *old.shape[1:]), old.dtype)
    new[:used] = old[:used]
    if fill is not None:
        new[used:] = fill
    return new
