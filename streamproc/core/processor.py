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

from collections.abc import Mapping, Sequence
from datetime import tzinfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.core.alerts import AlertEngine
from streamproc.core.definition import Definition
from streamproc.core.emission import FINAL, IDLE, LATE, WATERMARK, Tables
from streamproc.core.resolve import Resolver, dictionary_column
from streamproc.core.series import FoldedRows
from streamproc.core.series_table import SeriesTable
from streamproc.core.snapshot import Keep, State, export, keep_all, load, parts_of
from streamproc.core.values import (
    UNKNOWN_CITY,
    AlertTransition,
    Counts,
    Decoded,
    Emission,
    Flag,
    OffsetSpan,
    Records,
    Reject,
    TimerDecision,
    TopicPartition,
)
from streamproc.core.windows import LateRows, WindowRows, Windows
from streamproc.kernels import resolve as kernels
from streamproc.kernels import windows as words
from streamproc.kernels.resolve import Accepted
from streamproc.kernels.windows import NONE, Rows

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
        self._quantiles = [spec.quantiles for spec in definition.windows]
        self._ruled = {rule.window for rule in definition.rules}
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
            counts=self._counts(len(records), rows, resolved.rejects, closed),
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
        parts = parts_of(
            self._resolver, windows.windows, [table.devices[d] for d in unique]
        )
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
        )
        found += self._judge_closed(closed, WATERMARK)
        # One record's transitions stay together, so the order does not know the cut.
        return closed, late, tuple(sorted(found, key=lambda alert: alert.offset))

    def _judge_closed(
        self, closed: WindowRows, reason: int
    ) -> tuple[AlertTransition, ...]:
        if not self._definition.rules or len(closed) == 0:
            return ()
        parts = self._state.windows.state.parts
        names = self._state.series.names()
        found: tuple[AlertTransition, ...] = ()
        for windows in self._tables.closed(closed, parts, reason, self._quantiles):
            if windows.window in self._ruled:
                found += self._alerts.on_closed(names, windows)
        return found

    def _aggregates(
        self, rows: WindowRows, reason: int, part: int = 0
    ) -> pa.RecordBatch:
        parts = self._state.windows.state.parts
        return self._tables.aggregates(rows, parts, reason, part)

    # --- counting ---------------------------------------------------------------------

    def _by_city(self, codes: I4) -> dict[str, int]:
        counts = np.bincount(codes, minlength=len(self._slugs))
        return {slug: int(n) for slug, n in zip(self._slugs, counts, strict=True) if n}

    def _counts(
        self,
        records: int,
        rows: Accepted,
        rejects: Sequence[Reject],
        closed: WindowRows,
    ) -> Counts:
        city = self._resolver.topic_city or UNKNOWN_CITY
        quarantined: dict[tuple[str, str], int] = {}
        for reject in rejects:
            key = (city, reject.reason.value)
            quarantined[key] = quarantined.get(key, 0) + 1
        late = (rows.flags & np.uint16(Flag.LATE)) != 0
        return Counts(
            records=records,
            readings=self._by_city(rows.city),
            late=self._by_city(rows.city[late]),
            quarantined=quarantined,
            windows=self._closed_by_city(closed),
        )

    def _closed_by_city(self, closed: WindowRows) -> dict[str, int]:
        return self._by_city(self._state.series.city[closed.ints[:, words.SERIES]])

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
        closed = windows.close(self._keys_of(timer), timer.offset)
        reason = FINAL if timer.kind == "final" else IDLE
        alerts = self._judge_closed(closed, reason)
        watermark = int(windows.state.city_us[self._codes[timer.city]])
        if self._definition.rules and watermark != NONE:
            alerts += self._alerts.on_timer(
                self._state.series.names(), timer, watermark
            )
        return self._without_records(
            timer.offset, self._aggregates(closed, reason), alerts, closed
        )

    def _without_records(
        self,
        offset: int,
        aggregates: pa.RecordBatch,
        alerts: tuple[AlertTransition, ...],
        closed: WindowRows,
    ) -> Emission:
        none = Accepted._make(np.empty(0, kind) for kind in _ACCEPTED_TYPES)
        empty = np.empty(0, np.int64)
        short = np.empty(0, np.int32)
        records = Records(
            self._origin,
            empty,
            empty,
            pa.array([], pa.binary()),
            pa.array([], pa.binary()),
            OffsetSpan(offset, offset),
        )
        return Emission(
            span=records.span,
            readings=self._tables.readings(none),
            aggregates=aggregates,
            late=self._tables.late(none, LateRows(short, short, empty, empty)),
            quarantine=self._tables.quarantine(records, (), self._topic_city),
            alerts=alerts,
            counts=Counts(windows=self._closed_by_city(closed)),
        )

    def _keys_of(self, timer: TimerDecision) -> I8:
        if timer.kind == "silence":
            return np.empty(0, np.int64)
        city = self._codes[timer.city]
        if not self._state.windows.by_device:
            return np.array([city], np.int64)
        table = self._state.series
        if timer.device is None:
            return np.flatnonzero(table.device_city == city)
        known = table.device_ids.get(timer.device)
        return np.array([] if known is None else [known], np.int64)

    def due(
        self, now_us: int, idle_us: int, next_offset: int
    ) -> tuple[TimerDecision, ...]:
        """Propose what silence up to `now_us` (monotonic) justifies at `next_offset`.

        A key heard for the last time before this process began is counted silent from the
        first call on. Proposing changes nothing else.
        """
        running = self._state.windows.state
        for heard in (running.key_now, running.city_now):
            heard[heard == NONE] = now_us
        return (
            *self._idle(now_us - idle_us, next_offset),
            *self._silent(now_us, next_offset),
        )

    def _idle(self, heard_max_us: int, next_offset: int) -> list[TimerDecision]:
        windows, table = self._state.windows, self._state.series
        running, count = windows.state, windows.key_count
        silent = running.key_now[:count] <= heard_max_us
        keys = np.flatnonzero((running.key_cells[:count] > 0) & silent)
        city = table.device_city[keys] if windows.by_device else keys
        until = np.maximum(running.city_us[city], windows.last_ends(keys))
        return [
            TimerDecision(
                "idle",
                self._slugs[city[i]],
                table.devices[key] if windows.by_device else None,
                next_offset,
                int(until[i]),
            )
            for i, key in enumerate(keys)
        ]

    def _silent(self, now_us: int, next_offset: int) -> list[TimerDecision]:
        running = self._state.windows.state
        found = []
        for code, slug in enumerate(self._slugs):
            watermark = int(running.city_us[code])
            if watermark == NONE or not self._definition.rules:
                continue
            until = watermark + now_us - int(running.city_now[code])
            if self._alerts.next_deadline(code) <= until:
                found.append(TimerDecision("silence", slug, None, next_offset, until))
        return found

    def finals(self, next_offset: int) -> tuple[TimerDecision, ...]:
        """Return the decisions that close every open window, one per city that has some.

        `for` and `no_data` are judged up to the watermark: nothing is known beyond it.
        """
        windows = self._state.windows
        open_keys = np.flatnonzero(windows.state.key_cells[: windows.key_count] > 0)
        city = (
            self._state.series.device_city[open_keys]
            if windows.by_device
            else open_keys
        )
        return tuple(
            TimerDecision(
                "final",
                self._slugs[code],
                None,
                next_offset,
                int(windows.state.city_us[code]),
            )
            for code in np.unique(city)
        )

    # --- the same state again ---------------------------------------------------------

    def refold(self, rows: pa.Table) -> None:
        """Fold accepted readings again (ROUTED_READING rows in (offset, ordinal) order).

        Leaves the state as `step` left it when they were accepted, and emits nothing. Who
        is silent is not known from files: times of acceptance stay unset.
        """
        whole = rows.unify_dictionaries().combine_chunks()
        for batch in whole.to_batches(max_chunksize=REFOLD_ROWS):
            self._fold(self._accepted_before(batch), NONE)

    def _accepted_before(self, batch: pa.RecordBatch) -> Accepted:
        table = self._state.series
        device = dictionary_column(batch.column("device"))
        kind = dictionary_column(batch.column("property"))
        codes = self._resolver.property_codes
        kinds = np.array([codes.get(name, -1) for name in kind.names], np.int32)
        ids = np.array([table.device_ids.get(n, -1) for n in device.names], np.int32)
        used, first = np.unique(device.codes, return_index=True)
        fresh = [int(code) for code in used[np.argsort(first)] if ids[code] < 0]
        places = np.array(
            [self._resolver.place(device.names[c]) for c in fresh], np.int32
        )
        assert (places >= 0).all(), "a published reading has a city"
        ids[fresh] = np.arange(len(table.devices), len(table.devices) + len(fresh))
        table.add_devices([device.names[code] for code in fresh], places)
        np.add.at(table.city_devices, places, 1)
        count = batch.num_rows
        names = table.working(count, 0, np.unique(kinds))
        row_device, row_kind = ids[device.codes], kinds[kind.codes]
        series = np.empty(count, np.int32)
        counters = np.array([0, 0, 0, table.series_count], np.int64)
        kernels.series_of_rows(row_device, row_kind, names, series, counters)
        new = int(counters[kernels.SERIES]) - table.series_count
        table.add_series(names.new_device[:new], names.new_property[:new])
        self._admit()
        event = np.asarray(batch.column("event_time").view(pa.int64()))
        return Accepted(
            row=np.arange(count, dtype=np.int32),
            ordinal=np.array(batch.column("ordinal")),
            series=series,
            device=row_device,
            property=row_kind,
            city=table.device_city[row_device],
            event=event.copy(),
            value=np.array(batch.column("value")),
            quality=np.array(batch.column("quality")),
            flags=np.zeros(count, np.uint16),
            offset=np.array(batch.column("offset")),
            ingest=event.copy(),
        )

    def snapshot(self) -> dict[str, pa.Table]:
        """Return all state as Arrow tables, after letting go of what was silent too long.

        A series leaves that was silent for `forget_us` of its city's event time and has no
        open window, late part or active alert; a device leaves with its last series, but not
        with `watermark = "device"`, where its watermark says what is closed.
        """
        keep = self._forgetting()
        tables = export(self._state, keep)
        if not keep.series.all() or not keep.devices.all():
            alerts = AlertEngine.restore(
                self._origin, self._definition, self._alerts.tables(), keep.series_ids
            )
            heard = self._heard(keep)
            state = load(self._definition, self._resolver, tables)
            self._install(self._origin, self._definition, self._zones, state)
            self._alerts = alerts
            self._hear(heard)
        return self._with_alerts(tables)

    def _with_alerts(self, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
        for name, table in self._alerts.tables().items():
            tables[_ALERTS + name] = table
        return tables

    def _forgetting(self) -> Keep:
        table, windows = self._state.series, self._state.windows
        running, count = windows.state, table.series_count
        limit = running.city_us[table.city] - self._definition.forget_us
        needed = running.last_us[:count] > limit
        slots = int(windows.specs.slots[0])
        needed[windows.open_cells() // slots] = True
        late = windows.late.ints[: windows.late_cells, words.SERIES]
        needed[late] = True
        active = self._alerts.active()
        needed[: len(active)] |= active
        devices = np.zeros(len(table.devices), bool)
        devices[table.device[needed]] = True
        if windows.by_device:
            devices |= running.key_us[: len(devices)] != NONE
        return Keep(needed, devices, keep_all(self._state).specs)

    def _heard(self, keep: Keep) -> tuple[I8, I8]:
        """Return the times of the last acceptance: by city, by kept device."""
        running = self._state.windows.state
        if not self._state.windows.by_device:
            return running.city_now.copy(), np.empty(0, np.int64)
        return running.city_now.copy(), running.key_now[np.flatnonzero(keep.devices)]

    def _hear(self, heard: tuple[I8, I8]) -> None:
        running = self._state.windows.state
        running.city_now[:] = heard[0]
        if self._state.windows.by_device:
            running.key_now[: len(heard[1])] = heard[1]

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
        parts and no part 0 is published twice. Call `cut` first: late parts must be out.
        """
        assert self._state.windows.late_cells == 0, "cut() comes before reconfigure()"
        keep = self._kept_under(definition)
        windows = self._state.windows
        wanted = np.ones((len(keep.series), len(windows.windows)), bool)
        wanted[np.ix_(keep.series, np.array(keep.specs, np.int64))] = False
        closed = windows.evict(wanted, offset)
        alerts = self._judge_closed(closed, FINAL)
        emission = self._without_records(
            offset, self._aggregates(closed, FINAL), alerts, closed
        )
        self._retire(keep)
        tables = self._with_alerts(export(self._state, keep))
        if (definition.watermark == "device") != windows.by_device:
            tables = self._rekeyed(tables, keep)
        after = PartitionProcessor(self._origin, definition, zones)
        after._adopt(tables, keep.series_ids)
        heard = dict(zip(self._slugs, self._heard(keep)[0], strict=True))
        cities = np.array([heard.get(slug, NONE) for slug in after._slugs], np.int64)
        after._hear((cities, self._heard(keep)[1]))
        return after, emission

    def _kept_under(self, definition: Definition) -> Keep:
        """Choose what means the same under `definition`."""
        table, windows = self._state.series, self._state.windows
        resolver = Resolver(self._origin.topic, definition, table)
        slugs = [spec.slug for spec in definition.cities]
        places = [resolver.place(name) for name in table.devices]
        devices = np.array(
            [
                place >= 0 and slugs[place] == self._slugs[city]
                for place, city in zip(places, table.device_city, strict=True)
            ],
            bool,
        )
        units = {spec.property: spec.unit for spec in definition.properties}
        kinds = np.array(
            [units.get(s.property) == s.unit for s in self._definition.properties], bool
        )
        same_keys = (definition.watermark == "device") == windows.by_device
        specs = tuple(
            q
            for q, spec in enumerate(windows.windows)
            if same_keys and spec in definition.windows
        )
        series = devices[table.device] & kinds[table.kind]
        return Keep(series.astype(bool), devices, specs)

    def _retire(self, keep: Keep) -> None:
        """Bind the names of windows that go to the watermark their keys have."""
        windows = self._state.windows
        marks = windows.state.key_us[: windows.key_count]
        for q, spec in enumerate(windows.windows):
            if q not in keep.specs:
                count = len(windows.windows)
                closed = windows.state.closed[q : windows.key_count * count : count]
                start = np.where(closed == NONE, NONE, closed * spec.every_us)
                self._state.retired[spec.name] = np.maximum(marks, start)

    def _rekeyed(self, tables: dict[str, pa.Table], keep: Keep) -> dict[str, pa.Table]:
        """Carry what is retired over to the other kind of watermark key."""
        city_of = self._state.series.device_city[keep.devices].tolist()
        found: dict[tuple[str, int], int] = {}
        for row in tables["retired"].to_pylist():
            name, key, until = row["window"], row["key"], row["until_us"]
            if self._state.windows.by_device:
                places = [city_of[key]]
            else:
                places = [d for d, city in enumerate(city_of) if city == key]
            for place in places:
                found[name, place] = max(found.get((name, place), NONE), until)
        keys = sorted(found)
        retired = pa.table(
            {
                "window": pa.array([name for name, _ in keys], pa.string()),
                "key": pa.array([key for _, key in keys], pa.int32()),
                "until_us": pa.array([found[key] for key in keys], pa.int64()),
            }
        )
        return {**tables, "retired": retired}

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


_ACCEPTED_TYPES = (
    *(np.int32,) * 6,
    np.int64,
    np.float64,
    np.int8,
    np.uint16,
    np.int64,
    np.int64,
)
