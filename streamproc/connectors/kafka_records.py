"""From aiokafka's records to columnar `Records`: the ordinary path, and single records.

Measured with 145-byte values on a shared machine: 0.4 us of CPU a record here, and some 2 in
aiokafka. `kafka_batches` does without these objects.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streamproc.core.payloads import Payloads
from streamproc.core.values import NO_TIME, OffsetSpan, Records, TopicPartition


def columnar(
    origin: TopicPartition,
    fetched: Sequence[Any],
    span: OffsetSpan,
    *,
    headers: bool = False,
) -> Records:
    """Return the columns of aiokafka's records that arrived in offset order."""
    count = len(fetched)
    offsets = np.fromiter([r.offset for r in fetched], np.int64, count)
    # Format 0 has no timestamps.
    broker_ms = [-1 if r.timestamp is None else r.timestamp for r in fetched]
    return Records(
        origin=origin,
        offsets=offsets,
        broker_us=microseconds(np.fromiter(broker_ms, np.int64, count)),
        values=Payloads.of([r.value for r in fetched]),
        keys=Payloads.of([r.key for r in fetched]),
        span=span,
        headers=[tuple(r.headers) for r in fetched] if headers else None,
    )


def nothing(origin: TopicPartition, span: OffsetSpan) -> Records:
    """Return no records, accounting for offsets that hold none (control batches)."""
    return columnar(origin, (), span)


def microseconds(broker_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return Kafka's timestamps in microseconds; negative (none given) becomes `NO_TIME`."""
    return np.where(broker_ms < 0, NO_TIME, broker_ms * 1000)
