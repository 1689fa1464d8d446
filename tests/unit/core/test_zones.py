from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from streamproc.core.zones import LocalDates

ZONES = {
    "razlog": ZoneInfo("Europe/Sofia"),
    "fundao": ZoneInfo("Atlantic/Azores"),
    "apia": ZoneInfo("Pacific/Apia"),
    "sao-paulo": ZoneInfo("America/Sao_Paulo"),
    "utc": UTC,
}
NAMES = list(ZONES)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOW = int((datetime(1890, 1, 1, tzinfo=UTC) - EPOCH) / timedelta(microseconds=1))
HIGH = int((datetime(2060, 1, 1, tzinfo=UTC) - EPOCH) / timedelta(microseconds=1))


def naive(city: int, event_us: int) -> int:
    local = (EPOCH + timedelta(microseconds=event_us)).astimezone(ZONES[NAMES[city]])
    return (local.date() - EPOCH.date()).days


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 4), st.integers(LOW, HIGH)), min_size=1, max_size=5
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_local_date_is_the_zones_own_whatever_came_before(
    batches: list[list[tuple[int, int]]],
) -> None:
    dates = LocalDates(NAMES, ZONES)
    for batch in batches:
        city = np.array([c for c, _ in batch], np.int32)
        event = np.array([t for _, t in batch], np.int64)

        assert dates.dates(city, event).tolist() == [naive(c, t) for c, t in batch]


def test_days_of_23_and_25_hours_and_repeated_midnights_are_exact() -> None:
    dates = LocalDates(NAMES, ZONES)
    starts = ["2024-03-30", "2024-10-26", "2011-12-29", "2018-02-16", "2018-11-03"]
    for start in starts:
        begin = int(np.datetime64(start, "us").astype(np.int64))
        event = begin + np.arange(0, 3 * 86_400, 450, dtype=np.int64) * 1_000_000
        for code in range(len(NAMES)):
            city = np.full(len(event), code, np.int32)
            expected = [naive(code, int(t)) for t in event]

            assert dates.dates(city, event).tolist() == expected


def test_no_rows_need_no_zone() -> None:
    dates = LocalDates(NAMES, ZONES)

    assert len(dates.dates(np.empty(0, np.int32), np.empty(0, np.int64))) == 0
