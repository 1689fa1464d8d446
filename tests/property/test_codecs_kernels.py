"""The byte kernels against slow, obvious twins."""

import math
import random
import re
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamproc.codecs.columns import Sheet
from streamproc.codecs.strict import UNIT_NS, Refused, epoch_time, rfc3339_time
from streamproc.core.values import Flag
from streamproc.kernels import (
    bytes_dict,
    bytes_fields,
    bytes_sheet,
    bytes_text,
    frames,
)
from streamproc.kernels.bytes_raw import PAD
from tests.support.wire import records_of


class Placed:
    """Bytes at an address, padded; the neighbours are digits, quotes and braces."""

    def __init__(self, data: bytes) -> None:
        self._memory = np.frombuffer(
            b'7"}:' * 4 + data + b'9"}:' * PAD, np.uint8
        ).copy()
        self.at = self._memory.ctypes.data + 16
        self.end = self.at + len(data)


def read_number(text: bytes) -> tuple[bool, float, int]:
    placed = Placed(text)
    certain, negative, mantissa, decimals, after = bytes_text.number(
        placed.at, placed.end
    )
    if not certain:
        return False, 0.0, 0
    certain, value = bytes_text.to_double(negative, mantissa, decimals)
    return certain, value, after - placed.at


NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,19})(\.[0-9]{1,20})?", fullmatch=True)


@given(NUMBERS | st.floats(allow_nan=False, allow_infinity=False).map(repr))
@example("9007199254740993")
@example("0.9007199254740993")
@example("900719925474099.3")
@example("-0.0")
@example("0.000000000000000001")
@example("999999999999999999")
@example("4503599627370497.5")
@example("4503599627370496.5")
def test_a_certain_number_is_the_nearest_double(text: str) -> None:
    certain, value, size = read_number(text.encode())

    if certain:
        assert size == len(text)
        assert value == float(text)
        assert math.copysign(1, value) == math.copysign(1, float(text))
    else:
        digits = text.partition("e")[0].strip("-").removeprefix("0.")
        assert "e" in text or sum(map(str.isdigit, digits)) > 18


def test_every_number_of_up_to_18_digits_is_certain_and_the_nearest_double() -> None:
    seed = 20260131
    print("seed", seed)  # noqa: T201  (pytest shows it when the test fails)
    rng = random.Random(seed)
    for _ in range(40_000):
        # Few decimals put the quotient next to a tie, where the remainder decides.
        decimals = rng.choice([1, 2, 3, rng.randrange(1, 19)])
        digits = str(rng.randrange(1 << 53, 10**18)).rjust(decimals + 1, "0")
        text = f"{digits[:-decimals]}.{digits[-decimals:]}"

        assert read_number(text.encode()) == (True, float(text), len(text)), text


@given(st.text("0123456789-+.eE ", max_size=24))
def test_what_is_no_number_is_never_certain_to_its_end(text: str) -> None:
    certain, value, size = read_number(text.encode())

    if certain:
        # A prefix may be a number; whoever reads on meets the rest.
        assert value == float(text[:size])
        assert text[:size].strip() == text[:size]
        assert not text[:size].lstrip("-").startswith(("00", "01"))


BEHIND = st.sampled_from([b",", b"}", b" ", b'"', b".", b"e", b"7", b"E5"])


@given(
    st.text("0123456789-+.eE ", max_size=10).map(str.encode) | NUMBERS.map(str.encode),
    BEHIND,
)
@example(b"0.00000", b",")
@example(b"1234567", b",")
@example(b"12345678", b",")
@example(b"123456.7", b"8")
@example(b"-0", b"}")
@example(b"00", b",")
def test_a_short_number_is_what_number_reads(text: bytes, behind: bytes) -> None:
    placed = Placed(text + behind)

    short = bytes_text.short_number(placed.at, placed.end)

    if short[0]:
        assert short == bytes_text.number(placed.at, placed.end)
    elif re.fullmatch(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?", text) and behind in b',} "':
        assert len(text.lstrip(b"-")) > 7


def test_every_number_of_four_characters_is_read_alike_both_ways() -> None:
    for characters in product(b"0123459.-e,", repeat=4):
        placed = Placed(bytes(characters) + b",")

        short = bytes_text.short_number(placed.at, placed.end)

        number = bytes_text.number(placed.at, placed.end)
        assert short == number if number[0] else not short[0], characters


TIMES = st.from_regex(
    r"[012][0-9]{3}-[01][0-9]-[0-3][0-9][Tt x][0-2][0-9]:[0-6][0-9]:[0-6][0-9]"
    r"(\.[0-9]{0,10})?([Zz]|[+-][0-2][0-9]:[0-6][0-9])?",
    fullmatch=True,
)


@given(TIMES | st.datetimes().map(lambda moment: moment.isoformat() + "Z"))
@example("2024-02-29T23:59:59.999999999-23:59")
@example("2023-02-29T00:00:00Z")
@example("1900-02-29T00:00:00Z")
@example("2000-02-29T00:00:00Z")
@example("0001-01-02T00:00:00Z")
@example("9999-12-30T23:59:59.9+00:00")
def test_times_read_by_the_kernel_are_those_of_the_strict_path(text: str) -> None:
    placed = Placed(text.encode())
    stated, event_us = bytes_text.rfc3339_us(placed.at, placed.end)

    try:
        expected = rfc3339_time(text, zone_assumed=True)
    except Refused:
        assert stated == -1
    else:
        assert (event_us, stated == 0) == (
            expected[0],
            bool(expected[1] & Flag.TZ_ASSUMED),
        )


DAYS = [
    *("2026-03-01", "2026-03-02", "2026-03-11", "2025-03-01", "0001-01-01"),
    *("9999-12-30", "9999-12-31"),
]
CLOCKS = st.from_regex(
    r"[Tt x][0-3][0-9][:.][0-6][0-9]:[0-6:;/][0-9](\.[0-9]{0,8})?[Zz+x]?",
    fullmatch=True,
)


@given(
    st.sampled_from(DAYS), st.sampled_from(DAYS), CLOCKS, st.sampled_from(["T", "t"])
)
@example("2026-03-01", "2026-03-01", "T23:59:59.123456Z", "T")
@example("2026-03-01", "2026-03-01", "T24:00:00Z", "T")
@example("2026-03-01", "2026-03-01", "T23:59:60Z", "T")
def test_a_time_of_a_known_day_is_what_rfc_3339_means(
    known: str, day: str, clock: str, between: str
) -> None:
    memory = np.array([0, -1, 0], np.int64)
    noted = Placed(f"{known}{between}00:00:00Z".encode())
    bytes_text.remember_day(noted.at, memory.ctypes.data)
    placed = Placed((day + clock).encode())

    after, event_us = bytes_text.known_day_us(placed.at, placed.end, memory.ctypes.data)

    stated, expected = bytes_text.rfc3339_us(placed.at, placed.end)
    if after > 0:
        stated, expected = bytes_text.rfc3339_us(placed.at, after)
        assert (stated, event_us) == (1, expected)
    elif stated == 1 and day == known and clock[0] == between and len(clock) < 17:
        raise AssertionError(clock)


FINE_CLOCKS = st.from_regex(
    r"T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{0,11})?(Z|z|[+-]00:0[01]|\+00:0|x|)",
    fullmatch=True,
)


@given(st.sampled_from(DAYS), st.sampled_from(DAYS), FINE_CLOCKS)
@example("2026-03-01", "2026-03-01", "T23:59:59.123456789+00:00")
@example("2026-03-01", "2026-03-01", "T23:59:59.12345678Z")
@example("2026-03-01", "2026-03-01", "T23:59:59.9999999999Z")
def test_nine_decimals_of_a_known_day_are_cut_as_rfc_3339_means(
    known: str, day: str, clock: str
) -> None:
    memory = np.array([0, -1, 0], np.int64)
    noted = Placed(f"{known}T00:00:00Z".encode())
    bytes_text.remember_day(noted.at, memory.ctypes.data)
    placed = Placed((day + clock).encode())

    after, event_us = bytes_text.known_day_ns(placed.at, placed.end, memory.ctypes.data)

    stated, expected = bytes_text.rfc3339_us(placed.at, placed.end)
    if after > 0:
        stated, expected = bytes_text.rfc3339_us(placed.at, after)
        assert (stated, event_us) == (1, expected)
    else:
        zone = clock.endswith(("Z", "z", "+00:00"))
        assert stated != 1 or day != known or not zone, clock


def test_no_text_is_of_the_day_that_was_never_noted() -> None:
    memory = np.array([0, -1, -1], np.int64)
    for byte in (0, 255):
        placed = Placed(bytes([byte]) * 11 + b"00:00:00Z")
        assert bytes_text.known_day_us(placed.at, placed.end, memory.ctypes.data)[0] < 0


@given(
    st.booleans(),
    st.integers(0, 10**18),
    st.integers(0, 18),
    st.sampled_from(sorted(set(UNIT_NS.values()))),
)
def test_a_certain_epoch_time_is_the_exact_floor(
    negative: bool, mantissa: int, decimals: int, unit_ns: int
) -> None:
    certain, event_us = bytes_text.epoch_us(negative, mantissa, decimals, unit_ns)

    exact = Fraction(-mantissa if negative else mantissa, 10**decimals)
    if certain:
        assert event_us == exact * unit_ns // 1000
    elif decimals == 0 and mantissa * unit_ns < 10**18:
        # Whole numbers of this size are certain unless they are out of bounds.
        try:
            epoch_time(int(exact), unit_ns)
        except Refused:
            return
        raise AssertionError


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


UGLY = st.lists(
    st.sampled_from(
        [
            b"a",
            b"\x7f",
            b"\x80",
            b"\xc0\x80",
            b"\xc3\xa9",
            b"\xe0\x80\x80",
            b"\xe2\x82\xac",
            b"\xed\xa0\x80",
            b"\xf0\x80\x80\x80",
            b"\xf0\x9f\x8c\xb3",
            b"\xf4\x90\x80\x80",
            b"\xf5",
            b"\xff",
            b"\xc3",
            b"\n",
            b"\x00",
        ]
    ),
    max_size=5,
).map(b"".join)


@given(st.binary(max_size=8) | UGLY)
def test_utf_8_is_what_python_decodes(data: bytes) -> None:
    placed = Placed(data)

    assert bytes_dict.is_utf8(placed.at, len(data)) == is_text(data)
    assert bytes_text.is_clean(placed.at, placed.end) == (
        is_text(data) and not any(byte < 0x20 for byte in data)
    )


NAMES = st.sampled_from(
    [b"d%d" % k for k in range(9)] + [b"x" * size for size in (7, 8, 9, 15, 16, 17, 33)]
)


@given(
    st.lists(
        NAMES | UGLY | st.none() | st.binary(max_size=40) | st.just(b"y" * 257),
        max_size=60,
    )
)
def test_codes_are_given_in_the_order_names_are_first_met(
    names: list[bytes | None],
) -> None:
    sheet = Sheet()
    given_names = records_of(names).values
    table = sheet.words[bytes_sheet.DEVICES : bytes_sheet.DEVICES + bytes_dict.WORDS]
    codes = np.full(len(names), -7, np.int32)

    done = bytes_dict.intern_names(
        given_names.data, given_names.starts, given_names.ends, table, codes
    )

    known: dict[bytes, int] = {}
    for name, code in zip(names, codes.tolist(), strict=True):
        good = (
            name is not None
            and 0 < len(name) <= 256
            and is_text(name)
            and not any(byte < 0x20 or byte == 0x7F for byte in name)
        )
        assert code == (known.setdefault(name, len(known)) if good and name else -1)
    assert done == len(names)


@pytest.mark.parametrize("size", [*range(1, 42), 255, 256])
def test_names_of_one_size_that_differ_in_one_byte_are_not_the_same(size: int) -> None:
    names = [b"a" * at + b"b" + b"a" * (size - at - 1) for at in range(size)]
    twice = [*names, b"a" * size, *names]  # each is followed by another one this time
    table = Sheet()._names[bytes_sheet.DEVICES]

    codes = table.intern(records_of(twice).values)

    assert codes.tolist() == [*range(size + 1), *range(size)]


@given(st.lists(st.integers(0, 3000), max_size=400))
def test_tables_grow_without_losing_a_name(numbers: list[int]) -> None:
    sheet = Sheet()
    names = [f"a device with a long name, number {number}" for number in numbers]
    half = len(names) // 2

    first = sheet.codes(bytes_sheet.DEVICES, names[:half])
    sheet.grow(60_000)
    second = sheet.codes(bytes_sheet.DEVICES, names[half:])

    known: dict[str, int] = {}
    expected = [known.setdefault(name, len(known)) for name in names]
    assert [*first.tolist(), *second.tolist()] == expected


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_varints_are_read_as_they_are_written(value: int, rest: bytes) -> None:
    groups = bytearray()
    left = value
    while left > 0x7F:
        groups.append(left & 0x7F | 0x80)
        left >>= 7
    data = bytes((*groups, left))
    placed = Placed(data + rest)

    word, after = bytes_fields.varint(placed.at, placed.end)

    assert (int(word), after - placed.at) == (value, len(data))
    assert bytes_fields.varint(placed.at, placed.at + len(data) - 1)[1] == -1
    signed = (value >> 1) ^ -(value & 1)
    assert bytes_fields.zigzag(np.uint64(value)) == signed


FRAMES = st.none() | st.binary(max_size=12) | st.binary(max_size=8).map(b"\0".__add__)


@given(st.lists(FRAMES, max_size=12), st.integers(0, 12))
@example([b"\0\0\0\1\2body", b"\0\0\0\1\2"], 12)
@example([b"\0\x7f\xff\xff\xff", b"\0\x80\0\0\0"], 12)
@example([None, b"\0\0\0\0\0"], 12)
@example([b"\0\0\0\1\2", b"\0\0\0\1\3"], 12)
@example([b"\1\0\0\1\2"], 12)
def test_a_frame_is_a_zero_byte_and_an_id_of_31_bits(
    records: list[bytes | None], size_max: int
) -> None:
    payloads = records_of(records).values
    ids = np.full(len(records), -7, np.int64)

    uniform = frames.read_frames(
        payloads.data, payloads.starts, payloads.ends, size_max, ids
    )

    expected = [
        int.from_bytes(record[1:5], "big")
        if record is not None
        and 5 <= len(record) <= size_max
        and record[0] == 0
        and record[1] < 0x80
        else frames.UNFRAMED
        for record in records
    ]
    assert ids.tolist() == expected
    assert uniform == (len(set(expected)) == 1 and frames.UNFRAMED not in expected)


TABLES = (bytes_sheet.DEVICES, bytes_sheet.PROPERTIES, bytes_sheet.UNITS)


def fits(sheet: Sheet, size: int) -> bool:
    """Tell, table by table, whether any record of `size` bytes has room."""
    readings, address = bytes_sheet.readings_of(size), sheet.words.ctypes.data
    free = sheet.words[bytes_sheet.CAPACITY] - sheet.words[bytes_sheet.COUNT]
    return bool(readings <= free) and all(
        bytes_dict.has_room(address + 8 * table, readings, size) for table in TABLES
    )


@given(
    st.tuples(*[st.integers(0, 300)] * 3),
    st.integers(3, 60),
    st.tuples(st.integers(0, 5_000), st.integers(1, 5_000)),
    st.integers(0, 65_536),
)
@example((250, 0, 0), 3, (0, 5_000), 100)
@example((0, 250, 0), 3, (0, 5_000), 100)
@example((0, 0, 250), 3, (0, 5_000), 100)
@example((130, 0, 0), 60, (0, 5_000), 100)
@example((0, 0, 130), 60, (0, 5_000), 100)
@example((0, 0, 0), 3, (90, 10), 100)
def test_a_record_within_the_room_fits_and_growing_makes_room(
    names: tuple[int, int, int], name_size: int, readings: tuple[int, int], size: int
) -> None:
    used, unused = readings
    sheet = Sheet()
    sheet.begin(used + unused)
    sheet.words[bytes_sheet.COUNT] = used
    for table, count in zip(TABLES, names, strict=True):
        for k in range(0, count, 10):
            some = range(k, min(k + 10, count))
            sheet.codes(table, [f"{number:0{name_size}}" for number in some])
    address = sheet.words.ctypes.data

    left, room = bytes_sheet.room(address)
    most = min(room, bytes_sheet.MEMBER_BYTES_MIN * (left - 1) - 1)
    for certain in {most, min(most, size)}:
        if certain >= 0:
            assert bytes_sheet.readings_of(certain) <= left
            assert fits(sheet, certain)
    sheet.grow(size)

    left, room = bytes_sheet.room(address)
    assert size <= room
    assert bytes_sheet.readings_of(size) <= left


@pytest.mark.parametrize("count", [1, 255, 256, 257, 700])
def test_every_property_with_a_code_has_its_place_in_seen(count: int) -> None:
    sheet = Sheet()

    codes = sheet.codes(bytes_sheet.PROPERTIES, [f"property {k}" for k in range(count)])

    assert codes.tolist() == list(range(count))
    assert len(sheet._seen) >= count
    assert sheet.words[bytes_sheet.SEEN] == sheet._seen.ctypes.data
    address = sheet.words.ctypes.data
    for first in (True, False):
        for code in range(count):
            assert bytes_sheet.first_time_here(address, 0, code, code) is first


@pytest.mark.parametrize(("size", "most"), [(8, 256), (256, 32)])
def test_a_full_table_takes_no_new_name_and_knows_the_old_ones(
    size: int, most: int
) -> None:
    sheet = Sheet()
    table = sheet.words[bytes_sheet.UNITS :].ctypes.data
    names = [Placed(f"{k:0{size}}".encode()) for k in range(most + 1)]

    for _ in range(2):
        codes = [bytes_dict.code_of(table, name.at, size) for name in names]
        assert codes == [*range(most), bytes_dict.NO_ROOM]
    bad = Placed(b"\n" * size)
    assert bytes_dict.code_of(table, bad.at, size) == bytes_dict.NOT_A_NAME
    assert sheet.words[bytes_sheet.UNITS + bytes_dict.COUNT] == most
    assert sheet.words[bytes_sheet.UNITS + bytes_dict.DATA_END] == most * size
