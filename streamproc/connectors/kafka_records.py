"""From what aiokafka hands out to columnar `Records`: the one function that touches records.

A fetcher of raw record batches replaces `columnar` and nothing else. Measured with 145-byte
values on a shared machine: 0.4 us of CPU a record here; what aiokafka takes is said in
`kafka_bare`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.core.values import NO_TIME, OffsetSpan, Records, TopicPartition
from streamproc.errors import WorldError


def columnar(
    origin: TopicPartition,
    fetched: Sequence[Any],
    span: OffsetSpan,
    *,
    headers: bool = False,
) -> Records:
    """Return the columns of aiokafka records, bare or not, that arrived in offset order.

    Raises:
        WorldError: the payloads exceed 2 GiB, which Arrow's binary type cannot hold.
    """
    count = len(fetched)
    offsets = np.fromiter([r.offset for r in fetched], np.int64, count)
    broker_ms = np.fromiter([r.timestamp for r in fetched], np.int64, count)
    return Records(
        origin=origin,
        offsets=offsets,
        broker_us=microseconds(broker_ms),
        values=_binary([r.value for r in fetched], origin, span),
        keys=_binary([r.key for r in fetched], origin, span),
        span=span,
        headers=[tuple(r.headers) for r in fetched] if headers else None,
    )


def nothing(origin: TopicPartition, span: OffsetSpan) -> Records:
    """Return no records, accounting for offsets that hold none (control batches)."""
    return columnar(origin, (), span)


def microseconds(broker_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return Kafka's timestamps in microseconds; negative (none given) becomes `NO_TIME`."""
    return np.where(broker_ms < 0, NO_TIME, broker_ms * 1000)


def _binary(
    column: Sequence[bytes | None], origin: TopicPartition, span: OffsetSpan
) -> pa.BinaryArray:
    array: pa.BinaryArray | pa.ChunkedArray[Any] = pa.array(column, pa.binary())
    if not isinstance(array, pa.BinaryArray):  # chunked: it did not fit
        msg = (
            f"{origin.source} offsets [{span.start}, {span.end}): more than 2 GiB "
            "decompressed in one fetch; lower the broker's max.message.bytes"
        )
        raise WorldError(msg)
    return array
