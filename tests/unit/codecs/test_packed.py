"""Packed records: what a layout reads, and what it refuses."""

import struct
from dataclasses import replace
from typing import Any

import pytest

from streamproc.codecs.columns import Sheet
from streamproc.codecs.encode import WireReading, encode_packed
from streamproc.codecs.packed import Packed
from streamproc.codecs.packed_strict import PackedOptions
from tests.support.wire import PACKED, Row, names_of, records_of, rows_of

LITTLE = struct.Struct("<IHxxqfb3x")


def record(
    device: int = 7,
    code: int = 1,
    time: int = 1_000_000,
    value: float = 1.5,
    quality: int = 1,
) -> bytes:
    return LITTLE.pack(device, code, time, value, quality)


def rejects(options: PackedOptions, *values: bytes | None) -> list[tuple[str, str]]:
    decoded = Packed(options).decode(records_of(values))
    assert decoded.readings.num_rows == 0
    return [(reject.reason.value, reject.detail) for reject in decoded.rejects]


def rows(options: PackedOptions, *values: bytes) -> list[Row]:
    decoded = Packed(options).decode(records_of(values))
    assert decoded.rejects == ()
    return rows_of(decoded)


def test_a_record_is_one_reading_or_several() -> None:
    assert rows(PACKED, record(), record(8, 2) + record(9, 1, -1, -2.0, -128)) == [
        (0, 0, "m-7", "pm10", "ug/m3", 1_000_000, 1.5, 1, 0),
        (1, 0, "m-8", "no2", None, 1_000_000, 1.5, 1, 0),
        (1, 1, "m-9", "pm10", "ug/m3", -1, -2.0, -128, 0),
    ]


def test_a_reading_without_quality_is_valid_and_other_bytes_do_not_matter() -> None:
    options = replace(PACKED, quality_at=None)

    (row,) = rows(options, record()[:20] + b"\xff\xfe\xfd\xfc")

    assert row[-2] == 1


@pytest.mark.parametrize(
    ("kind", "code", "number", "text"),
    [
        ("u32", "I", 0, "0"),
        ("u32", "I", 2**32 - 1, "4294967295"),
        ("u64", "Q", 2**64 - 1, "18446744073709551615"),
        ("i64", "q", -(2**63), "-9223372036854775808"),
        ("i64", "q", -1, "-1"),
    ],
)
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("prefix", ["", "meter-é-"])
def test_a_number_is_written_out(
    kind: Any, code: str, number: int, text: str, order: Any, prefix: str
) -> None:
    options = replace(
        PACKED,
        size=28,
        byte_order=order,
        device_at=20,
        device_type=kind,
        device_prefix=prefix,
        quality_at=3,
    )
    sign = "<" if order == "little" else ">"
    one = struct.pack(f"{sign}3xbHxxqf{code}", 5, 1, 77, 0.25, number)

    (row,) = rows(replace(options, property_at=4), one.ljust(28, b"\xee"))

    assert row[2:] == (prefix + text, "pm10", "ug/m3", 77, 0.25, 5, 0)


@pytest.mark.parametrize(
    ("kind", "code", "raw", "scale", "value"),
    [
        ("i16", "h", -32768, 1.0, -32768.0),
        ("i16", "h", -5, 0.1, -0.5),
        ("i32", "i", 2**31 - 1, 1.0, 2147483647.0),
        ("i32", "i", 7, 0.01, 7 * 0.01),
        ("f32", "f", 0.1, 1.0, struct.unpack("<f", struct.pack("<f", 0.1))[0]),
        ("f64", "d", 0.1, 1000.0, 100.0),
        ("f64", "d", -0.0, 1.0, -0.0),
    ],
)
@pytest.mark.parametrize("order", ["little", "big"])
def test_a_value_is_scaled(
    kind: Any, code: str, raw: float, scale: float, value: float, order: Any
) -> None:
    options = replace(
        PACKED, byte_order=order, value_type=kind, value_scale=scale, quality_at=None
    )
    sign = "<" if order == "little" else ">"
    head = struct.pack(f"{sign}IHxxq{code}", 7, 1, 0, raw)

    (row,) = rows(options, head.ljust(24, b"\x11"))

    assert repr(row[6]) == repr(value)


@pytest.mark.parametrize(
    ("unit", "raw", "time_us"),
    [
        ("s", 4_294_967_295, 4_294_967_295_000_000),
        ("ms", -1, -1_000),
        ("us", 253_402_214_399_999_999, 253_402_214_399_999_999),
        ("ns", -1, -1),
        ("ns", 1_999, 1),
        ("ns", 2**63 - 1, 9_223_372_036_854_775),
        ("s", -62_135_510_400, -62_135_510_400_000_000),
    ],
)
def test_a_time_is_counted_in_its_unit(unit: Any, raw: int, time_us: int) -> None:
    (row,) = rows(replace(PACKED, time_unit=unit), record(time=raw))

    assert row[5] == time_us


def test_a_short_time_has_no_sign() -> None:
    options = replace(PACKED, time_type="u32", time_unit="s")

    (row,) = rows(options, record(time=2**32 - 1))

    assert row[5] == 4_294_967_295_000_000


@pytest.mark.parametrize(
    ("raw", "device"),
    [
        (b"abcd", "abcd"),
        (b"a\0\0\0", "a"),
        (b"a b ", "a b"),
        (b"a \0 ", "a"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "p/"])
def test_a_text_is_filled_up_with_nuls_or_spaces(
    raw: bytes, device: str, prefix: str
) -> None:
    options = replace(PACKED, device_type="text", device_length=4, device_prefix=prefix)

    (row,) = rows(options, raw + record()[4:])

    assert row[2] == prefix + device


@pytest.mark.parametrize(
    ("raw", "reason", "detail"),
    [
        (b"\0 \0 ", "bad_text", "reading 0: device has 0 bytes, must have 1 to 256"),
        (b"a\0b\0", "bad_text", "reading 0: device has a control character"),
        (b"\xc3\xa9\0\0", "bad_text", "reading 0: device is not ASCII"),
    ],
)
def test_a_text_that_is_no_name_is_refused(
    raw: bytes, reason: str, detail: str
) -> None:
    options = replace(PACKED, device_type="text", device_length=4)

    assert rejects(options, raw + record()[4:]) == [(reason, detail)]


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (None, "empty", "no payload"),
        (b"", "empty", "0 bytes"),
        (b"x" * 23, "malformed", "23 bytes are not one or more times 24"),
        (b"x" * 25, "malformed", "25 bytes are not one or more times 24"),
        (bytes(24 * 2731), "too_large", "65544 bytes, at most 65536 are read"),
        (record(code=3), "unknown_property", "reading 0: no property has code 3"),
        (record(value=float("nan")), "bad_value", "reading 0: value is nan"),
        (record(value=float("-inf")), "bad_value", "reading 0: value is -inf"),
        (
            record(time=253_402_214_400_000_000),
            "bad_time",
            "time 253402214400000000 is outside the years 1 to 9999",
        ),
        (
            record() + record(code=65535),
            "unknown_property",
            "reading 1: no property has code 65535",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_whole(
    value: bytes | None, reason: str, detail: str
) -> None:
    assert rejects(PACKED, value) == [(reason, detail)]


def test_a_scale_beyond_the_range_of_a_double_is_refused() -> None:
    options = replace(PACKED, value_scale=1e308)

    ((reason, _),) = rejects(options, record(value=1e10))

    assert reason == "bad_value"


def test_many_devices_and_codes_are_told_apart() -> None:
    codes = {code: f"p{code}" for code in range(0, 60_000, 7)}
    options = replace(PACKED, properties=codes, units={})
    many = list(codes.items())
    values = [
        record(device=n * 8191, code=code) + record(device=n, code=code)
        for n, (code, _) in enumerate(many)
    ]

    found = rows(options, *values)

    assert [row[2:4] for row in found] == [
        (f"m-{device}", name)
        for n, (_, name) in enumerate(many)
        for device in (n * 8191, n)
    ]


def test_names_are_known_anew_when_there_were_too_many() -> None:
    decoder = Packed(PACKED)
    decoder._sheet = Sheet(names_max=4)
    batches = [[record(device=10 * k + n) for n in range(6)] for k in range(3)]

    found = [decoder.decode(records_of(batch)) for batch in batches]

    for k, decoded in enumerate(found):
        names = [f"m-{10 * k + n}" for n in range(6)]
        assert names_of(decoded, "device") == names
        assert [row[2] for row in rows_of(decoded)] == names


def test_the_encoder_writes_what_the_decoder_reads() -> None:
    readings = [
        WireReading("m-12", "no2", 5, 1.5),
        WireReading("m-13", "pm10", -7, -0.25, None, -3),
    ]

    found = rows(PACKED, encode_packed(readings, PACKED))

    assert [row[2:4] + row[5:8] for row in found] == [
        ("m-12", "no2", 5, 1.5, 1),
        ("m-13", "pm10", -7, -0.25, -3),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 20}, "quality: bytes 20 to 20 do not lie within size = 20"),
        ({"device_at": -1}, "device: bytes -1 to 2 do not lie within"),
        ({"value_at": 15}, "value: overlaps time, which has bytes 8 to 15"),
        ({"properties": {}}, "at least one code"),
        ({"properties": {1: ""}}, "must be names"),
        ({"device_type": "text"}, "has a length"),
        ({"device_length": 3}, "type u32 has no length"),
        ({"device_prefix": "a\n"}, "the prefix of a device has a control character"),
        ({"device_prefix": "x" * 240}, "up to 260 bytes, at most 256"),
    ],
)
def test_a_layout_that_no_reading_can_have_is_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PACKED, **change)
