"""Every decoder: never raises, every record in one place, and no batch cut matters."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.codecs.arrow_ipc import ArrowIpc
from streamproc.codecs.arrow_layout import ArrowOptions
from streamproc.codecs.avro import ConfluentAvro
from streamproc.codecs.chirpstack import ChirpStack
from streamproc.codecs.encode import (
    WireReading,
    encode_arrow,
    encode_json_many,
    encode_uplink,
)
from streamproc.codecs.json_flat import FlatJson
from streamproc.codecs.json_strict import JsonOptions
from streamproc.codecs.packed import Packed
from streamproc.codecs.protobuf import ConfluentProtobuf
from streamproc.core.ports import Decoder, SchemaProblem
from streamproc.core.values import Decoded
from tests.support.wire import (
    PACKED,
    PACKED_WORDS,
    UPLINKS,
    Row,
    encoded,
    learnt,
    names_of,
    records_of,
    rows_of,
)

READINGS = [
    WireReading("d1", "pm10", 5, 1.5),
    WireReading("dé", "no2", -7, 0.1, "ug/m3", 3),
    WireReading("x" * 40, "pm10", 10**15, -0.0, None, -1),
]
GOOD = [
    *(
        one
        for kind in ("json", "avro", "protobuf", "arrow", "packed", "chirpstack")
        for one in encoded(kind, READINGS)
    ),
    encode_json_many("d1", 5, {"a": 1.0, "b": 2.0}, {"b": "u"}),
    encode_arrow(READINGS),
    b"\0\0\0\0\x63body",
    encode_uplink("d1", 5, {"pm10": 1, "open": True, "battery": 3.5}),
    encode_uplink("d1", 5, {"pm10": -0.5, "state": "free", "list": [{}, {"t": 1e3}]}),
    b'{"deviceInfo":{"devEui":"d"},"time":"2026-01-31T10:00:00Z"}',
]

DECODERS: dict[str, Callable[[], Decoder]] = {
    "json": FlatJson,
    "json with every option": lambda: FlatJson(
        JsonOptions(
            assume_zone="UTC",
            string_numbers=True,
            device_from_key=True,
            states={"pm10": {"on": 1.0}},
        )
    ),
    "avro": lambda: learnt(ConfluentAvro(), "avro"),
    "protobuf": lambda: learnt(ConfluentProtobuf(), "protobuf"),
    "packed": lambda: Packed(PACKED),
    "packed with devices in words": lambda: Packed(PACKED_WORDS),
    "chirpstack": lambda: ChirpStack(UPLINKS),
    "chirpstack with every option": lambda: ChirpStack(
        replace(UPLINKS, device="deviceName", booleans=True, unmapped="quarantine")
    ),
    "arrow": ArrowIpc,
    "arrow of trusted producers": lambda: ArrowIpc(
        ArrowOptions(trusted_producers=True)
    ),
}


@st.composite
def payloads(draw: st.DrawFn) -> bytes | None:
    good = draw(st.sampled_from(GOOD))
    how = draw(st.integers(0, 5))
    if how == 0:
        return draw(st.none() | st.binary(max_size=60))
    if how == 1:
        at = draw(st.integers(0, len(good)))
        return good[:at] + draw(st.binary(max_size=3)) + good[at:]
    if how == 2:
        at = draw(st.integers(0, len(good)))
        return good[:at] + good[at + draw(st.integers(1, 9)) :]
    return good


KEYS = st.sampled_from(
    [
        None,
        *(b"application.a.device.d.event." + kind for kind in (b"up", b"join", b"x")),
    ]
) | st.binary(max_size=5)
BATCHES = st.lists(st.tuples(payloads(), KEYS), max_size=12)
EACH = pytest.mark.parametrize("name", DECODERS)


def decode(decoder: Decoder, batch: list[tuple[bytes | None, bytes | None]]) -> Decoded:
    records = records_of([value for value, _ in batch], [key for _, key in batch])
    for schema_id in decoder.missing(records):
        decoder.learn(schema_id, SchemaProblem(missing=True, detail="not registered"))
    assert decoder.missing(records) == frozenset()
    return decoder.decode(records)


def facts(
    decoded: Decoded, shift: int = 0
) -> tuple[list[Row], list[tuple[int, str, str]]]:
    rows = [(row + shift, *rest) for row, *rest in rows_of(decoded)]
    refused = [(r.row + shift, r.reason.value, r.detail) for r in decoded.rejects]
    ignored = [(i.row + shift, "ignored", i.kind) for i in decoded.ignored]
    assert ignored == sorted(ignored)
    assert refused == sorted(refused, key=lambda one: one[0])
    refused = sorted(refused + ignored)
    return rows, refused  # type: ignore[return-value]  # the star loses the element types


@EACH
@given(batch=BATCHES)
def test_every_record_is_in_one_place_and_in_order(
    name: str, batch: list[tuple[bytes | None, bytes | None]]
) -> None:
    rows, refused = facts(decode(DECODERS[name](), batch))

    places = [(row[0], row[1]) for row in rows]
    assert places == sorted(set(places))
    for number in {row for row, _ in places}:
        ordinals = [ordinal for row, ordinal in places if row == number]
        assert ordinals == list(range(len(ordinals)))
    numbers = [row for row, *_ in refused]
    assert numbers == sorted(set(numbers))
    assert sorted({row for row, _ in places} | set(numbers)) == list(range(len(batch)))
    assert len({row for row, _ in places}) + len(numbers) == len(batch)
    assert all(
        0 < len(detail) <= 301 and detail.isprintable() for *_, detail in refused
    )


@EACH
@given(batch=BATCHES, cut=st.integers(0, 12))
def test_where_a_batch_is_cut_does_not_matter(
    name: str, batch: list[tuple[bytes | None, bytes | None]], cut: int
) -> None:
    cut = min(cut, len(batch))
    whole = facts(decode(DECODERS[name](), batch))
    decoder = DECODERS[name]()

    first = facts(decode(decoder, batch[:cut]))
    second = facts(decode(decoder, batch[cut:]), cut)

    assert repr((first[0] + second[0], first[1] + second[1])) == repr(whole)


@EACH
def test_later_dictionaries_begin_with_the_names_of_earlier_ones(name: str) -> None:
    decoder = DECODERS[name]()
    kind = name if name.endswith("words") else name.split(maxsplit=1)[0]
    batches = [READINGS[:1], READINGS, READINGS[:1]]

    found = [
        decode(decoder, [(one, None) for one in encoded(kind, batch)])
        for batch in batches
    ]

    assert found[0].vocabulary is not None
    for column in ("device", "property", "unit"):
        names = [names_of(decoded, column) for decoded in found]
        assert names[0] == names[1][: len(names[0])]
        assert names[1] == names[2]
    assert len({id(decoded.vocabulary) for decoded in found}) == 1
    assert rows_of(found[0]) == rows_of(found[2])
