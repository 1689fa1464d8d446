"""`streamproc check --connect`: what an operator should know before the first start."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from streamproc.connectors.kafka_admin import KafkaAdmin, TopicFacts
from streamproc.connectors.kafka_connect import why_no_address, why_unreachable
from streamproc.connectors.kafka_rights import lacking, told
from streamproc.connectors.kafka_settings import KafkaOptions
from streamproc.errors import WorldError

MESSAGE_BYTES_ADVISED = 4 * 1024 * 1024
RETENTION_MS_ADVISED = 3 * 24 * 3600 * 1000
DURABLE_REPLICAS = 3


@dataclass(frozen=True, slots=True)
class TopicReport:
    """One topic we would read, and what about it should be changed."""

    name: str
    topic_id: str
    partitions: int
    replicas: int
    timestamp_type: str
    retention_ms: int
    retention_bytes: int
    message_bytes_max: int
    advice: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConnectionReport:
    """The outcome of one try. `faults` prevent a start, a topic's `advice` does not.

    Kafka does not tell clients its release, so none is reported.
    """

    reachable: bool
    cluster_id: str = ""
    brokers: tuple[str, ...] = ()
    topics: tuple[TopicReport, ...] = ()
    faults: tuple[str, ...] = ()


async def check_connection(options: KafkaOptions) -> ConnectionReport:
    """Connect once and report; a cluster that does not answer is a fault, not an error."""
    # librdkafka keeps a refused password or certificate to itself until its time is up.
    refusal = await why_no_address(options.connection)
    if refusal is not None:
        return ConnectionReport(reachable=False, faults=(str(refusal),))
    async with KafkaAdmin(options.connection, timeout_s=options.ask_timeout_s) as admin:
        try:
            return await _report(admin, options)
        except WorldError as error:
            reason = (
                await why_unreachable(options.connection) if error.retriable else error
            )
            return ConnectionReport(reachable=False, faults=(str(reason),))


async def _report(admin: KafkaAdmin, options: KafkaOptions) -> ConnectionReport:
    cluster = await admin.cluster()
    names = _wanted(options, await admin.topics())
    lacks = await lacking(admin, options)
    described = await admin.describe(names) if names else {}
    topics = [_topic(described[name], await admin.topic_config(name)) for name in names]
    faults = [told(options.connection.security.username, lack) for lack in lacks]
    hidden = {lack.name for lack in lacks}
    missing = sorted(set(options.topics) - set(names) - hidden)
    if missing:
        faults.append(f"topics that do not exist: {', '.join(missing)}")
    if options.pattern is not None and not names and not hidden:
        faults.append(f"no topic matches {options.pattern!r} yet")
    return ConnectionReport(
        reachable=True,
        cluster_id=cluster.cluster_id,
        brokers=cluster.addresses,
        topics=tuple(topics),
        faults=tuple(faults),
    )


def _wanted(options: KafkaOptions, known: frozenset[str]) -> list[str]:
    if options.pattern is None:
        return sorted(known & set(options.topics))
    whole = re.compile(options.pattern)
    return sorted(name for name in known if whole.fullmatch(name))


def _topic(facts: TopicFacts, config: Mapping[str, str]) -> TopicReport:
    number = {key: int(config.get(key, "-1")) for key in _NUMBERS}
    return TopicReport(
        name=facts.name,
        topic_id=facts.topic_id,
        partitions=facts.partitions,
        replicas=facts.replicas,
        timestamp_type=config.get("message.timestamp.type", "unknown"),
        retention_ms=number["retention.ms"],
        retention_bytes=number["retention.bytes"],
        message_bytes_max=number["max.message.bytes"],
        advice=tuple(_advice(facts, config, number)),
    )


_NUMBERS = ("retention.ms", "retention.bytes", "max.message.bytes")


_UNTOLD = "its configuration is not told to us; with DescribeConfigs this page would advise on it"


def _advice(
    facts: TopicFacts, config: Mapping[str, str], number: Mapping[str, int]
) -> list[str]:
    advice: list[str] = []
    if not config:
        return [_UNTOLD]
    if config.get("message.timestamp.type") != "LogAppendTime":
        advice.append(
            "message.timestamp.type=LogAppendTime: event times are judged against the "
            "broker's clock, not against each device's"
        )
    if 0 <= number["retention.ms"] < RETENTION_MS_ADVISED:
        advice.append(
            "retention.ms below three days: a weekend's outage loses readings"
        )
    if "compact" in config.get("cleanup.policy", ""):
        advice.append("cleanup.policy=delete: compaction removes readings of a device")
    if number["max.message.bytes"] > MESSAGE_BYTES_ADVISED:
        advice.append("max.message.bytes above 4 MiB: one record may use much memory")
    if config.get("unclean.leader.election.enable") == "true":
        advice.append("unclean.leader.election.enable=false: offsets may be reused")
    if facts.replicas < DURABLE_REPLICAS:
        advice.append(f"replication factor {facts.replicas}: 3 survives a broker")
    elif int(config.get("min.insync.replicas", "1")) < DURABLE_REPLICAS - 1:
        advice.append("min.insync.replicas=2: an acknowledged record has two copies")
    return advice
