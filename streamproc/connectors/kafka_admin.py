"""Administration of a cluster through confluent-kafka: topic ids, topics, configuration.

aiokafka's Metadata requests end at version 5 and know no topic ids (EXACTLY_ONCE.md 1.4).
librdkafka answers on its own threads; here its futures are awaited, so nothing blocks the
event loop.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError as AioKafkaError
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as RdTopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # stubs re-export nothing
    AdminClient,
    ConfigResource,
    NewTopic,
)

from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.core.values import TopicPartition
from streamproc.errors import Unreachable, WorldError

_POLL_S = 0.05

_WAITING_HELPS = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 (librdkafka's own error codes)
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError._DESTROY,  # noqa: SLF001 (see `_forsake`)
    }
)
_NOT_TOLD = frozenset(
    {
        KafkaError._UNSUPPORTED_FEATURE,  # noqa: SLF001 (the embedded broker)
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)
_NOT_YET = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.LEADER_NOT_AVAILABLE}
)


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """One topic as the cluster describes it; `topic_id` in Kafka's own text form."""

    name: str
    topic_id: str
    partitions: int
    replicas: int
    ready: bool


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """The cluster as it describes itself; `addresses` are those clients must reach."""

    cluster_id: str
    addresses: tuple[str, ...]


class KafkaAdmin:
    """Asks and tells a cluster things about topics and groups.

    Every method raises `Unreachable` when nobody answers within `timeout_s` and
    `WorldError` when the cluster refuses. What got no answer is best asked again.
    """

    def __init__(self, connection: KafkaConnection, *, timeout_s: float = 10) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._client: AdminClient | None = None
        self._forsaken = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections; safe twice."""
        self._client = None

    async def topic_id(self, topic: str) -> str:
        """Return the topic's id, as `kafka-topics --describe` shows it."""
        return (await self.describe([topic]))[topic].topic_id

    async def topics(self) -> frozenset[str]:
        """Return the names of all topics we may see, internal ones left out."""
        metadata = await self._in_thread(
            "topics", lambda: self._admin().list_topics(timeout=self._timeout_s)
        )
        return frozenset(n for n in metadata.topics if not n.startswith("__"))

    async def describe(self, names: Sequence[str]) -> Mapping[str, TopicFacts]:
        """Return the facts of each topic; `WorldError` where one does not exist."""
        asked = self._admin().describe_topics(
            TopicCollection(list(names)), request_timeout=self._timeout_s
        )
        return {
            name: _facts(await self._answer(f"topic {name}", future))
            for name, future in asked.items()
        }

    async def rights_on_topics(
        self, names: Sequence[str]
    ) -> Mapping[str, frozenset[str] | None]:
        """Return the operations we may do on each topic, as Kafka names them (`READ`).

        None where that is not known: a broker without rights, a topic that is not there,
        no answer in time. Raises nothing.
        """
        if not names:
            return {}
        asked = self._admin().describe_topics(
            TopicCollection(list(names)),
            include_authorized_operations=True,
            request_timeout=self._timeout_s,
        )
        return {
            name: await self._rights(
                f"topic {name}", future, KafkaError.TOPIC_AUTHORIZATION_FAILED
            )
            for name, future in asked.items()
        }

    async def rights_on_group(self, group: str) -> frozenset[str] | None:
        """Return the operations we may do on a group; None where that is not known."""
        asked = self._admin().describe_consumer_groups(
            [group], include_authorized_operations=True, request_timeout=self._timeout_s
        )
        return await self._rights(
            f"group {group}", asked[group], KafkaError.GROUP_AUTHORIZATION_FAILED
        )

    async def _rights(
        self, what: str, future: "concurrent.futures.Future[Any]", refusal: int
    ) -> frozenset[str] | None:
        try:
            found = (await self._answer(what, future)).authorized_operations
        except WorldError as error:
            return frozenset() if _code(error) == refusal else None
        return frozenset(right.name for right in found) if found else None

    async def static_members(self, group: str) -> Mapping[str, str]:
        """Return the member id of every instance id in a group."""
        asked = self._admin().describe_consumer_groups(
            [group], request_timeout=self._timeout_s
        )
        found = await self._answer(f"group {group}", asked[group])
        return {
            member.group_instance_id: member.member_id
            for member in found.members
            if member.group_instance_id
        }

    async def cluster(self) -> ClusterFacts:
        """Return what the cluster says about itself."""
        asked = self._admin().describe_cluster(request_timeout=self._timeout_s)
        found = await self._answer("cluster", asked)
        return ClusterFacts(
            found.cluster_id or "",
            tuple(sorted(f"{node.host}:{node.port}" for node in found.nodes)),
        )

    async def topic_config(self, topic: str) -> Mapping[str, str]:
        """Return the topic's effective configuration; empty where a broker tells none.

        It is told to those with DescribeConfigs only, which the service does not need.
        """
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        asked = self._admin().describe_configs(
            [resource], request_timeout=self._timeout_s
        )
        try:
            found = await self._answer(f"configuration of {topic}", asked[resource])
        except WorldError as error:
            if _code(error) not in _NOT_TOLD:
                raise
            return {}
        return {k: v.value for k, v in found.items() if v.value is not None}

    async def create_topics(
        self,
        names: Sequence[str],
        partitions: int,
        config: Mapping[str, str] | None = None,
        *,
        replicas: int = 1,
    ) -> None:
        """Create topics and return once every partition of them has a leader.

        One that exists already is left as it is.
        """
        new = [
            NewTopic(name, partitions, replicas, config=dict(config or {}))
            for name in names
        ]
        asked = self._admin().create_topics(new, request_timeout=self._timeout_s)
        for name, future in asked.items():
            try:
                await self._answer(f"create topic {name}", future)
            except WorldError as error:
                if _code(error) != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        await self.wait_for_topics(names)

    async def wait_for_topics(self, names: Sequence[str]) -> None:
        """Return once every partition of every topic has a leader."""
        try:
            async with asyncio.timeout(self._timeout_s):
                while not await self._all_ready(names):  # noqa: ASYNC110 (a broker sends no event)
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            msg = f"Kafka: topics {sorted(names)} have no leaders yet"
            raise Unreachable(msg) from error

    async def delete_topics(self, names: Sequence[str]) -> None:
        """Delete topics; the broker forgets them a little later."""
        asked = self._admin().delete_topics(
            list(names), request_timeout=self._timeout_s
        )
        for name, future in asked.items():
            await self._answer(f"delete topic {name}", future)

    async def delete_records(self, partition: TopicPartition, before: int) -> None:
        """Remove every record below offset `before`, as retention does."""
        place = RdTopicPartition(partition.topic, partition.partition, before)
        asked = self._admin().delete_records([place], request_timeout=self._timeout_s)
        await self._answer(f"delete records of {partition.source}", asked[place])

    async def hints(self, group: str) -> Mapping[TopicPartition, tuple[int, str]]:
        """Return the offsets and notes a group has stored in Kafka."""
        # aiokafka here: confluent-kafka 2.16 reads notes beyond their end (RAN).
        client = AIOKafkaAdminClient(**self._connection.aiokafka())
        try:
            async with asyncio.timeout(self._timeout_s):
                await client.start()
                found = await client.list_consumer_group_offsets(group)
        except (AioKafkaError, TimeoutError) as error:
            msg = f"Kafka: offsets of group {group}: {type(error).__name__}: {error}"
            raise Unreachable(msg) from error
        finally:
            await client.close()
        return {
            TopicPartition(tp.topic, tp.partition): (place.offset, place.metadata)
            for tp, place in found.items()
        }

    # --- plumbing -------------------------------------------------------------------

    def _admin(self) -> AdminClient:
        if self._client is None:
            self._client = AdminClient(self._connection.librdkafka())
        return self._client

    async def _all_ready(self, names: Sequence[str]) -> bool:
        try:
            found = await self.describe(names)
        except WorldError as error:
            if _code(error) not in _NOT_YET:
                raise
            return False
        return all(facts.ready for facts in found.values())

    async def _answer(self, what: str, future: "concurrent.futures.Future[Any]") -> Any:
        number = self._forsaken
        try:
            # A second more than librdkafka's own limit, whose errors say more.
            async with asyncio.timeout(self._timeout_s + 1):
                return await asyncio.wrap_future(future)
        except KafkaException as error:
            refused = _refused(what, error)
            if isinstance(refused, Unreachable):
                self._forsake(number)
            raise refused from error
        except TimeoutError as error:
            self._forsake(number)
            msg = f"Kafka: {what}: no answer"
            raise Unreachable(msg) from error
        except asyncio.CancelledError:
            self._forsake(number)  # Whoever asked has waited long enough.
            raise

    def _forsake(self, number: int) -> None:
        """Let the next question take a new client, if it was this one; its other questions end, too.

        librdkafka 2.16 has been seen to answer nothing for minutes after one of three brokers was
        killed, where a new client was answered at once (F13).
        """
        if number == self._forsaken and self._client is not None:
            self._forsaken += 1
            held, self._client = [self._client], None
            # Letting go waits for librdkafka's threads.
            asyncio.get_running_loop().run_in_executor(None, held.clear)

    async def _in_thread(self, what: str, ask: Callable[[], Any]) -> Any:
        try:
            return await asyncio.to_thread(ask)
        except KafkaException as error:
            raise _refused(what, error) from error


def _refused(what: str, error: KafkaException) -> WorldError:
    fault = error.args[0]
    kind = Unreachable if fault.code() in _WAITING_HELPS else WorldError
    return kind(f"Kafka: {what}: {fault.str()}")


def _code(error: WorldError) -> int | None:
    cause = error.__cause__
    return cause.args[0].code() if isinstance(cause, KafkaException) else None


def _facts(found: Any) -> TopicFacts:
    return TopicFacts(
        name=found.name,
        # librdkafka writes plain base64, Kafka itself the URL-safe form; a slash would
        # also break the log's folder name.
        topic_id=str(found.topic_id).replace("+", "-").replace("/", "_"),
        partitions=len(found.partitions),
        replicas=min((len(p.replicas) for p in found.partitions), default=0),
        ready=bool(found.partitions)
        and all(p.leader is not None and p.leader.id >= 0 for p in found.partitions),
    )
