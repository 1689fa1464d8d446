"""Alert episodes, scene by scene; times are small numbers of microseconds."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from streamproc.core.alerts import AlertEngine, alert_document
from streamproc.core.definition import (
    CitySpec,
    Definition,
    PropertySpec,
    RuleSpec,
    WindowSpec,
    rule_version,
)
from streamproc.core.expressions import ExpressionError
from streamproc.core.series import ClosedWindows, FoldedRows, SeriesNames
from streamproc.core.values import AlertTransition, TimerDecision, TopicPartition

ORIGIN = TopicPartition("telemetry.razlog", 3)
FAR = 2**63 - 1
HIGH = RuleSpec("high", "pm10", None, "value > 50", "value < 45", 0, "warning")
HELD = RuleSpec("held", "pm10", None, "value > 50", None, 100, "warning")
GONE = RuleSpec("gone", "pm10", None, None, None, 0, "critical", no_data_us=100)
HOURLY = RuleSpec("hourly", "pm10", "1h", "mean > 50", "mean < 45", 0, "warning")


def definition(*rules: RuleSpec) -> Definition:
    return Definition(
        job="region",
        windows=(WindowSpec("1h", 60, 60, 5, (0.5,)), WindowSpec("1m", 1, 1, 0)),
        rules=rules,
        properties=(PropertySpec("no2", "ug/m3"), PropertySpec("pm10", "ug/m3")),
        cities=(CitySpec("nevers", "N", "UTC"), CitySpec("razlog", "R", "UTC")),
    )


# Series 0 and 1: pm10 of two devices in razlog; 2: no2 there; 3: pm10 in nevers.
NAMES = SeriesNames(
    city=np.array([1, 1, 1, 0], np.int32),
    device=np.array([0, 1, 0, 2], np.int32),
    property=np.array([1, 1, 0, 1], np.int32),
    cities=("nevers", "razlog"),
    devices=["a", "b", "c"],
    properties=("no2", "pm10"),
)


class Scene:
    """An engine, and rows one by one with the watermark they imply."""

    def __init__(self, *rules: RuleSpec) -> None:
        self.engine = AlertEngine(ORIGIN, definition(*rules))
        self.marks = [-1, -1]
        self.offset = 0

    def read(
        self,
        event: int,
        value: float,
        *,
        series: int = 0,
        valid: bool = True,
        step: int = 1,
    ) -> list[AlertTransition]:
        """Judge one reading; `step` 0 puts it into the record before it."""
        self.offset += step
        city = int(NAMES.city[series])
        self.marks[city] = max(self.marks[city], event)
        rows = FoldedRows(
            np.array([series], np.int32), np.array([city], np.int32),
            np.array([event]), np.array([self.offset]), np.array([value]),
            np.array([valid]), np.array([self.marks[city]]),
        )  # fmt: skip
        return list(self.engine.on_rows(NAMES, rows))

    def tick(
        self, until: int, *, city: str = "razlog", device: str | None = None
    ) -> list[AlertTransition]:
        timer = TimerDecision("silence", city, device, self.offset + 1, until)
        return list(self.engine.on_timer(NAMES, timer, self.marks[1]))

    def close(self, start: int, mean: float, **more: Any) -> list[AlertTransition]:
        """Judge one closed hour; `count=0` for one that held no valid reading."""
        columns: dict[str, Any] = {
            "series": 0, "start_us": start, "end_us": start + 60, "count": 4,
            "invalid": 0, "sum": mean * 4, "min": mean, "max": mean, "mean": mean,
            "m2": 16.0, "first": mean, "last": mean, "coverage": np.nan,
            "offset": self.offset, "reason": 0,
        }  # fmt: skip
        kinds = {"series": np.int32, "reason": np.int32}
        arrays = {
            name: np.array([value], kinds.get(name))
            for name, value in (columns | more).items()
        }
        closed = ClosedWindows(window="1h", quantiles=np.array([[mean]]), **arrays)
        return list(self.engine.on_closed(NAMES, closed))


def states(found: list[AlertTransition]) -> list[str]:
    return [alert.state for alert in found]


def test_a_rule_without_for_fires_at_the_reading_and_clears_by_hysteresis() -> None:
    scene = Scene(HIGH)

    assert not scene.read(1, 50.0)
    (fired,) = scene.read(2, 51.0)
    assert not scene.read(3, 47.0)
    assert not scene.read(4, 60.0)
    (cleared,) = scene.read(5, 44.0)

    assert fired.state == "firing"
    assert cleared.state == "cleared"
    assert (fired.event_us, fired.value, fired.offset) == (2, 51.0, 2)
    assert (cleared.event_us, cleared.value, cleared.offset) == (5, 44.0, 5)
    assert fired.alert_id == cleared.alert_id
    assert (fired.transition, cleared.transition) == (0, 1)
    assert fired.early
    assert cleared.early


def test_the_id_is_a_hash_over_what_names_the_episode() -> None:
    (fired,) = Scene(HIGH).read(2, 51.0)

    parts = ["region", rule_version(HIGH), "telemetry.razlog/3", "razlog", "a", "pm10"]
    text = json.dumps([*parts, "reading", "", 1], separators=(",", ":"))
    assert fired.alert_id == hashlib.sha256(text.encode()).hexdigest()[:32]


def test_two_episodes_out_of_one_record_have_two_ids() -> None:
    scene = Scene(HIGH)

    first = scene.read(1, 51.0) + scene.read(2, 1.0, step=0)
    second = scene.read(3, 51.0, step=0)

    assert states(first) == ["firing", "cleared"]
    assert states(second) == ["firing"]
    assert second[0].offset == first[0].offset
    assert second[0].alert_id != first[0].alert_id


def test_invalid_readings_are_not_judged() -> None:
    scene = Scene(HIGH)

    assert not scene.read(1, 99.0, valid=False)
    assert scene.read(2, 99.0)
    assert not scene.read(3, 1.0, valid=False)


def test_for_fires_once_the_watermark_has_come_far_enough() -> None:
    scene = Scene(HELD)

    assert not scene.read(1000, 51.0)
    assert not scene.read(1050, 70.0)
    assert not scene.read(1099, 1.0, series=2)
    (fired,) = scene.read(1100, 1.0, series=2)

    assert (fired.event_us, fired.value, fired.offset) == (1100, 70.0, 4)
    assert fired.device == "a"
    assert fired.early


def test_a_false_reading_starts_for_anew() -> None:
    scene = Scene(HELD)

    assert not scene.read(1000, 51.0)
    assert not scene.read(1100, 50.0)
    assert not scene.read(1150, 51.0)
    assert not scene.read(1249, 51.0)
    (fired,) = scene.read(1250, 51.0)

    assert fired.event_us == 1250


def test_another_city_s_watermark_moves_nothing() -> None:
    scene = Scene(HELD)

    scene.read(1000, 51.0)

    assert not scene.read(5000, 1.0, series=3)
    assert scene.engine.next_deadline(1) == 1100
    assert scene.engine.next_deadline(0) == FAR


def test_a_timer_fires_late_and_what_clears_it_waits_for_the_commit_too() -> None:
    scene = Scene(HELD)
    scene.read(1000, 51.0)

    assert not scene.tick(1099)
    (fired,) = scene.tick(1100)
    assert not scene.tick(1200)
    (cleared,) = scene.read(1001, 1.0)

    assert (fired.offset, fired.event_us) == (2, 1100)
    assert not fired.early
    assert not cleared.early
    assert cleared.alert_id == fired.alert_id


def test_a_timer_for_one_device_judges_that_device_only() -> None:
    scene = Scene(GONE)
    scene.read(1000, 1.0)
    scene.read(1000, 1.0, series=1)

    (fired,) = scene.tick(1100, device="b")

    assert fired.device == "b"
    assert not scene.tick(9999, device="nobody")
    assert [alert.device for alert in scene.tick(1100)] == ["a"]


def test_a_series_that_was_seen_and_falls_silent_is_told_of() -> None:
    scene = Scene(GONE)

    assert scene.read(1000, 1.0, valid=False) == []
    (fired,) = scene.read(1100, 1.0, series=2)
    assert not scene.read(1000, 1.0)
    (cleared,) = scene.read(1080, 1.0)

    assert (fired.device, fired.property, fired.value) == ("a", "pm10", None)
    assert (fired.event_us, fired.offset, fired.early) == (1100, 2, False)
    assert (cleared.event_us, cleared.offset, cleared.early) == (1080, 4, False)
    assert cleared.alert_id == fired.alert_id


def test_the_backlog_of_an_outage_does_not_clear_and_fire_with_every_reading() -> None:
    scene = Scene(GONE)
    scene.read(1000, 1.0)
    assert states(scene.read(5000, 1.0, series=1)) == ["firing"]

    found = [alert for t in range(1001, 4999, 50) for alert in scene.read(t, 1.0)]

    assert states(found) == ["cleared"]
    assert found[0].event_us == 4901


def test_an_expired_series_stays_expired_although_the_watermark_stands() -> None:
    scene = Scene(GONE)
    scene.read(1000, 1.0)

    assert states(scene.tick(1100)) == ["firing"]
    assert not scene.tick(1100)
    assert not scene.read(1001, 1.0, series=2)
    assert states(scene.read(1002, 1.0)) == ["cleared"]
    assert scene.engine.next_deadline(1) == 1102


@pytest.mark.parametrize("by_timer", [True, False])
def test_thousands_that_fall_silent_at_once_are_all_told_of(by_timer: bool) -> None:
    count = 5000
    ids = np.arange(count, dtype=np.int32)
    names = SeriesNames(
        np.ones(count, np.int32), ids, np.ones(count, np.int32),
        NAMES.cities, [f"d{number}" for number in ids], NAMES.properties,
    )  # fmt: skip
    seen = np.full(count, 1000)
    engine = AlertEngine(ORIGIN, definition(GONE))
    rows = FoldedRows(
        ids, names.city, seen, np.arange(count), np.zeros(count),
        np.ones(count, np.bool_), seen,
    )  # fmt: skip
    assert not engine.on_rows(names, rows)

    if by_timer:
        timer = TimerDecision("idle", "razlog", None, count, 1100)
        found = engine.on_timer(names, timer, 1000)
    else:
        one = [np.asarray(column[:1]).copy() for column in (ids, names.city, seen)]
        late = one[2] + 100
        found = engine.on_rows(
            names,
            FoldedRows(
                one[0], one[1], late, np.array([count]), np.zeros(1),
                np.ones(1, np.bool_), late,
            ),
        )  # fmt: skip

    assert len({alert.alert_id for alert in found}) == count - (not by_timer)
    assert {alert.state for alert in found} == {"firing"}
    assert engine.next_deadline(1) == (FAR if by_timer else 1200)


def test_silence_and_the_condition_are_episodes_of_their_own() -> None:
    both = RuleSpec("both", "pm10", None, "value > 50", None, 0, "w", no_data_us=100)
    scene = Scene(both)

    high = scene.read(1000, 51.0)
    silent = scene.read(1100, 1.0, series=2)

    assert states(high + silent) == ["firing", "firing"]
    assert high[0].alert_id != silent[0].alert_id
    assert states(scene.read(1101, 1.0)) == ["cleared", "cleared"]


def test_a_window_rule_fires_and_clears_at_close() -> None:
    scene = Scene(HOURLY)

    (fired,) = scene.close(0, 51.0)
    assert not scene.close(60, 47.0)
    (cleared,) = scene.close(120, 44.0)

    assert (fired.window, fired.event_us, fired.value) == ("1h", 60, 51.0)
    assert (cleared.event_us, cleared.value) == (180, 44.0)
    assert cleared.alert_id == fired.alert_id
    assert not fired.early
    assert not cleared.early


def test_for_sums_true_windows_and_skips_those_without_data() -> None:
    scene = Scene(RuleSpec("r", "pm10", "1h", "mean > 50", None, 120, "w"))

    assert not scene.close(0, 51.0)
    assert not scene.close(60, 10.0)
    assert not scene.close(120, 51.0)
    assert not scene.close(180, np.nan, count=0)
    (fired,) = scene.close(300, 52.0)

    assert fired.event_us == 360


@pytest.mark.parametrize(
    "when",
    [
        "count == 4 and invalid == 0", "sum == 204", "min <= mean == max", "m2 == 16",
        "variance == 4", "stddev == 2", "first == last", "p50 == 51",
        "not coverage < 0.75",
    ],
)  # fmt: skip
def test_every_variable_of_a_window_is_there(when: str) -> None:
    assert Scene(RuleSpec("r", "pm10", "1h", when, None, 0, "w")).close(0, 51.0)


def test_the_value_told_is_that_of_the_first_variable_and_null_where_it_has_none() -> (
    None
):
    text = "not coverage > 1 and mean > 1"
    (fired,) = Scene(RuleSpec("r", "pm10", "1h", text, None, 0, "w")).close(0, 51.0)

    assert fired.value is None


def test_other_windows_properties_and_cities_are_not_judged() -> None:
    here = RuleSpec("r", "pm10", None, "value > 50", None, 0, "w", cities=("nevers",))
    minute = RuleSpec("m", "pm10", "1m", "mean > 50", None, 0, "w")
    scene = Scene(here, minute)

    assert not scene.read(1, 99.0)
    assert not scene.read(1, 99.0, series=2)
    assert not scene.close(0, 99.0)
    assert [alert.city for alert in scene.read(1, 99.0, series=3)] == ["nevers"]


def test_without_rules_nothing_is_kept() -> None:
    scene = Scene()

    assert not scene.read(1, 99.0)
    assert not scene.close(0, 99.0)
    assert not scene.tick(99)
    assert scene.engine.tables()["cells"].num_rows == 0
    assert scene.engine.active().tolist() == [False] * 4
    assert scene.engine.next_deadline(0) == FAR


def test_open_and_pending_episodes_are_active() -> None:
    scene = Scene(HELD, GONE)

    scene.read(1000, 51.0)
    scene.read(1100, 1.0, series=1)
    assert scene.engine.active().tolist() == [True, False, False, False]

    scene.read(1101, 1.0)
    assert scene.engine.active().tolist() == [False, False, False, False]


def test_a_restored_engine_goes_on_under_changed_rules_and_cities() -> None:
    scene = Scene(HIGH, GONE)
    (fired,) = scene.read(1000, 51.0)
    fresh = RuleSpec("fresh", "pm10", None, "value > 1", None, 0, "w")
    after = replace(
        definition(),
        rules=(fresh, HIGH),
        cities=(CitySpec("razlog", "R", "UTC"), CitySpec("nevers", "N", "UTC")),
    )
    names = SeriesNames(
        1 - NAMES.city, NAMES.device, NAMES.property, ("razlog", "nevers"),
        NAMES.devices, NAMES.properties,
    )  # fmt: skip

    engine = AlertEngine.restore(ORIGIN, after, scene.engine.tables(), None)

    assert engine.active().tolist() == [True, False, False, False]
    assert engine.next_deadline(0) == FAR
    rows = FoldedRows(
        np.array([0], np.int32), np.array([0], np.int32), np.array([1001]),
        np.array([2]), np.array([44.0]), np.array([True]), np.array([1001]),
    )  # fmt: skip
    new, cleared = engine.on_rows(names, rows)
    assert (new.rule, new.state) == ("fresh", "firing")
    assert (cleared.rule, cleared.state) == ("high", "cleared")
    assert cleared.alert_id == fired.alert_id


def test_deadlines_are_known_right_after_a_restore() -> None:
    scene = Scene(HELD, GONE)
    scene.read(1000, 51.0, series=3)
    tables = scene.engine.tables()

    engine = AlertEngine.restore(ORIGIN, definition(GONE, HELD), tables, None)

    assert [engine.next_deadline(city) for city in range(2)] == [1100, FAR]
    assert engine.tables()["cells"].num_rows == 2


def test_an_expression_config_would_refuse_is_refused_here_too() -> None:
    with pytest.raises(ExpressionError, match="did you mean value"):
        Scene(RuleSpec("r", "pm10", None, "valeu > 1", None, 0, "w"))


def test_the_document_carries_the_published_columns_and_the_city() -> None:
    (fired,) = Scene(HIGH).read(1_500_000, 51.0)

    document = alert_document(fired)

    assert document["event_time"] == "1970-01-01T00:00:01.500000Z"
    assert document["city"] == "razlog"
    assert "early" not in document
