"""The compaction simulation is worth something: it finds every one of these mistakes.

One guard needs a sleeper at the right place, which 600 seeds do not bring about: a staged file
that is left. It has a test of its own in `test_compactor.py`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from streamproc.core.chain import parse_hint
from streamproc.core.compaction import CompactionSession, Swap
from streamproc.core.effects import Create, Delete, List, Read, Replace, Settle, Steps
from streamproc.core.ports import Created, StoredFile
from streamproc.core.protocol import LogSession
from streamproc.core.record import decode_record, record_name
from streamproc.core.settled import LogState, PartitionLogs, survey
from streamproc.core.swaps import CompactionRecord, encode_compaction
from streamproc.testing.bucket_simulation import CompactionBucketSimulation
from streamproc.testing.compaction_sim import CompactionSimulation, KeepingVariant
from tests.support.seeds import find

# Tracing Python line by line would take half of its time; unit tests cover the same code.
pytestmark = pytest.mark.no_cover

ALL = 10**9


class DeletesInputsFirst(CompactionSession):
    """Makes room before the record says so."""

    def commit(self, swap: Swap) -> Steps[CompactionRecord]:
        for name in swap.inputs:
            yield Delete(f"{self.unit.folder}/{name}")
        return (yield from super().commit(swap))


class NoRollForward(CompactionSession):
    """Leaves what a killed compactor committed as it is."""

    def open(self) -> Steps[tuple[StoredFile, ...]]:
        yield from self.locate()
        listed: tuple[StoredFile, ...] = yield List(self.unit.folder)
        gone = self.chain.replaced
        return tuple(f for f in listed if f.path.rpartition("/")[2] not in gone)


class IgnoresTheFence(CompactionSession):
    """Goes on where another compactor wrote the record."""

    def create(self, record: CompactionRecord) -> Steps[bool]:
        yield from super().create(record)
        return True


class Overwrites(CompactionSession):
    """Writes the record whoever wrote one before."""

    def create(self, record: CompactionRecord) -> Steps[bool]:
        path = f"{self.log}/{record_name(record.n)}"
        yield Replace(path, encode_compaction(record))
        return True


class UnknownIsSuccess(CompactionSession):
    """Takes a lost reply for a yes."""

    def create(self, record: CompactionRecord) -> Steps[bool]:
        path = f"{self.log}/{record_name(record.n)}"
        outcome: Created = yield Create(path, encode_compaction(record))
        return outcome is not Created.EXISTS


class UnknownIsFailure(CompactionSession):
    """Takes a lost reply for a no, and so deletes what may be committed."""

    def create(self, record: CompactionRecord) -> Steps[bool]:
        path = f"{self.log}/{record_name(record.n)}"
        outcome: Created = yield Create(path, encode_compaction(record))
        return outcome is Created.CREATED


class DeletesBeforePublishing(CompactionSession):
    """Deletes inputs while no output has its name yet."""

    def finish(self) -> Steps[None]:
        yield from self.delete_replaced((yield from self._listed()))
        yield from super().finish()


class NoSettle(CompactionSession):
    """Deletes inputs while the outputs' names may still be lost."""

    def publish(self, head: CompactionRecord, listed: Any) -> Steps[None]:
        for effect in super().publish(head, listed):
            if not isinstance(effect, Settle):
                yield effect


class PublishesFirst(CompactionSession):
    """Gives outputs their names before the record exists."""

    def create(self, record: CompactionRecord) -> Steps[bool]:
        yield from self.publish(record, {})
        return (yield from super().create(record))


class SweepsFirst(CompactionSession):
    """Deletes staging before it was published."""

    def finish(self) -> Steps[None]:
        if self.chain.head is not None:
            yield from self.sweep()
        yield from super().finish()


class BelievesTheHint(LogSession):
    """Publishes again whatever the hint does not cover, not the head alone."""

    def locate(self) -> Steps[None]:
        yield from super().locate()
        published = parse_hint((yield Read(f"{self.folder}/published")))
        head = self._chain.head
        again = []
        for n in range(published + 1, 0 if head is None else head.record.n):
            path = f"{self.log}/{record_name(n)}"
            data: bytes | None = yield Read(path)
            record = None if data is None else decode_record(data, path)
            again += [record] if record is not None and record.files else []
        self._chain.unpublished = [*again, *self._chain.unpublished]


def _believing(
    change: Callable[[LogState], LogState],
) -> Callable[[str], Steps[PartitionLogs]]:
    """Return a survey after which logs are believed to say something else."""

    def changed(job: str) -> Steps[PartitionLogs]:
        logs: PartitionLogs = yield from survey(job)
        for place, states in logs._by_place.items():
            logs._by_place[place] = [change(state) for state in states]
        return logs

    return changed


MUTANTS: dict[str, KeepingVariant] = {
    "inputs deleted before the record": KeepingVariant(DeletesInputsFirst),
    "no roll-forward": KeepingVariant(NoRollForward),
    "two compactors both win": KeepingVariant(IgnoresTheFence),
    "overwrite instead of create": KeepingVariant(Overwrites),
    "unknown is success": KeepingVariant(UnknownIsSuccess),
    "unknown is failure": KeepingVariant(UnknownIsFailure),
    "inputs deleted before publishing": KeepingVariant(DeletesBeforePublishing),
    "no settle before deleting": KeepingVariant(NoSettle),
    "publish before the record": KeepingVariant(PublishesFirst),
    "staging swept before publishing": KeepingVariant(SweepsFirst),
    "files that a refold needs are taken": KeepingVariant(
        survey=_believing(lambda state: replace(state, snapshot=ALL))
    ),
    "files that are not published for sure are taken": KeepingVariant(
        survey=_believing(lambda state: replace(state, head=ALL))
    ),
    "a hint that lags is believed": KeepingVariant(log=BelievesTheHint),
}


SLOW = {
    "files that are not published for sure are taken",
    "no settle before deleting",
    "unknown is failure",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] if name in SLOW else [])
        for name in MUTANTS
    ],
)
def test_the_simulation_finds(name: str) -> None:
    find(name, lambda seed: CompactionSimulation(seed, MUTANTS[name]).run())


@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulation_of_an_object_store_finds(name: str) -> None:
    variant = MUTANTS[name]

    find(name, lambda seed: CompactionBucketSimulation(seed, variant).run())
