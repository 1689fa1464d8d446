"""Passing over whatever JSON there is, nested or not: every byte is looked at, none is kept.

Each takes the address where its piece begins and returns the address after it, or `DOUBT`:
deep nesting, and whatever is no JSON. Numbers may have any size and escapes stand for
anything, for nobody asks what they are worth.
"""

# ruff: noqa: PLR2004, PLR1714  (bytes by their ASCII codes; a set is nothing for a kernel)

from streamproc.kernels._jit import inlined, kernel
from streamproc.kernels.bytes_raw import int64, load_u8, load_u64
from streamproc.kernels.bytes_text import is_clean, leading_digits, skip_space
from streamproc.kernels.json_parts import DOUBT, after_string, after_word

DEPTH_MAX = 48
"""Deepest nesting that is passed over, of the 62 that fit a word."""


@inlined
def _after_digits(at: int, end: int) -> int:
    """Skip digits; the address may be up to 8 beyond `end`."""
    count = leading_digits(load_u64(at))
    at += count
    while count == 8 and at < end:
        count = leading_digits(load_u64(at))
        at += count
    return at


@inlined
def after_number(at: int, end: int) -> int:
    """Skip a number; DOUBT, too, if nothing follows it."""
    if load_u8(at) == 45:
        at += 1
    start = at
    at = _after_digits(at, end)
    if at == start or (at - start > 1 and load_u8(start) == 48):
        return DOUBT
    byte = load_u8(at)
    if byte == 46:
        start = at + 1
        at = _after_digits(start, end)
        if at == start:
            return DOUBT
        byte = load_u8(at)
    if (byte | 32) == 101:
        byte = load_u8(at + 1)
        start = at + 2 if byte == 43 or byte == 45 else at + 1
        at = _after_digits(start, end)
        if at == start:
            return DOUBT
    return at if at < end else DOUBT


@inlined
def _is_hex(byte: int) -> bool:
    return 48 <= byte <= 57 or 97 <= byte | 32 <= 102


@kernel
def _after_escapes(at: int, end: int) -> int:
    """Skip a string with escapes in it."""
    if at >= end or load_u8(at) != 34:
        return DOUBT
    at += 1
    start = at
    while at < end:
        byte = load_u8(at)
        if byte == 34:
            return at + 1 if is_clean(start, at) else DOUBT
        at += 1
        if byte != 92:
            continue
        # What is behind `end` is readable, and no quote will be found there.
        byte = load_u8(at)
        at += 1
        if byte == 117:
            for place in range(at, at + 4):
                if not _is_hex(load_u8(place)):
                    return DOUBT
            at += 4
        elif (
            byte != 34
            and byte != 92
            and byte != 47
            and byte != 98
            and byte != 102
            and byte != 110
            and byte != 114
            and byte != 116
        ):
            return DOUBT
    return DOUBT


@inlined
def after_text(at: int, end: int) -> int:
    """Skip any string."""
    after = after_string(at, end)
    return after if after > 0 else _after_escapes(at, end)


@inlined
def after_leaf(at: int, end: int) -> int:
    """Skip a string, number, true, false or null."""
    byte = load_u8(at)
    if byte == 34:
        return after_text(at, end)
    if byte == 45 or 48 <= byte <= 57:
        return after_number(at, end)
    return after_word(at, end)


@inlined
def to_value(at: int, end: int) -> int:
    """Skip from behind a key to its value, of which there is a byte before `end`."""
    at = skip_space(at, end)
    if at >= end or load_u8(at) != 58:
        return DOUBT
    at = skip_space(at + 1, end)
    return at if at < end else DOUBT


@inlined
def _to_item(at: int, end: int, in_object: bool) -> int:  # noqa: FBT001
    """Skip to the next value of an object or a list: in an object, over its key."""
    if in_object:
        at = after_text(at, end)
        return to_value(at, end) if at > 0 else DOUBT
    return at if at < end else DOUBT


@kernel
def after_nested(at: int, end: int) -> int:
    """Skip an object or a list, whose first byte stands at `at`."""
    depth = 0
    objects = int64(0)  # bit 0: what is open now; above it, what is open around it
    while True:
        byte = load_u8(at)
        if byte == 123 or byte == 91:
            depth += 1
            objects = (objects << 1) | (1 if byte == 123 else 0)
            at = skip_space(at + 1, end)
            if at >= end or depth > DEPTH_MAX:
                return DOUBT
            if load_u8(at) != byte + 2:
                at = _to_item(at, end, byte == 123)
                if at < 0:
                    return DOUBT
                continue
        else:
            at = after_leaf(at, end)
            if at < 0:
                return DOUBT
            at = skip_space(at, end)
        # Behind a leaf, or at the brace of something empty.
        while True:
            if at >= end:
                return DOUBT
            byte = load_u8(at)
            if byte == 44:
                at = skip_space(at + 1, end)
                at = _to_item(at, end, objects & 1 != 0)
                if at < 0:
                    return DOUBT
                break
            if byte != 93 + 32 * (objects & 1):
                return DOUBT
            at += 1
            depth -= 1
            if depth == 0:
                return at
            objects >>= 1
            at = skip_space(at, end)


@inlined
def after_value(at: int, end: int) -> int:
    """Skip any value."""
    byte = load_u8(at)
    if byte == 123 or byte == 91:
        return after_nested(at, end)
    return after_leaf(at, end)
