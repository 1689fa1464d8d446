"""Hand-made emissions, and whole roots written through the real log, store and writer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from streamproc.connectors.local_store import LocalStore
from streamproc.connectors.parquet_sink import FileFacts, ParquetWriter
from streamproc.core.chain import Draft, Genesis, LogIdentity
from streamproc.core.definition import CitySpec, Definition, PropertySpec
from streamproc.core.record import LogRecord, RecordCounts, log_folder
from streamproc.core.schemas import (
    ROUTED_AGGREGATE,
    ROUTED_LATE,
    ROUTED_QUARANTINE,
    ROUTED_READING,
)
from streamproc.core.values import AlertTransition, Counts, Emission, OffsetSpan
from streamproc.runtime.partition_log import PartitionLog

Row = Mapping[str, Any]

ZONES = {
    "razlog": "Europe/Sofia",
    "nevers": "Europe/Paris",
    "ange": "Europe/Stockholm",
    "jelgava": "Europe/Riga",
}
DEFINITION = Definition(
    job="region",
    windows=(),
    rules=(),
    properties=(
        PropertySpec("pm10", "ug/m3", "Particles", 0.0, 1000.0),
        PropertySpec("lid", "1", states=(("closed", 0.0), ("open", 1.0))),
    ),
    cities=tuple(CitySpec(slug, slug.title(), zone) for slug, zone in ZONES.items()),
    topic_cities=tuple((f"telemetry.{slug}", slug) for slug in ZONES),
)
HOUR_US = 3_600_000_000
START_US = 1_699_999_200_000_000
"""2023-11-14 22:00 UTC: midnight in Sofia, 23:00 in Paris."""


def date_of(city: str, us: int) -> date:
    """The local date, slowly."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
    return moment.astimezone(ZoneInfo(ZONES.get(city, "UTC"))).date()


def reading(offset: int, **changes: Any) -> Row:
    row = {
        "city": "razlog",
        "device": "d1",
        "property": "pm10",
        "event_time": START_US + offset * 1_000_000,
        "value": float(offset),
        "quality": 1,
        "flags": 0,
        "ingest_time": START_US + offset * 1_000_000,
        "source": "telemetry.razlog/0",
        "offset": offset,
        "ordinal": 0,
        **changes,
    }
    return {"date": date_of(row["city"], row["event_time"]), **row}


def late_row(offset: int, **changes: Any) -> Row:
    changes = {"window": "1h", "start": START_US, "behind_us": 5, "flags": 1, **changes}
    return reading(offset, **changes)


def refused(offset: int, **changes: Any) -> Row:
    return {
        "city": "razlog",
        "date": date(2023, 11, 15),
        "source": "telemetry.razlog/0",
        "offset": offset,
        "broker_time": START_US,
        "reason": "malformed",
        "detail": "line 1: not JSON",
        "payload": b"{",
        "payload_bytes": 1,
        **changes,
    }


def part(values: Sequence[float], start: int = START_US, **changes: Any) -> Row:
    """An aggregate row as a direct computation over `values`, one a minute."""
    n = len(values)
    mean = sum(values) / n if n else None
    m2 = sum((v - mean) ** 2 for v in values) if mean is not None else 0.0
    row = {
        "window": "1h",
        "city": "razlog",
        "device": "d1",
        "property": "pm10",
        "unit": "ug/m3",
        "start": start,
        "end": start + HOUR_US,
        "count": n,
        "invalid": 0,
        "sum": float(sum(values)),
        "min": min(values, default=None),
        "max": max(values, default=None),
        "mean": mean,
        "m2": m2,
        "variance": m2 / n if n else None,
        "first": values[0] if n else None,
        "first_time": start if n else None,
        "last": values[-1] if n else None,
        "last_time": start + (n - 1) * 60_000_000 if n else None,
        "sketch": None,
        "slots": (1 << n) - 1,
        "coverage": n / 60,
        "source": "telemetry.razlog/0",
        "part": 0,
        "partial": False,
        "close_reason": "watermark",
        **changes,
    }
    return {"date": date_of(row["city"], row["start"]), **row}


def alert(offset: int, transition: int = 0, **changes: Any) -> AlertTransition:
    made = AlertTransition(
        alert_id="a1",
        transition=transition,
        state="firing" if transition % 2 == 0 else "cleared",
        rule="high",
        rule_version="0" * 16,
        severity="warning",
        city="razlog",
        device="d1",
        property="pm10",
        window=None,
        event_us=START_US + offset * 1_000_000,
        value=51.0,
        source="telemetry.razlog/0",
        offset=offset,
        early=True,
    )
    return replace(made, **changes)


def batch(rows: Sequence[Row], schema: pa.Schema) -> pa.RecordBatch:
    """Rows to a batch whose dictionaries hold exactly the batch's names."""
    columns: list[Any] = []
    for column in schema:
        values = [row[column.name] for row in rows]
        if pa.types.is_dictionary(column.type):
            columns.append(pa.array(values, pa.string()).dictionary_encode())
        else:
            columns.append(pa.array(values, column.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def emission(
    readings: Sequence[Row] = (),
    aggregates: Sequence[Row] = (),
    late: Sequence[Row] = (),
    quarantine: Sequence[Row] = (),
    alerts: Sequence[AlertTransition] = (),
) -> Emission:
    return Emission(
        span=OffsetSpan(0, 0),
        readings=batch(readings, ROUTED_READING),
        aggregates=batch(aggregates, ROUTED_AGGREGATE),
        late=batch(late, ROUTED_LATE),
        quarantine=batch(quarantine, ROUTED_QUARANTINE),
        alerts=tuple(alerts),
        counts=Counts(),
    )


def writer(**facts: Any) -> ParquetWriter:
    plain = {
        "job": "region",
        "code_version": "test",
        "definition": DEFINITION.sha256(),
        "timezones": ZONES,
    }
    return ParquetWriter(FileFacts(**{**plain, **facts}), date_of)


@dataclass
class Town:
    """One partition of a root, committed to by the real log."""

    store: LocalStore
    log: PartitionLog
    writer: ParquetWriter
    next: int = 0

    def commit(
        self, made: Emission, records: int, late: int = 0, *, snapshot: bool = False
    ) -> LogRecord:
        """Commit and publish an emission that stands for `records` offsets."""
        span = OffsetSpan(self.next, self.next + records)
        self.writer.append(made)
        files = self.writer.write(
            self.store, self.log.staging(), self.log.stem(span), span
        )
        refused_rows = made.quarantine.num_rows
        counts = RecordCounts(
            records=records,
            decoded=records - refused_rows,
            readings=made.readings.num_rows,
            late=late,
            quarantined=refused_rows,
            aggregates=made.aggregates.num_rows,
        )
        self.next = span.end
        ref = None
        if snapshot:
            ref = self.log.stage_snapshot({"t": pa.table({"x": [1]})})
        record = self.log.commit(
            Draft(
                kind="commit",
                next=span.end,
                files=files,
                counts=counts,
                snapshot=ref,
            )
        )
        self.log.publish()
        self.log.clean()
        return record


def town(
    root: Path,
    city: str = "razlog",
    *,
    job: str = "region",
    topic: str | None = None,
    definition: Definition = DEFINITION,
    attempts: Callable[[], str] | None = None,
    **log_options: Any,
) -> Town:
    """Open the log of `telemetry.<city>/0` below `root` and fence it."""
    topic = topic or f"telemetry.{city}"
    numbers = count()
    store = LocalStore(root, ballast_bytes=0)
    identity = LogIdentity(
        job=job,
        topic=topic,
        topic_id="id",
        partition=0,
        owner="test",
        code_version="test",
        state_version=1,
    )
    log = PartitionLog(
        store,
        log_folder(job, topic, "id", 0),
        identity,
        attempts or (lambda: f"{next(numbers):08d}"),
        **log_options,
    )
    log.open(definition, lambda: Genesis(0, "start = earliest"))
    return Town(store, log, writer(job=job), next=log.head.next)
