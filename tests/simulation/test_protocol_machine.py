"""The commit protocol under a search that shrinks: Hypothesis says who moves and what fails.

The seeds of `test_protocol_simulation.py` reach further; a fault found here comes as the shortest
story that leads to it.
"""

from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from streamproc.testing.sim_checks import Violation
from streamproc.testing.simulation import PARTS_OF_CREATE, Variant
from streamproc.testing.steered_simulation import (
    WORKERS,
    SteeredBucketSimulation,
    SteeredSimulation,
)
from tests.simulation.test_mutants import MUTANTS
from tests.simulation.test_mutants_objects import ON_OBJECTS

# Tracing Python line by line would take half of its time; unit tests cover the same code.
pytestmark = pytest.mark.no_cover

KINDS: dict[str, type[SteeredSimulation]] = {
    "a disk": SteeredSimulation,
    "an object store": SteeredBucketSimulation,
}
WORKER = st.sampled_from(WORKERS)
STEPS = st.integers(1, 80)
LONG_STORIES = settings(stateful_step_count=60)
UNSHRUNK = settings(
    LONG_STORIES,
    max_examples=1_000,
    phases=[Phase.generate],
    database=None,
    derandomize=True,
)


class Machine(RuleBasedStateMachine):
    """Three workers, one partition; at the end everything must be there once."""

    kind: type[SteeredSimulation]
    variant: Variant
    stories = 0

    @initialize(seed=st.integers(0, 99))
    def begin(self, seed: int) -> None:
        type(self).stories += 1
        self.simulation = self.kind(seed, self.variant)

    @rule(worker=WORKER, steps=STEPS)
    def go(self, worker: int, steps: int) -> None:
        self.simulation.go(worker, steps)

    @rule(worker=WORKER)
    def kill(self, worker: int) -> None:
        self.simulation.kill(worker)

    @rule()
    def cut_power(self) -> None:
        self.simulation.cut_power()

    @precondition(lambda self: self.kind is SteeredSimulation)
    @rule(worker=WORKER, operations=st.sampled_from(PARTS_OF_CREATE))
    def lose_reply(self, worker: int, operations: int) -> None:
        self.simulation.lose_reply(worker, operations)

    @precondition(lambda self: self.kind is SteeredBucketSimulation)
    @rule(requests=st.integers(1, 5))
    def lose_replies(self, requests: int) -> None:
        assert isinstance(self.simulation, SteeredBucketSimulation)
        self.simulation.lose_replies(requests)

    @precondition(lambda self: self.kind is SteeredBucketSimulation)
    @rule()
    def arrive(self) -> None:
        assert isinstance(self.simulation, SteeredBucketSimulation)
        self.simulation.arrive()

    def teardown(self) -> None:
        if hasattr(self, "simulation"):
            self.simulation.finish()


def _machine(kind: str, variant: Variant) -> type[Machine]:
    return type("Machine", (Machine,), {"kind": KINDS[kind], "variant": variant})


@pytest.mark.parametrize("kind", KINDS)
def test_no_story_loses_or_doubles_anything(kind: str) -> None:
    run_state_machine_as_test(_machine(kind, Variant()), settings=LONG_STORIES)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_none_of_thousands_of_stories_loses_or_doubles_anything(kind: str) -> None:
    thousands = settings(LONG_STORIES, max_examples=5_000)

    run_state_machine_as_test(_machine(kind, Variant()), settings=thousands)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("a disk", "rename instead of link"),
        ("a disk", "unknown is failure"),
        ("a disk", "the fence is ignored"),
        ("a disk", "staged bytes are not synced"),
        ("an object store", "put for a conditional put"),
        ("an object store", "unknown is success"),
        ("an object store", "the fence is ignored"),
        ("an object store", "the head's snapshot is deleted"),
    ],
)
def test_the_machine_finds_a_mutant(kind: str, name: str) -> None:
    variants: dict[str, Any] = {"a disk": MUTANTS, "an object store": ON_OBJECTS}
    machine = _machine(kind, variants[kind][name])

    with pytest.raises(Violation) as found:
        run_state_machine_as_test(machine, settings=UNSHRUNK)

    print(f"{kind}, {name}: {machine.stories} stories: {found.value}")  # noqa: T201
