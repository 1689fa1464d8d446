"""Packed binary records by a declared layout, strictly: the path for what the kernel doubts.

A record is one reading or several, each of exactly `PackedOptions.size` bytes. Bytes that
belong to no field are ignored, whatever they hold. A record is decoded whole or refused
whole, with the first fault met.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from streamproc.codecs.strict import (
    UNIT_NS,
    Reading,
    Refused,
    epoch_time,
    finite,
    name_of,
)
from streamproc.core.values import Reason
from streamproc.kernels.bytes_dict import NAME_BYTES_MAX

DeviceType = Literal["u32", "u64", "i64", "text"]
PropertyType = Literal["u8", "u16", "u32"]
TimeType = Literal["u32", "i64"]
ValueType = Literal["f32", "f64", "i16", "i32"]
PackedUnit = Literal["s", "ms", "us", "ns"]
ByteOrder = Literal["little", "big"]

SIZE_MAX: Final = 4096
"""Bytes of one reading at most."""

DIGITS_MAX: Final = 20
"""Of a device's number, sign included."""

_FORMATS: Final[Mapping[str, str]] = {
    "u8": "B",
    "u16": "H",
    "u32": "I",
    "u64": "Q",
    "i8": "b",
    "i16": "h",
    "i32": "i",
    "i64": "q",
    "f32": "f",
    "f64": "d",
}
SIZES: Final = {name: struct.calcsize(f"<{code}") for name, code in _FORMATS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedOptions:
    """The layout of one reading; `*_at` is the place of a field's first byte.

    Attributes:
        size: bytes of one reading.
        byte_order: of every number.
        device_length: bytes of a device of type text: ASCII, filled up with NULs or spaces.
        device_prefix: put in front of the device as it was read.
        properties: code in the record → property.
        units: property → its unit in the record; absent means none is stated.
        value_scale: what a raw value is multiplied by.
        quality_at: None where there is no quality; one signed byte.
    """

    size: int
    byte_order: ByteOrder = "little"
    device_at: int
    device_type: DeviceType
    device_length: int = 0
    device_prefix: str = ""
    property_at: int
    property_type: PropertyType
    properties: Mapping[int, str]
    units: Mapping[str, str] = field(default_factory=dict)
    time_at: int
    time_type: TimeType
    time_unit: PackedUnit = "ms"
    value_at: int
    value_type: ValueType
    value_scale: float = 1.0
    quality_at: int | None = None

    def __post_init__(self) -> None:
        """Refuse a layout that no reading can have. Raises `ValueError`."""
        for name, message in layout_faults(self.spans(), self.size):
            fault = f"{name}: {message}"
            raise ValueError(fault)
        names = [*self.properties.values(), *self.units.values()]
        if not self.properties or any(map(name_fault, names)):
            fault = "properties and units must be names, and at least one code known"
            raise ValueError(fault)
        wrong = device_fault(self.device_type, self.device_length, self.device_prefix)
        if wrong is not None:
            raise ValueError(wrong)

    def spans(self) -> dict[str, tuple[int, int]]:
        """Return the first byte and the byte after of every field there is."""
        text = self.device_type == "text"
        device = self.device_length if text else SIZES[self.device_type]
        spans = {
            "device": (self.device_at, self.device_at + device),
            "property": _span(self.property_at, self.property_type),
            "time": _span(self.time_at, self.time_type),
            "value": _span(self.value_at, self.value_type),
        }
        if self.quality_at is not None:
            spans["quality"] = _span(self.quality_at, "i8")
        return spans

    def order(self) -> list[str]:
        """Return the names of the fields by their place."""
        spans = self.spans()
        return sorted(spans, key=spans.__getitem__)


def _span(at: int, kind: str) -> tuple[int, int]:
    return at, at + SIZES[kind]


def layout_faults(
    spans: Mapping[str, tuple[int, int]], size: int
) -> Iterator[tuple[str, str]]:
    """Yield (field, what is wrong) for fields outside the record or on top of another."""
    before: list[str] = []
    for name, (begin, end) in spans.items():
        if begin < 0 or end > size:
            yield name, f"bytes {begin} to {end - 1} do not lie within size = {size}"
        for other in before:
            first, after = spans[other]
            if begin < after and first < end:
                yield (
                    name,
                    f"overlaps {other}, which has bytes {first} to {after - 1}",
                )
        before.append(name)


def name_fault(name: str) -> str | None:
    """Return why a text cannot name anything, None if it can."""
    try:
        name_of(name, "it")
    except Refused as refused:
        return refused.detail
    return None


def device_fault(kind: DeviceType, length: int, prefix: str) -> str | None:
    """Return why a device cannot be read, or not be named with a prefix."""
    if kind == "text" and length < 1:
        return "a device of type text has a length"
    if kind != "text" and length:
        return f"a device of type {kind} has no length"
    if prefix and name_fault(prefix):
        return (
            f"the prefix of a device {(name_fault(prefix) or '').removeprefix('it ')}"
        )
    longest = len(prefix.encode()) + (length if kind == "text" else DIGITS_MAX)
    if longest > NAME_BYTES_MAX:
        return f"a device would have up to {longest} bytes, at most {NAME_BYTES_MAX}"
    return None


class StrictPacked:
    """Decodes one record; the same rules as the kernel, one `struct` at a time."""

    def __init__(self, options: PackedOptions) -> None:
        self._options = options
        self._layout = struct_of(options)
        self._order = options.order()
        self._unit_ns = UNIT_NS[options.time_unit]

    def readings(self, payload: bytes) -> list[Reading]:
        """Return the readings of one record, one or more.

        Raises:
            Refused: with the reason of the first fault met.
        """
        size = self._options.size
        if not payload or len(payload) % size:
            detail = f"{len(payload)} bytes are not one or more times {size}"
            raise Refused(Reason.MALFORMED, detail)
        parts = self._layout.iter_unpack(payload)
        return [self._reading(k, found) for k, found in enumerate(parts)]

    def _reading(self, ordinal: int, found: tuple[Any, ...]) -> Reading:
        raw = dict(zip(self._order, found, strict=True))
        where = f"reading {ordinal}:"
        device = self._device(raw["device"], where)
        name = self._options.properties.get(raw["property"])
        if name is None:
            detail = f"{where} no property has code {raw['property']}"
            raise Refused(Reason.UNKNOWN_PROPERTY, detail)
        event_us = epoch_time(raw["time"], self._unit_ns)
        value = finite(
            float(raw["value"]) * self._options.value_scale, f"{where} value"
        )
        unit = self._options.units.get(name)
        return Reading(device, name, unit, event_us, value, raw.get("quality", 1), 0)

    def _device(self, raw: int | bytes, where: str) -> str:
        if isinstance(raw, int):
            return self._options.device_prefix + str(raw)
        try:
            text = raw.rstrip(b"\0 ").decode("ascii")
        except UnicodeDecodeError as error:
            raise Refused(Reason.BAD_TEXT, f"{where} device is not ASCII") from error
        # Checked before the prefix makes a name of nothing.
        return self._options.device_prefix + name_of(text, f"{where} device")


def struct_of(options: PackedOptions) -> struct.Struct:
    """Return the layout of one reading, its fields as `PackedOptions.order` has them."""
    kinds = {
        "device": f"{options.device_length}s"
        if options.device_type == "text"
        else _FORMATS[options.device_type],
        "property": _FORMATS[options.property_type],
        "time": _FORMATS[options.time_type],
        "value": _FORMATS[options.value_type],
        "quality": "b",
    }
    parts, at = ["<" if options.byte_order == "little" else ">"], 0
    for name in options.order():
        begin, end = options.spans()[name]
        parts.append(f"{begin - at}x{kinds[name]}")
        at = end
    return struct.Struct("".join([*parts, f"{options.size - at}x"]))
