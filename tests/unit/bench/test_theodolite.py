"""The parts of `bench.theodolite` that need no broker."""

from collections.abc import Callable

import numpy as np
import pytest

from bench.theodolite import (
    ACKED_MAX_MS,
    BEHIND_MAX_MS,
    LATENESS_MS,
    MINUTE_MS,
    SEARCH_WITHIN,
    SECONDS_MIN,
    Result,
    closes_at_s,
    event_shift_us,
    most,
    parsed,
    searched,
    slope,
    tried,
    verdict_of,
)


def result(sensors: int, verdict: str) -> Result:
    return Result(sensors, verdict, *(0.0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0))


NOW_MS = 1_800_000_000_123


def test_the_slope_of_a_line_is_its_slope() -> None:
    line = [(x, 100.0 + 2_000.0 * x) for x in (1.0, 2.5, 3.0, 7.0)]
    assert slope(line) == pytest.approx(2_000.0)
    assert slope([(x, 5.0) for x in range(10)]) == pytest.approx(0.0)


def test_noise_around_a_line_changes_little() -> None:
    x = np.arange(240.0)
    noise = np.random.default_rng(1).normal(0, 1_000, len(x))
    assert slope(list(zip(x, 50 * x + noise, strict=True))) == pytest.approx(50, abs=5)


def test_a_load_is_sustained_or_not_or_was_never_sent() -> None:
    fine = {"behind_ms": 10.0, "acked_ms": 10.0, "failed": 0.0}
    assert verdict_of(2_000, fine) == "sustained"
    assert verdict_of(2_001, fine) == "not sustained"
    assert verdict_of(-1, fine | {"behind_ms": BEHIND_MAX_MS + 1}) == "invalid"
    assert verdict_of(-1, fine | {"acked_ms": ACKED_MAX_MS + 1}) == "invalid"
    assert verdict_of(-1, fine | {"failed": 3.0}) == "invalid"


def test_the_most_is_the_greatest_that_was_sustained() -> None:
    results = [result(10, "sustained"), result(20, "sustained"), result(30, "invalid")]
    assert most(results) == 20
    assert most([]) == 0


def up_to(most_sensors: int) -> Callable[[int], Result]:
    """Return a system that sustains so much."""
    return lambda load: result(
        load, "sustained" if load <= most_sensors else "not sustained"
    )


def test_loads_are_tried_up_to_the_first_that_is_too_much() -> None:
    results = tried([300, 100, 400, 200], up_to(250))
    assert [found.sensors for found in results] == [100, 200, 300]


@pytest.mark.parametrize("limit", [30, 99, 100, 101, 1_234, 999_999])
def test_a_search_ends_within_a_tenth_of_the_most(limit: int) -> None:
    results = searched(100, up_to(limit))
    assert limit * (1 - SEARCH_WITHIN) <= most(results) <= limit
    assert len(results) < 25


def test_a_search_takes_what_could_not_be_sent_for_too_much() -> None:
    results = searched(
        100, lambda load: result(load, "sustained" if load < 150 else "invalid")
    )
    assert most(results) in range(130, 150)


def test_a_minute_closes_in_the_middle_of_the_measurement() -> None:
    start_us = NOW_MS * 1000 + 456
    shift_us = event_shift_us(start_us, 30.0)
    assert -MINUTE_MS * 1000 < shift_us <= 0
    event_us = start_us + 30_000_000 + shift_us
    assert (event_us - LATENESS_MS * 1000) % (MINUTE_MS * 1000) == 0


@pytest.mark.parametrize("warm_up_s", [0.0, 1.0, 5.0, 8.0, 60.0])
@pytest.mark.parametrize("measure_s", [1.0, 4.0, 9.0, 30.0, 240.0])
def test_a_minute_with_readings_closes_before_the_end(
    warm_up_s: float, measure_s: float
) -> None:
    if warm_up_s + measure_s < SECONDS_MIN:
        with pytest.raises(SystemExit):
            parsed(["uc2", "--warm-up", f"{warm_up_s}", "--seconds", f"{measure_s}"])
        return
    start_us = NOW_MS * 1000
    shift_us = event_shift_us(start_us, closes_at_s(warm_up_s, measure_s))
    first_us = start_us + shift_us
    last_us = first_us + round((warm_up_s + measure_s) * 1e6)
    end_us = first_us // (MINUTE_MS * 1000) * MINUTE_MS * 1000 + MINUTE_MS * 1000
    assert end_us - first_us >= 1_000_000
    assert end_us + (LATENESS_MS + 1_000) * 1000 < last_us
