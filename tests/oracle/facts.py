"""What the oracle is told: the configuration's facts, and the ledger of acknowledged records.

Times are µs since 1970 UTC.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Window:
    name: str
    size: int
    every: int
    lateness: int


@dataclass(frozen=True)
class Condition:
    """`variable > limit`, or `<`."""

    variable: str
    sign: str
    limit: float

    def holds(self, values: dict[str, float]) -> bool:
        value = values[self.variable]
        return value > self.limit if self.sign == ">" else value < self.limit

    def __str__(self) -> str:
        return f"{self.variable} {self.sign} {self.limit}"


@dataclass(frozen=True)
class Rule:
    """Without `window` a rule on readings; `when` None: `no_data` alone."""

    name: str
    property: str
    when: Condition | None = None
    clear: Condition | None = None
    window: str | None = None
    held_for: int = 0
    no_data: int | None = None
    severity: str = "warning"


@dataclass(frozen=True)
class Facts:
    """`zones` by city, `units` by property; one previous reading is compared with."""

    zones: dict[str, str]
    units: dict[str, str]
    windows: tuple[Window, ...]
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Reading:
    property: str
    event: int
    value: float
    quality: int = 1


@dataclass(frozen=True)
class Entry:
    """One acknowledged record; `refused` is the reason if it belongs into quarantine."""

    topic: str
    partition: int
    offset: int
    city: str
    device: str
    broker: int
    payload: bytes
    readings: tuple[Reading, ...]
    refused: str | None = None

    @property
    def source(self) -> str:
        return f"{self.topic}/{self.partition}"


def write_ledger(path: Path, entries: Iterable[Entry]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for entry in entries:
            plain = asdict(entry) | {"payload": entry.payload.decode("latin-1")}
            file.write(json.dumps(plain) + "\n")


def read_ledger(path: Path) -> list[Entry]:
    """Return what `write_ledger` wrote."""
    with path.open(encoding="utf-8") as file:
        return [_entry(json.loads(line)) for line in file]


def _entry(plain: dict[str, Any]) -> Entry:
    readings = tuple(Reading(**reading) for reading in plain["readings"])
    payload = plain["payload"].encode("latin-1")
    return Entry(**plain | {"readings": readings, "payload": payload})


def write_facts(path: Path, facts: Facts) -> None:
    path.write_text(json.dumps(asdict(facts), indent=1), encoding="utf-8")


def read_facts(path: Path) -> Facts:
    """Return what `write_facts` wrote."""
    plain = json.loads(path.read_text(encoding="utf-8"))
    return Facts(
        zones=plain["zones"],
        units=plain["units"],
        windows=tuple(Window(**window) for window in plain["windows"]),
        rules=tuple(_rule(rule) for rule in plain["rules"]),
    )


def _rule(plain: dict[str, Any]) -> Rule:
    conditions = {
        key: Condition(**plain[key]) for key in ("when", "clear") if plain[key]
    }
    return Rule(**plain | conditions)
