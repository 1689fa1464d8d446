"""Alerts against their slow twin, however the input is cut and wherever it is restored."""

import random
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.core.alerts import AlertEngine
from streamproc.core.definition import (
    CitySpec,
    Definition,
    PropertySpec,
    RuleSpec,
    WindowSpec,
)
from streamproc.core.series import ClosedWindows, FoldedRows, SeriesNames
from streamproc.core.values import AlertTransition, TimerDecision, TopicPartition
from streamproc.kernels import heap
from tests.support.naive_alerts import NaiveAlerts

ORIGIN = TopicPartition("telemetry", 3)


def rule(name: str, prop: str, when: str | None, **more: object) -> RuleSpec:
    plain = {"window": None, "clear": None, "for_us": 0, "severity": "warning"}
    return RuleSpec(name=name, property=prop, when=when, **{**plain, **more})  # type: ignore[arg-type]


RULES = (
    rule("now", "pm10", "value > 5"),
    rule("held", "pm10", "value > 4", clear="value < 3", for_us=7),
    rule("held-long", "pm10", "value > 2", for_us=20, no_data_us=9, cities=("razlog",)),
    rule("gone", "no2", None, no_data_us=6),
    rule("wide", "no2", "value >= 1 and not value > 6", clear="value > 7", for_us=3),
    rule("hour", "pm10", "mean > 4", window="w", clear="p50 < 3 or max < 4", for_us=10),
    rule("hour-now", "no2", "count > 2 and stddev > 1", window="w", no_data_us=30),
    rule("spread", "pm10", "max - min > 3", window="v", for_us=4),
)
DEFINITION = Definition(
    job="region",
    windows=(WindowSpec("v", 4, 2, 0), WindowSpec("w", 5, 5, 0, (0.5,))),
    rules=RULES,
    properties=tuple(PropertySpec(p, "ug/m3") for p in ("temp", "pm10", "no2")),
    cities=tuple(CitySpec(c, c, "UTC") for c in ("jelgava", "razlog")),
)


@dataclass(frozen=True)
class Step:
    """One call: rows of one record, closed windows, or a timer; and the names by then."""

    names: SeriesNames
    rows: FoldedRows | None = None
    closed: ClosedWindows | None = None
    timer: TimerDecision | None = None
    watermark_us: int = 0


class World:
    """Makes up a stream: plausible enough that every rule fires and clears."""

    def __init__(self, seed: int, devices: int = 4) -> None:
        self.random = random.Random(seed)
        self.devices = ["a", *(f"d{number}" for number in range(1, devices))]
        self.ids: dict[tuple[int, int, int], int] = {}
        self.marks = [-1, -1]
        self.now = 0
        self.offset = 0

    def names(self) -> SeriesNames:
        city, device, prop = np.array(list(self.ids), np.int32).reshape(-1, 3).T.copy()
        return SeriesNames(
            city, device, prop, ("jelgava", "razlog"), self.devices,
            ("temp", "pm10", "no2"),
        )  # fmt: skip

    def steps(self, count: int) -> list[Step]:
        makers = (self.record, self.record, self.record, self.windows, self.timer)
        return [self.random.choice(makers)() for _ in range(count)]

    def record(self) -> Step:
        pick = self.random
        self.offset += pick.choice((1, 1, 1, 3))
        self.now += pick.choice((0, 1, 1, 2, 9))
        rows: list[tuple[int, int, int, int, float, bool, int]] = []
        for _ in range(pick.choice((1, 1, 2, 4))):
            device = pick.randrange(len(self.devices))
            place = (pick.randrange(2), device, pick.randrange(3))
            if (
                rows and pick.random() < 0.5
            ):  # several readings of one series in a record
                place = list(self.ids)[rows[-1][0]]
            series = self.ids.setdefault(place, len(self.ids))
            event = max(self.now - pick.choice((0, 0, 0, 1, 3, 25)), 0)
            self.marks[place[0]] = max(self.marks[place[0]], event)
            rows.append((
                series, place[0], event, self.offset,
                pick.choice((0.0, 2.5, 4.5, 5.5, 8.0)), pick.random() < 0.8,
                self.marks[place[0]],
            ))  # fmt: skip
        codes, city, event_us, offset, value, valid, mark = zip(*rows, strict=True)
        folded = FoldedRows(
            np.array(codes, np.int32), np.array(city, np.int32),
            np.array(event_us, np.int64), np.array(offset, np.int64),
            np.array(value), np.array(valid), np.array(mark, np.int64),
        )  # fmt: skip
        return Step(self.names(), rows=folded)

    def windows(self) -> Step:
        pick = self.random
        spec = pick.choice(DEFINITION.windows)
        n = pick.randrange(5) if self.ids else 0
        start = np.array([self.now + i for i in range(n)], np.int64) * spec.every_us
        count = np.array([pick.choice((0, 1, 3, 5)) for _ in range(n)], np.int64)
        low = np.array([pick.choice((0.0, 2.0, 5.0)) for _ in range(n)])
        span = np.array([pick.choice((0.0, 1.0, 4.0)) for _ in range(n)])
        gone = np.where(count > 0, 0.0, np.nan)
        closed = ClosedWindows(
            window=spec.name,
            series=np.array(
                [pick.randrange(min(len(self.ids), 5)) for _ in range(n)], np.int32
            ),
            start_us=start, end_us=start + spec.size_us, count=count,
            invalid=np.zeros(n, np.int64), sum=low * count,
            min=low + gone, max=low + span + gone, mean=low + span / 2 + gone,
            m2=span * count, first=low + gone, last=low + gone,
            coverage=np.full(n, np.nan),
            quantiles=np.repeat((low + gone)[:, None], len(spec.quantiles), axis=1),
            offset=np.full(n, self.offset, np.int64), reason=np.zeros(n, np.int32),
        )  # fmt: skip
        return Step(self.names(), closed=closed)

    def timer(self) -> Step:
        pick = self.random
        city = pick.randrange(2)
        decision = TimerDecision(
            kind=pick.choice(("idle", "silence", "final")),
            city=("jelgava", "razlog")[city],
            device=pick.choice((None, None, "a", "z")),
            offset=self.offset + 1,
            effective_us=self.now + pick.choice((0, 2, 8, 40)),
        )
        return Step(self.names(), timer=decision, watermark_us=self.marks[city])


def apply(engine: AlertEngine | NaiveAlerts, step: Step) -> list[AlertTransition]:
    if step.rows is not None:
        return list(engine.on_rows(step.names, step.rows))
    if step.closed is not None:
        return list(engine.on_closed(step.names, step.closed))
    assert step.timer is not None
    return list(engine.on_timer(step.names, step.timer, step.watermark_us))


def glued(steps: list[Step], cuts: list[bool]) -> list[Step]:
    """Join neighbouring records wherever no cut is wanted between them."""
    result: list[Step] = []
    for step, cut in zip(steps, cuts, strict=True):
        last = result[-1] if result else None
        if cut or last is None or last.rows is None or step.rows is None:
            result.append(step)
            continue
        columns = [
            np.concatenate((getattr(last.rows, f), getattr(step.rows, f)))
            for f in FoldedRows.__slots__
        ]
        result[-1] = Step(step.names, rows=FoldedRows(*columns))
    return result


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 120), st.data())
def test_the_engine_says_what_the_slow_twin_says_after_every_step(
    seed: int, length: int, data: st.DataObject
) -> None:
    engine = AlertEngine(ORIGIN, DEFINITION)
    # A small buffer makes the kernel stop in the middle of rows.
    engine._room = data.draw(st.sampled_from((2 * len(RULES), 1024)))
    naive = NaiveAlerts(ORIGIN, DEFINITION)

    for step in World(seed).steps(length):
        assert apply(engine, step) == apply(naive, step)
        assert engine.active().tolist() == naive.active(len(step.names.city))
        for city in range(2):
            due = min(naive.deadlines(step.names, city), default=2**63 - 1)
            assert engine.next_deadline(city) == due


@pytest.mark.parametrize("seed", [1, 2])
def test_hundreds_of_deadlines_come_up_in_their_order(seed: int) -> None:
    engine, naive = AlertEngine(ORIGIN, DEFINITION), NaiveAlerts(ORIGIN, DEFINITION)

    for step in World(seed, devices=100).steps(400):
        assert apply(engine, step) == apply(naive, step)


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 120), st.data())
def test_neither_cuts_nor_snapshots_change_a_transition(
    seed: int, length: int, data: st.DataObject
) -> None:
    steps = World(seed).steps(length)
    whole = AlertEngine(ORIGIN, DEFINITION)
    expected = [found for step in steps for found in apply(whole, step)]
    flags = st.lists(st.booleans(), min_size=length, max_size=length)

    engine = AlertEngine(ORIGIN, DEFINITION)
    found = []
    for step in glued(steps, data.draw(flags)):
        found += apply(engine, step)
        if data.draw(st.booleans()):
            tables = {name: _round_trip(t) for name, t in engine.tables().items()}
            engine = AlertEngine.restore(ORIGIN, DEFINITION, tables, None)

    assert found == expected
    assert engine.tables() == whole.tables()


def _round_trip(table: pa.Table) -> pa.Table:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return pa.ipc.open_file(sink.getvalue()).read_all()


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 120))
def test_forgetting_idle_series_renumbers_the_others_without_changing_them(
    seed: int, length: int
) -> None:
    world = World(seed)
    engine, other = AlertEngine(ORIGIN, DEFINITION), AlertEngine(ORIGIN, DEFINITION)
    for step in world.steps(length):
        apply(engine, step)
        apply(other, step)
    names = world.names()
    left = np.flatnonzero(engine.active())
    left = np.random.default_rng(seed).permutation(left)
    keep = np.full(len(names.city), -1, np.int64)
    keep[left] = np.arange(left.size)
    due = [engine.next_deadline(city) for city in range(2)]

    engine = AlertEngine.restore(ORIGIN, DEFINITION, engine.tables(), keep)

    chosen = SeriesNames(
        names.city[left], names.device[left], names.property[left],
        names.cities, names.devices, names.properties,
    )  # fmt: skip
    assert engine.active().tolist() == [True] * left.size
    for city in range(2):
        assert engine.next_deadline(city) >= due[city]
    for slug in ("jelgava", "razlog"):
        timer = TimerDecision("final", slug, None, 9**9, 10**6)
        said = [
            found
            for found in other.on_timer(names, timer, 0)
            if keep[_series(names, found)] >= 0
        ]
        after = engine.on_timer(chosen, timer, 0)
        assert sorted(after, key=repr) == sorted(said, key=repr)


def _series(names: SeriesNames, found: AlertTransition) -> int:
    codes = (
        names.cities.index(found.city),
        names.devices.index(found.device),
        names.properties.index(found.property),
    )
    columns = zip(names.city, names.device, names.property, strict=True)
    return [tuple(map(int, place)) for place in columns].index(codes)


@settings(max_examples=60)
@given(
    st.lists(
        st.one_of(st.tuples(st.integers(0, 11), st.integers(0, 20)), st.just("pop")),
        max_size=200,
    )
)
def test_the_heap_gives_back_the_lowest_bound_it_was_told(
    script: list[tuple[int, int] | str],
) -> None:
    nodes, roots = np.zeros(12, heap.NODE), np.full(1, heap.NO_NODE, np.int64)
    waiting: dict[int, int] = {}

    for line in [*script, *["pop"] * 12]:
        if isinstance(line, tuple):
            node, key = line
            heap.push(nodes, roots, 0, node, key)
            waiting[node] = min(key, waiting.get(node, key))
        elif waiting:
            root = int(roots[0])
            assert waiting.pop(root) == min(
                [int(nodes[root]["key"]), *waiting.values()]
            )
            roots[0] = heap.pop(nodes, root)

    assert not waiting
    assert roots[0] == heap.NO_NODE


@pytest.mark.parametrize("seed", range(3))
def test_the_made_up_streams_reach_every_rule_and_both_transitions(seed: int) -> None:
    naive = NaiveAlerts(ORIGIN, DEFINITION)
    found = {
        (t.rule, t.window is None and t.value is None, t.transition)
        for step in World(seed).steps(1500)
        for t in apply(naive, step)
    }

    opened = {(name, silent) for name, silent, transition in found if transition == 0}
    assert {name for name, _ in opened} == {spec.name for spec in RULES}
    assert {(name, silent) for name, silent, t in found if t == 1} == opened
