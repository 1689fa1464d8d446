"""Emissions → Parquet files in staging, one per dataset, window, city and date.

Theory of operation. `append` only keeps the emission's batches. `write`, once per commit,
takes one dataset after the other: labels each row with its file, puts each file's rows
together (`parquet_scatter`), writes them with the layout that measured best
(`parquet_files`), reopens the footer, and hashes what is there. Hive columns become the
path and are never stored. Everything heavy (kernels, Parquet, hashing) runs without the
GIL, so heartbeats go on.

Memory: what is buffered, plus while writing at most one dataset's rows once more.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from typing import Any, Final

import pyarrow as pa

from streamproc.connectors.parquet_files import (
    LAYOUTS,
    Layout,
    ParquetOptions,
    choose,
    file_metadata,
    write_table,
)
from streamproc.connectors.parquet_scatter import Route, identity, split, values_of
from streamproc.core.ports import StagedFile, Store
from streamproc.core.record import final_name
from streamproc.core.schemas import (
    ALERT,
    PUBLISHED,
    ROUTED_AGGREGATE,
    ROUTED_LATE,
    ROUTED_QUARANTINE,
    ROUTED_READING,
)
from streamproc.core.values import AlertTransition, Emission, OffsetSpan

DateOf = Callable[[str, int], date]
"""(city slug, microseconds since 1970 UTC) → the local date there."""

_ROUTED: Final = {
    "readings": ROUTED_READING,
    "aggregates": ROUTED_AGGREGATE,
    "late": ROUTED_LATE,
    "quarantine": ROUTED_QUARANTINE,
}
_ALERTS: Final = "alerts"
# An AlertTransition with its strings; only the order of magnitude matters.
_ALERT_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class _Widths:
    """How the bytes of a batch are counted without asking each of its columns."""

    row_bytes: int
    variable: tuple[int, ...]
    dictionaries: tuple[int, ...]


def _widths_of(schema: pa.Schema) -> _Widths:
    row_bytes, variable, dictionaries = 0, [], []
    for at, kind in enumerate(schema.types):
        if pa.types.is_dictionary(kind):
            row_bytes += kind.index_type.bit_width // 8
            dictionaries.append(at)
        elif pa.types.is_primitive(kind):
            row_bytes += max(1, kind.bit_width // 8)
        else:
            variable.append(at)
    return _Widths(row_bytes, tuple(variable), tuple(dictionaries))


_WIDTHS: Final = {dataset: _widths_of(schema) for dataset, schema in _ROUTED.items()}


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What every file tells about its making, under `streamproc.*` in its metadata.

    Attributes:
        definition: sha256 of the definition in force.
        timezones: city slug → IANA name; `UTC` for a city that is not in it.
    """

    job: str
    code_version: str
    definition: str
    timezones: Mapping[str, str]

    def metadata(self, dataset: str, city: str) -> dict[bytes, bytes]:
        """Return the key-value metadata of a file."""
        return file_metadata(
            {
                "dataset": dataset,
                "job": self.job,
                "code_version": self.code_version,
                "definition": self.definition,
                "timezone": self.timezones.get(city, "UTC"),
            }
        )


@dataclass(slots=True)
class _Held:
    """What is buffered of one dataset."""

    batches: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0


class ParquetWriter:
    """`core.ports.TableWriter` for one partition. Not thread-safe.

    Args:
        facts: what files tell about themselves; `describe` replaces it.
        date_of: where alerts are filed; the tables bring their dates with them.
        options: codec and row groups.
    """

    def __init__(
        self,
        facts: FileFacts,
        date_of: DateOf,
        options: ParquetOptions | None = None,
    ) -> None:
        self._facts = facts
        self._date_of = date_of
        self._options = options or ParquetOptions()
        self.clear()

    def describe(self, facts: FileFacts, date_of: DateOf) -> None:
        """Write files under a new definition from the next `write` on."""
        self._facts = facts
        self._date_of = date_of

    def append(self, emission: Emission) -> None:
        """See the port."""
        self._keep("readings", emission.readings)
        self._keep("aggregates", emission.aggregates)
        self._keep("late", emission.late)
        self._keep("quarantine", emission.quarantine)
        self._alerts.extend(emission.alerts)
        self._bytes += _ALERT_BYTES * len(emission.alerts)

    def append_aggregates(self, aggregates: pa.RecordBatch) -> None:
        """See the port."""
        self._keep("aggregates", aggregates)

    def buffered(self) -> tuple[int, int]:
        """See the port. Bytes are Arrow's, each shared dictionary counted once."""
        rows = sum(held.rows for held in self._held.values())
        return rows + len(self._alerts), self._bytes

    def write(
        self, store: Store, staging: str, stem: str, span: OffsetSpan
    ) -> Sequence[StagedFile]:
        """See the port. When it raises, everything is still held.

        Offsets of an entry are the least and the greatest among its rows, inclusive;
        aggregates have none of their own and carry those of `span`.
        """
        files: list[StagedFile] = []
        for dataset, layout, route, table in self._tables():
            metadata = self._facts.metadata(dataset, route.city)
            table = table.replace_schema_metadata(metadata)  # noqa: PLW2901  (same rows)
            staged = f"{staging}/{len(files):05d}-{dataset}.parquet"
            written = write_table(store, staged, table, layout, self._options)
            first, last = _offsets(table, span)
            files.append(
                StagedFile(
                    staged=staged,
                    final=final_name(dataset, _hive(route), stem),
                    size=written.size,
                    rows=table.num_rows,
                    sha256=written.sha256,
                    dataset=dataset,
                    first_offset=first,
                    last_offset=last,
                )
            )
        store.settle()  # Before anything is forgotten: an upload may still fail.
        self.clear()
        return tuple(files)

    def clear(self) -> None:
        """See the port."""
        self._held = {dataset: _Held() for dataset in _ROUTED}
        self._alerts: list[AlertTransition] = []
        self._bytes = 0
        # The batches below keep these arrays alive, so an address cannot be used twice.
        self._dictionaries: set[tuple[int, ...]] = set()

    def _keep(self, dataset: str, batch: pa.RecordBatch) -> None:
        assert batch.schema.equals(_ROUTED[dataset]), (dataset, batch.schema)
        if not batch.num_rows:
            return
        held = self._held[dataset]
        held.batches.append(batch)
        held.rows += batch.num_rows
        widths = _WIDTHS[dataset]
        self._bytes += widths.row_bytes * batch.num_rows
        self._bytes += sum(batch.column(at).nbytes for at in widths.variable)
        for at in widths.dictionaries:
            column: Any = batch.column(at)
            names = column.dictionary
            key = identity(names)
            if key not in self._dictionaries:
                self._dictionaries.add(key)
                self._bytes += names.nbytes

    def _tables(self) -> Iterator[tuple[str, Layout, Route, pa.Table]]:
        for dataset, held in self._held.items():
            if held.batches:
                layout = choose(dataset, held.batches, self._options)
                for route, table in split(held.batches, PUBLISHED[dataset]):
                    yield dataset, layout, route, table
        for route, table in alert_tables(self._alerts, self._date_of):
            yield _ALERTS, LAYOUTS[_ALERTS], route, table


def alert_tables(
    alerts: Sequence[AlertTransition], date_of: DateOf
) -> Iterator[tuple[Route, pa.Table]]:
    """Yield the rows of `alerts/` per city and local date, each in order of arrival."""

    def route(alert: AlertTransition) -> Route:
        return Route("", alert.city, date_of(alert.city, alert.event_us))

    # The sort is stable, so transitions of one episode keep their order.
    for key, group in groupby(sorted(alerts, key=route), key=route):
        rows = list(group)
        columns = [_alert_column(rows, column) for column in ALERT]
        yield key, pa.Table.from_arrays(columns, schema=ALERT)


def _alert_column(
    rows: Sequence[AlertTransition], column: "pa.Field[Any]"
) -> "pa.Array[Any]":
    name = "event_us" if column.name == "event_time" else column.name
    values = [getattr(row, name) for row in rows]
    array: pa.Array[Any] = (
        pa.array(values, pa.string()).dictionary_encode()
        if pa.types.is_dictionary(column.type)
        else pa.array(values, column.type)
    )
    return array


def _hive(route: Route) -> list[tuple[str, str]]:
    keys = [("city", route.city), ("date", route.date.isoformat())]
    return [("window", route.window), *keys] if route.window else keys


def _offsets(table: pa.Table, span: OffsetSpan) -> tuple[int, int]:
    if "offset" not in table.schema.names:
        return span.start, max(span.start, span.end - 1)
    chunks = [values_of(chunk) for chunk in table.column("offset").chunks]
    return min(int(c.min()) for c in chunks), max(int(c.max()) for c in chunks)
