"""Threads: one for all that works on state, one for all that writes, some that open."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Compute:
    """Runs functions off the event loop, in threads called `name`; with one, one by one.

    Kernels, Parquet and hashing release the GIL, so heartbeats go on meanwhile. A caller
    that is cancelled stops waiting; a function that has begun is finished all the same,
    and whatever comes next waits for it.
    """

    def __init__(self, name: str, threads: int = 1) -> None:
        self._thread = ThreadPoolExecutor(threads, f"streamproc-{name}")

    async def __call__(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what the function returns, or raise what it raises."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._thread, lambda: function(*args, **kwargs)
        )

    def close(self) -> None:
        """Wait for the function at hand; nothing can be run afterwards."""
        self._thread.shutdown(wait=True, cancel_futures=True)
