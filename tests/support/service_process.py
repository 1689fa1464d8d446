"""The service in a process of its own, to be killed: `python -m tests.support.service_process`.

Its one argument is a JSON object of `Orders`. The signal BLOCK blocks its event loop until a
line comes on stdin. It says on stdout what happens, one JSON array a line, and exits 0 when it ends
in order, 1 with the fault on stderr.
"""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Timer
from types import TracebackType
from typing import IO, Any, Self

from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_settings import KafkaConnection, KafkaOptions
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.connectors.object_client import ObjectOptions
from streamproc.core.flush import FlushPolicy, SnapshotPolicy
from streamproc.core.ports import Failpoint
from streamproc.core.squash import Housekeeping
from streamproc.core.values import AlertTransition, TopicPartition
from streamproc.errors import StreamprocError
from streamproc.runtime.failpoint import VARIABLE, failpoint_from
from streamproc.runtime.parts import ServiceOptions
from streamproc.runtime.signals import stop_on_signals
from streamproc.runtime.worker import Committed, PartitionWorker
from tests.support.service import WAIT_S, Rig, Watch, definition

CHECKOUT = Path(__file__).parents[2]
BLOCK = signal.SIGUSR1


@dataclass(frozen=True)
class Orders:
    """What the process shall do."""

    bootstrap_servers: str
    root: str
    group: str
    topics: tuple[str, ...]
    owner: str = "one"
    until_end: bool = True
    close: bool = False
    rows_max: int = 40
    age_us_max: int = 10**15
    again_max: int = FlushPolicy().again_max
    snapshot_rows: int = 10**12
    records_max: int = 50
    max_rate: float | None = None
    session_timeout_s: int = 6
    instance_id: str | None = None
    drain_s: float = 30.0
    dead_sink: bool = False
    alerts: str = ""
    bucket: dict[str, Any] | None = None
    sigterm_at: str = ""
    """`step:n`: send this process a SIGTERM in the middle of the nth time of a step."""


class Teller(Watch):
    """Says on stdout what happens."""

    def opened(self, worker: PartitionWorker, seconds: float) -> None:
        say("opened", worker.origin.source, worker.position)

    def stepped(self, records: Any, emission: Any, seconds: float) -> None:
        say("stepped", records.origin.source, records.span.end)

    def committed(self, worker: PartitionWorker, committed: Committed) -> None:
        record = committed.record
        say("committed", worker.origin.source, record.n, record.next)

    def released(self, origin: TopicPartition) -> None:
        say("released", origin.source)

    def failed(self, stage: str, kind: str, message: str) -> None:
        say("failed", stage, kind, message)


class Mailbox:
    """Appends alerts to a file; one that is dead never answers."""

    def __init__(self, path: str, *, dead: bool) -> None:
        self._path = path
        self._dead = dead

    async def send(self, alerts: Sequence[AlertTransition]) -> None:
        say("sending", len(alerts))
        if self._dead:
            await asyncio.Event().wait()
        ids = [[alert.alert_id, alert.transition] for alert in alerts]
        self._append("".join(json.dumps(found) + "\n" for found in ids))

    def _append(self, lines: str) -> None:
        with Path(self._path).open("a", encoding="utf-8") as file:
            file.write(lines)

    async def close(self) -> None:
        pass


def say(*words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


class Interruption:
    """A failpoint that sends a SIGTERM, and holds its step until the signal was heard."""

    def __init__(self, at: str) -> None:
        self._step, _, nth = at.partition(":")
        self._left = int(nth)
        self.heard = Event()

    def __call__(self, step: str) -> None:
        self._left -= step == self._step
        if step == self._step and self._left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            assert self.heard.wait(30), f"nobody heard a signal at {step}"
            say("went on", step)


def rig_for(orders: Orders, failpoint: Failpoint) -> Rig:
    source = KafkaSource(
        KafkaOptions(
            connection=KafkaConnection(bootstrap_servers=orders.bootstrap_servers),
            group=orders.group,
            topics=orders.topics,
            session_timeout_s=orders.session_timeout_s,
            instance_id=orders.instance_id,
            heartbeat_s=1,
            rebalance_timeout_s=20,
            topics_refresh_s=1,
            fetch_wait_ms=50,
            records_max=orders.records_max,
            stop_timeout_s=3,
        )
    )
    sinks = {}
    if orders.alerts:
        sinks = {"webhook": Mailbox(orders.alerts, dead=orders.dead_sink)}
    return Rig(
        Path(orders.root),
        source,
        SystemClock(),
        owner=orders.owner,
        definition=definition(topic_cities=tuple((t, "razlog") for t in orders.topics)),
        flush=FlushPolicy(orders.rows_max, 10**12, orders.age_us_max, orders.again_max),
        snapshot=SnapshotPolicy(orders.snapshot_rows, 10**15),
        options=ServiceOptions(
            until_end=orders.until_end,
            close=orders.close,
            max_rate=orders.max_rate,
            drain_s=orders.drain_s,
            tick_us=200_000,
        ),
        sinks=sinks,
        keeping=Housekeeping(squash_every=4),
        failpoint=failpoint,
        bucket=None if orders.bucket is None else ObjectOptions(**orders.bucket),
        watch=Teller(),
    )


def block() -> None:
    """Hold up the event loop, and nothing else, until a line comes on stdin."""
    say("blocked")
    sys.stdin.readline()
    say("unblocked")


async def main(orders: Orders) -> int:
    interruption = Interruption(orders.sigterm_at) if orders.sigterm_at else None
    rig = rig_for(orders, interruption or failpoint_from(os.environ))
    asyncio.get_running_loop().add_signal_handler(BLOCK, block)

    def stop() -> None:
        say("stopping")
        rig.service.stop()
        if interruption is not None:
            interruption.heard.set()

    with stop_on_signals(stop):
        try:
            await rig.service.run()
        except StreamprocError as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            return 1
    rig.store.close()
    return 0


class ServiceProcess:
    """A child that runs the service; killed at the end if it still lives.

    `prefix` is a command that runs the child, as `setpriv` does.
    """

    def __init__(
        self, orders: Orders, failpoint: str = "", prefix: Sequence[str] = ()
    ) -> None:
        self._orders = orders
        self._failpoint = failpoint
        self._prefix = prefix
        self._child: subprocess.Popen[str] | None = None
        self.said: list[list[Any]] = []

    def __enter__(self) -> Self:
        environment = {**os.environ, VARIABLE: self._failpoint}
        self._child = subprocess.Popen(
            [*self._prefix, sys.executable, "-m", "tests.support.service_process",
             json.dumps(asdict(self._orders))],
            cwd=CHECKOUT, env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.child.kill()
        self.child.communicate()

    @property
    def child(self) -> "subprocess.Popen[str]":
        assert self._child is not None
        return self._child

    @property
    def output(self) -> IO[str]:
        assert self.child.stdout is not None
        return self.child.stdout

    def until(self, happened: Callable[[list[Any]], bool]) -> list[Any]:
        """Return the first line said from now on for which `happened`; fails at its end.

        One that does not say it in time is killed.
        """
        patience = Timer(WAIT_S, self.child.kill)
        patience.start()
        try:
            for line in self.output:
                self.said.append(json.loads(line))
                if happened(self.said[-1]):
                    return self.said[-1]
            self.child.wait()
        finally:
            patience.cancel()
        msg = f"ended ({self.child.returncode}) with {self.said[-3:]}: {self._errors()}"
        raise AssertionError(msg)

    def _errors(self) -> str:
        assert self.child.stderr is not None
        return self.child.stderr.read()

    def signal(self, number: int) -> None:
        os.kill(self.child.pid, number)

    def unblock(self) -> None:
        """Let a loop go on that was stopped by the signal BLOCK."""
        assert self.child.stdin is not None
        self.child.stdin.write("\n")
        self.child.stdin.flush()

    def ended(self, timeout_s: float = 180.0) -> int:
        """Wait for its end and return its code, negative for a signal."""
        out, errors = self.child.communicate(timeout=timeout_s)
        self.said += [json.loads(line) for line in out.splitlines()]
        self.errors = errors
        return self.child.returncode


KILLED = -signal.SIGKILL


def first_to_step(
    one: ServiceProcess, two: ServiceProcess
) -> tuple[ServiceProcess, ServiceProcess]:
    """Return whoever folds a batch first, and the other one."""
    while True:
        both = {process.output: process for process in (one, two)}
        ready, _, _ = select.select(list(both), [], [], 60)
        for output in ready:
            process = both[output]
            if process.until(lambda said: True)[0] == "stepped":
                return process, two if process is one else one


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    given["topics"] = tuple(given["topics"])
    sys.exit(asyncio.run(main(Orders(**given))))
