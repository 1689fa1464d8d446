"""The simulation of an object store finds the same mistakes, and those of its own."""

from typing import Any

import pytest

from streamproc.core.durability import Durability
from streamproc.core.effects import Settle, StoreEffect
from streamproc.core.ports import Created
from streamproc.errors import StoreFault
from streamproc.testing.bucket_simulation import BucketSimulation
from streamproc.testing.sim_bucket import (
    Look,
    ObjectRequests,
    Put,
    PutNew,
    Remove,
    Requests,
)
from streamproc.testing.simulation import Variant
from tests.simulation.test_mutants import MUTANTS, quick_and_rare
from tests.support.seeds import find

# Tracing Python line by line would take half of its time; unit tests cover the same code.
pytestmark = pytest.mark.no_cover


class PutForPutNew(ObjectRequests):
    """A plain PUT overwrites what a conditional one would refuse."""

    def create(self, path: str, data: bytes) -> Requests[Created]:
        plan = super().create(path, data)
        answer: Any = None
        while True:
            try:
                request = plan.send(answer)
            except StopIteration as done:
                result: Created = done.value
                return result
            if isinstance(request, PutNew):
                yield Put(request.path, request.data)
                answer = True
            else:
                answer = yield request


class RecordBeforeFiles(ObjectRequests):
    """Does not wait for uploads before the record that names them."""

    def create(self, path: str, data: bytes) -> Requests[Created]:
        begun, self._begun = self._begun, []
        outcome = yield from super().create(path, data)
        self._begun = begun
        return outcome


class SettlesNothing(ObjectRequests):
    """Says that all is published while copies are still to be sent."""

    def plan(self, effect: StoreEffect) -> Requests[Any]:
        if isinstance(effect, Settle):
            return self._begin(self._write(Remove("nothing")), None)
        return super().plan(effect)

    def _replace(self, path: str, data: bytes) -> Requests[None]:
        yield from self._write(Put(path, data))


class LooksOnce(ObjectRequests):
    """Takes a file that another owner published and swept meanwhile for a lost one."""

    def _publish(
        self, staged: str, final: str, wanted: tuple[int, str]
    ) -> Requests[None]:
        if (yield Look(final)) is None and (yield Look(staged)) is None:
            msg = f"{staged}: committed, but neither staged nor published"
            raise StoreFault(msg)
        yield from super()._publish(staged, final, wanted)


NOT_HERE = {
    "no settle",  # An object store has no such step: see "nothing is waited for".
    "an owner's last record deleted",  # Found on a disk; 600 seeds do not find it here.
}

ON_OBJECTS = {
    "put for a conditional put": Variant(requests=PutForPutNew),
    "record before its files": Variant(requests=RecordBeforeFiles),
    "a lost race is a lost file": Variant(requests=LooksOnce),
    "nothing is waited for": Variant(requests=SettlesNothing),
    **{
        name: variant
        for name, variant in MUTANTS.items()
        if variant.durability is Durability and name not in NOT_HERE
    },
}


@pytest.mark.parametrize("name", quick_and_rare(ON_OBJECTS))
def test_the_simulation_of_an_object_store_finds(name: str) -> None:
    find(name, lambda seed: BucketSimulation(seed, ON_OBJECTS[name]).run())
