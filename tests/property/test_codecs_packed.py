"""Any layout, any bytes: what the kernel reads is what `struct` reads, and what numpy reads."""

import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamproc.codecs.encode import WireReading, encode_packed
from streamproc.codecs.packed import Packed
from streamproc.codecs.packed_strict import SIZES, PackedOptions, StrictPacked
from streamproc.kernels.bytes_text import TIME_US_MAX, TIME_US_MIN
from tests.property.test_codecs_fuzz import BATCH, SEED, compare, mutated
from tests.support.wire import PACKED, records_of

UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
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


def naive(options: PackedOptions, payload: bytes) -> Iterator[tuple[Any, ...] | None]:
    """Yield what numpy reads, None for each reading that is nothing acceptable."""
    order = "<" if options.byte_order == "little" else ">"
    codes = {
        name: f"{order}{kind[0]}{int(kind[1:]) // 8}"
        for name, kind in (
            ("property", options.property_type),
            ("time", options.time_type),
            ("value", options.value_type),
        )
    }
    text = options.device_type == "text"
    length = options.device_length
    kind = f"{order}{options.device_type[0]}{SIZES.get(options.device_type, 0)}"
    codes["device"] = f"V{length}" if text else kind
    places = {
        "device": options.device_at,
        "property": options.property_at,
        "time": options.time_at,
        "value": options.value_at,
    }
    if options.quality_at is not None:
        codes["quality"], places["quality"] = "i1", options.quality_at
    dtype = np.dtype(
        {
            "names": list(places),
            "formats": [codes[name] for name in places],
            "offsets": list(places.values()),
            "itemsize": options.size,
        }
    )
    for row in np.frombuffer(payload, dtype):
        time_us = int(row["time"]) * UNIT_NS[options.time_unit] // 1000
        value = float(row["value"]) * options.value_scale
        name = options.properties.get(int(row["property"]))
        device = str(row["device"])
        if text:
            raw = row["device"].tobytes().rstrip(b"\0 ")
            printable = all(0x20 <= byte < 0x7F for byte in raw)
            device = raw.decode() if raw and printable else ""
        if not (
            device
            and name
            and math.isfinite(value)
            and TIME_US_MIN <= time_us < TIME_US_MAX
        ):
            yield None
            continue
        unit = "ug/m3" if name == "pm10" else None
        quality = int(row["quality"]) if options.quality_at is not None else 1
        device = options.device_prefix + device
        yield device, name, unit, time_us, value, quality, 0


def held_against_naive(
    options: PackedOptions, batch: list[bytes], accepted: dict[int, list[Any]]
) -> None:
    for row, payload in enumerate(batch):
        whole = len(payload) > 0 and len(payload) % options.size == 0
        expected = list(naive(options, payload)) if whole else [None]
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
        StrictPacked(options).readings,
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


def test_mutated_packed_records_are_read_rightly_or_not_at_all() -> None:
    print("seed", SEED)  # noqa: T201  (pytest shows it when the test fails)
    rng = random.Random(SEED)
    decoder, strict = Packed(PACKED), StrictPacked(PACKED)
    total = kept = 0
    for _ in range(32):
        batch = [
            mutated(rng, encode_packed(several, PACKED))
            for several in (
                [random_reading(rng, PACKED) for _ in range(rng.randrange(1, 4))]
                for _ in range(BATCH)
            )
        ]

        accepted = compare(decoder.decode(records_of(batch)), batch, strict.readings)

        held_against_naive(PACKED, batch, accepted)
        total += len(batch)
        kept += len(accepted)
    assert total == 16_000
    assert total // 8 < kept < total
