"""Checks of the sections that say what records without a schema mean."""

import re
from collections.abc import Mapping
from typing import Final

from streamproc.codecs.packed_strict import SIZES, device_fault, layout_faults
from streamproc.config.check_job import check_property
from streamproc.config.codec_options import ChirpStackUplinks, PackedLayout
from streamproc.config.faults import nearest
from streamproc.config.parsed import Parsed
from streamproc.core.definition import PropertySpec

_CODE: Final = re.compile(r"0|[1-9][0-9]{0,9}")


def check_codecs(parsed: Parsed, properties: Mapping[str, PropertySpec]) -> None:
    """Report every fault of `[packed]` and `[chirpstack]`."""
    file = parsed.file
    used = {file.source.format, file.files.format, *file.source.formats.values()}
    if file.packed is not None:
        _check_packed(parsed, file.packed, properties)
    elif "packed" in used and "packed" not in parsed.document:
        parsed.report(("packed",), "is missing: packed records need their layout")
    if file.chirpstack is not None:
        _check_uplinks(parsed, file.chirpstack, properties)
    elif "chirpstack" in used and "chirpstack" not in parsed.document:
        message = "is missing: properties says what in `object` is read"
        parsed.report(("chirpstack",), message)


# --- packed ---------------------------------------------------------------------------


def _check_packed(
    parsed: Parsed, layout: PackedLayout, properties: Mapping[str, PropertySpec]
) -> None:
    device = layout.device
    sizes = {
        "device": device.length or SIZES.get(device.type, 1),
        "property": SIZES[layout.property.type],
        "time": SIZES[layout.time.type],
        "value": SIZES[layout.value.type],
    }
    spans = {
        name: (getattr(layout, name).at, getattr(layout, name).at + size)
        for name, size in sizes.items()
    }
    if layout.quality is not None:
        spans["quality"] = (layout.quality.at, layout.quality.at + SIZES["i8"])
    for name, message in layout_faults(spans, layout.size):
        parsed.report(("packed", name, "at"), message)
    wrong = device_fault(device.type, device.length or 0, device.prefix)
    if wrong is not None:
        parsed.report(("packed", "device"), wrong)
    if layout.value.scale == 0:
        parsed.report(("packed", "value", "scale"), "makes every value 0")
    _check_codes(parsed, layout, properties)
    _check_units(parsed, "packed", set(layout.properties.values()), properties)


def _check_codes(
    parsed: Parsed, layout: PackedLayout, properties: Mapping[str, PropertySpec]
) -> None:
    kind = layout.property.type
    limit = 1 << 8 * SIZES[kind]
    if not layout.properties:
        parsed.report(("packed", "properties"), "names no property")
    for code, name in layout.properties.items():
        place = ("packed", "properties", code)
        if _CODE.fullmatch(code) is None or int(code) >= limit:
            parsed.report(place, f"the code is no {kind}: 0 to {limit - 1}")
        check_property(parsed, place, name, properties)


# --- ChirpStack -----------------------------------------------------------------------


def _check_uplinks(
    parsed: Parsed, uplinks: ChirpStackUplinks, properties: Mapping[str, PropertySpec]
) -> None:
    if not uplinks.properties:
        parsed.report(("chirpstack", "properties"), "names no property")
    for path, name in uplinks.properties.items():
        place = ("chirpstack", "properties", path)
        if not all(path.split(".")):
            parsed.report(place, "the path has an empty part")
        check_property(parsed, place, name, properties)
    _check_units(parsed, "chirpstack", set(uplinks.properties.values()), properties)


# --- both -----------------------------------------------------------------------------


def _check_units(
    parsed: Parsed,
    section: str,
    used: set[str],
    properties: Mapping[str, PropertySpec],
) -> None:
    """Report units of a section for properties that do not come, or do not have them."""
    units: Mapping[str, str] = getattr(parsed.file, section).units
    for name, unit in units.items():
        place = (section, "units", name)
        if name not in used:
            parsed.report(place, f"not one of `properties`; {nearest(name, used)}")
        elif name in properties:
            spec = properties[name]
            known = {spec.unit, *(known for known, _, _ in spec.units)}
            if unit not in known:
                parsed.report(place, f"no unit of {name}; {nearest(unit, known)}")
