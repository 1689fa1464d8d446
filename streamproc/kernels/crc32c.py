"""CRC-32C (Castagnoli, RFC 3720 B.4) of short byte strings, for record fingerprints."""

from typing import Final

import numpy as np
import numpy.typing as npt

from streamproc.kernels._jit import kernel

U1 = npt.NDArray[np.uint8]
U4 = npt.NDArray[np.uint32]

_POLYNOMIAL: Final = 0x82F63B78


def _table() -> U4:
    table = np.zeros(256, np.uint32)
    for byte in range(256):
        rest = byte
        for _ in range(8):
            rest = (rest >> 1) ^ (_POLYNOMIAL if rest & 1 else 0)
        table[byte] = rest
    return table


TABLE: Final = _table()


@kernel
def crc32c(data: U1, table: U4) -> int:
    """Return the CRC-32C of `data`; `table` is `TABLE`."""
    rest = np.uint32(0xFFFFFFFF)
    for byte in data:
        rest = table[(rest ^ byte) & np.uint32(0xFF)] ^ (rest >> np.uint32(8))
    return int(rest ^ np.uint32(0xFFFFFFFF))
