"""What watches a running service: its log, its metrics, its health page."""

import sys
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import structlog

from streamproc import __version__
from streamproc.config import Settings
from streamproc.connectors.clock import SystemClock
from streamproc.errors import ConfigError
from streamproc.obs.health import Judgement, Progress
from streamproc.obs.http import Answer, judged, serve, serve_at
from streamproc.obs.logs import configure
from streamproc.obs.metrics import CONTENT_TYPE, Metrics
from streamproc.runtime.metering import Metering
from streamproc.runtime.observer import Observer
from streamproc.runtime.service import Service


class Watching:
    """Logs to standard error, and serves /metrics, /healthz, /readyz while entered.

    Give `observer` to the service, then `watch` the service.

    Args:
        settings: the whole configuration.
        worker: which one of a supervisor's processes this is, None for none.
        socket: where its supervisor asks for the pages; then nothing else is served.
    """

    def __init__(
        self, settings: Settings, worker: int | None = None, socket: str | None = None
    ) -> None:
        self._settings = settings.metrics
        self._clock = SystemClock()
        self._log = structlog.get_logger("streamproc")
        configure(settings.log.level, settings.log.format, sys.stderr, worker)
        self._socket = socket
        cities = tuple(city.slug for city in settings.definition.cities)
        self._metrics = Metrics(
            self._clock.wall_us, cities, version=__version__, job=settings.job.name
        )
        self._progress = Progress(
            self._clock.monotonic_us(), settings.metrics.stall_after_us
        )
        self.observer: Observer = Metering(
            self._metrics, self._progress, self._log, self._clock.monotonic_us
        )
        self._service: Service | None = None
        self._stack = AsyncExitStack()

    def watch(self, service: Service) -> None:
        """Judge this service's health; partitions it has stopped are named."""
        self._service = service

    async def __aenter__(self) -> Self:
        """Listen. Raises `ConfigError` where the address cannot be used."""
        if not self._settings.enabled:
            return self
        routes = {
            "/metrics": lambda: Answer(
                self._metrics.render(), content_type=CONTENT_TYPE
            ),
            "/healthz": judged(self._judge, ready=False),
            "/readyz": judged(self._judge, ready=True),
        }
        if self._socket is not None:
            server = await serve_at(self._socket, routes)
            await self._stack.enter_async_context(server)
            return self
        place = f"{self._settings.host}:{self._settings.port}"
        try:
            server = await serve(self._settings.host, self._settings.port, routes)
        except OSError as error:
            msg = f"metrics: cannot listen on {place}: {error.strerror or error}"
            raise ConfigError(msg) from error
        await self._stack.enter_async_context(server)
        self._log.info("listening", host=self._settings.host, port=server.port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening."""
        await self._stack.aclose()

    def _judge(self) -> Judgement:
        if self._service is not None:
            for origin, fault in self._service.stopped.items():
                self._progress.stopped(origin.source, str(fault))
        return self._progress.judge(self._clock.monotonic_us())
