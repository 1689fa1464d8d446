"""The parts of `bench.theodolite` that need no broker."""

import numpy as np
import pytest

from bench.theodolite import (
    BEHIND_MAX_MS,
    LATENESS_MS,
    MINUTE_MS,
    Result,
    event_shift_us,
    most,
    slope,
    verdict_of,
)

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
    assert verdict_of(2_000, 10, 0) == "sustained"
    assert verdict_of(2_001, 10, 0) == "not sustained"
    assert verdict_of(-1, BEHIND_MAX_MS + 1, 0) == "invalid"
    assert verdict_of(-1, 0, 3) == "invalid"


def test_the_most_is_the_greatest_that_was_sustained() -> None:
    def result(sensors: int, verdict: str) -> Result:
        return Result(sensors, verdict, *(0.0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0))

    results = [result(10, "sustained"), result(20, "sustained"), result(30, "invalid")]
    assert most(results) == 20
    assert most([]) == 0


def test_a_minute_closes_in_the_middle_of_the_measurement() -> None:
    start_us = NOW_MS * 1000 + 456
    shift_us = event_shift_us(start_us, 30.0)
    assert -MINUTE_MS * 1000 < shift_us <= 0
    event_us = start_us + 30_000_000 + shift_us
    assert (event_us - LATENESS_MS * 1000) % (MINUTE_MS * 1000) == 0
