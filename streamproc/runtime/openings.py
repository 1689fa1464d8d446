"""Making partitions ours: kept hot where nobody has written since, else taken over (S1 to S4)."""

from collections.abc import Callable
from functools import partial
from typing import Final, ParamSpec, TypeVar

from streamproc.core.chain import Genesis
from streamproc.core.ports import Bounds, StartAt
from streamproc.core.values import TopicPartition
from streamproc.errors import Unreachable
from streamproc.runtime.compute import Compute
from streamproc.runtime.opening import (
    begin,
    first_records,
    genesis_of_a_new_topic,
    genesis_of_an_added_partition,
    refuse_recreated,
)
from streamproc.runtime.parts import ServiceOptions, ServiceParts
from streamproc.runtime.worker import PartitionWorker

OPENERS: Final = 8
"""Partitions opened at once. Restoring is bound by the processors, all else by answers."""

P = ParamSpec("P")
T = TypeVar("T")


class Openings:
    """Opens workers in threads of its own.

    Args:
        trouble: told of a partition that the store does not let open, and why.
    """

    def __init__(
        self,
        parts: ServiceParts,
        options: ServiceOptions,
        trouble: Callable[[TopicPartition, str], None],
    ) -> None:
        self._parts = parts
        self._source = parts.source
        self._start = options.start
        self._accepted = options.accept_recreated
        self._trouble = trouble
        self._threads = Compute("opener", OPENERS)

    async def worker(
        self, origin: TopicPartition, parked: PartitionWorker | None
    ) -> PartitionWorker:
        """Return `parked` if its log's head is still ours, else a worker that has taken over.

        Raises:
            Fenced: other owners keep winning.
            LogCorrupt, StoreFault, SourceMismatch: the partition must stop.
            Unreachable: broker or store do not answer.
        """
        if parked is not None and await self._stored(origin, parked.still_ours):
            return parked
        return await self._take_over(origin)

    def close(self) -> None:
        """Wait for what is at hand; nothing can be opened afterwards."""
        self._threads.close()

    async def _take_over(self, origin: TopicPartition) -> PartitionWorker:
        bounds = await self._source.bounds(origin)
        topic_id = await self._source.topic_id(origin.topic)
        partitions = 0
        if self._start.at is StartAt.LATEST:
            partitions = await self._source.partition_count(origin.topic)
        planned = await begin(self._source, self._start, origin, bounds, partitions)
        worker = self._parts.make_worker(origin, topic_id)
        genesis = partial(self._genesis, origin, topic_id, bounds, planned)
        committed = await self._stored(
            origin, worker.open, self._parts.definition, genesis
        )
        if committed is not None:
            self._parts.observer.committed(worker, committed)
        return worker

    async def _stored(
        self,
        origin: TopicPartition,
        function: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Do what needs the store, off the loop; one that does not answer is told."""
        try:
            return await self._threads(function, *args, **kwargs)
        except Unreachable as error:
            self._trouble(origin, str(error))
            raise

    def _genesis(
        self, origin: TopicPartition, topic_id: str, bounds: Bounds, planned: Genesis
    ) -> Genesis:
        """Say where a new log begins; in an opener's thread, only where there is none."""
        job, topic = self._parts.definition.job, origin.topic
        logs = first_records(self._parts.store, job, topic)
        earlier = sorted({r.topic_id for r in logs} - {topic_id})
        if topic not in self._accepted:
            refuse_recreated(topic, topic_id, earlier)
        if earlier:
            return genesis_of_a_new_topic(earlier, topic, topic_id, bounds)
        if self._start.at is StartAt.LATEST:
            return genesis_of_an_added_partition(planned, logs, origin, bounds)
        return planned
