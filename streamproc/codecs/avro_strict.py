"""Avro data to plain values, strictly: every type, every bound, one datum at a time.

Written here because the datum is hostile: a length is compared with what is left before
anything is allocated, nesting is bounded, and bytes left over are a fault. The writer
schema comes parsed by fastavro, its named types by full name.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from streamproc.codecs.strict import Refused
from streamproc.core.values import Reason

DEPTH_MAX: Final = 32
EMPTY_ITEMS_MAX: Final = 65_536
"""Items of no bytes (null, an empty record) one array or map may claim to hold."""

_VARINT_BITS: Final = 64
_MORE: Final = 0x80


class Datum:
    """Reads one datum; `at` moves over `data`. Raises `Refused` MALFORMED throughout."""

    def __init__(self, data: bytes, names: Mapping[str, Any]) -> None:
        self._data = data
        self._at = 0
        self._names = names

    def read(self, schema: Any) -> Any:
        """Return the whole datum's value; unions give their branch's value."""
        value = self._value(schema, 1)
        left = len(self._data) - self._at
        if left:
            raise Refused(Reason.MALFORMED, f"{left} bytes left over after the datum")
        return value

    def _value(self, schema: Any, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise Refused(Reason.MALFORMED, f"nested deeper than {DEPTH_MAX} levels")
        if isinstance(schema, list):
            return self._value(schema[self._index(len(schema), "branch")], depth + 1)
        kind = schema["type"] if isinstance(schema, dict) else schema
        simple = _SIMPLE.get(kind) if isinstance(kind, str) else None
        if simple is not None:
            return simple(self)
        if not isinstance(schema, dict):
            return self._value(self._names[schema], depth)
        compound = _COMPOUND.get(kind) if isinstance(kind, str) else None
        if compound is None:
            return self._value(kind, depth + 1)
        return compound(self, schema, depth)

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if size < 0 or end > len(self._data):
            raise Refused(Reason.MALFORMED, f"{size} bytes announced, data ends before")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _long(self) -> int:
        value = shift = 0
        while True:
            byte = self._take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < _MORE:
                break
            shift += 7
            if shift >= _VARINT_BITS + 6:
                raise Refused(Reason.MALFORMED, "a varint of more than ten bytes")
        if value >> _VARINT_BITS:
            raise Refused(Reason.MALFORMED, "a varint of more than 64 bits")
        return (value >> 1) ^ -(value & 1)

    def _int(self) -> int:
        value = self._long()
        if not -(1 << 31) <= value < 1 << 31:
            raise Refused(Reason.MALFORMED, f"int {value} has more than 32 bits")
        return value

    def _index(self, count: int, what: str) -> int:
        index = self._long()
        if not 0 <= index < count:
            raise Refused(Reason.MALFORMED, f"{what} {index} of {count}")
        return index

    def _boolean(self) -> bool:
        byte = self._take(1)[0]
        if byte > 1:
            raise Refused(Reason.MALFORMED, f"boolean {byte}")
        return bool(byte)

    def _float(self) -> float:
        return float(struct.unpack("<f", self._take(4))[0])

    def _double(self) -> float:
        return float(struct.unpack("<d", self._take(8))[0])

    def _bytes(self) -> bytes:
        return self._take(self._long())

    def _string(self) -> str:
        try:
            return self._bytes().decode()
        except UnicodeDecodeError as error:
            raise Refused(
                Reason.MALFORMED, f"a string is not UTF-8: {error}"
            ) from error

    def _record(self, schema: Any, depth: int) -> dict[str, Any]:
        return {
            field["name"]: self._value(field["type"], depth + 1)
            for field in schema["fields"]
        }

    def _enum(self, schema: Any, _: int) -> str:
        symbols: list[str] = schema["symbols"]
        return symbols[self._index(len(symbols), "symbol")]

    def _fixed(self, schema: Any, _: int) -> bytes:
        return self._take(schema["size"])

    def _blocks(self, item: Callable[[], None]) -> None:
        empty = 0
        while count := self._long():
            if count < 0:
                count = -count
                self._long()  # the block's size in bytes: not trusted, not needed
            for _ in range(count):
                before = self._at
                item()
                empty += self._at == before
                if empty > EMPTY_ITEMS_MAX:
                    raise Refused(Reason.MALFORMED, "too many items without content")

    def _array(self, schema: Any, depth: int) -> list[Any]:
        items: list[Any] = []
        kind = schema["items"]
        self._blocks(lambda: items.append(self._value(kind, depth + 1)))
        return items

    def _map(self, schema: Any, depth: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}

        def entry() -> None:
            key = self._string()
            if key in entries:
                raise Refused(Reason.MALFORMED, f"key {key[:64]!r} comes twice")
            entries[key] = self._value(schema["values"], depth + 1)

        self._blocks(entry)
        return entries

    simple: Final = {
        "null": lambda _: None,
        "boolean": _boolean,
        "int": _int,
        "long": _long,
        "float": _float,
        "double": _double,
        "bytes": _bytes,
        "string": _string,
    }
    compound: Final = {
        "record": _record,
        "enum": _enum,
        "fixed": _fixed,
        "array": _array,
        "map": _map,
    }


_SIMPLE: Final[Mapping[str, Callable[[Datum], Any]]] = Datum.simple
_COMPOUND: Final[Mapping[str, Callable[[Datum, Any, int], Any]]] = Datum.compound
