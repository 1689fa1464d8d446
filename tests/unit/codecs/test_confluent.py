"""Framing, and schemas that are missing, unusable or many."""

import pytest

from streamproc.codecs.avro import ConfluentAvro
from streamproc.codecs.confluent import frame
from streamproc.codecs.encode import WireReading, encode_avro
from streamproc.codecs.protobuf import ConfluentProtobuf
from streamproc.codecs.wire_schemas import READING_AVSC
from streamproc.core.ports import SchemaProblem, WireSchema
from streamproc.core.values import Reason
from tests.support.wire import AVRO_SCHEMA, SCHEMA_ID, learnt, records_of, rows_of

READING = WireReading("d7", "pm10", 5, 1.5)
GOOD = encode_avro([READING], SCHEMA_ID)[0]


def test_the_ids_of_well_framed_records_are_asked_for_once() -> None:
    decoder = ConfluentAvro()
    batch = records_of(
        [
            GOOD,
            GOOD,
            frame(2**31 - 1, b""),
            b"\1" + b"g" * 16,
            b"\0\0",
            None,
            b"\0\xff\0\0\0",
        ]
    )

    assert decoder.missing(batch) == {SCHEMA_ID, 2**31 - 1}
    decoder.learn(SCHEMA_ID, AVRO_SCHEMA)
    decoder.learn(2**31 - 1, SchemaProblem(missing=True, detail="not there"))
    assert decoder.missing(batch) == frozenset()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, Reason.EMPTY),
        (b"", Reason.EMPTY),
        (b"\0", Reason.MALFORMED),
        (b"\0\0\0\0", Reason.MALFORMED),
        (b"\0\x80\0\0\0rest", Reason.MALFORMED),
        (b'{"device":1}', Reason.MALFORMED),
        (b"\1" + b"g" * 16 + b"body", Reason.UNKNOWN_SCHEMA),
        (frame(SCHEMA_ID, b""), Reason.MALFORMED),
        (frame(SCHEMA_ID, b"x" * 70_000), Reason.TOO_LARGE),
        (frame(99, b"x"), Reason.REGISTRY_UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("kind", ["avro", "protobuf"])
def test_what_is_not_framed_is_refused_and_never_guessed(
    kind: str, payload: bytes | None, reason: Reason
) -> None:
    decoder = learnt(ConfluentAvro() if kind == "avro" else ConfluentProtobuf(), kind)

    decoded = decoder.decode(records_of([payload]))

    assert rows_of(decoded) == []
    if kind == "protobuf" and payload == frame(SCHEMA_ID, b""):
        reason = Reason.MALFORMED
    assert [reject.reason for reject in decoded.rejects] == [reason]


def test_a_schema_that_is_certainly_missing_stays_missing() -> None:
    decoder = ConfluentAvro()
    decoder.learn(SCHEMA_ID, SchemaProblem(missing=True, detail="not\nthere"))
    batch = records_of([GOOD, GOOD])

    for _ in range(2):
        decoded = decoder.decode(batch)
        assert [r.reason for r in decoded.rejects] == [Reason.UNKNOWN_SCHEMA] * 2
        assert (
            decoded.rejects[0].detail == "schema 7: not\N{REPLACEMENT CHARACTER}there"
        )
    assert decoder.missing(batch) == frozenset()


def test_trouble_of_the_registry_holds_for_one_batch_only() -> None:
    decoder = ConfluentAvro()
    batch = records_of([GOOD])
    decoder.learn(SCHEMA_ID, SchemaProblem(missing=False, detail="down"))
    assert decoder.missing(batch) == frozenset()

    refused = decoder.decode(batch)

    assert [r.reason for r in refused.rejects] == [Reason.REGISTRY_UNAVAILABLE]
    assert decoder.missing(batch) == {SCHEMA_ID}
    decoder.learn(SCHEMA_ID, AVRO_SCHEMA)
    assert rows_of(decoder.decode(batch)) == [(0, 0, "d7", "pm10", None, 5, 1.5, 1, 0)]


def test_records_of_many_schemas_keep_their_order() -> None:
    other = READING_AVSC.replace("timestamp-micros", "timestamp-millis")
    decoder = ConfluentAvro()
    decoder.learn(7, AVRO_SCHEMA)
    decoder.learn(8, WireSchema("avro", other))
    decoder.learn(9, SchemaProblem(missing=True, detail="gone"))
    batch = [
        payload
        for k in range(5)
        for schema_id in (8, 9, 7)
        for payload in encode_avro([READING._replace(value=k)], schema_id)
    ]

    decoded = decoder.decode(records_of(batch))

    assert [(row[0], row[5], row[6]) for row in rows_of(decoded)] == [
        found
        for k in range(5)
        for found in [(3 * k, 5_000, float(k)), (3 * k + 2, 5, float(k))]
    ]
    assert [reject.row for reject in decoded.rejects] == [1, 4, 7, 10, 13]


def test_a_schema_of_another_kind_is_not_used() -> None:
    decoder = ConfluentProtobuf()
    decoder.learn(SCHEMA_ID, AVRO_SCHEMA)

    decoded = decoder.decode(records_of([GOOD]))

    assert decoded.rejects[0].reason is Reason.UNKNOWN_SCHEMA
    assert "avro, not protobuf" in decoded.rejects[0].detail
