"""What the Kafka source knows of each owned partition, and of one answer of the client."""

from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition as AioTopicPartition

from streamproc.core.values import Records


@dataclass(slots=True)
class Gate:
    """One owned partition: `next` is the offset to deliver next, None before `seek`.

    `epoch` grows with every `seek`; what was asked for in an earlier epoch is stale.
    """

    next: int | None = None
    wanted: bool = False
    epoch: int = 0

    @property
    def open(self) -> bool:
        """Tell whether anything may be delivered."""
        return self.wanted and self.next is not None


@dataclass(frozen=True, slots=True)
class Polled:
    """What one `getmany` returned, with the gates as they were when it was called.

    `ends`: positions right after it; `before`: positions of open partitions before it.
    """

    gates: "Seen"
    before: dict[AioTopicPartition, int]
    fetched: dict[AioTopicPartition, Sequence[Records]]
    ends: dict[AioTopicPartition, int]


Seen = dict[AioTopicPartition, tuple[Gate, int]]
