"""Where the columns of an Arrow stream lie, for streams framed like one that was read before.

What Arrow writes around the data (flatbuffers) is the same from message to message but for
numbers: lengths, null counts, and where in a body each buffer lies. So a stream is compared
with the metadata of one that Arrow itself verified (`codecs.arrow_template`), numbers left
out, and the numbers are believed only as far as the payload's size allows. Buffers are then
described for `arrow_columns` as they would be by Arrow.
"""

# ruff: noqa: PLR2004, PLR0917  (words of 8 bytes; a kernel is flat)

from streamproc.kernels._jit import inlined, kernel
from streamproc.kernels.arrow_columns import (
    COLUMN_WORDS,
    COLUMNS,
    DATA,
    ENTRIES,
    NULLS,
    OFFSETS,
    READING_BYTES_MIN,
    TEXT,
    VALIDITY,
)
from streamproc.kernels.bytes_raw import (
    I8,
    U8,
    U64,
    int64,
    load_i64,
    load_u64,
    store_i64,
)

# Words of one message of the stream: its place in `template` (words of metadata, then as
# many masks), the words of its metadata, and where in it are the length of the body, the
# rows, the nodes and the buffers (-1: 0). Schema: all but the first two are -1.
PLACE, META_WORDS, BODY_AT, ROWS_AT, NODES_AT, NODES, BUFFERS_AT, BUFFERS = range(8)
MESSAGE_WORDS = 8

# Words of one column's wiring: numbers of nodes and buffers, counted through all messages;
# a TEXT_NODE of -1: no dictionary; OFFSETS_BUFFER -1: no names; NODE -1: no such column.
NODE, BUFFER, TEXT_NODE, OFFSETS_BUFFER = range(4)
WIRE_WORDS = 4

# Words of a column nobody reads: its node, its data's buffer, bytes of a value.
OTHER_NODE, OTHER_BUFFER, OTHER_BYTES = range(3)
OTHER_WORDS = 3

NO_MATCH = -1
_END = U64(0xFFFFFFFF)


@inlined
def _number(at: int, place: int) -> int:
    return load_i64(at + place) if place >= 0 else int64(0)


@inlined
def _same_framing(at: int, template: int, words: int) -> bool:
    different = U64(0)
    for k in range(words):
        known = load_u64(template + 8 * k)
        different |= (load_u64(at + 8 * k) ^ known) & load_u64(
            template + 8 * (words + k)
        )
    same: bool = different == U64(0)
    return same


@kernel
def _message(
    at: int, end: int, message: int, template: int, nodes: int, buffers: int
) -> int:
    """Write (length, nulls) of each node, (address, size) of each buffer.

    Returns the bytes of the body, or `NO_MATCH`.
    """
    words = load_i64(message + 8 * META_WORDS)
    if 8 * words > end - at or not _same_framing(
        at, template + 8 * load_i64(message + 8 * PLACE), words
    ):
        return NO_MATCH
    body = at + 8 * words
    size = _number(at, load_i64(message + 8 * BODY_AT))
    if size < 0 or size > end - body or size % 8 != 0:
        return NO_MATCH
    rows = _number(at, load_i64(message + 8 * ROWS_AT))
    source = at + load_i64(message + 8 * NODES_AT)
    for k in range(load_i64(message + 8 * NODES)):
        nulls = load_i64(source + 16 * k + 8)
        if load_i64(source + 16 * k) != rows or nulls < 0 or nulls > rows:
            return NO_MATCH
        store_i64(nodes + 16 * k, rows)
        store_i64(nodes + 16 * k + 8, nulls)
    source = at + load_i64(message + 8 * BUFFERS_AT)
    for k in range(load_i64(message + 8 * BUFFERS)):
        offset = load_i64(source + 16 * k)
        length = load_i64(source + 16 * k + 8)
        outside = offset < 0 or offset > size or length < 0 or length > size - offset
        if outside or offset % 8 != 0:
            return NO_MATCH
        store_i64(buffers + 16 * k, body + offset)
        store_i64(buffers + 16 * k + 8, length)
    return size


@inlined
def _copy_place(buffers: int, k: int, target: int) -> None:
    """Copy a buffer's address and size."""
    store_i64(target, load_i64(buffers + 16 * k))
    store_i64(target + 8, load_i64(buffers + 16 * k + 8))


@kernel
def _describe(wire: int, column: int, nodes: int, buffers: int) -> bool:
    """Write a column's words; its kind and the like stand there already."""
    node = nodes + 16 * load_i64(wire + 8 * NODE)
    buffer = load_i64(wire + 8 * BUFFER)
    nulls = load_i64(node + 8)
    store_i64(column + 8 * NULLS, nulls)
    # Arrow does not look at the map of a column that claims to have no nulls.
    store_i64(column + 8 * VALIDITY, int64(0))
    if nulls != 0:
        _copy_place(buffers, buffer, column + 8 * VALIDITY)
    _copy_place(buffers, buffer + 1, column + 8 * DATA)
    offsets = load_i64(wire + 8 * OFFSETS_BUFFER)
    if offsets >= 0:
        _copy_place(buffers, offsets, column + 8 * OFFSETS)
        _copy_place(buffers, offsets + 1, column + 8 * TEXT)
    texts = load_i64(wire + 8 * TEXT_NODE)
    if texts >= 0:
        store_i64(column + 8 * ENTRIES, load_i64(nodes + 16 * texts))
        return load_i64(nodes + 16 * texts + 8) == 0
    return True


@kernel
def match_stream(
    at: int,
    size: int,
    template: U8,
    messages: I8,
    wires: I8,
    others: I8,
    found: I8,
    columns: I8,
) -> int:
    """Describe the columns of a stream that is framed like the template's.

    Returns the rows, or `NO_MATCH` for any other stream, and whatever is not plainly sound.

    Args:
        at: address of the stream.
        size: its bytes.
        template: uint64: metadata and masks, message by message.
        messages: int64[messages * MESSAGE_WORDS], the last one holds the rows.
        wires: int64[COLUMNS * WIRE_WORDS].
        others: int64[others * OTHER_WORDS].
        found: int64, scratch of 2 words a node and a buffer.
        columns: int64[COLUMNS * COLUMN_WORDS], completed.
    """
    end = at + size
    nodes = int64(found.ctypes.data)
    count = int64(0)
    for k in range(0, messages.size, MESSAGE_WORDS):
        count += messages[k + NODES]
    buffers = nodes + 16 * count
    next_node, next_buffer = nodes, buffers
    content = int64(0)
    for k in range(0, messages.size, MESSAGE_WORDS):
        message = int64(messages.ctypes.data) + 8 * k
        body = _message(
            *(at, end, message, int64(template.ctypes.data), next_node, next_buffer)
        )
        if body < 0:
            return NO_MATCH
        content += body
        at += 8 * messages[k + META_WORDS] + body
        next_node += 16 * messages[k + NODES]
        next_buffer += 16 * messages[k + BUFFERS]
    if at != end and (end - at != 8 or load_u64(at) != _END):
        return NO_MATCH
    rows = load_i64(next_node - 16)
    if rows * READING_BYTES_MIN > content:
        return NO_MATCH
    for k in range(0, others.size, OTHER_WORDS):
        buffer = buffers + 16 * others[k + OTHER_BUFFER]
        nulls = load_i64(nodes + 16 * others[k + OTHER_NODE] + 8)
        if nulls != 0 or load_i64(buffer + 8) < rows * others[k + OTHER_BYTES]:
            return NO_MATCH
    for k in range(COLUMNS):
        wire = int64(wires.ctypes.data) + 8 * WIRE_WORDS * k
        column = int64(columns.ctypes.data) + 8 * COLUMN_WORDS * k
        if load_i64(wire + 8 * NODE) >= 0 and not _describe(
            wire, column, nodes, buffers
        ):
            return NO_MATCH
    return rows
