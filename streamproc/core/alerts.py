"""Alerts of one partition: rows, closed windows and timers in, transitions out.

An alert is one episode of one rule on one series. Three lanes, each an episode of its own:

* *reading*: `when` is judged on every valid reading in (offset, ordinal) order. A true one
  at event time t0 opens a pending episode, a false one drops it; it fires once the city's
  watermark reaches t0 + `for` (at the reading itself for `for` = 0), and is cleared by the
  first valid reading on which `clear` is true (without `clear`: `when` is false). One
  reading opens or clears, never both.
* *window*: the same on every closed window that holds data, in order of closing; `for`
  sums the `every` of consecutive true windows. A window without data changes nothing.
* *no_data*: fires once the watermark reaches `last_seen` + `no_data`, where `last_seen` is
  the highest accepted event time of a series seen under this rule. It is cleared by the
  first newer reading that is not overdue itself: the backlog of a device that was away for
  a day must not clear and fire again with every reading.

One row acts in this order: silence of its series ends, its reading is judged, then every
deadline of its city that the watermark has reached. That makes the transitions a function
of the rows alone, wherever batches are cut. A timer decision judges deadlines in place of
the watermark, which does not move; what it opened stays open until a reading clears it.

What `early` promises: a reading rule's transition may leave before the commit, because a
refold of the same records repeats it. What a timer opened, or what clears such an episode,
depends on the decision being durable, so it waits in the outbox with all other lanes.

Sources: DESIGN.md "Alerts"; EXACTLY_ONCE.md "Alerts, two lanes".
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.core.alert_state import CELLS, Cells, CompiledRule, Rulebook
from streamproc.core.definition import Definition
from streamproc.core.expressions import quantile_variable
from streamproc.core.series import (
    B1,
    F8,
    I4,
    I8,
    ClosedWindows,
    FoldedRows,
    SeriesNames,
)
from streamproc.core.values import (
    AlertState,
    AlertTransition,
    TimerDecision,
    TopicPartition,
)
from streamproc.kernels import rules as kernel

T = TypeVar("T", bound=np.generic)

Transitions = tuple[AlertTransition, ...]

_Place = tuple[str, str, str]
_Event = tuple[int, int, int, int, bool, int, int, int, int, float]
"""The fields of `kernels.rules.EVENT`, in its order."""

_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_LANES: Final = ("reading", "window", "no_data")
_STATES: Final[tuple[AlertState, AlertState]] = ("firing", "cleared")
_EVENTS_ROOM: Final = 1024
"""Transitions one kernel call may return; more take another call."""


class AlertEngine:
    """Every rule's state on one partition; pure, and told about time by its arguments."""

    def __init__(self, origin: TopicPartition, definition: Definition) -> None:
        self._origin = origin
        self._definition = definition
        self._book = Rulebook(definition)
        self._cells = Cells(self._book)
        self._room = max(_EVENTS_ROOM, 2 * len(self._book.rules))

    def on_rows(
        self, names: SeriesNames, rows: FoldedRows, kinds: I4 | None = None
    ) -> Transitions:
        """Judge the accepted readings of one step.

        `kinds` are the rows' properties (int32[n]) for a caller who has them at hand.
        """
        self._cells.sync(names)
        if not rows.series.size or not self._book.row_properties.any():
            return ()
        kinds = names.property[rows.series] if kinds is None else kinds
        touched = self._eventful(rows, kinds)
        if not touched.size and not self._cells.waiting:
            return ()
        truth = self._row_truth(kinds[touched], rows.value[touched])
        columns = kernel.Rows(
            _plain(rows.series, np.int32),
            _plain(rows.city, np.int32),
            _plain(rows.event_us, np.int64),
            _plain(rows.offset, np.int64),
            _plain(rows.value, np.float64),
            _plain(rows.valid, np.bool_),
            _plain(rows.watermark_us, np.int64),
        )
        cursor = np.zeros(2, np.int64)
        found = []
        while cursor[0] < rows.series.size:
            events = np.zeros(self._room, kernel.EVENT)
            count = kernel.judge_rows(
                self._cells.state, columns, touched, truth, cursor, events
            )
            found.append(events[:count])
        self._cells.refresh(columns.series, touched)
        events = np.concatenate(found)
        return self._transitions(names, events, rows.offset[events["row"]])

    def on_closed(self, names: SeriesNames, closed: ClosedWindows) -> Transitions:
        """Judge the windows of one spec that closed."""
        self._cells.sync(names)
        window = self._book.windows[closed.window]
        concerned = self._book.window_properties(window)
        kinds = names.property[closed.series]
        chosen = np.flatnonzero(concerned[kinds] & (closed.count > 0))
        if not chosen.size:
            return ()
        truth, value = self._window_truth(closed, window, chosen, kinds[chosen])
        columns = kernel.Closed(
            _plain(closed.series[chosen], np.int32),
            _plain(closed.start_us[chosen], np.int64),
            _plain(closed.end_us[chosen], np.int64),
        )
        first = self._cells.state.first
        room = int((first[columns.series + 1] - first[columns.series]).sum())
        events = np.zeros(room, kernel.EVENT)
        count = kernel.judge_windows(
            self._cells.state, window, columns, truth, value, events
        )
        events = events[:count]
        return self._transitions(names, events, closed.offset[chosen][events["row"]])

    def on_timer(
        self, names: SeriesNames, timer: TimerDecision, watermark_us: int
    ) -> Transitions:
        """Judge `for` and `no_data` of a city up to a logged decision.

        A decision that names a device says nothing of the others: only its series are
        judged.
        """
        self._cells.sync(names)
        until_us = max(timer.effective_us, watermark_us)
        city = self._book.cities[timer.city]
        if timer.device is None:
            events = self._expire_city(city, until_us)
        else:
            events = self._expire_device(names, city, timer.device, until_us)
        offsets = np.full(events.size, timer.offset, np.int64)
        return self._transitions(names, events, offsets)

    def end(
        self, names: SeriesNames, after: Definition, kept: B1, ends: tuple[int, I8]
    ) -> Transitions:
        """End the episodes that nobody would judge any more under the definition `after`.

        Their rule, city or series goes; without this they would fire for ever. `kept` is bool
        by series id, `ends` the offset at which the definition changes and the watermarks
        (int64 by city).
        """
        self._cells.sync(names)
        offset, watermarks_us = ends
        cells = self._cells.state.cells
        gone = self._cells.gone(after, kept)
        firing = np.flatnonzero(gone & (cells["state"] == kernel.FIRING))
        silent = np.flatnonzero(gone & (cells["silent_since"] != kernel.NEVER))
        events = np.zeros(firing.size + silent.size, kernel.EVENT)
        events["cell"] = np.concatenate((firing, silent))
        events["row"] = -1
        events["transition"] = 1
        events["value"] = np.nan
        events["event_us"] = watermarks_us[cells["city"][events["cell"]]]
        window = self._cells.state.rules["on_readings"][cells["rule"][firing]] == 0
        events["lane"][: firing.size] = np.where(
            window, kernel.WINDOW_LANE, kernel.READING_LANE
        )
        events["trigger"][: firing.size] = cells["trigger"][firing]
        events["nth"][: firing.size] = cells["nth"][firing]
        events["lane"][firing.size :] = kernel.NO_DATA_LANE
        events["trigger"][firing.size :] = cells["silent_since"][silent]
        return self._transitions(names, events, np.full(events.size, offset, np.int64))

    def next_deadline(self, city: int) -> int:
        """Return when a `for` or `no_data` of the city is due next, int64 max if none."""
        return int(kernel.deadline(self._cells.state, city))

    def active(self) -> B1:
        """Return bool by series id: an episode is open or pending."""
        return self._cells.active()

    def tables(self) -> dict[str, pa.Table]:
        """Return all state; `restore` is the inverse."""
        return {CELLS: self._cells.table()}

    @classmethod
    def restore(
        cls,
        origin: TopicPartition,
        definition: Definition,
        tables: Mapping[str, pa.Table],
        keep: npt.NDArray[np.int64] | None,
    ) -> Self:
        """Rebuild an engine from `tables()`.

        Args:
            origin: the partition.
            definition: may be another one: state follows `rule_version`. A new rule starts
                with nothing seen.
            tables: what `tables()` returned.
            keep: new id by old series id, -1 for a series that was forgotten; None keeps
                every id.
        """
        engine = cls(origin, definition)
        engine._cells.load(tables[CELLS], keep)
        return engine

    # --- conditions -------------------------------------------------------------------

    def _eventful(self, rows: FoldedRows, kinds: I4) -> npt.NDArray[np.intp]:
        """Return the rows that may change a cell, in order.

        A reading rule's cell that is at rest stays so until `when` is true; after that all
        rows of its series count. What is seen at all counts for `no_data`.
        """
        chosen = self._book.seen[kinds]
        for rule in self._book.rules:
            if rule.on_readings and rule.when is not None:
                at = np.flatnonzero(kinds == rule.property_code)
                chosen[at] |= rule.when({"value": rows.value[at]})
        at = np.flatnonzero(self._book.on_readings[kinds])
        series = rows.series[at]
        chosen[at] |= self._cells.stirred(series, series[chosen[at]])
        return np.flatnonzero(chosen)

    def _row_truth(
        self, kinds: npt.NDArray[np.int32], values: F8
    ) -> npt.NDArray[np.uint8]:
        truth = np.zeros((len(self._book.rules), values.size), np.uint8)
        for index, rule in enumerate(self._book.rules):
            if rule.on_readings:
                at = np.flatnonzero(kinds == rule.property_code)
                truth[index, at] = rule.truth({"value": values[at]})
        return truth

    def _window_truth(
        self,
        closed: ClosedWindows,
        window: int,
        chosen: npt.NDArray[np.intp],
        kinds: npt.NDArray[np.int32],
    ) -> tuple[npt.NDArray[np.uint8], F8]:
        shape = (len(self._book.rules), chosen.size)
        truth, value = np.zeros(shape, np.uint8), np.full(shape, np.nan)
        quantiles = self._definition.windows[window].quantiles
        for index, rule in enumerate(self._book.rules):
            if rule.window != window or rule.when is None:
                continue
            at = np.flatnonzero(kinds == rule.property_code)
            columns = {
                name: _variable(closed, quantiles, name, chosen[at])
                for name in rule.names
            }
            truth[index, at] = rule.truth(columns)
            value[index, at] = columns[rule.when.first]
        return truth, value

    # --- deadlines --------------------------------------------------------------------

    def _expire_city(self, city: int, until_us: int) -> npt.NDArray[np.void]:
        state, found = self._cells.state, []
        while True:
            events = np.zeros(self._room, kernel.EVENT)
            count = kernel.expire(state, city, until_us, -1, events, 0)
            found.append(events[:count])
            if count < events.size:
                return np.concatenate(found)

    def _expire_device(
        self, names: SeriesNames, city: int, device: str, until_us: int
    ) -> npt.NDArray[np.void]:
        codes = [code for code, name in enumerate(names.devices) if name == device]
        mine = (names.city == city) & np.isin(names.device, codes)
        cells = self._cells.state.cells
        chosen = np.flatnonzero(mine[cells["series"]])
        events = np.zeros(2 * chosen.size, kernel.EVENT)
        count = kernel.expire_cells(self._cells.state, chosen, until_us, events)
        return events[:count]

    # --- what happened ----------------------------------------------------------------

    def _transitions(
        self, names: SeriesNames, events: npt.NDArray[np.void], offsets: I8
    ) -> Transitions:
        if not events.size:
            return ()
        keys = ("lane", "cell", "event_us", "phase", "row")
        order = np.lexsort(tuple(events[key] for key in keys))
        events = events[order]
        cells = self._cells.state.cells[events["cell"]]
        series = cells["series"]
        return tuple(
            map(
                self._transition,
                (self._book.rules[index] for index in cells["rule"].tolist()),
                zip(
                    (names.cities[code] for code in names.city[series].tolist()),
                    (names.devices[code] for code in names.device[series].tolist()),
                    (
                        names.properties[code]
                        for code in names.property[series].tolist()
                    ),
                    strict=True,
                ),
                events.tolist(),
                offsets[order].tolist(),
            )
        )

    def _transition(
        self, rule: CompiledRule, place: _Place, event: _Event, offset: int
    ) -> AlertTransition:
        _, _, lane_code, transition, early, _, event_us, trigger, nth, value = event
        lane = _LANES[lane_code]
        return AlertTransition(
            alert_id=alert_id(
                self._definition.job, rule.version, self._origin.source, *place, lane,
                rule.spec.window or "", f"{trigger}#{nth}" if nth else trigger,
            ),
            transition=transition,
            state=_STATES[transition],
            rule=rule.spec.name,
            rule_version=rule.version,
            severity=rule.spec.severity,
            city=place[0],
            device=place[1],
            property=place[2],
            window=rule.spec.window if lane == "window" else None,
            event_us=event_us,
            value=value if math.isfinite(value) else None,
            source=self._origin.source,
            offset=offset,
            early=early,
        )  # fmt: skip


def alert_id(*parts: str | int) -> str:
    """Return the first 32 hex digits of the sha256 over the parts as a JSON list.

    The parts: job, rule version, source, city, device, property, lane, window or "", and
    the trigger: of a reading rule the offset of the record on which the condition first
    held (`<offset>#<k>` for the k-th further episode it opens), of a window rule the start
    of the window that fired, of `no_data` the event time last seen.
    """
    return hashlib.sha256(_JSON.encode(parts).encode()).hexdigest()[:32]


def alert_document(alert: AlertTransition) -> dict[str, str | int | float | None]:
    """Return what leaves the process: the columns of `alerts/` with `city` in front.

    `event_time` is RFC 3339 in UTC with microseconds.
    """
    return {
        "city": alert.city,
        "alert_id": alert.alert_id,
        "transition": alert.transition,
        "state": alert.state,
        "rule": alert.rule,
        "rule_version": alert.rule_version,
        "severity": alert.severity,
        "device": alert.device,
        "property": alert.property,
        "window": alert.window,
        "event_time": f"{np.datetime64(alert.event_us, 'us')}Z",
        "value": alert.value,
        "source": alert.source,
        "offset": alert.offset,
    }


def _variable(
    closed: ClosedWindows,
    quantiles: Sequence[float],
    name: str,
    chosen: npt.NDArray[np.intp],
) -> F8:
    """Return float64[chosen] of one variable of `window_variables`."""
    if name in ("variance", "stddev"):
        variance = closed.m2[chosen] / closed.count[chosen]
        return np.sqrt(variance) if name == "stddev" else variance
    for column, quantile in enumerate(quantiles):
        if name == quantile_variable(quantile):
            return _plain(closed.quantiles[chosen, column], np.float64)
    values: npt.NDArray[np.generic] = getattr(closed, name)
    return values[chosen].astype(np.float64)


def _plain(column: npt.NDArray[Any], kind: type[T]) -> npt.NDArray[T]:
    """Return the column contiguous and writable: kernels compile once for such arrays."""
    return np.require(column, kind, ("C", "W"))
