"""Several processes of the service on one host, with one page for all: `run --workers N`."""

import asyncio
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import structlog
from llvmlite.binding import get_host_cpu_name
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from streamproc import kernels
from streamproc.config import Settings
from streamproc.connectors.clock import SystemClock
from streamproc.core.ports import Clock
from streamproc.errors import ConfigError, WorldError
from streamproc.kernels._jit import SOURCE_STAMP
from streamproc.obs.health import Judgement
from streamproc.obs.http import Answer, ask, judgement, serve
from streamproc.obs.logs import configure
from streamproc.obs.merged import combined, merged
from streamproc.obs.metrics import CONTENT_TYPE
from streamproc.runtime.observer import Totals
from streamproc.runtime.signals import stop_on_signals
from streamproc.runtime.supervisor import Plan, Process, Supervisor, Watcher

SECOND_US: Final = 1_000_000
ASK_S: Final = 3.0
"""How long a process may take to answer for its page; its loop never works that long."""

AFTER_DRAIN_S: Final = 30.0
"""How long a process may take beyond its drain: to publish, to leave the group, to close."""

LINE_BYTES_MAX: Final = 1 << 20
COMMAND: Final = (sys.executable, "-P", "-m", "streamproc")
"""A new interpreter, never a fork: threads of OpenMP and rayon do not survive one."""


async def run_workers(
    settings: Settings,
    config: Path,
    count: int,
    options: Sequence[str],
    *,
    until_end: bool,
    env: Mapping[str, str] = os.environ,
) -> tuple[Totals, bool]:
    """Run `count` processes until they are stopped or done.

    Args:
        settings: the whole configuration.
        config: the file it came from; each process reads it again.
        count: how many processes.
        options: further options of `run`, for each of them.
        until_end: they end by themselves at the ends of their partitions.
        env: their environment.

    Returns:
        What all that ended in order have done, and whether they were told to stop.

    Raises:
        ConfigError: the address of the page, or a file that the configuration names.
        WorldError: a process keeps ending, or did not drain.
    """
    configure(settings.log.level, settings.log.format, sys.stderr)
    log = structlog.get_logger("streamproc")
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="streamproc-"))
        )
        await _warm_up(log, env)
        crew = _Crew(settings, config, folder, options, env)
        grace_s = settings.shutdown.drain_us / SECOND_US + AFTER_DRAIN_S
        plan = Plan(count, grace_s, until_done=until_end)
        clock = SystemClock()
        supervisor = Supervisor(plan, crew.launch, clock, random.random, crew)
        told: list[bool] = []

        def stop() -> None:
            told.append(True)
            supervisor.stop()

        def abandon() -> None:
            supervisor.abandon()
            os._exit(1)

        async with _page(settings, count, crew, supervisor):
            with stop_on_signals(stop, abandon):
                await supervisor.run()
        return crew.totals, bool(told)


def warmed_file(env: Mapping[str, str]) -> Path:
    """Return the file that says that these kernels have been compiled for this processor."""
    folder = env.get("NUMBA_CACHE_DIR") or Path(kernels.__file__).with_name(
        "__pycache__"
    )
    processor = env.get("NUMBA_CPU_NAME") or get_host_cpu_name()
    made_for = f"{SOURCE_STAMP} {version('numba')} {processor}"
    name = hashlib.sha256(made_for.encode()).hexdigest()[:32]
    return Path(folder) / f"streamproc-{name}.warm"


async def _warm_up(log: Any, env: Mapping[str, str]) -> None:
    """Compile the kernels once, so that not every process does it, while the group waits."""
    warmed = warmed_file(env)
    if warmed.exists():
        return
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "warmup", "--json",
        env=dict(env), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = await process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            process.kill()
        raise
    if process.returncode != 0:
        msg = f"the warm-up of the kernels ended with {process.returncode}"
        raise WorldError(msg)
    log.info("kernels are ready", **json.loads(said))
    with suppress(
        OSError
    ):  # a cache that nobody may write to: looked at again next time
        warmed.touch()


class _Child:
    """One process; its log goes to ours, line by line, with its number."""

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        done: Callable[[bytes], None],
    ) -> None:
        self._number = number
        self._process = process
        self._done = done
        assert process.stdout is not None
        assert process.stderr is not None
        self._said = asyncio.create_task(process.stdout.read())
        self._log = asyncio.create_task(self._forward(process.stderr))

    async def ended(self) -> int:
        """See `Process`. What it has said until then is passed on before."""
        code = await self._process.wait()
        await self._log
        self._done(await self._said)
        return code

    def drain(self) -> None:
        """See `Process`."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """See `Process`."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def _forward(self, lines: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await lines.readline()
            except ValueError:
                continue  # longer than the limit: nothing of ours writes such a line
            if not line:
                return
            text = line.decode(errors="replace").rstrip("\n")
            if not text.startswith("{"):  # JSON has the number in it
                text = f"worker {self._number}: {text}"
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


class _Crew(Watcher):
    """The processes of one supervisor: how they are started, and what is known of them."""

    def __init__(
        self,
        settings: Settings,
        config: Path,
        folder: Path,
        options: Sequence[str],
        env: Mapping[str, str],
    ) -> None:
        self.totals = Totals()
        self.pids: dict[int, int] = {}
        self.registry = CollectorRegistry(auto_describe=True)
        self._settings = settings
        self._config = config
        self._folder = folder
        self._options = options
        self._env = env
        self._log = structlog.get_logger("streamproc")
        self._restarts = Counter(
            "streamproc_worker_restarts",
            "Times a process was started again.",
            ("number",),
            registry=self.registry,
        )
        self._up = Gauge(
            "streamproc_workers_running",
            "Processes that run now.",
            registry=self.registry,
        )

    def socket(self, number: int) -> str:
        """Return where a process answers for its page."""
        return str(self._folder / f"{number}.sock")

    def _fresh_socket(self, number: int) -> str:
        path = self.socket(number)
        Path(path).unlink(missing_ok=True)
        return path

    async def launch(self, number: int) -> Process:
        """Start process `number`.

        Its standard input is a pipe that breaks when we die, then it drains, too. It has a
        session of its own, so that a terminal's interrupt reaches it through us alone.
        """
        env = dict(self._env)
        instance = self._settings.source.instance_id
        if instance is not None:
            env["STREAMPROC_SOURCE__INSTANCE_ID"] = f"{instance}-{number}"
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "run", str(self._config), "--as-worker", str(number),
            "--socket", self._fresh_socket(number), "--json", *self._options,
            env=env, stdin=pipe, stdout=pipe, stderr=pipe, limit=LINE_BYTES_MAX,
            start_new_session=True,
        )  # fmt: skip
        self.pids[number] = process.pid
        return _Child(number, process, self._add)

    def _add(self, said: bytes) -> None:
        """Add the summary of a process that ended in order; others have none."""
        with suppress(ValueError):
            summary = json.loads(said)
            for key in Totals.__dataclass_fields__:
                if isinstance(summary.get(key), int):
                    setattr(self.totals, key, getattr(self.totals, key) + summary[key])

    # --- what happens -----------------------------------------------------------------

    def started(self, number: int, again: int) -> None:
        """See `Watcher`."""
        self._up.inc()
        counter = self._restarts.labels(number)
        if again:
            counter.inc()
        self._log.info(
            "worker started", worker=number, restarts=again, pid=self.pids[number]
        )

    def ended(self, number: int, code: int, pause_s: float | None) -> None:
        """See `Watcher`."""
        self._up.dec()
        if pause_s is None:
            self._log.info("worker ended", worker=number, code=code)
        else:
            self._log.warning(
                "worker ended by itself and is started again",
                worker=number,
                code=code,
                pause_s=round(pause_s, 3),
            )


class _Health:
    """What the processes say of themselves, and what their silence says."""

    def __init__(
        self,
        crew: _Crew,
        supervisor: Supervisor,
        count: int,
        clock: Clock,
        stall_us: int,
    ) -> None:
        self._crew = crew
        self._supervisor = supervisor
        self._numbers = range(1, count + 1)
        self._clock = clock
        self._stall_us = stall_us
        self._silent_since_us: dict[int, int] = {}

    async def judge(self) -> Judgement:
        """Ask all at once; one that does not answer for long is not healthy."""
        found = await asyncio.gather(*(self._ask(number) for number in self._numbers))
        return combined(dict(zip(map(str, self._numbers), found, strict=True)))

    async def _ask(self, number: int) -> Judgement:
        if number not in self._supervisor.running:
            self._silent_since_us.pop(number, None)
            return Judgement(healthy=True, ready=False, reasons=("is not running",))
        try:
            body = await ask(self._crew.socket(number), "/readyz", timeout_s=ASK_S)
            said = json.loads(body)
            self._silent_since_us.pop(number, None)
            return Judgement(said["healthy"], said["ready"], tuple(said["reasons"]))
        except (OSError, ValueError, KeyError):
            now_us = self._clock.monotonic_us()
            since_us = self._silent_since_us.setdefault(number, now_us)
            healthy = now_us - since_us <= self._stall_us
            return Judgement(healthy, ready=False, reasons=("does not answer",))

    async def pages(self) -> Mapping[str, str]:
        """Return the metrics of those that answer, and our own."""
        numbers = list(self._supervisor.running)
        found = await asyncio.gather(
            *(
                ask(self._crew.socket(number), "/metrics", timeout_s=ASK_S)
                for number in numbers
            ),
            return_exceptions=True,
        )
        pages = {
            str(number): page.decode()
            for number, page in zip(numbers, found, strict=True)
            if isinstance(page, bytes)
        }
        return {**pages, "supervisor": generate_latest(self._crew.registry).decode()}


@asynccontextmanager
async def _page(
    settings: Settings, count: int, crew: _Crew, supervisor: Supervisor
) -> AsyncIterator[None]:
    """Serve one page for all. Raises `ConfigError` where the address cannot be used."""
    options = settings.metrics
    if not options.enabled:
        yield
        return
    health = _Health(crew, supervisor, count, SystemClock(), options.stall_after_us)

    async def metrics() -> Answer:
        body = merged(await health.pages()).encode()
        return Answer(body, content_type=CONTENT_TYPE)

    async def healthz() -> Answer:
        return judgement(await health.judge(), ready=False)

    async def readyz() -> Answer:
        return judgement(await health.judge(), ready=True)

    routes = {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}
    try:
        server = await serve(options.host, options.port, routes)
    except OSError as error:
        place = f"{options.host}:{options.port}"
        msg = f"metrics: cannot listen on {place}: {error.strerror or error}"
        raise ConfigError(msg) from error
    async with server:
        structlog.get_logger("streamproc").info(
            "listening", host=options.host, port=server.port, workers=count
        )
        yield
