"""The demo's configuration: written to a file, so that one can read and change it."""

from dataclasses import dataclass
from pathlib import Path

from streamproc.simulate.towns import TOWNS


@dataclass(frozen=True, slots=True)
class Demo:
    """How much traffic: small enough for the embedded broker, lively enough to watch."""

    devices: int = 210
    rate: float = 600.0
    partitions: int = 2
    disorder_us: int = 800_000
    bad: float = 0.002


DEMO = Demo()

_HEAD = """\
# Written by `streamproc demo`. The broker and the registry lived in the demo's process.
[job]
name = "demo"

[source]
bootstrap_servers = "{servers}"
topics = "telemetry.{{city}}"
session_timeout = "6s"
heartbeat = "1s"

[source.formats]
{formats}

[registry]
url = "{registry}"

[protobuf]
time = "time_us"
time_unit = "us"

[output]
root = "{root}"
flush_age = "5s"

[processing]
idle_after = "5s"

[metrics]
enabled = false

[log]
level = "warning"
"""

_WINDOWS = """
[[windows]]
name = "5s"
every = "5s"
lateness = "1s"
quantiles = [0.5, 0.95]

[[windows]]
name = "20s"
every = "5s"
size = "20s"
lateness = "1s"

[[rules]]
name = "pm10-high"
property = "pm10"
when = "value > 24"
clear = "value < 20"
severity = "critical"

[[rules]]
name = "traffic-busy"
property = "vehicle_count"
window = "5s"
when = "mean > 3 and count >= 2"
clear = "mean < 1.5"
for = "10s"

[[rules]]
name = "silent-station"
property = "temperature"
no_data = "3s"
severity = "info"
"""


def write_config(folder: Path, servers: str, registry: str) -> Path:
    """Write `streamproc.toml` into `folder` and return its path."""
    formats = "\n".join(f'"telemetry.{town.slug}" = "{town.format}"' for town in TOWNS)
    text = _HEAD.format(
        servers=servers, registry=registry, formats=formats, root=folder / "data"
    )
    for town in TOWNS:
        text += f'\n[cities.{town.slug}]\nname = "{town.name}"\n'
        text += f'timezone = "{town.timezone}"\n'
    path = folder / "streamproc.toml"
    path.write_text(text + _WINDOWS, encoding="utf-8")
    return path
