"""What every wire format means by a name, a time and a value: slow, plain and strict.

The kernels accept a part of this, never more. A decoder's strict path takes one record,
returns its readings, or raises `Refused`, which the decoder turns into a `Reject`; the
exception never leaves the codecs.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Final, Literal, NamedTuple

from streamproc.core.values import Flag, Reason
from streamproc.kernels.bytes_dict import NAME_BYTES_MAX
from streamproc.kernels.bytes_text import TIME_US_MAX, TIME_US_MIN

TimeUnit = Literal["auto", "s", "ms", "us", "ns"]
UNIT_NS: Final[dict[str, int]] = {
    "auto": 1_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}
"""Nanoseconds per tick of an epoch number. `auto` is ms: a magnitude is never guessed."""

RECORD_BYTES_MAX: Final = 64 * 1024
DETAIL_CHARS_MAX: Final = 300
QUALITY_LIMIT: Final = 128
"""A quality is an int8: at least minus this, and below this."""

_EXPONENT_MAX = 99  # of an epoch number: far beyond any time, and cheap to compute with
_HOUR_S = 3_600
_DAY_S = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?"
    r"([Zz]|([+-])(\d\d):(\d\d))?",
    re.ASCII,
)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Refused(Exception):
    """One record cannot be decoded; carries what its quarantine row will say."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = printable(detail)


class Reading(NamedTuple):
    """One decoded reading of a record; `event_us` µs since 1970 UTC, `value` finite."""

    device: str
    property: str
    unit: str | None
    event_us: int
    value: float
    quality: int
    flags: int


@dataclass(frozen=True, slots=True)
class FieldOptions:
    """Which fields of a record hold what, and how times are read.

    Attributes:
        values: name of a map field property → value; used where the schema has it.
        time_unit: of plain integers, `auto` being milliseconds whatever their magnitude; a
            logical type in the schema goes before it.
        assume_zone: "UTC" accepts times without a zone and flags them `tz_assumed`.
    """

    device: str = "device"
    property: str = "property"
    time: str = "time"
    value: str = "value"
    values: str = "values"
    unit: str = "unit"
    quality: str = "quality"
    time_unit: TimeUnit = "auto"
    assume_zone: Literal["UTC"] | None = None


def printable(text: str) -> str:
    """Return `text` without control characters or lone surrogates, bounded in length."""
    clean = text.encode("utf-8", "backslashreplace").decode()
    clean = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", clean)
    return clean if len(clean) <= DETAIL_CHARS_MAX else clean[:DETAIL_CHARS_MAX] + "…"


def name_of(text: object, what: str) -> str:
    """Return a device, property or unit name.

    Raises:
        Refused: absent, not text, empty, over 256 bytes of UTF-8, or with control
            characters or lone surrogates in it.
    """
    if text is None:
        raise Refused(Reason.MISSING_FIELD, f"{what} is missing")
    if not isinstance(text, str):
        raise Refused(Reason.WRONG_TYPE, f"{what} is not a string")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise Refused(Reason.BAD_TEXT, f"{what} has a lone surrogate") from error
    if not 0 < size <= NAME_BYTES_MAX:
        detail = f"{what} has {size} bytes, must have 1 to {NAME_BYTES_MAX}"
        raise Refused(Reason.BAD_TEXT, detail)
    if _CONTROL.search(text):
        raise Refused(Reason.BAD_TEXT, f"{what} has a control character")
    return text


def unit_of(text: object, what: str = "unit") -> str | None:
    """Return a unit, None where none is stated (absent, null or empty)."""
    return None if text is None or text == "" else name_of(text, what)


def finite(value: float, what: str) -> float:
    """Return `value`; raises `Refused` BAD_VALUE for NaN and the infinities."""
    if not math.isfinite(value):
        raise Refused(Reason.BAD_VALUE, f"{what} is {value}")
    return value


def quality_of(value: int, what: str = "quality") -> int:
    """Return a quality that fits int8; raises `Refused` BAD_VALUE."""
    if not -QUALITY_LIMIT <= value < QUALITY_LIMIT:
        raise Refused(Reason.BAD_VALUE, f"{what} {value} is not in -128 to 127")
    return value


def bounded_time(event_us: int, text: object) -> int:
    """Return `event_us`; raises `Refused` BAD_TIME outside the years 1 to 9999."""
    if not TIME_US_MIN <= event_us < TIME_US_MAX:
        raise Refused(Reason.BAD_TIME, f"time {text} is outside the years 1 to 9999")
    return event_us


def epoch_time(number: int | Decimal, unit_ns: int) -> int:
    """Return µs since 1970 of an epoch number in ticks of `unit_ns`, floored, exactly.

    Raises:
        Refused: BAD_TIME outside the years 1 to 9999.
    """
    if isinstance(number, Decimal):
        if (
            not number.is_finite()
            or not -_EXPONENT_MAX <= number.adjusted() <= _EXPONENT_MAX
        ):
            raise Refused(Reason.BAD_TIME, f"time {number} is not an epoch time")
        return bounded_time(Fraction(number) * unit_ns // 1000, number)
    return bounded_time(number * unit_ns // 1000, number)


def rfc3339_time(text: str, *, zone_assumed: bool) -> tuple[int, int]:
    """Return (µs since 1970 UTC, flags) of an RFC 3339 time.

    `T`, `t` or a space between; 1 to 9 decimals, truncated to µs; `Z`, `z` or `±HH:MM`.

    Raises:
        Refused: BAD_TIME for anything else, a leap second and a missing zone included.
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise Refused(Reason.BAD_TIME, f"time {text[:64]!r} is not RFC 3339")
    fraction, zone, sign, hours, minutes = found.group(7, 8, 9, 10, 11)
    if zone is None and not zone_assumed:
        raise Refused(Reason.BAD_TIME, f"time {text} has no zone")
    try:
        moment = datetime(*map(int, found.group(1, 2, 3, 4, 5, 6)), tzinfo=UTC)  # type: ignore[misc,arg-type]  # six integers
    except ValueError as error:
        raise Refused(Reason.BAD_TIME, f"time {text}: {error}") from error
    east_s = 0
    if sign is not None:
        east_s = _offset_s(sign, int(hours), int(minutes), text)
    passed = moment - _EPOCH
    seconds = passed.days * _DAY_S + passed.seconds - east_s
    micros = int((fraction or "").ljust(6, "0")[:6])
    flags = 0 if zone is not None else int(Flag.TZ_ASSUMED)
    return bounded_time(seconds * 1_000_000 + micros, text), flags


def _offset_s(sign: str, hours: int, minutes: int, text: str) -> int:
    seconds = hours * 3600 + minutes * 60
    if hours * 3600 >= _DAY_S or minutes * 60 >= _HOUR_S:
        raise Refused(Reason.BAD_TIME, f"time {text} has no such offset")
    return -seconds if sign == "-" else seconds


def is_number(text: str) -> bool:
    """Tell whether `text` is a number by JSON's grammar, with nothing around it."""
    return _JSON_NUMBER.fullmatch(text) is not None


def as_double(text: str, what: str) -> float:
    """Return the double nearest to a number's text; BAD_VALUE beyond the range."""
    return finite(float(text), what)


def as_decimal(text: str, what: str) -> Decimal:
    """Return a number's text exactly; BAD_VALUE where its exponent is absurd."""
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise Refused(Reason.BAD_VALUE, f"{what} has an absurd exponent") from error


def distinct(names: Iterable[str], what: str) -> None:
    """Raise `Refused` MALFORMED if a name comes twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Refused(Reason.MALFORMED, f"{what} {name[:64]!r} comes twice")
        seen.add(name)


@dataclass(frozen=True, slots=True)
class FlatRules:
    """How the fields of a typed record become readings.

    Attributes:
        unit_ns: nanoseconds per tick of an integer time.
        time_flags: what every reading is flagged with.
        zone_assumed: whether a time text may come without a zone.
        value_implicit: an absent value is 0 (proto3 leaves zeros out).
    """

    unit_ns: int
    time_flags: int = 0
    zone_assumed: bool = False
    value_implicit: bool = False


def flat_readings(found: Mapping[str, object], rules: FlatRules) -> list[Reading]:
    """Return the readings of one typed record, given by role; None means absent.

    Raises:
        Refused: with the reason of the first fault met.
    """
    device = name_of(found.get("device"), "device")
    event_us, flags = _flat_time(found.get("time"), rules)
    quality = 1
    if found.get("quality") is not None:
        quality = quality_of(_integer(found["quality"], "quality"))
    values = found.get("values")
    if values:
        mixed = [name for name in ("property", "value", "unit") if found.get(name)]
        if mixed:
            raise Refused(Reason.MALFORMED, f"{mixed[0]} does not go with values")
        assert isinstance(values, Mapping)
        return [
            Reading(
                *(device, name_of(name, "property"), None, event_us),
                *(_double(value, f"values.{name}"), quality, flags),
            )
            for name, value in values.items()
        ]
    value = found.get("value")
    if value is None and rules.value_implicit:
        value = 0.0
    name = name_of(found.get("property"), "property")
    unit = unit_of(found.get("unit"))
    number = _double(value, "value")
    return [Reading(device, name, unit, event_us, number, quality, flags)]


def _flat_time(time: object, rules: FlatRules) -> tuple[int, int]:
    if time is None:
        raise Refused(Reason.MISSING_FIELD, "time is missing")
    if isinstance(time, str):
        event_us, flags = rfc3339_time(time, zone_assumed=rules.zone_assumed)
        return event_us, flags | rules.time_flags
    return epoch_time(_integer(time, "time"), rules.unit_ns), rules.time_flags


def _integer(number: object, what: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        raise Refused(Reason.WRONG_TYPE, f"{what} is no integer")
    return number


def _double(number: object, what: str) -> float:
    if number is None:
        raise Refused(Reason.MISSING_FIELD, f"{what} is missing")
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise Refused(Reason.WRONG_TYPE, f"{what} is no number")
    return finite(float(number), what)
