"""A record at which native code crashes costs three starts and goes to quarantine."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from streamproc.codecs.select import make_decoder
from streamproc.core.payloads import Payloads
from streamproc.core.ports import Decoder
from streamproc.core.values import Reason, Records, TopicPartition
from streamproc.runtime import caution
from streamproc.runtime.caution import CarefulDecoder
from streamproc.runtime.parts import ServiceOptions, ServiceParts
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from streamproc.testing.scripted_trial import ScriptedTrial
from tests.support.service import (
    RAZLOG,
    Rig,
    log_of,
    published,
    reading,
    readings_of,
    traffic,
)
from tests.support.wire import records_of

P0, P1 = TopicPartition(RAZLOG, 0), TopicPartition(RAZLOG, 1)
TO_END = ServiceOptions(until_end=True)
POISON = reading(0, 1.0, "poison")


class Crash(BaseException):
    """Stands for the end of the process: no part of the service may survive it."""


@dataclass
class CrashingRig(Rig):
    """A rig whose usual decoder crashes at the poison; `trials` are what went first."""

    def __post_init__(self) -> None:
        self.trials: list[ScriptedTrial] = []
        super().__post_init__()

    def _parts(self) -> ServiceParts:
        return replace(
            super()._parts(), make_decoder=Crashing, careful_decoder_for=self._careful
        )

    def _careful(self, topic: str) -> CarefulDecoder:
        self.trials.append(ScriptedTrial(b"poison"))
        return CarefulDecoder(Crashing(topic), self.trials[-1])


class Crashing:
    def __init__(self, topic: str) -> None:
        self._decoder = make_decoder("json")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def decode(self, records: Records) -> Any:
        if any(b"poison" in (value or b"") for value in records.values):
            raise Crash
        return self._decoder.decode(records)


def source(count: int = 60, partitions: int = 1) -> ScriptedSource:
    made = ScriptedSource({RAZLOG: partitions}, records_max=10)
    values = traffic(count)
    values[25] = POISON
    made.produce(P0, values)
    return made


async def crashed(root: Path) -> None:
    rig = CrashingRig(root, source(), ManualClock(), options=TO_END)
    with pytest.raises(Crash):
        await rig.run()
    assert not rig.trials


@pytest.mark.fault(
    "F37",
    how="a decoder that ends the run at one record, two owners before",
    seen="the third lets a trial go first; one record in quarantine, all else read",
)
async def test_the_third_owner_in_a_row_puts_the_record_into_quarantine_and_goes_on(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        await crashed(tmp_path)
    rig = CrashingRig(tmp_path, source(), ManualClock(), options=TO_END)

    await rig.run()

    (row,) = [r for r in published(tmp_path, "quarantine") if r["reason"] == "crashed"]
    assert (row["offset"], row["payload"]) == (25, POISON)
    others = sorted(n for _, n, *_ in readings_of(tmp_path))
    assert 24 in others
    assert 26 in others
    assert 25 not in others
    assert ("processing", "careful") in rig.watch.failures
    assert rig.trials[0].closed
    kinds = [record.kind for record in log_of(tmp_path)]
    assert kinds == ["genesis", "takeover", "takeover", "commit"]


async def test_it_is_read_as_ever_again_from_the_end_it_had_when_it_was_opened(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        await crashed(tmp_path)
    grown = source()
    rig = CrashingRig(tmp_path, grown, ManualClock(), options=ServiceOptions())
    async with rig.running():
        await rig.watch.until_at(P0, 60)
        assert [trial.closed for trial in rig.trials] == [False]

        grown.produce(P0, traffic(5, first=60))
        await rig.watch.until_at(P0, 65)

    assert [(trial.closed, trial.tried) for trial in rig.trials] == [(True, 60)]


async def test_a_partition_that_is_taken_away_leaves_no_trial_behind(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        await crashed(tmp_path)
    two = source(partitions=2)
    rig = CrashingRig(tmp_path, two, ManualClock(), options=ServiceOptions())
    async with rig.running():
        await rig.watch.until_at(P0, 60)
        assert [trial.closed for trial in rig.trials] == [False]

        await two.rebalance(frozenset({P1}))
        two.produce(P1, traffic(5))
        await rig.watch.until_at(P1, 5)

        assert [trial.closed for trial in rig.trials] == [True]


async def test_only_so_much_is_read_carefully_as_an_owner_reads_between_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        await crashed(tmp_path)
    monkeypatch.setattr(caution, "REACH", 30)
    rig = CrashingRig(tmp_path, source(), ManualClock(), options=TO_END)

    await rig.run()

    assert [(trial.closed, trial.tried) for trial in rig.trials] == [(True, 30)]


async def test_owners_that_had_nothing_to_read_make_nobody_careful(
    tmp_path: Path,
) -> None:
    for _ in range(5):
        empty = ScriptedSource({RAZLOG: 1})
        rig = CrashingRig(tmp_path, empty, ManualClock(), options=TO_END)
        await rig.run()
        assert rig.watch.failures == []


def careful() -> tuple[CarefulDecoder, Decoder]:
    return CarefulDecoder(make_decoder("json"), ScriptedTrial(b"poison")), make_decoder(
        "json"
    )


def test_what_is_not_deadly_is_decoded_as_without_a_trial() -> None:
    values = [*traffic(60), None, b"", POISON, *traffic(10, first=60)]
    guarded, usual = careful()
    others = [row for row, value in enumerate(values) if value != POISON]

    found = guarded.decode(records_of(values))
    expected = usual.decode(records_of([value for value in values if value != POISON]))

    rows = dict(enumerate(others))
    readings = found.readings.to_pylist()
    assert readings == [
        {**row, "row": rows[row["row"]]} for row in expected.readings.to_pylist()
    ]
    rejects = {r.row: r.reason for r in found.rejects}
    assert rejects.pop(values.index(POISON)) is Reason.CRASHED
    assert rejects == {rows[r.row]: r.reason for r in expected.rejects}
    assert [r.row for r in found.rejects] == sorted(r.row for r in found.rejects)


def test_the_payloads_of_a_batch_are_not_touched() -> None:
    records = records_of([POISON, *traffic(3)])
    before = Payloads(
        records.values.data, records.values.starts.copy(), records.values.ends
    )

    careful()[0].decode(records)

    assert list(records.values) == list(before)
