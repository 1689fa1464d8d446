"""The commit protocol, and compaction, over an object store: answers are lost, requests come late.

What is lost with the power is nothing here, what comes when nobody waits for it any more is a
lot: a request may be carried out after its sender was killed and replaced.
"""

from collections.abc import Callable
from typing import Final

from streamproc.testing.compaction_sim import CompactionSimulation
from streamproc.testing.sim_bucket import ObjectRequests, SimBucket
from streamproc.testing.simulation import Process, Simulation

# Twenty steps later on average: some in the same commit, some in another owner's time.
_ARRIVES: Final = 0.05


class BucketSimulation(Simulation):
    """The same workers over an object store, whose answers are lost and requests late."""

    disk: SimBucket

    def _new_disk(self) -> SimBucket:
        return SimBucket()

    def _new_plans(self, name: str) -> ObjectRequests:  # noqa: ARG002  (no process has a folder of its own)
        plans: Callable[..., ObjectRequests] = self.variant.requests
        return plans(self.random, self._goes_wrong, self.disk.late.append)

    def _goes_wrong(self) -> bool:
        if self.tally.steps >= self.faults.steps:
            return False
        lost = self.random.random() < self.faults.lost_reply
        self.tally.lost_replies += lost
        return lost

    def _maybe_lose_reply(self, process: Process) -> None:
        """Nothing here: each request has its own fate."""

    def _maybe_fault(self) -> None:
        super()._maybe_fault()
        self._maybe_arrive()

    def _step(self) -> bool:
        if self.tally.steps == self.faults.steps:
            while self.disk.late:
                self._arrive()
        return super()._step()

    def _maybe_arrive(self) -> None:
        if self.disk.late and self.random.random() < _ARRIVES:
            self._arrive()

    def _arrive(self) -> None:
        """Carry out a request that nobody waits for any more."""
        late = self.disk.late
        request = late.pop(self.random.randrange(len(late)))
        self.disk.perform(request)
        self.tally.late += 1
        self.checker.after_operation(request)


class CompactionBucketSimulation(BucketSimulation, CompactionSimulation):
    """The same over an object store, for a partition and the compactors beside it."""
