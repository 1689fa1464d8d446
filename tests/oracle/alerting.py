"""Which alert transitions follow: one small dictionary entry a (rule, series).

A rule on readings opens with the first reading for which `when` holds, fires once the city's
highest event time has reached that reading's plus `for`, and is cleared by the first reading
for which `clear` holds. A rule on windows does the same with windows, in order of closing,
where `for` adds up the `every` of windows in a row for which it held. `no_data` fires once the
city has gone `no_data` further than the series, and ends with the next reading of it that is
not as far behind itself.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.oracle.facts import Condition, Facts, Reading, Rule, Window

Place = tuple[str, str, str]
"""City, device, property."""


class Transition(NamedTuple):
    """One row of `alerts/`; `episode` stands for its `alert_id`."""

    episode: tuple[object, ...]
    transition: int
    rule: str
    severity: str
    city: str
    device: str
    property: str
    window: str | None
    event: int
    value: float | None
    offset: int


@dataclass
class _Held:
    state: str = "ok"
    since: int = 0
    trigger: tuple[int, int] = (-1, 0)
    value: float = 0.0
    held: int = 0
    last_seen: int | None = None
    silent_since: int | None = None


class Alerting:
    """All rules on one partition; `transitions` grows."""

    def __init__(self, facts: Facts, source: str) -> None:
        self._source = source
        self._rules: dict[str, list[Rule]] = {}
        for rule in facts.rules:
            self._rules.setdefault(rule.property, []).append(rule)
        self._held: dict[str, dict[tuple[Rule, Place], _Held]] = {}
        self.transitions: list[Transition] = []

    def saw(
        self, place: Place, reading: Reading, offset: int, highest: int, *, counts: bool
    ) -> None:
        """Judge an accepted reading; `counts`: it is valid and repeats none."""
        for rule in self._rules.get(place[2], ()):
            held = self._of(rule, place)
            if rule.no_data is not None:
                self._heard(rule, place, held, (reading.event, offset, highest))
            if counts and rule.window is None and rule.when is not None:
                self._judge(rule, place, held, reading, offset)
        self.until(place[0], highest, offset)

    def closed(
        self, place: Place, window: Window, row: dict[str, Any], offset: int
    ) -> None:
        """Judge a window that closed with data."""
        for rule in self._rules.get(place[2], ()):
            if rule.window != window.name or rule.when is None or not row["count"]:
                continue
            held = self._of(rule, place)
            move = _window_move(rule, held, row, window.every)
            if move is None:
                continue
            if move == 0:
                held.since = row["end"] - window.size
            value = float(row[rule.when.variable])
            what = ("window", held.since)
            self._tell(rule, place, what, move, (row["end"], value, offset))

    def until(self, city: str, until: int, offset: int) -> None:
        """Fire what is due in a city at an event time."""
        for (rule, place), held in self._held.get(city, {}).items():
            due = held.since + rule.held_for
            if held.state == "pending" and rule.window is None and due <= until:
                held.state = "firing"
                what = ("reading", held.trigger)
                self._tell(rule, place, what, 0, (due, held.value, offset))
            if rule.no_data is None or held.silent_since is not None:
                continue
            seen = held.last_seen
            if seen is not None and seen + rule.no_data <= until:
                held.silent_since = seen
                at = (seen + rule.no_data, None, offset)
                self._tell(rule, place, ("no_data", seen), 0, at)

    def _of(self, rule: Rule, place: Place) -> _Held:
        return self._held.setdefault(place[0], {}).setdefault((rule, place), _Held())

    def _heard(
        self, rule: Rule, place: Place, held: _Held, at: tuple[int, int, int]
    ) -> None:
        event, offset, highest = at
        assert rule.no_data is not None
        if held.last_seen is not None and event <= held.last_seen:
            return
        held.last_seen = event
        since = held.silent_since
        if since is not None and event + rule.no_data > highest:
            held.silent_since = None
            self._tell(rule, place, ("no_data", since), 1, (event, None, offset))

    def _judge(
        self, rule: Rule, place: Place, held: _Held, reading: Reading, offset: int
    ) -> None:
        values = {"value": reading.value}
        at = (reading.event, reading.value, offset)
        assert rule.when is not None
        if held.state == "firing":
            if _clears(rule, values):
                held.state = "ok"
                self._tell(rule, place, ("reading", held.trigger), 1, at)
        elif not rule.when.holds(values):
            held.state = "ok"
        else:
            held.value = reading.value
            if held.state == "ok":
                nth = held.trigger[1] + 1 if held.trigger[0] == offset else 0
                held.trigger = (offset, nth)
                held.since = reading.event
                held.state = "pending"
                if rule.held_for == 0:
                    held.state = "firing"
                    self._tell(rule, place, ("reading", held.trigger), 0, at)

    def _tell(
        self,
        rule: Rule,
        place: Place,
        what: tuple[object, ...],
        transition: int,
        at: tuple[int, float | None, int],
    ) -> None:
        window = rule.window if what[0] == "window" else None
        self.transitions.append(
            Transition(
                (self._source, rule.name, *place, *what),
                transition,
                rule.name,
                rule.severity,
                *place,
                window,
                *at,
            )
        )


def _clears(rule: Rule, values: dict[str, float]) -> bool:
    assert rule.when is not None
    clear: Condition | None = rule.clear
    return not rule.when.holds(values) if clear is None else clear.holds(values)


def _window_move(
    rule: Rule, held: _Held, row: dict[str, Any], every: int
) -> int | None:
    """Return 0 if the rule fires with this window, 1 if it is cleared."""
    assert rule.when is not None
    if held.state == "firing":
        if not _clears(rule, row):
            return None
        held.state, held.held = "ok", 0
        return 1
    if not rule.when.holds(row):
        held.state, held.held = "ok", 0
        return None
    held.held += every
    held.state = "pending"
    if held.held < rule.held_for:
        return None
    held.state = "firing"
    return 0
