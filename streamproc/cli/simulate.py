"""`streamproc simulate`: plausible traffic of seven towns, to a broker or to a file."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from streamproc.cli.console import Bar, err, print_json, progress
from streamproc.config import parse_duration
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.files.envelopes import EnvelopeWriter
from streamproc.connectors.kafka_produce import KafkaProduce
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.connectors.schema_registry import RegistryOptions
from streamproc.simulate.ledger import LedgerWriter
from streamproc.simulate.publish import to_broker, to_file
from streamproc.simulate.registering import register_schemas
from streamproc.simulate.towns import towns
from streamproc.simulate.traffic import Message, TrafficOptions, traffic
from streamproc.simulate.wire import WireOptions

EPOCH_OF_FILES = "2026-03-01T00:00:00Z"


class Wire(StrEnum):
    """The formats traffic can be sent in."""

    JSON = "json"
    AVRO = "avro"
    PROTOBUF = "protobuf"
    ARROW = "arrow"
    MIXED = "mixed"


def simulate(
    cities: Annotated[int, typer.Option(min=1, help="Towns.")] = 7,
    devices: Annotated[int, typer.Option(min=1, help="Devices, over all towns.")] = 140,
    rate: Annotated[
        float, typer.Option(min=0.001, help="Messages per second.")
    ] = 200.0,
    duration: Annotated[str, typer.Option(help="How much event time.")] = "10m",
    start: Annotated[
        str | None,
        typer.Option(
            help="ISO time with zone; to a broker: now, and paced as it would be."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 1,
    format: Annotated[Wire, typer.Option(help="Wire format.")] = Wire.JSON,
    disorder: Annotated[str, typer.Option(help="Longest delay on the way.")] = "5s",
    bad: Annotated[float, typer.Option(min=0, max=1, help="Broken payloads.")] = 0.001,
    topics: Annotated[str, typer.Option(help="Topic template.")] = "telemetry.{city}",
    partitions: Annotated[int, typer.Option(min=1, help="Partitions per topic.")] = 1,
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Send to a broker.")
    ] = None,
    registry: Annotated[str | None, typer.Option(help="Schema registry's URL.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write envelopes: .ndjson, .ndjson.gz, .ndjson.zst."),
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Write what was sent, Parquet.")
    ] = None,
) -> None:
    """Send seven towns' traffic: cycles, noise, gaps, bursts, duplicates, clock faults.

    Example: `streamproc simulate --duration 1h --rate 500 --output day.ndjson.gz --ledger day.parquet`
    """
    if (bootstrap_servers is None) == (output is None):
        msg = "give either --bootstrap-servers or --output"
        raise typer.BadParameter(msg)
    clock = SystemClock()
    live = bootstrap_servers is not None and start is None
    options = TrafficOptions(
        cities=cities,
        devices=devices,
        rate=rate,
        start_us=clock.wall_us() if live else _time_us(start or EPOCH_OF_FILES),
        duration_us=_duration(duration, "--duration"),
        seed=seed,
        disorder_us=_duration(disorder, "--disorder"),
        bad=bad,
    )
    needed = format.value in ("avro", "protobuf", "mixed")
    if needed and registry is None:
        msg = f"--format {format.value} needs --registry"
        raise typer.BadParameter(msg)
    ids = None
    if needed and registry is not None:
        ids = asyncio.run(register_schemas(RegistryOptions(url=registry), clock))
    wire = WireOptions(
        format=format.value, topics=topics, partitions=partitions, schema_ids=ids
    )
    names = [topics.replace("{city}", town.slug) for town in towns(cities)]
    with ExitStack() as stack:
        book = None if ledger is None else stack.enter_context(LedgerWriter(ledger))
        expected = round(rate * options.duration_us / 1e6)
        bar = stack.enter_context(progress("records", expected))
        messages = traffic(options)
        if output is not None:
            file = stack.enter_context(EnvelopeWriter(str(output)))
            sent = to_file(messages, wire, file, book, progress=bar.to)
        else:
            assert bootstrap_servers is not None
            sender = _Sender(bootstrap_servers, names, wire, book, bar)
            sent = asyncio.run(sender.send(messages, clock, live=live))
    readings = book.readings if book is not None else None
    err.print(f"sent {sent} records")
    print_json({"records": sent, "readings": readings, "seed": seed})


class _Sender:
    """Everything a sending to a broker needs but the messages."""

    def __init__(
        self,
        servers: str,
        topics: list[str],
        wire: WireOptions,
        book: LedgerWriter | None,
        bar: Bar,
    ) -> None:
        self._connection = KafkaConnection(bootstrap_servers=servers)
        self._topics = sorted(set(topics))
        self._wire = wire
        self._book = book
        self._bar = bar

    async def send(
        self, messages: Iterator[Message], clock: SystemClock, *, live: bool
    ) -> int:
        async with KafkaProduce(self._connection, compression="lz4") as produce:
            await produce.create_topics(self._topics, self._wire.partitions)
            return await to_broker(
                messages,
                self._wire,
                produce,
                self._book,
                clock=clock,
                live=live,
                progress=self._bar.to,
            )


def _duration(text: str, option: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _time_us(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--start") from error
    if moment.tzinfo is None:
        msg = "needs a zone, such as Z"
        raise typer.BadParameter(msg, param_hint="--start")
    return int(moment.astimezone(UTC).timestamp() * 1e6)
