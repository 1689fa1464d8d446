"""Raw batches, aiokafka's records and strict decoders: one answer, bit for bit, in every table.

Every format, every compression, transactions that were aborted, commits anywhere.
"""

import os
import random
import struct
from collections.abc import Sequence

import pyarrow as pa
import pytest

from streamproc.codecs.encode import WireReading
from streamproc.connectors.kafka_message_set import Limits
from tests.property.test_codecs_fuzz import mutated
from tests.support.batches import CODECS
from tests.support.both_ways import (
    MINUTE_US,
    Commit,
    Message,
    assert_same,
    folded,
    ordinary_way,
    raw_way,
    same_bits,
    written,
)
from tests.support.formats import FORMATS, Format, Strictly

SEED = int(os.environ.get("STREAMPROC_SEED", "20260301"))
BEGIN_US = 1_772_323_200_000_000
READINGS = 2000
EACH = pytest.mark.parametrize("name", FORMATS)
KEYS = [None, b"", b"key", b"application.a.device.d.event.up", b"a.event.join"]


def town(rng: random.Random) -> list[WireReading]:
    """Return three hours of a town: some late, some twice, some in the future, odd units."""
    made: list[WireReading] = []
    for number in range(READINGS):
        event_us = BEGIN_US + number * 4_000_000 + rng.randrange(2_000_000)
        fate = rng.random()
        if fate < 0.04:
            event_us -= rng.randrange(3 * 60 * MINUTE_US)
        elif fate < 0.05:
            event_us += 60 * MINUTE_US
        made.append(
            WireReading(
                f"device-{rng.randrange(1, 30)}",
                rng.choice(["pm10", "pm10", "no2", "temperature"]),
                event_us,
                rng.choice([rng.uniform(-100, 100), float(rng.randrange(90)), -0.0]),
                rng.choice([None, None, None, "ug/m3", "furlong"]),
                rng.choice([None, None, 1, 0, -1]),
            )
        )
        if fate > 0.96:
            made.append(rng.choice(made[-40:]))
    return made


def produced(form: Format, rng: random.Random) -> list[Message]:
    readings = town(rng)
    documents = form.documents(rng, readings)
    return [
        Message(
            damaged(rng, form, document),
            rng.choice(KEYS) if rng.random() < 0.1 else b"key",
            (BEGIN_US + number * 4_000_000) // 1000,
        )
        for number, document in enumerate(documents)
    ]


def damaged(rng: random.Random, form: Format, document: bytes) -> bytes | None:
    """Return the document, rarely changed or left out."""
    fate = rng.random()
    if fate < 0.02:
        return rng.choice([None, b""])
    if fate > 0.07:
        return document
    return document[: form.framed] + mutated(rng, document[form.framed :])


def assert_all_is_there(commits: Sequence[Commit]) -> None:
    """So nothing is equal because it is empty."""
    rows = {
        name: sum(commit.tables()[name].num_rows for commit in commits)
        for name in ("readings", "aggregates", "late", "quarantine", "late parts")
    }
    assert all(rows.values()), rows
    assert sum(len(commit.alerts) for commit in commits)
    windows = {
        window
        for commit in commits
        for window in commit.tables()["aggregates"]["window"].to_pylist()
    }
    assert windows == {"1m", "15m", "1h"}


def cut_anywhere(rng: random.Random, end: int) -> list[int]:
    return [*sorted(rng.sample(range(1, end), 4)), end]


@EACH
@pytest.mark.parametrize("codec", CODECS)
def test_both_ways_from_the_wire_lead_to_the_same_tables(name: str, codec: str) -> None:
    print("seed", SEED)  # noqa: T201  (pytest shows it when the test fails)
    rng = random.Random(f"{name} {codec} {SEED}")
    form = FORMATS[name]
    wire = written(rng, produced(form, rng), codec)
    cuts = cut_anywhere(rng, wire.end)

    raw = folded(raw_way(wire, Limits(rng.choice([40, 10**6]))), form.decoder(), cuts)

    ordinary = folded(ordinary_way(wire, rng.choice([70, 900])), form.decoder(), cuts)
    assert_same(raw, ordinary)
    assert_all_is_there(raw)


@EACH
def test_decoders_and_their_strict_paths_lead_to_the_same_tables(name: str) -> None:
    print("seed", SEED)  # noqa: T201  (pytest shows it when the test fails)
    rng = random.Random(f"{name} {SEED}")
    form = FORMATS[name]
    wire = written(rng, produced(form, rng), "none")
    cuts = cut_anywhere(rng, wire.end)

    fast = folded(raw_way(wire, Limits(10**6)), form.decoder(), cuts)

    assert_same(fast, folded(ordinary_way(wire, 500), Strictly(form), cuts))
    assert_all_is_there(fast)


def test_tables_are_told_apart_by_a_single_bit() -> None:
    def of(bits: int) -> pa.Table:
        (value,) = struct.unpack("<d", struct.pack("<Q", bits))
        return pa.table({"value": pa.array([1.0, value, None])})

    nan = 0x7FF8000000000000
    assert same_bits(of(nan), of(nan))
    assert not same_bits(of(nan), of(nan + 1))
    assert not same_bits(of(0), of(1 << 63))
