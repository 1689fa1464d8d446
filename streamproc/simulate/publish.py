"""Sending simulated traffic: to a broker as it would arrive, or to a file of envelopes."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from streamproc.connectors.files.envelopes import Envelope, EnvelopeWriter
from streamproc.connectors.kafka_produce import KafkaProduce
from streamproc.connectors.kafka_produce import Message as KafkaMessage
from streamproc.core.ports import Clock
from streamproc.simulate.ledger import LedgerWriter
from streamproc.simulate.traffic import Message
from streamproc.simulate.wire import WireOptions, WireRecord, records_of

CHUNK_US = 100_000
CHUNK_RECORDS = 5_000


Progress = Callable[[int], None]


async def to_broker(  # noqa: PLR0913  (where to, what, and how it is told)
    messages: Iterable[Message],
    options: WireOptions,
    produce: KafkaProduce,
    ledger: LedgerWriter | None,
    *,
    clock: Clock,
    live: bool,
    progress: Progress,
) -> int:
    """Send all messages and note where they went; return the number of records.

    With `live`, each leaves at its own time of the wall clock, else as fast as possible.
    """
    sent = 0
    for chunk in _chunks(messages, live=live):
        if live:
            wait_us = chunk[-1].send_us - clock.wall_us()
            if wait_us > 0:
                await clock.sleep(wait_us / 1e6)
        records = [r for message in chunk for r in records_of(message, options)]
        places = await produce.send([_kafka(record) for record in records])
        if ledger is not None:
            for record, place in zip(records, places, strict=True):
                ledger.add(record, place.offset)
        sent += len(records)
        progress(sent)
    return sent


def to_file(
    messages: Iterable[Message],
    options: WireOptions,
    file: EnvelopeWriter,
    ledger: LedgerWriter | None,
    *,
    progress: Progress,
) -> int:
    """Write envelopes with offsets from 0 per (topic, partition); return their number."""
    offsets: dict[tuple[str, int], int] = {}
    sent = 0
    for chunk in _chunks(messages, live=False):
        envelopes = []
        for record in (r for message in chunk for r in records_of(message, options)):
            place = (record.topic, record.partition)
            offset = offsets.get(place, 0)
            offsets[place] = offset + 1
            envelopes.append(_envelope(record, offset))
            if ledger is not None:
                ledger.add(record, offset)
        file.write(envelopes)
        sent += len(envelopes)
        progress(sent)
    return sent


def _chunks(messages: Iterable[Message], *, live: bool) -> Iterator[list[Message]]:
    if live:
        for _, group in groupby(messages, lambda message: message.send_us // CHUNK_US):
            yield list(group)
        return
    held: list[Message] = []
    for message in messages:
        held.append(message)
        if len(held) >= CHUNK_RECORDS:
            yield held
            held = []
    if held:
        yield held


def _kafka(record: WireRecord) -> KafkaMessage:
    return KafkaMessage(
        topic=record.topic,
        value=record.value,
        key=record.key,
        partition=record.partition,
        timestamp_ms=record.timestamp_ms,
    )


def _envelope(record: WireRecord, offset: int) -> Envelope:
    return Envelope(
        topic=record.topic,
        partition=record.partition,
        offset=offset,
        key=record.key,
        headers=[],
        timestamp=record.timestamp_ms,
        value_base64=record.value,
    )
