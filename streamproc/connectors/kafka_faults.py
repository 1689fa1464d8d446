"""What an error of the consumer means for us, in words an operator can act on."""

from collections.abc import Iterable

from aiokafka import TopicPartition as AioTopicPartition
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
)

from streamproc.connectors.kafka_probe import KafkaProbe, KafkaProbes
from streamproc.connectors.kafka_rights import JOINING, READING, forbidden
from streamproc.connectors.kafka_settings import KafkaOptions
from streamproc.core.values import TopicPartition
from streamproc.errors import Forbidden, SourceMismatch, Unreachable, WorldError


def concerned(
    error: KafkaError, owned: Iterable[AioTopicPartition]
) -> list[AioTopicPartition]:
    """Return the partitions an error is about; none where it is about everything."""
    if isinstance(error, OffsetOutOfRangeError):
        return [tp for tp in owned if tp in error.args[0]]
    if isinstance(error, TopicAuthorizationFailedError):
        return [tp for tp in owned if tp.topic == error.args[0]]
    return []


def leaves_others(fault: WorldError) -> bool:
    """Tell whether other topics can go on."""
    return isinstance(fault, Forbidden) and bool(fault.topic)


async def fault_of(
    error: KafkaError, options: KafkaOptions, probe: KafkaProbe | KafkaProbes
) -> WorldError | SourceMismatch:
    """Say what an error of `getmany` means for us."""
    if isinstance(error, OffsetOutOfRangeError):
        ((tp, position),) = error.args[0].items()
        return await _out_of_range(tp, position, probe)
    if isinstance(error, RecordTooLargeError):
        _, tp, offset, limit = error.args
        return WorldError(
            f"{tp.topic}/{tp.partition} offset {offset}: the record does not fit "
            f"into a fetch of {limit} bytes"
        )
    user = options.connection.security.username
    if isinstance(error, TopicAuthorizationFailedError):
        return forbidden(user, "topic", str(error.args[0]), READING)
    if isinstance(error, GroupAuthorizationFailedError):
        return forbidden(user, "group", options.group, JOINING)
    details = "; ".join(str(fact) for fact in error.args) or "no details"
    if options.instance_id is not None and "UnknownError" in details:
        # aiokafka does not know FENCED_INSTANCE_ID, the answer to a member replaced while it joins.
        details += (
            f"; another process of group {options.group} may have joined with our "
            f"instance_id {options.instance_id!r}: every process needs one of its own"
        )
    return WorldError(f"Kafka: {type(error).__name__}: {details}")


async def _out_of_range(
    tp: AioTopicPartition, position: int, probe: KafkaProbe | KafkaProbes
) -> SourceMismatch:
    origin = TopicPartition(tp.topic, tp.partition)
    try:
        bounds = await probe.bounds(origin)
        has = f"the broker has [{bounds.begin}, {bounds.end})"
    except Unreachable:
        has = "the broker does not say what it has"
    msg = (
        f"{origin.source}: offset {position} is gone, {has}; retention has "
        "overtaken us, or the topic was truncated or created anew"
    )
    return SourceMismatch(msg, source=origin.source)
