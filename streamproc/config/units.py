"""Durations, sizes and points in time as operators write them, and the types of options.

Text becomes int64 microseconds or bytes here and nowhere else. The error texts are what
the operator reads, so they say what to write instead.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from streamproc.core.ports import StartAt

SECOND_US: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND_US
DURATION_MAX_US: Final = 3_660 * DAY_US
"""Ten years: more is a slip of the pen, and sums of a few stay far inside int64."""

_STEPS: Final = (
    ("d", DAY_US),
    ("h", 3_600 * SECOND_US),
    ("m", 60 * SECOND_US),
    ("s", SECOND_US),
    ("ms", 1_000),
)
DURATION_PATTERN: Final = (
    r"^(?=[0-9])([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"
)
_DURATION: Final = re.compile(DURATION_PATTERN)
_FACTORS: Final = {
    "B": 1,
    "kB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}
SIZE_PATTERN: Final = r"^[0-9]+ ?(B|kB|MB|GB|KiB|MiB|GiB)$"
_SIZE: Final = re.compile(r"([0-9]{1,15}) ?([A-Za-z]+)")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration(text: object) -> int:
    """Return microseconds of `30s`, `1m`, `1h30m`, `2d`, `250ms`.

    Raises:
        ValueError: not such a text, or more than ten years.
    """
    if isinstance(text, str) and (found := _DURATION.fullmatch(text)) is not None:
        total = sum(
            int(part[: -len(unit)]) * step
            for part, (unit, step) in zip(found.groups(), _STEPS, strict=True)
            if part is not None
        )
        if total > DURATION_MAX_US:
            msg = f"longer than {format_duration(DURATION_MAX_US)}"
            raise ValueError(msg)
        return total
    msg = "not a duration; write 250ms, 30s, 1m, 1h30m or 2d, in quotes"
    raise ValueError(msg)


def format_duration(duration_us: int) -> str:
    """Return the shortest text that `parse_duration` reads back; below 1 ms as `…us`."""
    if duration_us == 0:
        return "0s"
    text, rest = "", duration_us
    for unit, step in _STEPS:
        count, rest = divmod(rest, step)
        text += f"{count}{unit}" if count else ""
    return text + (f"{rest}us" if rest else "")


def parse_size(text: object) -> int:
    """Return bytes of `64MiB`, `512 KiB`, `10MB`, `100B`.

    Raises:
        ValueError: not such a text.
    """
    if isinstance(text, str) and (found := _SIZE.fullmatch(text)) is not None:
        factor = _FACTORS.get(found[2])
        if factor is not None:
            return int(found[1]) * factor
    msg = "not a size; write 512KiB, 64MiB, 1GiB (or kB, MB, GB), in quotes"
    raise ValueError(msg)


def format_size(size: int) -> str:
    """Return the shortest text with a binary unit that `parse_size` reads back."""
    for unit in ("GiB", "MiB", "KiB"):
        if size >= _FACTORS[unit] and size % _FACTORS[unit] == 0:
            return f"{size // _FACTORS[unit]}{unit}"
    return f"{size}B"


@dataclass(frozen=True, slots=True)
class StartPoint:
    """Where a partition without a log begins; `time_us` only with `StartAt.TIME`."""

    at: StartAt = StartAt.EARLIEST
    time_us: int | None = None


def parse_start(value: object) -> StartPoint:
    """Return the start of `earliest`, `latest`, or an ISO time with a zone.

    Raises:
        ValueError: none of them.
    """
    if isinstance(value, StartPoint):
        return value
    if value in {"earliest", "latest"}:
        return StartPoint(StartAt(str(value)))
    moment = value if isinstance(value, datetime) else None
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
    if moment is None:
        msg = "write earliest, latest or an ISO time such as 2026-03-01T00:00:00Z"
        raise ValueError(msg)
    if moment.tzinfo is None:
        msg = "a time without a zone; end it with Z or an offset such as +02:00"
        raise ValueError(msg)
    return StartPoint(StartAt.TIME, (moment - _EPOCH) // timedelta(microseconds=1))


def listed(names: object, limit: int = 12) -> str:
    """Return up to `limit` names for an error text, sorted."""
    found = sorted(map(str, names))  # type: ignore[call-overload]  # any iterable of names
    more = f", … ({len(found)} in all)" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more


# --- the types of options -------------------------------------------------------------

Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Flag = Annotated[bool, Strict()]


def _duration(value: object) -> int:
    # An int can only come from our own defaults: TOML's are refused by their type.
    return parse_duration(value)


Duration = Annotated[
    int,
    BeforeValidator(_duration),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": DURATION_PATTERN,
            "examples": ["30s", "1m", "1h30m", "2d"],
        }
    ),
]
"""Text in the file, int microseconds in the program."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {"type": "string", "pattern": SIZE_PATTERN, "examples": ["64MiB", "512KiB"]}
    ),
]
"""Text in the file, int bytes in the program."""

Start = Annotated[
    StartPoint,
    BeforeValidator(parse_start),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["earliest", "latest"]},
                {"type": "string", "format": "date-time"},
            ]
        }
    ),
]


def lasting(low: str, high: str) -> AfterValidator:
    """Return a check that a duration lies within `[low, high]`."""
    low_us, high_us = parse_duration(low), parse_duration(high)

    def check(duration_us: int) -> int:
        if not low_us <= duration_us <= high_us:
            msg = f"must lie between {low} and {high}"
            raise ValueError(msg)
        return duration_us

    return AfterValidator(check)


def whole_seconds(duration_us: int) -> int:
    """Refuse parts of a second, which the protocol behind cannot express."""
    if duration_us % SECOND_US:
        msg = "must be whole seconds"
        raise ValueError(msg)
    return duration_us


def sized(low: str, high: str) -> AfterValidator:
    """Return a check that a size lies within `[low, high]`."""
    low_bytes, high_bytes = parse_size(low), parse_size(high)

    def check(size: int) -> int:
        if not low_bytes <= size <= high_bytes:
            msg = f"must lie between {low} and {high}"
            raise ValueError(msg)
        return size

    return AfterValidator(check)


@dataclass(frozen=True, slots=True)
class Matching:
    """A check that a text matches `pattern` as a whole; `advice` says what is allowed."""

    pattern: str
    advice: str

    def check(self, text: str) -> str:
        """Return the text, or raise `ValueError`."""
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(self.advice)
        return text

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$"}


def one_or_many(value: Any) -> Any:
    """Return a list for a single text, so that a list of one needs no brackets."""
    return [value] if isinstance(value, str) else value


def separated(value: Any) -> Any:
    """Return a list for a text, cut at commas; for names that cannot hold one."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",")]
