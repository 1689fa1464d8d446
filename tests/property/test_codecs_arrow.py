"""Arrow's columns as their buffers lie, against Arrow's own casts: same rows, same refusals."""

import os
import random
from typing import Any

import pyarrow as pa
import pytest

from streamproc.codecs.arrow_ipc import ArrowIpc
from streamproc.codecs.arrow_layout import ArrowOptions
from streamproc.core.values import Decoded
from tests.support.wire import records_of, rows_of

SEED = int(os.environ.get("STREAMPROC_FUZZ_SEED", "20260131"))
BATCH = 100
NAMES = [
    *("d1", "d2", "sensor-000017", "dé", "街", "x" * 16, "y" * 17, "z" * 256),
    *("a name of some length", "razlog-0000001"),
]
BAD_NAMES = ["", "a\n", "w" * 257, "\x7f"]
INDICES = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
]
TEXTS = [pa.string(), pa.large_string(), pa.string_view()]
INTEGERS = [*INDICES, pa.int16(), pa.int64()]


class Casts(ArrowIpc):
    """The decoder without its kernels: every record goes through Arrow's casts."""

    def _match(self, row: int, address: int, size: int) -> bool:
        return False

    def _read(self, row: int, payload: pa.Buffer) -> bool:
        return False


class Counted(ArrowIpc):
    """The decoder, counting the records that matched, and those that were read otherwise."""

    matched = kept = 0

    def _match(self, row: int, address: int, size: int) -> bool:
        matched = super()._match(row, address, size)
        self.matched += matched
        return matched

    def _read(self, row: int, payload: pa.Buffer) -> bool:
        read = super()._read(row, payload)
        self.kept += read
        return read


def names(rng: random.Random, count: int, *, nullable: bool) -> "pa.Array[Any]":
    """Return a column of names of any kind, now and then a bad one or a null."""
    known = rng.sample(NAMES, rng.randrange(1, len(NAMES)))
    if rng.randrange(40) == 0:
        known.append(rng.choice(BAD_NAMES))
    values: list[str | None] = [rng.choice(known) for _ in range(count)]
    if nullable or rng.randrange(40) == 0:
        values[rng.randrange(count)] = None
        values = ["" if nullable and rng.randrange(9) == 0 else v for v in values]
    text = rng.choice(TEXTS[:2] * 9 + TEXTS)
    if rng.randrange(3) == 0:
        return pa.array(values, text)
    spare = [*known, rng.choice([*NAMES, *BAD_NAMES]), ""]
    entries = list(dict.fromkeys([*filter(None, values), *spare]))
    rng.shuffle(entries)
    places = [None if v is None else entries.index(v) for v in values]
    if text == pa.string_view():
        text = pa.string()
    if rng.randrange(40) == 0:
        entries[-1] = None  # type: ignore[call-overload]  # a dictionary may hold a null
    indices: Any = pa.array(places, rng.choice(INDICES[:-1] * 4 + INDICES))
    return pa.DictionaryArray.from_arrays(indices, pa.array(entries, text))


def times(rng: random.Random, count: int) -> "pa.Array[Any]":
    kind: Any = rng.choice(
        [
            *(pa.timestamp(unit, "UTC") for unit in ("s", "ms", "us", "ns")),
            *(pa.int64(), pa.int32(), pa.uint32()),
        ]
    )
    if rng.randrange(20) == 0:
        kind = rng.choice([pa.timestamp("us"), pa.float64()])
    low = 0 if kind == pa.uint32() else -(10**9)
    values: list[int | None] = [rng.randrange(low, 10**9) for _ in range(count)]
    if rng.randrange(40) == 0 and kind == pa.int64():
        values[-1] = rng.choice([2**63 - 1, -(2**63), 253_402_300_800_000])
    if rng.randrange(40) == 0:
        values[0] = None
    column: pa.Array[Any] = pa.array(values, kind)
    return column


def numbers(rng: random.Random, count: int) -> "pa.Array[Any]":
    kind: Any = rng.choice(
        [pa.float64()] * 4 + [pa.float32(), pa.int8(), pa.int64(), pa.uint64()]
    )
    values: list[float | None] = [float(rng.randrange(100)) for _ in range(count)]
    if pa.types.is_floating(kind):
        values = [
            rng.choice([0.1, -0.0, 1e300 if kind == pa.float64() else 7.5])
        ] * count
        if rng.randrange(40) == 0:
            values[-1] = rng.choice([float("nan"), float("inf")])
    if rng.randrange(40) == 0:
        values[0] = None
    column: pa.Array[Any] = pa.array(values, kind)
    return column


def qualities(rng: random.Random, count: int) -> "pa.Array[Any]":
    kind = rng.choice([pa.int8()] * 4 + INTEGERS)
    values: list[int | None] = [
        rng.choice([0, 1, 127, None]) if rng.randrange(3) else 1 for _ in range(count)
    ]
    if rng.randrange(40) == 0 and kind == pa.int16():
        values[0] = rng.choice([128, -129])
    column: pa.Array[Any] = pa.array(values, kind)
    return column


def made(rng: random.Random) -> pa.RecordBatch:
    """Return a batch with columns in any order and of any kind."""
    count = rng.choice([1, 2, 7, 8, 9, 64])
    columns: dict[str, Any] = {
        "device": names(rng, count, nullable=False),
        "property": names(rng, count, nullable=False),
        "time": times(rng, count),
        "value": numbers(rng, count),
    }
    if rng.randrange(3):
        columns["unit"] = names(rng, count, nullable=True)
    if rng.randrange(3):
        columns["quality"] = qualities(rng, count)
    if rng.randrange(4) == 0:
        columns["other"] = rng.choice(
            [numbers(rng, count), times(rng, count), names(rng, count, nullable=True)]
        )
    if rng.randrange(40) == 0:
        del columns[rng.choice(list(columns))]
    order = list(columns)
    rng.shuffle(order)
    return pa.RecordBatch.from_pydict({name: columns[name] for name in order})


def stream_of(batches: list[pa.RecordBatch], codec: Any = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_stream(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def stream(rng: random.Random) -> bytes:
    """Return a stream of one batch, now and then two, now and then compressed."""
    codec = rng.choice([None, None, None, "lz4", "zstd"])
    return stream_of([made(rng)] * rng.choice([1] * 9 + [2]), codec)


EDGES = [0, 1, 2, 8, 64, 2**31, 2**40, 2**63 - 1]


def renumbered(rng: random.Random, data: bytes) -> bytes:
    """Return `data` with one of the small numbers in it changed: a length, a count, a place."""
    words = [
        at
        for at in range(0, len(data) - 7, 8)
        if int.from_bytes(data[at : at + 8], "little") < 2048
    ]
    if not words:
        return data
    at = rng.choice(words)
    old = int.from_bytes(data[at : at + 8], "little")
    near = max(0, old + rng.choice([-8, -1, 1, 8]))
    new = rng.choice([near, near, rng.choice(EDGES)])
    return data[:at] + new.to_bytes(8, "little") + data[at + 8 :]


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Return `data` with a few bytes changed: to neighbours, extremes or anything."""
    changed = bytearray(data)
    for _ in range(rng.choice([0, 0, 1, 1, 3])):
        at = rng.randrange(len(changed))
        what = rng.randrange(5)
        if what == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            changed[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif what == 2:
            size = rng.choice([4, 8])
            at &= -size
            changed[at : at + size] = rng.choice([b"\0", b"\xff"]) * size
        elif what == 3:
            changed[at] = rng.randrange(256)
        else:
            changed = bytearray(renumbered(rng, bytes(changed)))
    cut = rng.randrange(len(changed)) if rng.randrange(40) == 0 else len(changed)
    return bytes(changed[:cut])


def outcome(decoded: Decoded) -> tuple[Any, ...]:
    rejects = [(one.row, one.reason, one.detail) for one in decoded.rejects]
    return repr(rows_of(decoded)), rejects


OPTIONS = [
    ArrowOptions(),
    ArrowOptions(trusted_producers=True, assume_zone="UTC", time_unit="us"),
]


@pytest.mark.parametrize("options", OPTIONS, ids=["hostile", "trusted"])
def test_buffers_are_read_as_arrow_casts_them_or_left_to_it(
    options: ArrowOptions,
) -> None:
    print("seed", SEED)  # noqa: T201  (pytest shows it when the test fails)
    rng = random.Random(SEED)
    direct, casts = Counted(options), Casts(options)
    for _ in range(20):
        batch = [mutated(rng, stream(rng)) for _ in range(BATCH)]

        found = outcome(direct.decode(records_of(batch)))

        assert found == outcome(casts.decode(records_of(batch)))
    assert 350 < direct.kept < 1_800


@pytest.mark.parametrize("options", OPTIONS, ids=["hostile", "trusted"])
def test_streams_framed_alike_are_read_as_arrow_casts_them_or_left_to_it(
    options: ArrowOptions,
) -> None:
    print("seed", SEED)  # noqa: T201  (pytest shows it when the test fails)
    rng = random.Random(SEED)
    matched = 0
    for _ in range(80):
        direct, casts = Counted(options), Casts(options)
        whole = made(rng)
        batch = [stream_of([whole])]
        for _ in range(40):
            first = rng.randrange(whole.num_rows)
            part = whole.slice(first, rng.randrange(whole.num_rows - first + 1))
            batch.append(mutated(rng, stream_of([part])))
            batch.append(renumbered(rng, stream_of([part])))

        found = outcome(direct.decode(records_of(batch)))

        assert found == outcome(casts.decode(records_of(batch)))
        matched += direct.matched
    assert 500 < matched < 5_500


@pytest.mark.parametrize("kind", [*TEXTS[:2], pa.dictionary(pa.int16(), pa.string())])
def test_every_stream_framed_like_the_first_is_matched(kind: Any) -> None:
    rng = random.Random(SEED)
    whole = pa.RecordBatch.from_pydict(
        {
            "device": pa.array(["d1", "d2"] * 32).cast(kind),
            "property": pa.array(["pm10", "no2"] * 32).cast(kind),
            "time": pa.array(range(64), pa.timestamp("ms", "UTC")),
            "value": pa.array([0.5] * 64),
            "unit": pa.array(["ug/m3", None] * 32).cast(kind),
            "quality": pa.array([1, None] * 32, pa.int8()),
            "other": pa.array(range(64), pa.int32()),
        }
    )
    starts = [rng.randrange(60) for _ in range(BATCH)]
    parts = [whole.slice(start, rng.randrange(1, 65 - start)) for start in starts]
    batch = [stream_of([part]) for part in parts]
    direct, casts = Counted(), Casts()

    found = outcome(direct.decode(records_of(batch)))

    assert found == outcome(casts.decode(records_of(batch)))
    assert (direct.kept, direct.matched) == (1, BATCH - 1)


@pytest.mark.parametrize("options", OPTIONS, ids=["hostile", "trusted"])
def test_any_word_of_a_stream_without_units_may_be_negative(
    options: ArrowOptions,
) -> None:
    """Also the offset that a dictionary without entries has."""
    none = pa.DictionaryArray.from_arrays(
        pa.array([None, None], pa.int32()), pa.array([], pa.string())
    )
    whole = pa.RecordBatch.from_pydict(
        {
            "device": pa.array(["d1", "d2"]),
            "property": pa.array(["pm10", "no2"]),
            "time": pa.array(range(2), pa.timestamp("ms", "UTC")),
            "value": pa.array([0.5, 1.5]),
            "unit": none,
        }
    )
    plain = stream_of([whole])
    batch = [plain] + [
        plain[:at] + b"\xff" * 4 + plain[at + 4 :] for at in range(0, len(plain), 4)
    ]
    direct, casts = Counted(options), Casts(options)

    found = outcome(direct.decode(records_of(batch)))

    assert found == outcome(casts.decode(records_of(batch)))
    assert direct.kept + direct.matched > 30
