"""The same wire bytes through the raw path and through aiokafka, up to every table.

Commits are cut at the same offsets; batches are not: each way hands over what it likes.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as AioTopicPartition

from streamproc.connectors.kafka_arenas import ArenaPool
from streamproc.connectors.kafka_batches import BatchReader
from streamproc.connectors.kafka_message_set import (
    Limits,
    MessageSet,
    RawRecords,
    Slice,
)
from streamproc.connectors.kafka_records import columnar
from streamproc.core.definition import (
    CitySpec,
    Definition,
    DeviceSpec,
    PropertySpec,
    RuleSpec,
    WindowSpec,
)
from streamproc.core.ports import Decoder
from streamproc.core.processor import PartitionProcessor
from streamproc.core.values import AlertTransition, Emission, OffsetSpan, Records
from streamproc.core.values import TopicPartition as Origin
from streamproc.kernels.bytes_raw import PAD
from tests.support.batches import CODECS, Batch, Rec, marker

MINUTE_US = 60_000_000
ORIGIN = Origin("telemetry.razlog", 0)
ABORTED_BY = 7
ZONES = {"razlog": ZoneInfo("Europe/Sofia"), "ange": ZoneInfo("Europe/Stockholm")}
DEFINITION = Definition(
    job="both-ways",
    windows=(
        WindowSpec("1m", MINUTE_US, MINUTE_US, MINUTE_US, (0.5, 0.99)),
        WindowSpec("15m", 15 * MINUTE_US, 5 * MINUTE_US, 5 * MINUTE_US),
        WindowSpec("1h", 60 * MINUTE_US, 60 * MINUTE_US, 0, (0.9,)),
    ),
    rules=(
        RuleSpec("r", "pm10", None, "value > 60", "value < 30", 0, "info", MINUTE_US),
        RuleSpec("w", "pm10", "1m", "p99 > 60", None, 2 * MINUTE_US, "info"),
    ),
    properties=(
        PropertySpec("no2", "ug/m3", low=-80.0, high=80.0),
        PropertySpec("open", "1"),
        PropertySpec("parking_state", "1", states=(("free", 0.0), ("occupied", 1.0))),
        PropertySpec("pm10", "ug/m3", low=-90.0, units=(("mg/m3", 1000.0, 0.0),)),
        PropertySpec("temperature", "Cel"),
    ),
    cities=(
        CitySpec("ange", "Ånge", "Europe/Stockholm"),
        CitySpec("razlog", "Razlog", "Europe/Sofia"),
    ),
    devices=(
        DeviceSpec("razlog", "device-1", MINUTE_US, scale=1.1, offset=-0.1),
        DeviceSpec("ange", "device-2", 10 * MINUTE_US),
    ),
    topic_cities=((ORIGIN.topic, "razlog"),),
    dedup=2,
)


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody produces."""

    value: bytes | None
    key: bytes | None
    broker_ms: int


@dataclass(frozen=True, slots=True)
class Wire:
    """A partition as a fetch response has it."""

    data: bytes
    end: int
    aborted: Sequence[tuple[int, int]] = ()


# --- written --------------------------------------------------------------------------


def written(
    rng: random.Random, messages: Sequence[Message], codec: str, *, aborts: bool = True
) -> Wire:
    """Return batches of all sizes as aiokafka's producer makes them, and some aborted."""
    parts: list[bytes] = []
    aborted: list[tuple[int, int]] = []
    base = at = 0
    while at < len(messages):
        size = rng.choice([1, 2, rng.randrange(1, 40), rng.randrange(1, 3000)])
        chosen = messages[at : at + size]
        parts.append(_batch(base, chosen, CODECS[codec][0]))
        base, at = base + len(chosen), at + size
        if aborts and rng.random() < 0.2:
            batch = Batch(
                base,
                [Rec(n, m.value) for n, m in enumerate(chosen[:20])],
                codec=codec,
                producer=ABORTED_BY,
                transactional=True,
            )
            aborted.append((ABORTED_BY, base))
            end = marker(batch.next, ABORTED_BY, abort=True)
            parts += [batch.encode(), end.encode()]
            base = end.next
    return Wire(b"".join(parts), base, aborted)


def _batch(base: int, messages: Sequence[Message], codec: int) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 30)
    for number, message in enumerate(messages):
        builder.append(number, message.broker_ms, message.key, message.value, [])
    data = builder.build()
    data[:8] = base.to_bytes(8, "big")
    return bytes(data)


# --- read -----------------------------------------------------------------------------


def raw_way(wire: Wire, limits: Limits) -> Iterator[Records]:
    """Read as the raw path does, from amid an arena."""
    pool = ArenaPool(1 << 24)
    frame = np.frombuffer(b"\xaa" * 9 + wire.data + b"\xff" * PAD, np.uint8)
    raw = RawRecords(
        *(limits, _aio(), MessageSet(pool, Slice(frame, 9, 9 + len(wire.data)))),
        *(list(wire.aborted), 0, None, None, True, 1),
    )
    reader, start = BatchReader(pool), 0
    while items := list(islice(raw, limits.chunks)):
        yield from reader.read(ORIGIN, items, OffsetSpan(start, raw.next_fetch_offset))
        start = raw.next_fetch_offset


def ordinary_way(wire: Wire, items: int) -> Iterator[Records]:
    """Read as the ordinary path does: aiokafka's records, so many at once."""
    records = PartitionRecords(
        *(_aio(), MemoryRecords(wire.data), list(wire.aborted), 0),
        *(None, None, True, 1),
    )
    start, count = 0, items
    while count == items:  # fewer: it has come to its end, and must not be asked again
        found = list(islice(records, items))
        count, end = len(found), records.next_fetch_offset
        yield columnar(ORIGIN, found, OffsetSpan(start, end))
        start = end


def _aio() -> AioTopicPartition:
    return AioTopicPartition(ORIGIN.topic, ORIGIN.partition)


# --- folded ---------------------------------------------------------------------------


@dataclass
class Commit:
    """All that goes into one commit, and the state behind it."""

    emissions: list[Emission] = field(default_factory=list)
    late_parts: list[pa.RecordBatch] = field(default_factory=list)
    state: Mapping[str, pa.Table] = field(default_factory=dict)

    def tables(self) -> dict[str, pa.Table]:
        found = {
            name: pa.Table.from_batches(
                [getattr(made, name) for made in self.emissions]
            )
            for name in ("readings", "aggregates", "late", "quarantine")
        }
        found["late parts"] = pa.Table.from_batches(self.late_parts)
        return found | {f"state: {name}": of for name, of in self.state.items()}

    @property
    def alerts(self) -> list[AlertTransition]:
        return [alert for made in self.emissions for alert in made.alerts]

    @property
    def counts(self) -> dict[str, Any]:
        total: dict[str, Any] = {}
        for made in self.emissions:
            for name, counted in asdict(made.counts).items():
                entries = (
                    counted.items() if isinstance(counted, dict) else [("", counted)]
                )
                for key, number in entries:
                    total[f"{name} {key}"] = total.get(f"{name} {key}", 0) + number
        return total


def folded(
    batches: Iterable[Records],
    decoder: Decoder,
    cuts: Sequence[int],
    definition: Definition = DEFINITION,
) -> list[Commit]:
    """Return a commit per cut; the last one also closes what is open."""
    processor = PartitionProcessor(ORIGIN, definition, ZONES)
    commits: list[Commit] = []
    commit, due = Commit(), 0
    for records in batches:
        assert records.span.start == due
        for end in sorted(
            {c for c in cuts if c < records.span.end} | {records.span.end}
        ):
            if end <= due:
                continue
            part = records.between(due, end)
            commit.emissions.append(processor.step(part, decoder.decode(part), end))
            due = end
            if end in cuts:
                timers = processor.finals(end) if end == cuts[-1] else ()
                commit.emissions += [processor.take(timer, end) for timer in timers]
                commit.late_parts.append(processor.cut(len(commits) + 1))
                commit.state = processor.snapshot()
                commits.append(commit)
                commit = Commit()
    assert len(commits) == len(cuts)
    return commits


# --- compared -------------------------------------------------------------------------


def assert_same(found: Sequence[Commit], expected: Sequence[Commit]) -> None:
    """Compare everything that two ways committed, bit for bit."""
    assert len(found) == len(expected)
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.counts == theirs.counts, number
        assert repr(ours.alerts) == repr(theirs.alerts), number
        tables, others = ours.tables(), theirs.tables()
        assert tables.keys() == others.keys()
        for name, table in tables.items():
            assert same_bits(table, others[name]), (number, name)


def same_bits(one: pa.Table, other: pa.Table) -> bool:
    """Tell whether two tables hold the same: floats by their bits, names by their text."""
    if not one.schema.equals(other.schema, check_metadata=True):
        return False
    return all(
        _plain(left).equals(_plain(right))
        for left, right in zip(one.columns, other.columns, strict=True)
    )


def _plain(column: "pa.ChunkedArray[Any]") -> "pa.Array[Any]":
    kind: Any = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    whole = (
        pa.concat_arrays(column.chunks)
        if column.num_chunks
        else column.combine_chunks()
    )
    if pa.types.is_floating(kind):
        return whole.view(f"int{kind.bit_width}")
    if pa.types.is_list(kind):
        lists: Any = whole
        values = pa.chunked_array([lists.flatten()])
        return pa.ListArray.from_arrays(lists.offsets, _plain(values))
    return whole
