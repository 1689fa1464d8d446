"""Which columns of an Arrow schema hold what, laid open to `kernels.arrow_columns`.

A schema is looked at once. The usual ones get a layout: names as strings or through a
dictionary, numbers of the usual widths. Others get none, and their records are read by
`arrow_ipc` through Arrow's own casts, with the same answers.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.codecs.strict import UNIT_NS, FieldOptions
from streamproc.core.values import Flag
from streamproc.kernels import arrow_columns as kernels
from streamproc.kernels.bytes_text import TIME_US_MAX, TIME_US_MIN

I8 = npt.NDArray[np.int64]

LAYOUTS_MAX: Final = 64
"""Schemas remembered; beyond, all are looked at again."""

_INTEGERS: Final[dict[Any, int]] = {
    pa.int8(): kernels.INT8,
    pa.int16(): kernels.INT16,
    pa.int32(): kernels.INT32,
    pa.int64(): kernels.INT64,
    pa.uint8(): kernels.UINT8,
    pa.uint16(): kernels.UINT16,
    pa.uint32(): kernels.UINT32,
}
_NUMBERS: Final[dict[Any, int]] = _INTEGERS | {
    pa.float32(): kernels.FLOAT,
    pa.float64(): kernels.DOUBLE,
}
_OFFSET_BYTES: Final[dict[Any, int]] = {pa.string(): 4, pa.large_string(): 8}
_REQUIRED: Final = ("device", "property", "time", "value")
_OPTIONAL: Final = frozenset({kernels.UNIT_AT, kernels.QUALITY_AT})
_ROLES: Final = {
    "device": kernels.DEVICE_AT,
    "property": kernels.PROPERTY_AT,
    "unit": kernels.UNIT_AT,
    "time": kernels.TIME_AT,
    "value": kernels.VALUE_AT,
    "quality": kernels.QUALITY_AT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrowOptions(FieldOptions):
    """`FieldOptions`, and whether the producers are ours (see `arrow_ipc`)."""

    trusted_producers: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """Where a role's column is, and how its values are kept (words of the kernel)."""

    role: int
    index: int
    kind: int
    offset_bytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a schema that are read, the places of the others, the time's rules."""

    columns: tuple[Column, ...]
    others: tuple[int, ...]
    rules: I8

    def blank(self) -> I8:
        """Return the kernel's words without what differs from batch to batch."""
        words = np.zeros(kernels.COLUMNS * kernels.COLUMN_WORDS, np.int64)
        table = words.reshape(kernels.COLUMNS, kernels.COLUMN_WORDS)
        table[:, kernels.KIND] = kernels.ABSENT
        for column in self.columns:
            table[column.role, kernels.KIND] = column.kind
            table[column.role, kernels.OFFSET_BYTES] = column.offset_bytes
            table[column.role, kernels.OPTIONAL] = column.role in _OPTIONAL
        return words

    def describe(self, batch: pa.RecordBatch, words: I8) -> bool:
        """Write where the columns of a batch lie; False where a row is not plainly readable.

        The batch passed `validate()`, so that its null counts can be asked for.
        """
        table = words.reshape(kernels.COLUMNS, kernels.COLUMN_WORDS)
        table[:, kernels.KIND] = kernels.ABSENT
        table[:, kernels.ENTRIES] = 0
        for column in self.columns:
            array: Any = batch.column(column.index)
            if array.offset:
                return False
            texts = array
            if column.offset_bytes and column.kind != kernels.PLAIN:
                texts = array.dictionary
                if texts.offset or texts.null_count:
                    return False
            table[column.role] = _words(column, array, texts)
        return True


def _words(
    column: Column, array: "pa.Array[Any]", texts: "pa.Array[Any]"
) -> tuple[int, ...]:
    optional = int(column.role in _OPTIONAL)
    own = array.buffers()
    words = (column.kind, *_place(own[0]), array.null_count, *_place(own[1]))
    if not column.offset_bytes:
        return (*words, 0, 0, 0, 0, 0, 0, optional)
    _, offsets, text = texts.buffers()
    entries = 0 if column.kind == kernels.PLAIN else len(texts)
    return (
        *words,
        entries,
        *_place(offsets),
        column.offset_bytes,
        *_place(text),
        optional,
    )


def _place(buffer: pa.Buffer | None) -> tuple[int, int]:
    return (0, 0) if buffer is None else (buffer.address, buffer.size)


class Layouts:
    """The layouts of the schemas met so far, None for those that have none."""

    def __init__(self, options: ArrowOptions) -> None:
        self._options = options
        self._known: list[tuple[pa.Schema, Layout | None]] = []

    def of(self, schema: pa.Schema) -> Layout | None:
        """Return the schema's layout."""
        for known, layout in self._known:
            if known.equals(schema):
                return layout
        if len(self._known) >= LAYOUTS_MAX:
            self._known.clear()
        layout = layout_of(schema, self._options)
        self._known.append((schema, layout))
        return layout


def layout_of(schema: pa.Schema, options: ArrowOptions) -> Layout | None:
    """Return a schema's layout, None where the usual way has to be taken."""
    columns: list[Column] = []
    rules: I8 | None = None
    for role, place in _ROLES.items():
        found = schema.get_all_field_indices(getattr(options, role))
        if not found and role not in _REQUIRED:
            continue
        if len(found) != 1:
            return None
        kind = schema.field(found[0]).type
        if role == "time":
            rules = _time_rules(kind, options)
        how = _how(role, kind)
        if how is None:
            return None
        columns.append(Column(place, found[0], *how))
    if rules is None:
        return None
    read = {column.index for column in columns}
    others = tuple(k for k in range(len(schema)) if k not in read)
    return Layout(tuple(columns), others, rules)


def _how(role: str, kind: Any) -> tuple[int, int] | None:
    """Return the kernel's kind and the bytes of an offset, 0 for numbers."""
    if role == "value":
        return (_NUMBERS[kind], 0) if kind in _NUMBERS else None
    if role == "quality" or (role == "time" and not pa.types.is_timestamp(kind)):
        return (_INTEGERS[kind], 0) if kind in _INTEGERS else None
    if role == "time":
        return kernels.INT64, 0
    if not pa.types.is_dictionary(kind):
        return (kernels.PLAIN, _OFFSET_BYTES[kind]) if kind in _OFFSET_BYTES else None
    index, text = kind.index_type, kind.value_type
    if index in _INTEGERS and text in _OFFSET_BYTES:
        return _INTEGERS[index], _OFFSET_BYTES[text]
    return None


def _time_rules(kind: Any, options: ArrowOptions) -> I8 | None:
    """Return the kernel's rules, None for a time without the zone it needs."""
    flags, unit_ns = 0, UNIT_NS[options.time_unit]
    if pa.types.is_timestamp(kind):
        unit_ns = UNIT_NS[kind.unit]
        if kind.tz is None:
            if options.assume_zone != "UTC":
                return None
            flags = int(Flag.TZ_ASSUMED)
    low, high = tick_limits(unit_ns)
    microsecond = UNIT_NS["us"]
    factor = max(1, unit_ns // microsecond)
    divisor = max(1, microsecond // unit_ns)
    return np.array([low, high, factor, divisor, flags], np.int64)


def tick_limits(unit_ns: int) -> tuple[int, int]:
    """Return the first tick of the year 1, and the first behind the year 9999."""
    return -(-TIME_US_MIN * 1000 // unit_ns), TIME_US_MAX * 1000 // unit_ns
