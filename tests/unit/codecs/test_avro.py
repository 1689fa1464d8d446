"""Avro: schemas that can be used, schemas that cannot, data that is hostile."""

import json
import struct
from io import BytesIO
from typing import Any

import fastavro
import pytest

from streamproc.codecs.avro import ConfluentAvro
from streamproc.codecs.confluent import frame
from streamproc.codecs.encode import WireReading, encode_avro
from streamproc.codecs.strict import FieldOptions
from streamproc.core.ports import WireSchema
from streamproc.core.values import Flag, Reason
from tests.support.wire import SCHEMA_ID, learnt, records_of, rows_of

READING = WireReading("dé7", "pm10", 1_769_853_600_000_001, -0.5, "ug/m3", -3)
GOOD = encode_avro([READING], SCHEMA_ID)[0]
ROW = (0, 0, "dé7", "pm10", "ug/m3", 1_769_853_600_000_001, -0.5, -3, 0)

NULLABLE = ["null", "string"]


def schema(*fields: tuple[str, Any]) -> str:
    return json.dumps(
        {
            "type": "record",
            "name": "R",
            "fields": [{"name": name, "type": kind} for name, kind in fields],
        }
    )


BASE = (
    ("device", "string"),
    ("property", "string"),
    ("time", "long"),
    ("value", "double"),
)
FOUND = {"device": "d", "property": "p", "time": 2, "value": 1.5}


def decode(
    text: str, record: dict[str, Any], options: FieldOptions | None = None
) -> Any:
    """Write a record with fastavro, decode it; return rows without numbers, or reasons."""
    stream = BytesIO()
    parsed = fastavro.parse_schema(json.loads(text))
    fastavro.schemaless_writer(stream, parsed, record)
    decoder = ConfluentAvro(options)
    decoder.learn(1, WireSchema("avro", text))
    decoded = decoder.decode(records_of([frame(1, stream.getvalue())]))
    return [row[2:] for row in rows_of(decoded)] or [r.reason for r in decoded.rejects]


def refusal(text: str, options: FieldOptions | None = None) -> str:
    decoder = ConfluentAvro(options)
    decoder.learn(1, WireSchema("avro", text))
    (reject,) = decoder.decode(records_of([frame(1, b"")])).rejects
    assert reject.reason is Reason.UNKNOWN_SCHEMA
    return reject.detail


def test_the_projects_own_schema_is_read() -> None:
    assert rows_of(learnt(ConfluentAvro(), "avro").decode(records_of([GOOD]))) == [ROW]


@pytest.mark.parametrize(
    ("kind", "time", "expected_us"),
    [
        ("long", 2, 2_000),
        ("int", -2, -2_000),
        ({"type": "long", "logicalType": "timestamp-millis"}, 2, 2_000),
        ({"type": "long", "logicalType": "timestamp-micros"}, 2, 2),
        ({"type": "long", "logicalType": "timestamp-nanos"}, 1_999, 1),
        (["null", {"type": "long", "logicalType": "timestamp-micros"}], 2, 2),
        ("string", "1970-01-01T00:00:01Z", 1_000_000),
    ],
)
def test_times_follow_the_schemas_logical_type(
    kind: Any, time: Any, expected_us: int
) -> None:
    text = schema(*BASE[:2], ("time", kind), BASE[3])

    ((_, _, _, event_us, _, _, _),) = decode(text, FOUND | {"time": time})

    assert event_us == expected_us


def test_local_timestamps_need_a_declared_zone() -> None:
    kind = {"type": "long", "logicalType": "local-timestamp-micros"}
    text = schema(*BASE[:2], ("time", kind), BASE[3])

    assert "no zone is assumed" in refusal(text)
    ((*_, event_us, _, _, flags),) = decode(
        text, FOUND, FieldOptions(assume_zone="UTC")
    )
    assert (event_us, flags) == (2, Flag.TZ_ASSUMED)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("double", 0.1, 0.1),
        ("float", 0.1, struct.unpack("<f", struct.pack("<f", 0.1))[0]),
        ("int", -7, -7.0),
        ("long", 2**53 + 1, 2.0**53),
        (["double", "null"], 2.5, 2.5),
        (["null", "long", "double"], 2.5, 2.5),
    ],
)
def test_values_may_be_any_number(kind: Any, value: Any, expected: float) -> None:
    text = schema(*BASE[:3], ("value", kind))

    assert decode(text, FOUND | {"value": value})[0][4] == expected


def test_a_map_of_values_makes_one_reading_an_entry() -> None:
    fields = (BASE[0], BASE[2], ("values", {"type": "map", "values": "double"}))
    record = {"device": "d", "time": 2, "values": {"b": 1.0, "a": 2.0}}

    assert decode(schema(*fields), record) == [
        ("d", "b", None, 2_000, 1.0, 1, 0),
        ("d", "a", None, 2_000, 2.0, 1, 0),
    ]
    assert decode(schema(*fields), record | {"values": {}}) == [Reason.MISSING_FIELD]
    both = schema(*BASE, fields[2])
    assert decode(both, FOUND | record) == [Reason.MALFORMED]
    assert decode(both, FOUND | {"values": {}}) == [("d", "p", None, 2_000, 1.5, 1, 0)]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("null", None),
        ("boolean", True),
        ("int", 3),
        ("long", -3),
        ("float", float("nan")),
        ("double", float("inf")),
        ("string", "é"),
        ("bytes", b"\xff"),
        ({"type": "fixed", "name": "F", "size": 3}, b"abc"),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B"),
        (["null", "string"], None),
        (["string", "null"], "x"),
        ({"type": "array", "items": "double"}, [1.0, 2.0]),
        ({"type": "map", "values": "bytes"}, {"a": b""}),
        (["null", "int", "string"], "x"),
        (
            {
                "type": "record",
                "name": "N",
                "fields": [{"name": "next", "type": ["null", "N"]}],
            },
            {"next": {"next": None}},
        ),
    ],
)
def test_other_fields_are_ignored_whatever_they_are(kind: Any, value: Any) -> None:
    text = schema(
        ("first", kind), *BASE, ("last", kind if isinstance(kind, str) else "int")
    )
    last = value if isinstance(kind, str) else 1
    record = FOUND | {"first": value, "last": last}

    assert decode(text, record) == [("d", "p", None, 2_000, 1.5, 1, 0)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"device": None}, Reason.MISSING_FIELD),
        ({"device": ""}, Reason.BAD_TEXT),
        ({"device": "a\n"}, Reason.BAD_TEXT),
        ({"property": "p" * 257}, Reason.BAD_TEXT),
        ({"time": None}, Reason.MISSING_FIELD),
        ({"time": 2**62}, Reason.BAD_TIME),
        ({"time": -(2**63)}, Reason.BAD_TIME),
        ({"value": None}, Reason.MISSING_FIELD),
        ({"value": float("nan")}, Reason.BAD_VALUE),
        ({"value": float("-inf")}, Reason.BAD_VALUE),
        ({"quality": 128}, Reason.BAD_VALUE),
    ],
)
def test_bad_fields_refuse_the_record(change: dict[str, Any], reason: Reason) -> None:
    text = schema(
        *((name, ["null", kind]) for name, kind in BASE), ("quality", ["null", "int"])
    )

    assert decode(text, FOUND | {"quality": None} | change) == [reason]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no valid Avro schema"),
        ("{", "no valid Avro schema"),
        ('"string"', "no record"),
        ('{"type":"record","name":"R"}', "not in the schema"),
        (schema(*BASE[1:]), "device is not in the schema"),
        (schema(*BASE[:3]), "value is not in the schema"),
        (schema(("device", "bytes"), *BASE[1:]), "device field has type bytes"),
        (schema(*BASE[:3], ("value", "boolean")), "value field has type boolean"),
        (schema(*BASE[:3], ("value", ["double", "string"])), "has type string"),
        (
            schema(*BASE, ("values", {"type": "map", "values": "string"})),
            "maps to string",
        ),
        (
            schema(
                *BASE[:2], ("time", {"type": "int", "logicalType": "date"}), BASE[3]
            ),
            "is a date",
        ),
        (schema(*BASE, ("x", "Unknown")), "no valid Avro schema"),
        ("[" * 100_000, "no valid Avro schema"),
        (" " * 300_000, "characters"),
    ],
)
def test_schemas_that_cannot_be_read_say_why(text: str, word: str) -> None:
    assert word in refusal(text)


def test_every_truncation_of_a_datum_is_malformed() -> None:
    batch = records_of([GOOD[:size] for size in range(1, len(GOOD))])

    decoded = learnt(ConfluentAvro(), "avro").decode(batch)

    assert rows_of(decoded) == []
    assert {reject.reason for reject in decoded.rejects} == {Reason.MALFORMED}


def zigzag(value: int) -> bytes:
    word = (value << 1) ^ (value >> 63)
    groups = bytearray()
    while word > 0x7F:
        groups.append(word & 0x7F | 0x80)
        word >>= 7
    return bytes((*groups, word))


@pytest.mark.parametrize(
    "body",
    [
        GOOD[5:] + b"\0",
        zigzag(2**62) + b"x",
        zigzag(-1) + b"x",
        b"\xff" * 10,
        b"\xff" * 9 + b"\x02",
        b"\xff" * 60_000,
        zigzag(2) + b"\xc3\x28" + GOOD[5 + 5 :],
        GOOD[5:-2] + b"\x04" + GOOD[-1:],
        GOOD[5:-1] + zigzag(2**40),
    ],
)
def test_lies_in_a_datum_are_malformed_and_allocate_nothing(body: bytes) -> None:
    decoder = learnt(ConfluentAvro(), "avro")

    decoded = decoder.decode(records_of([frame(SCHEMA_ID, body), GOOD]))

    assert [row[1:] for row in rows_of(decoded)] == [ROW[1:]]
    assert [reject.reason for reject in decoded.rejects] == [Reason.MALFORMED]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ({"type": "array", "items": "null"}, zigzag(2**62) + b"\0"),
        ({"type": "array", "items": "long"}, zigzag(2**62) + b"\0"),
        ({"type": "map", "values": "null"}, zigzag(2**62) + b"\0"),
        ({"type": "array", "items": "null"}, zigzag(-(2**62)) + b"\0\0"),
        (
            {
                "type": "record",
                "name": "N",
                "fields": [{"name": "n", "type": ["null", "N"]}],
            },
            b"\2" * 60_000 + b"\0",
        ),
        ("boolean", b"\2"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\2"),
        ("int", zigzag(2**31)),
        ("string", zigzag(-(2**62))),
        ("bytes", zigzag(-(2**62))),
    ],
)
def test_length_bombs_in_ignored_fields_are_malformed(kind: Any, body: bytes) -> None:
    decoder = ConfluentAvro()
    decoder.learn(1, WireSchema("avro", schema(("x", kind), *BASE)))
    stream = BytesIO()
    fastavro.schemaless_writer(
        stream, fastavro.parse_schema(json.loads(schema(*BASE))), FOUND
    )

    decoded = decoder.decode(records_of([frame(1, body + stream.getvalue())]))

    assert [reject.reason for reject in decoded.rejects] == [Reason.MALFORMED]


@pytest.mark.parametrize("number", [2**31 - 1, -(2**31), 2**31, -(2**31) - 1])
@pytest.mark.parametrize("many", [False, True])
def test_an_int_has_32_bits(number: int, many: bool) -> None:
    fields: list[tuple[str, Any]] = [("device", "string"), ("time", "long")]
    if many:
        fields.append(("values", {"type": "map", "values": "int"}))
        body = b"\2d\4" + b"\2\2p" + zigzag(number) + b"\0"
    else:
        fields += [("property", "string"), ("value", "int")]
        body = b"\2d\4" + b"\2p" + zigzag(number)
    decoder = ConfluentAvro()
    decoder.learn(1, WireSchema("avro", schema(*fields)))

    decoded = decoder.decode(records_of([frame(1, body)]))

    if -(2**31) <= number < 2**31:
        assert [row[6] for row in rows_of(decoded)] == [number]
    else:
        assert [one.reason for one in decoded.rejects] == [Reason.MALFORMED]


def test_a_size_below_zero_does_not_read_a_datum_again() -> None:
    text = schema(("x", "bytes"), ("y", "boolean"), *BASE)
    decoder = ConfluentAvro()
    decoder.learn(1, WireSchema("avro", text))
    rest = b"\2d\2p\4" + struct.pack("<d", 1.5)

    # The size takes one byte: after -1 of them that byte would be y, and all would fit.
    decoded = decoder.decode(
        records_of([frame(1, zigzag(-1) + rest), frame(1, b"\0\1" + rest)])
    )

    assert [row[0] for row in rows_of(decoded)] == [1]
    assert [one.reason for one in decoded.rejects] == [Reason.MALFORMED]


@pytest.mark.parametrize("size", [-1, -(2**40), -(2**63), 2**40, 2**63 - 1])
@pytest.mark.parametrize("kind", ["int", "float", "double"])
def test_a_lie_about_the_size_of_a_name_in_a_map_is_malformed(
    kind: str, size: int
) -> None:
    text = schema(
        ("device", "string"),
        ("time", "long"),
        ("values", {"type": "map", "values": kind}),
    )
    decoder = ConfluentAvro()
    decoder.learn(1, WireSchema("avro", text))

    decoded = decoder.decode(
        records_of([frame(1, b"\2d\4" + b"\2" + zigzag(size) + b"p" + b"\0" * 9)])
    )

    assert [one.reason for one in decoded.rejects] == [Reason.MALFORMED]


def test_map_blocks_with_a_size_in_bytes_are_read() -> None:
    fields = (BASE[0], BASE[2], ("values", {"type": "map", "values": "double"}))
    entry = zigzag(1) + b"a" + struct.pack("<d", 2.0)
    blocks = zigzag(-1) + zigzag(len(entry)) + entry
    decoder = ConfluentAvro()
    decoder.learn(1, WireSchema("avro", schema(*fields)))
    head = zigzag(1) + b"d" + zigzag(2)

    def rows(body: bytes) -> list[Any]:
        decoded = decoder.decode(records_of([frame(1, head + body)]))
        return [row[2:] for row in rows_of(decoded)] or [
            r.reason for r in decoded.rejects
        ]

    assert rows(blocks + b"\0") == [("d", "a", None, 2_000, 2.0, 1, 0)]
    assert rows(blocks + zigzag(1) + entry + b"\0") == [Reason.MALFORMED]
    assert rows(zigzag(1) + entry + zigzag(1) + entry + b"\0") == [Reason.MALFORMED]


def test_named_types_from_references_are_found() -> None:
    unit = '{"type":"enum","name":"town.Unit","symbols":["ppb","ppm"]}'
    text = schema(*BASE, ("unit", "town.Unit"))
    decoder = ConfluentAvro()
    decoder.learn(1, WireSchema("avro", text, (("town.Unit", unit),)))
    body = b"\2d\2p\4" + struct.pack("<d", 1.5) + b"\2"

    decoded = decoder.decode(records_of([frame(1, body)]))

    assert rows_of(decoded) == [(0, 0, "d", "p", "ppm", 2_000, 1.5, 1, 0)]
