"""Giving up offsets that nobody can read any more: one `gap` record, said and signed by a person.

Nothing here decides by itself. The bounds are given by whoever accepts the gap, and must be
exactly those the log and the broker have; otherwise something has moved since they looked. The
record is created like any other, so that a running owner is fenced and goes on behind it.
"""

from dataclasses import dataclass

from streamproc.core.chain import Genesis
from streamproc.core.definition import Definition
from streamproc.core.ports import Bounds
from streamproc.core.record import LogRecord
from streamproc.core.values import TopicPartition
from streamproc.errors import SourceMismatch
from streamproc.runtime.partition_log import Draft, PartitionLog


@dataclass(frozen=True, slots=True)
class GapOrder:
    """Offsets `[start, end)` of a partition to be given up, why, and by whom."""

    origin: TopicPartition
    start: int
    end: int
    reason: str
    by: str


def accept_gap(
    log: PartitionLog, definition: Definition, order: GapOrder, bounds: Bounds
) -> LogRecord:
    """Write the gap; returns its record, which is durable.

    Nobody is fenced where the order is refused for what the log says now.

    Raises:
        SourceMismatch: there is no log, or the bounds are not those of log and broker.
        Fenced: a running owner has moved on in between.
    """
    head = log.peek()
    if head is None:
        msg = f"{order.origin.source}: this job has no log of it, so there is no gap"
        raise SourceMismatch(msg)
    _check(order, head, bounds)
    _check(order, log.open(definition, _no_genesis).record, bounds)
    return log.commit(Draft("gap", order.end, note=order.reason, by=order.by))


def _check(order: GapOrder, head: LogRecord, bounds: Bounds) -> None:
    place = f"{order.origin.topic} partition {order.origin.partition}"
    if bounds.begin <= head.next:
        msg = (
            f"{place}: the log continues at offset {head.next}, the broker serves "
            f"[{bounds.begin}, {bounds.end}): no offset is missing in between"
        )
        raise SourceMismatch(msg)
    if (order.start, order.end) != (head.next, bounds.begin):
        msg = (
            f"{place}: the gap is from {head.next} to {bounds.begin}, "
            f"not from {order.start} to {order.end}; nothing was written"
        )
        raise SourceMismatch(msg)


def _no_genesis() -> Genesis:
    msg = "the log was there a moment ago and is gone"
    raise SourceMismatch(msg)
