"""Any layout, any bytes: what the kernel reads is what `struct` reads, and what numpy reads."""

import math
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamproc.codecs.encode import WireReading, encode_packed
from streamproc.codecs.packed import Packed
from streamproc.codecs.packed_strict import SIZES, PackedOptions, StrictPacked
from streamproc.kernels.bytes_text import TIME_US_MAX, TIME_US_MIN
from tests.property.test_codecs_fuzz import compare
from tests.support.wire import UNIT_NS, naive_packed, records_of

NAMES = {0: "pm10", 1: "no2", 255: "water_level", 2: "pm10"}


@st.composite
def layouts(draw: st.DrawFn) -> PackedOptions:
    length = draw(st.integers(1, 20))
    kinds = {
        "device": draw(st.sampled_from(["u32", "u64", "i64", "text"])),
        "property": draw(st.sampled_from(["u8", "u16", "u32"])),
        "time": draw(st.sampled_from(["u32", "i64"])),
        "value": draw(st.sampled_from(["f32", "f64", "i16", "i32"])),
    }
    if draw(st.booleans()):
        kinds["quality"] = "i8"
    at, places = 0, {}
    for name in draw(st.permutations(sorted(kinds))):
        at += draw(st.integers(0, 3))
        places[name] = at
        at += SIZES.get(kinds[name], length)
    return PackedOptions(
        size=at + draw(st.integers(0, 3)),
        byte_order=draw(st.sampled_from(["little", "big"])),
        device_at=places["device"],
        device_type=kinds["device"],  # type: ignore[arg-type]  # drawn from them
        device_length=length if kinds["device"] == "text" else 0,
        device_prefix=draw(st.sampled_from(["", "m-", "é" * 20])),
        property_at=places["property"],
        property_type=kinds["property"],  # type: ignore[arg-type]
        properties=NAMES,
        units={"pm10": "ug/m3"},
        time_at=places["time"],
        time_type=kinds["time"],  # type: ignore[arg-type]
        time_unit=draw(st.sampled_from(["s", "ms", "us", "ns"])),
        value_at=places["value"],
        value_type=kinds["value"],  # type: ignore[arg-type]
        value_scale=draw(st.sampled_from([1.0, 0.1, -1e300])),
        quality_at=places.get("quality"),
    )


def held_against_naive(
    options: PackedOptions, batch: list[bytes], accepted: dict[int, list[Any]]
) -> None:
    for row, payload in enumerate(batch):
        whole = len(payload) > 0 and len(payload) % options.size == 0
        expected = list(naive_packed(options, payload)) if whole else [None]
        if None in expected:
            assert row not in accepted, payload
        else:
            assert repr(accepted[row]) == repr(expected), payload


@given(options=layouts(), data=st.data())
def test_any_layout_and_any_bytes(options: PackedOptions, data: st.DataObject) -> None:
    size = options.size
    rng = data.draw(st.randoms(use_true_random=False))
    readings = [
        random_reading(rng, options) for _ in range(data.draw(st.integers(0, 5)))
    ]
    bytes_ = st.binary(min_size=size, max_size=size).flatmap(
        lambda one: st.just(one) | st.binary(max_size=2 * size).map(one.__add__)
    )
    batch = [
        *(encode_packed([one], options) for one in readings),
        encode_packed(readings, options),
        *data.draw(st.lists(bytes_, max_size=5)),
    ]

    accepted = compare(
        Packed(options).decode(records_of(batch)),
        batch,
        lambda payload, _: StrictPacked(options).readings(payload),
    )

    held_against_naive(options, batch, accepted)


SECOND_US = 10**6
EDGES_US = [
    *(TIME_US_MIN - SECOND_US, TIME_US_MIN, -SECOND_US),
    *(TIME_US_MAX - SECOND_US, TIME_US_MAX),
]


def random_reading(rng: random.Random, options: PackedOptions) -> WireReading:
    low = 0 if options.time_type == "u32" else -(2**40)
    time_us = rng.randrange(low, 2**32) * UNIT_NS[options.time_unit] // 1000
    if (
        options.time_type == "i64"
        and options.time_unit != "ns"
        and not rng.randrange(8)
    ):
        time_us = rng.choice(EDGES_US)
    value = options.value_scale * rng.randrange(-(2**15), 2**15) / 2
    if options.value_type[0] == "f" and not rng.randrange(8):
        value = rng.choice([math.nan, math.inf, -math.inf])
    elif not math.isfinite(value):
        value = options.value_scale
    number = str(rng.choice([rng.randrange(2**32), 7]))
    return WireReading(
        options.device_prefix + number[: options.device_length or None],
        rng.choice(sorted(options.properties.values())),
        time_us,
        value,
        None,
        rng.choice([None, -128, 0, 127]),
    )
