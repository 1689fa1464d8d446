"""One published file against the record that names it: footer, schema, path and rows."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (verification reads what was published)

from streamproc.analytics.roots import RootPath, content
from streamproc.core.definition import Definition
from streamproc.core.record import FileEntry, LogRecord, file_stem, final_name
from streamproc.core.replays import parts_source
from streamproc.core.schemas import PUBLISHED
from streamproc.core.values import UNKNOWN_CITY, Flag, OffsetSpan

_PATH: Final = re.compile(
    r"(?P<dataset>[a-z]+)/(window=(?P<window>[^/]+)/)?city=(?P<city>[^/]+)"
    r"/date=(?P<date>\d{4}-\d{2}-\d{2})/(?P<stem>[^/]+)\.parquet"
)
_DATED_BY: Final = {
    "readings": "event_time",
    "late": "event_time",
    "alerts": "event_time",
    "aggregates": "start",
}


def dated_by(dataset: str) -> str:
    """Return the column whose local date names the folder; empty where none does."""
    return _DATED_BY.get(dataset, "")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the rows of one record may lie.

    Attributes:
        parts_source: the `source` of its aggregate rows.
        span: offsets the record accounts for.
        city: the city its topic belongs to, None if the device list decides.
        devices: city → its registered devices.
        zones: city → IANA name.
    """

    source: str
    parts_source: str
    stem: str
    span: OffsetSpan
    city: str | None
    devices: Mapping[str, frozenset[str]]
    zones: Mapping[str, str]

    @classmethod
    def of(cls, record: LogRecord, definition: Definition) -> Self:
        """Return the placement under the definition its rows were made with."""
        span = OffsetSpan(record.start, record.next)
        devices: dict[str, set[str]] = {}
        for spec in definition.devices:
            devices.setdefault(spec.city, set()).add(spec.device)
        source = f"{record.topic}/{record.partition}"
        return cls(
            source=source,
            parts_source=parts_source(source, record.topic_id),
            stem=file_stem(
                record.topic, record.partition, record.n, span, record.attempt
            ),
            span=span,
            city=dict(definition.topic_cities).get(record.topic),
            devices={city: frozenset(names) for city, names in devices.items()},
            zones={spec.slug: spec.timezone for spec in definition.cities},
        )


@dataclass(frozen=True, slots=True)
class FileRows:
    """The columns of one file that are checked; those its dataset lacks are None."""

    sources: frozenset[str]
    devices: frozenset[str] | None
    times: pl.Series | None
    offsets: npt.NDArray[np.int64] | None
    ordinals: npt.NDArray[np.int32] | None
    late: int


def read_rows(path: RootPath, entry: FileEntry) -> tuple[FileRows | None, list[str]]:
    """Return the rows to check, or what keeps the file from being read."""
    published = PUBLISHED.get(entry.dataset)
    if published is None:
        return None, [f"{entry.dataset!r} is no dataset"]
    try:
        with pq.ParquetFile(content(path)) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
            wanted = {"source", "device", "offset", "ordinal", "flags"}
            wanted.add(_DATED_BY.get(entry.dataset, "source"))
            columns = [name for name in schema.names if name in wanted]
            table = file.read(columns)
    except (pa.ArrowException, OSError) as error:
        return None, [f"cannot be read as Parquet: {error}"]
    if rows != entry.rows:
        return None, [f"its footer says {rows} rows, the log {entry.rows}"]
    if not schema.equals(published):
        return None, ["its schema is not the published one"]
    return _rows(table, entry.dataset), []


def check_rows(rows: FileRows, entry: FileEntry, where: Placement) -> Iterator[str]:
    """Yield what is wrong with the path, and with rows that do not belong under it (O7)."""
    match = _PATH.fullmatch(entry.path)
    if match is None or match["dataset"] != entry.dataset:
        yield f"not a path of dataset {entry.dataset}"
        return
    keys = [(k, match[k]) for k in ("window", "city", "date") if match[k]]
    if entry.path != final_name(entry.dataset, keys, where.stem):
        yield f"not named after its record, {where.stem}"
    parts = entry.dataset == "aggregates"
    source = where.parts_source if parts else where.source
    if rows.sources != {source}:
        others = ", ".join(sorted(rows.sources - {source})[:3]) or "nothing"
        yield f"holds rows of {others}, not only of {source}"
    yield from _city_faults(rows, match["city"], entry.dataset, where)
    yield from _date_faults(rows, match["city"], match["date"], where)
    yield from _offset_faults(rows, entry, where)


def doubled(files: Sequence[FileRows]) -> list[tuple[int, int]]:
    """Return the (offset, ordinal) that are there more than once, ascending."""
    some = [rows for rows in files if rows.offsets is not None]
    if not some:
        return []
    frame = pl.DataFrame(
        {
            "offset": np.concatenate([rows.offsets for rows in some]),
            "ordinal": np.concatenate([rows.ordinals for rows in some]),
        }
    )
    found = frame.filter(frame.is_duplicated()).unique().sort("offset", "ordinal")
    return [(int(offset), int(ordinal)) for offset, ordinal in found.iter_rows()]


def _rows(table: "pa.Table", dataset: str) -> FileRows:
    def names(column: str) -> frozenset[str]:
        return frozenset(map(str, table.column(column).unique().to_pylist()))

    def numbers(column: str) -> Any:
        there = column in table.column_names
        return table.column(column).to_numpy() if there else None

    flags = numbers("flags") if dataset == "readings" else None
    dated = _DATED_BY.get(dataset)
    times = None if dated is None else pl.from_arrow(table.column(dated))
    assert times is None or isinstance(times, pl.Series)
    return FileRows(
        sources=names("source"),
        devices=names("device") if "device" in table.column_names else None,
        times=times,
        offsets=numbers("offset"),
        ordinals=numbers("ordinal"),
        late=0 if flags is None else int(np.count_nonzero(flags & int(Flag.LATE))),
    )


def _city_faults(
    rows: FileRows, city: str, dataset: str, where: Placement
) -> Iterator[str]:
    if city == UNKNOWN_CITY and dataset == "quarantine":
        return
    if city not in where.zones:
        yield f"{city} is no city of the definition in force"
    if where.city is not None:
        if where.city != city:
            yield f"its topic belongs to {where.city}"
        return
    strangers = (rows.devices or frozenset()) - where.devices.get(city, frozenset())
    if strangers:
        some = ", ".join(sorted(strangers)[:3])
        yield f"{len(strangers)} of its devices are not registered in {city}: {some}"


def _date_faults(
    rows: FileRows, city: str, day: str, where: Placement
) -> Iterator[str]:
    if rows.times is None or city not in where.zones:
        return
    local = rows.times.dt.convert_time_zone(where.zones[city]).dt.date()
    others = local.filter(local.cast(pl.String) != day)
    if len(others):
        yield f"{len(others)} of its rows are of another local date: {others[0]}"


def _offset_faults(rows: FileRows, entry: FileEntry, where: Placement) -> Iterator[str]:
    if rows.offsets is None or not len(rows.offsets):
        return
    low, high = int(rows.offsets.min()), int(rows.offsets.max())
    span = where.span
    # An alert may name the offset of an earlier record, which began what now is due.
    if entry.dataset != "alerts" and (low < span.start or high >= span.end):
        yield f"offsets {low} to {high} leave the record's [{span.start}, {span.end})"
    if (low, high) != (entry.first_offset, entry.last_offset):
        yield (
            f"offsets {low} to {high}, "
            f"the log says {entry.first_offset} to {entry.last_offset}"
        )
