"""Cities that all have records waiting get their shares of the intake."""

from collections import deque
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from streamproc.core.flush import FlushPolicy
from streamproc.core.values import Emission, Records, TopicPartition
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.failpoints import verified_logs
from tests.support.service import ANGE, RAZLOG, Rig, Watch, accounted, reading

RAZLOG_0 = TopicPartition(RAZLOG, 0)
RAZLOG_1 = TopicPartition(RAZLOG, 1)
ANGE_0 = TopicPartition(ANGE, 0)
BATCH = 4
PADDING = b" " * (1 << 18)
"""Four records of 256 KiB are what a round gives the city with the greatest weight."""

FLOOD = 50
"""Times as much as the other city sends."""


class Order(Watch):
    """Remembers whose batches were folded, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def stepped(self, records: object, emission: object, seconds: float) -> None:
        self.order.append(records.origin.topic)  # type: ignore[attr-defined]
        super().stepped(records, emission, seconds)  # type: ignore[arg-type]


def padded(count: int) -> list[bytes]:
    return [reading(number, 1.0) + PADDING for number in range(count)]


@pytest.mark.parametrize(("weight", "share"), [(1, 1.0), (3, 1 / 3)])
async def test_a_city_with_a_backlog_in_two_partitions_gets_its_weight_and_no_more(
    tmp_path: Path, weight: int, share: float
) -> None:
    source = ScriptedSource({RAZLOG: 2, ANGE: 1}, records_max=BATCH)
    source.produce(RAZLOG_0, padded(48))
    source.produce(RAZLOG_1, padded(48))
    source.produce(ANGE_0, padded(48))
    watch = Order()
    options = ServiceOptions(until_end=True, weights={"razlog": 1, "ange": weight})
    rig = Rig(tmp_path, source, ManualClock(), options=options, watch=watch)
    await rig.run()

    last = max(n for n, topic in enumerate(watch.order) if topic == ANGE)
    before = watch.order[:last].count(RAZLOG)
    assert before == pytest.approx(12 * share, abs=4)
    assert len(accounted(tmp_path)) == 144


async def test_a_city_alone_is_read_without_a_pause(tmp_path: Path) -> None:
    source = ScriptedSource({RAZLOG: 1, ANGE: 1}, records_max=BATCH)
    source.produce(RAZLOG_0, padded(40))
    asked: list[tuple[object, int]] = []
    fetch = source.fetch

    async def noting(timeout_ms: int, among: object = None) -> Sequence[Records]:
        found = await fetch(timeout_ms, among)  # type: ignore[arg-type]
        asked.append((among, len(found)))
        return found

    source.fetch = noting  # type: ignore[method-assign]
    options = ServiceOptions(until_end=True, weights={"razlog": 1, "ange": 1})
    await Rig(tmp_path, source, ManualClock(), options=options).run()

    # Whoever is in debt waits until the others were asked, once, and had nothing.
    in_vain = [among for among, found in asked if among is not None and not found]
    assert len(in_vain) <= 10
    assert len(accounted(tmp_path)) == 40


class Crowded(ScriptedSource):
    """A fetch is full before it comes to anybody else, while the greedy one has records."""

    async def fetch(
        self, timeout_ms: int, among: Collection[TopicPartition] | None = None
    ) -> Sequence[Records]:
        for partition in (RAZLOG_0, RAZLOG_1):
            if among is None or partition in among:
                found = await super().fetch(0, {partition})
                if found:
                    return found
        return await super().fetch(timeout_ms, among)


class Trickle(Watch):
    """Lets a record of the quiet city come for every `FLOOD` folded of the greedy one.

    `delays`: how many of the greedy one's were folded from the coming of each to its own folding.
    """

    def __init__(self, source: ScriptedSource) -> None:
        super().__init__()
        self._source = source
        self._came: deque[int] = deque()
        self._flooded = 0
        self.delays: list[int] = []

    def stepped(self, records: Records, emission: Emission, seconds: float) -> None:
        if records.origin == ANGE_0:
            for _ in range(len(records)):
                self.delays.append(self._flooded - self._came.popleft())
        else:
            before, self._flooded = self._flooded, self._flooded + len(records)
            for _ in range(self._flooded // FLOOD - before // FLOOD):
                self._came.append(self._flooded)
                self._source.produce(ANGE_0, [reading(self._flooded, 1.0)])
        super().stepped(records, emission, seconds)


@pytest.mark.parametrize("backlog", [5, 20])
@pytest.mark.fault(
    "F39",
    how="50 records of one city for each of another, which a full fetch has no room for",
    seen="each waits for two batches of the flood at most, however much of it there is",
)
async def test_a_flood_holds_up_no_other_city_for_longer_than_two_of_its_batches(
    tmp_path: Path, backlog: int
) -> None:
    source = Crowded({RAZLOG: 2, ANGE: 1}, records_max=BATCH)
    for partition in (RAZLOG_0, RAZLOG_1):
        source.produce(partition, padded(backlog * FLOOD // 2))
    watch = Trickle(source)
    options = ServiceOptions(weights={"razlog": 1, "ange": 1})
    flush = FlushPolicy(rows_max=40)
    rig = Rig(
        tmp_path, source, ManualClock(), options=options, flush=flush, watch=watch
    )
    async with rig.running():
        await watch.until(lambda: len(watch.delays) == backlog)

    assert max(watch.delays) <= 2 * BATCH
    assert len(accounted(tmp_path)) == len(set(accounted(tmp_path)))
    assert len(accounted(tmp_path)) == backlog * FLOOD + backlog
    verified_logs(tmp_path)


async def test_a_city_with_fifty_partitions_gets_no_more_than_one_with_one(
    tmp_path: Path,
) -> None:
    """What one fetch brings of all of them goes beyond its share once, and is made up for."""
    source = ScriptedSource({RAZLOG: FLOOD, ANGE: 1}, records_max=1)
    for partition in range(FLOOD):
        source.produce(TopicPartition(RAZLOG, partition), padded(8))
    source.produce(ANGE_0, padded(100))
    watch = Order()
    options = ServiceOptions(until_end=True, weights={"razlog": 1, "ange": 1})
    await Rig(tmp_path, source, ManualClock(), options=options, watch=watch).run()

    last = max(n for n, topic in enumerate(watch.order) if topic == ANGE)
    assert watch.order[:last].count(RAZLOG) <= 100 + 2 * FLOOD
    assert len(accounted(tmp_path)) == 8 * FLOOD + 100
