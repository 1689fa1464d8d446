"""Times of mapped rows: text in a declared format, epochs and Arrow's own types.

Local times are read with the rules of their zone as Python's `fold=0` reads them: of an
hour that comes twice the first is meant, and a time inside a skipped hour is taken with
the offset before it (02:30 becomes 03:30). Such readings carry the flag `tz_assumed`, as
do naive times without a declared zone, which are taken for UTC.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from streamproc.connectors.files.untyped import Column, pc
from streamproc.core.values import Flag
from streamproc.errors import ConfigError

I8 = npt.NDArray[np.int64]
B1 = npt.NDArray[np.bool_]

NO_EVENT: Final = int(np.iinfo(np.int64).min)
"""Stands where a row has no time that can be read."""

DAY_US: Final = 86_400_000_000
_EPOCHS: Final = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}
# Year 1 to 9999, as Python and ISO 8601 have them.
_LOWEST_US: Final = -62_135_596_800_000_000
_HIGHEST_US: Final = 253_402_300_799_999_999

_ZONE: Final = r"[Zz]|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?"
_ISO: Final = (
    r"^(?P<Y>\d{4})-(?P<m>\d{2})-(?P<d>\d{2})"
    r"(?:[T ](?P<H>\d{2})(?::(?P<M>\d{2})(?::(?P<S>\d{2})(?:[.,](?P<f>\d{1,9}))?)?)?)?"
    rf" ?(?P<z>{_ZONE})?$"
)
_DIRECTIVES: Final = {
    "Y": r"(?P<Y>\d{4})",
    "y": r"(?P<y>\d{2})",
    "m": r"(?P<m>\d{1,2})",
    "d": r"(?P<d>\d{1,2})",
    "H": r"(?P<H>\d{1,2})",
    "I": r"(?P<I>\d{1,2})",
    "p": r"(?P<p>[AaPp][Mm])",
    "M": r"(?P<M>\d{1,2})",
    "S": r"(?P<S>\d{1,2})",
    "f": r"(?P<f>\d{1,9})",
    "z": f"(?P<z>{_ZONE})",
}


@dataclass(frozen=True, slots=True)
class Times:
    """Event times of rows.

    Attributes:
        us: int64[n], `NO_EVENT` where there is none.
        absent: bool[n], nothing was there to read.
        assumed: bool[n], zone or fold had to be assumed.
    """

    us: I8
    absent: B1
    assumed: B1

    @property
    def flags(self) -> npt.NDArray[np.uint16]:
        """Return the readings' flags."""
        return np.where(self.assumed, int(Flag.TZ_ASSUMED), 0).astype(np.uint16)


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """How times are written; immutable and checked.

    Attributes:
        text: "iso", "epoch_s", "epoch_ms", "epoch_us", or a format of the directives
            `%Y %y %m %d %H %I %p %M %S %f %z %%`, as `datetime.strptime` knows them
            (`%f` up to 9 digits, truncated to microseconds).
        timezone: IANA name for times without a zone of their own; None means UTC, flagged.

    Raises:
        ConfigError: an unknown directive or zone, or a format that names no day.
    """

    text: str = "iso"
    timezone: str | None = None

    def __post_init__(self) -> None:
        if self.text not in _EPOCHS:
            pattern(self.text)
        if self.timezone is not None:
            _zone(self.timezone)

    def read(self, columns: Sequence[Column]) -> Times:
        """Return the times of rows; several columns are joined by one space."""
        if len(columns) == 1 and not _is_text(columns[0].type):
            return self._typed(columns[0])
        texts = [
            pc.utf8_trim_whitespace(column.cast(pa.string())) for column in columns
        ]
        joined: Any = texts[0]
        if len(texts) > 1:
            joined = pc.binary_join_element_wise(*texts, " ")
        absent = _absent(pc.or_kleene(pc.is_null(joined), pc.equal(joined, "")))
        # Rows of many devices share their times: parse each text once.
        encoded = pc.dictionary_encode(pc.fill_null(joined, ""))
        us, naive = self._texts(encoded.dictionary)
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        return self._placed(us[codes], naive[codes], absent)

    def _texts(self, texts: Column) -> tuple[I8, B1]:
        scale = _EPOCHS.get(self.text)
        if scale is not None:
            return _epochs(texts, scale), np.zeros(len(texts), np.bool_)
        if self.text == "iso":
            for zone in (None, "UTC"):  # Arrow reads a column of one sort fast
                try:
                    us = texts.cast(pa.timestamp("us", tz=zone)).cast(pa.int64())
                    return us.to_numpy(), np.full(len(texts), zone is None)
                except pa.ArrowInvalid:
                    continue  # mixed, or no time at all: the slower way finds out
        return _parsed(texts, pattern(self.text))

    def _typed(self, column: Column) -> Times:
        kind = column.type
        absent = _absent(pc.is_null(column))
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            zoned = pa.types.is_timestamp(kind) and kind.tz is not None
            unit = pa.timestamp("us", tz="UTC") if zoned else pa.timestamp("us")
            us = _int64(column.cast(unit, safe=False).cast(pa.int64()))
            return self._placed(us, np.full(len(us), not zoned), absent)
        scale = _EPOCHS.get(self.text)
        if scale is None or not (
            pa.types.is_integer(kind) or pa.types.is_floating(kind)
        ):
            texts = column.cast(pa.string())
            return self.read([texts])
        us = _scaled(column, scale)
        return self._placed(us, np.zeros(len(us), np.bool_), absent)

    def _placed(self, us: I8, naive: B1, absent: B1) -> Times:
        """Turn naive times into UTC, and mark what is no time."""
        good = ~absent & (us >= _LOWEST_US) & (us <= _HIGHEST_US)
        assumed = naive & good
        if self.timezone is not None:
            utc, doubtful = to_utc(np.where(good, us, 0), self.timezone)
            us = np.where(naive, utc, us)
            assumed &= doubtful
        return Times(np.where(good, us, NO_EVENT), absent, assumed)


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_dictionary(kind)
    )


def _absent(mask: Any) -> B1:
    return np.asarray(mask.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _int64(column: Any) -> I8:
    return np.asarray(pc.fill_null(column, NO_EVENT).to_numpy(zero_copy_only=False))


# --- text -----------------------------------------------------------------------------


@lru_cache(maxsize=64)
def pattern(text: str) -> str:
    """Return the regular expression of a format.

    Raises:
        ConfigError: an unknown or repeated directive, or no full day.
    """
    if text == "iso":
        return _ISO
    pieces: list[str] = []
    seen: set[str] = set()
    at = 0
    for found in re.finditer("%(.?)", text):
        pieces.append(re.escape(text[at : found.start()]))
        at = found.end()
        letter = found[1]
        if letter == "%":
            pieces.append("%")
            continue
        if letter not in _DIRECTIVES or letter in seen:
            known = " ".join(f"%{name}" for name in _DIRECTIVES)
            msg = (
                f"time format {text!r}: %{letter} is repeated or not one of {known} %%"
            )
            raise ConfigError(msg)
        seen.add(letter)
        pieces.append(_DIRECTIVES[letter])
    pieces.append(re.escape(text[at:]))
    _check_complete(text, seen)
    return f"^{''.join(pieces)}$"


def _check_complete(text: str, seen: set[str]) -> None:
    faults = []
    if not ({"Y", "y"} & seen and {"m", "d"} <= seen):
        faults.append(
            f"time format {text!r}: year (%Y), month (%m) and day (%d) are needed"
        )
    if {"Y", "y"} <= seen or {"H", "I"} <= seen or ("I" in seen) != ("p" in seen):
        faults.append(f"time format {text!r}: one of %Y %y; either %H, or %I with %p")
    if faults:
        raise ConfigError(*faults)


def _parsed(texts: Column, regex: str) -> tuple[I8, B1]:
    """Return microseconds (`NO_EVENT` where it is no time) and which have no zone."""
    groups = pc.extract_regex(texts, regex)
    matched = ~_absent(pc.is_null(groups))
    names = {groups.type.field(at).name for at in range(groups.type.num_fields)}

    def text_of(name: str) -> Column:
        return pc.struct_field(groups, name) if name in names else None

    def number(name: str, default: int) -> I8:
        return _digits(text_of(name), default, len(texts))

    year = number("Y", 0)
    if "y" in names:
        short = number("y", 0)  # POSIX: 69..99 are of the last century
        year = short + np.where(short < 69, 2000, 1900)  # noqa: PLR2004  (explained before)
    month, day, hour = number("m", 1), number("d", 1), number("H", 0)
    if "I" in names:
        half, afternoon = number("I", 12), _afternoon(text_of("p"))
        matched &= (half >= 1) & (half <= 12)  # noqa: PLR2004  (a clock's hours)
        hour = half % 12 + 12 * afternoon
    minute, second = number("M", 0), number("S", 0)
    good = matched & _plausible(year, month, day, hour, minute, second)
    us = _days(year, month, day) * DAY_US
    us += ((hour * 60 + minute) * 60 + second) * 1_000_000
    us += _fraction_us(text_of("f"), len(texts))
    offset_us, naive = _offset_us(text_of("z"), len(texts))
    return np.where(good, us - offset_us, NO_EVENT), naive


def _digits(texts: Column, default: int, count: int) -> I8:
    if texts is None:
        return np.full(count, default, np.int64)
    filled = pc.if_else(
        pc.equal(pc.fill_null(texts, ""), ""), str(default), pc.fill_null(texts, "")
    )
    return np.asarray(filled.cast(pa.int64()).to_numpy(zero_copy_only=False))


def _afternoon(texts: Column) -> I8:
    lower = pc.utf8_lower(pc.fill_null(texts, ""))
    return _absent(pc.equal(lower, "pm")).astype(np.int64)


def _fraction_us(texts: Column, count: int) -> I8:
    if texts is None:
        return np.zeros(count, np.int64)
    padded = pc.utf8_rpad(pc.fill_null(texts, ""), 6, "0")
    return _digits(pc.utf8_slice_codeunits(padded, 0, 6), 0, count)


def _offset_us(texts: Column, count: int) -> tuple[I8, B1]:
    """Return the zone's offset, and where none is written."""
    if texts is None:
        return np.zeros(count, np.int64), np.ones(count, np.bool_)
    zones = pc.dictionary_encode(pc.fill_null(texts, ""))
    minutes = [_zone_minutes(zone) for zone in zones.dictionary.to_pylist()]
    codes = zones.indices.to_numpy(zero_copy_only=False)
    naive = np.array([zone == "" for zone in zones.dictionary.to_pylist()], np.bool_)
    return np.array(minutes, np.int64)[codes] * 60_000_000, naive[codes]


def _zone_minutes(zone: str) -> int:
    if zone in {"", "Z", "z"}:
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return -minutes if zone[0] == "-" else minutes


def _plausible(year: I8, month: I8, day: I8, hour: I8, minute: I8, second: I8) -> B1:
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    days = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
    inside = (month >= 1) & (month <= 12)  # noqa: PLR2004  (months)
    last = days[np.where(inside, month, 1) - 1] + (leap & (month == 2))  # noqa: PLR2004  (February)
    inside &= (year >= 1) & (day >= 1) & (day <= last)
    return inside & (hour < 24) & (minute < 60) & (second < 60)  # noqa: PLR2004  (a clock)


def _days(year: I8, month: I8, day: I8) -> I8:
    """Return days since 1970; H. Hinnant, "chrono-compatible low-level date algorithms"."""
    shifted = year - (month <= 2)  # noqa: PLR2004  (the year begins in March)
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return np.asarray(
        era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    )


# --- epochs ---------------------------------------------------------------------------


def _epochs(texts: Column, scale: int) -> I8:
    numbers = pl.Series(values=texts)
    whole = _scaled(numbers.cast(pl.Int64, strict=False).to_arrow(), scale)
    broken = _scaled(numbers.cast(pl.Float64, strict=False).to_arrow(), scale)
    return np.where(whole == NO_EVENT, broken, whole)


def _scaled(column: Column, scale: int) -> I8:
    if pa.types.is_integer(column.type):
        whole = _int64(column.cast(pa.int64(), safe=False))
        small = (whole > NO_EVENT) & (np.abs(whole) <= _HIGHEST_US // scale)
        return np.where(small, whole, 0) * scale + np.where(small, 0, NO_EVENT)
    numbers = np.asarray(
        pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy(zero_copy_only=False)
    )
    with np.errstate(invalid="ignore", over="ignore"):
        good = np.abs(numbers) <= _HIGHEST_US / scale
    return np.where(
        good, np.rint(np.where(good, numbers, 0.0) * scale).astype(np.int64), NO_EVENT
    )


# --- zones ----------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _zone(name: str) -> tuple[I8, I8]:
    """Return (instants of change, offsets before, between and after), in microseconds.

    Found by asking the zone at every midnight of 1900 to 2100 and halving the days on which
    the answer changed. Beyond, the nearest offset holds.
    """
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        msg = f"timezone {name!r} is not an IANA name"
        raise ConfigError(msg) from error
    start = datetime(1900, 1, 1, tzinfo=UTC)

    def offset(second: int) -> timedelta:
        local = (start + timedelta(seconds=second)).astimezone(zone).utcoffset()
        assert local is not None
        return local

    changes: list[int] = []
    offsets = [offset(0)]
    for day in range((datetime(2100, 1, 1, tzinfo=UTC) - start).days):
        low, high = day * 86_400, (day + 1) * 86_400
        after = offset(high)
        if after == offsets[-1]:
            continue
        changes.append(_first(lambda second: offset(second) != offsets[-1], low, high))
        offsets.append(after)
    origin = int(start.timestamp())
    return (
        (np.array(changes, np.int64) + origin) * 1_000_000,
        np.array([round(one.total_seconds()) for one in offsets], np.int64) * 1_000_000,
    )


def _first(changed: Callable[[int], bool], low: int, high: int) -> int:
    """Return the first second in `(low, high]` for which `changed` holds."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if changed(middle) else (middle, high)
    return high


def to_utc(naive_us: I8, timezone: str) -> tuple[I8, B1]:
    """Return UTC for local times, and where the local time is skipped or comes twice.

    `fold=0` of PEP 495: the offset before a change holds until both clocks have passed it.

    Raises:
        ConfigError: no such zone.
    """
    changes, offsets = _zone(timezone)
    passed = changes + np.maximum(offsets[:-1], offsets[1:])
    begun = changes + np.minimum(offsets[:-1], offsets[1:])
    place = np.searchsorted(passed, naive_us, side="right")
    doubtful = np.searchsorted(begun, naive_us, side="right") > place
    return naive_us - offsets[place], doubtful
