"""What the towns send: reproducible from a seed and the times at which it is asked for.

Some readings are late, repeat a time, or are not valid; some records are bad; towns fall
silent now and then; levels swing so that rules fire. Everything that follows from a record
stands in it.
"""

import json
import math
import random
import zlib
from dataclasses import dataclass, field, replace

from tests.chaos.setting import FACTS, PARTITIONS, topic_of
from tests.oracle.facts import Entry, Reading

MS = 1_000
S = 1_000_000
PROPERTIES = ("pm10", "temperature")
BAD = 0.02
LATE = 0.05
REPEATED = 0.04
SAME = 0.5
"""Of those that repeat a time: how many repeat the value, too."""
INVALID = 0.02
BOTH = 0.3
REST = 0.002
"""Chance of a town to fall silent, each time it is asked."""
NAP_EVERY_S, NAP_S = 60, 12
"""How often, and for how long, a device says nothing."""


@dataclass(frozen=True)
class Draft:
    """A record before it has an offset."""

    topic: str
    partition: int
    city: str
    device: str
    broker: int
    payload: bytes
    readings: tuple[Reading, ...]
    refused: str | None

    def at(self, offset: int) -> Entry:
        return Entry(
            self.topic,
            self.partition,
            offset,
            self.city,
            self.device,
            self.broker,
            self.payload,
            self.readings,
            self.refused,
        )


@dataclass
class Traffic:
    """Ask for `records(now, count)` again and again; `now` in µs, never backwards."""

    rng: random.Random
    devices: int = 20
    _rests_until: dict[str, int] = field(default_factory=dict)
    _last: dict[tuple[str, str], Reading] = field(default_factory=dict)

    def records(self, now: int, count: int) -> list[Draft]:
        awake = [city for city in FACTS.zones if self._is_awake(city, now)]
        if not awake:
            return []
        return [self._record(self.rng.choice(awake), now) for _ in range(count)]

    def _is_awake(self, city: str, now: int) -> bool:
        if now < self._rests_until.get(city, 0):
            return False
        if self.rng.random() < REST:
            self._rests_until[city] = now + self.rng.randint(5, 12) * S
            return False
        return True

    def _record(self, city: str, now: int) -> Draft:
        rng = self.rng
        device = f"{city}-{rng.randrange(self.devices):03}"
        while _naps(device, now):
            device = f"{city}-{rng.randrange(self.devices):03}"
        event = now // MS * MS
        if rng.random() < LATE:
            behind_s = rng.choice((3, 8, 20, 45, 90, 90_000))
            event -= int(rng.uniform(0.5, 1.0) * behind_s * 1000) * MS
        chosen = PROPERTIES if rng.random() < BOTH else (rng.choice(PROPERTIES),)
        before = None
        if rng.random() < REPEATED:
            before = self._last.get((device, chosen[0]))
        if before is not None:
            event = before.event
        quality = 0 if rng.random() < INVALID else 1
        readings = tuple(
            Reading(name, event, self._value(device, name, now), quality)
            for name in chosen
        )
        if before is not None and rng.random() < SAME:
            readings = (replace(readings[0], value=before.value), *readings[1:])
        for reading in readings:
            self._last[device, reading.property] = reading
        payload, refused = _payload(device, readings), None
        if rng.random() < BAD:
            payload, refused = self._spoil(payload)
        return Draft(
            topic=topic_of(city),
            partition=zlib.crc32(device.encode()) % PARTITIONS,
            city=city,
            device=device,
            broker=now // MS * MS,
            payload=payload,
            readings=() if refused else readings,
            refused=refused,
        )

    def _value(self, device: str, name: str, now: int) -> float:
        phase = zlib.crc32(f"{device} {name}".encode()) % 628 / 100
        swing = math.sin(now / (20 * S) + phase)
        return round(50 + 25 * swing + self.rng.gauss(0, 8), 2)

    def _spoil(self, payload: bytes) -> tuple[bytes, str]:
        document = json.loads(payload)
        kind = self.rng.randrange(6)
        if kind == 0:
            return b"", "empty"
        if kind == 1:
            return payload[: len(payload) // 2], "malformed"
        if kind == 2:
            del document["time"]
            return json.dumps(document).encode(), "missing_field"
        if kind == 3:
            document["values"] = {"phlogiston": 1.0}
            return json.dumps(document).encode(), "unknown_property"
        if kind == 4:
            document["time"] += 2 * 86_400_000
            return json.dumps(document).encode(), "future"
        document["device"] = 7
        return json.dumps(document).encode(), "wrong_type"


def _naps(device: str, now: int) -> bool:
    shifted = now // S + zlib.crc32(device.encode())
    # Device 0 never naps: there is always somebody to choose.
    return not device.endswith("-000") and shifted % NAP_EVERY_S < NAP_S


def _payload(device: str, readings: tuple[Reading, ...]) -> bytes:
    document = {
        "device": device,
        "time": readings[0].event // MS,
        "quality": readings[0].quality,
        "values": {reading.property: reading.value for reading in readings},
    }
    return json.dumps(document).encode()
