"""Arrow schemas: what decoders hand over, and the published tables of DESIGN.md "Output".

The text form of each published schema is committed under `schemas/`; a test keeps them equal.
`city`, `date`, `window`, `pack` and `year` are Hive columns: in the path, never in the file
(`window` is a stored column only in `alerts` and `late`).
"""

from typing import Final

import pyarrow as pa

TIME: Final = pa.timestamp("us", tz="UTC")
NAME: Final = pa.dictionary(pa.int32(), pa.string())


def _required(*fields: tuple[str, pa.DataType]) -> "list[pa.Field[pa.DataType]]":
    return [pa.field(name, kind, nullable=False) for name, kind in fields]


DECODED: Final = pa.schema(
    [
        *_required(
            ("row", pa.int32()),
            ("ordinal", pa.int32()),
            ("device", NAME),
            ("property", NAME),
        ),
        pa.field("unit", NAME, nullable=True),
        *_required(
            ("event_time", TIME),
            ("value", pa.float64()),
            ("quality", pa.int8()),
            ("flags", pa.uint16()),
        ),
    ]
)
"""What a decoder hands over, sorted by (row, ordinal).

`row` is the record's index in its batch, `ordinal` the reading's place in its record.
Dictionaries may hold names that no reading of the batch uses. `unit` is null where none was stated.
"""

READING: Final = pa.schema(
    _required(
        ("device", NAME),
        ("property", NAME),
        ("event_time", TIME),
        ("value", pa.float64()),
        ("quality", pa.int8()),
        ("flags", pa.uint16()),
        ("ingest_time", TIME),
        ("source", NAME),
        ("offset", pa.int64()),
        ("ordinal", pa.int32()),
    )
)

AGGREGATE: Final = pa.schema(
    [
        *_required(
            ("device", NAME),
            ("property", NAME),
            ("unit", NAME),
            ("start", TIME),
            ("end", TIME),
            ("count", pa.int64()),
            ("invalid", pa.int64()),
            ("sum", pa.float64()),
        ),
        # A part whose readings are all invalid has no extremes and no mean.
        pa.field("min", pa.float64()),
        pa.field("max", pa.float64()),
        pa.field("mean", pa.float64()),
        pa.field("m2", pa.float64(), nullable=False),
        pa.field("variance", pa.float64()),
        pa.field("first", pa.float64()),
        pa.field("first_time", TIME),
        pa.field("last", pa.float64()),
        pa.field("last_time", TIME),
        pa.field("sketch", pa.binary()),
        pa.field("slots", pa.uint64(), nullable=False),
        pa.field("coverage", pa.float32()),
        *_required(
            ("source", NAME),
            ("part", pa.int64()),
            ("partial", pa.bool_()),
            ("close_reason", NAME),
        ),
    ]
)

ALERT: Final = pa.schema(
    [
        *_required(
            ("alert_id", pa.string()),
            ("transition", pa.int32()),
            ("state", NAME),
            ("rule", NAME),
            ("rule_version", NAME),
            ("severity", NAME),
            ("device", NAME),
            ("property", NAME),
        ),
        pa.field("window", NAME),
        pa.field("event_time", TIME, nullable=False),
        pa.field("value", pa.float64()),
        pa.field("source", NAME, nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
    ]
)

LATE: Final = pa.schema(
    [
        *READING,
        *_required(("window", NAME), ("start", TIME), ("behind_us", pa.int64())),
    ]
)

QUARANTINE: Final = pa.schema(
    [
        *_required(("source", NAME), ("offset", pa.int64())),
        pa.field("broker_time", TIME),
        *_required(("reason", NAME), ("detail", pa.string())),
        pa.field("payload", pa.binary()),
        pa.field("payload_bytes", pa.int64(), nullable=False),
    ]
)

INDICATOR: Final = pa.schema(
    [
        *_required(
            ("station", NAME),
            ("indicator", NAME),
            ("pack_version", NAME),
            ("start", TIME),
            ("end", TIME),
        ),
        pa.field("value", pa.float64()),
        *_required(
            ("unit", NAME),
            ("coverage", pa.float32()),
            ("valid", pa.bool_()),
            ("status", NAME),
            ("revision", pa.int32()),
            ("indicative", pa.bool_()),
        ),
    ]
)

STATION: Final = pa.schema(
    [
        *_required(("city", NAME), ("device", pa.string())),
        pa.field("name", pa.string()),
        pa.field("geometry", pa.binary()),
        pa.field("interval_s", pa.float64()),
    ]
)

PROPERTY: Final = pa.schema(
    [
        *_required(("property", pa.string()), ("unit", pa.string())),
        pa.field("name", pa.string()),
        pa.field("range_low", pa.float64()),
        pa.field("range_high", pa.float64()),
        pa.field("states", pa.map_(pa.string(), pa.float64())),
    ]
)

LEDGER: Final = pa.schema(
    [
        *_required(
            ("source", NAME),
            ("offset", pa.int64()),
            ("ordinal", pa.int32()),
            ("city", NAME),
        ),
        pa.field("device", NAME),
        pa.field("property", NAME),
        pa.field("event_time", TIME),
        pa.field("value", pa.float64()),
        pa.field("bad", pa.bool_(), nullable=False),
    ]
)
"""What `simulate` says it sent, one row a reading; `analytics.ledger` compares.

`bad` marks the rows of records that must be refused: of those only source and offset count,
device and what follows may be null. Values are in the property's canonical unit.
"""

PUBLISHED: Final = {
    "readings": READING,
    "aggregates": AGGREGATE,
    "alerts": ALERT,
    "late": LATE,
    "quarantine": QUARANTINE,
    "indicators": INDICATOR,
    "stations": STATION,
    "properties": PROPERTY,
}

_CITY: Final = pa.field("city", NAME, nullable=False)
_DATE: Final = pa.field("date", pa.date32(), nullable=False)
_WINDOW: Final = pa.field("window", NAME, nullable=False)

ROUTED_READING: Final = pa.schema([_CITY, _DATE, *READING])
ROUTED_AGGREGATE: Final = pa.schema([_WINDOW, _CITY, _DATE, *AGGREGATE])
ROUTED_ALERT: Final = pa.schema([_CITY, _DATE, *ALERT])
ROUTED_LATE: Final = pa.schema([_CITY, _DATE, *LATE])
ROUTED_QUARANTINE: Final = pa.schema([_CITY, _DATE, *QUARANTINE])
"""Routing columns first: the Parquet sink turns them into the path and drops them."""
