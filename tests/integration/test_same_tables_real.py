"""Cologne's March, clean and dirty, in every format: one answer from all ways, bit for bit.

The raw path, aiokafka's own records and the strict decoders; from batches made here, and from
what Apache Kafka keeps of them in every compression.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import duckdb
import pytest

from streamproc.codecs.encode import WireReading
from streamproc.connectors.kafka_fetch import OrdinaryPath, RawPath
from streamproc.connectors.kafka_message_set import Limits
from streamproc.connectors.kafka_produce import KafkaProduce
from streamproc.connectors.kafka_produce import Message as Produced
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.core.values import Records, TopicPartition
from streamproc.testing.kafka_broker import ApacheKafka
from tests.integration.test_real_koeln_dirty import Sent, dirtied
from tests.support.batches import CODECS
from tests.support.both_ways import (
    ORIGIN,
    Message,
    assert_same,
    folded,
    ordinary_way,
    raw_way,
    written,
)
from tests.support.formats import FORMATS, Format, Strictly
from tests.support.kafka import (
    Recorder,
    fresh,
    open_at,
    options_for,
    take,
    until_assigned,
)
from tests.support.real_data import koeln_march

SEED = 2013
SOME = 5_000
MANY = {"arrow": 50_000}
"""Rows of March for `make test` and, where not all, for `make test-long` (Arrow is slow)."""
EACH = pytest.mark.parametrize("name", FORMATS)
Rows = list[tuple[str, int, int]]


def march(limit: int | None = None) -> Rows:
    return (
        duckdb.connect()
        .execute(
            "select identifier, epoch_us(datetime_utc), auslastung from read_csv(?)"
            " limit ?",
            [str(koeln_march()), limit or 1 << 30],
        )
        .fetchall()
    )


def clean(rows: Rows) -> list[Sent]:
    return [Sent(n, *row) for n, row in enumerate(rows)]


def dirty(rows: Rows) -> list[Sent]:
    return dirtied(random.Random(SEED), rows)


def messages(form: Format, sent: Sequence[Sent]) -> list[Message]:
    """Return the records in a format; what is broken in JSON is cut off in the others."""
    readings = [
        WireReading(r.device, "pm10", r.event_us, float(r.value), None, r.quality)
        for r in sent
    ]
    made: list[Message] = []
    for row, payload in zip(sent, form.encode(readings), strict=True):
        value = payload
        if row.broken is not None:
            value = row.broken if form.kind == "json" else payload[: len(row.broken)]
        made.append(Message(value, row.device.encode(), row.event_us // 1000))
    return made


def assert_one_answer(name: str, sent: Sequence[Sent]) -> None:
    form = FORMATS[name]
    rng = random.Random(name)
    wire = written(rng, messages(form, sent), "lz4")
    cuts = [*sorted(rng.sample(range(1, wire.end), 5)), wire.end]

    raw = folded(raw_way(wire, Limits(100_000)), form.decoder(), cuts)

    assert_same(raw, folded(ordinary_way(wire, 20_000), form.decoder(), cuts))
    assert_same(raw, folded(ordinary_way(wire, 9_000), Strictly(form), cuts))
    read = sum(commit.counts["records "] for commit in raw)
    readings = sum(commit.tables()["readings"].num_rows for commit in raw)
    assert read == len(sent)
    assert readings > 0.95 * len(sent)


@EACH
def test_dirty_readings_of_cologne_give_one_answer(name: str) -> None:
    assert_one_answer(name, dirty(march(SOME)))


@pytest.mark.long
@EACH
def test_many_dirty_readings_of_cologne_give_one_answer(name: str) -> None:
    assert_one_answer(name, dirty(march(MANY.get(name, 250_000))))


@pytest.mark.long
@pytest.mark.parametrize("made", [clean, dirty])
def test_all_march_of_cologne_gives_one_answer(
    made: Callable[[Rows], list[Sent]],
) -> None:
    assert_one_answer("json", made(march()))


# --- what a broker keeps --------------------------------------------------------------


async def fetched(
    connection: KafkaConnection, origin: TopicPartition, *, raw: bool
) -> list[Records]:
    """Read a partition to its end by one of the two ways."""
    listener = Recorder()
    source = KafkaSource(options_for(connection, topics=(origin.topic,), raw=raw))
    assert isinstance(source._path, RawPath if raw else OrdinaryPath)
    await source.start(listener)
    try:
        await until_assigned(source, listener)
        open_at(source, 0, origin)
        end = (await source.bounds(origin)).end
        return await take(source, 0, end=end)
    finally:
        await source.stop()


def as_if_from(found: Sequence[Records]) -> Iterator[Records]:
    return (replace(records, origin=ORIGIN) for records in found)


@pytest.mark.parametrize("codec", CODECS)
async def test_a_broker_s_batches_give_one_answer(
    kafka: ApacheKafka, codec: str
) -> None:
    """All formats take turns in the codecs; the broker's own batches differ from ours."""
    name = dict(zip(CODECS, FORMATS, strict=False))[codec]
    form = FORMATS[name]
    topic = fresh(f"same-{codec}")
    compression = None if codec == "none" else codec
    keep = {"retention.ms": "-1", "message.timestamp.type": "CreateTime"}
    async with KafkaProduce(kafka.connection, compression=compression) as producer:
        await producer.create_topics([topic], 1, keep)
        sent = messages(form, dirty(march(SOME)))
        for first in range(0, len(sent), 1000):
            await producer.send(
                [
                    Produced(topic, one.value or b"", one.key, 0, one.broker_ms)
                    for one in sent[first : first + 1000]
                ]
            )
    origin = TopicPartition(topic, 0)

    raw = await fetched(kafka.connection, origin, raw=True)
    ordinary = await fetched(kafka.connection, origin, raw=False)

    cuts = [1, 700, len(sent) // 2, len(sent)]
    one = folded(as_if_from(raw), form.decoder(), cuts)
    assert_same(one, folded(as_if_from(ordinary), form.decoder(), cuts))
    assert_same(one, folded(as_if_from(ordinary), Strictly(form), cuts))
