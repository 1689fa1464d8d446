"""What the health page says of a service over a scripted source."""

from pathlib import Path

from streamproc.core.values import TopicPartition
from streamproc.obs.health import Judgement, Progress
from streamproc.obs.metrics import Metrics
from streamproc.runtime.metering import Metering
from streamproc.runtime.observer import Observer
from streamproc.runtime.worker import PartitionWorker
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.service import RAZLOG, Rig, traffic

P0 = TopicPartition(RAZLOG, 0)
P1 = TopicPartition(RAZLOG, 1)
NOTHING: frozenset[TopicPartition] = frozenset()


class Lines:
    """A log that keeps what happened."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, **facts: object) -> None:
        self.events.append(event)

    def warning(self, event: str, **facts: object) -> None:
        self.events.append(event)


class Page(Observer):
    """The health page, looked at whenever a partition was opened."""

    def __init__(self, clock: ManualClock) -> None:
        self.progress = Progress(clock.monotonic_us())
        self.seen: list[Judgement] = []
        self._clock = clock

    def opened(self, worker: PartitionWorker, seconds: float) -> None:
        self.seen.append(self.judge())

    def judge(self) -> Judgement:
        return self.progress.judge(self._clock.monotonic_us())


def standby(root: Path) -> tuple[Rig, ScriptedSource, Page]:
    """Return a service that the group gives nothing, as `streamproc run` watches it."""
    clock, source = ManualClock(), ScriptedSource({RAZLOG: 2}, assign=NOTHING)
    page = Page(clock)
    metrics = Metrics(clock.wall_us, ("razlog",), version="0", job="test")
    metering = Metering(metrics, page.progress, Lines(), clock.monotonic_us)
    return Rig(root, source, clock, also=(metering, page)), source, page


async def test_a_standby_that_the_group_gave_nothing_is_ready(tmp_path: Path) -> None:
    rig, _, page = standby(tmp_path)
    assert not page.judge().ready

    async with rig.running():
        await rig.watch.until(lambda: rig.watch.given)

        assert page.judge() == Judgement(healthy=True, ready=True)


async def test_a_standby_that_takes_over_is_ready_again_once_all_is_restored(
    tmp_path: Path,
) -> None:
    rig, source, page = standby(tmp_path)
    source.produce(P0, traffic(10))
    async with rig.running():
        await rig.watch.until(lambda: rig.watch.given)
        await source.rebalance(frozenset({P0, P1}))
        restoring = page.judge()
        await rig.watch.until(lambda: len(rig.watch.opened_at) == 2)

    assert restoring.reasons == (
        f"{P0.source}: being restored",
        f"{P1.source}: being restored",
    )
    assert [judgement.ready for judgement in page.seen] == [False, True]
