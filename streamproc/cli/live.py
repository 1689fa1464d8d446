"""The live view of a running service: rates, lag, watermarks, windows, last alerts."""

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from streamproc.cli.console import err, table
from streamproc.config import Settings
from streamproc.connectors.clock import SystemClock
from streamproc.core.values import AlertTransition, Emission, Records
from streamproc.runtime.observer import Observer
from streamproc.runtime.service import Service
from streamproc.runtime.worker import Committed, PartitionWorker

ALERTS_SHOWN = 6
RATE_US = 1_000_000


class LiveView(Observer):
    """Shows a service on the terminal while it runs; nothing where there is no terminal."""

    def __init__(self, settings: Settings, seconds: int, *, shown: bool) -> None:
        self._names = {c.slug: c.name for c in settings.definition.cities}
        self._seconds = seconds
        self._service: Service | None = None
        self._sent = 0
        self._readings: dict[str, int] = {}
        self._late: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._lags: dict[str, int] = {}
        self._files = 0
        self._clock = SystemClock()
        self._seen = (self._clock.monotonic_us(), 0)
        self._rate = 0
        self._alerts: deque[AlertTransition] = deque(maxlen=ALERTS_SHOWN)
        self._live: Live | None = None
        if shown and err.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=err, refresh_per_second=4
            )

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last picture standing."""
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def watch(self, service: Service) -> None:
        """Take watermarks and open windows from this service's workers."""
        self._service = service

    def sent(self, records: int) -> None:
        """Take note of how much the simulator has sent."""
        self._sent = records

    def stepped(self, records: Records, emission: Emission, seconds: float) -> None:
        """Add a batch."""
        for mine, counted in (
            (self._readings, emission.counts.readings),
            (self._late, emission.counts.late),
        ):
            for city, count in counted.items():
                mine[city] = mine.get(city, 0) + count
        for (city, _), count in emission.counts.quarantined.items():
            self._refused[city] = self._refused.get(city, 0) + count
        self._alerts.extend(emission.alerts)

    def committed(self, worker: PartitionWorker, committed: Committed) -> None:
        """Add a commit."""
        self._files += committed.files

    def lag(self, worker: PartitionWorker, end: int) -> None:
        """Keep how far behind a partition is."""
        self._lags[worker.origin.source] = max(0, end - worker.position)

    def alerts_sent(self, alerts: Sequence[AlertTransition]) -> None:
        """Nothing to add: alerts are shown when they arise."""

    def _note_rate(self) -> None:
        """Take the readings per second of about the last second."""
        now_us, total = self._clock.monotonic_us(), sum(self._readings.values())
        then_us, before = self._seen
        if now_us - then_us >= RATE_US:
            self._rate = round((total - before) / (now_us - then_us) * 1e6)
            self._seen = (now_us, total)

    def _render(self) -> RenderableType:
        self._note_rate()
        watermarks, windows = self._state()
        rows = [
            [
                name,
                self._readings.get(slug, 0),
                self._late.get(slug, 0),
                self._refused.get(slug, 0),
                watermarks.get(slug, "-"),
            ]
            for slug, name in self._names.items()
        ]
        columns = ["town", "readings", "late", "refused", "watermark (UTC)"]
        head = Text(
            f"sent {self._sent:,} records · {self._rate:,} readings/s · lag {sum(self._lags.values()):,} · "
            f"open windows {windows:,} · files {self._files:,}"
        )
        alerts = [
            [a.rule, a.state, a.city, a.device, a.value if a.value is not None else "-"]
            for a in self._alerts
        ]
        names = ["rule", "state", "town", "device", "value"]
        return Group(
            head, table("Towns", columns, rows), table("Last alerts", names, alerts)
        )

    def _state(self) -> tuple[dict[str, str], int]:
        newest: dict[str, int] = {}
        windows = 0
        for worker in list(self._service.workers.values()) if self._service else []:
            windows += sum(worker.processor.open_windows.values())
            for city, time_us in worker.processor.watermarks.items():
                newest[city] = max(newest.get(city, time_us), time_us)
        shown = {
            city: datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%H:%M:%S.%f")[
                :-4
            ]
            for city, time_us in newest.items()
        }
        return shown, windows
