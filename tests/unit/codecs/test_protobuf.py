"""Protobuf: .proto texts that can be used, those that cannot, and hostile messages."""

import struct
from typing import Any

import pytest

from streamproc.codecs.confluent import SchemaUnusable, frame
from streamproc.codecs.encode import WireReading, encode_protobuf, varint
from streamproc.codecs.proto_text import ProtoField, ProtoMessage, parse_proto
from streamproc.codecs.protobuf import ConfluentProtobuf
from streamproc.codecs.strict import FieldOptions
from streamproc.codecs.wire_schemas import READING_PROTO
from streamproc.core.ports import WireSchema
from streamproc.core.values import Reason
from tests.support.wire import SCHEMA_ID, ProtobufReading, learnt, records_of, rows_of

READING = WireReading("dé7", "pm10", -1_769_853_600_000_001, -0.5, "ug/m3", -3)
GOOD = encode_protobuf([READING], SCHEMA_ID)[0]
ROW = ("dé7", "pm10", "ug/m3", -1_769_853_600_000_001, -0.5, -3, 0)

HEAD = 'syntax = "proto3";\n'
FLAT = HEAD + "message R { string device = 1; string property = 2; int64 time = 3; %s }"
START = b"\x0a\1d\x12\1p\x18\2"
OWN = FieldOptions()


def decode(text: str, body: bytes, options: FieldOptions | None = None) -> list[Any]:
    """Decode one body; return rows without numbers, or reasons."""
    decoder = ConfluentProtobuf(options)
    decoder.learn(1, WireSchema("protobuf", text))
    decoded = decoder.decode(records_of([frame(1, body)]))
    return [row[2:] for row in rows_of(decoded)] or [r.reason for r in decoded.rejects]


def test_the_projects_own_schema_is_read() -> None:
    assert decode(READING_PROTO, GOOD[5:]) == [ROW]


def test_our_encoder_writes_what_the_protobuf_package_writes() -> None:
    message = ProtobufReading(
        device="dé7",
        property="pm10",
        time_us=-1_769_853_600_000_001,
        value=-0.5,
        unit="ug/m3",
        quality=-3,
    )

    assert GOOD[6:] == message.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("kind", "wire", "expected"),
    [
        ("double", b"\x21" + struct.pack("<d", 2.5), 2.5),
        ("float", b"\x25" + struct.pack("<f", 2.5), 2.5),
        ("int32", b"\x20" + varint(2**64 - 7), -7.0),
        ("int64", b"\x20" + varint(2**64 - 7), -7.0),
        ("uint32", b"\x20" + varint(2**32 - 1), 2.0**32 - 1),
        ("uint64", b"\x20" + varint(2**64 - 1), 2.0**64),
        ("sint32", b"\x20" + varint(13), -7.0),
        ("sint64", b"\x20" + varint(14), 7.0),
        ("fixed32", b"\x25" + struct.pack("<I", 2**32 - 1), 2.0**32 - 1),
        ("fixed64", b"\x21" + struct.pack("<Q", 2**64 - 1), 2.0**64),
        ("sfixed32", b"\x25" + struct.pack("<i", -7), -7.0),
        ("sfixed64", b"\x21" + struct.pack("<q", -7), -7.0),
    ],
)
def test_values_may_be_any_number(kind: str, wire: bytes, expected: float) -> None:
    text = FLAT % f"{kind} value = 4;"

    assert decode(text, b"\0" + START + wire, OWN) == [
        ("d", "p", None, 2_000, expected, 1, 0)
    ]


def written(kind: str, number: int) -> bytes:
    """Return an integer as field 2."""
    if kind == "fixed64":
        return b"\x11" + struct.pack("<Q", number)
    if kind[0] == "s":
        number = (number << 1) ^ (number >> 63)
    return b"\x10" + varint(number % 2**64)


@pytest.mark.parametrize(
    ("kind", "inside", "beyond"),
    [
        ("int32", [-(2**31), 2**31 - 1], [-(2**31) - 1, 2**31]),
        ("sint32", [-(2**31), 2**31 - 1], [-(2**31) - 1, 2**31]),
        ("uint32", [0, 2**32 - 1], [2**32, 2**63]),
        ("int64", [-(2**63), 2**63 - 1], []),
        ("sint64", [-(2**63), 2**63 - 1], []),
        ("uint64", [2**63 - 1, 2**63, 2**64 - 1], []),
        ("fixed64", [2**63 - 1, 2**63, 2**64 - 1], []),
    ],
)
def test_an_integer_has_the_range_of_its_kind(
    kind: str, inside: list[int], beyond: list[int]
) -> None:
    start = b"\0\x0a\1d\x18\2"
    fields = "message R { string device = 1; int64 time = 3; string property = 4; "
    single = HEAD + fields + f"{kind} value = 2; }}"
    many = HEAD + fields + f"map<string, {kind}> values = 2; }}"

    for number in inside + beyond:
        expected: list[Any] = [("d", "p", None, 2_000, float(number), 1, 0)]
        if number in beyond:
            expected = [Reason.MALFORMED]
        wire = written(kind, number)
        entry = b"\x0a\1p" + wire

        assert decode(single, start + b"\x22\1p" + wire, OWN) == expected
        assert (
            decode(many, start + b"\x12" + varint(len(entry)) + entry, OWN) == expected
        )


def test_an_implicit_value_that_is_absent_is_zero_and_an_optional_one_is_missing() -> (
    None
):
    body = b"\0" + START

    assert decode(FLAT % "double value = 4;", body, OWN)[0][4] == 0.0
    assert decode(FLAT % "optional double value = 4;", body, OWN) == [
        Reason.MISSING_FIELD
    ]


def test_a_map_of_values_makes_one_reading_an_entry() -> None:
    text = (
        HEAD
        + "message R { string device=1; int64 time=2; map<string, float> values=3; }"
    )
    head = b"\0\x0a\1d\x10\2"

    def entry(name: bytes, value: float) -> bytes:
        inner = b"\x0a" + bytes([len(name)]) + name + b"\x15" + struct.pack("<f", value)
        return b"\x1a" + bytes([len(inner)]) + inner

    assert decode(text, head + entry(b"b", 1.0) + entry(b"a", 2.0), OWN) == [
        ("d", "b", None, 2_000, 1.0, 1, 0),
        ("d", "a", None, 2_000, 2.0, 1, 0),
    ]
    # The wire format's own rule: the last entry of a key stands.
    assert decode(text, head + entry(b"b", 1.0) + entry(b"b", 2.0), OWN) == [
        ("d", "b", None, 2_000, 2.0, 1, 0)
    ]
    assert decode(text, head + b"\x1a\3\x0a\1b", OWN) == [
        ("d", "b", None, 2_000, 0.0, 1, 0)
    ]
    assert decode(text, head + entry(b"", 1.0), OWN) == [Reason.BAD_TEXT]
    assert decode(text, head + entry(b"b", float("inf")), OWN) == [Reason.BAD_VALUE]
    assert decode(text, head, OWN) == [Reason.MISSING_FIELD]


def test_unknown_fields_are_ignored_and_the_last_occurrence_stands() -> None:
    unknown = (
        b"\xa0\x06\1"  # 100, varint
        b"\xa1\x06" + b"8" * 8 + b"\xa5\x06" + b"4" * 4 + b"\xa2\x06\2xx"
        b"\x58\1"  # 11
    )
    group = b"\xa3\x06\x08\1\xa4\x06"

    assert decode(READING_PROTO, GOOD[5:] + unknown) == [ROW]
    assert decode(READING_PROTO, GOOD[5:] + group) == [ROW]
    again = b"\x0a\1e\x21" + struct.pack("<d", 9.0) + b"\x2a\0"
    assert decode(READING_PROTO, GOOD[5:] + again) == [
        ("e", "pm10", None, ROW[3], 9.0, -3, 0)
    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"\0", Reason.MISSING_FIELD),
        (b"\0" + GOOD[7:], Reason.MALFORMED),
        (GOOD[5:] + b"\0", Reason.MALFORMED),
        (GOOD[5:] + b"\x0f", Reason.MALFORMED),
        (GOOD[5:] + b"\0\0", Reason.MALFORMED),
        (GOOD[5:] + varint(100 << 3 | 1 << 35) + b"\1", Reason.MALFORMED),
        (GOOD[5:] + b"\xa1\x06" + b"8" * 7, Reason.MALFORMED),
        (GOOD[5:] + b"\xa5\x06" + b"4" * 3, Reason.MALFORMED),
        (GOOD[5:] + b"\xa2\x06\2x", Reason.MALFORMED),
        (GOOD[5:] + b"\x0a\2e", Reason.MALFORMED),
        (GOOD[5:] + b"\xa3\x06", Reason.MALFORMED),
        (GOOD[5:] + b"\xa3\x06" * 100, Reason.MALFORMED),
        (GOOD[5:] + b"\x0a\1\xff", Reason.MALFORMED),
        (GOOD[5:] + b"\x0a" + varint(2**63) + b"x", Reason.MALFORMED),
        (GOOD[5:] + b"\x0a" + varint(2**40), Reason.MALFORMED),
        (GOOD[5:] + b"\x18" + b"\xff" * 10, Reason.MALFORMED),
        (GOOD[5:] + b"\x18" + b"\xff" * 60_000, Reason.MALFORMED),
        (GOOD[5:] + b"\x30" + varint(2**40), Reason.MALFORMED),
        (GOOD[5:] + b"\x08\1", Reason.WRONG_TYPE),
        (GOOD[5:] + b"\x22\1x", Reason.WRONG_TYPE),
        (GOOD[5:] + b"\x25abcd", Reason.WRONG_TYPE),
        (GOOD[5:] + b"\x21" + struct.pack("<d", float("nan")), Reason.BAD_VALUE),
        (GOOD[5:] + b"\x18" + varint(2**62), Reason.BAD_TIME),
        (GOOD[5:] + b"\x30" + varint(256), Reason.BAD_VALUE),
        (GOOD[5:] + b"\x0a\0", Reason.BAD_TEXT),
        (GOOD[5:] + b"\x12\1\n", Reason.BAD_TEXT),
        (b"\2\2" + GOOD[6:], Reason.UNKNOWN_SCHEMA),
        (b"\4\0\0" + GOOD[6:], Reason.UNKNOWN_SCHEMA),
        (b"\1" + GOOD[6:], Reason.MALFORMED),
        (b"\xff" * 12, Reason.MALFORMED),
    ],
)
def test_bad_messages_are_refused_with_their_reason(
    body: bytes, reason: Reason
) -> None:
    assert decode(READING_PROTO, body) == [reason]


def test_every_truncation_of_a_message_is_refused() -> None:
    batch = records_of([GOOD[:size] for size in range(1, len(GOOD))])

    decoded = learnt(ConfluentProtobuf(), "protobuf").decode(batch)

    # A message may end after any field, so some lack only what is optional.
    for row in rows_of(decoded):
        assert row[2:7] in [(*ROW[:2], unit, *ROW[3:5]) for unit in (None, "ug/m3")]
    assert len(decoded.rejects) == len(batch) - 2


def test_a_message_of_another_type_never_becomes_a_reading() -> None:
    other = HEAD + "message Alert { string id = 1; string rule = 2; string text = 3; }"
    body = b"\0\x0a\2a1\x12\2r1\x1a\2ok"

    assert decode(READING_PROTO, body) == [Reason.WRONG_TYPE]
    assert decode(other, body) == [Reason.UNKNOWN_SCHEMA]


def test_the_message_index_chooses_among_the_files_messages() -> None:
    text = (
        HEAD + "message A { string x = 1; }" + FLAT[len(HEAD) :] % "double value = 4;"
    )
    body = START + b"\x21" + struct.pack("<d", 2.5)

    assert decode(text, b"\2\2" + body, OWN) == [("d", "p", None, 2_000, 2.5, 1, 0)]
    assert decode(text, b"\0" + body, OWN) == [Reason.UNKNOWN_SCHEMA]
    assert decode(text, b"\2\4" + body, OWN) == [Reason.UNKNOWN_SCHEMA]


def test_a_map_nobody_reads_is_an_unknown_field() -> None:
    text = FLAT % "double value = 4; map<string, double> tags = 5;"
    body = b"\0" + START + b"\x2a\2\xff\xff"

    assert decode(text, body, OWN) == [("d", "p", None, 2_000, 0.0, 1, 0)]


@pytest.mark.parametrize("number", [6, 62, 63, 64, 100])
def test_an_optional_field_is_read_whatever_its_number(number: int) -> None:
    text = FLAT % f"double value = 4; string unit = {number};"
    value = b"\x21" + struct.pack("<d", 2.5)
    body = b"\0" + START + value + varint(number << 3 | 2) + b"\1m"

    assert decode(text, body, OWN) == [("d", "p", "m", 2_000, 2.5, 1, 0)]


def test_high_field_numbers_are_read_too() -> None:
    text = FLAT % "double value = 1000;"
    body = b"\0" + START + b"\xc1\x3e" + struct.pack("<d", 2.5)

    assert decode(text, body, OWN)[0][4] == 2.5


def test_proto_text_is_parsed_with_comments_options_and_reserved_parts() -> None:
    text = """
    // a comment
    syntax = 'proto3'; /* another
    one */ package town.sensors;
    option java_package = "x"; option (custom).a = -1;
    message Reading {
      reserved 4, 10 to 12, 100 to max; reserved "old", 'older';
      option deprecated = true;
      string device = 0x1 [deprecated = true, json_name = "d"];;
      optional double value = 010 ;
      map < string , int32 > values = 3;
    };
    message Other {}
    """

    file = parse_proto(text)

    assert file.package == "town.sensors"
    assert file.messages == (
        ProtoMessage(
            "Reading",
            (
                ProtoField("device", 1, "string"),
                ProtoField("value", 8, "double", optional=True),
                ProtoField("values", 3, "int32", is_map=True),
            ),
        ),
        ProtoMessage("Other", ()),
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "too early"),
        ("message R {}", "proto2"),
        ('syntax = "proto2"; message R {}', "proto2"),
        ('edition = "2023"; message R {}', "editions"),
        (HEAD, "no message"),
        (HEAD + 'import "x.proto"; message R {}', "import"),
        (HEAD + "enum E { A = 0; } message R {}", "enum"),
        (HEAD + "service S {}", "service"),
        (HEAD + "message R { message N {} }", "nested message"),
        (HEAD + "message R { enum E { A = 0; } }", "nested enum"),
        (HEAD + "message R { oneof x { int32 a = 1; } }", "oneof"),
        (HEAD + "message R { repeated int32 a = 1; }", "repeated"),
        (HEAD + "message R { google.protobuf.Timestamp t = 1; }", "type google"),
        (HEAD + "message R { Other o = 1; }", "type Other"),
        (HEAD + "message R { map<int32, double> v = 1; }", "map<int32, double>"),
        (HEAD + "message R { map<string, string> v = 1; }", "map<string, string>"),
        (HEAD + "message R { optional map<string, double> v = 1; }", "optional"),
        (HEAD + "message R { int32 a = 0; }", "number 0"),
        (HEAD + "message R { int32 a = 19000; }", "number 19000"),
        (HEAD + "message R { int32 a = 536870912; }", "number 536870912"),
        (HEAD + "message R { int32 a = 1; int32 a = 2; }", "twice"),
        (HEAD + "message R { int32 a = 1; int32 b = 1; }", "twice"),
        (HEAD + "message R {} message R {}", "twice"),
        (HEAD + "message R { reserved 1 to 5; int32 a = 3; }", "reserved"),
        (HEAD + 'message R { reserved "a"; int32 a = 3; }', "reserved"),
        (HEAD + "message R { int32 a 1; }", "belongs"),
        (HEAD + "message R { int32 = 1; }", "belongs"),
        (HEAD + "message R { int32 a = b; }", "belongs"),
        (HEAD + "message R { int32 a = 09; }", "number"),
        (HEAD + "message R { int32 a = 1", "too early"),
        (HEAD + "message R { int32 a = 1 [", "too early"),
        (HEAD + "option x = { a: 1 };", "no .proto text"),
        (HEAD + "option x = {};", "block"),
        (HEAD + "option", "too early"),
        (HEAD + "message ü {}", "no .proto text"),
        (HEAD + "/* open", "no .proto text"),
        (" " * 300_000, "characters"),
    ],
)
def test_other_proto_texts_say_what_is_not_supported(text: str, word: str) -> None:
    with pytest.raises(SchemaUnusable, match=word):
        parse_proto(text)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ("bool value = 4;", "value field has type bool"),
        ("double v = 4;", "value is not in the schema"),
        ("map<string, double> value = 4;", "map<string, double>"),
        ("double value = 4; double values = 5;", "values field has type double"),
        ("double value = 4; int32 quality = 5;", "not optional"),
    ],
)
def test_messages_without_what_a_reading_needs_say_so(fields: str, word: str) -> None:
    decoder = ConfluentProtobuf(OWN)
    decoder.learn(1, WireSchema("protobuf", FLAT % fields))

    (reject,) = decoder.decode(records_of([frame(1, b"\0")])).rejects

    assert reject.reason is Reason.UNKNOWN_SCHEMA
    assert word in reject.detail


def test_schema_references_are_not_supported() -> None:
    decoder = ConfluentProtobuf()
    decoder.learn(1, WireSchema("protobuf", READING_PROTO, (("a.proto", ""),)))

    (reject,) = decoder.decode(records_of([frame(1, b"\0")])).rejects

    assert "references" in reject.detail
