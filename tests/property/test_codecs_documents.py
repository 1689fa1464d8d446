"""Decoders against their strict path and against readers that share no code with them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.codecs.encode import WireReading, encode_arrow, encode_json_many
from streamproc.codecs.json_flat import FlatJson
from streamproc.codecs.json_strict import JsonOptions, StrictJson
from streamproc.codecs.select import make_decoder
from streamproc.codecs.strict import Refused
from streamproc.core.payloads import Payloads
from streamproc.kernels.bytes_text import TIME_US_MAX, TIME_US_MIN
from tests.support.wire import encoded, learnt, records_of, rows_of

NAMES = st.sampled_from(["d1", "pm10", "dé", "街", "x" * 40]) | st.text(
    st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
READINGS = st.builds(
    WireReading,
    NAMES,
    NAMES,
    st.integers(TIME_US_MIN, TIME_US_MAX - 1),
    FINITE,
    st.none() | NAMES,
    st.none() | st.integers(-128, 127),
)


@pytest.mark.parametrize("kind", ["json", "avro", "protobuf", "arrow"])
@given(readings=st.lists(READINGS, max_size=6))
def test_what_is_encoded_is_decoded(kind: str, readings: list[WireReading]) -> None:
    decoder = learnt(make_decoder(kind), kind)  # type: ignore[arg-type]

    decoded = decoder.decode(records_of(encoded(kind, readings)))

    assert decoded.rejects == ()
    assert rows_of(decoded) == [
        (k, 0, device, name, unit, time_us, value, 1 if quality is None else quality, 0)
        for k, (device, name, time_us, value, unit, quality) in enumerate(readings)
    ]


@given(readings=st.lists(READINGS, min_size=1, max_size=6))
def test_many_readings_in_one_record_keep_their_order(
    readings: list[WireReading],
) -> None:
    decoded = make_decoder("arrow").decode(records_of([encode_arrow(readings)]))
    values = {reading.property: reading.value for reading in readings}
    device, _, time_us, *_ = readings[0]

    document = encode_json_many(device, time_us, values)
    many = make_decoder("json").decode(records_of([document]))

    assert [(row[1], row[6]) for row in rows_of(decoded)] == [
        (k, reading.value) for k, reading in enumerate(readings)
    ]
    assert [row[1:7] for row in rows_of(many)] == [
        (k, device, name, None, time_us, value)
        for k, (name, value) in enumerate(values.items())
    ]


SPACE = st.sampled_from(["", " ", "\n", "\t \r"])
TEXTS = st.sampled_from(
    [
        '"d1"',
        '"pm10"',
        '"1.5"',
        '"on"',
        '"d\\u0031"',
        '"é"',
        '""',
        '"a\tb"',
        '"2026-01-31"',
        '"2026-01-31T10:00:00Z"',
        '"2026-01-31 10:00:00.25"',
        '"2026-01-31T10:00:00.1+02:00"',
    ]
)
SCALARS = TEXTS | st.sampled_from(
    [
        "1",
        "-0",
        "1.50",
        "1e2",
        "1769853600000",
        "true",
        "null",
        "NaN",
        "01",
        "-",
        "12345678901",
        "0.30000000000000004",
        "99999999999999999999",
        "1e999",
        "127",
        "-129",
    ]
)
KEYS = st.sampled_from(
    [
        "device",
        "property",
        "time",
        "value",
        "unit",
        "quality",
        "values",
        "units",
        "x",
        "y",
        "de\\u0076ice",
        "devic",
        "devices",
        "",
    ]
)


@st.composite
def members(draw: st.DrawFn, value: st.SearchStrategy[str], size: int) -> str:
    parts = []
    for _ in range(draw(st.integers(0, size))):
        key, text = draw(KEYS | st.sampled_from(["pm10", "no2"])), draw(value)
        gaps = [draw(SPACE) for _ in range(4)]
        parts.append(f'{gaps[0]}"{key}"{gaps[1]}:{gaps[2]}{text}{gaps[3]}')
    return "{" + ",".join(parts) + "}"


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Draw documents that are good, nearly good, or of the right shape with odd content."""
    base = draw(
        st.sampled_from(
            [
                ['"device":"d1"', '"property":"pm10"', '"time":5', '"value":1.5'],
                [
                    '"device":"d1"',
                    '"time":"2026-01-31T10:00:00Z"',
                    '"values":{"pm10":1,"no2":2}',
                ],
                ['"time":"2026-01-31T10:00:00"', '"property":"pm10"', '"value":"1.5"'],
                [],
            ]
        )
    )
    extra = draw(st.lists(st.tuples(KEYS, SCALARS | members(SCALARS, 3)), max_size=3))
    parts = draw(st.permutations(base + [f'"{key}":{text}' for key, text in extra]))
    gap = draw(SPACE)
    text = gap + "{" + gap + f"{gap},{gap}".join(parts) + gap + "}" + gap
    data = text.encode()
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(data)))
        data = (
            data[:at]
            + draw(st.binary(max_size=2))
            + data[at + draw(st.integers(0, 2)) :]
        )
    return data


OPTIONS = [
    JsonOptions(),
    JsonOptions(assume_zone="UTC", string_numbers=True, device_from_key=True),
    JsonOptions(time_unit="us", states={"pm10": {"on": 1.0}}, string_numbers=True),
]


def strictly(options: JsonOptions, batch: list[bytes], keys: list[bytes | None]) -> Any:
    """Decode one document at a time, by the strict path alone: (rows, rejects)."""
    strict = StrictJson(options)
    rows, rejects = [], []
    for row, (payload, key) in enumerate(zip(batch, keys, strict=True)):
        try:
            if not payload:
                rejects.append((row, "empty"))
                continue
            readings = strict.readings(payload, key)
        except Refused as refused:
            rejects.append((row, refused.reason.value))
        else:
            rows += [(row, k, *reading) for k, reading in enumerate(readings)]
    return rows, rejects


@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
@given(
    batch=st.lists(documents(), max_size=8),
    key=st.none() | st.sampled_from([b"", b"k1", b"\xff"]),
)
def test_scanner_and_strict_path_agree_on_every_document(
    options: JsonOptions, batch: list[bytes], key: bytes | None
) -> None:
    keys = [key] * len(batch)

    decoded = FlatJson(options).decode(records_of(batch, keys))

    found = rows_of(decoded), [(r.row, r.reason.value) for r in decoded.rejects]
    expected = strictly(options, batch, keys)
    assert (repr(found[0]), found[1]) == (repr(expected[0]), expected[1])


def test_ordinary_documents_never_need_the_strict_path() -> None:
    batch = [
        b'{"device":"d7","property":"pm10","time":"2026-01-31T10:00:00.123+02:00","value":12.5}',
        b'{"time":1769853600000,"value":-3,"property":"no2","device":"d","unit":"ppb","x":null}',
        b'{ "device": "d", "time": 5, "values": { "a": 1.0, "b": 0.30000000000000004 } }',
        b'{"device":"d","time":5,"values":{"a":1},"units":{"a":"u"},"quality":2,"y":"z"}',
        b'{"device":"d","property":"no2","time":5,"value":1,"unit":null,"quality":null}',
    ]
    from streamproc.codecs.columns import Sheet  # noqa: PLC0415  (a look inside, here only)

    doubtful = FlatJson()._scan(
        records_of(batch).values, Payloads.nulls(len(batch)), Sheet()
    )

    assert doubtful.tolist() == [0, 0, 0, 0, 0]
