"""Checks between sections: cities, windows, properties, rules and devices."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd
from typing import Final

from streamproc.config.base import key_of
from streamproc.config.faults import KeyPath, nearest
from streamproc.config.job_options import Rule, Window
from streamproc.config.parsed import Parsed
from streamproc.config.properties import merged, shipped_properties
from streamproc.config.source_options import SLUG
from streamproc.config.units import format_duration
from streamproc.config.zones import zone_names
from streamproc.core.definition import PropertySpec, WindowSpec
from streamproc.core.expressions import (
    READING_VARIABLES,
    ExpressionError,
    compile_expression,
    quantile_variable,
    window_variables,
)
from streamproc.core.panes import SLOTS_MAX, slots_of

PANES_MAX: Final = 1_440
"""Panes of one overlapping window: a day in minutes."""

SLOTS_TUMBLING_MAX: Final = 64
"""Windows of one series that may be open at once where they do not overlap."""

WINDOWS_MAX: Final = 16
QUANTILES_MAX: Final = 16

_QUANTILE: Final = re.compile(r"p(\d+(?:_\d+)?)")


def window_spec(window: Window) -> WindowSpec:
    """Return what the processor works with."""
    return WindowSpec(
        name=window.name,
        size_us=window.every_us if window.size_us is None else window.size_us,
        every_us=window.every_us,
        lateness_us=window.lateness_us,
        quantiles=tuple(sorted(window.quantiles)),
    )


def check_job(parsed: Parsed) -> None:
    """Report every fault of the parts a definition is built from."""
    _check_cities(parsed)
    _check_windows(parsed)
    properties = _check_properties(parsed)
    _check_rules(parsed, properties)
    for index, device in enumerate(parsed.file.devices):
        check_city(parsed, ("devices", index, "city"), device.city)
    _check_retain(parsed)
    keys = [(device.city, device.device) for device in parsed.file.devices]
    for index in _repeated(keys):
        parsed.report(("devices", index, "device"), "is listed twice for its city")


def check_city(parsed: Parsed, path: KeyPath, slug: str) -> None:
    """Report a slug that no city has."""
    known = parsed.slugs()
    if slug not in known:
        parsed.report(path, f"no such city; {nearest(slug, known)}")


def _check_retain(parsed: Parsed) -> None:
    """Report a dataset whose dates would go before they may be touched at all."""
    closed_us = parsed.file.compaction.closed_after_us
    for name, kept_us in parsed.file.retain:
        if kept_us is not None and kept_us < closed_us:
            closed = format_duration(closed_us)
            message = f"must not be shorter than [compaction] closed_after = {closed}"
            parsed.report(("retain", key_of(name)), message)


def _repeated(names: Iterable[object]) -> list[int]:
    """Return the index of every entry that was there before."""
    seen: set[object] = set()
    found = []
    for index, name in enumerate(names):
        if name in seen:
            found.append(index)
        seen.add(name)
    return found


def _check_cities(parsed: Parsed) -> None:
    if not parsed.slugs():
        message = "is missing: at least one [cities.<slug>] with its timezone"
        parsed.report(("cities",), message)
    for slug in sorted(parsed.slugs()):
        if re.fullmatch(SLUG, slug) is None:
            message = "a slug must be 1 to 32 of a-z, 0-9 and hyphen"
            parsed.report(("cities", slug), message)
    for slug, city in parsed.file.cities.items():
        if city.timezone not in zone_names():
            message = f"no such IANA zone; {_zone_advice(city.timezone)}"
            parsed.report(("cities", slug, "timezone"), message)


def _zone_advice(name: str) -> str:
    advice = nearest(name, zone_names())
    return advice if advice.startswith("did") else "write one such as Europe/Sofia"


# --- windows --------------------------------------------------------------------------


def _check_windows(parsed: Parsed) -> None:
    if not parsed.document.get("windows"):
        message = "is missing: at least one [[windows]] with name and every"
        parsed.report(("windows",), message)
    if len(parsed.file.windows) > WINDOWS_MAX:
        parsed.report(("windows",), f"more than {WINDOWS_MAX} windows")
    for index in _repeated(window.name for window in parsed.file.windows):
        parsed.report(("windows", index, "name"), "another window has this name")
    for index, window in enumerate(parsed.file.windows):
        _check_quantiles(parsed, index, window)
        fault = _window_fault(window_spec(window))
        if fault is not None:
            key, message = fault
            parsed.report(("windows", index, key), message)


def _window_fault(spec: WindowSpec) -> tuple[str, str] | None:
    every, size = spec.every_us, spec.size_us
    if size < every:
        return "size", f"must not be shorter than every = {format_duration(every)}"
    pane = gcd(every, size)
    if size // pane > PANES_MAX:
        return "size", (
            f"needs {size // pane} panes of {format_duration(pane)}, at most {PANES_MAX}; "
            "choose size as a multiple of every"
        )
    slots = slots_of(spec)
    if size == every and slots > SLOTS_TUMBLING_MAX:
        longest = format_duration((SLOTS_TUMBLING_MAX - 1) * every)
        return "lateness", (
            f"needs {slots} open windows per series, at most {SLOTS_TUMBLING_MAX}: "
            f"lateness up to {longest} for every = {format_duration(every)}"
        )
    if slots > SLOTS_MAX:
        return "lateness", f"needs {slots} open panes per series, at most {SLOTS_MAX}"
    return None


def _check_quantiles(parsed: Parsed, index: int, window: Window) -> None:
    place = ("windows", index, "quantiles")
    if len(window.quantiles) > QUANTILES_MAX:
        parsed.report(place, f"more than {QUANTILES_MAX} quantiles")
    for at, quantile in enumerate(window.quantiles):
        if not 0.0 < quantile < 1.0:
            parsed.report((*place, at), "must lie between 0 and 1, exclusive")
    for at in _repeated(quantile_variable(q) for q in window.quantiles):
        parsed.report((*place, at), "is listed twice")


# --- properties and rules -------------------------------------------------------------


def _check_properties(parsed: Parsed) -> Mapping[str, PropertySpec]:
    own = parsed.file.properties
    for index in _repeated(option.property for option in own):
        message = "another property has this name"
        parsed.report(("properties", index, "property"), message)
    for index, option in enumerate(own):
        place = ("properties", index)
        if not option.unit:
            parsed.report((*place, "unit"), 'is empty; a number without one is "1"')
        if (
            option.low is not None
            and option.high is not None
            and option.low >= option.high
        ):
            parsed.report((*place, "low"), f"must be less than high = {option.high:g}")
        for unit, how in option.units.items():
            if how.scale == 0.0:
                parsed.report((*place, "units", unit, "scale"), "must not be 0")
            if unit == option.unit:
                parsed.report((*place, "units", unit), "is the canonical unit itself")
    return {spec.property: spec for spec in merged(own, shipped_properties())}


def check_property(
    parsed: Parsed,
    path: KeyPath,
    name: str,
    known: Iterable[str],
) -> None:
    """Report a property that neither the pack nor the file declares."""
    names = {*known, *parsed.written("properties", "property")}
    if name in names:
        return
    advice = nearest(name, names)
    if not advice.startswith("did"):
        advice = "declare it with [[properties]]"
    parsed.report(path, f"no such property; {advice}")


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a rule is judged on; `spec` is None for readings."""

    allowed: frozenset[str]
    spec: WindowSpec | None


def _check_rules(parsed: Parsed, properties: Mapping[str, PropertySpec]) -> None:
    windows = {window.name: window_spec(window) for window in parsed.file.windows}
    for index in _repeated(rule.name for rule in parsed.file.rules):
        parsed.report(("rules", index, "name"), "another rule has this name")
    for index, rule in enumerate(parsed.file.rules):
        check_property(parsed, ("rules", index, "property"), rule.property, properties)
        for at, slug in enumerate(rule.cities):
            check_city(parsed, ("rules", index, "cities", at), slug)
        if not parsed.touched("rules", index):
            _check_shape(parsed, index, rule)
        subject = _subject(parsed, index, rule, windows)
        if subject is not None:
            _check_expression(parsed, index, "when", rule.when, subject)
            _check_expression(parsed, index, "clear", rule.clear, subject)


def _check_shape(parsed: Parsed, index: int, rule: Rule) -> None:
    place = ("rules", index)
    if rule.when is None and rule.no_data_us is None:
        parsed.report(place, "needs when, or no_data, or both")
    if rule.when is None and rule.clear is not None:
        parsed.report((*place, "clear"), "ends what `when` opens, which is missing")
    if rule.when is None and rule.for_us:
        parsed.report((*place, "for"), "belongs to `when`, which is missing")
    if rule.when is None and rule.window is not None:
        parsed.report((*place, "window"), "belongs to `when`, which is missing")


def _subject(
    parsed: Parsed, index: int, rule: Rule, windows: Mapping[str, WindowSpec]
) -> _Subject | None:
    if rule.window is None:
        return _Subject(READING_VARIABLES, None)
    spec = windows.get(rule.window)
    if spec is not None:
        return _Subject(window_variables(spec), spec)
    known = parsed.written("windows", "name")
    if rule.window not in known:
        message = f"no such window; {nearest(rule.window, known)}"
        parsed.report(("rules", index, "window"), message)
    return None


def _check_expression(
    parsed: Parsed, index: int, key: str, text: str | None, subject: _Subject
) -> None:
    if text is None:
        return
    try:
        compile_expression(text, subject.allowed)
    except ExpressionError as error:
        message = _undeclared(text, error, subject) or str(error)
        parsed.report(("rules", index, key), message)


def _undeclared(text: str, error: ExpressionError, subject: _Subject) -> str | None:
    """Return a better text for a quantile that the window does not declare."""
    found = _QUANTILE.match(text, error.column - 1)
    if found is None or "unknown name" not in error.problem:
        return None
    if subject.spec is None:
        return f"column {error.column}: {found[0]} is of a window's aggregates; name a window"
    quantile = float(found[1].replace("_", ".")) / 100
    return (
        f"column {error.column}: {found[0]} needs {quantile:g} in the quantiles of "
        f"window {subject.spec.name!r}"
    )
