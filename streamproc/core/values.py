"""The values that travel between the parts: frozen, without behaviour of their own.

Times are int64 microseconds since 1970 UTC unless a name says otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.core.payloads import Payloads

UNKNOWN_CITY = "_unknown"
NO_TIME = -1
PAYLOAD_BYTES_MAX = 64 * 1024


class Flag(IntFlag):
    """Bits of the `flags` column of `readings/`."""

    LATE = 1
    DUPLICATE = 2
    CONFLICT = 4
    OUT_OF_RANGE = 8
    UNIT_DEFAULTED = 16
    TZ_ASSUMED = 32
    CLOCK_SUSPECT = 64
    CALIBRATED = 128
    UNREGISTERED = 256
    STRING_NUMBER = 512


class Reason(StrEnum):
    """Why a record is in quarantine; doubles as metric label."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    WRONG_TYPE = "wrong_type"
    MISSING_FIELD = "missing_field"
    BAD_TIME = "bad_time"
    BAD_VALUE = "bad_value"
    BAD_TEXT = "bad_text"
    UNKNOWN_CITY = "unknown_city"
    UNKNOWN_DEVICE = "unknown_device"
    UNKNOWN_PROPERTY = "unknown_property"
    UNKNOWN_UNIT = "unknown_unit"
    UNKNOWN_SCHEMA = "unknown_schema"
    REGISTRY_UNAVAILABLE = "registry_unavailable"
    FUTURE = "future"
    PAST = "past"
    DEVICE_CAP = "device_cap"
    INVALID_ROW = "invalid_row"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True, order=True)
class TopicPartition:
    """One Kafka partition, or the one partition of a stream of files."""

    topic: str
    partition: int

    @property
    def source(self) -> str:
        """The `source` column: `<topic>/<partition>`."""
        return f"{self.topic}/{self.partition}"


@dataclass(frozen=True, slots=True)
class OffsetSpan:
    """Half-open interval of offsets; `end` is what Kafka wants committed."""

    start: int
    end: int

    def __post_init__(self) -> None:
        assert 0 <= self.start <= self.end, (self.start, self.end)

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Records:
    """Undecoded records of one partition, columnar, in ascending offset order.

    Attributes:
        origin: the partition.
        offsets: int64[n], strictly ascending, holes allowed.
        broker_us: int64[n], the record's timestamp in microseconds, `NO_TIME` if none.
        values: n payloads, null for a tombstone.
        keys: n keys, null where there is none.
        span: the offsets this batch accounts for; `span.end` may lie beyond the last
            record (control records, compaction), `span.start` before the first.
        headers: per record, only where the fetch path kept them.
    """

    origin: TopicPartition
    offsets: npt.NDArray[np.int64]
    broker_us: npt.NDArray[np.int64]
    values: Payloads
    keys: Payloads
    span: OffsetSpan
    headers: Sequence[Sequence[tuple[str, bytes]]] | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def between(self, start: int, end: int) -> "Records":
        """Return the records with `start <= offset < end`, without copying."""
        low, high = np.searchsorted(self.offsets, (start, end))
        return Records(
            self.origin,
            self.offsets[low:high],
            self.broker_us[low:high],
            self.values.between(int(low), int(high)),
            self.keys.between(int(low), int(high)),
            OffsetSpan(max(start, self.span.start), min(end, self.span.end)),
            None if self.headers is None else self.headers[int(low) : int(high)],
        )


@dataclass(frozen=True, slots=True)
class Reject:
    """One record that was refused: `row` is its index in the batch it came with."""

    row: int
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """One record that by its kind holds no reading and is no fault: `row` as in `Reject`.

    `kind` is one of few words, for it labels a metric.
    """

    row: int
    kind: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder made of a batch: `readings` (schema `core.schemas.DECODED`) and rejects.

    A record is either decoded whole, rejected whole or ignored: `row` values of the three are
    disjoint, together every row of the batch. `readings` is sorted by (row, ordinal), `rejects`
    and `ignored` by row with one entry a row.

    Attributes:
        vocabulary: stands for the names behind the codes of `readings`. Batches with the very
            same object share them: a later dictionary begins with the names of an earlier one,
            so whoever knows those need only look at what follows. None: this batch's only.
    """

    readings: pa.RecordBatch
    rejects: tuple[Reject, ...] = ()
    vocabulary: object | None = None
    ignored: tuple[Ignored, ...] = ()


TimerKind = Literal["idle", "silence", "final"]


@dataclass(frozen=True, slots=True)
class TimerDecision:
    """A decision that did not come from data; logged before its alerts leave.

    Attributes:
        kind: `idle` closes the key's windows that hold data; `silence` only lets
            `for` and `no_data` run to `effective_us`; `final` closes every open window.
        city: the city's slug.
        device: the device, with `watermark = "device"`; else None.
        offset: applies before this offset is folded; equals the `next` of its commit.
        effective_us: event time up to which `for` and `no_data` are judged.
    """

    kind: TimerKind
    city: str
    device: str | None
    offset: int
    effective_us: int


AlertState = Literal["firing", "cleared"]


@dataclass(frozen=True, slots=True)
class AlertTransition:
    """One transition of one alert: a row of `alerts/`, a message, a webhook body.

    `(alert_id, transition)` identifies it for ever; both are functions of the data alone.
    `early` tells that a reading rule took it straight from a record, so that it may reach
    the alert topic before the commit; every other one waits in the outbox.
    """

    alert_id: str
    transition: int
    state: AlertState
    rule: str
    rule_version: str
    severity: str
    city: str
    device: str
    property: str
    window: str | None
    event_us: int
    value: float | None
    source: str
    offset: int
    early: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """What one step did, for metrics and the run's summary; keys are city slugs.

    `quarantined` is by city and reason, `ignored` by city and kind of record.
    """

    records: int = 0
    readings: Mapping[str, int] = field(default_factory=dict)
    late: Mapping[str, int] = field(default_factory=dict)
    quarantined: Mapping[tuple[str, str], int] = field(default_factory=dict)
    windows: Mapping[str, int] = field(default_factory=dict)
    ignored: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Emission:
    """All that one step produced. Tables carry routing columns that never reach the files.

    `readings`, `aggregates`, `late` and `quarantine` have the schemas of
    `core.schemas` with `city` (and `date`, for aggregates also `window`) in front.
    """

    span: OffsetSpan
    readings: pa.RecordBatch
    aggregates: pa.RecordBatch
    late: pa.RecordBatch
    quarantine: pa.RecordBatch
    alerts: tuple[AlertTransition, ...]
    counts: Counts
