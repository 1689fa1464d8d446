"""Build decoded batches from plain tuples, for tests of the processor."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from streamproc.core.payloads import Payloads
from streamproc.core.schemas import DECODED
from streamproc.core.values import Decoded, OffsetSpan, Records, Reject, TopicPartition


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a record."""

    device: str
    property: str
    event_us: int
    value: float
    unit: str | None = None
    quality: int = 1
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its readings, or with none and a reject the decoder's refusal."""

    offset: int
    readings: tuple[Reading, ...] = ()
    broker_us: int = -1
    reject: Reject | None = None
    payload: bytes | None = field(default=b"{}")


def _names(names: Sequence[str | None]) -> "pa.Array[Any]":
    return pa.array(names, pa.string()).dictionary_encode()


def batch_of(
    origin: TopicPartition, records: Sequence[Record], end: int | None = None
) -> tuple[Records, Decoded]:
    """Return what a source and a decoder would hand over; `end` closes the span."""
    offsets = np.array([r.offset for r in records], np.int64)
    start = int(offsets[0]) if len(records) else 0
    stop = end if end is not None else (int(offsets[-1]) + 1 if len(records) else 0)
    payloads = Payloads.of([r.payload for r in records])
    keys = Payloads.nulls(len(records))
    source = Records(
        origin,
        offsets,
        np.array([r.broker_us for r in records], np.int64),
        payloads,
        keys,
        OffsetSpan(start, max(start, stop)),
    )
    rows = [
        (row, ordinal, reading)
        for row, record in enumerate(records)
        for ordinal, reading in enumerate(record.readings)
    ]
    columns = [
        pa.array([row for row, _, _ in rows], pa.int32()),
        pa.array([ordinal for _, ordinal, _ in rows], pa.int32()),
        _names([r.device for _, _, r in rows]),
        _names([r.property for _, _, r in rows]),
        _names([r.unit for _, _, r in rows]),
        pa.array([r.event_us for _, _, r in rows], pa.int64()).view(
            DECODED.field("event_time").type
        ),
        pa.array([r.value for _, _, r in rows], pa.float64()),
        pa.array([r.quality for _, _, r in rows], pa.int8()),
        pa.array([r.flags for _, _, r in rows], pa.uint16()),
    ]
    readings = pa.RecordBatch.from_arrays(columns, schema=DECODED)
    rejects = tuple(
        Reject(row, record.reject.reason, record.reject.detail)
        for row, record in enumerate(records)
        if record.reject is not None
    )
    return source, Decoded(readings, rejects)
