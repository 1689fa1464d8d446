"""A registry is asked with patience; then its records go to quarantine, not before."""

import asyncio
import struct
from pathlib import Path

from streamproc.core.ports import SchemaProblem, WireSchema
from streamproc.core.values import TopicPartition
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.service import RAZLOG, Rig, log_of, published

P0 = TopicPartition(RAZLOG, 0)


class Registry:
    """Answers as told, and counts."""

    def __init__(self, answer: WireSchema | SchemaProblem) -> None:
        self.answer = answer
        self.asked = 0
        self.was_asked = asyncio.Event()

    async def fetch(self, schema_id: int) -> WireSchema | SchemaProblem:
        self.asked += 1
        self.was_asked.set()
        return self.answer


def framed(*ids: int) -> ScriptedSource:
    source = ScriptedSource({RAZLOG: 1})
    source.produce(P0, [b"\0" + struct.pack(">i", number) + b"\0" for number in ids])
    return source


def rig_with(
    root: Path, registry: Registry | None, clock: ManualClock, **more: object
) -> Rig:
    return Rig(
        root, framed(7, 7), clock, registry=registry, formats={RAZLOG: "avro"},
        patience_us=5_000_000, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def reasons(root: Path) -> list[str]:
    return [row["reason"] for row in published(root, "quarantine")]


async def test_a_registry_that_is_down_is_asked_until_patience_ends(
    tmp_path: Path,
) -> None:
    clock, registry = (
        ManualClock(),
        Registry(SchemaProblem(missing=False, detail="down")),
    )
    rig = rig_with(tmp_path, registry, clock)
    async with rig.running():
        for seconds in range(5):
            await registry.was_asked.wait()
            registry.was_asked.clear()
            assert registry.asked == seconds + 1
            assert not rig.watch.stepped_to
            await rig._until_asleep(3)
            clock.advance(1.0)
        await rig.watch.until(lambda: rig.watch.stepped_to)

    assert reasons(tmp_path) == ["registry_unavailable"] * 2


async def test_an_unknown_schema_is_certain_at_once(tmp_path: Path) -> None:
    registry = Registry(SchemaProblem(missing=True, detail="no schema 7"))
    options = ServiceOptions(until_end=True)
    await rig_with(tmp_path, registry, ManualClock(), options=options).run()

    assert registry.asked == 1
    assert reasons(tmp_path) == ["unknown_schema"] * 2


async def test_without_a_registry_the_schema_is_unknown(tmp_path: Path) -> None:
    await rig_with(
        tmp_path, None, ManualClock(), options=ServiceOptions(until_end=True)
    ).run()

    assert reasons(tmp_path) == ["unknown_schema"] * 2


async def test_a_stop_during_an_outage_quarantines_nothing(tmp_path: Path) -> None:
    clock, registry = (
        ManualClock(),
        Registry(SchemaProblem(missing=False, detail="down")),
    )
    rig = rig_with(tmp_path, registry, clock)
    async with rig.running():
        await registry.was_asked.wait()
        rig.service.stop()
        await rig._until_asleep(3)
        clock.advance(1.0)

    assert reasons(tmp_path) == []
    assert [record.kind for record in log_of(tmp_path)] == ["genesis"]
