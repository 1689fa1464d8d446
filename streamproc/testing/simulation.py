"""The commit protocol under kills, zombies, lost replies and lost power, from a seed.

Up to three workers share one simulated disk and one simulated Kafka partition. They run
the code of `core.protocol` and `core.durability` unchanged; a scheduler lets one of them
perform one filesystem operation at a time and, between any two, kills a worker, puts one
to sleep (it wakes as a zombie), moves the partition, or cuts the power of the host.
A create may happen without an answer, or an answer may be lost before it happens.

The processor is a running sum, so that a wrong restore shows in the rows that follow. Some
commits have an alert, which leaves after them or is left to the next owner; a log is squashed
every few records.
`Checker` (in `sim_checks`) watches every step; the same seed gives the same run.
"""

import hashlib
import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from random import Random
from typing import Any, Final, TypeAlias

from streamproc.core.chain import Draft, Genesis, LogIdentity
from streamproc.core.definition import Definition
from streamproc.core.durability import Durability
from streamproc.core.effects import Create, Effect, Reached, Stage, StoreEffect
from streamproc.core.ports import Created, StagedFile
from streamproc.core.protocol import LogSession
from streamproc.core.record import (
    RecordCounts,
    file_stem,
    final_name,
    log_folder,
)
from streamproc.core.squash import Housekeeping
from streamproc.core.values import OffsetSpan
from streamproc.errors import Fenced, StreamprocError, Unreachable
from streamproc.testing.sim_bucket import ObjectRequests, SimBucket
from streamproc.testing.sim_checks import Checker, Violation
from streamproc.testing.sim_disk import SimDisk
from streamproc.testing.sim_kafka import (
    Acknowledge,
    Fetch,
    Partition,
    Position,
    Send,
    alert_of,
)

TOPIC: Final = "telemetry.razlog"
FOLDER: Final = log_folder("sim", TOPIC, "id", 0)
DEFINITION: Final = Definition(
    job="sim", windows=(), rules=(), properties=(), cities=()
)
# A fault-free run needs about 700 steps, and each life after a fault about 100 more.
STEPS_MAX: Final = 30_000
# Operations of a create that are done before its answer is lost: none, some, all.
PARTS_OF_CREATE: Final = (0, 2, 3, 4, 5, 6, 99)


Request: TypeAlias = Effect | Fetch | Acknowledge | Position | Send
Life: TypeAlias = Generator[Request, Any, None]


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities per step, until `steps`; `lost_reply` per create.

    `deaf` stores never perform a create whose reply is lost; others do a part of it.
    """

    kill: float = 0.006
    power: float = 0.002
    sleep: float = 0.01
    reassign: float = 0.006
    lost_reply: float = 0.15
    steps: int = 1_500
    deaf: bool = False

    @classmethod
    def drawn(cls, random: Random) -> "Faults":
        """Return a mix: most seeds have one kind of fault dominate."""
        return cls(
            kill=random.choice((0.0, 0.004, 0.02)),
            power=random.choice((0.0, 0.002, 0.008)),
            sleep=random.choice((0.0, 0.01, 0.03)),
            reassign=random.choice((0.002, 0.01)),
            lost_reply=random.choice((0.0, 0.1, 0.4)),
        )


@dataclass(slots=True)
class Tally:
    """What happened in a run; the tests see to it that everything does."""

    steps: int = 0
    kills: int = 0
    power_losses: int = 0
    reassignments: int = 0
    lost_replies: int = 0
    fenced: int = 0
    gave_up: int = 0
    commits: int = 0
    snapshots_read: int = 0
    checkpoints: int = 0
    begun_at_checkpoint: int = 0
    reopened_name: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class Variant:
    """The code under test; a mutant replaces one part of it."""

    session: Callable[..., LogSession] = LogSession
    durability: Callable[[str], Durability] = Durability
    requests: Callable[..., ObjectRequests] = ObjectRequests
    start_at: Callable[[LogSession], Generator[Request, Any, int]] | None = None


@dataclass(slots=True)
class Process:
    """One life of one worker; forgotten when it is killed."""

    worker: int
    life: Life
    plans: "Durability | ObjectRequests"
    operations: Generator[Any, Any, Any] | None = None
    effect: StoreEffect | None = None
    answer: Any = None
    lose_reply_at: int | None = None
    asleep_until: int = 0
    name: str = ""


class Simulation:
    """One run. `run` returns what happened or raises `Violation`."""

    def __init__(
        self,
        seed: int,
        variant: Variant | None = None,
        faults: Faults | None = None,
        records: int = 32,
    ) -> None:
        self.seed = seed
        self.random = Random(seed)  # noqa: S311  (a run must be repeatable)
        self.variant = variant or Variant()
        self.faults = faults or Faults.drawn(self.random)
        self.squash_every = self.random.choice((2, 3, 4, 6, 1_000))
        self.partition = Partition(self.random, records)
        self.disk = self._new_disk()
        self.checker = Checker(self.disk, FOLDER, self.partition.payloads)
        self.tally = Tally()
        self._lives = 0
        self._processes: dict[int, Process] = {}

    def _new_disk(self) -> "SimDisk | SimBucket":
        return SimDisk()

    def _new_plans(self, name: str) -> "Durability | ObjectRequests":
        return self.variant.durability(f"_streamproc/.tmp/{name}")

    def run(self) -> Tally:
        """Run until every record is published and every worker is at rest.

        Raises:
            Violation: a promise was broken; the message names the seed.
        """
        try:
            while self._step():
                self.tally.steps += 1
                self.checker.in_time(self.tally.steps, STEPS_MAX)
            self.checker.at_the_end()
            self.tally.checkpoints += self.checker.checkpoints
            self.tally.reopened_name += self.checker.reopened
        except Violation as violation:
            msg = f"seed {self.seed}, step {self.tally.steps}: {violation}"
            raise Violation(msg) from violation
        return self.tally

    def _step(self) -> bool:
        if self.tally.steps < self.faults.steps:
            self._maybe_fault()
        owner = self.partition.owner
        if owner not in self._processes and not self._is_complete():
            self._start(owner)
        awake = [
            p for p in self._processes.values() if p.asleep_until <= self.tally.steps
        ]
        if not awake and self._processes:
            return True  # Everybody sleeps: time passes.
        if not awake:
            return False
        self._advance(self.random.choice(awake))
        return True

    def _is_complete(self) -> bool:
        published = self.checker.published_through() == len(self.partition.payloads)
        return published and not self.checker.owed()

    # --- faults -----------------------------------------------------------------------

    def _maybe_fault(self) -> None:
        random, faults = self.random, self.faults
        if random.random() < faults.power:
            self.tally.power_losses += 1
            self._processes.clear()
            self.disk.lose_power(random)
            self.checker.after_power_loss()
        if random.random() < faults.reassign:
            self.tally.reassignments += 1
            self.partition.owner = random.randrange(3)
        if not self._processes:
            return
        victim = random.choice(sorted(self._processes))
        if random.random() < faults.kill:
            self.tally.kills += 1
            del self._processes[victim]
        elif random.random() < faults.sleep:
            naps = self.tally.steps + random.choice((30, 150, 600))
            self._processes[victim].asleep_until = naps

    # --- workers ----------------------------------------------------------------------

    def _start(self, worker: int) -> None:
        self._lives += 1
        name = f"{self._lives}-{worker}"
        attempts = iter(range(1_000_000))
        identity = LogIdentity(
            job="sim",
            topic=TOPIC,
            topic_id="id",
            partition=0,
            owner=name,
            code_version="sim",
            state_version=1,
        )
        session = self.variant.session(
            FOLDER,
            identity,
            lambda: f"{name}-{next(attempts)}".rjust(8, "0"),
            Housekeeping(squash_every=self.squash_every),
        )
        self._processes[worker] = Process(
            worker,
            self._life(session),
            self._new_plans(name),
            name=name,
        )

    def _advance(self, process: Process) -> None:
        """Let a worker do one thing."""
        try:
            if process.operations is None:
                self._request(process)
            else:
                self._operate(process)
        except StopIteration:
            self._forget(process)
        except Fenced:
            self.tally.fenced += 1
            self._forget(process)
        except Unreachable:
            self.tally.gave_up += 1
            self._forget(process)
        except (StreamprocError, AssertionError) as error:
            if isinstance(error, Violation):
                raise
            msg = f"worker {process.worker} stopped: {type(error).__name__}: {error}"
            raise Violation(msg) from error

    def _forget(self, process: Process) -> None:
        del self._processes[process.worker]

    def _request(self, process: Process) -> None:
        request = process.life.send(process.answer)
        process.answer = None
        match request:
            case Fetch(start, count):
                process.answer = self.partition.payloads[start : start + count]
            case Acknowledge(offset):
                if self.partition.owner == process.worker:
                    self.partition.committed = offset
            case Position():
                process.answer = self.partition.committed
            case Send(alerts):
                self.checker.delivered(alerts)
            case Reached():
                pass
            case _:
                process.effect = request
                process.operations = process.plans.plan(request)
                self._maybe_lose_reply(process)

    def _maybe_lose_reply(self, process: Process) -> None:
        """Of a record's create, do a part (none, some, all), then answer nothing."""
        process.lose_reply_at = None
        if (
            self._creates_record(process)
            and self.tally.steps < self.faults.steps
            and self.random.random() < self.faults.lost_reply
        ):
            parts = (0,) if self.faults.deaf else PARTS_OF_CREATE
            process.lose_reply_at = self.random.choice(parts)

    def _creates_record(self, process: Process) -> bool:
        effect = process.effect
        return isinstance(effect, Create) and effect.path.startswith(f"{FOLDER}/log/")

    def _operate(self, process: Process) -> None:
        assert process.operations is not None
        assert process.effect is not None
        if process.lose_reply_at == 0:
            self._lose_reply(process)
            return
        try:
            operation = process.operations.send(process.answer)
        except StopIteration as done:
            process.answer = done.value
            if process.lose_reply_at is not None:
                self._lose_reply(process)
                return
            process.operations = None
            self.checker.after_effect(process.effect, done.value)
            return
        process.answer = self.disk.perform(operation)
        if process.lose_reply_at is not None:
            process.lose_reply_at -= 1
        self.checker.after_operation(operation)

    def _lose_reply(self, process: Process) -> None:
        self.tally.lost_replies += 1
        process.operations = None
        process.answer = Created.UNKNOWN

    # --- what a worker does -----------------------------------------------------------

    def _life(self, session: LogSession) -> Life:
        yield from session.open(DEFINITION, lambda: Genesis(0, "start = earliest"))
        total = yield from self._restore(session)
        yield from self._deliver(session)
        position = session.head.next
        if self.variant.start_at is not None:
            position = yield from self.variant.start_at(session)
        while True:
            payloads: list[int] = yield Fetch(position, self.random.randint(1, 6))
            if not payloads:
                yield from self._deliver(session)
                return
            total = yield from self._commit(session, position, total, payloads)
            position += len(payloads)
            yield Acknowledge(position)
            if self.random.random() < 0.6:  # noqa: PLR2004  (others wait for later ones)
                yield from self._deliver(session)
            yield from session.clean()

    def _deliver(self, session: LogSession) -> Generator[Request, Any, None]:
        """S10: let out what has not left, then note it."""
        unsent = session.unsent
        if unsent:
            yield Send(tuple(alert.alert_id for r in unsent for alert in r.outbox))
            yield from session.note_sent(unsent[-1].n)

    def _restore(self, session: LogSession) -> Generator[Request, Any, int]:
        """S4: the snapshot, then what came after it, folded again and not emitted."""
        total = position = 0
        self.tally.begun_at_checkpoint += session.began_at_checkpoint
        snapshot = session.head.snapshot
        if snapshot is not None:
            state = json.loads((yield from session.read_snapshot(snapshot)))
            total, position = state["sum"], state["next"]
            self.tally.snapshots_read += 1
        for record in session.since_snapshot:
            payloads: list[int] = yield Fetch(position, record.next - position)
            total += sum(payloads)
            position = record.next
        self.checker.restored(session.head.next, position, total)
        return total

    def place_of(self, offset: int, payload: int) -> tuple[str, str]:
        """Return the city and date a record is filed under."""
        return "even" if payload % 2 == 0 else "odd", f"2026-01-{offset // 8 + 1:02}"

    def _commit(
        self, session: LogSession, position: int, total: int, payloads: list[int]
    ) -> Generator[Request, Any, int]:
        span = OffsetSpan(position, position + len(payloads))
        staging = yield from session.staging()
        stem = file_stem(TOPIC, 0, session.head.n + 1, span, session.attempt)
        shards: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
        for offset, payload in enumerate(payloads, position):
            total += payload
            keys = self.place_of(offset, payload)
            shards.setdefault(keys, []).append((offset, payload, total))
        files = []
        for (city, date), rows in shards.items():
            data = json.dumps(rows).encode()
            staged = f"{staging}/{city}-{date}.parquet"
            size: int = yield Stage(staged, data)
            files.append(
                StagedFile(
                    staged=staged,
                    final=final_name(
                        "readings", (("city", city), ("date", date)), stem
                    ),
                    size=size,
                    rows=len(rows),
                    sha256=hashlib.sha256(data).hexdigest(),
                    dataset="readings",
                    first_offset=rows[0][0],
                    last_offset=rows[-1][0],
                )
            )
        snapshot = None
        if self.random.random() < 0.4:  # noqa: PLR2004  (some commits have one)
            state = json.dumps({"sum": total, "next": span.end}).encode()
            digest = hashlib.sha256(state).hexdigest()
            snapshot = yield from session.stage_snapshot(state, lambda: digest)
        counts = RecordCounts(records=len(payloads), readings=len(payloads))
        alerts = tuple(
            alert_of(f"{TOPIC}/0", offset)
            for offset, payload in enumerate(payloads, position)
            if payload % 4 == 0
        )
        draft = Draft("commit", span.end, files, counts, snapshot, outbox=alerts)
        yield from session.commit(draft)
        self.tally.commits += 1
        if self.random.random() < 0.2:  # noqa: PLR2004  (it may not take this one)
            yield from session.squash()
        yield from session.publish()
        return total
