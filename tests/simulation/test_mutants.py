"""The simulation is worth something: it finds every one of these mistakes.

Each mutant is the real code with one part replaced. A mutant that survives is a hole in
the oracle.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import pytest

from streamproc.core.chain import Chain, Draft
from streamproc.core.durability import (
    Durability,
    Link,
    Linked,
    Operation,
    Operations,
    Rename,
    SyncDir,
    SyncFile,
)
from streamproc.core.effects import (
    Create,
    Delete,
    Effect,
    List,
    Publish,
    Read,
    Replace,
    Steps,
    StoreEffect,
)
from streamproc.core.ports import Created
from streamproc.core.protocol import LogSession
from streamproc.core.record import (
    LogRecord,
    Squashed,
    encode_record,
    record_name,
)
from streamproc.core.squash import Squasher
from streamproc.testing.sim_kafka import Position
from streamproc.testing.simulation import (
    FOLDER,
    Simulation,
    Variant,
)
from tests.support.seeds import find

# Tracing Python line by line would take half of its time; unit tests cover the same code.
pytestmark = pytest.mark.no_cover

# --- the order of filesystem operations ------------------------------------------------


def _without(
    operations: Operations[Any], is_dropped: Callable[[Operation], bool]
) -> Operations[Any]:
    """Run the plan, but pretend that some operations were done."""
    answer: Any = None
    while True:
        try:
            operation = operations.send(answer)
        except StopIteration as done:
            return done.value
        answer = True if is_dropped(operation) else (yield operation)


def _dropping(is_dropped: Callable[[Operation], bool]) -> type[Durability]:
    class Forgetful(Durability):
        def plan(self, effect: StoreEffect) -> Operations[Any]:
            return _without(super().plan(effect), is_dropped)

    return Forgetful


class RenameForLink(Durability):
    """`rename` overwrites what `link` would refuse."""

    def create(self, path: str, data: bytes) -> Operations[Created]:
        plan = super().create(path, data)
        answer: Any = None
        while True:
            try:
                operation = plan.send(answer)
            except StopIteration as done:
                result: Created = done.value
                return result
            if isinstance(operation, Link):
                yield Rename(operation.source, operation.target)
                answer = Linked.DONE
            else:
                answer = yield operation


class BelievesWhatItLists(Durability):
    """Does not sync the folder of records that somebody else linked."""

    def list(self, folder: str, after: str = "") -> Operations[Any]:
        plan = super().list(folder, after)
        return _without(plan, lambda op: isinstance(op, SyncDir))


class SettlesOnlyItsOwnLinks(Durability):
    """Leaves a file found in place to whoever put it there."""

    def publish(
        self, staged: str, final: str, size: int, sha256: str
    ) -> Operations[None]:
        before = set(self._unsettled)
        plan = super().publish(staged, final, size, sha256)
        linked: Any = None
        answer: Any = None
        while True:
            try:
                operation = plan.send(answer)
            except StopIteration:
                break
            answer = yield operation
            if isinstance(operation, Link):
                linked = answer
        if linked is not Linked.DONE:
            self._unsettled = before


# --- the protocol ----------------------------------------------------------------------


class ReturnForContinue(LogSession):
    """Stops publishing at the first file that is already there (Arroyo's bug)."""

    def publish_files(self, records: tuple[LogRecord, ...]) -> Steps[None]:
        for effect in _drain(super().publish_files(records)):
            if isinstance(effect, Publish) and (yield Read(effect.final)) is not None:
                return
            yield effect


class NoRollForward(LogSession):
    """Leaves what the owner before committed to the owner before."""

    def roll_forward(self) -> Steps[None]:
        self._chain.published(self.head.n)
        yield from ()


class NoSettle(LogSession):
    """Moves the hint before the names are durable."""

    def publish_files(self, records: tuple[LogRecord, ...]) -> Steps[None]:
        for effect in _drain(super().publish_files(records)):
            if isinstance(effect, Publish):
                yield effect


class HintFirst(LogSession):
    """Moves the hint before the files have their names."""

    def publish_files(self, records: tuple[LogRecord, ...]) -> Steps[None]:
        yield Replace(f"{self.folder}/published", b"%d\n" % self.head.n)
        yield from super().publish_files(records)


class UnknownIsSuccess(LogSession):
    """Takes a lost reply for a yes."""

    def create(self, record: LogRecord) -> Steps[bool]:
        path = f"{self.log}/{record_name(record.n)}"
        outcome: Created = yield Create(path, encode_record(record))
        return outcome is not Created.EXISTS


class UnknownIsFailure(LogSession):
    """Takes a lost reply for a no, and so deletes what may be committed."""

    def create(self, record: LogRecord) -> Steps[bool]:
        path = f"{self.log}/{record_name(record.n)}"
        outcome: Created = yield Create(path, encode_record(record))
        return outcome is Created.CREATED


class IgnoresTheFence(LogSession):
    """Goes on where another owner wrote the record."""

    def create(self, record: LogRecord) -> Steps[bool]:
        yield from super().create(record)
        return True


class PublishesFirst(LogSession):
    """Gives files their names before the record exists."""

    def create(self, record: LogRecord) -> Steps[bool]:
        if record.files:
            yield from super().publish_files((record,))
        return (yield from super().create(record))


class SweepsByAge(LogSession):
    """Deletes all staging but its own, instead of numbers at or below the head."""

    def sweep(self) -> Steps[None]:
        staging = f"{self.folder}/staging"
        for file in (yield List(staging)):
            yield Delete(file.path)

    def clean(self) -> Steps[None]:
        yield from super().clean()
        yield from self.sweep()


class SweepsUnpublished(LogSession):
    """Deletes numbers at or below the head, also those a record still needs."""

    def roll_forward(self) -> Steps[None]:
        self._chain.published(self.head.n)
        yield from self.sweep()


class DeletesTheHeadsSnapshot(LogSession):
    """Keeps no snapshot at all."""

    def clean(self) -> Steps[None]:
        yield from super().clean()
        while self._chain.snapshots:
            yield Delete(self._chain.snapshots.pop().path)


class ForgetsToRefold(LogSession):
    """Restores the snapshot and not what came after it."""

    @property
    def since_snapshot(self) -> tuple[LogRecord, ...]:
        return ()


# --- squashing -------------------------------------------------------------------------


class SquashesUnsent(LogSession):
    """Replaces records whose alerts have not left."""

    def squashable(self) -> int:
        chain = self._chain
        if chain.unpublished or not chain.snapshots:
            return -1
        return chain.snapshots[-1].n


class SquashesUnpublished(LogSession):
    """Replaces records whose files are still in staging."""

    def squashable(self) -> int:
        chain = self._chain
        snapshot = chain.snapshots[-1].n if chain.snapshots else -1
        return min([snapshot, *(r.n - 1 for r in chain.unsent[:1])])


class SquashesPastTheSnapshot(LogSession):
    """Replaces records that a refold needs."""

    def squashable(self) -> int:
        chain = self._chain
        if chain.unpublished:
            return -1
        return min([self.head.n, *(r.n - 1 for r in chain.unsent[:1])])


class DeletesBeforeTheCheckpoint(LogSession):
    """Deletes what is in the archive, then says so in a checkpoint."""

    def commit(self, draft: Draft) -> Steps[LogRecord]:
        if draft.squashed is not None:
            for n in range(draft.squashed.through):
                yield Delete(f"{self.log}/{record_name(n)}")
        return (yield from super().commit(draft))


class DeletesOpenings(Squasher):
    """Keeps no name that would stop an owner who has slept."""

    def replaced(self, squashed: Squashed) -> None:
        self._kept.clear()
        super().replaced(squashed)

    def _is_kept(self, n: int) -> Steps[bool]:
        yield from ()
        return False


class KeepsNoLastWords(Squasher):
    """Keeps each takeover, but not the record before, which its owner may still ask for."""

    def replaced(self, squashed: Squashed) -> None:
        self._kept = {n for n in self._kept if n + 1 not in self._kept}
        super().replaced(squashed)


class SquashesOpenings(LogSession):
    squasher = DeletesOpenings


class SquashesLastWords(LogSession):
    squasher = KeepsNoLastWords


class TakesAnyName(LogSession):
    """Believes that a name that was free was never taken."""

    def is_newest(self, n: int) -> Steps[bool]:
        yield from ()
        return True


class SquashHintFirst(Squasher):
    """Moves the hint before the checkpoint exists."""

    def stage(self, n: int, attempt: str, chain: Chain) -> Steps[Squashed]:
        squashed = yield from super().stage(n, attempt, chain)
        yield Replace(f"{FOLDER}/squashed", b"%d\n" % squashed.through)
        return squashed


class HintsFirst(LogSession):
    squasher = SquashHintFirst


def _is_archive(operation: Operation) -> bool:
    return "/archive" in getattr(operation, "path", "")


def _seek_to_kafkas_offset(session: LogSession) -> Generator[Any, Any, int]:
    """Believe the consumer group instead of the log."""
    committed: int | None = yield Position()
    return session.head.next if committed is None else committed


def _drain(steps: Steps[Any]) -> Iterator[Effect]:
    """Return the effects of steps that need no answers."""
    yield from steps


def _is_staging(operation: Operation) -> bool:
    return "/staging/" in getattr(operation, "path", "")


MUTANTS: dict[str, Variant] = {
    "staged bytes are not synced": Variant(
        durability=_dropping(lambda op: isinstance(op, SyncFile) and _is_staging(op))
    ),
    "staged names are not synced": Variant(
        durability=_dropping(lambda op: isinstance(op, SyncDir) and _is_staging(op))
    ),
    "snapshot bytes are not synced": Variant(
        durability=_dropping(
            lambda op: isinstance(op, SyncFile) and "/snap/" in op.path
        )
    ),
    "record bytes are not synced": Variant(
        durability=_dropping(lambda op: isinstance(op, SyncFile) and ".tmp" in op.path)
    ),
    "the log's folder is not synced": Variant(
        durability=_dropping(
            lambda op: isinstance(op, SyncDir) and op.path.endswith("/log")
        )
    ),
    "data folders are not synced": Variant(
        durability=_dropping(lambda op: isinstance(op, SyncDir) and "/date=" in op.path)
    ),
    "folders above data are not synced": Variant(
        durability=_dropping(
            lambda op: (
                isinstance(op, SyncDir)
                and op.path.startswith("readings")
                and "/date=" not in op.path
            )
        )
    ),
    "rename instead of link": Variant(durability=RenameForLink),
    "a listed record is believed durable": Variant(durability=BelievesWhatItLists),
    "a file found in place is not settled": Variant(durability=SettlesOnlyItsOwnLinks),
    "return instead of continue": Variant(session=ReturnForContinue),
    "no roll-forward": Variant(session=NoRollForward),
    "no settle": Variant(session=NoSettle),
    "hint before files": Variant(session=HintFirst),
    "unknown is success": Variant(session=UnknownIsSuccess),
    "unknown is failure": Variant(session=UnknownIsFailure),
    "the fence is ignored": Variant(session=IgnoresTheFence),
    "publish before commit": Variant(session=PublishesFirst),
    "staging swept by age": Variant(session=SweepsByAge),
    "staging of unpublished records swept": Variant(session=SweepsUnpublished),
    "the head's snapshot is deleted": Variant(session=DeletesTheHeadsSnapshot),
    "no refold after the snapshot": Variant(session=ForgetsToRefold),
    "seek to Kafka's offset": Variant(start_at=_seek_to_kafkas_offset),
    "squashed past an unsent outbox": Variant(session=SquashesUnsent),
    "squashed past an unpublished record": Variant(session=SquashesUnpublished),
    "squashed past the snapshot": Variant(session=SquashesPastTheSnapshot),
    "deleted before the checkpoint is durable": Variant(
        session=DeletesBeforeTheCheckpoint
    ),
    "archive bytes are not synced": Variant(
        durability=_dropping(lambda op: isinstance(op, SyncFile) and _is_archive(op))
    ),
    "archive names are not synced": Variant(
        durability=_dropping(lambda op: isinstance(op, SyncDir) and _is_archive(op))
    ),
    "opening records deleted": Variant(session=SquashesOpenings),
    "an owner's last record deleted": Variant(session=SquashesLastWords),
    "a takeover under a squashed name": Variant(session=TakesAnyName),
    "squash hint before the checkpoint": Variant(session=HintsFirst),
}


RARE = {"an owner's last record deleted", "a takeover under a squashed name"}
"""Found after hundreds of seeds."""


def quick_and_rare(names: Iterable[str]) -> list[Any]:
    """Return the names, those that take long marked so."""
    marks = {True: [pytest.mark.long], False: []}
    return [pytest.param(name, marks=marks[name in RARE]) for name in names]


@pytest.mark.parametrize("name", quick_and_rare(MUTANTS))
def test_the_simulation_finds(name: str) -> None:
    find(name, lambda seed: Simulation(seed, MUTANTS[name]).run())
