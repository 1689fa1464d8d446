"""Sleeping that something else may end."""

import asyncio
from collections.abc import Sequence
from typing import Any

from streamproc.core.ports import Clock


async def sleep_unless(clock: Clock, seconds: float, event: asyncio.Event) -> None:
    """Sleep, but not beyond the event."""
    waits: list[asyncio.Task[Any]] = [
        asyncio.create_task(clock.sleep(seconds)),
        asyncio.create_task(event.wait()),
    ]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_all(waits)


async def cancel_all(tasks: "Sequence[asyncio.Task[Any]]") -> None:
    """Cancel tasks and wait until they have ended, however they do."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
