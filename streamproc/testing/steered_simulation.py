"""The simulations of the commit protocol with somebody else at the wheel.

Who moves, dies, sleeps and is not answered is told from outside, one call at a time, so that a
search that can shrink (Hypothesis) finds the shortest way to a fault. Sizes of fetches,
snapshots and the like come from the seed. Nobody need be told to sleep: who is not told to
move does not, and is a zombie when it moves again.
"""

from typing import Final

from streamproc.testing.bucket_simulation import BucketSimulation
from streamproc.testing.simulation import Faults, Process, Simulation, Variant

WORKERS: Final = (0, 1, 2)
_NONE: Final = Faults(kill=0, power=0, sleep=0, reassign=0, lost_reply=0, steps=0)


class SteeredSimulation(Simulation):
    """A partition and three workers on a disk. Every method raises `Violation`.

    Args:
        seed: for whatever nobody steers.
        variant: the code under test.
    """

    def __init__(self, seed: int, variant: Variant | None = None) -> None:
        super().__init__(seed, variant, _NONE)
        self._lost_at: dict[int, int] = {}

    def go(self, worker: int, steps: int) -> None:
        """Let a worker do so many things; one that is not there is given the partition."""
        for _ in range(steps):
            if worker not in self._processes:
                if self._is_complete():
                    return
                self.partition.owner = worker
                self._start(worker)
            self._advance(self._processes[worker])

    def kill(self, worker: int) -> None:
        """Forget a worker, whatever it is doing."""
        self.tally.kills += self._processes.pop(worker, None) is not None

    def cut_power(self) -> None:
        """Kill all workers, and forget a part of what was not synced."""
        self.tally.power_losses += 1
        self._processes.clear()
        self.disk.lose_power(self.random)
        self.checker.after_power_loss()

    def lose_reply(self, worker: int, operations: int) -> None:
        """Let the worker's next create of a record end unanswered after so many operations."""
        self._lost_at[worker] = operations

    def finish(self) -> None:
        """Let everything come to its end without further faults, and look at what is there."""
        self._lost_at.clear()
        self.run()

    def _maybe_lose_reply(self, process: Process) -> None:
        process.lose_reply_at = None
        if self._creates_record(process) and process.worker in self._lost_at:
            process.lose_reply_at = self._lost_at.pop(process.worker)


class SteeredBucketSimulation(BucketSimulation, SteeredSimulation):
    """The same over an object store; each request has a fate of its own."""

    _wrong = 0

    def lose_replies(self, requests: int) -> None:
        """Let so many of the next writing requests go wrong, whoever sends them."""
        self._wrong = requests

    def arrive(self) -> None:
        """Carry out one of the requests that nobody waits for any more."""
        if self.disk.late:
            self._arrive()

    def finish(self) -> None:
        """See above."""
        self._wrong = 0
        super().finish()

    def _goes_wrong(self) -> bool:
        lost = self._wrong > 0
        self._wrong -= lost
        self.tally.lost_replies += lost
        return lost
