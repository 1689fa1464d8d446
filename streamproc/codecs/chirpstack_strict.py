"""One ChirpStack v4 uplink in JSON to readings, strictly: the path for what the fast one doubts.

UTF-8 only, no NaN or Infinity, no lone surrogate, no nesting beyond `DEPTH_MAX`, no key twice
among those that are read, and none at all in `object`. What is not read is otherwise not
looked at. ChirpStack leaves zeros out of its own fields; in `object` they stand.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from streamproc.codecs.json_document import (
    Number,
    Pairs,
    decoder_with,
    document_of,
)
from streamproc.codecs.strict import (
    Reading,
    Refused,
    as_double,
    distinct,
    name_of,
    rfc3339_time,
)
from streamproc.core.values import Reason

DEPTH_MAX: Final = 500
"""Of a whole event: what is within is read by any parser."""

UP: Final = "up"
OTHER: Final = "other"
KINDS: Final = frozenset(
    (UP, "status", "join", "ack", "txack", "log", "location", "integration")
)
"""The events there are; `OTHER` stands for all else, so that a metric has few labels."""

UNDECODED: Final = "object is missing: does the device's profile have a codec?"

_KNOWN: Final = {kind.encode(): kind for kind in KINDS}

READ: Final = ("time", "deviceInfo", "object", "data", "fPort")
"""What is read of an event."""

_PAYLOAD: Final = ("object", "data", "fPort")
"""An event with one of these is an uplink."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChirpStackOptions:
    """What in an uplink becomes a reading.

    Attributes:
        device: which name of the device is ours.
        properties: dotted path in `object` (`env.0.humidity`) → property.
        units: property → its unit in the uplink; absent means none is stated.
        booleans: true is 1 and false is 0; else a mapped boolean is refused.
        unmapped: what a number outside `properties` does to its record.
        states: property → state name → value, for values that are words.
    """

    device: Literal["devEui", "deviceName"] = "devEui"
    properties: Mapping[str, str]
    units: Mapping[str, str] = field(default_factory=dict)
    booleans: bool = False
    unmapped: Literal["ignore", "quarantine"] = "ignore"
    states: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


Headers = Sequence[tuple[str, bytes]]
Answer = list[Reading] | str
"""The readings, one or more, or the kind of an event that holds none."""


def kind_of(headers: Headers, key: bytes | None) -> str | None:
    """Return an event's kind by header `event`, else by key; None where neither tells."""
    for name, value in headers:
        if name == "event" and value:
            return _KNOWN.get(value, OTHER)
    _, found, kind = (key or b"").rpartition(b".event.")
    return _KNOWN.get(kind, OTHER) if found else None


_DECODER = decoder_with(Number)


def parse(payload: bytes) -> Any:
    """Return a document of `Pairs`, lists, texts, `Number`, bool and None. Raises `Refused`."""
    document = document_of(payload, _DECODER)
    level, depth = [document], 0
    while level:
        if depth > DEPTH_MAX:
            raise Refused(Reason.MALFORMED, "nested too deeply")
        level, depth = [below for node in level for below in _below(node)], depth + 1
    return document


def _below(node: Any) -> Iterable[Any]:
    if isinstance(node, Pairs):
        return [value for _, value in node]
    return node if isinstance(node, list) else ()


class StrictUplink:
    """Decodes one event; the same rules as the fast path, and everything it left out."""

    def __init__(self, options: ChirpStackOptions) -> None:
        self._options = options

    def answer(self, payload: bytes, kind: str | None) -> Answer:
        """Return what an event holds that is an uplink, or whose `kind` nothing tells.

        Raises:
            Refused: with the reason of the first fault met.
        """
        document = parse(payload)
        if not isinstance(document, Pairs):
            raise Refused(Reason.WRONG_TYPE, "the event is not an object")
        found = _members(document, READ, "key")
        info = found.get("deviceInfo")
        if info is None:
            raise Refused(Reason.MISSING_FIELD, "deviceInfo is missing")
        if kind is None and not any(name in found for name in _PAYLOAD):
            return OTHER
        if not isinstance(info, Pairs):
            raise Refused(Reason.WRONG_TYPE, "deviceInfo is not an object")
        name = self._options.device
        given = _members(info, (name,), "deviceInfo:").get(name)
        device = name_of(_text(given), f"deviceInfo.{name}")
        event_us = _time(found.get("time"))
        content = found.get("object")
        if content is None:
            if found.get("data"):
                raise Refused(Reason.MISSING_FIELD, UNDECODED)
            return UP
        if not isinstance(content, Pairs):
            raise Refused(Reason.WRONG_TYPE, "object is not an object")
        return self._readings(device, event_us, content)

    def _readings(self, device: str, event_us: int, content: Pairs) -> Answer:
        found: dict[str, float] = {}
        for path, leaf in _leaves(content):
            name = self._options.properties.get(path)
            if name is None:
                self._check_unmapped(path, leaf)
                continue
            value = self._value(leaf, name, path)
            if value is None:
                continue
            if name in found:
                raise Refused(Reason.MALFORMED, f"property {name!r} comes twice")
            found[name] = value
        units = self._options.units
        return [
            Reading(device, name, units.get(name), event_us, value, 1, 0)
            for name, value in found.items()
        ] or UP

    def _check_unmapped(self, path: str, leaf: Any) -> None:
        options = self._options
        counts = isinstance(leaf, Number) or (
            options.booleans and isinstance(leaf, bool)
        )
        if counts and options.unmapped == "quarantine":
            detail = f"object.{path} is not one of the mapped properties"
            raise Refused(Reason.UNKNOWN_PROPERTY, detail)

    def _value(self, leaf: Any, name: str, path: str) -> float | None:
        what = f"object.{path}"
        if leaf is None:
            return None
        if isinstance(leaf, Number):
            return as_double(leaf, what)
        if isinstance(leaf, bool):
            if not self._options.booleans:
                raise Refused(Reason.WRONG_TYPE, f"{what} is a boolean")
            return float(leaf)
        states = self._options.states.get(name)
        if states is None:
            raise Refused(Reason.WRONG_TYPE, f"{what} is a string")
        if leaf not in states:
            raise Refused(Reason.BAD_VALUE, f"{what} {leaf!r} is no state of {name}")
        return states[leaf]


def _members(node: Pairs, names: Sequence[str], what: str) -> dict[str, Any]:
    known = [pair for pair in node if pair[0] in names]
    distinct((name for name, _ in known), what)
    return {name: value for name, value in known if value is not None}


def _text(node: Any) -> Any:
    """Return a string as itself and a number as something that is no string."""
    return 0 if isinstance(node, Number) else node


def _time(node: Any) -> int:
    if node is None:
        raise Refused(Reason.MISSING_FIELD, "time is missing")
    if isinstance(node, Number) or not isinstance(node, str):
        raise Refused(Reason.WRONG_TYPE, "time is no text")
    return rfc3339_time(node, zone_assumed=False)[0]


def _leaves(content: Pairs) -> list[tuple[str, Any]]:
    """Return (dotted path, leaf) of everything in `object`, in the document's order."""
    found: list[tuple[str, Any]] = []
    # From the last to the first: what is taken off the end is what comes next.
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, Pairs):
            distinct((name for name, _ in node), f"object.{path}".rstrip(".") + ":")
            waiting += [(path + name + ".", value) for name, value in reversed(node)]
        elif isinstance(node, list):
            waiting += [(f"{path}{k}.", node[k]) for k in reversed(range(len(node)))]
        else:
            found.append((path[:-1], node))
    return found
