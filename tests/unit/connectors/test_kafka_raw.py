"""The hook into aiokafka: what guards it, what it leaves alone, how responses are received."""

import asyncio
import random
import struct
from collections.abc import Iterator
from typing import Any

import aiokafka
import pytest
from aiokafka import AIOKafkaConsumer, conn
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer import fetcher
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import FetchResponse_v4
from aiokafka.protocol.metadata import MetadataResponse_v0

from streamproc.connectors import kafka_raw
from streamproc.connectors.embedded_broker import EmbeddedBroker
from streamproc.connectors.kafka_arenas import ArenaPool
from streamproc.connectors.kafka_fetch import OrdinaryPath, RawPath, path_for
from streamproc.connectors.kafka_message_set import Slice
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_raw import _Frames, why_not_arenas, why_not_batches
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.core.values import TopicPartition
from tests.support.batches import Batch, Rec
from tests.support.kafka import (
    Recorder,
    open_at,
    options_for,
    take,
    until_assigned,
    values_of,
)

ORIGIN = TopicPartition("t", 0)
ANYWHERE = KafkaConnection(bootstrap_servers="localhost:9")
MEBIBYTE = 1 << 20


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"t": 1}) as started:
        yield started


@pytest.fixture
async def connection(broker: EmbeddedBroker) -> KafkaConnection:
    """A broker with records of more bytes than a small response has."""
    made = KafkaConnection(bootstrap_servers=broker.bootstrap_servers)
    async with KafkaProduce(made) as producer:
        await producer.send([Message("t", b"%d," % n * 100) for n in range(1000)])
    return made


# --- the guard ------------------------------------------------------------------------


def test_the_installed_aiokafka_is_known() -> None:
    assert why_not_batches() is None
    assert why_not_arenas() is None
    path = path_for(options_for(ANYWHERE, topics=("t",)))
    assert isinstance(path, RawPath)
    assert not path.notes


def another(*args: Any, **kwargs: Any) -> None:
    """Stand for what a later aiokafka has in a place."""


class NoMemoryRecords:
    async def _proc_fetch_request(
        self, assignment: Any, node_id: Any, request: Any
    ) -> None:
        """Mention nothing that is looked for."""


@pytest.mark.parametrize(
    ("owner", "name", "value", "said"),
    [
        (aiokafka, "__version__", "0.15.0", "aiokafka 0.15.0: only 0.13 and 0.14"),
        (fetcher.PartitionRecords, "__init__", another, "another takes args, kwargs"),
        (
            fetcher.Fetcher,
            "_proc_fetch_request",
            NoMemoryRecords._proc_fetch_request,
            "does not mention MemoryRecords, has_next, size_in_bytes",
        ),
        (AIOKafkaConsumer, "start", another, "another takes args, kwargs"),
        (fetcher.FetchResult, "getall", another, "another does not mention"),
    ],
)
def test_another_fetcher_means_the_ordinary_path_and_a_note(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, value: Any, said: str
) -> None:
    monkeypatch.setattr(owner, name, value)

    source = KafkaSource(options_for(ANYWHERE, topics=("t",)))

    assert isinstance(source._path, OrdinaryPath)
    (note,) = source.notes
    assert said in note
    assert "ordinary path" in note


@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (AIOKafkaClient, "_get_conn", "another takes args, kwargs"),
        (conn.AIOKafkaConnection, "_handle_frame", "another takes args, kwargs"),
        (conn.AIOKafkaConnection, "close", "another takes args, kwargs"),
        (conn.AIOKafkaConnection, "connect", "does not mention _protocol"),
    ],
)
async def test_another_connection_means_streams_and_a_note(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, said: str
) -> None:
    monkeypatch.setattr(owner, name, another)

    source = KafkaSource(options_for(ANYWHERE, topics=("t",)))

    assert isinstance(source._path, RawPath)
    (note,) = source.notes
    assert said in note
    assert "copied" in note
    await source.stop()


def test_who_wants_headers_or_no_raw_batches_takes_the_ordinary_path_without_a_note() -> (
    None
):
    for options in ({"headers": True}, {"raw": False}):
        path = path_for(options_for(ANYWHERE, topics=("t",), **options))
        assert isinstance(path, OrdinaryPath)
        assert not path.notes


# --- on a broker ------------------------------------------------------------------------


async def opened(connection: KafkaConnection, **options: object) -> KafkaSource:
    listener = Recorder()
    source = KafkaSource(options_for(connection, topics=("t",), **options))
    await source.start(listener)
    await until_assigned(source, listener)
    open_at(source, 0, ORIGIN)
    return source


def protocols(source: KafkaSource) -> set[type]:
    connections = source._client._client._conns.values()
    return {type(each._writer.transport.get_protocol()) for each in connections}


async def test_other_consumers_of_the_process_see_no_difference(
    connection: KafkaConnection,
) -> None:
    source = await opened(connection)
    await take(source, 1000)

    plain = AIOKafkaConsumer("t", auto_offset_reset="earliest", **connection.aiokafka())
    await plain.start()
    record = await plain.getone()
    kinds = {
        type(c._writer.transport.get_protocol()) for c in plain._client._conns.values()
    }
    await plain.stop()

    assert protocols(source) == {_Frames}
    await source.stop()
    assert record.value == b"0," * 100
    assert kinds == {conn.AIOKafkaProtocol}


async def test_a_transport_that_keeps_its_protocol_is_read_by_streams(
    connection: KafkaConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined]  # no stubs
    original = transport.set_protocol

    def refuse(self: Any, protocol: Any) -> None:
        if isinstance(protocol, _Frames):
            raise NotImplementedError
        original(self, protocol)

    monkeypatch.setattr(transport, "set_protocol", refuse)
    source = await opened(connection)

    found = values_of(await take(source, 1000))

    assert protocols(source) == {conn.AIOKafkaProtocol}
    await source.stop()
    assert found == [b"%d," % n * 100 for n in range(1000)]


@pytest.mark.fault(
    "F18", how="a damaged batch among sound ones", seen="nothing after it is delivered"
)
async def test_a_damaged_batch_ends_the_source_and_nothing_after_it_is_delivered(
    connection: KafkaConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamproc.connectors.kafka_batches.crc32c", lambda data: 0)
    source = await opened(connection)

    for _ in range(3):
        with pytest.raises(
            Exception, match=r"t/0: the batch with offsets 0 to \d+ has"
        ):
            await take(source, 1)
    await source.stop()


async def test_debug_logging_shows_a_response(
    connection: KafkaConnection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "aiokafka")
    source = await opened(connection)

    await take(source, 1000)

    await source.stop()
    assert "FetchResponse" in caplog.text


# --- receiving --------------------------------------------------------------------------


class Request:
    """What a connection keeps of a request that waits."""

    def __init__(self, kind: Any) -> None:
        self.RESPONSE_TYPE = kind

    def parse_response_header(self, response: Any) -> Any:
        return type(
            "Header", (), {"correlation_id": struct.unpack(">i", response.read(4))[0]}
        )


def fetch_response(number: int, size: int) -> tuple[bytes, bytes]:
    """Return an encoded response, and the message set in it."""
    batch = Batch(0, [Rec(0, bytes(size))]).encode()
    body = FetchResponse_v4(0, [("t", [(0, 0, 1, 1, [], batch)])]).encode()
    return struct.pack(">i", number) + body, batch


def framed(response: bytes) -> bytes:
    return struct.pack(">i", len(response)) + response


async def frames(connection: Any) -> tuple[_Frames, list[Any]]:
    lost: list[Any] = []

    def close(reason: Any = None, exc: Any = None) -> None:
        lost.append((reason, exc))

    connection._protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    connection.close = close
    return _Frames(connection, ArenaPool(4 * MEBIBYTE)), lost


def feed(protocol: _Frames, data: bytes, rng: random.Random) -> None:
    """Deliver bytes in whatever portions."""
    at = 0
    while at < len(data):
        room = protocol.get_buffer(-1)
        size = min(rng.randrange(1, 5000), len(room), len(data) - at)
        assert size > 0
        room[:size] = data[at : at + size]
        at += size
        protocol.buffer_updated(size)


async def test_responses_arrive_whole_in_whatever_portions_they_come() -> None:
    connection = conn.AIOKafkaConnection("localhost", 9)
    protocol, lost = await frames(connection)
    rng = random.Random(6)
    sent, answers, messages = b"", [], []
    for number in range(40):
        future = asyncio.get_running_loop().create_future()
        answers.append(future)
        if rng.random() < 0.3:
            body = MetadataResponse_v0([(1, "localhost", number)], []).encode()
            connection._requests.append((number, Request(MetadataResponse_v0), future))
            sent += framed(struct.pack(">i", number) + body)
            messages.append(b"")
        else:
            response, batch = fetch_response(number, rng.choice([0, 10, 400, 200_000]))
            connection._requests.append((number, Request(FetchResponse_v4), future))
            sent += framed(response)
            messages.append(batch)

    feed(protocol, sent, rng)

    assert not lost
    for number, (future, batch) in enumerate(zip(answers, messages, strict=True)):
        response = future.result()
        if not batch:
            assert response.brokers == [(1, "localhost", number)]
            continue
        found = response.topics[0][1][0][-1]
        assert isinstance(found, Slice if len(batch) > 256 else bytes)
        assert found[:] == batch


@pytest.mark.parametrize("length", [0, -1, kafka_raw.FRAME_BYTES_MAX + 1, 0x48545450])
async def test_a_length_that_no_broker_sends_costs_the_connection(length: int) -> None:
    connection = conn.AIOKafkaConnection("localhost", 9)
    protocol, lost = await frames(connection)

    feed(protocol, struct.pack(">i", length), random.Random(0))

    ((reason, error),) = lost
    assert reason is conn.CloseReason.CONNECTION_BROKEN
    assert f"a response of {length} bytes" in str(error)


async def test_a_response_nobody_asked_for_costs_the_connection() -> None:
    connection = conn.AIOKafkaConnection("localhost", 9)
    protocol, lost = await frames(connection)

    feed(protocol, framed(b"unasked"), random.Random(0))

    assert [reason for reason, _ in lost] == [conn.CloseReason.CONNECTION_BROKEN]


async def test_requests_that_wait_fail_as_soon_as_the_connection_is_lost() -> None:
    async def hang_up(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(4)
        writer.write(struct.pack(">i", 1000) + b"the beginning of a response")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = conn.AIOKafkaConnection("127.0.0.1", port, request_timeout_ms=60_000)
    connection._do_version_lookup = _nothing
    await connection.connect()
    assert kafka_raw._take_over(connection, ArenaPool(MEBIBYTE))
    future = asyncio.get_running_loop().create_future()
    connection._requests.append((1, Request(FetchResponse_v4), future))

    connection._writer.write(b"ping")

    async with asyncio.timeout(5):
        with pytest.raises(KafkaConnectionError):
            await future
        await connection._closed_fut
    assert not connection.connected()
    server.close()
    await server.wait_closed()


async def test_a_connection_that_is_lost_at_once_is_left_alone() -> None:
    """aiokafka finds out when it is used, as it does without us."""
    connection = conn.AIOKafkaConnection("localhost", 9)

    assert not kafka_raw._take_over(connection, ArenaPool(MEBIBYTE))


async def _nothing() -> None:
    pass
