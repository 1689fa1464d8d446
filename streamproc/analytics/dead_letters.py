"""Looking into `quarantine/`: how many records were refused, why, and what they held."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import polars as pl

from streamproc.analytics.dataset import open_quarantine
from streamproc.analytics.replays import read_plans, taken_frame
from streamproc.analytics.roots import Root, root_path

PREVIEW_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records to look at; None means any.

    Attributes:
        since: local dates from this one on.
        replayed: also those that a replay has put back.
    """

    cities: Sequence[str] | None = None
    reasons: Sequence[str] | None = None
    dates: Sequence[date] | None = None
    source: str | None = None
    offset: int | None = None
    since: date | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetterGroup:
    """The refused records of one city, reason and day.

    Attributes:
        date: local, as in the path.
        detail: that of the first record, as an example.
    """

    city: str
    reason: str
    date: str
    records: int
    payload_bytes: int
    detail: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One refused record.

    Attributes:
        broker_time: ISO 8601 in UTC, None where the record had none.
        preview: the payload's beginning, see `preview`; None for an empty record.
        payload_bytes: the whole payload's size, of which at most 64 KiB are kept.
    """

    city: str
    date: str
    source: str
    offset: int
    broker_time: str | None
    reason: str
    detail: str
    preview: str | None
    payload_bytes: int


def list_dead_letters(
    root: Root, chosen: Filter | None = None
) -> list[DeadLetterGroup]:
    """Return the groups, sorted by city, date and reason."""
    groups = (
        _select(root, chosen or Filter())
        .sort("source", "offset")
        .group_by("city", "date", "reason")
        .agg(
            pl.len().alias("records"),
            pl.col("payload_bytes").sum(),
            pl.col("detail").first(),
        )
        .sort("city", "date", "reason")
        .collect()
    )
    return [
        DeadLetterGroup(
            city=row["city"],
            reason=row["reason"],
            date=row["date"].isoformat(),
            records=row["records"],
            payload_bytes=row["payload_bytes"],
            detail=row["detail"],
        )
        for row in groups.iter_rows(named=True)
    ]


def show_dead_letters(
    root: Root, chosen: Filter | None = None, limit: int = 20
) -> list[DeadLetter]:
    """Return the first `limit` records, sorted by city, date, source and offset."""
    rows = (
        _select(root, chosen or Filter())
        .sort("city", "date", "source", "offset")
        .head(limit)
        .collect()
    )
    return [_letter(row) for row in rows.iter_rows(named=True)]


def preview(payload: bytes, characters: int = PREVIEW_CHARACTERS) -> str:
    """Return the payload's beginning as one printable line.

    UTF-8 as text, with what a terminal would act on escaped; anything else in hex after
    `0x`. What was cut off is marked by an ellipsis.
    """
    # A character has at most 4 bytes; 3 more may belong to one that was cut.
    head = payload[: 4 * characters + 3]
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        cut = len(head) < len(payload) and error.start > len(head) - 4
        text = head[: error.start].decode() if cut else f"0x{head.hex()}"
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:characters])
    whole = len(text) <= characters and len(head) == len(payload)
    return shown if whole else f"{shown}…"


def _select(root: Root, chosen: Filter) -> pl.LazyFrame:
    frame = open_quarantine(root, chosen.cities, chosen.dates)
    frame = frame.with_columns(pl.col("source", "reason", "detail").cast(pl.String))
    if chosen.reasons is not None:
        frame = frame.filter(pl.col("reason").is_in(list(chosen.reasons)))
    if chosen.source is not None:
        frame = frame.filter(pl.col("source") == chosen.source)
    if chosen.offset is not None:
        frame = frame.filter(pl.col("offset") == chosen.offset)
    if chosen.since is not None:
        frame = frame.filter(pl.col("date") >= chosen.since)
    plans = [] if chosen.replayed else read_plans(root_path(root))
    if plans:
        frame = frame.join(taken_frame(plans), on=["source", "offset"], how="anti")
    return frame


def dead_letter_keys(root: Root, chosen: Filter) -> pl.DataFrame:
    """Return source, offset, the payload's bytes (whole and kept) of the chosen records."""
    kept = pl.col("payload").bin.size().alias("kept_bytes")
    columns = ("source", "offset", "payload_bytes")
    return _select(root, chosen).select(*columns, kept).sort(columns[:2]).collect()


def dead_letter_rows(root: Root, keys: pl.DataFrame) -> pl.DataFrame:
    """Return source, offset, broker_time and payload of these (source, offset), sorted."""
    rows = _select(root, Filter(replayed=True))
    columns = ("source", "offset", "broker_time", "payload")
    found = rows.join(keys.lazy(), on=["source", "offset"], how="semi")
    return found.select(columns).sort("source", "offset").collect()


def _letter(row: dict[str, Any]) -> DeadLetter:
    when: datetime | None = row["broker_time"]
    payload: bytes | None = row["payload"]
    return DeadLetter(
        city=row["city"],
        date=row["date"].isoformat(),
        source=row["source"],
        offset=row["offset"],
        broker_time=None if when is None else when.isoformat(),
        reason=row["reason"],
        detail=row["detail"],
        preview=None if payload is None else preview(payload),
        payload_bytes=row["payload_bytes"],
    )
