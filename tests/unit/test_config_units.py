"""Durations, sizes and times as operators write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.config import format_duration, format_size, parse_duration, parse_size
from streamproc.config.units import DURATION_MAX_US, StartPoint, parse_start
from streamproc.core.ports import StartAt


@pytest.mark.parametrize(
    ("text", "expected_us"),
    [
        ("30s", 30_000_000),
        ("1m", 60_000_000),
        ("1h30m", 5_400_000_000),
        ("15m", 900_000_000),
        ("2d", 172_800_000_000),
        ("250ms", 250_000),
        ("1m250ms", 60_250_000),
        ("0s", 0),
        ("90m", 5_400_000_000),
    ],
)
def test_a_duration_is_read_as_microseconds(text: str, expected_us: int) -> None:
    assert parse_duration(text) == expected_us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "30",
        "s",
        "1 m",
        "1.5s",
        "-1s",
        "1s1m",
        "1M",
        "1h 30m",
        "30s\n",
        "\u0663s",
        31,
        None,
        True,
    ],
)
def test_what_is_no_duration_is_refused_with_advice(text: object) -> None:
    with pytest.raises(ValueError, match=r"not a duration; write 250ms, 30s, 1m"):
        parse_duration(text)


def test_a_duration_of_more_than_ten_years_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 3660d"):
        parse_duration("99999d")


@given(st.integers(0, DURATION_MAX_US // 1000).map(lambda ms: ms * 1000))
def test_a_formatted_duration_reads_back(duration_us: int) -> None:
    assert parse_duration(format_duration(duration_us)) == duration_us


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64MiB", 64 << 20),
        ("512 KiB", 512 << 10),
        ("10MB", 10_000_000),
        ("7B", 7),
        ("2GiB", 2 << 30),
    ],
)
def test_a_size_is_read_as_bytes(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    "text", ["64", "MiB", "64 megs", "1.5GiB", "64mib", "-1B", 65, None]
)
def test_what_is_no_size_is_refused_with_advice(text: object) -> None:
    with pytest.raises(ValueError, match="not a size; write 512KiB"):
        parse_size(text)


@given(st.integers(0, 1 << 45))
def test_a_formatted_size_reads_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_a_start_is_a_word_or_a_time_with_a_zone() -> None:
    assert parse_start("latest") == StartPoint(StartAt.LATEST)
    assert parse_start("1970-01-01T02:00:01+02:00") == StartPoint(
        StartAt.TIME, 1_000_000
    )
    assert parse_start("2026-03-01T00:00:00.5Z") == StartPoint(
        StartAt.TIME, 1_772_323_200_500_000
    )


@pytest.mark.parametrize("text", ["yesterday", "", 5, None])
def test_what_is_no_start_is_refused_with_advice(text: object) -> None:
    with pytest.raises(ValueError, match="write earliest, latest or an ISO time"):
        parse_start(text)


def test_a_start_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="a time without a zone"):
        parse_start("2026-03-01T00:00:00")
