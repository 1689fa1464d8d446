"""One Protobuf message to plain values, strictly.

Unlike a general parser, which files a known number of another wire type under "unknown"
and leaves a default in its place, this refuses the message: a message of another type
must not become a reading.
"""

import struct
from collections.abc import Mapping
from typing import Any, Final

from streamproc.codecs.proto_text import ProtoField, ProtoMessage
from streamproc.codecs.strict import Refused
from streamproc.core.values import Reason

DEPTH_MAX: Final = 32
INDEXES_MAX: Final = 32

_MORE: Final = 0x80
_ENTRY_KEY: Final = 1
_ENTRY_VALUE: Final = 2

VARINT, I64, LEN, START, END, I32 = range(6)

_FIXED: Final = {
    "double": "<d",
    "float": "<f",
    "fixed64": "<Q",
    "sfixed64": "<q",
    "fixed32": "<I",
    "sfixed32": "<i",
}
_WIRE: Final = {
    **dict.fromkeys(("int32", "int64", "uint32", "uint64", "sint32", "sint64"), VARINT),
    "bool": VARINT,
    "double": I64,
    "fixed64": I64,
    "sfixed64": I64,
    "float": I32,
    "fixed32": I32,
    "sfixed32": I32,
    "string": LEN,
    "bytes": LEN,
}


class _Wire:
    """Reads the wire format; every length is compared with what is left."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise Refused(Reason.MALFORMED, f"{size} bytes announced, data ends before")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < _MORE:
                if value >> 64:
                    break
                return value
        raise Refused(Reason.MALFORMED, "a varint of more than 64 bits")

    def tag(self) -> tuple[int, int]:
        word = self.varint()
        if word >> 32 or not word >> 3:
            raise Refused(Reason.MALFORMED, f"tag {word} has no field number")
        return word >> 3, word & 7

    def skip(self, number: int, wire: int, depth: int = 1) -> None:
        if depth > DEPTH_MAX:
            raise Refused(Reason.MALFORMED, f"groups deeper than {DEPTH_MAX}")
        if wire == VARINT:
            self.varint()
        elif wire == LEN:
            self.take(self.varint())
        elif wire in {I64, I32}:
            self.take(8 if wire == I64 else 4)
        elif wire == START:
            while (inner := self.tag()) != (number, END):
                self.skip(*inner, depth + 1)
        else:
            raise Refused(Reason.MALFORMED, f"field {number} has wire type {wire}")


def _scalar(wire: _Wire, kind: str, name: str) -> Any:
    if kind in _FIXED:
        layout = _FIXED[kind]
        return struct.unpack(layout, wire.take(struct.calcsize(layout)))[0]
    if kind == "string":
        try:
            return wire.take(wire.varint()).decode()
        except UnicodeDecodeError as error:
            raise Refused(Reason.MALFORMED, f"{name} is not UTF-8") from error
    if kind == "bytes":
        return wire.take(wire.varint())
    return _integer(wire.varint(), kind, name)


def _integer(word: int, kind: str, name: str) -> Any:
    if kind == "bool":
        return bool(word)
    bits = int(kind[-2:])
    if kind[0] == "u":
        low, high = 0, 1 << bits
    else:
        low, high = -(1 << (bits - 1)), 1 << (bits - 1)
        word = (word >> 1) ^ -(word & 1) if kind[0] == "s" else _signed(word)
    if not low <= word < high:
        raise Refused(Reason.MALFORMED, f"{name} {word} is no {kind}")
    return word


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _entry(data: bytes, field: ProtoField) -> tuple[str, Any]:
    wire = _Wire(data)
    key, value = "", 0
    while wire:
        number, kind = wire.tag()
        if number == _ENTRY_KEY and kind == LEN:
            key = _scalar(wire, "string", field.name)
        elif number == _ENTRY_VALUE and kind == _WIRE[field.type]:
            value = _scalar(wire, field.type, field.name)
        elif number <= _ENTRY_VALUE:
            raise Refused(Reason.WRONG_TYPE, f"{field.name} has another type of entry")
        else:
            wire.skip(number, kind)
    return key, value


def message_index(body: bytes) -> tuple[list[int], bytes]:
    """Split the list of message indexes off; the single byte 0 stands for [0].

    Raises:
        Refused: MALFORMED where there is no such list.
    """
    wire = _Wire(body)
    count = _signed_zigzag(wire.varint())
    if not 0 <= count <= INDEXES_MAX:
        raise Refused(Reason.MALFORMED, f"{count} message indexes")
    indexes = [_signed_zigzag(wire.varint()) for _ in range(count)]
    return indexes or [0], wire.rest()


def _signed_zigzag(word: int) -> int:
    return (word >> 1) ^ -(word & 1)


def read_message(data: bytes, message: ProtoMessage) -> Mapping[str, Any]:
    """Return field name → value of what the message holds; absent fields are absent.

    Raises:
        Refused: MALFORMED for broken bytes, WRONG_TYPE where a field has another type.
    """
    by_number = {field.number: field for field in message.fields}
    wire = _Wire(data)
    found: dict[str, Any] = {}
    while wire:
        number, kind = wire.tag()
        field = by_number.get(number)
        if field is None or kind > I32:
            wire.skip(number, kind)
            continue
        expected = LEN if field.is_map else _WIRE[field.type]
        if kind != expected:
            detail = f"{field.name} has wire type {kind}, {field.type} has {expected}"
            raise Refused(Reason.WRONG_TYPE, detail)
        if field.is_map:
            key, value = _entry(wire.take(wire.varint()), field)
            found.setdefault(field.name, {})[key] = value
        else:
            found[field.name] = _scalar(wire, field.type, field.name)
    return found
