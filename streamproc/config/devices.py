"""The device list: `[[devices]]` of the file and a CSV or TOML list beside it."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from streamproc.config.base import key_of
from streamproc.config.faults import faults_of, nearest
from streamproc.config.job_options import Device
from streamproc.config.layers import read_toml
from streamproc.core.definition import DeviceSpec

DEVICES_MAX: Final = 1_000_000
FAULTS_MAX: Final = 20
"""Of one list; a list with a wrong column would bury everything else."""

_KEYS: Final = tuple(key_of(name) for name in Device.model_fields)
_NUMBERS: Final = ("scale", "offset")


def device_spec(device: Device) -> DeviceSpec:
    """Return what the processor works with."""
    return DeviceSpec(
        device.city, device.device, device.interval_us, device.scale, device.offset
    )


def read_devices(
    path: Path, cities: frozenset[str], lines: list[str]
) -> list[DeviceSpec]:
    """Return the devices of a list; faults go to `lines`, at most `FAULTS_MAX` of them."""
    found, faults = [], _Faults(path, lines)
    seen: set[tuple[str, str]] = set()
    rows = (
        _toml_rows(path, faults) if path.suffix == ".toml" else _csv_rows(path, faults)
    )
    for where, row in rows:
        try:
            device = Device.model_validate(row)
        except ValidationError as error:
            for fault in faults_of(error, row, Device):
                faults.add(fault.line(where))
            continue
        key = (device.city, device.device)
        if device.city not in cities:
            advice = nearest(device.city, cities)
            faults.add(f'{where}: city = "{device.city}": no such city; {advice}')
        elif key in seen:
            faults.add(
                f'{where}: device = "{device.device}": is listed twice for its city'
            )
        else:
            found.append(device_spec(device))
        seen.add(key)
    faults.close()
    return found


class _Faults:
    """The first faults of a list, and how many more there were."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self._path = path
        self._lines = lines
        self._count = 0

    def add(self, line: str) -> None:
        self._count += 1
        if self._count <= FAULTS_MAX:
            self._lines.append(f"{self._path}: {line}")

    def close(self) -> None:
        if self._count > FAULTS_MAX:
            more = self._count - FAULTS_MAX
            self._lines.append(f"{self._path}: … and {more} more faults")


def _toml_rows(path: Path, faults: _Faults) -> Iterator[tuple[str, Mapping[str, Any]]]:
    lines: list[str] = []
    document = read_toml(path, lines)
    for line in lines:
        faults.add(line.removeprefix(f"{path}: "))
    for key in document:
        if key != "devices":
            faults.add(f"{key}: unknown key; a device list holds [[devices]] only")
    rows = document.get("devices", [])
    for index, row in enumerate(rows if isinstance(rows, list) else []):
        yield f"devices[{index}]", row if isinstance(row, dict) else {}


def _csv_rows(path: Path, faults: _Faults) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for name in reader.fieldnames or ():
                if name not in _KEYS:
                    faults.add(
                        f"line 1: unknown column {name!r}; {nearest(name, _KEYS)}"
                    )
            for row in reader:
                yield f"line {reader.line_num}", _plain(row)
                if reader.line_num > DEVICES_MAX:
                    faults.add(f"more than {DEVICES_MAX} devices")
                    return
    except OSError as error:
        faults.add(error.strerror or str(error))
    except (UnicodeDecodeError, csv.Error) as error:
        faults.add(f"not CSV in UTF-8: {error}")


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row's filled cells, numbers as numbers where they are some."""
    found: dict[str, Any] = {}
    for key, text in row.items():
        if key not in _KEYS or not isinstance(text, str) or not text.strip():
            continue
        found[key] = text.strip()
        if key in _NUMBERS:
            try:
                found[key] = float(text)
            except ValueError:
                continue
    return found
