"""The record batch kernels against a slow, obvious reader."""

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from streamproc.core.payloads import Payloads
from streamproc.kernels import record_batch as kernels
from streamproc.kernels.bytes_raw import PAD
from tests.support.batches import (
    NOW_MS,
    Batch,
    Malformed,
    Rec,
    Seen,
    naive_scan,
    naive_walk,
    sealed,
)

FOR_EVER = kernels.OFFSET_END
POISON = b"\xff\x7f\x01\x00"

small_bytes = st.none() | st.binary(max_size=6) | st.just(b"x" * 200)
headers = st.lists(
    st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=3)), max_size=2
)


@st.composite
def batches(draw: st.DrawFn) -> list[Batch]:
    """Batches one behind the other, with the gaps that compaction leaves."""
    made = []
    base = draw(st.integers(0, 1000))
    for _ in range(draw(st.integers(1, 4))):
        delta = 0
        records = []
        for _ in range(draw(st.integers(0, 5))):
            moved_ms = draw(st.integers(-5, 9000) | st.just(-2 * NOW_MS))
            records.append(
                Rec(
                    delta, draw(small_bytes), draw(small_bytes), moved_ms, draw(headers)
                )
            )
            delta += draw(st.integers(1, 3))
        last = max(0, delta - 1) + draw(st.integers(0, 2))
        batch = Batch(
            base,
            records,
            last_delta=last,
            append_time=draw(st.booleans()),
            producer=draw(st.sampled_from([-1, 7])),
        )
        made.append(batch)
        base = batch.next + draw(st.integers(0, 2))
    return made


def placed(data: bytes) -> tuple[npt.NDArray[np.uint8], int]:
    """Return bytes amid others that would be taken for more of them, and where they are."""
    return np.frombuffer(POISON * 3 + data + POISON * PAD, np.uint8), 12


def scan(data: bytes, rows: int = 16) -> tuple[npt.NDArray[np.int64], int, int]:
    around, start = placed(data)
    table = np.full((rows, kernels.COLUMNS), -77, np.int64)
    count, at, outcome = kernels.scan(around, start, start + len(data), table)
    found = table[:count]
    found[:, [kernels.START, kernels.END]] -= start
    return found, at - start, outcome


def walk(
    data: bytes,
    table: npt.NDArray[np.int64],
    low: int,
    high: int,
) -> tuple[list[Seen], int, int, int]:
    """Return records seen, the offset due next, the batch last looked at, the outcome."""
    around, start = placed(data)
    room = int(table[:, kernels.COUNT].clip(0, len(data)).sum())
    bodies = table[:, [kernels.START, kernels.END]] + start
    bodies[:, 0] += kernels.HEADER_BYTES
    offsets, broker_us = np.empty(room, np.int64), np.empty(room, np.int64)
    places = np.empty((4, room), np.int64)
    window = np.array([low, high])
    count, batch, outcome = kernels.walk(
        around, np.ascontiguousarray(bodies), table, window, offsets, broker_us, places
    )
    values = Payloads(around, places[0, :count], places[1, :count])
    keys = Payloads(around, places[2, :count], places[3, :count])
    seen = list(
        zip(
            offsets[:count].tolist(),
            broker_us[:count].tolist(),
            keys,
            values,
            strict=True,
        )
    )
    return seen, int(window[0]), batch, outcome


def assert_like_the_twin(data: bytes, low: int, high: int) -> None:
    table, at, outcome = scan(data)
    rows, naive_at, naive_outcome = naive_scan(data)
    assert (at, outcome) == (naive_at, naive_outcome)
    assert [
        {column: value for column, value in enumerate(row) if column in expected}
        for row, expected in zip(table.tolist(), rows, strict=True)
    ] == rows
    table = np.ascontiguousarray(table[table[:, kernels.MAGIC] == 2])

    seen, due, batch, outcome = walk(data, table, low, high)

    expected, expected_due, ended = naive_walks(data, table, low, high)
    assert (batch, outcome) == ended
    if outcome == kernels.DONE:
        assert (seen, due) == (expected, expected_due)
    else:
        assert seen[: len(expected)] == expected


def naive_walks(
    data: bytes, table: npt.NDArray[np.int64], due: int, high: int
) -> tuple[list[Seen], int, tuple[int, int]]:
    """Return the records of whole batches, the offset due, and (batch, outcome)."""
    found: list[Seen] = []
    for number, row in enumerate(table):
        body = data[row[kernels.START] + kernels.HEADER_BYTES : row[kernels.END]]
        try:
            more, due = naive_walk(body, row, due, high)
        except Malformed as malformed:
            return found, due, (number, malformed.code)
        found += more
    return found, due, (len(table), kernels.DONE)


@given(batches(), st.integers(0, 12), st.integers(1, 40) | st.just(FOR_EVER))
def test_every_record_from_the_position_on_is_seen_as_it_was_written(
    made: Sequence[Batch], ahead: int, width: int
) -> None:
    low = made[0].base + min(ahead, made[0].last + 1)
    data = b"".join(batch.encode() for batch in made)

    table, at, outcome = scan(data)
    seen, due, _, walked = walk(data, table, low, low + width)

    wanted = [
        (offset, max(time_us, -1), key, value)
        for batch in made
        for offset, time_us, key, value in batch.seen()
        if low <= offset < low + width
    ]
    assert (at, outcome, walked) == (len(data), kernels.DONE, kernels.DONE)
    assert seen == wanted
    assert due == made[-1].next
    assert_like_the_twin(data, low, low + width)


@given(batches(), st.data())
def test_a_cut_is_found_wherever_it_is(
    made: Sequence[Batch], data: st.DataObject
) -> None:
    blob = b"".join(batch.encode() for batch in made)

    assert_like_the_twin(blob[: data.draw(st.integers(0, len(blob)))], 0, FOR_EVER)


@given(batches(), st.data())
def test_damage_is_refused_just_where_the_twin_refuses_it(
    made: Sequence[Batch], data: st.DataObject
) -> None:
    blob = bytearray(b"".join(batch.encode() for batch in made))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(blob) - 1))
        blob[place] = data.draw(st.integers(0, 255))

    assert_like_the_twin(bytes(blob), 0, FOR_EVER)


@given(st.binary(max_size=60), st.integers(0, 4), st.integers(0, 9))
def test_a_body_of_any_bytes_is_read_as_the_twin_reads_it(
    body: bytes, count: int, last: int
) -> None:
    head = Batch(5, [Rec(0)], last_delta=last).encode()[: kernels.HEADER_BYTES]
    batch = sealed(head[:57] + struct.pack(">i", count) + body)

    assert_like_the_twin(batch, 0, FOR_EVER)


def test_a_full_table_says_where_to_go_on() -> None:
    made = [Batch(base, [Rec(0)]) for base in range(5)]
    data = b"".join(batch.encode() for batch in made)

    table, at, outcome = scan(data, rows=2)

    assert outcome == kernels.FULL
    assert at == len(made[0].encode()) * 2
    assert table[:, kernels.BASE].tolist() == [0, 1]


def test_a_varint_of_more_than_64_bits_is_refused() -> None:
    head = Batch(0, [Rec(0)]).encode()[: kernels.HEADER_BYTES]

    for number in (b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x02", b"\xff" * 10 + b"\0"):
        assert_like_the_twin(sealed(head + number + bytes(20)), 0, FOR_EVER)
