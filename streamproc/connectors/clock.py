"""The one place that reads the machine's clocks."""

import asyncio
import time


class SystemClock:
    """Implements `core.ports.Clock` with the machine's clocks."""

    def monotonic_us(self) -> int:
        """Return CLOCK_MONOTONIC in microseconds."""
        return time.monotonic_ns() // 1000

    def wall_us(self) -> int:
        """Return CLOCK_REALTIME in microseconds."""
        return time.time_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        """Suspend the caller for about `seconds`."""
        await asyncio.sleep(seconds)
