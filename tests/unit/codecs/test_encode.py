"""The encoders' own promises, and the choice of a decoder."""

import pytest

from streamproc.codecs.arrow_ipc import ArrowIpc
from streamproc.codecs.arrow_layout import ArrowOptions
from streamproc.codecs.avro import ConfluentAvro
from streamproc.codecs.chirpstack import ChirpStack
from streamproc.codecs.confluent import Framed, Plan, frame
from streamproc.codecs.encode import WireReading, encode_json, encode_json_many, rfc3339
from streamproc.codecs.json_flat import FlatJson
from streamproc.codecs.json_strict import JsonOptions
from streamproc.codecs.packed import Packed
from streamproc.codecs.protobuf import ConfluentProtobuf
from streamproc.codecs.select import make_decoder
from streamproc.codecs.strict import DETAIL_CHARS_MAX, FieldOptions, printable
from tests.support.wire import PACKED, UPLINKS


@pytest.mark.parametrize(
    ("time_us", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (1_769_853_600_123_000, "2026-01-31T10:00:00.123Z"),
        (1_769_853_600_000_001, "2026-01-31T10:00:00.000001Z"),
    ],
)
def test_times_are_written_with_the_decimals_they_need(time_us: int, text: str) -> None:
    assert rfc3339(time_us) == text


def test_json_is_written_without_what_is_not_known() -> None:
    reading = WireReading("d", "p", 0, 1.5)

    assert encode_json([reading]) == [
        b'{"device":"d","property":"p","time":"1970-01-01T00:00:00Z","value":1.5}'
    ]
    assert encode_json_many("d", 0, {"a": 1.0}) == (
        b'{"device":"d","time":"1970-01-01T00:00:00Z","values":{"a":1.0}}'
    )


def test_a_frame_is_magic_id_and_body() -> None:
    assert frame(258, b"body") == b"\0\0\0\1\2body"


def test_each_format_has_its_decoder_and_its_options() -> None:
    assert isinstance(make_decoder("json", JsonOptions()), FlatJson)
    assert isinstance(make_decoder("avro", FieldOptions()), ConfluentAvro)
    assert isinstance(make_decoder("protobuf"), ConfluentProtobuf)
    assert isinstance(make_decoder("arrow", ArrowOptions()), ArrowIpc)
    assert isinstance(make_decoder("packed", PACKED), Packed)
    assert isinstance(make_decoder("chirpstack", UPLINKS), ChirpStack)
    for name, options in (
        ("json", FieldOptions()),
        ("avro", JsonOptions()),
        ("avro", ArrowOptions()),
        ("arrow", FieldOptions()),
        ("packed", None),
        ("packed", FieldOptions()),
        ("chirpstack", None),
        ("chirpstack", PACKED),
        ("json", PACKED),
        ("text", None),
    ):
        with pytest.raises(TypeError, match="options"):
            make_decoder(name, options)  # type: ignore[arg-type]  # on purpose


def test_details_are_printable_and_bounded() -> None:
    assert (
        printable("a\x00b\udc80\n")
        == "a\N{REPLACEMENT CHARACTER}b\\udc80\N{REPLACEMENT CHARACTER}"
    )
    assert len(printable("x" * 10_000)) == DETAIL_CHARS_MAX + 1


def test_the_oldest_schema_is_forgotten_when_there_are_too_many() -> None:
    from streamproc.codecs.confluent import SCHEMAS_MAX  # noqa: PLC0415  (this bound only)
    from streamproc.core.ports import WireSchema  # noqa: PLC0415  (this bound only)
    from tests.support.wire import records_of  # noqa: PLC0415  (this bound only)

    class Nothing:
        scan = strict = None

    def compiled(_: WireSchema) -> Plan:
        return Nothing()  # type: ignore[return-value]  # never decodes

    decoder = Framed(compiled)
    for schema_id in range(SCHEMAS_MAX + 1):
        decoder.learn(schema_id, WireSchema("avro", ""))

    asked = decoder.missing(records_of([frame(0, b""), frame(1, b"")]))

    assert asked == {0}
