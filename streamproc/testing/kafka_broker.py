"""A real Apache Kafka node, started from its jars, for tests and for `make kafka`.

KRaft, one process that is broker and controller, on free loopback ports. The jars come from
Maven Central once, by `deploy/kafka/pom.xml`, into `$STREAMPROC_CACHE` or `.cache/` of the
checkout (45 files, 43 MB). Needs `java` (17 or newer) and, the first time, `mvn`; so it
works from a checkout only.

Every broker ends with us, however we go (`guarded_process`).
"""

import argparse
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

import streamproc
from streamproc.connectors.kafka_settings import KafkaConnection, KafkaSecurity
from streamproc.errors import WorldError
from streamproc.testing.guarded_process import GuardedProcess, Server, answers

VERSION: Final = "4.4.0"

_CHECKOUT: Final = Path(streamproc.__file__).parents[1]
STOP_S: Final = 20.0
_START_S: Final = 60.0
_TRIES: Final = 3

LOG4J: Final = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %m (%c)%n"/></Console></Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""

_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners={protocol}://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{front}
advertised.listeners={protocol}://{host}:{port}{front_told}
listener.security.protocol.map={protocol}:{protocol},CONTROLLER:PLAINTEXT,FRONT:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name={protocol}
log.dirs={data}
num.partitions=1
auto.create.topics.enable=false
delete.topic.enable=true
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms={rebalance_delay_ms}
group.min.session.timeout.ms=1000
log.retention.hours=-1
log.segment.delete.delay.ms=1000
"""

_SASL_SSL: Final = """\
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="{admin}" password="{password}";
ssl.keystore.type=PEM
ssl.keystore.location={keys}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
"""


class KafkaUnavailable(WorldError):
    """No broker can be started here; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Scram:
    """A broker on SASL_SSL: PEM files, and the one user there is.

    `keys` holds private key and certificate chain, `authority` the certificate of the
    authority that signed it. The certificate is for `localhost`.
    """

    keys: Path
    authority: Path
    username: str = "streamproc"
    password: str = "correct horse"  # noqa: S105 (a throw-away broker's)


def jars() -> Path:
    """Return the folder with the broker's jars, fetching them the first time.

    Raises:
        KafkaUnavailable: no Java, no Maven, or Maven could not fetch them.
    """
    if shutil.which("java") is None:
        msg = "java is not installed (17 or newer)"
        raise KafkaUnavailable(msg)
    cache = Path(os.environ.get("STREAMPROC_CACHE", _CHECKOUT / ".cache"))
    folder = cache / f"kafka-{VERSION}"
    done = folder / "complete"
    if done.exists():
        return folder / "libs"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test runs may begin at once
        if not done.exists():
            _download(folder / "libs")
            done.touch()
    return folder / "libs"


def _download(libs: Path) -> None:
    pom = _CHECKOUT / "deploy" / "kafka" / "pom.xml"
    maven = shutil.which("mvn")
    if maven is None or not pom.exists():
        msg = f"Kafka's jars are not in {libs} and cannot be fetched: " + (
            f"{pom} is missing" if maven else "mvn is not installed"
        )
        raise KafkaUnavailable(msg)
    goal = ("dependency:copy-dependencies", f"-DoutputDirectory={libs}")
    done = subprocess.run(  # noqa: S603 (Maven, with our own pom)
        [maven, "-q", "-B", "-f", pom, *goal],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        msg = f"mvn could not fetch Kafka's jars: {done.stdout[-2000:]}{done.stderr[-500:]}"
        raise KafkaUnavailable(msg)


def java_command(classpath: str, folder: Path) -> list[str]:
    """Return the beginning of a command that runs one of the broker's classes."""
    java = shutil.which("java")
    assert java is not None, "jars() has looked for it"
    small = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    logging = f"-Dlog4j2.configurationFile={folder / 'log4j2.xml'}"
    return [java, *small, logging, "-cp", classpath]


def format_storage(
    classpath: str, folder: Path, properties: Path, users: Mapping[str, str]
) -> None:
    """Format one node's storage, with SCRAM-SHA-512 passwords of `users`.

    Raises:
        KafkaUnavailable: the tool refused; the message has its words.
    """
    tool = ["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk"]
    known = []
    for name, password in users.items():
        known += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
    done = subprocess.run(  # noqa: S603 (java, with our own files)
        [*java_command(classpath, folder), *tool, "-c", properties, *known],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        msg = f"Kafka's storage could not be formatted: {done.stdout}{done.stderr}"
        raise KafkaUnavailable(msg)


class ApacheKafka(Server):
    """One node with its data below `folder`; as a context manager it is stopped at the end.

    Blocking: call it from tests' fixtures, or through `asyncio.to_thread`.
    `folder/kafka.log` keeps what the broker said. `rebalance_delay_ms` is how long a new
    group waits for further members: nothing here, three seconds by Kafka's default.
    `proxy_port` opens a second listener, in plain text, for a proxy on that port of
    127.0.0.1: `front` is where the proxy has to connect to, and clients that come through
    it are told to come back through it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        scram: Scram | None = None,
        rebalance_delay_ms: int = 0,
        proxy_port: int | None = None,
    ):
        self._folder = folder
        self._wanted_port = port
        self._scram = scram
        self._rebalance_delay_ms = rebalance_delay_ms
        self._proxy_port = proxy_port
        self._port = 0
        self._front_port = 0
        self._running: GuardedProcess | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Return host and port; they stay the same over a restart."""
        return f"{'localhost' if self._scram else '127.0.0.1'}:{self._port}"

    @property
    def connection(self) -> KafkaConnection:
        """Return how to connect, with the right password where there is one."""
        scram = self._scram
        security = KafkaSecurity()
        if scram is not None:
            security = KafkaSecurity(
                protocol="SASL_SSL",
                username=scram.username,
                password=scram.password,
                ca_file=str(scram.authority),
            )
        return KafkaConnection(
            bootstrap_servers=self.bootstrap_servers, security=security
        )

    @property
    def front(self) -> tuple[str, int]:
        """Return where the proxy of `proxy_port` has to connect to."""
        assert self._front_port, "not started, or no proxy was announced"
        return "127.0.0.1", self._front_port

    @property
    def pid(self) -> int:
        """Return the broker's process id."""
        assert self._running is not None, "not started"
        return self._running.process.pid

    def start(self) -> None:
        """Start and return once it answers; the data of an earlier start is kept.

        Raises:
            KafkaUnavailable: it cannot be started; the message ends with its last words.
        """
        assert self._running is None, "already started"
        classpath = str(jars() / "*")
        first = not self._port
        for _ in range(_TRIES if first else 1):
            if first:
                self._prepare(classpath)
            self._running = self._launched(classpath)
            if answers(self._running.process, self._is_ready, _START_S):
                return
            self.kill()
        log = (self._folder / "kafka.log").read_text(errors="replace")
        msg = f"Kafka did not start; its last words: {log[-2000:]}"
        raise KafkaUnavailable(msg)

    def stop(self) -> None:
        """Stop in order, by SIGTERM; by SIGKILL if that takes too long. Safe twice."""
        running, self._running = self._running, None
        if running is not None:
            running.stop(STOP_S)

    def kill(self) -> None:
        """Send SIGKILL; the data stays. Safe twice."""
        running, self._running = self._running, None
        if running is not None:
            running.kill()

    # --- starting -------------------------------------------------------------------

    def _prepare(self, classpath: str) -> None:
        """Choose ports, write the configuration, format the storage."""
        shutil.rmtree(self._folder / "data", ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "log4j2.xml").write_text(LOG4J)
        self._port, controller_port, front_port = free_ports(
            self._wanted_port or 0, 0, 0
        )
        front = front_told = ""
        if self._proxy_port is not None:
            self._front_port = front_port
            front = f",FRONT://127.0.0.1:{front_port}"
            front_told = f",FRONT://127.0.0.1:{self._proxy_port}"
        text = _PROPERTIES.format(
            protocol="SASL_SSL" if self._scram else "PLAINTEXT",
            host="localhost" if self._scram else "127.0.0.1",
            port=self._port,
            controller_port=controller_port,
            front=front,
            front_told=front_told,
            data=self._folder / "data",
            rebalance_delay_ms=self._rebalance_delay_ms,
        )
        users = {}
        if self._scram is not None:
            scram = self._scram
            text += _SASL_SSL.format(
                admin=scram.username,
                password=scram.password,
                keys=scram.keys,
                authority=scram.authority,
            )
            users = {scram.username: scram.password}
        properties = self._folder / "server.properties"
        properties.write_text(text)
        format_storage(classpath, self._folder, properties, users)

    def _launched(self, classpath: str) -> GuardedProcess:
        # In a session of its own: Ctrl-C is for us, and we stop it in order.
        properties = str(self._folder / "server.properties")
        return GuardedProcess(
            [*java_command(classpath, self._folder), "kafka.Kafka", properties],
            self._folder / "kafka.log",
        )

    def _is_ready(self) -> bool:
        """Tell whether the node is in its own metadata."""
        if not self._listens():
            return False
        client = AdminClient(self.connection.librdkafka())
        with suppress(KafkaException):
            return bool(client.list_topics(timeout=5).brokers)
        return False

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
            return True
        return False


def free_ports(*wanted: int) -> list[int]:
    """Return ports nobody uses now, any for a 0; somebody else may be faster: try again."""
    with ExitStack() as stack:
        bound = [stack.enter_context(socket.socket()) for _ in wanted]
        for one, port in zip(bound, wanted, strict=True):
            one.bind(("127.0.0.1", port))
        return [int(one.getsockname()[1]) for one in bound]


def main() -> None:
    """Run one broker in the foreground until Ctrl-C; its data goes when it ends."""
    parser = argparse.ArgumentParser(
        prog="python -m streamproc.testing.kafka_broker", description=main.__doc__
    )
    parser.add_argument("--port", type=int, default=9092)
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="streamproc-kafka-") as temporary:
        try:
            with ApacheKafka(Path(temporary), port=arguments.port) as broker:
                sys.stdout.write(
                    f"Apache Kafka {VERSION} at {broker.bootstrap_servers}; "
                    "Ctrl-C stops it\n"
                )
                sys.stdout.flush()
                with suppress(KeyboardInterrupt):
                    signal.pause()
        except KafkaUnavailable as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
