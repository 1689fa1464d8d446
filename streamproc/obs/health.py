"""Health as progress: is what waits being folded and committed? A pure judgement.

*Healthy* means that a restart would not help: no partition has had records waiting without
any progress for `stall_us`, and the service's timer runs. An unreachable broker, a store that does
not answer or is full, or a partition that was stopped to protect its data, is therefore not
unhealthy, only not ready.
*Ready* means in the group and everything assigned is flowing; a standby that was assigned
nothing is ready, too.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

STALL_US = 300_000_000


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answer; `reasons` says why not, one line each."""

    healthy: bool
    ready: bool
    reasons: tuple[str, ...] = ()


@dataclass(slots=True)
class _Place:
    """One partition: where it stands, where it ends, when it last moved (monotonic µs)."""

    moved_us: int
    position: int = 0
    end: int = 0


@dataclass(slots=True)
class Progress:
    """What is known of the service's progress; times are monotonic microseconds.

    `started_us` is when the service began; `stall_us` how long no progress is forgiven.
    """

    started_us: int
    stall_us: int = STALL_US
    _joined: bool = False
    _beat_us: int = 0
    _silent: str = ""
    _opening: set[str] = field(default_factory=set)
    _stopped: dict[str, str] = field(default_factory=dict)
    _unstored: dict[str, str] = field(default_factory=dict)
    _places: dict[str, _Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._beat_us = self.started_us

    def joined(self, sources: AbstractSet[str]) -> None:
        """Note that the group has answered, and with which partitions; perhaps with none."""
        self._joined = True
        self._opening = set(sources - self._places.keys() - self._stopped.keys())

    def beat(self, now_us: int) -> None:
        """Note that the service's timer ran."""
        self._beat_us = now_us

    def reachable(self, problem: str = "") -> None:
        """Note whether the broker answers; `problem` is empty if it does.

        Once it is back, what waits has its full time again, from the last `beat` on.
        """
        if self._silent and not problem:
            for place in self._places.values():
                place.moved_us = max(place.moved_us, self._beat_us)
        self._silent = problem

    def store(self, source: str, problem: str, now_us: int) -> None:
        """Note that a partition waits for the store; `problem` is empty once it goes on.

        From then on what waits has its full time again.
        """
        if problem:
            self._unstored[source] = problem
        elif self._unstored.pop(source, None) is not None:
            place = self._places.get(source)
            if place is not None:
                place.moved_us = max(place.moved_us, now_us)

    def opened(self, source: str, position: int, now_us: int) -> None:
        """Note that a partition is ours and restored up to `position`."""
        self._joined = True
        self._beat_us = max(self._beat_us, now_us)
        self._opening.discard(source)
        self._stopped.pop(source, None)
        self._places[source] = _Place(now_us, position, position)

    def at(self, source: str, position: int, now_us: int) -> None:
        """Note the next offset to fold; only another one than before is progress."""
        place = self._places.get(source)
        if place is not None and position != place.position:
            place.position, place.moved_us = position, now_us

    def committed(self, source: str, now_us: int) -> None:
        """Note a durable commit, which is progress too."""
        place = self._places.get(source)
        if place is not None:
            place.moved_us = now_us

    def ends(self, source: str, end: int, now_us: int) -> None:
        """Note a partition's end offset; with nothing waiting, standing still is fine."""
        place = self._places.get(source)
        if place is None:
            return
        if place.position >= place.end:
            place.moved_us = now_us  # what waits from now on has not waited before
        place.end = end

    def released(self, source: str) -> None:
        """Forget a partition that is no longer ours."""
        self._places.pop(source, None)
        self._unstored.pop(source, None)

    def stopped(self, source: str, why: str) -> None:
        """Note that a partition was stopped for good; a restart would meet the same."""
        self._opening.discard(source)
        self._places.pop(source, None)
        self._stopped[source] = why

    def judge(self, now_us: int) -> Judgement:
        """Return how the service is at `now_us`."""
        sick = [*self._stalls(now_us), *self._silence(now_us)]
        waiting = []
        if not self._joined:
            waiting.append("not yet in the consumer group")
        if self._silent:
            waiting.append(f"broker: {self._silent}")
        waiting += [
            f"{source}: intake is paused: store: {problem}"
            for source, problem in sorted(self._unstored.items())
        ]
        waiting += [f"{source}: being restored" for source in sorted(self._opening)]
        for source, why in sorted(self._stopped.items()):
            waiting.append(f"{source}: stopped: {why}")
        return Judgement(not sick, not sick and not waiting, (*sick, *waiting))

    def _stalls(self, now_us: int) -> list[str]:
        if self._silent:
            return []  # nothing can be fetched; nobody's progress can be expected
        found = []
        for source, place in sorted(self._places.items()):
            still_us = now_us - place.moved_us
            if source in self._unstored:
                continue
            if place.position < place.end and still_us > self.stall_us:
                found.append(
                    f"{source}: {place.end - place.position} records wait, "
                    f"no progress for {still_us // 1_000_000} s"
                )
        return found

    def _silence(self, now_us: int) -> list[str]:
        silent_us = now_us - self._beat_us
        if not self._places or silent_us <= self.stall_us:
            return []  # without a partition nobody's progress is at stake
        return [f"the service's timer has not run for {silent_us // 1_000_000} s"]
