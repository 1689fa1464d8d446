"""aiokafka without its records: its consumer, made to hand out undecoded record batches.

aiokafka has no call for that. This module is the only one that touches its internals, for
the versions named here, and only through consumers it is given: functions are bound anew
over a copy of their globals, with another class where they look one up. Nothing of aiokafka
itself is changed, other consumers of the process see no difference.

| in aiokafka | looks up | and gets |
|---|---|---|
| `AIOKafkaConsumer.start` | `Fetcher` | one with the function of the next row |
| `Fetcher._proc_fetch_request` | `MemoryRecords` | `MessageSet`: the bytes of one partition |
| | `PartitionRecords` | `RawRecords`: iterates over chunks of batches |
| `AIOKafkaClient._get_conn` | `create_conn` | one that lets `_Frames` receive from then on |
| `AIOKafkaConnection._handle_frame` | `io.BytesIO` | `_FrameReader`: a reader that copies nothing |

Groups, rebalances, positions, backoff, leaders, errors of the broker: all that stays
aiokafka's. What its `PartitionRecords` does per record is done here per batch (aborted
transactions, control batches, positions) or in `kafka_batches` (checksums, records).

Receiving: aiokafka's streams copy every byte three times. Once a connection stands (and TLS
and SASL are through with it), its transport gets a protocol that receives each response into
one arena, where the records stay. Where a transport cannot change its protocol, streams it is.

`why_not_batches` and `why_not_arenas` check all that is taken for granted; if either says
why not, the caller does without, and says so.
"""

import asyncio
import inspect
import types
import weakref
from collections.abc import Callable
from functools import partial, partialmethod
from types import FunctionType
from typing import Any, Final

import aiokafka
import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaConsumer, conn
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer import fetcher
from aiokafka.protocol.fetch import FetchRequest

from streamproc.connectors.kafka_arenas import ArenaPool
from streamproc.connectors.kafka_message_set import (
    Limits,
    MessageSet,
    RawRecords,
    Slice,
)

U1 = npt.NDArray[np.uint8]

VERSIONS: Final = ("0.13", "0.14")

FRAME_BYTES_MAX: Final = 512 * 1024 * 1024
"""No response is that large; what says so does not speak Kafka."""

_COPIED_MAX: Final = 256
"""Longer than any topic's name; message sets of that size may as well be copied."""

_PATIENCE_S: Final = 0.01
"""How long aiokafka asks a broker for nothing else while something of its last answer was not
taken. With its own tenth of a second, a city that floods holds up what is fetched for the others."""

_BUSY_WAIT_MS: Final = 10
"""How long a broker may gather what other partitions have, while some have records left here. They
cannot be asked for more before it answers, and would run dry."""

_FETCH: Final = 1
_SIZE_BYTES: Final = 4


def hand_out_batches(
    consumer: AIOKafkaConsumer, pool: ArenaPool, limits: Limits
) -> None:
    """Make `getmany` of a consumer that is not yet started return `Chunk | Legacy` items."""
    process = _rebound(
        fetcher.Fetcher._proc_fetch_request,  # noqa: SLF001 (what this module is for)
        MemoryRecords=partial(MessageSet, pool),
        PartitionRecords=partial(RawRecords, limits),
    )
    begin = partialmethod(fetcher.Fetcher.__init__, prefetch_backoff=_PATIENCE_S)
    raw_fetcher = type(
        "RawFetcher",
        (fetcher.Fetcher,),
        {
            "_proc_fetch_request": process,
            "__init__": begin,
            "_fetch_max_wait_ms": property(_wait_ms, _set_wait_ms),
        },
    )
    start = _rebound(AIOKafkaConsumer.start, Fetcher=raw_fetcher)
    consumer.start = types.MethodType(start, consumer)


def _wait_ms(fetcher_: Any) -> int:
    """Return how long a broker may gather: not long while there is something to fold."""
    longest: int = fetcher_.longest_wait_ms
    return min(longest, _BUSY_WAIT_MS) if fetcher_._records else longest  # noqa: SLF001 (as above)


def _set_wait_ms(fetcher_: Any, longest: int) -> None:
    fetcher_.longest_wait_ms = longest


def receive_into_arenas(consumer: AIOKafkaConsumer, pool: ArenaPool) -> None:
    """Make connections of a consumer that is not yet started receive into arenas."""
    client = consumer._client  # noqa: SLF001 (as above)
    get = _rebound(
        AIOKafkaClient._get_conn,  # noqa: SLF001 (as above)
        create_conn=partial(_connected, pool),
    )
    client._get_conn = types.MethodType(get, client)  # noqa: SLF001 (as above)


def _rebound(function: FunctionType, **replaced: object) -> FunctionType:
    """Return the function with other globals of those names."""
    made = FunctionType(
        function.__code__,
        {**function.__globals__, **replaced},
        function.__name__,
        function.__defaults__,
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


# --- the guard --------------------------------------------------------------------------


def why_not_batches() -> str | None:
    """Return why aiokafka's fetcher is not the one known here, None if it is."""
    records = fetcher.PartitionRecords
    result = fetcher.FetchResult
    process = fetcher.Fetcher._proc_fetch_request  # noqa: SLF001 (as above)
    return _first_of(
        _unknown_version(),
        _other_parameters(
            records.__init__,
            *("self", "tp", "records", "aborted_transactions", "fetch_offset"),
            *("key_deserializer", "value_deserializer", "check_crcs"),
            "isolation_level",
        ),
        _other_parameters(process, "self", "assignment", "node_id", "request"),
        _other_parameters(AIOKafkaConsumer.start, "self"),
        None
        if "prefetch_backoff" in inspect.signature(fetcher.Fetcher).parameters
        else "Fetcher has no prefetch_backoff",
        _without(
            fetcher.Fetcher._get_actions_per_node,  # noqa: SLF001 (as above)
            "_fetch_max_wait_ms",
            "_records",
        ),
        _without(process, "MemoryRecords", "has_next", "size_in_bytes"),
        _without(process, "PartitionRecords", "FetchResult", "RecordTooLargeError"),
        _without(AIOKafkaConsumer.start, "Fetcher"),
        _without(result.getall, "_partition_records", "_update_position"),
        _without(result.check_assignment, "_partition_records", "next_fetch_offset"),
        _without(result._update_position, "next_fetch_offset", "consumed_to"),  # noqa: SLF001 (as above)
    )


def why_not_arenas() -> str | None:
    """Return why aiokafka's connection is not the one known here, None if it is."""
    connection = conn.AIOKafkaConnection
    handle = connection._handle_frame  # noqa: SLF001 (as above)
    get = AIOKafkaClient._get_conn  # noqa: SLF001 (as above)
    return _first_of(
        _unknown_version(),
        _other_parameters(handle, "self", "resp"),
        _other_parameters(connection.close, "self", "reason", "exc"),
        _other_parameters(get, "self", "node_id", "group", "no_hint"),
        _without(get, "create_conn", "_conns"),
        _without(handle, "io", "BytesIO", "_requests", "RESPONSE_TYPE", "decode"),
        _without(connection.connect, "_reader", "_writer", "_protocol", "_read_task"),
        _without(connection.connected, "_reader", "at_eof"),
        _without(connection._create_reader_task, "_read", "_on_read_task_error"),  # noqa: SLF001 (as above)
        None if hasattr(conn.CloseReason, "CONNECTION_BROKEN") else "no CloseReason",
        None if FetchRequest.API_KEY == _FETCH else "Fetch has another number",
    )


def _first_of(*reasons: str | None) -> str | None:
    reason = next((reason for reason in reasons if reason is not None), None)
    return reason and f"aiokafka {aiokafka.__version__}: {reason}"


def _unknown_version() -> str | None:
    known = aiokafka.__version__.startswith(tuple(f"{v}." for v in VERSIONS))
    return None if known else f"only {' and '.join(VERSIONS)} are known"


def _other_parameters(function: Callable[..., Any], *names: str) -> str | None:
    found = tuple(inspect.signature(function).parameters)
    if found == names:
        return None
    return f"{function.__qualname__} takes {', '.join(found)}"


def _without(function: Any, *names: str) -> str | None:
    """Return which of these names a plain function does not mention."""
    if not isinstance(function, FunctionType) or function.__closure__:
        return f"{function!r} is no plain function"
    missing = set(names) - set(function.__code__.co_names)
    if not missing:
        return None
    return f"{function.__qualname__} does not mention {', '.join(sorted(missing))}"


# --- what the connection is given ----------------------------------------------------------


async def _connected(pool: ArenaPool, *args: Any, **kwargs: Any) -> Any:
    """Stand for `create_conn`: nobody else has the connection before this returns."""
    made = await conn.create_conn(*args, **kwargs)
    _take_over(made, pool)
    return made


def _take_over(connection: Any, pool: ArenaPool) -> bool:
    """Let `_Frames` receive from now on; False where the connection stays as it is.

    The connection's reading task goes on waiting at its stream, which gets no more bytes but
    still learns when the connection ends: then the task fails what waits, as ever.
    """
    if not connection.connected():
        return False  # lost between its last answer and now
    transport, reader = connection._writer.transport, connection._reader  # noqa: SLF001 (as above)
    if reader._buffer or connection._requests:  # noqa: SLF001 (as above)
        return False
    try:
        transport.set_protocol(_Frames(connection, pool))
    except NotImplementedError:
        return False
    return True


class _Frames(asyncio.BufferedProtocol):
    """Receives responses: four bytes of length, then so many into an arena."""

    def __init__(self, connection: Any, pool: ArenaPool) -> None:
        self._connection = weakref.ref(
            connection
        )  # it closes itself when nobody wants it
        self._streams = connection._protocol  # noqa: SLF001 (as above)
        self._pool = pool
        self._head = bytearray(_SIZE_BYTES)
        self._frame: U1 | None = None
        self._size = self._at = 0

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (asyncio's)
        """Return where the next bytes belong."""
        if self._frame is None:
            return memoryview(self._head)[self._at :]
        return self._frame.data[self._at : self._size]

    def buffer_updated(self, nbytes: int) -> None:
        """Take note of bytes received; a whole response is handled at once."""
        self._at += nbytes
        try:
            if self._frame is None:
                if self._at == _SIZE_BYTES:
                    self._begin()
            elif self._at == self._size:
                frame, self._frame, self._at = self._frame, None, 0
                self._handle(frame)
        except Exception as error:  # noqa: BLE001 (whatever it is, the connection is lost)
            connection = self._connection()
            if connection is not None:
                reason = conn.CloseReason.CONNECTION_BROKEN
                connection.close(reason=reason, exc=error)

    def _begin(self) -> None:
        self._size, self._at = int.from_bytes(self._head, "big", signed=True), 0
        if not 0 < self._size <= FRAME_BYTES_MAX:
            msg = f"a response of {self._size} bytes"
            raise ValueError(msg)
        self._frame = self._pool.take(self._size)

    def _handle(self, frame: U1) -> None:
        connection = self._connection()
        if connection is None:
            return
        _, request, _ = connection._requests[0]  # noqa: SLF001 (as above)
        if request is not None and request.RESPONSE_TYPE.API_KEY == _FETCH:
            _handle_fetched(connection, Slice(frame, 0, self._size))
        else:
            connection._handle_frame(frame[: self._size].tobytes())  # noqa: SLF001 (as above)

    def eof_received(self) -> bool | None:
        """Pass on: the streams' reader learns of it."""
        return bool(self._streams.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on, likewise."""
        self._streams.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on: the streams do the writing."""
        self._streams.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._streams.resume_writing()


class _FrameReader:
    """Stands for `BytesIO`: hands out numbers and names as bytes, message sets as slices."""

    def __init__(self, response: Slice) -> None:
        self._response = response
        self._at = response.start

    def read(self, size: int) -> "bytes | Slice":
        """Return the next bytes, fewer where no more are there, as `BytesIO` does."""
        frame, start = self._response.frame, self._at
        self._at = end = min(start + size, self._response.end)
        if end - start <= _COPIED_MAX:
            return frame[start:end].tobytes()
        return Slice(frame, start, end)


_handle_fetched = _rebound(
    conn.AIOKafkaConnection._handle_frame,  # noqa: SLF001 (as above)
    io=types.SimpleNamespace(BytesIO=_FrameReader),
)
