"""Committed alerts on their way out: in order, at least once, never in the way of a commit.

One outbox per sink, so that a slow webhook does not delay the alert topic. Once every sink
has accepted all there was, that is noted beside the log; the note may lag, never lead, so a
restart sends the rest again with the same ids.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from streamproc.core.ports import AlertSink, Clock
from streamproc.core.values import AlertTransition, TopicPartition
from streamproc.errors import WorldError
from streamproc.runtime.observer import Observer

PENDING_MAX = 100_000
"""Alerts kept in memory per sink. Beyond it they stay in the log until the next start."""

BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

REFUSALS_MAX = 5
"""Times a sink may refuse the same alerts for good before they are left to `alerts/`."""

Delivered = Callable[[TopicPartition], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Parcel:
    origin: TopicPartition
    alerts: tuple[AlertTransition, ...]


class Outbox:
    """Delivers to one sink from its own task."""

    def __init__(self, sink: AlertSink, clock: Clock, observer: Observer) -> None:
        self._sink = sink
        self._clock = clock
        self._observer = observer
        self._parcels: deque[_Parcel] = deque()
        self._sending: _Parcel | None = None
        self._left_in_log: set[TopicPartition] = set()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, origin: TopicPartition, alerts: Sequence[AlertTransition]) -> None:
        """Queue what a commit released; commits of a partition come in order."""
        if not alerts or origin in self._left_in_log:
            return
        if self._pending + len(alerts) > PENDING_MAX:
            # Order matters more than memory: from here on the log is this partition's queue.
            self._left_in_log.add(origin)
            self._observer.failed(
                "writing", "outbox_full", f"{origin.source}: alerts wait in the log"
            )
            return
        self._parcels.append(_Parcel(origin, tuple(alerts)))
        self._idle.clear()
        self._wake.set()

    def forget(self, origin: TopicPartition) -> None:
        """Drop what is queued for a partition; a send under way is not tried again."""
        self._left_in_log.discard(origin)
        self._parcels = deque(p for p in self._parcels if p.origin != origin)
        if self._sending is not None and self._sending.origin == origin:
            self._sending = None

    def owes(self, origin: TopicPartition) -> bool:
        """Tell whether alerts of `origin` are still here, or wait in the log."""
        here = (
            self._parcels if self._sending is None else (self._sending, *self._parcels)
        )
        return origin in self._left_in_log or any(p.origin == origin for p in here)

    @property
    def _pending(self) -> int:
        return sum(len(parcel.alerts) for parcel in self._parcels)

    async def run(self, delivered: Delivered) -> None:
        """Deliver for ever, telling `delivered` after each; cancelled at the end."""
        while True:
            await self._wake.wait()
            while self._parcels:
                parcel = self._parcels.popleft()
                self._sending = parcel
                await self._deliver(parcel)
                self._sending = None
                await delivered(parcel.origin)
            self._wake.clear()
            self._idle.set()

    async def drained(self) -> None:
        """Return once everything queued so far has left."""
        await self._idle.wait()

    async def close(self) -> None:
        """Release the sink."""
        await self._sink.close()

    async def _deliver(self, parcel: _Parcel) -> None:
        """Send until taken; what a sink refuses for good must not hold up what follows."""
        attempt = refusals = 0
        while self._sending is parcel:
            try:
                await self._sink.send(parcel.alerts)
            except WorldError as error:
                refusals += not error.retriable
                given_up = refusals >= REFUSALS_MAX
                kind = "alert_refused" if given_up else "alert_sink"
                self._observer.failed("writing", kind, str(error))
                if given_up:
                    return
                await self._clock.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
                attempt += 1
            else:
                self._observer.alerts_sent(parcel.alerts)
                return
