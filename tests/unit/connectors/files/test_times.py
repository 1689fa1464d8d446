from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamproc.connectors.files.times import NO_EVENT, TimeFormat, to_utc
from streamproc.errors import ConfigError

ZONES = (
    "Europe/Berlin",
    "Australia/Lord_Howe",  # half an hour of summer time
    "Africa/Casablanca",  # goes back for a month a year
    "America/New_York",
    "Asia/Shanghai",
    "Pacific/Apia",  # once left a whole day out
    "UTC",
)


def read(
    texts: list[str | None], text: str = "iso", timezone: str | None = "UTC"
) -> list[int | None]:
    times = TimeFormat(text, timezone).read([pa.array(texts, pa.string())])
    return [None if us == NO_EVENT else us for us in times.us.tolist()]


def us_of(iso: str) -> int:
    moment = datetime.fromisoformat(iso)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.mark.parametrize("zone", ZONES)
def test_local_times_around_every_change_are_those_of_fold_zero(zone: str) -> None:
    info = ZoneInfo(zone)
    seconds: list[int] = []
    for day in range(366 * 25):
        noon = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(days=day)
        before, after = (
            noon.astimezone(info),
            (noon + timedelta(days=1)).astimezone(info),
        )
        if before.utcoffset() != after.utcoffset():
            local = int(before.replace(tzinfo=UTC).timestamp())
            seconds += range(local - 7200, local + 2 * 86_400 + 7200, 1799)
    seconds += range(0, 2_000_000_000, 9_999_999)
    utc, doubtful = to_utc(np.array(seconds, np.int64) * 1_000_000, zone)
    local_times = [datetime(1970, 1, 1) + timedelta(seconds=one) for one in seconds]  # noqa: DTZ001  (a naive time is what is tested)
    expected = [one.replace(tzinfo=info) for one in local_times]
    assert (utc // 1_000_000).tolist() == [int(one.timestamp()) for one in expected]
    strange = [one.utcoffset() != one.replace(fold=1).utcoffset() for one in expected]
    assert doubtful.tolist() == strange


def test_a_skipped_time_shifts_forward_and_the_first_of_two_is_taken() -> None:
    texts: list[str | None] = ["2013-03-31 02:30:00", "2013-10-27 02:30:00"]
    times = TimeFormat("iso", "Europe/Berlin").read([pa.array(texts)])
    assert times.us.tolist() == [
        us_of("2013-03-31T01:30:00+00:00"),
        us_of("2013-10-27T00:30:00+00:00"),
    ]
    assert times.flags.tolist() == [32, 32]


def test_a_written_zone_outranks_the_declared_one() -> None:
    texts: list[str | None] = [
        "2013-07-01T12:00:00Z",
        "2013-07-01T12:00:00+05:30",
        "2013-07-01 12:00",
    ]
    assert read(texts, timezone="Europe/Berlin") == [
        us_of("2013-07-01T12:00:00+00:00"),
        us_of("2013-07-01T06:30:00+00:00"),
        us_of("2013-07-01T10:00:00+00:00"),
    ]


def test_without_a_declared_zone_naive_times_are_utc_and_flagged() -> None:
    texts = pa.array(["2013-07-01 12:00:00", "2013-07-01 12:00:00Z"])
    times = TimeFormat().read([texts])
    assert times.us[0] == times.us[1] == us_of("2013-07-01T12:00:00+00:00")
    assert times.flags.tolist() == [32, 0]


@pytest.mark.parametrize(
    "text",
    [
        "2013-02-29",
        "2100-02-29",
        "2013-13-01",
        "2013-00-01",
        "2013-01-00",
        "2013-04-31 00:00:00",
        "2013-01-01 24:00:00",
        "2013-01-01 00:60:00",
        "2013-01-01 00:00:60",
        "2013-1-1",
        "13-01-01",
        "2013-01-01X",
        "2013-01-01 00:00:00 Europe/Berlin",
        "١٣",
        "now",
        "2013-01-01 00:00:00+24:00",
        "2013-01-01 00:00:00+01:60",
        "1e9",
    ],
)
def test_what_is_no_time_is_never_guessed(text: str) -> None:
    good = "2013-01-01 00:00:00"
    assert read([good, text, good]) == [
        us_of(f"{good}+00:00"),
        None,
        us_of(f"{good}+00:00"),
    ]


@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001  (strategies take naive bounds)
    st.sampled_from(["", "Z", "+00:00", "-03:30", "+1400"]),
    st.sampled_from(["T", " "]),
)
@example(datetime(2000, 2, 29, 23, 59, 59, 999_999), "", "T")  # noqa: DTZ001  (naive on purpose)
def test_iso_times_are_read_as_python_reads_them(
    moment: datetime, zone: str, middle: str
) -> None:
    text = moment.isoformat(middle) + zone
    aware = datetime.fromisoformat(text)
    aware = aware.replace(tzinfo=UTC) if aware.tzinfo is None else aware
    expected = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    # Alone Arrow reads it; beside a text that is no time it goes the other way.
    assert read([text]) == [expected]
    assert read([text, "x"]) == [expected, None]


@settings(max_examples=1000)
@given(
    st.sampled_from(
        [
            "2013-03-01",
            "2013-03-01 05",
            "2013-03-01T05:06Z",
            "2013-03-01T05:06:07.123456",
            "2013-03-01 05:06:07+02:00",
            "2013-03-01T050607-0230",
        ]
    ),
    st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from([*"0123456789-: TZz+.,", ""])),
        max_size=3,
    ),
)
@example("2013-03-01 05", [])  # Arrow reads it, the first pattern did not
def test_whether_a_text_is_a_time_does_not_depend_on_its_neighbours(
    text: str, changes: list[tuple[int, str]]
) -> None:
    for place, character in changes:
        text = text[:place] + character + text[place + 1 :]
    text = text.strip()
    alone = read([text])
    assert read([text, "x"]) == [*alone, None]
    assert read([text, "2013-03-01"])[:1] == alone
    assert read([text, "2013-03-01T00:00Z"])[:1] == alone


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2068, 12, 31)),  # noqa: DTZ001  (strategies take naive bounds)
    st.sampled_from(
        [
            "%Y %m %d %H %M %S",
            "%d.%m.%Y %H:%M:%S.%f",
            "%Y/%m/%d %I.%M %p",
            "%y%m%d%H%M",
            "[%d|%m|%Y] %% (%H)",
            "%Y-%m-%dT%H:%M:%S%z",
        ]
    ),
)
def test_formats_read_as_strptime_reads_them(moment: datetime, text: str) -> None:
    written = moment.replace(tzinfo=UTC).strftime(text)
    parsed = datetime.strptime(written, text)  # noqa: DTZ007  (the zone is set on the next line)
    parsed = parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed
    expected = (parsed - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert read([written, "?"], text) == [expected, None]


def test_several_columns_are_joined_by_a_space() -> None:
    columns = [pa.array(["2013", "2013"]), pa.array(["3", None]), pa.array([" 1", "1"])]
    times = TimeFormat("%Y %m %d", "Asia/Shanghai").read(columns)
    assert times.us.tolist() == [us_of("2013-02-28T16:00:00+00:00"), NO_EVENT]
    assert times.absent.tolist() == [False, True]


def test_epochs_are_scaled_and_out_of_range_is_no_time() -> None:
    texts = ["1362096000", "1362096000.5", "9" * 30, "-1", "nan", "", "x"]
    assert read(list(texts), "epoch_s") == [
        1_362_096_000_000_000,
        1_362_096_000_500_000,
        None,
        -1_000_000,
        None,
        None,
        None,
    ]
    assert read(["5", "9" * 18], "epoch_ms") == [5000, None]
    assert read(["5"], "epoch_us") == [5]


def test_typed_columns_keep_their_meaning() -> None:
    naive = pa.array([datetime(2013, 7, 1, 12), None])  # noqa: DTZ001  (naive on purpose)
    berlin = TimeFormat("iso", "Europe/Berlin")
    assert berlin.read([naive]).us.tolist() == [
        us_of("2013-07-01T10:00:00+00:00"),
        NO_EVENT,
    ]
    zoned = pa.array([datetime(2013, 7, 1, 12, tzinfo=UTC)])
    assert berlin.read([zoned]).us.tolist() == [us_of("2013-07-01T12:00:00+00:00")]
    whole = pa.array([7, None, 2**63 - 1, -(2**63)], pa.int64())
    assert (
        TimeFormat("epoch_s").read([whole]).us.tolist() == [7_000_000] + [NO_EVENT] * 3
    )
    assert TimeFormat("epoch_ms").read([pa.array([1.5])]).us.tolist() == [1500]
    year = pa.array([2013], pa.int32())
    parts = [year, pa.array([3], pa.int8()), pa.array([1], pa.int8())]
    assert TimeFormat("%Y %m %d", "UTC").read(parts).us.tolist() == [
        us_of("2013-03-01T00:00:00+00:00")
    ]


@pytest.mark.parametrize(
    ("text", "timezone"),
    [
        ("%Y-%m", None),
        ("%Y-%m-%d %Q", None),
        ("%Y-%m-%d %Y", None),
        ("%Y-%y-%m-%d", None),
        ("%Y-%m-%d %I", None),
        ("%Y-%m-%d %", None),
        ("iso", "Mars/Olympus"),
        ("iso", "../etc/passwd"),
    ],
)
def test_formats_and_zones_that_cannot_work_are_refused(
    text: str, timezone: str | None
) -> None:
    with pytest.raises(ConfigError):
        TimeFormat(text, timezone)
