"""The heart: decoded records of one partition in, one emission out, state in between.

Theory of operation
-------------------
resolve → fold → close → emit, all of it a function of (state, records): no clock, no IO, and
`now_us` is only remembered as the time of the last acceptance, for silence. Every decision is
taken at a row, in (offset, ordinal) order, so where a batch is cut never changes a result bit for bit.

What a commit does to the state is part of that function and happens in this order: the spans'
steps, then `take` for each timer decision, then `cut`. Late parts therefore follow commits.

`snapshot` writes all of it, and first lets go of what was silent too long, so the process that
goes on and one that restores stand on the same state.
"""

from collections.abc import Mapping
from datetime import tzinfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.core import keeping, silence
from streamproc.core.alerts import AlertEngine
from streamproc.core.counting import by_city, by_kind, by_reason, late_rows
from streamproc.core.definition import Definition
from streamproc.core.emission import FINAL, IDLE, LATE, WATERMARK, Tables
from streamproc.core.panes import parts_of
from streamproc.core.refold import accepted_before
from streamproc.core.resolve import Resolver
from streamproc.core.series import FoldedRows
from streamproc.core.series_table import SeriesTable
from streamproc.core.snapshot_read import load
from streamproc.core.snapshot_write import Chunks, export, stream, whole
from streamproc.core.state import State, keep_all
from streamproc.core.values import (
    AlertTransition,
    Counts,
    Decoded,
    Emission,
    Records,
    TimerDecision,
    TopicPartition,
)
from streamproc.core.windows import LateRows, WindowRows, Windows
from streamproc.kernels import windows_layout as words
from streamproc.kernels.resolve import Accepted
from streamproc.kernels.windows_layout import NONE, Rows

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]

REFOLD_ROWS = 262_144
"""Rows folded at once in a refold: bounds its memory, has no influence on its result."""

_ALERTS = "alerts."


class PartitionProcessor:
    """State of one assigned partition. Not thread-safe; never blocks; never logs.

    A method either returns or is a bug: bad data is quarantine rows.
    """

    def __init__(
        self,
        origin: TopicPartition,
        definition: Definition,
        zones: Mapping[str, tzinfo],
    ) -> None:
        """Begin with nothing; `zones` has the time zone of every city by slug."""
        state = State(
            SeriesTable(
                [spec.slug for spec in definition.cities],
                [spec.property for spec in definition.properties],
            ),
            Windows(
                definition.windows,
                len(definition.cities),
                definition.dedup,
                by_device=definition.watermark == "device",
            ),
        )
        self._install(origin, definition, zones, state)
        self._alerts = AlertEngine(origin, definition)

    def _install(
        self,
        origin: TopicPartition,
        definition: Definition,
        zones: Mapping[str, tzinfo],
        state: State,
    ) -> None:
        self._origin = origin
        self._definition = definition
        self._zones = zones
        self._state = state
        self._slugs = [spec.slug for spec in definition.cities]
        self._codes = {slug: code for code, slug in enumerate(self._slugs)}
        ruled = {rule.window for rule in definition.rules}
        self._ruled = {
            q: spec.quantiles
            for q, spec in enumerate(definition.windows)
            if spec.name in ruled
        }
        self._resolver = Resolver(origin.topic, definition, state.series)
        self._tables = Tables(
            origin, definition, zones, state.series, state.windows.specs
        )
        city = self._resolver.topic_city
        self._topic_city = None if city is None else self._codes[city]

    # --- the main verb ----------------------------------------------------------------

    def step(self, records: Records, decoded: Decoded, now_us: int) -> Emission:
        """Fold one batch of records and return all that it produced.

        `decoded` must be the decoder's answer to exactly these records.
        """
        resolved = self._resolver.resolve(records, decoded)
        self._admit()
        rows = resolved.accepted
        closed, late, alerts = self._fold(rows, now_us)
        quarantine = self._tables.quarantine(
            records, resolved.rejects, self._topic_city
        )
        return Emission(
            span=records.span,
            readings=self._tables.readings(rows),
            aggregates=self._aggregates(closed, WATERMARK),
            late=self._tables.late(rows, late),
            quarantine=quarantine,
            alerts=alerts,
            counts=Counts(
                records=len(records),
                readings=by_city(rows.city, self._slugs),
                late=by_city(rows.city[late_rows(rows)], self._slugs),
                quarantined=by_reason(resolved.rejects, self._resolver.topic_city),
                windows=self._closed_by_city(closed),
                ignored=by_kind(decoded.ignored, self._resolver.topic_city),
            ),
        )

    def _admit(self) -> None:
        """Give window state to the series and devices that were just accepted."""
        table, windows = self._state.series, self._state.windows
        if windows.by_device and len(table.devices) > windows.key_count:
            windows.add_keys(len(table.devices) - windows.key_count)
        first = windows.series_count
        if table.series_count == first:
            return
        device, city = table.device[first:], table.city[first:]
        unique, place = np.unique(device, return_inverse=True)
        interval = [self._resolver.interval_us(table.devices[d]) for d in unique]
        parts = parts_of(np.array(interval, np.int64), windows.windows)
        windows.add_series(device if windows.by_device else city, city, parts[place])

    def _fold(
        self, rows: Accepted, now_us: int
    ) -> tuple[WindowRows, LateRows, tuple[AlertTransition, ...]]:
        count = len(rows.event)
        folded = Rows(
            rows.series,
            rows.event,
            rows.value,
            rows.quality,
            rows.offset,
            rows.flags,
            np.empty(count, np.int64),
            np.empty(count, np.bool_),
        )
        closed, late = self._state.windows.fold(folded, now_us)
        if not self._definition.rules:
            return closed, late, ()
        found = self._alerts.on_rows(
            self._state.series.names(),
            FoldedRows(
                rows.series,
                rows.city,
                rows.event,
                rows.offset,
                rows.value,
                folded.valid,
                folded.city_us,
            ),
            rows.property,
        )
        found += self._judge_closed(closed, WATERMARK)
        # One record's transitions stay together, so the order does not know the cut.
        return closed, late, tuple(sorted(found, key=lambda alert: alert.offset))

    def _judge_closed(
        self, closed: WindowRows, reason: int
    ) -> tuple[AlertTransition, ...]:
        if not self._ruled or len(closed) == 0:
            return ()
        parts = self._state.windows.state.parts
        names = self._state.series.names()
        found: tuple[AlertTransition, ...] = ()
        for windows in self._tables.closed(closed, parts, reason, self._ruled):
            found += self._alerts.on_closed(names, windows)
        return found

    def _aggregates(
        self, rows: WindowRows, reason: int, part: int = 0
    ) -> pa.RecordBatch:
        parts = self._state.windows.state.parts
        return self._tables.aggregates(rows, parts, reason, part)

    # --- commits and timers -----------------------------------------------------------

    def cut(self, n: int) -> pa.RecordBatch:
        """Return the late parts since the last cut, as part `n`, and forget them.

        In order of each window's first late reading.
        """
        windows = self._state.windows
        rows = windows.late_rows()
        windows.clear_late()
        return self._aggregates(rows, LATE, n)

    def take(self, timer: TimerDecision, now_us: int) -> Emission:  # noqa: ARG002  (a step's twin: time is handed in, this one has no use for it)
        """Apply a logged decision: close what it names, judge `for` and `no_data`."""
        windows = self._state.windows
        closed = windows.close(silence.keys_of(timer, self._state), timer.offset)
        reason = FINAL if timer.kind == "final" else IDLE
        alerts = self._judge_closed(closed, reason)
        watermark = int(windows.state.city_us[self._codes[timer.city]])
        if self._definition.rules and watermark != NONE:
            alerts += self._alerts.on_timer(
                self._state.series.names(), timer, watermark
            )
        return self._decided(timer.offset, closed, reason, alerts)

    def _decided(
        self,
        offset: int,
        closed: WindowRows,
        reason: int,
        alerts: tuple[AlertTransition, ...],
    ) -> Emission:
        """Return what a decision before `offset` produced: no record was read for it."""
        return self._tables.without_records(
            offset,
            self._aggregates(closed, reason),
            alerts,
            Counts(windows=self._closed_by_city(closed)),
        )

    def _closed_by_city(self, closed: WindowRows) -> dict[str, int]:
        codes = self._state.series.city[closed.ints[words.SERIES]]
        return by_city(codes, self._slugs)

    def due(
        self, now_us: int, idle_us: int, next_offset: int
    ) -> tuple[TimerDecision, ...]:
        """Propose what silence up to `now_us` (monotonic) justifies at `next_offset`.

        A key heard for the last time before this process began is counted silent from the
        first call on. Proposing changes nothing else.
        """
        silence.begin(self._state, now_us)
        found = silence.idle(self._state, now_us, idle_us, next_offset)
        if self._definition.rules:
            deadline = self._alerts.next_deadline
            found += silence.silent(self._state, now_us, next_offset, deadline)
        return tuple(found)

    def finals(self, next_offset: int) -> tuple[TimerDecision, ...]:
        """Return the decisions that close every open window, one per city that has some."""
        return tuple(silence.finals(self._state, next_offset))

    # --- the same state again ---------------------------------------------------------

    def refold(self, rows: pa.Table) -> None:
        """Fold accepted readings again (ROUTED_READING rows in (offset, ordinal) order).

        Leaves the state as `step` left it when they were accepted, and emits nothing. Who
        is silent is not known from files: times of acceptance stay unset.
        """
        whole = rows.unify_dictionaries().combine_chunks()
        for batch in whole.to_batches(max_chunksize=REFOLD_ROWS):
            accepted = accepted_before(self._state.series, self._resolver, batch)
            self._admit()
            self._fold(accepted, NONE)

    def snapshot(self) -> dict[str, pa.Table]:
        """Return all state as Arrow tables; see `snapshot_chunks`."""
        return whole(self.snapshot_chunks())

    def snapshot_chunks(self) -> dict[str, Chunks]:
        """Return all state as Arrow tables in pieces, which are made as they are asked for.

        Until the last one was, nothing may be folded. What was silent too long goes first, and
        only then is what stays copied: a series leaves that was silent for `forget_us` of its
        city's event time and has no open window, late part or active alert; a device leaves with
        its last series, but not with `watermark = "device"`, where its watermark says what is
        closed.
        """
        keep = keeping.needed(
            self._state, self._definition.forget_us, self._alerts.active()
        )
        if not keep.series.all() or not keep.devices.all():
            alerts = AlertEngine.restore(
                self._origin, self._definition, self._alerts.tables(), keep.series_ids
            )
            heard = keeping.heard(self._state, keep)
            tables = export(self._state, keep)
            state = load(self._definition, self._resolver, tables)
            self._install(self._origin, self._definition, self._zones, state)
            self._alerts = alerts
            keeping.hear(self._state, heard)
        chunks = stream(self._state, keep_all(self._state))
        for name, table in self._alerts.tables().items():
            chunks[_ALERTS + name] = iter([table])
        return chunks

    def _with_alerts(self, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
        for name, table in self._alerts.tables().items():
            tables[_ALERTS + name] = table
        return tables

    @classmethod
    def restore(
        cls,
        origin: TopicPartition,
        definition: Definition,
        zones: Mapping[str, tzinfo],
        tables: Mapping[str, pa.Table],
        now_us: int,
    ) -> "PartitionProcessor":
        """Rebuild from `snapshot()` under the same definition; silence counts from `now_us`."""
        made = cls(origin, definition, zones)
        made._adopt(tables, None)
        running = made._state.windows.state
        running.city_now[:] = now_us
        running.key_now[:] = now_us
        return made

    def _adopt(self, tables: Mapping[str, pa.Table], keep: I8 | None) -> None:
        """Take over what tables hold; `keep` renumbers the series of the alert state."""
        state = load(self._definition, self._resolver, tables)
        self._install(self._origin, self._definition, self._zones, state)
        alerts = {
            name.removeprefix(_ALERTS): table
            for name, table in tables.items()
            if name.startswith(_ALERTS)
        }
        self._alerts = AlertEngine.restore(self._origin, self._definition, alerts, keep)

    # --- a new definition -------------------------------------------------------------

    def reconfigure(
        self, definition: Definition, zones: Mapping[str, tzinfo], offset: int
    ) -> tuple["PartitionProcessor", Emission]:
        """Return the processor for `definition` from `offset` on, and what closed with the old.

        A window keeps its state where its WindowSpec and the watermark's kind are the same,
        for series whose city, property and unit are. All else closes now, partial. The name
        of a window that was closed this way stays bound: should a window of that name
        follow, what the watermark had reached counts as closed, so its readings are late
        parts and no part 0 is published twice. Episodes of rules, cities and series that go are
        cleared. Call `cut` first: late parts must be out.
        """
        assert self._state.windows.late_cells == 0, "cut() comes before reconfigure()"
        keep = keeping.kept_under(
            self._state, self._definition, definition, self._origin.topic
        )
        windows = self._state.windows
        wanted = np.ones((len(keep.series), len(windows.windows)), bool)
        wanted[np.ix_(keep.series, np.array(keep.specs, np.int64))] = False
        closed = windows.evict(wanted, offset)
        alerts = self._judge_closed(closed, FINAL)
        if self._definition.rules:
            names, marks = self._state.series.names(), windows.state.city_us
            alerts += self._alerts.end(names, definition, keep.series, (offset, marks))
        emission = self._decided(offset, closed, FINAL, alerts)
        keeping.retire(self._state, keep)
        tables = self._with_alerts(export(self._state, keep))
        if (definition.watermark == "device") != windows.by_device:
            tables["retired"] = keeping.rekeyed(self._state, tables["retired"], keep)
        after = PartitionProcessor(self._origin, definition, zones)
        after._adopt(tables, keep.series_ids)
        by_city, by_device = keeping.heard(self._state, keep)
        of = dict(zip(self._slugs, by_city, strict=True))
        cities = np.array([of.get(slug, NONE) for slug in after._slugs], np.int64)
        keeping.hear(after._state, (cities, by_device))
        return after, emission

    # --- what is going on -------------------------------------------------------------

    @property
    def watermarks(self) -> dict[str, int]:
        """Return city slug → highest accepted event time, for cities that have one."""
        marks = self._state.windows.state.city_us
        return {
            slug: int(marks[code])
            for code, slug in enumerate(self._slugs)
            if marks[code] != NONE
        }

    @property
    def open_windows(self) -> dict[str, int]:
        """Return how many (series, pane) hold data by window name; a tumbling window is a pane."""
        return self._state.windows.open_counts()

    @property
    def series_count(self) -> int:
        """Return the number of series."""
        return self._state.series.series_count

    @property
    def state_bytes(self) -> int:
        """Return the bytes of window state, room for growth included; names not counted."""
        return self._state.windows.nbytes
