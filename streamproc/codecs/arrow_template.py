"""The framing of Arrow streams, learnt from one that Arrow read, for `kernels.arrow_match`.

A producer's streams differ in numbers and data only: the flatbuffers around them have the
same shape. A template is the metadata of one stream, with masks that leave the numbers out.
No number may lie where the shape is written: then a stream that matches is one that Arrow's
verifier would pass, too. A stream that is compressed, or has anything rarer in it than one
dictionary a column and one batch, makes no template.
"""

import struct
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.codecs.arrow_content import field_at, table_at
from streamproc.codecs.arrow_layout import Layout
from streamproc.kernels import arrow_columns, arrow_match

I8 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint64]

_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_PREFIX, _CONTINUED, _END = 8, b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\0\0\0\0"
_WORD: Final = 8
_PAIR: Final = 16

# Bytes of the fields of the tables that are looked at, in the order of Arrow's format.
_MESSAGE_FIELDS: Final = (2, 1, 4, 8, 4)
_DICTIONARY_FIELDS: Final = (8, 4, 1)
_BATCH_FIELDS: Final = (8, 4, 4, 4, 4)


class _Unlike(Exception):
    """The stream is no template; nothing is wrong with it."""


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """One framing, as the kernel takes it, and the layout of its schema."""

    layout: Layout
    framing: U8
    messages: I8
    wires: I8
    others: I8
    found: I8
    words: I8

    def match(self, address: int, size: int) -> int:
        """Describe the columns of a stream in `words`; return its rows or `NO_MATCH`."""
        return arrow_match.match_stream(
            *(address, size, self.framing, self.messages, self.wires),
            *(self.others, self.found, self.words),
        )

    def same_as(self, other: "Template") -> bool:
        """Tell whether the other one matches the same streams."""
        return np.array_equal(self.framing, other.framing)


class _Message(NamedTuple):
    """One message: metadata with its prefix, its kind, dictionary id, and numbers' places."""

    data: bytes
    mask: bytes
    kind: int
    identity: int
    places: tuple[int, int, int, int, int, int]
    body: int


def template_of(stream: bytes, schema: pa.Schema, layout: Layout) -> Template | None:
    """Return the template of a stream that was read without a fault, None if it makes none."""
    try:
        messages = _messages(stream)
        wires, others = _wiring(messages, schema, layout)
    except (_Unlike, struct.error, IndexError):
        return None
    parts, rows, place = [], [], 0
    for message in messages:
        words = len(message.data) // _WORD
        parts += [message.data, message.mask]
        rows.append((place, words, *message.places))
        place += 2 * words
    counts = sum(row[arrow_match.NODES] + row[arrow_match.BUFFERS] for row in rows)
    return Template(
        layout,
        np.frombuffer(b"".join(parts), np.uint64),
        np.array(rows, np.int64).reshape(-1),
        np.array(wires, np.int64).reshape(-1),
        np.array(others, np.int64).reshape(-1),
        np.zeros(2 * counts, np.int64),
        layout.blank(),
    )


def _messages(stream: bytes) -> list[_Message]:
    found: list[_Message] = []
    at = 0
    while at < len(stream) and stream[at:] != _END:
        (size,) = struct.unpack_from("<i", stream, at + 4)
        if stream[at : at + 4] != _CONTINUED or size <= 0 or size % _WORD:
            raise _Unlike
        found.append(_message(stream[at : at + _PREFIX + size]))
        at += _PREFIX + size + found[-1].body
    kinds = [message.kind for message in found]
    if kinds != [_SCHEMA, *[_DICTIONARY] * (len(kinds) - 2), _BATCH]:
        raise _Unlike
    return found


class _Shape:
    """Which bytes of a message's metadata are numbers, and which say where things are."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._fixed: set[int] = set(range(4))
        self._numbers: list[range] = []

    def table(self, table: int, sizes: tuple[int, ...], number: int = -1) -> list[Any]:
        """Return where the fields of a table are, None for absent ones; one is a number."""
        layout = table - struct.unpack_from("<i", self.data, table)[0]
        self._fixed.update(range(table, table + 4))
        length = struct.unpack_from("<H", self.data, layout)[0]
        self._fixed.update(range(layout, layout + length))
        if length > 4 + 2 * len(sizes):
            raise _Unlike
        places = [field_at(self.data, table, k) for k in range(len(sizes))]
        for k, (place, size) in enumerate(zip(places, sizes, strict=True)):
            if place is not None and k == number:
                self._numbers.append(range(place, place + size))
            elif place is not None:
                self._fixed.update(range(place, place + size))
        return places

    def pairs(self, table: int, index: int) -> tuple[int, int]:
        """Return where a vector of pairs of numbers starts, and how many there are."""
        place = table_at(self.data, table, index)
        if place is None:
            raise _Unlike
        (count,) = struct.unpack_from("<I", self.data, place)
        self._fixed.update(range(place, place + 4))
        self._numbers.append(range(place + 4, place + 4 + _PAIR * count))
        return place + 4, count

    def mask(self) -> bytes:
        """Return 255 for every byte that has to be the same, 0 for numbers."""
        mask = bytearray(b"\xff" * len(self.data))
        for numbers in self._numbers:
            if numbers.stop > len(mask) or not self._fixed.isdisjoint(numbers):
                raise _Unlike
            self._fixed.update(numbers)
            mask[numbers.start : numbers.stop] = bytes(len(numbers))
        return bytes(mask)


def _message(data: bytes) -> _Message:
    """Read one message's metadata; `data` has the prefix, places count from its start."""
    shape = _Shape(data[_PREFIX:])
    (root,) = struct.unpack_from("<I", shape.data)
    _, kind_at, header_at, body_at, custom = shape.table(root, _MESSAGE_FIELDS, 3)
    header = table_at(shape.data, root, 2)
    if custom is not None or kind_at is None or header_at is None or header is None:
        raise _Unlike
    kind = shape.data[kind_at]
    body = 0
    if body_at is not None:
        (body,) = struct.unpack_from("<q", shape.data, body_at)
    if kind == _SCHEMA:
        if body:
            raise _Unlike
        return _Message(data, b"\xff" * len(data), kind, -1, (-1, -1, -1, 0, -1, 0), 0)
    identity, batch = -1, header
    if kind == _DICTIONARY:
        identity, batch = _dictionary(shape, header)
    rows_at, _, _, compression, variadic = shape.table(batch, _BATCH_FIELDS, 0)
    if compression is not None or variadic is not None:
        raise _Unlike
    nodes_at, nodes = shape.pairs(batch, 1)
    buffers_at, buffers = shape.pairs(batch, 2)
    places = (
        *(_placed(body_at), _placed(rows_at)),
        *(_placed(nodes_at), nodes, _placed(buffers_at), buffers),
    )
    mask = b"\xff" * _PREFIX + shape.mask()
    known = bytes(byte & kept for byte, kept in zip(data, mask, strict=True))
    return _Message(known, mask, kind, identity, places, body)


def _placed(place: int | None) -> int:
    return -1 if place is None else place + _PREFIX


def _dictionary(shape: _Shape, header: int) -> tuple[int, int]:
    """Return a dictionary message's id, and where its batch is."""
    identity_at, _, delta = shape.table(header, _DICTIONARY_FIELDS)
    batch = table_at(shape.data, header, 1)
    if delta is not None or batch is None:
        raise _Unlike
    return _identity(shape.data, identity_at), batch


def _identity(data: bytes, place: int | None) -> int:
    identity: int = 0 if place is None else struct.unpack_from("<q", data, place)[0]
    return identity


def _identities(schema: bytes) -> list[int]:
    """Return the dictionary id of every column of a schema message, -1 for none."""
    data = schema[_PREFIX:]
    (root,) = struct.unpack_from("<I", data)
    header = table_at(data, root, 2)
    columns = None if header is None else table_at(data, header, 1)
    if header is None or columns is None or field_at(data, header, 0) is not None:
        raise _Unlike  # field 0: of other endianness than ours
    found = []
    for k in range(struct.unpack_from("<I", data, columns)[0]):
        place = columns + 4 + 4 * k
        column = place + struct.unpack_from("<I", data, place)[0]
        coding = table_at(data, column, 4)
        found.append(
            -1 if coding is None else _identity(data, field_at(data, coding, 0))
        )
    return found


def _wiring(
    messages: list[_Message], schema: pa.Schema, layout: Layout
) -> tuple[list[list[int]], list[list[int]]]:
    """Return which nodes and buffers make up each column that is read, and each other."""
    coded: dict[int, tuple[int, int]] = {}
    nodes = buffers = 0
    for message in messages[1:-1]:
        if message.identity in coded or message.places[3::2] != (1, 3):
            raise _Unlike
        coded[message.identity] = nodes, buffers
        nodes, buffers = nodes + 1, buffers + 3
    read = {column.index: column for column in layout.columns}
    wires = [[-1] * arrow_match.WIRE_WORDS for _ in range(arrow_columns.COLUMNS)]
    others = []
    for index, identity in enumerate(_identities(messages[0].data)):
        column = read.get(index)
        if column is None:
            others.append([nodes, buffers + 1, _bytes_of(schema.field(index).type)])
        elif column.kind == arrow_columns.PLAIN:
            wires[column.role] = [nodes, buffers, -1, buffers + 1]
            buffers += 1
        elif column.offset_bytes:
            text, first = coded.pop(identity, (-1, -1))
            if text < 0:
                raise _Unlike
            wires[column.role] = [nodes, buffers, text, first + 1]
        else:
            wires[column.role] = [nodes, buffers, -1, -1]
        nodes, buffers = nodes + 1, buffers + 2
    if (nodes, buffers) != _counted(messages):
        raise _Unlike
    return wires, others


def _counted(messages: list[_Message]) -> tuple[int, int]:
    return (
        sum(message.places[3] for message in messages),
        sum(message.places[5] for message in messages),
    )


def _bytes_of(kind: Any) -> int:
    """Return the bytes of a value of a type that any bits are a value of."""
    types = pa.types
    if not (
        types.is_integer(kind) or types.is_floating(kind) or types.is_timestamp(kind)
    ):
        raise _Unlike
    size: int = kind.bit_width // 8
    return size
