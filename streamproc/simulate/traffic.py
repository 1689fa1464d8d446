"""Plausible traffic as a pure, reproducible stream of messages.

Daily and weekly cycles, noise per property, device gaps whose readings arrive later in a
burst, duplicates, clocks that run ahead, and payloads that are broken on purpose. The same
options give the same messages on every machine: one PCG64 generator, drawn in a fixed
order, and values rounded to the property's decimals.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from streamproc.simulate.towns import Kind, Signal, Town, towns

Fault = Literal["truncated", "wrong_type", "no_device", "not_utf8", "empty"]
FAULTS: tuple[Fault, ...] = (
    "truncated",
    "wrong_type",
    "no_device",
    "not_utf8",
    "empty",
)

DAY_US = 86_400_000_000
GAP_CHANCE = 0.002
GAP_MESSAGES = 12
DUPLICATE_CHANCE = 0.003
CLOCK_CHANCE = 0.0005
CLOCK_AHEAD_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class TrafficOptions:
    """What to simulate.

    Attributes:
        cities: number of towns; devices: in all, spread evenly; rate: records per second.
        start_us, duration_us: event time covered, microseconds.
        disorder_us: longest transmission delay; 0 = in order.
        bad: share of messages whose payload is broken.
        multi: several properties of a device travel in one record (else one each).
    """

    cities: int = 7
    devices: int = 140
    rate: float = 200.0
    start_us: int = 0
    duration_us: int = 600_000_000
    seed: int = 1
    disorder_us: int = 5_000_000
    bad: float = 0.001
    multi: bool = True


@dataclass(frozen=True, slots=True)
class Message:
    """One record to send.

    Attributes:
        send_us: when it reaches the broker (its record timestamp), microseconds.
        event_us: the device's own time of the reading.
        values: (property, value) in payload order.
        fault: how the payload is broken, None for a sound one.
        future: the device's clock runs so far ahead that the reading must be refused.
    """

    send_us: int
    city: str
    format: str
    device: str
    event_us: int
    values: tuple[tuple[str, float], ...]
    fault: Fault | None
    future: bool


@dataclass(slots=True)
class _Device:
    town: Town
    name: str
    kind: Kind
    next_us: int
    bias: float
    turn: int = 0
    gap_left: int = 0
    held: "list[Message] | None" = None


def traffic(options: TrafficOptions) -> Iterator[Message]:
    """Yield messages in order of `send_us`; ends after the last one has been sent."""
    rng = np.random.default_rng(options.seed)
    devices = _devices(options, rng)
    interval_us = max(1, int(len(devices) / options.rate * 1e6))
    agenda = [(device.next_us, index) for index, device in enumerate(devices)]
    heapq.heapify(agenda)
    out: list[tuple[int, int, Message]] = []
    serial = 0
    end_us = options.start_us + options.duration_us
    while agenda and agenda[0][0] < end_us:
        now_us, index = heapq.heappop(agenda)
        device = devices[index]
        for message in _report(device, now_us, options, rng):
            heapq.heappush(out, (message.send_us, serial, message))
            serial += 1
        heapq.heappush(agenda, (now_us + interval_us, index))
        # Nothing sent from now on can overtake what is due before now.
        while out and out[0][0] <= now_us:
            yield heapq.heappop(out)[2]
    for device in devices:
        for message in device.held or ():
            late = _moved(message, end_us)
            heapq.heappush(out, (late.send_us, serial, late))
            serial += 1
    while out:
        yield heapq.heappop(out)[2]


def _devices(options: TrafficOptions, rng: np.random.Generator) -> list[_Device]:
    found = []
    places = towns(options.cities)
    interval_us = max(1, int(options.devices / options.rate * 1e6))
    for index in range(options.devices):
        town = places[index % len(places)]
        nth = index // len(places)
        kind = town.kinds[nth % len(town.kinds)]
        phase = options.start_us + int(rng.integers(0, interval_us))
        bias = float(rng.normal())
        name = f"{town.slug}-{kind.name}-{nth + 1:04d}"
        found.append(_Device(town, name, kind, phase, bias))
    return found


def _report(
    device: _Device, now_us: int, options: TrafficOptions, rng: np.random.Generator
) -> list[Message]:
    """Return what leaves the device now: nothing in a gap, a burst after it."""
    draw = rng.random(5)
    message = _measure(device, now_us, options, rng, draw)
    if device.gap_left > 0:
        device.gap_left -= 1
        assert device.held is not None
        device.held.append(message)
        return []
    burst = [_moved(held, message.send_us) for held in device.held or ()]
    device.held = None
    if draw[0] < GAP_CHANCE:
        device.gap_left = GAP_MESSAGES
        device.held = [message]
        return burst
    sent = [*burst, message]
    if draw[1] < DUPLICATE_CHANCE:
        sent.append(message)
    return sent


def _measure(
    device: _Device,
    now_us: int,
    options: TrafficOptions,
    rng: np.random.Generator,
    draw: "np.ndarray[tuple[int], np.dtype[np.float64]]",
) -> Message:
    signals = device.kind.signals
    if not options.multi:
        signals = (signals[device.turn % len(signals)],)
        device.turn += 1
    noise = rng.normal(size=len(signals))
    values = tuple(
        (signal.property, _value(signal, device, now_us, float(noise[i])))
        for i, signal in enumerate(signals)
    )
    future = bool(draw[2] < CLOCK_CHANCE)
    fault = (
        FAULTS[int(draw[3] / options.bad * len(FAULTS))]
        if draw[3] < options.bad
        else None
    )
    delay_us = int(draw[4] * options.disorder_us)
    return Message(
        send_us=_whole_ms(now_us + delay_us),
        city=device.town.slug,
        format=device.town.format,
        device=device.name,
        event_us=_whole_ms(now_us + (CLOCK_AHEAD_US if future else 0)),
        values=values,
        fault=fault,
        future=future,
    )


def _value(signal: Signal, device: _Device, now_us: int, noise: float) -> float:
    hour = now_us / 3.6e9 + device.town.solar_h - signal.peak_hour
    daily = signal.daily * math.cos(hour / 24 * 2 * math.pi)
    weekly = signal.weekly * math.cos(hour / 168 * 2 * math.pi)
    level = signal.level + 1.5 * signal.noise * device.bias
    value = level + daily + weekly + signal.noise * noise
    return round(min(max(value, signal.low), signal.high), signal.decimals)


def _moved(message: Message, send_us: int) -> Message:
    """Return the message as it leaves later, never earlier."""
    return replace(message, send_us=max(message.send_us, send_us))


def _whole_ms(time_us: int) -> int:
    """Kafka timestamps and our JSON times have milliseconds."""
    return time_us // 1000 * 1000
