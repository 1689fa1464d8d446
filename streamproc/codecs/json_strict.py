"""One flat JSON document to readings, strictly: the path for what the scanner doubts.

Stricter than most parsers: UTF-8 only, at most 32 levels, no NaN or Infinity, no number
beyond the range of a double, no lone surrogate, and no key twice among those that are
read. A key that is ignored is ignored together with what is below it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from streamproc.codecs.json_document import (
    Number,
    Pairs,
    decoder_with,
    document_of,
)
from streamproc.codecs.strict import (
    QUALITY_LIMIT,
    UNIT_NS,
    FieldOptions,
    Reading,
    Refused,
    as_decimal,
    as_double,
    distinct,
    epoch_time,
    is_number,
    name_of,
    rfc3339_time,
    unit_of,
)
from streamproc.core.values import Flag, Reason
from streamproc.kernels.json_parts import KEY_BYTES_MAX

DEPTH_MAX: Final = 32
_KEYS = ("device", "property", "time", "value", "values", "unit", "units", "quality")


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonOptions(FieldOptions):
    """How a town's flat JSON looks: `FieldOptions`, whose names are keys, and more.

    Attributes:
        units: key of a map property → unit, beside `values`.
        string_numbers: accept `"1.5"` for a number and flag it `string_number`.
        device_from_key: a document without a device takes the record key for it.
        states: property → state name → value, for values that are words.
    """

    units: str = "units"
    string_numbers: bool = False
    device_from_key: bool = False
    states: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = self.keys()
        if len(set(names)) != len(names):
            message = f"two fields share a key: {names}"
            raise ValueError(message)
        for name in names:
            quoted = json.dumps(name, ensure_ascii=False).encode()
            if len(quoted) > KEY_BYTES_MAX or b"\\" in quoted or not name:
                message = f"key {name!r} is empty, too long or needs an escape"
                raise ValueError(message)

    def keys(self) -> tuple[str, ...]:
        """Return the eight key names in the order of `kernels.json_parts`'s fields."""
        return tuple(getattr(self, known) for known in _KEYS)


assert {known.name for known in fields(JsonOptions)} >= set(_KEYS)


def _checked_number(text: str) -> Number:
    as_double(text, "a number")
    return Number(text)


_DECODER = decoder_with(_checked_number)


def _parse(payload: bytes) -> Any:
    document = document_of(payload, _DECODER)
    # A surrogate can only be escaped: bare, it is no UTF-8.
    _check(document, 1, escapes=b"\\u" in payload)
    return document


def _check(node: Any, depth: int, *, escapes: bool) -> None:
    """Refuse nesting beyond the bound and, where escapes may hide them, surrogates."""
    if isinstance(node, Pairs):
        children: Sequence[Any] = [part for pair in node for part in pair]
    elif isinstance(node, list):
        children = node
    else:
        if escapes and isinstance(node, str):
            _check_text(node)
        return
    if depth > DEPTH_MAX:
        raise Refused(Reason.MALFORMED, f"nested deeper than {DEPTH_MAX} levels")
    for child in children:
        _check(child, depth + 1, escapes=escapes)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refused(Reason.BAD_TEXT, "a lone surrogate") from error


class StrictJson:
    """Decodes one document; the same rules as the scanner, and everything it left out."""

    def __init__(self, options: JsonOptions) -> None:
        self._options = options
        self._known = frozenset(options.keys())
        self._unit_ns = UNIT_NS[options.time_unit]

    def readings(self, payload: bytes, key: bytes | None) -> list[Reading]:
        """Return the readings of one document, one or more.

        Raises:
            Refused: always with the reason of the first fault met.
        """
        document = _parse(payload)
        if not isinstance(document, Pairs):
            raise Refused(Reason.WRONG_TYPE, "the document is not an object")
        known = [pair for pair in document if pair[0] in self._known]
        distinct((pair[0] for pair in known), "key")
        found = {name: value for name, value in known if value is not None}
        device = self._device(found, key)
        event_us, flags = self._time(found)
        quality = self._quality(found)
        return [
            Reading(device, name, unit, event_us, value, quality, flags | mark)
            for name, unit, value, mark in self._members(found)
        ]

    def _device(self, found: Mapping[str, Any], key: bytes | None) -> str:
        device = found.get(self._options.device)
        if device is not None or not self._options.device_from_key or not key:
            return name_of(_text(device), self._options.device)
        try:
            return name_of(key.decode(), "record key")
        except UnicodeDecodeError as error:
            raise Refused(Reason.BAD_TEXT, "the record key is not UTF-8") from error

    def _time(self, found: Mapping[str, Any]) -> tuple[int, int]:
        time = found.get(self._options.time)
        if time is None:
            raise Refused(Reason.MISSING_FIELD, f"{self._options.time} is missing")
        if isinstance(time, Number):
            return epoch_time(as_decimal(time, self._options.time), self._unit_ns), 0
        if isinstance(time, str):
            return rfc3339_time(time, zone_assumed=self._options.assume_zone == "UTC")
        raise Refused(Reason.WRONG_TYPE, f"{self._options.time} is no time")

    def _quality(self, found: Mapping[str, Any]) -> int:
        quality = found.get(self._options.quality)
        if quality is None:
            return 1
        if not isinstance(quality, Number):
            raise Refused(Reason.WRONG_TYPE, f"{self._options.quality} is no number")
        exact = as_decimal(quality, self._options.quality)
        if not -QUALITY_LIMIT <= exact < QUALITY_LIMIT or exact != int(exact):
            detail = f"{self._options.quality} {quality} is no integer in -128 to 127"
            raise Refused(Reason.BAD_VALUE, detail)
        return int(exact)

    def _members(
        self, found: Mapping[str, Any]
    ) -> list[tuple[str, str | None, float, int]]:
        options = self._options
        single = [options.property, options.value, options.unit]
        many = [options.values, options.units]
        if any(name in found for name in many):
            mixed = [name for name in single if name in found]
            if mixed:
                detail = f"{mixed[0]} does not go with {' and '.join(many)}"
                raise Refused(Reason.MALFORMED, detail)
            return self._many(found)
        name = name_of(_text(found.get(options.property)), options.property)
        value, mark = self._value(found.get(options.value), name, options.value)
        return [(name, unit_of(_text(found.get(options.unit))), value, mark)]

    def _many(
        self, found: Mapping[str, Any]
    ) -> list[tuple[str, str | None, float, int]]:
        values = self._object(found, self._options.values)
        if not values:
            detail = f"{self._options.values} is missing or empty"
            raise Refused(Reason.MISSING_FIELD, detail)
        stated = self._object(found, self._options.units)
        units = {
            name: unit_of(_text(unit), f"{self._options.units}.{name}")
            for name, unit in stated
        }
        members = []
        marks = 0
        for given, node in values:
            name = name_of(given, "property")
            value, mark = self._value(node, name, f"{self._options.values}.{name}")
            marks |= mark
            members.append((name, units.get(name), value))
        return [(name, unit, value, marks) for name, unit, value in members]

    def _object(self, found: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
        node = found.get(key)
        if node is None:
            return []
        if not isinstance(node, Pairs):
            raise Refused(Reason.WRONG_TYPE, f"{key} is not an object")
        distinct((name for name, _ in node), f"{key}:")
        return node

    def _value(self, node: Any, name: str, what: str) -> tuple[float, int]:
        if node is None:
            raise Refused(Reason.MISSING_FIELD, f"{what} is missing")
        if isinstance(node, Number):
            return as_double(node, what), 0
        if not isinstance(node, str):
            raise Refused(Reason.WRONG_TYPE, f"{what} is no number")
        states = self._options.states.get(name)
        if states is not None and node in states:
            return states[node], 0
        if self._options.string_numbers and is_number(node):
            return as_double(node, what), int(Flag.STRING_NUMBER)
        if states is not None:
            raise Refused(Reason.BAD_VALUE, f"{what} {node!r} is no state of {name}")
        raise Refused(Reason.WRONG_TYPE, f"{what} is a string")


def _text(node: Any) -> Any:
    """Return a string as itself and a number as something that is no string."""
    return 0 if isinstance(node, Number) else node
