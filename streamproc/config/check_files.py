"""Checks of `[files]`: what the columns of replayed files mean."""

import re
from collections.abc import Mapping
from typing import Final

from streamproc.config.check_job import check_city, check_property
from streamproc.config.faults import nearest
from streamproc.config.parsed import Parsed
from streamproc.config.source_options import Files
from streamproc.config.zones import zone_names
from streamproc.core.definition import PropertySpec

EPOCHS: Final = frozenset({"iso", "epoch_s", "epoch_ms", "epoch_us"})
_DIRECTIVE: Final = re.compile(r"%(.?)")
_DIRECTIVES: Final = frozenset("YymdHIpMSfz%")
_MAPPING_KEYS: Final = (
    *("device", "device_fixed", "city", "columns", "property", "value", "unit"),
    *("properties", "valid"),
)


def check_files(parsed: Parsed, properties: Mapping[str, PropertySpec]) -> None:
    """Report every fault of `[files]`."""
    files = parsed.file.files
    if files.city_fixed is not None:
        check_city(parsed, ("files", "city_fixed"), files.city_fixed)
        if files.city is not None:
            parsed.report(("files", "city_fixed"), "give city or city_fixed, not both")
    if files.timezone is not None and files.timezone not in zone_names():
        advice = nearest(files.timezone, zone_names())
        advice = (
            advice if advice.startswith("did") else "write one such as Europe/Sofia"
        )
        parsed.report(("files", "timezone"), f"no such IANA zone; {advice}")
    if files.maps_columns():
        _check_shape(parsed, files)
        _check_time_format(parsed, files.time_format)
        _check_columns(parsed, files, properties)
        _check_text(parsed, files)
    elif any(getattr(files, key) for key in _MAPPING_KEYS):
        parsed.report(("files", "time"), "is missing: CSV and Parquet need it")


def _check_shape(parsed: Parsed, files: Files) -> None:
    place = ("files",)
    if not files.time or not all(files.time):
        parsed.report((*place, "time"), "names no column")
    if not files.device and not files.device_fixed:
        parsed.report((*place, "device"), "is missing: a column, or device_fixed")
    if files.device and files.device_fixed:
        message = "give device or device_fixed, not both"
        parsed.report((*place, "device_fixed"), message)
    if bool(files.columns) == bool(files.value):
        parsed.report(place, "give either columns (wide) or property and value (long)")
    if bool(files.property) != bool(files.value):
        parsed.report((*place, "property"), "property and value belong together")
    for key in ("property", "unit", "properties"):
        if files.columns and getattr(files, key):
            parsed.report((*place, key), "is of the long form; columns is the wide one")


def _check_time_format(parsed: Parsed, text: str) -> None:
    if text in EPOCHS:
        return
    place = ("files", "time_format")
    found = _DIRECTIVE.findall(text)
    strange = [letter for letter in found if letter not in _DIRECTIVES or not letter]
    if strange:
        known = " ".join(f"%{letter}" for letter in "YymdHIpMSfz")
        parsed.report(place, f"unknown directive %{strange[0]}; there are {known} %%")
    elif not {"d", "m"} <= set(found) or not {"Y", "y"} & set(found):
        names = ", ".join(sorted(EPOCHS))
        parsed.report(place, f"names no day; write {names} or a format with %Y %m %d")


def _check_columns(
    parsed: Parsed, files: Files, properties: Mapping[str, PropertySpec]
) -> None:
    first: dict[str, str] = {}
    for name, column in files.columns.items():
        place = ("files", "columns", name)
        check_property(parsed, (*place, "property"), column.property, properties)
        if column.property in first:
            message = f"is also held by column {first[column.property]!r}"
            parsed.report((*place, "property"), message)
        first.setdefault(column.property, name)
        spec = properties.get(column.property)
        if spec is None or column.unit is None:
            continue
        known = {spec.unit, *(unit for unit, _, _ in spec.units)}
        if column.unit not in known:
            message = (
                f"{column.property} has no such unit; {nearest(column.unit, known)}"
            )
            parsed.report((*place, "unit"), message)
    for name, ours in files.properties.items():
        check_property(parsed, ("files", "properties", name), ours, properties)


def _check_text(parsed: Parsed, files: Files) -> None:
    for key, text in (("separator", files.separator), ("quote", files.quote)):
        if key == "quote" and not text:
            continue
        if len(text.encode()) != 1 or text in "\r\n":
            parsed.report(("files", key), "must be one ASCII character")
    if files.quote and files.quote == files.separator:
        parsed.report(("files", "quote"), "is the separator")
