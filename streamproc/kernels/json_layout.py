"""Layouts of documents: what stands between their values, learnt once, then compared.

A producer writes the same keys in the same order with the same white space every time. So
the bytes from one value to the next (a *literal*: `,"property":`) are kept in a tree, and
a document is read by comparing 32 bytes at once with the literal that may follow, reading
a value by the same `take` as the scanner does, and so on to the end of the document.

Where no literal fits, the scanner (`json_scan`) reads on from the last value: a walk is the
scanner's own way, only faster, so the answer never depends on what has been learnt. Every
way from the root to a node was gone by the scanner once; that is why literals need no
grammar here. What the scanner read to its end is learnt, below the node where the walk
ended. A full tree is forgotten, and after that learning waits longer each time: documents
that never repeat cost little more than without a tree.

The tree is one array of int64 words. A node has eight: 32 bytes of literal, its size, what
follows it, its first child and its next sibling, both as byte offsets. Siblings stand in
order of falling size, so `:` never hides `: `. Node 0 is the head: `USED` bytes, `MISSES`
since the last learning, `PATIENCE`: so many misses are let pass.
"""

from streamproc.kernels._jit import inlined, kernel
from streamproc.kernels.bytes_raw import (
    BLOCK,
    copy_bytes,
    int64,
    load_i64,
    load_u8,
    store_i64,
    trailing_zeros,
    unequal,
)
from streamproc.kernels.json_parts import DOUBT, OTHER, TRACE_MAX
from streamproc.kernels.json_take import take

USED, MISSES, PATIENCE = range(3)
SIZE, KIND, CHILD, SIBLING = 4, 5, 6, 7
NODE_BYTES = 64
NODES = 96
SIBLINGS_MAX = 8
PATIENCE_MAX = 4095
WORDS = NODES * NODE_BYTES // 8

# What follows a literal: a field's value (`json_parts`), `OTHER`, or
NOTHING = OTHER + 1  # another literal: this one was longer than a block
END = OTHER + 2  # the end of the document

DONE = -1
"""No node: the walk went to the end of the document."""

_SPACE = 32


@inlined
def walk(
    at: int, end: int, layouts: int, sheet: int, rules: int, scratch: int
) -> tuple[int, int, int]:
    """Read as much of a document as is laid out like one before.

    Returns the address after the last value or `DOUBT`, the bits of the fields read, and
    the node of that value: 0 if there was none, `DONE` if the document was read to its end.
    """
    seen = 0
    after = at
    known = int64(0)
    node = load_i64(layouts + 8 * CHILD)
    while node != 0:
        place = layouts + node
        size = load_i64(place + 8 * SIZE)
        kind = load_i64(place + 8 * KIND)
        left = end - at - size
        if (
            trailing_zeros(unequal(at, place)) < size
            or left < 0
            or (left == 0) != (kind == END)
        ):
            node = load_i64(place + 8 * SIBLING)
            continue
        if kind == END:
            return end, seen, DONE
        at += size
        if kind != NOTHING:
            start = at
            at = take(kind, at, end, sheet, rules, scratch, seen)
            if at < 0:
                if load_u8(start) > _SPACE:
                    return DOUBT, seen, known
                break  # more white space than usual: the scanner knows to pass over it
            seen |= 1 << kind
            after = at
            known = node
        node = load_i64(place + 8 * CHILD)
    return after, seen, known


@kernel
def learning_due(layouts: int) -> bool:
    """Count a document that left the known ways; tell whether to learn it."""
    misses = load_i64(layouts + 8 * MISSES) + 1
    store_i64(layouts + 8 * MISSES, misses)
    return misses > load_i64(layouts + 8 * PATIENCE)


@kernel
def note(trace: int, start: int, kind: int, after: int) -> None:
    """Add a value to a trace, unless it is full."""
    count = load_i64(trace)
    if count < TRACE_MAX:
        step = trace + 8 + 24 * count
        store_i64(step, start)
        store_i64(step + 8, kind)
        store_i64(step + 16, after)
    store_i64(trace, count + 1)


@kernel
def learn(layouts: int, node: int, at: int, end: int, trace: int) -> None:
    """Learn the rest of a document the scanner was certain of, from `at` behind `node` on."""
    count = load_i64(trace)
    if count > TRACE_MAX:
        return
    store_i64(layouts + 8 * MISSES, int64(0))
    for step in range(trace + 8, trace + 8 + 24 * count, 24):
        node = _grown(layouts, node, at, load_i64(step), load_i64(step + 8))
        if node < 0:
            break
        at = load_i64(step + 16)
    if node < 0 or _grown(layouts, node, at, end, END) < 0:
        forget(layouts)


@kernel
def forget(layouts: int) -> None:
    """Begin anew, with more patience than before."""
    patience = 2 * load_i64(layouts + 8 * PATIENCE) + 1
    store_i64(layouts + 8 * PATIENCE, min(patience, PATIENCE_MAX))
    store_i64(layouts + 8 * MISSES, int64(0))
    store_i64(layouts + 8 * USED, NODE_BYTES)
    store_i64(layouts + 8 * CHILD, int64(0))


@kernel
def _grown(layouts: int, node: int, at: int, until: int, kind: int) -> int:
    """Return the node that `[at, until)` and `kind` lead to from `node`, -1 without room."""
    while node >= 0 and until - at > BLOCK:
        node = _child(layouts, node, at, BLOCK, NOTHING)
        at += BLOCK
    return _child(layouts, node, at, until - at, kind) if node >= 0 else node


@kernel
def _child(layouts: int, parent: int, at: int, size: int, kind: int) -> int:
    """Return the child with this literal and kind, made if need be; -1 without room."""
    link = layouts + parent + 8 * CHILD
    siblings = 0
    node = load_i64(link)
    while node != 0:
        place = layouts + node
        known = load_i64(place + 8 * SIZE)
        if (
            known == size
            and load_i64(place + 8 * KIND) == kind
            and trailing_zeros(unequal(at, place)) >= size
        ):
            return node
        if known >= size:
            link = place + 8 * SIBLING
        node = load_i64(place + 8 * SIBLING)
        siblings += 1
    made = load_i64(layouts + 8 * USED)
    if made + NODE_BYTES > NODES * NODE_BYTES or siblings >= SIBLINGS_MAX:
        return -1
    place = layouts + made
    copy_bytes(place, at, size)
    store_i64(place + 8 * SIZE, size)
    store_i64(place + 8 * KIND, kind)
    store_i64(place + 8 * CHILD, int64(0))
    store_i64(place + 8 * SIBLING, load_i64(link))
    store_i64(link, made)
    store_i64(layouts + 8 * USED, made + NODE_BYTES)
    return made
