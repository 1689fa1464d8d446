"""A root whose logs are squashed reads as one whose logs are not, and every damage shows."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from streamproc.analytics.inspect import PartitionSummary, inspect
from streamproc.analytics.logs import find_logs
from streamproc.analytics.roots import BucketPath
from streamproc.analytics.verify import verify
from streamproc.core.chain import Draft
from streamproc.core.squash import Housekeeping
from streamproc.errors import LogCorrupt
from tests.support.listed_folder import BusyBucket
from tests.support.tables import Town, emission, reading, town

COMMITS = 40
HOME = "_streamproc/region/telemetry.razlog-id/0"


def _filled(root: Path, squash_every: int) -> Town:
    here = town(root, keeping=Housekeeping(squash_every))
    for n in range(COMMITS):
        here.commit(emission([reading(n)]), records=1, snapshot=n % 5 == 0)
    return here


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "squashed"
    _filled(root, 8)
    assert len(list((root / HOME / "archive").iterdir())) >= 2
    return root


def _partition(root: Path) -> PartitionSummary:
    return inspect(root).partitions[0]


def test_a_squashed_log_yields_every_record_and_verifies(root: Path) -> None:
    (log,) = find_logs(root)

    records = list(log.records())

    assert [r.n for r in records] == list(range(len(records)))
    assert sum(r.counts.readings for r in records) == COMMITS
    report = verify(root)
    assert report.findings == ()
    assert (report.offsets, report.rows) == (COMMITS, {"readings": COMMITS})
    assert report.records == len(records)


def test_a_summary_is_the_same_with_and_without_squashing(
    root: Path, tmp_path: Path
) -> None:
    straight = tmp_path / "straight"
    _filled(straight, 10_000)

    mine, other = _partition(root), _partition(straight)

    assert mine.squashed > 0
    assert other.squashed == 0
    for name in ("start", "next", "rows", "files", "gaps", "refold_readings", "fault"):
        assert getattr(mine, name) == getattr(other, name), name
    assert mine.kinds["commit"] == other.kinds["commit"]
    assert mine.restore_seconds > 0


def test_records_go_on_where_the_service_squashes_meanwhile(tmp_path: Path) -> None:
    root = tmp_path / "live"
    here = _filled(root, 10_000)
    (log,) = find_logs(root)
    reading_it = log.records()
    seen = [next(reading_it) for _ in range(10)]
    again = town(root, keeping=Housekeeping(8))
    for n in range(60):
        again.commit(emission([reading(COMMITS + n)]), records=1, snapshot=True)
    assert not (root / HOME / "log" / f"{10:020d}.json").exists()

    seen += reading_it

    assert [r.n for r in seen] == list(range(len(seen)))
    assert seen[-1].next == COMMITS + 60
    assert here.next == COMMITS


def _committed(root: Path, squash_every: int) -> None:
    again = town(root, keeping=Housekeeping(squash_every))
    for n in range(10):
        again.commit(emission([reading(COMMITS + n)]), records=1, snapshot=True)


def test_a_commit_between_listing_and_hints_is_no_damage(root: Path) -> None:
    busy = BusyBucket(root, "/published", lambda: _committed(root, 10_000))
    (log,) = find_logs(BucketPath(busy))

    tail = log.tail()

    assert tail.fault is None
    assert tail.records[-1].next == COMMITS + 10


def test_a_squashed_name_that_another_owner_took_is_no_damage(root: Path) -> None:
    genesis, oldest, *_ = sorted((root / HOME / "log").iterdir())
    stranger = genesis.read_bytes()

    def taken() -> None:
        _committed(root, 2)
        assert not oldest.exists()
        oldest.write_bytes(stranger)

    (log,) = find_logs(BucketPath(BusyBucket(root, oldest.name, taken)))

    records = list(log.records())

    assert records[-1].next == COMMITS + 10
    assert oldest.read_bytes() == stranger


def test_a_record_that_does_not_fit_twice_is_damage(root: Path) -> None:
    (log,) = find_logs(root)
    genesis, *_, newest = sorted((root / HOME / "log").iterdir())
    newest.write_bytes(genesis.read_bytes())

    assert newest.name in str(log.tail().fault)
    with pytest.raises(LogCorrupt, match=newest.name):
        list(log.records())


def test_files_that_squashed_records_name_are_verified(root: Path) -> None:
    first = min(root.glob("readings/city=razlog/*/*-n1-*.parquet"))
    first.unlink()

    assert any("missing" in finding for finding in verify(root).findings)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _oldest(root: Path) -> Path:
    return min((root / HOME / "archive").iterdir())


DAMAGES: dict[str, Callable[[Path], object]] = {
    "an archive is missing": lambda root: _oldest(root).unlink(),
    "an archive has another bit": lambda root: _flip(_oldest(root)),
    "an archive is cut": lambda root: _oldest(root).write_bytes(b""),
    "an archive is another one": lambda root: _oldest(root).write_bytes(
        max((root / HOME / "archive").iterdir()).read_bytes()
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_of_an_archive_is_found(name: str, root: Path) -> None:
    DAMAGES[name](root)

    found = verify(root).findings

    assert any("archive" in finding for finding in found), found
    (log,) = find_logs(root)
    with pytest.raises(LogCorrupt, match="archive"):
        list(log.records())


def test_gaps_are_summed_up_and_shown_also_when_they_are_squashed(
    tmp_path: Path,
) -> None:
    root = tmp_path / "gap"
    here = town(root, keeping=Housekeeping(8))
    here.commit(emission([reading(0)]), records=1, snapshot=True)
    here.log.commit(Draft("gap", 10, note="disk lost", by="ann@host"))
    here.next = 10
    before = _partition(root)
    for n in range(20):
        here.commit(emission([reading(10 + n)]), records=1, snapshot=True)
    after = _partition(root)

    assert after.squashed > 3
    for found in (before, after):
        (gap,) = found.gaps
        assert (gap.start, gap.next, gap.reason, gap.by) == (
            1,
            10,
            "disk lost",
            "ann@host",
        )
    report = verify(root)
    assert report.findings == ()
    assert (report.offsets, report.gap_offsets) == (30, 9)
    assert dataclasses.asdict(report)["gap_offsets"] == 9
