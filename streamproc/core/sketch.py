"""The published quantile sketch (column `sketch` of `aggregates/`): read, merge, ask.

Format, version 1, little-endian, always a multiple of 8 bytes:

```text
u8  version = 1
u8  kind: 0 exact, 1 bins
u16 zero
u32 n
kind 0:  f64[n]   the values, ascending
kind 1:  i32[n]   bin codes, ascending with the value; padded with zeros to 8 bytes
         i64[n]   how many values fell into each
```

A bin's code and the value that stands for it (within 1 %) are defined in
`streamproc.kernels.sketch`. Up to 32 values are exact, more are bins, whatever the way they came
together, so merging is free of order and grouping. The quantile q of n values is the one of rank
`floor(q * (n - 1))`, counted from 0, for both kinds.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamproc.kernels import sketch as kernels

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]

EXACT_MAX = kernels.EXACT_MAX
_HEADER = struct.Struct("<BBHI")


@dataclass(frozen=True, slots=True)
class Sketch:
    """A decoded sketch: `values` (float64[n]) and their `counts` (int64[n]), ascending.

    `codes` (int32[n]) names the bins and is None for an exact sketch, whose counts are all 1.
    """

    values: F8
    counts: I8
    codes: I4 | None


def _bins(codes: I4, counts: I8) -> bytes:
    pad = b"\0" * (4 * (len(codes) % 2))
    header = _HEADER.pack(kernels.VERSION, kernels.KIND_BINS, 0, len(codes))
    return b"".join(
        (header, codes.astype("<i4").tobytes(), pad, counts.astype("<i8").tobytes())
    )


def encode(values: F8) -> bytes:
    """Return the sketch of finite values, in any order; `values` must not be empty."""
    assert len(values) > 0, "an empty sketch is null"
    if len(values) <= EXACT_MAX:
        header = _HEADER.pack(kernels.VERSION, kernels.KIND_EXACT, 0, len(values))
        ascending = values[np.lexsort((~np.signbit(values), values))]
        return header + ascending.astype("<f8").tobytes()
    codes = np.empty(len(values), np.int32)
    kernels.codes_of(np.ascontiguousarray(values, np.float64), codes)
    present, counts = np.unique(codes, return_counts=True)
    return _bins(present, counts.astype(np.int64))


def decode(data: bytes) -> Sketch:
    """Read a sketch. Raises `ValueError` on another version, kind or size."""
    if len(data) < _HEADER.size:
        msg = f"a sketch has at least {_HEADER.size} bytes, this has {len(data)}"
        raise ValueError(msg)
    version, kind, _, n = _HEADER.unpack_from(data)
    padded = 4 * (n + n % 2)
    size = _HEADER.size + (8 * n if kind == kernels.KIND_EXACT else padded + 8 * n)
    known = (kernels.KIND_EXACT, kernels.KIND_BINS)
    if version != kernels.VERSION or kind not in known or n == 0 or len(data) != size:
        msg = f"not a sketch: version {version}, kind {kind}, n {n}, {len(data)} bytes"
        raise ValueError(msg)
    if kind == kernels.KIND_EXACT:
        values = np.frombuffer(data, "<f8", n, _HEADER.size).astype(np.float64)
        return Sketch(values, np.ones(n, np.int64), None)
    codes = np.frombuffer(data, "<i4", n, _HEADER.size).astype(np.int32)
    counts = np.frombuffer(data, "<i8", n, _HEADER.size + padded).astype(np.int64)
    values = np.array([kernels.value_of(int(code)) for code in codes])
    return Sketch(values, counts, codes)


def merge(parts: Sequence[bytes]) -> bytes:
    """Return the sketch of all values behind `parts`; free of order and grouping."""
    decoded = [decode(part) for part in parts]
    if len(decoded) == 1:
        return parts[0]
    if all(part.codes is None for part in decoded):
        return encode(np.concatenate([part.values for part in decoded]))
    codes = np.concatenate([_codes(part) for part in decoded])
    counts = np.concatenate([part.counts for part in decoded])
    present, group = np.unique(codes, return_inverse=True)
    total = np.zeros(len(present), np.int64)
    np.add.at(total, group, counts)
    return _bins(present, total)


def _codes(part: Sketch) -> I4:
    if part.codes is not None:
        return part.codes
    codes = np.empty(len(part.values), np.int32)
    kernels.codes_of(part.values, codes)
    return codes


def quantile(data: bytes, q: float) -> float:
    """Return the value of rank `floor(q * (n - 1))`: exact, or within 1 %."""
    assert 0.0 <= q <= 1.0, q
    part = decode(data)
    ranks = np.cumsum(part.counts)
    place = np.searchsorted(ranks, int(q * (int(ranks[-1]) - 1)), side="right")
    return float(part.values[place])


def count(data: bytes) -> int:
    """Return how many values the sketch stands for."""
    return int(decode(data).counts.sum())
