"""Alerts the slow and obvious way: one dictionary a (rule, series), every row in turn.

Shares nothing with `core/alerts.py` and its kernels but the value types and the
expressions; every deadline of a city is looked at after every row.
"""

import hashlib
import json
import math
from dataclasses import dataclass, replace

import numpy as np

from streamproc.core.definition import Definition, RuleSpec, rule_version
from streamproc.core.expressions import (
    READING_VARIABLES,
    compile_expression,
    quantile_variable,
    window_variables,
)
from streamproc.core.series import ClosedWindows, FoldedRows, SeriesNames
from streamproc.core.values import (
    AlertState,
    AlertTransition,
    TimerDecision,
    TopicPartition,
)


@dataclass(frozen=True)
class Place:
    """One rule on one series."""

    names: SeriesNames
    number: int
    rule: RuleSpec
    series: int

    @property
    def key(self) -> tuple[int, int]:
        return self.number, self.series


@dataclass(frozen=True)
class Row:
    """One accepted reading."""

    event: int
    offset: int
    value: float
    mark: int


@dataclass(frozen=True)
class Fact:
    """What a transition says beside where it happened; `move` 0 fires, 1 clears."""

    lane: str
    move: int
    trigger: str | int
    event: int
    value: float | None
    offset: int


@dataclass
class Episode:
    """What is remembered of one (rule, series)."""

    state: str = "ok"
    t0: int = 0
    trigger: str | int = ""
    opened_at: int | None = None
    nth: int = 0
    value: float = math.nan
    held_us: int = 0
    by_timer: bool = False
    last_seen: int | None = None
    silent_since: int | None = None


class NaiveAlerts:
    """The same calls as `AlertEngine`, without snapshots."""

    def __init__(self, origin: TopicPartition, definition: Definition) -> None:
        self.origin = origin
        self.definition = definition
        self.episodes: dict[tuple[int, int], Episode] = {}

    def on_rows(self, names: SeriesNames, rows: FoldedRows) -> list[AlertTransition]:
        out: list[AlertTransition] = []
        for i in range(len(rows.series)):
            row = Row(
                int(rows.event_us[i]),
                int(rows.offset[i]),
                float(rows.value[i]),
                int(rows.watermark_us[i]),
            )
            places = self.places(names, int(rows.series[i]))
            for place in places:
                out += self.saw(place, row)
            for place in places if rows.valid[i] else ():
                out += self.judge(place, row)
            here = [s for s in range(len(names.city)) if names.city[s] == rows.city[i]]
            out += self.expire(names, here, row.mark, row.offset)
        return out

    def on_closed(
        self, names: SeriesNames, closed: ClosedWindows
    ) -> list[AlertTransition]:
        out: list[AlertTransition] = []
        spec = next(w for w in self.definition.windows if w.name == closed.window)
        for i in range(len(closed.series)):
            if closed.count[i] == 0:
                continue
            variables = self.variables(closed, i)
            for place in self.places(names, int(closed.series[i])):
                rule, e = place.rule, self.episode(place)
                if rule.window != closed.window or rule.when is None:
                    continue
                truth = self.truth(rule, variables, window_variables(spec))
                move = self.window_move(e, rule, truth, spec.every_us)
                if move is None:
                    continue
                if move == 0:
                    e.trigger = int(closed.start_us[i])
                first = compile_expression(rule.when, window_variables(spec)).first
                end, offset = int(closed.end_us[i]), int(closed.offset[i])
                fact = Fact("window", move, e.trigger, end, variables[first], offset)
                out.append(self.transition(place, fact))
        return out

    def on_timer(
        self, names: SeriesNames, timer: TimerDecision, watermark_us: int
    ) -> list[AlertTransition]:
        here = [
            s
            for s in range(len(names.city))
            if names.cities[names.city[s]] == timer.city
            and timer.device in (None, names.devices[names.device[s]])
        ]
        until = max(watermark_us, timer.effective_us)
        return self.expire(names, here, until, timer.offset, timer=True)

    def deadlines(self, names: SeriesNames, city: int) -> list[int]:
        """Every deadline of the city."""
        here = [s for s in range(len(names.city)) if names.city[s] == city]
        return [due for due, _, _ in self.due(names, here)]

    def active(self, count: int) -> list[bool]:
        """By series id: an episode is open or pending."""
        busy = {
            series
            for (_, series), e in self.episodes.items()
            if e.state != "ok" or e.silent_since is not None
        }
        return [series in busy for series in range(count)]

    # --- one rule on one series -------------------------------------------------------

    def places(self, names: SeriesNames, series: int) -> list[Place]:
        city = names.cities[names.city[series]]
        prop = names.properties[names.property[series]]
        return [
            Place(names, number, rule, series)
            for number, rule in enumerate(self.definition.rules)
            if rule.property == prop and (not rule.cities or city in rule.cities)
        ]

    def episode(self, place: Place) -> Episode:
        return self.episodes.setdefault(place.key, Episode())

    def truth(
        self, rule: RuleSpec, variables: dict[str, float], allowed: frozenset[str]
    ) -> tuple[bool, bool]:
        columns = {name: np.array([value]) for name, value in variables.items()}
        assert rule.when is not None
        when = bool(compile_expression(rule.when, allowed)(columns)[0])
        if rule.clear is None:
            return when, not when
        return when, bool(compile_expression(rule.clear, allowed)(columns)[0])

    def variables(self, closed: ClosedWindows, i: int) -> dict[str, float]:
        spec = next(w for w in self.definition.windows if w.name == closed.window)
        found = {
            name: float(getattr(closed, name)[i])
            for name in window_variables(spec)
            if hasattr(closed, name)
        }
        found["variance"] = float(closed.m2[i]) / int(closed.count[i])
        found["stddev"] = math.sqrt(found["variance"])
        for j, q in enumerate(spec.quantiles):
            found[quantile_variable(q)] = float(closed.quantiles[i, j])
        return found

    def saw(self, place: Place, row: Row) -> list[AlertTransition]:
        silence = place.rule.no_data_us
        e = self.episode(place)
        if silence is None or (e.last_seen is not None and row.event <= e.last_seen):
            return []
        e.last_seen = row.event
        since = e.silent_since
        if since is None or row.event + silence <= row.mark:
            return []
        e.silent_since = None
        fact = Fact("no_data", 1, since, row.event, None, row.offset)
        return [self.transition(place, fact)]

    def judge(self, place: Place, row: Row) -> list[AlertTransition]:
        rule, e = place.rule, self.episode(place)
        if rule.window is not None or rule.when is None:
            return []
        when, clear = self.truth(rule, {"value": row.value}, READING_VARIABLES)
        move = None
        if e.state == "firing":
            if clear:
                e.state, move = "ok", 1
        elif not when:
            e.state = "ok"
        else:
            e.value = row.value
            if e.state == "ok":
                e.nth = e.nth + 1 if e.opened_at == row.offset else 0
                e.opened_at = row.offset
                e.trigger = f"{row.offset}#{e.nth}" if e.nth else row.offset
                e.t0, e.state, e.by_timer = row.event, "pending", False
                if rule.for_us == 0:
                    e.state, move = "firing", 0
        if move is None:
            return []
        fact = Fact("reading", move, e.trigger, row.event, row.value, row.offset)
        return [replace(self.transition(place, fact), early=not e.by_timer)]

    def window_move(
        self, e: Episode, rule: RuleSpec, truth: tuple[bool, bool], every_us: int
    ) -> int | None:
        when, clear = truth
        if e.state == "firing":
            if not clear:
                return None
            e.state, e.held_us = "ok", 0
            return 1
        if not when:
            e.state, e.held_us = "ok", 0
            return None
        e.held_us += every_us
        e.state = "pending"
        if e.held_us < rule.for_us:
            return None
        e.state = "firing"
        return 0

    # --- deadlines --------------------------------------------------------------------

    def due(self, names: SeriesNames, here: list[int]) -> list[tuple[int, str, Place]]:
        found: list[tuple[int, str, Place]] = []
        for (number, series), e in self.episodes.items():
            place = Place(names, number, self.definition.rules[number], series)
            if series not in here:
                continue
            if e.state == "pending" and place.rule.window is None:
                found.append((e.t0 + place.rule.for_us, "reading", place))
            silence, seen = place.rule.no_data_us, e.last_seen
            if silence is not None and seen is not None and e.silent_since is None:
                found.append((seen + silence, "no_data", place))
        lanes = ("reading", "no_data")
        return sorted(
            found, key=lambda d: (d[0], d[2].series, d[2].number, lanes.index(d[1]))
        )

    def expire(
        self,
        names: SeriesNames,
        here: list[int],
        until: int,
        offset: int,
        *,
        timer: bool = False,
    ) -> list[AlertTransition]:
        out = []
        for due, lane, place in self.due(names, here):
            e = self.episode(place)
            if due > until:
                continue
            if lane == "reading":
                e.state, e.by_timer = "firing", timer
                fact = Fact(lane, 0, e.trigger, due, e.value, offset)
                out.append(replace(self.transition(place, fact), early=not timer))
            else:
                assert e.last_seen is not None
                e.silent_since = e.last_seen
                fact = Fact(lane, 0, e.last_seen, due, None, offset)
                out.append(self.transition(place, fact))
        return out

    # --- what is told -----------------------------------------------------------------

    def transition(self, place: Place, fact: Fact) -> AlertTransition:
        names, rule = place.names, place.rule
        city = names.cities[names.city[place.series]]
        device = names.devices[names.device[place.series]]
        prop = names.properties[names.property[place.series]]
        parts = [self.definition.job, rule_version(rule), self.origin.source, city]
        parts += [device, prop, fact.lane, rule.window or ""]
        listed = [*parts, fact.trigger]
        text = json.dumps(listed, ensure_ascii=False, separators=(",", ":"))
        state: AlertState = "cleared" if fact.move else "firing"
        known = fact.value is not None and math.isfinite(fact.value)
        return AlertTransition(
            alert_id=hashlib.sha256(text.encode()).hexdigest()[:32],
            transition=fact.move,
            state=state,
            rule=rule.name,
            rule_version=rule_version(rule),
            severity=rule.severity,
            city=city,
            device=device,
            property=prop,
            window=rule.window if fact.lane == "window" else None,
            event_us=fact.event,
            value=fact.value if known else None,
            source=self.origin.source,
            offset=fact.offset,
            early=False,
        )
