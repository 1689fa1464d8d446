"""Undecoded bytes of many records: one buffer, and where in it each record's bytes lie.

The buffer may hold more than the records (what a broker sent, as it came), so nothing has
to be copied between the network and the kernels that read it. Kernels load 8 bytes at a time:
`PAD` bytes beyond the last record are readable, whatever they hold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.kernels.bytes_raw import PAD

U1 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Payloads:
    """A column of byte strings, some of them null.

    Attributes:
        data: uint8, readable `PAD` bytes beyond every end.
        starts: int64[n], index into `data`, -1 for null.
        ends: int64[n].
    """

    data: U1
    starts: I8
    ends: I8

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> "Payloads":
        """Return a column of these values."""
        count = len(values)
        sizes = np.fromiter((len(v) if v else 0 for v in values), np.int64, count)
        ends = np.cumsum(sizes)
        starts = ends - sizes
        starts[np.fromiter((v is None for v in values), np.bool_, count)] = -1
        joined = b"".join([v for v in values if v] + [bytes(PAD)])
        return cls(np.frombuffer(joined, np.uint8), starts, ends)

    @classmethod
    def of_arrow(cls, column: "pa.Array[Any]") -> "Payloads":
        """Copy an Arrow binary column to where kernels may read it (15 ns a row)."""
        count = len(column)
        _, offset_buffer, data_buffer = column.buffers()
        if count == 0 or offset_buffer is None:
            return cls.nulls(count)
        raw = np.frombuffer(memoryview(offset_buffer), np.int32)[column.offset :]
        offsets = raw[: count + 1].astype(np.int64)
        low, high = int(offsets[0]), int(offsets[-1])
        data = np.zeros(high - low + PAD, np.uint8)
        if data_buffer is not None:
            whole = np.frombuffer(memoryview(data_buffer), np.uint8)
            data[: high - low] = whole[low:high]
        offsets -= low
        starts, ends = offsets[:-1].copy(), offsets[1:]
        if column.null_count:
            starts[column.is_null().to_numpy(zero_copy_only=False)] = -1
        return cls(data, starts, ends)

    @classmethod
    def nulls(cls, count: int) -> "Payloads":
        """Return `count` nulls."""
        nothing = np.full(count, -1, np.int64)
        return cls(np.zeros(PAD, np.uint8), nothing, nothing)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> bytes | None:
        """Return one value, None for null."""
        if self.starts[row] < 0:
            return None
        return self.data[self.starts[row] : self.ends[row]].tobytes()

    def __iter__(self) -> Iterator[bytes | None]:
        # Plain numbers and a view: a third of what `self[row]` costs for each row.
        whole = self.data.data
        for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
            yield None if start < 0 else whole[start:end].tobytes()

    def between(self, low: int, high: int) -> "Payloads":
        """Return the rows `[low, high)`, without copying."""
        return Payloads(self.data, self.starts[low:high], self.ends[low:high])

    @property
    def sizes(self) -> I8:
        """Bytes per row, int64[n]; 0 for null."""
        return np.where(self.starts < 0, 0, self.ends - self.starts)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows together."""
        return int(self.sizes.sum())
