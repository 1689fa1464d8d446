"""Sections about formats that have no schema of their own: the file says what means what."""

from typing import Annotated, Literal

from pydantic import Field

from streamproc.codecs.packed_strict import (
    SIZE_MAX,
    DeviceType,
    PackedOptions,
    PackedUnit,
    PropertyType,
    TimeType,
    ValueType,
)
from streamproc.config.base import REQUIRED, Section, option
from streamproc.config.units import Flag, Number, Whole

Place = Annotated[Whole, Field(ge=0, le=SIZE_MAX - 1)]
Bytes = Annotated[Whole, Field(ge=1, le=SIZE_MAX)]

_AT = "Its first byte, counted from 0."


class PackedDevice(Section):
    """`[packed] device`: where the device's number or name is."""

    at: Place = option(REQUIRED, _AT)
    type: DeviceType = option(
        REQUIRED,
        "u32, u64 or i64, written out in decimal digits; or text: ASCII of a fixed length, "
        "filled up with NULs or spaces.",
    )
    length: Bytes | None = option(None, "Bytes of a text; only for type text.")
    prefix: str = option("", 'Put in front, such as "meter-".')


class PackedProperty(Section):
    """`[packed] property`: where the property's code is."""

    at: Place = option(REQUIRED, _AT)
    type: PropertyType = option(REQUIRED, "u8, u16 or u32.")


class PackedTime(Section):
    """`[packed] time`: where the event time is, counted from 1970 UTC."""

    at: Place = option(REQUIRED, _AT)
    type: TimeType = option(REQUIRED, "u32 or i64.")
    unit: PackedUnit = option(REQUIRED, "s, ms, us or ns; ns is cut to us.")


class PackedValue(Section):
    """`[packed] value`: where the value is."""

    at: Place = option(REQUIRED, _AT)
    type: ValueType = option(REQUIRED, "f32, f64, i16 or i32.")
    scale: Number = option(1.0, "The value is what stands there times this.")


class PackedQuality(Section):
    """`[packed] quality`: where the quality is; above 0 is valid."""

    at: Place = option(REQUIRED, _AT)
    type: Literal["i8"] = option("i8", "i8.")


class PackedLayout(Section):
    """`[packed]`: where in a packed record everything is. Bytes of no field are ignored."""

    size: Bytes = option(
        REQUIRED, "Bytes of one reading; a record holds one, or several in a row."
    )
    byte_order: Literal["little", "big"] = option(
        "little", "Of every number: little or big end first."
    )
    device: PackedDevice = option(REQUIRED, "The device.")
    property: PackedProperty = option(REQUIRED, "The property's code.")
    time: PackedTime = option(REQUIRED, "The event time.")
    value: PackedValue = option(REQUIRED, "The value.")
    quality: PackedQuality | None = option(
        None, "The quality; without it every reading is valid."
    )
    properties: dict[str, str] = option(
        REQUIRED, "Code to property; other codes are refused."
    )
    units: dict[str, str] = option(
        {}, "Property to its unit in the record, where it is not the canonical one."
    )

    def options(self) -> PackedOptions:
        """Return the codec's options, once the section is checked."""
        return PackedOptions(
            size=self.size,
            byte_order=self.byte_order,
            device_at=self.device.at,
            device_type=self.device.type,
            device_length=self.device.length or 0,
            device_prefix=self.device.prefix,
            property_at=self.property.at,
            property_type=self.property.type,
            properties={int(code): name for code, name in self.properties.items()},
            units=dict(self.units),
            time_at=self.time.at,
            time_type=self.time.type,
            time_unit=self.time.unit,
            value_at=self.value.at,
            value_type=self.value.type,
            value_scale=self.value.scale,
            quality_at=None if self.quality is None else self.quality.at,
        )


class ChirpStackUplinks(Section):
    """`[chirpstack]`: what in the uplinks of ChirpStack v4 becomes a reading."""

    device: Literal["devEui", "deviceName"] = option(
        "devEui", "Which name in `deviceInfo` is the device: devEui, deviceName."
    )
    properties: dict[str, str] = option(
        REQUIRED,
        "Path in `object` to property; parts are joined by dots, and items of lists count "
        'from 0: "env.0.humidity" = "humidity".',
    )
    units: dict[str, str] = option(
        {}, "Property to its unit in the uplink, where it is not the canonical one."
    )
    booleans: Flag = option(
        default=False,
        text="Read true as 1 and false as 0; else a boolean under a path of `properties` is "
        "refused.",
    )
    unmapped: Literal["ignore", "quarantine"] = option(
        "ignore",
        "Numbers in `object` that `properties` does not name: ignore them, or put the whole "
        "record into quarantine.",
    )
