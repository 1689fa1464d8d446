"""The fingerprint of the last record consumed: how a log recognises its own topic."""

import struct

import numpy as np

from streamproc.core.record import Fingerprint
from streamproc.core.values import Records
from streamproc.kernels.crc32c import TABLE, crc32c


def fingerprint_of(records: Records, row: int) -> Fingerprint:
    """Return the fingerprint of one record.

    The CRC-32C covers key and value, each preceded by its length as int32 little-endian
    (-1 for null), so that it is the same on every fetch path.
    """
    parts = []
    for column in (records.keys, records.values):
        data = column[row]
        parts.append(struct.pack("<i", -1 if data is None else len(data)))
        parts.append(data or b"")
    joined = np.frombuffer(b"".join(parts), np.uint8)
    return Fingerprint(
        offset=int(records.offsets[row]),
        broker_us=int(records.broker_us[row]),
        crc32c=int(crc32c(joined, TABLE)),
    )
