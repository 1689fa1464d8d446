"""A Kafka broker inside the `confluent-kafka` wheel: librdkafka's mock cluster.

For the demo and fast tests, with nothing to install. It speaks enough of the protocol for
aiokafka (produce, consume, groups, topic ids, list offsets) and keeps everything in memory.

Limits, so that nobody is surprised: a partition keeps about 5 MiB or 100,000 records,
whichever is less, and drops the oldest beyond that; a reader that falls further behind
gets `SourceMismatch`, as with a real topic's retention. No TLS, no passwords, no
transactions worth the name, no compaction, no look-up by time (`offset_at` finds nothing)
groups of one member only (with two, SyncGroup fails), and no topic creation over the wire: use `create_topic` (a topic asked for without it
appears with four partitions).

librdkafka calls this interface experimental; only `_Library` touches it, by `ctypes` on the
library the wheel has loaded. `python -m streamproc.connectors.embedded_broker` runs one in
a process of its own, so that the process under measurement does not pay for it.
"""

import argparse
import ctypes
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import cimpl

from streamproc.errors import WorldError

PARTITION_BYTES_MAX: Final = 5 * 1024 * 1024
PARTITION_RECORDS_MAX: Final = 100_000

_PRODUCER: Final = 0
_NODE: Final = 1


class _Library:
    """The functions of librdkafka we call, with their types."""

    _FUNCTIONS: Final[Mapping[str, tuple[Any, tuple[Any, ...]]]] = {
        "conf_new": (ctypes.c_void_p, ()),
        "conf_set": (
            ctypes.c_int,
            (
                ctypes.c_void_p,
                ctypes.c_char_p,
                ctypes.c_char_p,
                ctypes.c_char_p,
                ctypes.c_size_t,
            ),
        ),
        "new": (
            ctypes.c_void_p,
            (ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t),
        ),
        "destroy": (None, (ctypes.c_void_p,)),
        "err2str": (ctypes.c_char_p, (ctypes.c_int,)),
        "mock_cluster_new": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int)),
        "mock_cluster_destroy": (None, (ctypes.c_void_p,)),
        "mock_cluster_bootstraps": (ctypes.c_char_p, (ctypes.c_void_p,)),
        "mock_set_controller_id": (None, (ctypes.c_void_p, ctypes.c_int32)),
        "mock_group_initial_rebalance_delay_ms": (
            None,
            (ctypes.c_void_p, ctypes.c_int32),
        ),
        "mock_topic_create": (
            ctypes.c_int,
            (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
        ),
        "mock_topic_delete": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_char_p)),
        "mock_partition_delete_records": (
            ctypes.c_int,
            (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int64),
        ),
        "mock_broker_set_down": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32)),
        "mock_broker_set_up": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32)),
        "mock_broker_set_rtt": (
            ctypes.c_int,
            (ctypes.c_void_p, ctypes.c_int32, ctypes.c_int),
        ),
        "mock_push_request_errors_array": (
            None,
            (
                ctypes.c_void_p,
                ctypes.c_int16,
                ctypes.c_size_t,
                ctypes.POINTER(ctypes.c_int),
            ),
        ),
    }

    def __init__(self) -> None:
        # Symbols of the library that the extension module is linked to are found through
        # the module, so its hashed file name need not be guessed.
        loaded = ctypes.CDLL(cimpl.__file__)
        for name, (result, arguments) in self._FUNCTIONS.items():
            try:
                function = getattr(loaded, f"rd_kafka_{name}")
            except AttributeError as error:
                msg = f"this confluent-kafka has no embedded broker (rd_kafka_{name})"
                raise WorldError(msg) from error
            function.restype, function.argtypes = result, list(arguments)
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class EmbeddedBroker:
    """One broker on a free loopback port, from `__enter__` to `__exit__`.

    Its methods block for microseconds and may be called from any thread.
    """

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        self._topics = dict(topics or {})
        self._library = _Library()
        self._client: int | None = None
        self._cluster: int | None = None

    def __enter__(self) -> Self:
        library = self._library
        message = ctypes.create_string_buffer(512)
        settings = library.conf_new()
        # The carrier client has no broker to talk to and would say so on stderr.
        library.conf_set(settings, b"log_level", b"0", message, len(message))
        self._client = library.new(_PRODUCER, settings, message, len(message))
        if not self._client:
            msg = f"embedded broker: {message.value.decode()}"
            raise WorldError(msg)
        self._cluster = library.mock_cluster_new(self._client, 1)
        if not self._cluster:
            library.destroy(self._client)
            msg = "embedded broker: librdkafka could not start its mock cluster"
            raise WorldError(msg)
        library.mock_set_controller_id(self._cluster, _NODE)
        library.mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        for topic, partitions in self._topics.items():
            self.create_topic(topic, partitions)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._cluster is not None:
            self._library.mock_cluster_destroy(self._cluster)
            self._library.destroy(self._client)
        self._cluster = self._client = None

    @property
    def bootstrap_servers(self) -> str:
        """Return `127.0.0.1:<port>`."""
        address: bytes = self._library.mock_cluster_bootstraps(self._running)
        return address.decode()

    def create_topic(self, topic: str, partitions: int) -> None:
        """Create a topic. Raises `WorldError` where it exists."""
        code = self._library.mock_topic_create(
            self._running, topic.encode(), partitions, 1
        )
        self._check(code, f"create topic {topic}")

    def delete_topic(self, topic: str) -> None:
        """Delete a topic and its records."""
        code = self._library.mock_topic_delete(self._running, topic.encode())
        self._check(code, f"delete topic {topic}")

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Drop the records below `before`, as retention would."""
        code = self._library.mock_partition_delete_records(
            self._running, topic.encode(), partition, before
        )
        self._check(code, f"delete records of {topic}/{partition}")

    def set_down(self) -> None:
        """Close all connections and refuse new ones."""
        self._check(self._library.mock_broker_set_down(self._running, _NODE), "down")

    def set_up(self) -> None:
        """Accept connections again."""
        self._check(self._library.mock_broker_set_up(self._running, _NODE), "up")

    def set_delay(self, delay_ms: int) -> None:
        """Answer every request that much later."""
        code = self._library.mock_broker_set_rtt(self._running, _NODE, delay_ms)
        self._check(code, "delay")

    def refuse(self, request: int, errors: Sequence[int]) -> None:
        """Answer the next requests of a kind with these errors, in order.

        `request` is the protocol's number (8: OffsetCommit), errors are its error codes.
        """
        codes = (ctypes.c_int * len(errors))(*errors)
        self._library.mock_push_request_errors_array(
            self._running, request, len(errors), codes
        )

    @property
    def _running(self) -> int:
        assert self._cluster is not None, "enter the context first"
        return self._cluster

    def _check(self, code: int, what: str) -> None:
        if code:
            reason: bytes = self._library.err2str(code)
            msg = f"embedded broker: {what}: {reason.decode()}"
            raise WorldError(msg)


class EmbeddedBrokerProcess:
    """The same broker in a child process; it ends with us, even if we are killed."""

    def __init__(self, topics: Mapping[str, int]) -> None:
        self._topics = dict(topics)
        self._child: subprocess.Popen[str] | None = None
        self.bootstrap_servers = ""
        self.pid = 0

    def __enter__(self) -> Self:
        wanted = [f"--topic={name}:{count}" for name, count in self._topics.items()]
        # The child reads its stdin, which ends when we do.
        self._child = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            [sys.executable, "-m", "streamproc.connectors.embedded_broker", *wanted],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._child.pid
        assert self._child.stdout is not None
        self.bootstrap_servers = self._child.stdout.readline().strip()
        if not self.bootstrap_servers:
            self.__exit__(None, None, None)
            msg = "the embedded broker's process ended before it was ready"
            raise WorldError(msg)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.communicate()


def main() -> None:
    """Serve until stdin ends; the first line on stdout is the address."""
    parser = argparse.ArgumentParser(
        prog="python -m streamproc.connectors.embedded_broker", description=main.__doc__
    )
    parser.add_argument(
        "--topic", action="append", default=[], metavar="NAME:PARTITIONS"
    )
    parser.add_argument("--port-file", type=Path, help="write the address there, too")
    arguments = parser.parse_args()
    topics = {}
    for given in arguments.topic:
        name, _, partitions = given.rpartition(":")
        topics[name] = int(partitions)
    with EmbeddedBroker(topics) as broker:
        if arguments.port_file is not None:
            arguments.port_file.write_text(broker.bootstrap_servers, encoding="utf-8")
        sys.stdout.write(f"{broker.bootstrap_servers}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
