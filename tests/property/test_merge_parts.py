"""Merging parts: whatever the grouping, the answer is that of one direct computation."""

import math
import statistics
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.analytics.dataset import schema_of
from streamproc.analytics.folding import Runs, earliest, latest, moments, total
from streamproc.analytics.merge import aggregates, merge_parts, roll_up
from streamproc.core import sketch
from tests.support.tables import HOUR_US, START_US, Row, part

MINUTE_US = 60_000_000


def frame(rows: list[Row]) -> pl.DataFrame:
    """Parts as `open_aggregates` returns them."""
    schema = {**schema_of("aggregates"), "window": pl.String()}
    return pl.DataFrame(rows, schema=schema, orient="row", strict=False)


def observed(minutes: list[int], values: list[float], **changes: Any) -> Row:
    """One part over readings at these minutes of the hour, computed directly."""
    n = len(values)
    mean = math.fsum(values) / n if n else None
    m2 = math.fsum((v - mean) ** 2 for v in values) if mean is not None else 0.0
    ordered = sorted(zip(minutes, values, strict=True))
    base = {
        "slots": sum({1 << m for m in minutes}),
        "coverage": len(set(minutes)) / 60,
        "sum": math.fsum(values),
        "mean": mean,
        "m2": m2,
        "variance": m2 / n if n else None,
        "sketch": sketch.encode(np.array(values)) if n else None,
    }
    if n:
        base["first"], base["last"] = ordered[0][1], ordered[-1][1]
        base["first_time"] = START_US + ordered[0][0] * MINUTE_US
        base["last_time"] = START_US + ordered[-1][0] * MINUTE_US
    return part(values, **{**base, **changes})


readings = st.lists(
    st.tuples(
        st.integers(0, 59),
        st.floats(-1e6, 1e6).map(lambda v: round(v, 3)),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda r: r[0],
)


@given(readings)
def test_parts_in_any_grouping_equal_a_direct_computation(
    drawn: list[tuple[int, float, int]],
) -> None:
    rows = []
    for number in range(5):
        mine = [(m, v) for m, v, at in drawn if at == number]
        rows.append(
            observed([m for m, _ in mine], [v for _, v in mine], part=number, invalid=1)
        )

    merged = aggregates(frame(rows), "1h", quantiles=(0.0, 0.5, 1.0)).row(0, named=True)

    values = [v for _, v, _ in drawn]
    scale = max(1.0, *map(abs, values))
    assert merged["count"] == len(values)
    assert merged["invalid"] == 5
    assert merged["parts"] == 5
    assert (merged["min"], merged["max"]) == (min(values), max(values))
    ordered = sorted((m, v) for m, v, _ in drawn)
    assert (merged["first"], merged["last"]) == (ordered[0][1], ordered[-1][1])
    for name, expected in (
        ("sum", math.fsum(values)),
        ("mean", math.fsum(values) / len(values)),
        ("variance", statistics.pvariance(values)),
    ):
        slack = 1e-9 * scale * (scale if name == "variance" else len(values))
        assert merged[name] == pytest.approx(expected, rel=1e-9, abs=slack), name
    assert merged["coverage"] == pytest.approx(
        len({m for m, _, _ in drawn}) / 60, rel=1e-6
    )
    assert (merged["p0"], merged["p100"]) == pytest.approx(
        (min(values), max(values)), rel=0.01
    )
    median = sorted(values)[(len(values) - 1) // 2]
    assert merged["p50"] == pytest.approx(median, rel=0.0101)


@given(readings, st.permutations(range(5)))
def test_the_order_of_rows_never_changes_a_bit(
    drawn: list[tuple[int, float, int]], order: list[int]
) -> None:
    rows = []
    for number in range(5):
        mine = [(m, v) for m, v, at in drawn if at == number]
        rows.append(
            observed(
                [m for m, _ in mine],
                [v for _, v in mine],
                part=number % 3,
                source=f"t/{number}",
            )
        )

    straight = merge_parts(frame(rows), sketches=True)

    assert merge_parts(frame([rows[i] for i in order]), sketches=True).equals(straight)


def test_a_window_of_one_part_comes_back_bit_for_bit() -> None:
    row = observed([3, 5, 7], [0.1, 0.2, 0.7], variance=0.123, mean=0.3333)

    merged = aggregates(frame([row]), "1h").row(0, named=True)

    published = frame([row]).row(0, named=True)
    for name in merged.keys() & published.keys():
        assert merged[name] == published[name], name


def test_series_windows_and_units_are_kept_apart() -> None:
    rows = [
        part([1.0]),
        part([2.0], device="d2"),
        part([3.0], property="no2"),
        part([4.0], city="nevers"),
        part([5.0], start=START_US + HOUR_US),
        part([6.0], unit="mg/m3"),
        part([7.0], window="1d"),
        part([8.0], part=9),
    ]

    merged = aggregates(frame(rows), "1h")

    assert merged["sum"].to_list() == [4.0, 3.0, 6.0, 9.0, 5.0, 2.0]
    assert merged["window"].unique().to_list() == ["1h"]


def test_parts_without_valid_readings_define_nothing() -> None:
    nothing = part([], invalid=2)

    (merged,) = aggregates(
        frame([nothing, part([], part=3, invalid=1)]), "1h"
    ).to_dicts()

    assert (merged["count"], merged["invalid"], merged["sum"], merged["m2"]) == (
        0,
        3,
        0.0,
        0.0,
    )
    for name in (
        "min",
        "max",
        "mean",
        "variance",
        "first",
        "first_time",
        "last",
        "last_time",
    ):
        assert merged[name] is None, name
    assert merged["coverage"] == 0.0


def test_an_empty_part_does_not_move_the_mean() -> None:
    rows = [part([], invalid=1), part([3.0, 5.0], part=1), part([], part=2)]

    (merged,) = aggregates(frame(rows), "1h").to_dicts()

    assert (merged["mean"], merged["variance"], merged["first"]) == (4.0, 1.0, 3.0)


def test_coverage_is_null_only_where_no_part_states_one() -> None:
    unknown: dict[str, Any] = {"slots": 0, "coverage": None}
    rows = [
        part([1.0], **unknown),
        part([1.0], device="d2", **unknown),
        part([1.0, 2.0], device="d2", part=1),
    ]

    merged = aggregates(frame(rows), "1h")

    assert merged["coverage"].to_list() == [None, pytest.approx(2 / 60)]


def test_the_earlier_part_wins_the_first_and_the_later_part_the_last_of_equal_times() -> (
    None
):
    rows = [part([1.0], part=0, source="t/9"), part([2.0], part=4, source="t/1")]

    (merged,) = aggregates(frame(rows), "1h").to_dicts()

    assert (merged["first"], merged["last"]) == (1.0, 2.0)


def test_a_slot_that_two_parts_cover_counts_once() -> None:
    rows = [observed([1, 2], [1.0, 2.0]), observed([2, 3], [3.0, 4.0], part=1)]

    (merged,) = aggregates(frame(rows), "1h").to_dicts()

    assert merged["slots"] == 0b1110
    assert merged["coverage"] == pytest.approx(3 / 60)


def test_a_quantile_is_null_where_a_part_has_no_sketch() -> None:
    rows = [observed([1], [1.0]), part([2.0], part=1, sketch=None)]

    assert aggregates(frame(rows), "1h", quantiles=[0.5])["p50"].to_list() == [None]


def test_quantile_columns_are_named_after_their_percent() -> None:
    merged = aggregates(frame([observed([1], [1.0])]), "1h", quantiles=[0.5, 0.999])

    assert merged.columns[-2:] == ["p50", "p99.9"]


def test_no_parts_give_an_empty_frame_of_the_same_schema() -> None:
    full = aggregates(frame([part([1.0])]), "1h", quantiles=[0.5])

    assert aggregates(frame([]), "1h", quantiles=[0.5]).schema == full.schema


# --- rolling up -----------------------------------------------------------------------


def _hours(first: datetime, hours: int, **changes: Any) -> list[Row]:
    start = int(first.timestamp()) * 1_000_000
    return [
        part([float(h), h + 2.0], start=start + h * HOUR_US, coverage=0.5, **changes)
        for h in range(hours)
    ]


@pytest.mark.parametrize(
    ("day", "hours"),
    [(date(2023, 3, 26), 23), (date(2023, 10, 29), 25), (date(2023, 6, 1), 24)],
)
def test_hours_roll_up_into_local_days_of_23_24_and_25_hours(
    day: date, hours: int
) -> None:
    zone = ZoneInfo("Europe/Sofia")
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    merged = merge_parts(frame(_hours(midnight, hours + 2)))

    days = roll_up(merged, "1d", {"razlog": "Europe/Sofia"})

    first = days.row(0, named=True)
    assert len(days) == 2
    assert first["date"] == day
    assert first["start"] == midnight
    assert (first["end"] - first["start"]).total_seconds() == hours * 3600
    assert first["count"] == 2 * hours
    assert first["coverage"] == pytest.approx(0.5)
    assert days["coverage"][1] == pytest.approx(2 * 0.5 / 24)
    values = [v for h in range(hours) for v in (float(h), h + 2.0)]
    assert first["mean"] == pytest.approx(statistics.fmean(values))
    assert first["variance"] == pytest.approx(statistics.pvariance(values))


def test_a_fixed_length_counts_from_1970_utc() -> None:
    merged = merge_parts(
        frame(_hours(datetime(2023, 6, 1, 1, tzinfo=ZoneInfo("UTC")), 7))
    )

    days = roll_up(merged, "6h", {})

    assert days["count"].to_list() == [10, 4]
    assert [str(start.time()) for start in days["start"]] == ["00:00:00", "06:00:00"]


def test_rolling_up_twice_equals_rolling_up_at_once() -> None:
    merged = merge_parts(
        frame(_hours(datetime(2023, 6, 1, tzinfo=ZoneInfo("UTC")), 24))
    )

    twice = roll_up(roll_up(merged, "6h", {}), "12h", {})
    once = roll_up(merged, "12h", {})

    for name in ("count", "min", "max", "first", "last", "parts", "start", "end"):
        assert twice[name].to_list() == once[name].to_list(), name
    for name in ("mean", "variance", "sum", "coverage"):
        assert twice[name].to_list() == pytest.approx(once[name].to_list(), rel=1e-9), (
            name
        )


def test_hopping_windows_cannot_be_rolled_up() -> None:
    rows = [part([1.0]), part([1.0], start=START_US + HOUR_US // 2)]

    with pytest.raises(ValueError, match="twice"):
        roll_up(merge_parts(frame(rows)), "1d", {"razlog": "UTC"})


def test_a_city_without_a_time_zone_has_no_local_days() -> None:
    with pytest.raises(ValueError, match="razlog"):
        roll_up(merge_parts(frame([part([1.0])])), "1d", {})


def test_rolling_a_frame_up_needs_its_time_zones() -> None:
    with pytest.raises(ValueError, match="root"):
        aggregates(frame([part([1.0])]), "1h", every="1d")


# --- folding against the obvious ------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 4), st.booleans(), st.floats(-100, 100)
        ),
        min_size=1,
        max_size=30,
    )
)
def test_folding_equals_a_loop_over_the_rows(
    drawn: list[tuple[int, int, bool, float]],
) -> None:
    drawn = sorted(drawn, key=lambda row: row[0])
    labels = np.array([row[0] for row in drawn])
    times = np.array([row[1] for row in drawn], np.int64)
    present = np.array([row[2] for row in drawn])
    values = np.array([row[3] for row in drawn])
    runs = Runs.of(labels)

    firsts, lasts, totals = [], [], []
    for label in dict.fromkeys(labels.tolist()):
        rows = [i for i in range(len(drawn)) if labels[i] == label]
        there = [i for i in rows if present[i]]
        firsts.append(min(there, key=lambda i: (times[i], i), default=-1))
        lasts.append(max(there, key=lambda i: (times[i], i), default=-1))
        added = values[rows[0]]
        for i in rows[1:]:
            added += values[i]
        totals.append(added)

    assert earliest(times, present, runs).tolist() == firsts
    assert latest(times, present, runs).tolist() == lasts
    assert total(values, runs).tolist() == totals


def test_chan_merges_far_from_zero_without_losing_the_spread() -> None:
    count = np.array([1000, 1000], np.int64)
    mean = np.array([1e9, 1e9 + 1.0])
    m2 = np.array([250.0, 250.0])

    merged, spread = moments(count, mean, m2, Runs.of(np.zeros(2)))

    assert merged.tolist() == [1e9 + 0.5]
    assert spread.tolist() == [1000.0]
