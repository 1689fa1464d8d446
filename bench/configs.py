"""The service's configuration for a bench, as TOML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.workloads import FULL_WINDOWS, PROPERTIES, WINDOW_1M
from streamproc.core.definition import WindowSpec


@dataclass(frozen=True, slots=True)
class Job:
    """What every bench's configuration has; `options` are further keys, values as TOML."""

    name: str
    servers: str
    topics: str
    format: str
    root: Path
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
        if self.format == "protobuf":
            lines.append('protobuf = { time = "time_us", time_unit = "us" }')
        if self.format == "chirpstack":
            paths = ", ".join(f'"air.{name}" = "{name}"' for name in PROPERTIES)
            lines.append(f"chirpstack = {{ properties = {{ {paths} }} }}")
        return lines


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
