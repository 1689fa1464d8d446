"""Looking into quarantine."""

from datetime import date
from pathlib import Path

import pytest

from streamproc.analytics.dead_letters import (
    Filter,
    list_dead_letters,
    preview,
    show_dead_letters,
)
from tests.support.tables import emission, refused, town


@pytest.fixture
def root(tmp_path: Path) -> Path:
    here = town(tmp_path / "root")
    rows = [
        refused(0),
        refused(1, reason="bad_time", detail="year 1", payload=None, payload_bytes=0),
        refused(2, city="_unknown", payload=b"\xff\x00", payload_bytes=100_000),
        refused(3, broker_time=None),
    ]
    here.commit(emission(quarantine=rows), records=4)
    return tmp_path / "root"


def test_refused_records_are_grouped_by_city_day_and_reason(root: Path) -> None:
    groups = list_dead_letters(root)

    assert [(g.city, g.date, g.reason, g.records, g.payload_bytes) for g in groups] == [
        ("_unknown", "2023-11-15", "malformed", 1, 100_000),
        ("razlog", "2023-11-15", "bad_time", 1, 0),
        ("razlog", "2023-11-15", "malformed", 2, 2),
    ]
    assert groups[1].detail == "year 1"


@pytest.mark.parametrize(
    ("chosen", "offsets"),
    [
        (Filter(), [2, 0, 1, 3]),
        (Filter(cities=["razlog"]), [0, 1, 3]),
        (Filter(reasons=["bad_time"]), [1]),
        (Filter(dates=[date(2023, 11, 16)]), []),
        (Filter(source="telemetry.razlog/0", offset=3), [3]),
        (Filter(source="telemetry.nevers/0"), []),
    ],
)
def test_filters_choose_records(root: Path, chosen: Filter, offsets: list[int]) -> None:
    assert [letter.offset for letter in show_dead_letters(root, chosen)] == offsets
    assert sum(group.records for group in list_dead_letters(root, chosen)) == len(
        offsets
    )


def test_a_record_is_shown_with_its_payload_and_time(root: Path) -> None:
    unknown, first, second, _ = show_dead_letters(root)

    assert (unknown.preview, unknown.payload_bytes) == ("0xff00", 100_000)
    assert (first.preview, first.broker_time) == ("{", "2023-11-14T22:00:00+00:00")
    assert second.preview is None
    assert len(show_dead_letters(root, limit=2)) == 2


def test_a_root_without_quarantine_has_no_dead_letters(tmp_path: Path) -> None:
    assert list_dead_letters(tmp_path) == []
    assert show_dead_letters(tmp_path) == []


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"", ""),
        (b'{"a": 1}', '{"a": 1}'),
        ("ångé".encode(), "ångé"),
        (b"a\x1b[2Jb\r\n", "a\\x1b[2Jb\\r\\n"),
        ("\u202egnp.exe".encode(), "\\u202egnp.exe"),
        (b"\x00\xfe\xff", "0x00feff"),
        (b"abcdefghij", "abcdefghij"),
        (b"abcdefghijk", "abcdefghij…"),
        ("é".encode() * 11, "é" * 10 + "…"),
        ("😀".encode() * 20, "😀" * 10 + "…"),
        (b"x" * 42 + "é".encode() + b"x" * 9, "x" * 10 + "…"),
        (b"\xff" * 100, "0xffffffff…"),
        (b"ok" + b"\xff", "0x6f6bff"),
    ],
)
def test_a_preview_is_one_printable_line(payload: bytes, shown: str) -> None:
    assert preview(payload, 10) == shown
    assert preview(payload, 10).isprintable()
