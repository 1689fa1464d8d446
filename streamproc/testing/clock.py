"""A clock that stands still until it is told to move."""

import asyncio
import heapq
from itertools import count


class ManualClock:
    """Implements `core.ports.Clock`; both clocks move only by `advance`.

    Not thread-safe: `advance` and `sleep` belong to one event loop; reading the time
    from another thread is fine.
    """

    def __init__(self, *, monotonic_us: int = 0, wall_us: int = 0) -> None:
        self._monotonic_us = monotonic_us
        self._wall_us = wall_us
        self._order = count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def monotonic_us(self) -> int:
        """Return the microseconds advanced so far, plus the start value."""
        return self._monotonic_us

    def wall_us(self) -> int:
        """Return the start value plus what was advanced and jumped."""
        return self._wall_us

    @property
    def sleeping(self) -> int:
        """Return how many callers of `sleep` wait."""
        return sum(not future.done() for _, _, future in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Move both clocks on; whoever's time has come runs when the loop next turns.

        Sleepers wake in the order of their deadlines.
        """
        assert seconds >= 0, seconds
        step_us = round(seconds * 1e6)
        self._monotonic_us += step_us
        self._wall_us += step_us
        while self._sleepers and self._sleepers[0][0] <= self._monotonic_us:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP does."""
        self._wall_us += round(seconds * 1e6)

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has passed the deadline; not at all for zero or less."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        deadline_us = self._monotonic_us + round(seconds * 1e6)
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (deadline_us, next(self._order), future))
        await future
