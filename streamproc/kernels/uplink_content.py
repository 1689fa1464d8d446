"""What a device's codec decoded (`object` of an uplink): paths to the leaves that are mapped.

The mapped paths are a tree of nodes of eight int64 words each: the `HASH`, address
(`NAME`) and `SIZE` of a part of a path, the `ITEM` it is where it counts the items of a list
(else -1), the address of its `PROPERTY` (0 if nothing ends here) and of its `PARENT`. All are
found in one hash table of addresses, by parent and hash or item. A property has four words: its `CODE` and `UNIT` in the
sheet's tables, the address of its first of so many `STATES`. A state has six: the size of its
name, 32 bytes of it, its value. `streamproc.codecs.chirpstack_paths` builds them.

Every key of an object is compared with those before it by a hash of 64 bits: equal hashes
are doubt enough. A key with a dot in it is a path of several parts, as the options spell paths.
"""

# ruff: noqa: PLR2004, PLR0917, PLR1714  (bytes by their ASCII codes; a kernel is flat)

import numpy as np

from streamproc.kernels._jit import inlined, kernel
from streamproc.kernels.bytes_dict import mix, same_bytes
from streamproc.kernels.bytes_raw import (
    BLOCK,
    U64,
    int64,
    load_f64,
    load_i64,
    load_u8,
    load_u64,
    low_bytes,
    store_i64,
    store_u64,
    trailing_zeros,
    unequal,
)
from streamproc.kernels.bytes_sheet import COUNT, first_time_here, put
from streamproc.kernels.bytes_text import closing_quote, skip_space
from streamproc.kernels.json_parts import (
    DOUBT,
    FIRST,
    ROW,
    after_string,
    after_word,
    take_value,
)
from streamproc.kernels.json_parts import RULES as JSON_RULES
from streamproc.kernels.json_parts import TRACE as JSON_SCRATCH
from streamproc.kernels.json_skip import after_leaf, to_value

HASH, NAME, SIZE, ITEM, PROPERTY, PARENT = range(6)
NODE_WORDS = 8
CODE, UNIT, STATES, STATE_COUNT = range(4)
PROPERTY_WORDS = 4
STATE_NAME, STATE_VALUE = 1, 5
STATE_WORDS = 6
STATE_BYTES_MAX = BLOCK

# Words of `rules`: those of `json_parts`, and
PATHS = JSON_RULES  # the address of the root of all paths
UNMAPPED = JSON_RULES + 1
BOOLEANS = JSON_RULES + 2
DEVICE_KEY = JSON_RULES + 3  # two words of `"devEui"` or `"deviceName"`, and their size
DEVICE_KEY_SIZE = JSON_RULES + 5
TABLE = JSON_RULES + 6  # the address of the hash table, and log2 of its slots
TABLE_BITS = JSON_RULES + 7
RULES = JSON_RULES + 8

# Values of `UNMAPPED`: which leaves without a property the strict path has to see.
NOTHING, NUMBERS, NUMBERS_AND_BOOLEANS = range(3)

# Words of the scratch area: those of `json_parts` without a trace, and
FRAMES = JSON_SCRATCH  # four for each object and list that is open
DEPTH_MAX = 24
KEYS = FRAMES + 4 * DEPTH_MAX  # a hash for each key met in objects that are open
KEYS_MAX = 192
SCRATCH_WORDS = KEYS + KEYS_MAX

_ONES = U64(0x0101010101010101)
_HIGH = U64(0x8080808080808080)
_DOTS = U64(0x2E2E2E2E2E2E2E2E)
_NO_ITEM = -1


@inlined
def key_hash(at: int, size: int) -> tuple[np.uint64, bool]:
    """Return the hash of a key, and whether there is a dot in it."""
    state = U64(size)
    dots = U64(0)
    while size > 0:
        word = low_bytes(load_u64(at), size)
        state = mix(state, word)
        apart = word ^ _DOTS
        dots |= (apart - _ONES) & ~apart & _HIGH
        at += 8
        size -= 8
    return state, dots != U64(0)


@inlined
def _is_twice(keys: int, first: int, count: int, state: np.uint64) -> bool:
    twice = False
    for k in range(first, count):
        twice |= load_u64(keys + 8 * k) == state
    return twice


@inlined
def _slot(rules: int, node: int, state: np.uint64) -> int:
    """Return the number of the slot to look at first for a child of `node`."""
    return int64(mix(state, U64(node)) >> U64(64 - load_i64(rules + 8 * TABLE_BITS)))


@kernel
def enter(rules: int, node: int, word: int) -> None:
    """Have a node found by its parent and its `HASH` or `ITEM`; there must be room."""
    table = load_i64(rules + 8 * TABLE)
    last = (1 << load_i64(rules + 8 * TABLE_BITS)) - 1
    parent = load_i64(node + 8 * PARENT)
    slot = _slot(rules, parent, load_u64(node + 8 * word))
    while load_i64(table + 8 * slot) != 0:
        slot = (slot + 1) & last
    store_i64(table + 8 * slot, node)


@inlined
def _child_named(rules: int, node: int, state: np.uint64, at: int, size: int) -> int:
    if node == 0:
        return 0
    table = load_i64(rules + 8 * TABLE)
    last = (1 << load_i64(rules + 8 * TABLE_BITS)) - 1
    slot = _slot(rules, node, state)
    while True:
        below = load_i64(table + 8 * slot)
        if below == 0 or (
            load_i64(below + 8 * PARENT) == node
            and load_u64(below + 8 * HASH) == state
            and load_i64(below + 8 * SIZE) == size
            and same_bytes(at, load_i64(below + 8 * NAME), size)
        ):
            return below
        slot = (slot + 1) & last


@kernel
def _child_dotted(rules: int, node: int, at: int, size: int) -> int:
    """Go down the tree by a key that has dots in it."""
    end = at + size
    while node != 0:
        stop = at
        while stop < end and load_u8(stop) != 46:
            stop += 1
        state, _ = key_hash(at, stop - at)
        node = _child_named(rules, node, state, at, stop - at)
        if stop == end:
            break
        at = stop + 1
    return node


@inlined
def _child_item(rules: int, node: int, item: int) -> int:
    if node == 0:
        return 0
    table = load_i64(rules + 8 * TABLE)
    last = (1 << load_i64(rules + 8 * TABLE_BITS)) - 1
    slot = _slot(rules, node, U64(item))
    while True:
        below = load_i64(table + 8 * slot)
        if below == 0 or (
            load_i64(below + 8 * PARENT) == node and load_i64(below + 8 * ITEM) == item
        ):
            return below
        slot = (slot + 1) & last


@inlined
def _take_state(at: int, end: int, mapped: int) -> tuple[int, float]:
    """Read the name of a state, behind its quote: (address after it or DOUBT, value)."""
    close = closing_quote(at, end)
    state = load_i64(mapped + 8 * STATES)
    for _ in range(load_i64(mapped + 8 * STATE_COUNT)):
        size = load_i64(state)
        if (
            close - at == size
            and trailing_zeros(unequal(at, state + 8 * STATE_NAME)) >= size
        ):
            return close + 1, load_f64(state + 8 * STATE_VALUE)
        state += 8 * STATE_WORDS
    return DOUBT, 0.0


@inlined
def _take_key(
    at: int, end: int, rules: int, node: int, keys: int, first: int, count: int
) -> tuple[int, int]:
    """Read a key and note it: (address of its value or DOUBT, the node it leads to, if any)."""
    after = after_string(at, end)
    if after < 0 or count >= KEYS_MAX:
        return DOUBT, 0
    size = after - at - 2
    state, dotted = key_hash(at + 1, size)
    if _is_twice(keys, first, count, state):
        return DOUBT, 0
    store_u64(keys + 8 * count, state)
    if dotted:
        below = _child_dotted(rules, node, at + 1, size)
    else:
        below = _child_named(rules, node, state, at + 1, size)
    return to_value(after, end), below


@inlined
def _unmapped(at: int, end: int, rules: int) -> int:
    seen = load_i64(rules + 8 * UNMAPPED)
    if seen != NOTHING:
        byte = load_u8(at)
        if byte == 45 or 48 <= byte <= 57:
            return DOUBT
        if seen == NUMBERS_AND_BOOLEANS and (byte == 116 or byte == 102):
            return DOUBT
    return after_leaf(at, end)


@kernel
def _mapped(
    at: int, end: int, mapped: int, sheet: int, rules: int, scratch: int
) -> int:
    """Read a leaf of a property into the sheet; null is no reading."""
    byte = load_u8(at)
    if byte == 34:
        at, value = _take_state(at + 1, end, mapped)
    elif byte == 116 or byte == 102:
        if load_i64(rules + 8 * BOOLEANS) == 0:
            return DOUBT
        at = after_word(at, end)
        value = 1.0 if byte == 116 else 0.0
    elif byte == 110:
        return after_word(at, end)
    else:
        at, value = take_value(at, end, rules, scratch)
    code = load_i64(mapped + 8 * CODE)
    ordinal = load_i64(sheet + 8 * COUNT) - load_i64(scratch + 8 * FIRST)
    if (
        at < 0
        or code < 0
        or not first_time_here(sheet, load_i64(scratch + 8 * ROW), code, ordinal)
    ):
        return DOUBT
    put(sheet, code, load_i64(mapped + 8 * UNIT), value)
    return at


@inlined
def _take_leaf(
    at: int, end: int, below: int, sheet: int, rules: int, scratch: int
) -> int:
    mapped = load_i64(below + 8 * PROPERTY) if below != 0 else 0
    if mapped == 0:
        return _unmapped(at, end, rules)
    return _mapped(at, end, mapped, sheet, rules, scratch)


@kernel
def take_content(at: int, end: int, sheet: int, rules: int, scratch: int) -> int:
    """Read `object`, which must be one; return the address after it, or DOUBT."""
    if load_u8(at) != 123:
        return DOUBT
    at += 1
    keys = scratch + 8 * KEYS
    frame = scratch + 8 * FRAMES
    top = frame
    node = load_i64(rules + 8 * PATHS)
    item = int64(_NO_ITEM)  # of the list that is open; an object has none
    first = int64(0)  # key of the object that is open
    count = int64(0)  # of all keys noted
    opened = True
    while True:
        # Behind an opening brace or a value.
        at = skip_space(at, end)
        if at >= end:
            return DOUBT
        byte = load_u8(at)
        if byte == (125 if item < 0 else 93):
            at += 1
            if frame == top:
                return at
            frame -= 32
            count = first if item < 0 else count
            node = load_i64(frame)
            item = load_i64(frame + 8)
            first = load_i64(frame + 16)
            opened = False
            continue
        if not opened:
            if byte != 44:
                return DOUBT
            at = skip_space(at + 1, end)
            if at >= end:
                return DOUBT
        if item < 0:
            at, below = _take_key(at, end, rules, node, keys, first, count)
            if at < 0:
                return DOUBT
            count += 1
        else:
            below = _child_item(rules, node, item)
            item += 1
        byte = load_u8(at)
        if byte == 123 or byte == 91:
            if frame >= top + 32 * DEPTH_MAX:
                return DOUBT
            store_i64(frame, node)
            store_i64(frame + 8, item)
            store_i64(frame + 16, first)
            frame += 32
            node = below
            item = int64(_NO_ITEM) if byte == 123 else int64(0)
            first = count
            opened = True
            at += 1
            continue
        opened = False
        at = _take_leaf(at, end, below, sheet, rules, scratch)
        if at < 0:
            return DOUBT
