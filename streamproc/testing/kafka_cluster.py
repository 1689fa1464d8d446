"""Apache Kafka as a region runs it: SASL_SSL, SCRAM-SHA-512, rights by user; one node or three.

Every node is broker and controller (KRaft) on free loopback ports. With three nodes, topics
have three replicas of which two must be in sync. Nothing is allowed that no ACL allows
(`StandardAuthorizer`, `allow.everyone.if.no.acl.found=false`); `admin` is the super user.
Of two further listeners `EXPIRED` shows a certificate whose time is over, and on `SHORT` a
log-in lasts `SESSION_MS`, after which the broker ends the connection of whoever cannot renew it.

Controllers talk to each other in plain text here, so `ANONYMOUS` is a super user, too: nobody
else can be anonymous, since all other listeners ask for a password.
"""

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined] # typed, but they export nothing
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewPartitions,
    ResourcePatternType,
    ResourceType,
    ScramMechanism,
    UserScramCredentialDeletion,
)

from streamproc.connectors.kafka_settings import KafkaConnection, KafkaSecurity
from streamproc.testing.guarded_process import GuardedProcess, Server, answers
from streamproc.testing.kafka_broker import (
    LOG4J,
    STOP_S,
    KafkaUnavailable,
    format_storage,
    free_ports,
    jars,
    java_command,
)

ADMIN: Final = "admin"
SESSION_MS: Final = 2000

_PASSWORD: Final = "secret of {}"  # noqa: S105 (a throw-away broker's)
_START_S: Final = 120.0
_ASK_S: Final = 20.0
_TRIES: Final = 3

_PROPERTIES: Final = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=SASL_SSL://127.0.0.1:{port},EXPIRED://127.0.0.1:{expired_port},SHORT://127.0.0.1:{short_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=SASL_SSL://localhost:{port},EXPIRED://localhost:{expired_port},SHORT://localhost:{short_port}
listener.security.protocol.map=SASL_SSL:SASL_SSL,EXPIRED:SASL_SSL,SHORT:SASL_SSL,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="{admin}" password="{password}";
listener.name.expired.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="{admin}" password="{password}";
listener.name.short.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="{admin}" password="{password}";
listener.name.short.connections.max.reauth.ms={session_ms}
ssl.keystore.type=PEM
ssl.keystore.location={keys}
listener.name.expired.ssl.keystore.type=PEM
listener.name.expired.ssl.keystore.location={expired}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{admin};User:ANONYMOUS
allow.everyone.if.no.acl.found=false
log.dirs={data}
auto.create.topics.enable=false
num.partitions=1
default.replication.factor={nodes}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={nodes}
offsets.topic.num.partitions=3
transaction.state.log.replication.factor={nodes}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor={nodes}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=6000
log.retention.hours=-1
log.cleaner.backoff.ms=500
log.segment.delete.delay.ms=1000
"""


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. `keys` and `expired` hold key and chain for `localhost`, signed by `authority`.

    `stranger` is an authority that has signed nothing here.
    """

    keys: Path
    expired: Path
    authority: Path
    stranger: Path


@dataclass(slots=True)
class _Node:
    folder: Path
    port: int = 0
    expired_port: int = 0
    short_port: int = 0
    controller_port: int = 0
    running: GuardedProcess | None = None


class KafkaCluster(Server):
    """One or three nodes with their data below `folder`; stopped at the end of the context.

    Blocking: call it from tests' fixtures, or through `asyncio.to_thread`. Each node's
    folder has a `kafka.log`.
    """

    def __init__(
        self,
        folder: Path,
        tls: Tls,
        *,
        nodes: int = 1,
        users: Sequence[str] = (),
    ) -> None:
        self._tls = tls
        self._users = {name: _PASSWORD.format(name) for name in (ADMIN, *users)}
        self._nodes = {n: _Node(folder / f"node-{n}") for n in range(1, nodes + 1)}
        self._classpath = ""
        self._client: AdminClient | None = None

    # --- how to reach it ----------------------------------------------------------------

    @property
    def bootstrap_servers(self) -> str:
        """Return every node's address; they stay the same over restarts."""
        return ",".join(f"localhost:{node.port}" for node in self._nodes.values())

    @property
    def expired_servers(self) -> str:
        """Return the addresses that show a certificate whose time is over."""
        every = self._nodes.values()
        return ",".join(f"localhost:{node.expired_port}" for node in every)

    @property
    def short_servers(self) -> str:
        """Return the addresses at which a log-in lasts for `SESSION_MS`."""
        return ",".join(f"localhost:{node.short_port}" for node in self._nodes.values())

    def connection(self, user: str = ADMIN) -> KafkaConnection:
        """Return how that user connects."""
        security = KafkaSecurity(
            protocol="SASL_SSL",
            username=user,
            password=self._users[user],
            ca_file=str(self._tls.authority),
        )
        return KafkaConnection(
            bootstrap_servers=self.bootstrap_servers, security=security
        )

    # --- nodes --------------------------------------------------------------------------

    def start(self) -> None:
        """Start every node and return once all know each other.

        Raises:
            KafkaUnavailable: it cannot be started; the message ends with the last words.
        """
        self._classpath = str(jars() / "*")
        for _ in range(_TRIES):  # a port may be taken by somebody faster
            self._prepare()
            for number in self._nodes:
                self.start_node(number)
            first = self._nodes[1].running
            assert first is not None
            if answers(first.process, self._is_complete, _START_S):
                return
            self.kill(*self._nodes)
        log = (self._nodes[1].folder / "kafka.log").read_text(errors="replace")
        msg = f"Kafka did not start; its last words: {log[-2000:]}"
        raise KafkaUnavailable(msg)

    def stop(self) -> None:
        """Stop in order, by SIGTERM; by SIGKILL what takes too long. Safe twice."""
        for node in self._nodes.values():
            if node.running is not None:
                node.running.process.terminate()
        for number in self._nodes:
            self.stop_node(number)

    def stop_node(self, number: int) -> None:
        """Stop one node in order, by SIGKILL if that takes too long. Safe twice."""
        node = self._nodes[number]
        running, node.running = node.running, None
        if running is not None:
            running.stop(STOP_S)

    def kill(self, *numbers: int) -> None:
        """Send SIGKILL to nodes; their data stays. Safe twice."""
        for number in numbers:
            node = self._nodes[number]
            running, node.running = node.running, None
            if running is not None:
                running.kill()

    def start_node(self, number: int) -> None:
        """Start one node again, on its port and its data; does not wait."""
        node = self._nodes[number]
        assert node.running is None, "already started"
        properties = str(node.folder / "server.properties")
        node.running = GuardedProcess(
            [*java_command(self._classpath, node.folder), "kafka.Kafka", properties],
            node.folder / "kafka.log",
        )

    def restart(self, number: int) -> None:
        """Stop one node in order, start it again, and wait until it is in sync."""
        node = self._nodes[number]
        assert node.running is not None, "not started"
        self.stop_node(number)
        self.start_node(number)
        self.wait_until_complete()

    def mend(self) -> None:
        """Start every node that was killed and wait until all is in sync."""
        for number, node in self._nodes.items():
            if node.running is None:
                self.start_node(number)
        self.wait_until_complete()

    def wait_until_complete(self) -> None:
        """Return once every node is known again and every partition has all its replicas.

        Raises:
            KafkaUnavailable: that did not happen in time.
        """
        running = next(node.running for node in self._nodes.values() if node.running)
        if not answers(running.process, self._is_in_sync, _START_S):
            msg = "a node did not come back into sync"
            raise KafkaUnavailable(msg)

    # --- topics, groups, rights -----------------------------------------------------------

    def leader(self, topic: str, partition: int) -> int:
        """Return the node that leads a partition now, or -1."""
        found = self._admin().list_topics(topic, timeout=_ASK_S).topics[topic]
        return int(found.partitions[partition].leader)

    def coordinator(self, group: str) -> int:
        """Return the node that coordinates a group now."""
        asked = self._admin().describe_consumer_groups([group], request_timeout=_ASK_S)
        return int(asked[group].result(_ASK_S).coordinator.id)

    def grow(self, topic: str, partitions: int) -> None:
        """Add partitions to a topic and return once all of them have a leader."""
        grown = self._admin().create_partitions([NewPartitions(topic, partitions)])
        grown[topic].result(_ASK_S)
        running = next(node.running for node in self._nodes.values() if node.running)
        asked = lambda: self._leads(topic, partitions)  # noqa: E731
        if not answers(running.process, asked, _ASK_S):
            msg = f"{topic} did not grow to {partitions} partitions"
            raise KafkaUnavailable(msg)

    def allow(
        self, user: str, rights: Mapping[str, str], *, prefix: bool = True
    ) -> None:
        """Give rights: `{"topic:telemetry.": "READ DESCRIBE"}`; names are prefixes, or whole."""
        pattern = (
            ResourcePatternType.PREFIXED if prefix else ResourcePatternType.LITERAL
        )
        bindings = [
            AclBinding(
                ResourceType[kind.upper()],
                name,
                pattern,
                f"User:{user}",
                "*",
                AclOperation[operation],
                AclPermissionType.ALLOW,
            )
            for resource, operations in rights.items()
            for kind, name in [resource.split(":", 1)]
            for operation in operations.split()
        ]
        for asked in self._admin().create_acls(bindings).values():
            asked.result(_ASK_S)

    def forbid(self, user: str, kind: str, name: str | None = None) -> None:
        """Take a user's rights on a kind of resource away; with `name` those given for it."""
        anything = AclBindingFilter(
            ResourceType[kind.upper()],
            name,  # type: ignore[arg-type] # None: any
            ResourcePatternType.ANY,
            f"User:{user}",
            None,  # type: ignore[arg-type]
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for asked in self._admin().delete_acls([anything]).values():
            asked.result(_ASK_S)

    def remove(self, user: str) -> None:
        """Take a user's password away: nobody can log in as that user any more."""
        deletion = UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_512)
        for asked in self._admin().alter_user_scram_credentials([deletion]).values():
            asked.result(_ASK_S)

    # --- plumbing -----------------------------------------------------------------------

    def _prepare(self) -> None:
        """Choose ports, write the configurations, format the storages."""
        self._client = None
        ports = iter(free_ports(*[0] * (4 * len(self._nodes))))
        for node in self._nodes.values():
            node.port, node.expired_port = next(ports), next(ports)
            node.short_port, node.controller_port = next(ports), next(ports)
        voters = ",".join(
            f"{n}@127.0.0.1:{node.controller_port}" for n, node in self._nodes.items()
        )
        for number, node in self._nodes.items():
            node.folder.mkdir(parents=True, exist_ok=True)
            (node.folder / "log4j2.xml").write_text(LOG4J)
            text = _PROPERTIES.format(
                node=number,
                voters=voters,
                port=node.port,
                expired_port=node.expired_port,
                short_port=node.short_port,
                controller_port=node.controller_port,
                admin=ADMIN,
                password=self._users[ADMIN],
                session_ms=SESSION_MS,
                keys=self._tls.keys,
                expired=self._tls.expired,
                authority=self._tls.authority,
                # A folder of its own for each try: what was formatted stays so.
                data=node.folder / f"data-{node.port}",
                nodes=len(self._nodes),
                in_sync=min(2, len(self._nodes)),
            )
            properties = node.folder / "server.properties"
            properties.write_text(text)
            format_storage(self._classpath, node.folder, properties, self._users)

    def _admin(self) -> AdminClient:
        if self._client is None:
            self._client = AdminClient(self.connection().librdkafka())
        return self._client

    def _is_complete(self) -> bool:
        if not all(_listens(node.port) for node in self._nodes.values()):
            return False
        with suppress(KafkaException):
            return len(self._admin().list_topics(timeout=5).brokers) == len(self._nodes)
        return False

    def _is_in_sync(self) -> bool:
        if not self._is_complete():
            return False
        with suppress(KafkaException):
            topics = self._admin().list_topics(timeout=5).topics.values()
            every = [p for topic in topics for p in topic.partitions.values()]
            return all(len(p.isrs) == len(p.replicas) and p.leader >= 0 for p in every)
        return False

    def _leads(self, topic: str, partitions: int) -> bool:
        with suppress(KafkaException):
            asked = self._admin().describe_topics(TopicCollection([topic]))
            found = asked[topic].result(_ASK_S).partitions
            led = [p for p in found if p.leader is not None and p.leader.id >= 0]
            return len(led) == partitions
        return False


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
