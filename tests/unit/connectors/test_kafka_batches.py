"""Undecoded batches to `Records`: where payloads lie, and what is refused."""

import random
import struct
from collections.abc import Sequence

import cramjam
import numpy as np
import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.structs import TopicPartition as AioTopicPartition

from streamproc.connectors import kafka_batches
from streamproc.connectors.kafka_arenas import ArenaPool
from streamproc.connectors.kafka_batches import BatchReader
from streamproc.connectors.kafka_codecs import Unfit, unpack
from streamproc.connectors.kafka_message_set import (
    Limits,
    MessageSet,
    RawRecords,
    Slice,
)
from streamproc.core.values import OffsetSpan, Records, TopicPartition
from streamproc.kernels.bytes_raw import PAD
from tests.support.batches import CODECS, Batch, Rec, marker, sealed

ORIGIN = TopicPartition("t", 0)
MEBIBYTE = 1 << 20
EVERYTHING = Limits(1_000_000)
PACKED = [codec for codec in CODECS if codec != "none"]


def received(data: bytes) -> Slice:
    """Return the bytes as they lie in an arena, amid others."""
    return Slice(
        np.frombuffer(b"before" + data + b"\xee" * PAD, np.uint8), 6, 6 + len(data)
    )


def raw(
    messages: MessageSet,
    aborted: Sequence[tuple[int, int]] = (),
    limits: Limits = EVERYTHING,
) -> RawRecords:
    """Return what aiokafka's fetcher would make of the bytes, at position 0."""
    tp = AioTopicPartition("t", 0)
    return RawRecords(*(limits, tp, messages, aborted), *(0, None, None, True, 1))


def read(
    data: bytes,
    *,
    pool: ArenaPool | None = None,
    aborted: Sequence[tuple[int, int]] = (),
    limits: Limits = EVERYTHING,
) -> list[Records]:
    pool = pool or ArenaPool(64 * MEBIBYTE)
    records = raw(MessageSet(pool, received(data)), aborted, limits)
    chunks = list(records)
    return BatchReader(pool).read(
        ORIGIN, chunks, OffsetSpan(0, records.next_fetch_offset)
    )


def numbered(base: int, count: int, codec: str = "none") -> Batch:
    return Batch(base, [Rec(n, b"value %d" % (base + n)) for n in range(count)], codec)


def values(batches: Sequence[Records]) -> list[bytes | None]:
    return [value for records in batches for value in records.values]


def test_uncompressed_payloads_stay_where_they_were_received() -> None:
    batches = [numbered(0, 5), numbered(5, 5)]
    response = received(b"".join(batch.encode() for batch in batches))
    pool = ArenaPool(MEBIBYTE)
    chunks = list(raw(MessageSet(pool, response)))

    (records,) = BatchReader(pool).read(ORIGIN, chunks, OffsetSpan(0, 10))

    assert np.shares_memory(records.values.data, response.frame)
    assert not records.values.data.flags.writeable
    assert list(records.values) == [b"value %d" % n for n in range(10)]
    assert pool.held == 0


@pytest.mark.parametrize("codec", PACKED)
def test_compressed_batches_share_one_buffer_with_uncompressed_ones(codec: str) -> None:
    batches = [numbered(0, 50, codec), numbered(50, 3), numbered(53, 50, codec)]

    (records,) = read(b"".join(batch.encode() for batch in batches))

    assert list(records.values) == [b"value %d" % n for n in range(103)]
    assert records.offsets.tolist() == list(range(103))
    assert len(records.values.data) >= records.values.ends.max() + PAD


@pytest.mark.parametrize("codec", PACKED)
def test_what_does_not_fit_into_one_buffer_comes_in_several_items(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_batches, "_PART_BYTES", 100_000)
    batches = [
        Batch(base, [Rec(n, b"%d" % (base + n) * 5000) for n in range(10)], codec)
        for base in range(0, 80, 10)
    ]

    found = read(b"".join(batch.encode() for batch in batches))

    assert len(found) > 1
    assert values(found) == [b"%d" % n * 5000 for n in range(80)]
    starts = [records.span.start for records in found]
    assert starts == [0, *(records.span.end for records in found[:-1])]
    assert found[-1].span.end == 80


@pytest.mark.parametrize("codec", PACKED)
@pytest.mark.fault(
    "F36",
    how="batches of every codec that swell beyond the limit",
    seen="refused with their place",
)
def test_a_batch_that_swells_beyond_the_limit_is_refused_with_its_place(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_batches, "BATCH_BYTES_MAX", 300_000)
    bomb = Batch(7, [Rec(0, bytes(400_000))], codec)

    with pytest.raises(
        CorruptRecordException, match=r"t/0: .* 7 to 7 cannot be decomp"
    ):
        read(numbered(0, 7).encode() + bomb.encode())


@pytest.mark.parametrize("codec", PACKED)
def test_a_large_batch_below_the_limit_is_read(codec: str) -> None:
    value = bytes(3 * MEBIBYTE)

    (records,) = read(Batch(0, [Rec(0, value)], codec).encode())

    assert list(records.values) == [value]


@pytest.mark.parametrize("codec", PACKED)
def test_a_compressed_body_that_is_damaged_is_refused_with_its_place(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_batches, "BATCH_BYTES_MAX", MEBIBYTE)
    rng = random.Random(1)
    whole = Batch(3, [Rec(0, rng.randbytes(2000))], codec).encode()
    cut = sealed(whole[:-700])

    with pytest.raises(CorruptRecordException, match=r"t/0: .* 3 to 3 "):
        read(cut)


def test_an_unknown_codec_is_refused_with_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka_batches, "BATCH_BYTES_MAX", MEBIBYTE)
    batch = bytearray(numbered(3, 2).encode())
    batch[22] |= 5

    with pytest.raises(
        CorruptRecordException, match=r"3 to 4 .* no compression codec 5"
    ):
        read(sealed(bytes(batch)))


def test_snappy_without_javas_framing_is_read() -> None:
    out = bytearray(100)
    block = bytes(cramjam.snappy.compress_raw(b"plain snappy"))

    assert unpack(2, memoryview(block), memoryview(out)) == 12
    assert out[:12] == b"plain snappy"


@pytest.mark.parametrize(
    "block", [b"\0\0", struct.pack(">i", 9), struct.pack(">i", -1)]
)
def test_a_snappy_block_that_is_cut_off_is_unfit(block: bytes) -> None:
    packed = CODECS["snappy"][1](b"value") + block

    with pytest.raises(Unfit, match="cut off"):
        unpack(2, memoryview(packed), memoryview(bytearray(100)))


@pytest.mark.fault(
    "F18", how="a bit changed in a record batch", seen="an error with its place"
)
def test_every_batch_is_checked_and_a_wrong_checksum_is_named() -> None:
    batches = [numbered(0, 4), marker(4, 1, abort=True), numbered(5, 3, "lz4")]
    data = b"".join(batch.encode() for batch in batches)
    sizes = [len(batch.encode()) for batch in batches]
    inside = [30, sizes[0] + 70, sizes[0] + sizes[1] + 30]

    for place, offsets in zip(inside, ("0 to 3", "4 to 4", "5 to 7"), strict=True):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        with pytest.raises(
            CorruptRecordException, match=f"t/0: .*{offsets} has checksum"
        ):
            read(bytes(damaged))


def test_a_hidden_batch_is_checked_too() -> None:
    """Damage in an aborted transaction may as well be in the header that says so."""
    batch = Batch(0, [Rec(0)], producer=1, transactional=True)
    damaged = bytearray(batch.encode())
    damaged[-1] ^= 1

    assert values(read(batch.encode(), aborted=[(1, 0)])) == []
    with pytest.raises(CorruptRecordException, match="0 to 0 has checksum"):
        read(bytes(damaged), aborted=[(1, 0)])


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (Batch(2, [Rec(0), Rec(5)], last_delta=3), "outside its offsets"),
        (Batch(2, [Rec(0)], extra=b"more"), "bytes behind its last record"),
        (
            Batch(2, [Rec(0)], extra=b"more", codec="zstd"),
            "bytes behind its last record",
        ),
    ],
)
def test_a_batch_whose_records_do_not_hold_is_refused_with_its_place(
    spoiled: Batch, message: str
) -> None:
    with pytest.raises(CorruptRecordException, match=f"t/0: .* 2 to . has .*{message}"):
        read(spoiled.encode())


def test_bytes_that_are_no_batch_are_refused_with_the_offset_that_was_due() -> None:
    first = numbered(0, 4).encode()
    magic = bytearray(numbered(4, 1).encode())
    magic[16] = 3
    short = struct.pack(">qi", 4, 3) + bytes(50)

    for data, message in (
        (magic, "a format nobody knows"),
        (short, "shorter than any"),
    ):
        with pytest.raises(CorruptRecordException, match=f"after offset 4 .*{message}"):
            read(first + bytes(data))


def test_old_records_keep_their_bytes_while_arenas_go_round() -> None:
    """The arena of what is still held must not be written to by later fetches."""
    pool = ArenaPool(4 * MEBIBYTE)
    kept: dict[int, Records] = {}
    expected: dict[int, list[bytes | None]] = {}
    addresses = set()
    rng = random.Random(2)
    for turn in range(60):
        codec = rng.choice(["none", "lz4", "zstd"])
        data = Batch(
            0, [Rec(n, rng.randbytes(300)) for n in range(500)], codec
        ).encode()
        frame = pool.take(len(data))
        frame[: len(data)] = np.frombuffer(data, np.uint8)
        chunks = list(raw(MessageSet(pool, Slice(frame, 0, len(data)))))
        (records,) = BatchReader(pool).read(ORIGIN, chunks, OffsetSpan(0, 500))
        addresses.add(records.values.data.ctypes.data)
        del chunks, frame
        # A part of it is as good as all of it.
        kept[turn] = records.between(100, 105)
        expected[turn] = list(kept[turn].values)
        if len(kept) > 3:
            kept.pop(rng.choice(list(kept)))
        for when, held in kept.items():
            assert list(held.values) == expected[when]
    assert len(addresses) < 30


def test_chunks_and_pieces_keep_to_the_limits() -> None:
    data = b"".join(numbered(base, 10).encode() for base in range(0, 100, 10))
    for limit, sizes in ((4, [4, 4, 2] * 10), (25, [20] * 5), (10, [10] * 10)):
        items = raw(MessageSet(ArenaPool(0), data), limits=Limits(limit))
        reader, found, start = BatchReader(ArenaPool(0)), [], 0
        for item in items:
            span = OffsetSpan(start, items.next_fetch_offset)
            (records,) = reader.read(ORIGIN, [item], span)
            found.append(len(records))
            start = span.end
        assert found == sizes
