"""Calls of an aiokafka client that need care: they wait for ever, or raise what means nothing."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AioTopicPartition
from aiokafka.errors import IllegalStateError, KafkaError


async def position_of(consumer: AIOKafkaConsumer, tp: AioTopicPartition) -> int | None:
    """Return the client's position; does not wait, as every partition has one."""
    try:
        return int(await consumer.position(tp))
    except IllegalStateError:
        return None  # a rebalance is about to take it away


async def finish(stopping: Coroutine[Any, Any, None], timeout_s: float) -> None:
    """Wait for a client to stop, but not for ever, and not for its `CancelledError` (A18)."""
    task = asyncio.create_task(stopping)
    await asyncio.wait({task}, timeout=timeout_s)
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
    if task.done() and not task.cancelled():
        error = task.exception()
        if error is not None and not isinstance(error, (KafkaError, OSError)):
            raise error


async def store(
    consumer: AIOKafkaConsumer,
    offsets: Mapping[AioTopicPartition, tuple[int, str]],
    timeout_s: float,
) -> bool:
    """Commit offsets with notes; False where the broker refused or nobody knows (A6)."""
    task = asyncio.create_task(consumer.commit(offsets))
    await asyncio.wait({task}, timeout=timeout_s)
    if not task.done():
        task.cancel()
        return False
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, (KafkaError, TimeoutError)):
        raise error
    return error is None and not task.cancelled()
