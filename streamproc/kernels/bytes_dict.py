"""Names to dense codes: a hash table over byte ranges, and the check that a name is text.

One table is a descriptor of eight int64 words, so that kernels hand it around as one
address: `SLOTS` address, `BITS` log2 of the slots, `OFFSETS` address, `ENTRIES` most
entries, `DATA` address, `DATA_SIZE` bytes, `COUNT` entries, `DATA_END` bytes used.
A slot has 32 bytes: hash u64, code + 1 i32, length i32, the first 16 bytes of the name;
so a name of up to 16 bytes costs one cache line.

A caller that cannot stop half-way through a record asks `has_room` before; any other meets
`NO_ROOM` with the first new name the table has no room for.
"""

# ruff: noqa: PLR2004  (bytes of UTF-8; a word has 8 bytes)

import numpy as np

from streamproc.kernels._jit import inlined, kernel
from streamproc.kernels.bytes_raw import (
    I4,
    I8,
    U1,
    U64,
    copy_bytes,
    int64,
    load_i32,
    load_i64,
    load_u8,
    load_u64,
    low_bytes,
    prefetch,
    store_i32,
    store_i64,
    store_u64,
)

SLOTS, BITS, OFFSETS, ENTRIES, DATA, DATA_SIZE, COUNT, DATA_END = range(8)
WORDS = 8
SLOT_BYTES = 32
NAME_BYTES_MAX = 256
NOT_A_NAME = -1
NO_ROOM = -2

_SEED = U64(0xFF51AFD7ED558CCD)
_MIX = U64(0x9E3779B97F4A7C15)
_LAST = U64(0xC4CEB9FE1A85EC53)


@inlined
def mix(state: np.uint64, word: np.uint64) -> np.uint64:
    """Fold 8 bytes into a hash; every input bit reaches the high bits."""
    state = (state ^ word) * _MIX
    return state ^ (state >> U64(32))


@inlined
def _head(address: int, size: int) -> tuple[np.uint64, np.uint64]:
    """Return the first 16 bytes of a name of `size` ≥ 1 bytes, zeros behind its end.

    No branch on the size, which differs from name to name.
    """
    shift = U64(4 * min(max(size - 8, 0), 8))
    second = ((U64(1) << shift) << shift) - U64(1)
    first = ~U64(0) >> U64(64 - 8 * min(size, 8))
    return load_u64(address) & first, load_u64(address + 8) & second


@inlined
def _hash(first: np.uint64, second: np.uint64, address: int, size: int) -> np.uint64:
    """Return the hash of a name whose head is known; reads as far as `_head` and 7 bytes more."""
    state = mix(mix(_SEED, first), second)
    if size > 16:
        address += 16
        left = size - 16
        while left >= 8:
            state = mix(state, load_u64(address))
            address += 8
            left -= 8
        if left > 0:
            state = mix(state, low_bytes(load_u64(address), left))
    return (state ^ U64(size)) * _LAST


@inlined
def _slot(table: int, state: np.uint64) -> int:
    """Return the number of the slot to look at first."""
    return int64(state >> U64(64 - load_i64(table + 8 * BITS)))


@inlined
def expect(table: int, address: int, size: int) -> None:
    """Fetch the slot of a name that may be asked for soon, of `size` ≥ 1 readable bytes."""
    first, second = _head(address, size)
    state = _hash(first, second, address, size)
    prefetch(load_i64(table + 8 * SLOTS) + SLOT_BYTES * _slot(table, state))


@inlined
def same_bytes(left: int, right: int, size: int) -> bool:
    """Tell whether `size` bytes at two addresses are the same."""
    while size >= 8:
        if load_u64(left) != load_u64(right):
            return False
        left += 8
        right += 8
        size -= 8
    return size <= 0 or low_bytes(load_u64(left) ^ load_u64(right), size) == U64(0)


@kernel
def is_utf8(address: int, size: int) -> bool:
    """Tell whether the bytes are well-formed UTF-8 (RFC 3629: no surrogates, ≤ U+10FFFF)."""
    at = address
    end = address + size
    while at < end:
        lead = load_u8(at)
        at += 1
        if lead < 0x80:
            continue
        low = 0x80
        high = 0xBF
        if 0xC2 <= lead <= 0xDF:
            more = 1
        elif 0xE0 <= lead <= 0xEF:
            more = 2
            low = 0xA0 if lead == 0xE0 else 0x80
            high = 0x9F if lead == 0xED else 0xBF
        elif 0xF0 <= lead <= 0xF4:
            more = 3
            low = 0x90 if lead == 0xF0 else 0x80
            high = 0x8F if lead == 0xF4 else 0xBF
        else:
            return False
        if at + more > end:
            return False
        for _ in range(more):
            byte = load_u8(at)
            if byte < low or byte > high:
                return False
            low = 0x80
            high = 0xBF
            at += 1
    return True


@kernel
def is_name(address: int, size: int) -> bool:
    """Tell whether the bytes may name something: 1..256 bytes UTF-8, no control characters."""
    if size < 1 or size > NAME_BYTES_MAX:
        return False
    high = False
    for at in range(address, address + size):
        byte = load_u8(at)
        if byte < 0x20 or byte == 0x7F:
            return False
        high = high or byte >= 0x80
    return not high or is_utf8(address, size)


@inlined
def has_room(table: int, entries: int, size: int) -> bool:
    """Tell whether `entries` more names of together `size` bytes fit, load factor ≤ 1/2."""
    count = load_i64(table + 8 * COUNT) + entries
    return (
        count <= load_i64(table + 8 * ENTRIES)
        and 2 * count <= (1 << load_i64(table + 8 * BITS))
        and load_i64(table + 8 * DATA_END) + size <= load_i64(table + 8 * DATA_SIZE)
    )


@inlined
def code_of(table: int, address: int, size: int) -> int:
    """Return the code of a name, giving it the next one if it is new.

    A new name is checked by `is_name` first: `NOT_A_NAME` if it fails, and `NO_ROOM` where the
    table is full; nothing is kept then. The name lies in a padded buffer.
    """
    if size < 1 or size > NAME_BYTES_MAX:
        return NOT_A_NAME
    first, second = _head(address, size)
    state = _hash(first, second, address, size)
    mask = (1 << load_i64(table + 8 * BITS)) - 1
    offsets = load_i64(table + 8 * OFFSETS)
    data = load_i64(table + 8 * DATA)
    place = _slot(table, state)
    slot = load_i64(table + 8 * SLOTS) + SLOT_BYTES * place
    while load_i32(slot + 8) != 0:
        if (
            load_u64(slot) == state
            and load_i32(slot + 12) == size
            and load_u64(slot + 16) == first
            and load_u64(slot + 24) == second
        ):
            code = int64(load_i32(slot + 8)) - 1
            if size <= 16:
                return code
            kept = data + int64(load_i32(offsets + 4 * code))
            if same_bytes(address + 16, kept + 16, size - 16):
                return code
        place = (place + 1) & mask
        slot = load_i64(table + 8 * SLOTS) + SLOT_BYTES * place
    if not is_name(address, size):
        return NOT_A_NAME
    if not has_room(table, 1, size):
        return NO_ROOM
    code = load_i64(table + 8 * COUNT)
    end = load_i64(table + 8 * DATA_END)
    copy_bytes(data + end, address, size)
    store_i32(offsets + 4 * (code + 1), np.int32(end + size))
    store_u64(slot, state)
    store_i32(slot + 8, np.int32(code + 1))
    store_i32(slot + 12, np.int32(size))
    store_u64(slot + 16, first)
    store_u64(slot + 24, second)
    store_i64(table + 8 * COUNT, code + 1)
    store_i64(table + 8 * DATA_END, end + size)
    return code


@kernel
def intern_names(data: U1, starts: I8, ends: I8, table: I8, codes: I4) -> int:
    """Write the code of every name into `codes` (int32[n]), -1 where start < 0.

    Bytes `data[starts[i]:ends[i]]` name row i (uint8[m] padded, int64[n], int64[n]); `table`
    is one descriptor. Returns how many were done: fewer than n when the table is full.
    """
    base = data.ctypes.data
    place = table.ctypes.data
    for i in range(starts.size):
        if starts[i] < 0:
            codes[i] = -1
            continue
        size = ends[i] - starts[i]
        if not has_room(place, 1, size):
            return i
        codes[i] = code_of(place, base + starts[i], size)
    return starts.size


@kernel
def rehash(old: I8, new: I8) -> None:
    """Enter every name of table `old` into the empty, larger table `new`, same codes."""
    source = old.ctypes.data
    target = new.ctypes.data
    offsets = load_i64(source + 8 * OFFSETS)
    data = load_i64(source + 8 * DATA)
    for code in range(load_i64(source + 8 * COUNT)):
        start = int64(load_i32(offsets + 4 * code))
        end = int64(load_i32(offsets + 4 * (code + 1)))
        code_of(target, data + start, end - start)
