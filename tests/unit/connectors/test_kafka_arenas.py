"""Arenas are used again when nobody holds a part of them, and not before."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from streamproc.connectors.kafka_arenas import SMALL, ArenaPool
from streamproc.kernels.bytes_raw import PAD

MEBIBYTE = 1 << 20
LIMIT = 8 * MEBIBYTE

ALIASES: dict[str, Callable[[Any], Any]] = {
    "the array": lambda arena: arena,
    "a view of a view": lambda arena: arena[8:800][1:9],
    "another type": lambda arena: arena[:64].view(np.int64).reshape(2, 4)[1],
    "a memory view": lambda arena: memoryview(arena)[5:50],
    "an array over a memory view": lambda arena: np.frombuffer(
        memoryview(arena)[5:50], np.uint8
    )[3:4],
    "an Arrow buffer": lambda arena: pa.py_buffer(arena[10:20]).slice(2, 3),
    "an Arrow array": lambda arena: pa.Array.from_buffers(
        pa.int64(), 4, [None, pa.py_buffer(arena[:64])]
    ).slice(1, 2),
}


def test_an_arena_is_given_out_again_once_it_is_dropped() -> None:
    pool = ArenaPool(LIMIT)
    first = pool.take(MEBIBYTE)
    address = first.ctypes.data
    assert (pool.used, pool.held) == (first.size, first.size)

    del first

    assert pool.used == 0
    assert pool.take(MEBIBYTE).ctypes.data == address


@pytest.mark.parametrize("alias", ALIASES)
def test_an_arena_is_kept_for_whoever_holds_any_part_of_it(alias: str) -> None:
    pool = ArenaPool(LIMIT)
    arena = pool.take(MEBIBYTE)
    address = arena.ctypes.data
    held = [ALIASES[alias](arena)]
    del arena

    assert pool.used > MEBIBYTE
    assert pool.take(MEBIBYTE).ctypes.data != address

    held.clear()
    taken = [pool.take(MEBIBYTE), pool.take(MEBIBYTE)]
    assert address in {arena.ctypes.data for arena in taken}


def test_there_is_room_behind_what_was_asked_for() -> None:
    pool = ArenaPool(LIMIT)

    for size in (0, 1, SMALL - PAD, SMALL, SMALL + 1, 3 * MEBIBYTE):
        assert len(pool.take(size)) >= size + PAD


def test_a_small_request_does_not_hold_a_large_arena() -> None:
    pool = ArenaPool(LIMIT)
    pool.take(4 * MEBIBYTE)

    assert len(pool.take(SMALL)) < MEBIBYTE


def test_no_two_holders_ever_share_and_idle_bytes_are_bounded() -> None:
    rng = random.Random(7)
    pool = ArenaPool(LIMIT)
    held: dict[int, npt.NDArray[np.uint8]] = {}
    for turn in range(2000):
        size = rng.choice([100, SMALL * 3, MEBIBYTE, 2 * MEBIBYTE, 7 * MEBIBYTE])
        view = pool.take(size)[:size]
        view[:8] = np.frombuffer(turn.to_bytes(8, "little"), np.uint8)
        pool.take(0)  # whatever was dropped since is looked at only now
        assert pool.held - pool.used <= LIMIT
        held[turn] = view
        if len(held) > 5:
            held.pop(rng.choice(list(held)))
        assert all(
            int.from_bytes(kept[:8].tobytes(), "little") == when
            for when, kept in held.items()
        )
