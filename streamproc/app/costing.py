"""What each window and its quantiles cost: time and state, measured on readings made here.

The processor of `run` folds them in batches; every series reports once in `interval_us`, in
order, so what is measured is folding and the closing that falls into it, and nothing else.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.config.zones import zone
from streamproc.core.definition import (
    CitySpec,
    Definition,
    PropertySpec,
    WindowSpec,
)
from streamproc.core.payloads import Payloads
from streamproc.core.processor import PartitionProcessor
from streamproc.core.schemas import DECODED
from streamproc.core.values import Decoded, OffsetSpan, Records, TopicPartition

I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]

ORIGIN: Final = TopicPartition("costing.here", 0)
ZONE: Final = "Europe/Sofia"
PROPERTY: Final = "costing"
START_US: Final = 1_772_323_200_000_000
BATCH: Final = 20_000
"""What one fetch hands over at most."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """How many readings of how many series, each reporting once in an interval."""

    series: int = 2_000
    interval_us: int = 6_000_000
    readings: int = 60_000


@dataclass(frozen=True, slots=True)
class WindowCost:
    """What some windows together cost; `bytes_per_series` is what their state takes."""

    windows: tuple[str, ...]
    quantiles: bool
    ns_per_reading: float
    bytes_per_series: int


def window_costs(
    specs: Sequence[WindowSpec], traffic: Traffic, rounds: int = 2
) -> Iterator[WindowCost]:
    """Yield the cost of the first window, the first two and so on: plain, then as given.

    The least of several rounds is taken, in CPU time of this thread.
    """
    for number in range(1, len(specs) + 1):
        chosen = specs[:number]
        plain = [replace(spec, quantiles=()) for spec in chosen]
        kinds = [plain] if plain == list(chosen) else [plain, chosen]
        for kind in kinds:
            found = [_measured(kind, traffic) for _ in range(rounds)]
            yield WindowCost(
                windows=tuple(spec.name for spec in kind),
                quantiles=any(spec.quantiles for spec in kind),
                ns_per_reading=min(ns for ns, _ in found),
                bytes_per_series=found[0][1],
            )


def _measured(specs: Sequence[WindowSpec], traffic: Traffic) -> tuple[float, int]:
    processor = PartitionProcessor(ORIGIN, _definition(specs), {"here": zone(ZONE)})
    batches = _batches(traffic)
    for _ in range(2 + traffic.series // BATCH):
        processor.step(*next(batches), 0)  # series are new but once
    spent_ns = folded = 0
    while folded < traffic.readings:
        records, decoded = next(batches)
        began_ns = time.thread_time_ns()
        processor.step(records, decoded, 0)
        spent_ns += time.thread_time_ns() - began_ns
        folded += len(records)
    return spent_ns / folded, processor.state_bytes // traffic.series


def _definition(specs: Sequence[WindowSpec]) -> Definition:
    return Definition(
        job="costing",
        windows=tuple(specs),
        rules=(),
        properties=(PropertySpec(PROPERTY, "1"),),
        cities=(CitySpec("here", "Here", ZONE),),
        topic_cities=((ORIGIN.topic, "here"),),
    )


def _batches(traffic: Traffic) -> Iterator[tuple[Records, Decoded]]:
    random = np.random.default_rng(1)
    names = pa.array([f"series-{number:07d}" for number in range(traffic.series)])
    vocabulary = object()
    for number in count():
        rows = np.arange(number * BATCH, (number + 1) * BATCH, dtype=np.int64)
        lap, series = np.divmod(rows, traffic.series)
        event_us = START_US + lap * traffic.interval_us
        event_us += series * traffic.interval_us // traffic.series
        value = random.gamma(4.0, 7.0, BATCH).round(1)
        kinds = np.zeros(BATCH, np.int64), pa.array([PROPERTY])
        readings = decoded_batch((series, names), kinds, event_us, value)
        yield records_of(int(rows[0]), BATCH), Decoded(readings, (), vocabulary)


Named = tuple[I8, pa.StringArray]
"""Codes and the names they stand for."""


def decoded_batch(
    devices: Named, properties: Named, event_us: I8, value: F8
) -> pa.RecordBatch:
    """Return readings as a decoder would hand them over, one a record."""
    rows = len(value)
    arrays = [
        pa.array(np.arange(rows, dtype=np.int32)),
        pa.array(np.zeros(rows, np.int32)),
        *(
            pa.DictionaryArray.from_arrays(codes.astype(np.int32), names)
            for codes, names in (devices, properties)
        ),
        pa.nulls(rows, DECODED.field("unit").type),
        pa.array(event_us).cast(DECODED.field("event_time").type),
        pa.array(value),
        pa.array(np.ones(rows, np.int8)),
        pa.array(np.zeros(rows, np.uint16)),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=DECODED)


def records_of(start: int, rows: int) -> Records:
    """Return records whose payloads nobody looks at any more."""
    return Records(
        ORIGIN,
        np.arange(start, start + rows, dtype=np.int64),
        np.full(rows, START_US + 10**13, np.int64),
        Payloads.nulls(rows),
        Payloads.nulls(rows),
        OffsetSpan(start, start + rows),
    )
