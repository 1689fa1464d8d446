"""Cities that all have records waiting get their shares of the intake."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from streamproc.core.values import Records, TopicPartition
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.service import ANGE, RAZLOG, Rig, Watch, accounted, reading

RAZLOG_0 = TopicPartition(RAZLOG, 0)
RAZLOG_1 = TopicPartition(RAZLOG, 1)
ANGE_0 = TopicPartition(ANGE, 0)
BATCH = 4
PADDING = b" " * (1 << 18)
"""Four records of 256 KiB are what a round gives the city with the greatest weight."""


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
