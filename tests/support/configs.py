"""Configurations for tests: DESIGN.md's example, and short files that differ from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamproc.config import Settings, load
from streamproc.errors import ConfigError

DESIGN = """
[job]
name = "region"

[source]
bootstrap_servers = "localhost:9092"
topics = "telemetry.{city}"
format = "json"

[output]
root = "data"                # or "s3://bucket/prefix"

[cities.razlog]
name = "Razlog"
timezone = "Europe/Sofia"
weight = 1
# packs = ["eu-2008-50", "eaqi-2024", "ops"]   # once rule packs ship

[[windows]]
name = "1m"
every = "1m"
lateness = "30s"
quantiles = [0.5, 0.95]

[[windows]]
name = "1h"
every = "1h"
lateness = "5m"

[[rules]]
name = "pm10-hour-high"
property = "pm10"
window = "1h"
when = "mean > 50"
clear = "mean < 45"
for = "2h"
severity = "warning"
"""

LEAST = """
[cities.razlog]
timezone = "Europe/Sofia"

[[windows]]
name = "1h"
every = "1h"
"""
"""What every file needs; text after it goes into the window, or opens a section."""

PACKED = """
[source]
format = "packed"

[packed]
size = 24
device = { at = 0, type = "u32", prefix = "m-" }
property = { at = 4, type = "u16" }
time = { at = 8, type = "i64", unit = "us" }
value = { at = 16, type = "f32" }
quality = { at = 20 }
properties = { 1 = "pm10", 2 = "no2" }
units = { pm10 = "ug/m3" }
"""
"""The layout of `tests.support.wire.PACKED`."""

CHIRPSTACK = """
[source]
format = "chirpstack"
topics = "chirpstack.{city}"

[chirpstack.properties]
pm10 = "pm10"
"air.no2" = "no2"
"list.1.t" = "temperature"
state = "parking_state"

[chirpstack.units]
no2 = "[ppb]"
"""


def settings(
    folder: Path,
    text: str,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Load `text` as `folder/town.toml`."""
    path = folder / "town.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, env or {}, overrides)


def faults(
    folder: Path,
    text: str,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Return the faults of `text`, the folder's name taken out; empty if there is none."""
    try:
        settings(folder, text, env, overrides)
    except ConfigError as error:
        return tuple(line.replace(f"{folder}/", "") for line in error.faults)
    return ()
