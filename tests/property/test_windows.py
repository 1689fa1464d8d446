"""What the fold promises whatever the input: cuts are invisible, and it equals its slow twin."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from io import BytesIO
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given

from streamproc.core import sketch
from streamproc.core.definition import (
    CitySpec,
    Definition,
    DeviceSpec,
    PropertySpec,
    RuleSpec,
    WindowSpec,
)
from streamproc.core.processor import PartitionProcessor
from streamproc.core.values import Emission, TimerDecision, TopicPartition
from tests.support.naive_windows import NaiveWindows, Row, Spec
from tests.support.readings import Reading, Record, batch_of

ORIGIN = TopicPartition("telemetry", 3)
ZONES = {"ange": UTC, "razlog": UTC}
DEVICES = ("d0", "d1", "d2", "d3")
CITY = {"d0": "ange", "d1": "ange", "d2": "razlog", "d3": "razlog"}
INTERVAL = {"d1": 3, "d2": 7, "d3": 100}

WINDOWS = (
    WindowSpec("plain", 10, 10, 0),
    WindowSpec("patient", 10, 10, 25, (0.5,)),
    WindowSpec("hop", 30, 10, 5),
    WindowSpec("odd", 25, 10, 12, (0.1, 0.9)),
)


def definition_of(
    watermark: str, dedup: int, rules: tuple[RuleSpec, ...] = ()
) -> Definition:
    return Definition(
        job="test",
        windows=WINDOWS,
        rules=rules,
        properties=(PropertySpec("pm10", "ug/m3"), PropertySpec("no2", "ug/m3")),
        cities=(CitySpec("ange", "Ånge", "UTC"), CitySpec("razlog", "Razlog", "UTC")),
        devices=tuple(DeviceSpec(CITY[d], d, INTERVAL.get(d)) for d in DEVICES),
        watermark=watermark,  # type: ignore[arg-type]  # one of the two literals
        dedup=dedup,
    )


@dataclass(frozen=True)
class Act:
    """Something at an offset that is no record: a timer decision, or a cut."""

    kind: str
    place: str = ""


Step = Record | Act


@st.composite
def streams(draw: st.DrawFn, size: int = 60) -> list[Step]:
    """Nearly ordered readings with duplicates, conflicts, invalid ones, outages and jumps."""
    moves = st.one_of(
        st.integers(-3, 6), st.integers(-60, 20), st.sampled_from([0, 0, 45, 400])
    )
    reading = st.tuples(
        st.sampled_from(DEVICES),
        st.sampled_from(["pm10", "no2"]),
        moves,
        st.sampled_from([1.5, 1.5, -2.25, 0.1, 7.7e5, 0.0]),
        st.sampled_from([1, 1, 1, 0]),
    )
    act = st.one_of(
        st.just(Act("cut")),
        st.builds(Act, st.just("idle"), st.sampled_from(DEVICES)),
        st.builds(Act, st.just("final"), st.sampled_from(["ange", "razlog"])),
    )
    record = st.lists(reading, min_size=1, max_size=3)
    chosen = draw(
        st.lists(st.one_of(record, record, record, record, act), max_size=size)
    )
    now, offset, steps = 1000, 5, list[Step]()
    for item in chosen:
        if isinstance(item, Act):
            steps.append(item)
            continue
        readings = []
        for device, kind, move, value, quality in item:
            now = max(0, now + max(move, -3)) if move > -4 else now
            readings.append(
                Reading(device, kind, now + min(move, 0), value, quality=quality)
            )
        steps.append(Record(offset, tuple(readings)))
        offset += draw(st.sampled_from([1, 1, 4]))
    return steps


def timer_of(act: Act, definition: Definition, offset: int) -> TimerDecision:
    by_device = definition.watermark == "device"
    if act.kind == "final":
        return TimerDecision("final", act.place, None, offset, 0)
    device = act.place if by_device else None
    return TimerDecision("idle", CITY[act.place], device, offset, 0)


def batches_of(steps: Sequence[Step], cuts: Sequence[int]) -> list[list[Step]]:
    """Split into runs of records (an act stands alone), further cut at positions in `cuts`."""
    runs: list[list[Step]] = []
    for place, step in enumerate(steps):
        alone = isinstance(step, Act) or not runs or isinstance(runs[-1][0], Act)
        if alone or place in cuts:
            runs.append([step])
        else:
            runs[-1].append(step)
    return runs


class Run:
    """A processor driven over steps; collects what it says."""

    def __init__(
        self, definition: Definition, processor: PartitionProcessor | None = None
    ) -> None:
        self.definition = definition
        self.processor = processor or PartitionProcessor(ORIGIN, definition, ZONES)
        self.emissions: list[Emission] = []
        self.aggregates: list[pa.RecordBatch] = []
        self.commits = 0

    def drive(self, runs: Sequence[Sequence[Step]], offset: int = 5) -> None:
        for run in runs:
            records = [step for step in run if isinstance(step, Record)]
            for act in [step for step in run if isinstance(step, Act)]:
                if act.kind == "cut":
                    self.commits += 1
                    self.aggregates.append(self.processor.cut(self.commits))
                else:
                    self._keep(
                        self.processor.take(timer_of(act, self.definition, offset), 0)
                    )
            if records:
                offset = records[-1].offset + 1
                self._keep(self.processor.step(*batch_of(ORIGIN, records), now_us=0))

    def _keep(self, emission: Emission) -> None:
        for name in ("readings", "aggregates", "late", "quarantine"):
            getattr(emission, name).validate(full=True)
        self.emissions.append(emission)
        self.aggregates.append(emission.aggregates)

    def rows(self, name: str) -> list[dict[str, Any]]:
        found = (
            self.aggregates
            if name == "aggregates"
            else [getattr(e, name) for e in self.emissions]
        )
        return [row for batch in found for row in plain(batch)]

    def result(self) -> tuple[Any, ...]:
        alerts = [alert for e in self.emissions for alert in e.alerts]
        tables = [
            self.rows(n) for n in ("readings", "aggregates", "late", "quarantine")
        ]
        return (*tables, alerts, snapshot_bytes(self.processor.snapshot()))


@pytest.mark.parametrize("watermark", ["city", "device"])
@given(steps=streams())
def test_silent_neighbours_change_nothing(watermark: str, steps: list[Step]) -> None:
    """Few of many series with data are found by their chain, most of them by going over all."""
    definition = definition_of(watermark, 2)
    silent = [DeviceSpec("ange", f"silent-{n}") for n in range(60)]
    crowd = replace(definition, devices=(*definition.devices, *silent))
    early = Record(1, tuple(Reading(d.device, "pm10", 1, 1.0) for d in silent))
    alone, crowded = Run(definition), Run(crowd)
    crowded.drive([[early]])

    alone.drive(batches_of(steps, ()))
    crowded.drive(batches_of(steps, ()))

    for name in ("readings", "aggregates", "late"):
        mine = [r for r in crowded.rows(name) if not r["device"].startswith("silent")]
        assert repr(mine) == repr(alone.rows(name))


def plain(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return rows as Python values, times as int64 µs."""
    columns = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        is_time = pa.types.is_timestamp(field.type)
        columns[field.name] = (
            column.view(pa.int64()) if is_time else column
        ).to_pylist()
    names = list(columns)
    return [
        dict(zip(names, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


def snapshot_bytes(tables: dict[str, pa.Table]) -> dict[str, bytes]:
    found = {}
    for name, table in tables.items():
        target = BytesIO()
        with pa.ipc.new_stream(target, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        found[name] = target.getvalue()
    return found


RULES = (
    RuleSpec("high", "pm10", None, "value > 1", "value < 0", 3, "warning"),
    RuleSpec("mean", "no2", "patient", "mean > 0.5", None, 10, "warning"),
    RuleSpec("odd", "no2", "odd", "p90 > 1 and count > 1", None, 0, "info"),
    RuleSpec("gone", "pm10", None, None, None, 0, "critical", no_data_us=40),
)

modes = st.sampled_from(["city", "device"])
depths = st.sampled_from([1, 2, 16])


@given(streams(), st.sets(st.integers(0, 60)), modes, depths)
def test_where_batches_are_cut_never_changes_a_result(
    steps: list[Step], cuts: set[int], watermark: str, dedup: int
) -> None:
    definition = definition_of(watermark, dedup, RULES)
    whole, pieces, single = Run(definition), Run(definition), Run(definition)
    whole.drive(batches_of(steps, []))
    pieces.drive(batches_of(steps, sorted(cuts)))
    single.drive(batches_of(steps, range(len(steps))))

    assert pieces.result() == whole.result()
    assert single.result() == whole.result()


def twin_of(steps: Sequence[Step], definition: Definition) -> NaiveWindows:
    specs = [
        Spec(w.name, w.size_us, w.every_us, w.lateness_us, bool(w.quantiles))
        for w in definition.windows
    ]
    by_device = definition.watermark == "device"
    twin = NaiveWindows(specs, by_device, definition.dedup, INTERVAL)
    commits = 0
    for step in steps:
        if isinstance(step, Record):
            for r in step.readings:
                twin.accept(
                    Row(
                        CITY[r.device],
                        r.device,
                        r.property,
                        r.event_us,
                        r.value,
                        r.quality,
                        step.offset,
                    )
                )
        elif step.kind == "cut":
            commits += 1
            twin.cut(commits)
        else:
            keys = (
                [d for d in DEVICES if CITY[d] == step.place]
                if by_device
                else [step.place]
            )
            if step.kind == "idle":
                keys = [step.place if by_device else CITY[step.place]]
            twin.close_keys(keys, step.kind)
    return twin


def assert_equal_to_twin(run: Run, twin: NaiveWindows) -> None:
    assert [row["flags"] for row in run.rows("readings")] == twin.flags
    late = [
        (r["offset"], r["window"], r["start"], r["behind_us"]) for r in run.rows("late")
    ]
    assert late == twin.late
    rows = run.rows("aggregates")
    assert len(rows) == len(twin.aggregates)
    for row, expected in zip(rows, twin.aggregates, strict=True):
        values = expected.pop("values")
        coverage = expected.pop("coverage")
        assert {name: row[name] for name in expected} == expected
        assert row["coverage"] == (
            None if coverage is None else pytest.approx(coverage)
        )
        assert isinstance(values, list)
        assert_sketch(row["sketch"], values)


def assert_sketch(data: bytes | None, values: list[float]) -> None:
    if not values:
        assert data is None
        return
    assert data is not None
    assert sketch.count(data) == len(values)
    # However it came together, in panes and chunks: the sketch of this multiset.
    assert data == sketch.encode(np.array(values))
    tolerance = 0.01 if len(values) > sketch.EXACT_MAX else 0.0
    for q in (0.0, 0.1, 0.5, 0.95, 1.0):
        exact = values[int(q * (len(values) - 1))]
        assert abs(sketch.quantile(data, q) - exact) <= tolerance * abs(exact)


@given(streams(), modes, depths)
def test_the_fold_equals_its_slow_twin(
    steps: list[Step], watermark: str, dedup: int
) -> None:
    definition = definition_of(watermark, dedup)
    run = Run(definition)
    run.drive(batches_of(steps, []))

    assert_equal_to_twin(run, twin_of(steps, definition))


@given(streams(), st.integers(0, 60), modes, depths)
def test_a_restored_processor_goes_on_as_the_straight_one(
    steps: list[Step], at: int, watermark: str, dedup: int
) -> None:
    definition = definition_of(watermark, dedup, RULES)
    straight, first = Run(definition), Run(definition)
    straight.drive(batches_of(steps, []))
    first.drive(batches_of(steps[:at], []))
    tables = first.processor.snapshot()
    restored = PartitionProcessor.restore(ORIGIN, definition, ZONES, tables, 0)

    assert snapshot_bytes(restored.snapshot()) == snapshot_bytes(tables)

    second = Run(definition, restored)
    second.commits = first.commits
    last = [step for step in steps[:at] if isinstance(step, Record)]
    second.drive(batches_of(steps[at:], []), last[-1].offset + 1 if last else 5)
    for run in (straight,):
        *tables_of, alerts, state = run.result()
        *a, alerts_a, _ = first.result()
        *b, alerts_b, state_b = second.result()
        assert [x + y for x, y in zip(a, b, strict=True)] == tables_of
        assert alerts_a + alerts_b == alerts
        assert state_b == state


@given(streams(), st.integers(0, 60), modes, depths)
def test_refolding_published_readings_gives_the_straight_state(
    steps: list[Step], at: int, watermark: str, dedup: int
) -> None:
    definition = definition_of(watermark, dedup, RULES)
    straight, first = Run(definition), Run(definition)
    straight.drive(batches_of(steps, []))
    first.drive(batches_of(steps[:at], []))
    tables = first.processor.snapshot()
    again = PartitionProcessor.restore(ORIGIN, definition, ZONES, tables, 0)
    second = Run(definition, again)
    second.commits = first.commits
    last = [step for step in steps[:at] if isinstance(step, Record)]
    offset = last[-1].offset + 1 if last else 5
    # What was published after the snapshot, act by act as a log would replay it.
    for run in batches_of(steps[at:], []):
        if isinstance(run[0], Act):
            second.drive([run], offset)
            continue
        records = [step for step in run if isinstance(step, Record)]
        published = straight_readings(straight, records)
        again.refold(published)
        offset = records[-1].offset + 1

    assert snapshot_bytes(again.snapshot()) == snapshot_bytes(
        straight.processor.snapshot()
    )


def straight_readings(run: Run, records: Sequence[Record]) -> pa.Table:
    """Return the published readings of some records."""
    table = pa.Table.from_batches([e.readings for e in run.emissions])
    low, high = records[0].offset, records[-1].offset
    offset = table["offset"].to_numpy()
    chosen = table.filter(pa.array((offset >= low) & (offset <= high)))
    # A file's dictionary has an order of its own.
    names = pa.array(sorted(DEVICES, reverse=True))
    codes = pc.index_in(chosen["device"].cast(pa.string()).combine_chunks(), names)
    device = pa.DictionaryArray.from_arrays(codes, names)
    return chosen.set_column(2, chosen.schema.field("device"), device)


@pytest.mark.parametrize("watermark", ["city", "device"])
def test_a_long_stream_grows_every_buffer_and_still_equals_its_twin(
    watermark: str,
) -> None:
    rng = random.Random(7)
    now, steps = 1000, list[Step]()
    for offset in range(5, 6005):
        now += rng.choice([0] * 19 + [1])
        behind = rng.choice([0, 0, 0, 0, 1, 5, 300])
        reading = Reading(
            rng.choice(DEVICES),
            "pm10",
            now - behind,
            rng.lognormvariate(0, 3) * rng.choice([-1, 1, 1]),
        )
        steps.append(Record(offset, (reading,)))
    definition = definition_of(watermark, 1)
    run, halves = Run(definition), Run(definition)
    run.drive(batches_of([*steps, Act("cut")], []))
    halves.drive(batches_of([*steps, Act("cut")], range(0, 6005, 97)))

    assert run.result() == halves.result()
    assert_equal_to_twin(run, twin_of([*steps, Act("cut")], definition))
