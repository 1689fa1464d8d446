"""The service's configuration for a bench, as TOML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.workloads import FULL_WINDOWS, PACKED, PROPERTIES, WINDOW_1M
from streamproc.core.definition import WindowSpec

_LAYOUT = f"""\
packed.size = {PACKED.size}
packed.device = {{ at = {PACKED.device_at}, type = "{PACKED.device_type}", prefix = "{PACKED.device_prefix}" }}
packed.property = {{ at = {PACKED.property_at}, type = "{PACKED.property_type}" }}
packed.time = {{ at = {PACKED.time_at}, type = "{PACKED.time_type}", unit = "{PACKED.time_unit}" }}
packed.value = {{ at = {PACKED.value_at}, type = "{PACKED.value_type}" }}"""

CODECS = {
    "protobuf": ['protobuf = { time = "time_us", time_unit = "us" }'],
    "packed": [
        *_LAYOUT.splitlines(),
        *(f'packed.properties.{c} = "{name}"' for c, name in PACKED.properties.items()),
    ],
    "chirpstack": [
        f'chirpstack.properties."air.{name}" = "{name}"' for name in PROPERTIES
    ],
}
"""What formats need to be told; the others nothing."""


@dataclass(frozen=True, slots=True)
class Job:
    """What every bench's configuration has; `options` are further keys, values as TOML."""

    name: str
    servers: str
    topics: str
    format: str
    root: Path | str
    cities: tuple[str, ...] = ("razlog",)
    registry: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        lines = [
            f'job.name = "{self.name}"',
            f'source.bootstrap_servers = "{self.servers}"',
            f'source.topics = "{self.topics}"',
            f'source.format = "{self.format}"',
            'source.start = "earliest"',
            f'output.root = "{self.root}"',
            'log.level = "error"',
            *(f"{key} = {value}" for key, value in self.options.items()),
            *(
                f'cities.{city} = {{ timezone = "Europe/Sofia" }}'
                for city in self.cities
            ),
        ]
        if self.registry:
            lines.append(f'registry.url = "{self.registry}"')
        return lines + CODECS.get(self.format, [])


def windows_of(profile: str) -> tuple[WindowSpec, ...]:
    return FULL_WINDOWS if profile == "full" else (WINDOW_1M,)


def ruled(profile: str) -> tuple[str, ...]:
    return PROPERTIES if profile == "full" else PROPERTIES[:1]


def windows(specs: Sequence[WindowSpec], *, quantiles: bool = True) -> list[str]:
    lines = []
    for window in specs:
        lines += [
            "[[windows]]",
            f'name = "{window.name}"',
            f'every = "{window.every_us // 1_000_000}s"',
            f'lateness = "{window.lateness_us // 1_000_000}s"',
            f"quantiles = {list(window.quantiles) if quantiles else []}",
        ]
    return lines


def rules(properties: Sequence[str]) -> list[str]:
    """Return a rule on readings for each: above 890 opens, below 880 ends."""
    lines = []
    for name in properties:
        lines += [
            "[[rules]]",
            f'name = "{name}-high"',
            f'property = "{name}"',
            'when = "value > 890"',
            'clear = "value < 880"',
            'severity = "warning"',
        ]
    return lines


def text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
