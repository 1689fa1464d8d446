"""A Kafka partition for the simulation, what is asked of it, and the alerts its records open."""

from dataclasses import dataclass
from random import Random

from streamproc.core.values import AlertTransition


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask Kafka for the payloads of `[start, start + count)`, fewer at the end."""

    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Commit an offset to Kafka; refused for a worker of an older generation."""

    offset: int


@dataclass(frozen=True, slots=True)
class Position:
    """Ask Kafka for the committed offset, None if there is none."""


@dataclass(frozen=True, slots=True)
class Send:
    """Let alerts leave; whoever gets them knows them by their ids."""

    alerts: tuple[str, ...]


class Partition:
    """A Kafka partition: payloads by offset, one owner, one committed offset."""

    def __init__(self, random: Random, records: int) -> None:
        self.payloads = [random.randint(-1000, 1000) for _ in range(records)]
        self.owner = 0
        self.committed: int | None = None


def alert_of(source: str, offset: int) -> AlertTransition:
    """Return the alert that the record at `offset` of `source` opens."""
    return AlertTransition(
        alert_id=str(offset),
        transition=0,
        state="firing",
        rule="r",
        rule_version="v",
        severity="warning",
        city="even",
        device="d",
        property="p",
        window=None,
        event_us=offset,
        value=None,
        source=source,
        offset=offset,
        early=False,
    )
