"""Compaction on a real folder: same rows, few files, whoever is killed, and nothing too early."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (a test reads what was published)
import pytest

from streamproc.analytics.dataset import (
    open_dataset,
    open_readings,
    read_dataset,
    time_zones,
)
from streamproc.analytics.files import date_files
from streamproc.analytics.merge import aggregates
from streamproc.analytics.verify import verify
from streamproc.connectors.compacted_files import Limits
from streamproc.connectors.local_store import LocalStore
from streamproc.core.chain import Draft
from streamproc.core.compaction import POINTS
from streamproc.core.record import FileEntry, RecordCounts, decode_record
from streamproc.core.squash import Housekeeping
from streamproc.core.swaps import OutputName, Unit
from streamproc.core.values import OffsetSpan
from streamproc.errors import Fenced, InputError, StoreFault
from tests.support.compaction import (
    DAY,
    READINGS,
    Killed,
    compact_all,
    compactor,
    continued,
    exact_rows,
    filled,
    killing,
    mixed,
    rows_of,
    visible_paths,
)
from tests.support.tables import Town, emission, part, reading, town

TODAY = date(2024, 1, 1)


def whats(root: Path, owner: str = "one") -> list[str]:
    return [outcome.what for outcome in compact_all(compactor(root, owner))]


def homes(root: Path) -> list[Path]:
    return sorted(root.glob("_streamproc/region/compact/**/log/*.json"))


def newest_readings(root: Path, here: Town) -> FileEntry:
    """Return the readings file of the record before the restart."""
    path = sorted((root / here.log._session.log).glob("*.json"))[-2]
    record = decode_record(path.read_bytes(), str(path))
    return next(file for file in record.files if file.dataset == "readings")


def staged(root: Path) -> list[Path]:
    return [
        p for p in root.glob("_streamproc/*/compact/**/staging/**/*") if p.is_file()
    ]


def test_each_folder_becomes_one_file_with_the_same_rows(tmp_path: Path) -> None:
    filled(tmp_path)
    before = rows_of(tmp_path, visible_paths(tmp_path))

    outcomes = compact_all(compactor(tmp_path))

    assert [outcome.what for outcome in outcomes] == ["compacted"] * 5
    assert {outcome.files for outcome in outcomes} == {8}
    assert len(visible_paths(tmp_path)) == 5
    assert rows_of(tmp_path, visible_paths(tmp_path)) == before
    assert exact_rows(tmp_path) == before
    report = verify(tmp_path)
    assert report.findings == ()
    assert report.compacted == 5
    assert not staged(tmp_path)
    assert whats(tmp_path) == []


def test_a_compacted_file_is_sorted_and_says_which_devices_a_row_group_holds(
    tmp_path: Path,
) -> None:
    filled(tmp_path)
    compact_all(compactor(tmp_path))

    (path,) = (tmp_path / READINGS.folder).glob("*.parquet")
    frame = pl.read_parquet(path, hive_partitioning=False).with_columns(
        pl.col("device", "property").cast(pl.String)
    )
    with pq.ParquetFile(path) as file:
        device = file.metadata.row_group(0).column(0)
        assert device.statistics is not None
        assert (device.statistics.min, device.statistics.max) == ("d0", "d3")
        assert device.compression == "ZSTD"

    assert frame.equals(frame.sort("device", "property", "event_time", "offset"))


def test_zero_keeps_its_sign_and_what_is_missing_stays_missing(tmp_path: Path) -> None:
    here = town(tmp_path)
    rows = [reading(n, value=-0.0 if n % 2 else 0.0) for n in range(6)]
    here.commit(emission(rows, [part([]), part([1.0], part=1)]), 6)
    for n in range(8):
        here.commit(emission([reading(6 + n)]), 1, snapshot=n == 7)
    town(tmp_path)
    before = rows_of(tmp_path, visible_paths(tmp_path))

    compact_all(compactor(tmp_path))

    after = rows_of(tmp_path, visible_paths(tmp_path))
    assert after == before
    assert {row[4] for row in after if row[0] == READINGS.folder} >= {
        "-0x0.0p+0",
        "0x0.0p+0",
    }


def test_analysts_read_the_same_before_and_after(tmp_path: Path) -> None:
    filled(tmp_path)
    before = open_readings(tmp_path).collect().sort("offset")
    windows, zones = aggregates(tmp_path, "1h"), time_zones(tmp_path)

    compact_all(compactor(tmp_path))

    assert open_readings(tmp_path).collect().sort("offset").equals(before)
    assert aggregates(tmp_path, "1h").equals(windows)
    assert time_zones(tmp_path) == zones == {"razlog": "Europe/Sofia"}
    one = read_dataset(
        tmp_path, "readings", lambda frame: frame.filter(pl.col("device") == "d1")
    )
    assert 0 < len(one) < len(before)


def test_late_rows_are_taken_in_by_the_next_run(tmp_path: Path) -> None:
    here = filled(tmp_path)
    compact_all(compactor(tmp_path))
    continued(here, tmp_path)
    before = rows_of(tmp_path, visible_paths(tmp_path))

    outcomes = compact_all(compactor(tmp_path))

    assert {outcome.files for outcome in outcomes} == {9}
    assert rows_of(tmp_path, visible_paths(tmp_path)) == before
    assert verify(tmp_path).findings == ()
    for path in visible_paths(tmp_path):
        name = OutputName.parsed(path.rpartition("/")[2])
        assert name is not None
        assert name.n == 1


# --- what must not be taken -----------------------------------------------------------


def test_files_that_a_refold_since_the_newest_snapshot_reads_stay(
    tmp_path: Path,
) -> None:
    here = filled(tmp_path, 16)
    for n in range(8):
        here.commit(mixed(48 + 3 * n), 3)
    needed = {
        entry.path
        for record in here.log.records_since_snapshot()
        for entry in record.files
    }
    town(tmp_path)

    outcomes = compact_all(compactor(tmp_path))

    assert len(needed) == 40
    assert needed <= set(visible_paths(tmp_path))
    assert {outcome.waiting for outcome in outcomes} == {8}
    assert {outcome.files for outcome in outcomes} == {16}
    assert verify(tmp_path).findings == ()


def test_without_a_snapshot_nothing_is_taken(tmp_path: Path) -> None:
    here = town(tmp_path)
    for n in range(9):
        here.commit(emission([reading(n)]), 1)

    assert whats(tmp_path) == ["waiting"]
    assert not homes(tmp_path)


def test_a_commit_that_may_have_to_be_published_again_is_not_taken(
    tmp_path: Path,
) -> None:
    here = filled(tmp_path)
    here.commit(emission([reading(24)]), 1, snapshot=True)
    (tmp_path / here.log._session.folder / "published").write_bytes(
        b"%d" % here.log.head.n
    )

    compact_all(compactor(tmp_path))

    (newest,) = here.log.head.files
    assert newest.path in visible_paths(tmp_path)
    town(tmp_path)  # The next owner's roll-forward finds it.
    assert verify(tmp_path).findings == ()


def test_what_still_lies_in_staging_is_not_taken(tmp_path: Path) -> None:
    here = filled(tmp_path)
    entry = newest_readings(tmp_path, here)
    left = tmp_path / entry.staged
    left.parent.mkdir(parents=True, exist_ok=True)
    left.hardlink_to(tmp_path / entry.path)

    outcome = compactor(tmp_path).compact(READINGS)

    assert (outcome.files, outcome.waiting) == (7, 1)


def test_a_hint_that_goes_back_sends_no_owner_after_replaced_files(
    tmp_path: Path,
) -> None:
    """A zombie that slept between publishing and the hint writes an old one, days later."""
    here = filled(tmp_path)
    hint = tmp_path / here.log._session.folder / "published"
    compact_all(compactor(tmp_path))
    before = rows_of(tmp_path, visible_paths(tmp_path))

    hint.write_bytes(b"0\n")

    assert exact_rows(tmp_path) == before
    town(tmp_path)
    assert rows_of(tmp_path, visible_paths(tmp_path)) == before
    assert verify(tmp_path).findings == ()


def test_an_owner_that_finds_its_files_replaced_has_been_fenced(tmp_path: Path) -> None:
    here = filled(tmp_path)

    def read() -> None:
        msg = "gone"
        raise StoreFault(msg)

    with pytest.raises(StoreFault, match="gone"):
        here.log.reading(read)
    town(tmp_path)
    with pytest.raises(Fenced, match="gone"):
        here.log.reading(read)


def test_what_was_squashed_is_compacted_and_compared_all_the_same(
    tmp_path: Path,
) -> None:
    few = Housekeeping(squash_every=4)
    here = town(tmp_path, keeping=few)
    for number in range(24):
        here.commit(mixed(3 * number), 3, snapshot=number % 6 == 5)
    town(tmp_path, keeping=few)
    log = tmp_path / here.log._session.log
    assert len(list(log.glob("*.json"))) < 20
    before = rows_of(tmp_path, visible_paths(tmp_path))
    damaged = min((tmp_path / "late").rglob("*-n1-*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")

    outcomes = {o.unit.dataset: o for o in compact_all(compactor(tmp_path))}

    assert outcomes["late"].fault.endswith("its sha256 is not the one in the log")
    assert outcomes["readings"].files == 24
    after = rows_of(tmp_path, [p for p in visible_paths(tmp_path) if "late" not in p])
    assert after == Counter({r: n for r, n in before.items() if "late" not in r[0]})


def test_files_of_another_job_and_of_nobody_stay(tmp_path: Path) -> None:
    here = town(tmp_path, job="other", topic="telemetry.other")
    mine = {"source": "telemetry.other/0"}
    for n in range(8):
        here.commit(emission([reading(n, **mine)]), 1, snapshot=n == 7)
    town(tmp_path, job="other", topic="telemetry.other")
    filled(tmp_path)
    stray = tmp_path / READINGS.folder / "mine.parquet"
    stray.write_bytes(b"")

    compact_all(compactor(tmp_path))

    left = [p.name for p in (tmp_path / READINGS.folder).glob("*.parquet")]
    assert stray.exists()
    assert sum(name.startswith("telemetry.other") for name in left) == 8
    stray.unlink()
    before = exact_rows(tmp_path)
    assert sum(before.values()) == 8 + 48


def test_a_damaged_input_is_left_alone_and_named(tmp_path: Path) -> None:
    filled(tmp_path)
    path = sorted((tmp_path / READINGS.folder).glob("*.parquet"))[3]
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    outcomes = {o.unit: o for o in compact_all(compactor(tmp_path))}

    assert outcomes[READINGS].what == "failed"
    assert (
        f"{path.name}: its sha256 is not the one in the log" in outcomes[READINGS].fault
    )
    assert len(list((tmp_path / READINGS.folder).glob("*.parquet"))) == 8
    assert sum(o.what == "compacted" for o in outcomes.values()) == 4
    assert not staged(tmp_path)


def test_a_column_this_version_does_not_know_is_not_thrown_away(tmp_path: Path) -> None:
    here = filled(tmp_path)
    entry = newest_readings(tmp_path, here)
    table = pq.read_table(tmp_path / entry.path, partitioning=None)
    more = table.append_column("mood", pa.array(["good"] * len(table)))
    pq.write_table(more, tmp_path / entry.path)
    made = compactor(tmp_path)
    record = sorted((tmp_path / here.log._session.log).glob("*.json"))[-2]
    text = json.loads(record.read_text())
    for file in text["files"]:
        if file["path"] == entry.path:
            data = (tmp_path / entry.path).read_bytes()
            file["sha256"] = hashlib.sha256(data).hexdigest()
    record.write_text(json.dumps(text))

    assert "mood" in made.compact(READINGS).fault


# --- killed anywhere ------------------------------------------------------------------


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_step_no_reader_loses_a_row_and_the_next_run_finishes(
    tmp_path: Path, point: str
) -> None:
    here = filled(tmp_path)
    compact_all(compactor(tmp_path))
    continued(here, tmp_path)
    before = rows_of(tmp_path, visible_paths(tmp_path))
    made = compactor(tmp_path, "dead", killing(point))
    with pytest.raises(Killed):
        made.compact(READINGS)

    seen = rows_of(tmp_path, visible_paths(tmp_path))
    assert not before - seen, "a folder reader sees fewer rows"
    assert exact_rows(tmp_path) == before
    assert sum(f.rows for f in date_files(tmp_path)) == sum(before.values())

    compact_all(compactor(tmp_path, "heir"))

    assert rows_of(tmp_path, visible_paths(tmp_path)) == before
    assert len(list((tmp_path / READINGS.folder).glob("*.parquet"))) == 1
    assert verify(tmp_path).findings == ()
    assert not staged(tmp_path)


@pytest.mark.parametrize("point", [p for p in POINTS if p != "compact.publish.middle"])
def test_killed_while_it_deletes_the_rows_are_gone_for_exact_readers_at_once(
    tmp_path: Path, point: str
) -> None:
    filled(tmp_path)
    compact_all(compactor(tmp_path))
    with pytest.raises(Killed):
        compactor(tmp_path, "dead", killing(point)).delete(READINGS, "why")

    committed = POINTS.index(point) >= POINTS.index("compact.record.after")
    rows = open_readings(tmp_path).collect()
    assert len(rows) == (0 if committed else 16)

    compactor(tmp_path, "heir").delete(READINGS, "why")

    assert not list((tmp_path / READINGS.folder).glob("*.parquet"))
    report = verify(tmp_path)
    assert report.findings == ()
    assert report.deleted == {"readings": 16}


def test_verification_names_a_swap_that_nobody_finished(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(Killed):
        compactor(tmp_path, "dead", killing("compact.record.after")).compact(READINGS)
    findings = verify(tmp_path).findings
    assert any("compacted, but not yet published" in f for f in findings)

    compact_all(compactor(tmp_path))
    with pytest.raises(Killed):
        compactor(tmp_path, "dead", killing("compact.delete.middle")).delete(
            Unit("late", "", "razlog", DAY), "why"
        )
    assert verify(tmp_path).findings == ()  # One file, and that is gone.


# --- two at once ----------------------------------------------------------------------


def test_of_two_compactors_at_one_folder_exactly_one_wins(tmp_path: Path) -> None:
    filled(tmp_path)
    before = rows_of(tmp_path, visible_paths(tmp_path))
    other = compactor(tmp_path, "other")
    won: list[str] = []

    def interrupt(point: str) -> None:
        if point == "compact.record.before" and not won:
            won.append(other.compact(READINGS).what)

    outcome = compactor(tmp_path, "first", interrupt).compact(READINGS)

    assert (outcome.what, won) == ("lost", ["compacted"])
    assert rows_of(tmp_path, visible_paths(tmp_path)) == before
    assert len([p for p in homes(tmp_path) if "readings" in p.parts]) == 1
    assert not staged(tmp_path)
    assert verify(tmp_path).findings == ()


def test_one_that_finds_its_inputs_gone_has_lost_too(tmp_path: Path) -> None:
    filled(tmp_path)
    other = compactor(tmp_path, "other")

    class Slow(LocalStore):
        def stage(self, path: str, content: object) -> int:
            msg = f"{path}: must not come so far"
            raise AssertionError(msg)

        def read(self, path: str) -> bytes | None:
            if path.startswith(READINGS.folder):
                other.compact(READINGS)
            return super().read(path)

    store = Slow(tmp_path, ballast_bytes=0)

    assert compactor(store, "first").compact(READINGS).what == "lost"


# --- much in one folder ---------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 5])
def test_more_rows_than_fit_become_files_by_ranges_of_devices(
    tmp_path: Path, rows: int
) -> None:
    filled(tmp_path)
    before = rows_of(tmp_path, visible_paths(tmp_path))

    outcomes = compact_all(compactor(tmp_path, limits=Limits(rows=rows)))

    assert {outcome.what for outcome in outcomes} == {"compacted"}
    assert rows_of(tmp_path, visible_paths(tmp_path)) == before
    paths = sorted((tmp_path / READINGS.folder).glob("*.parquet"))
    devices = [
        set(pl.read_parquet(p, hive_partitioning=False)["device"].cast(str))
        for p in paths
    ]
    assert len(paths) == 4
    assert sum(map(len, devices)) == 4, "no device is cut"
    assert verify(tmp_path).findings == ()
    assert whats(tmp_path) == []


def test_files_without_devices_are_split_by_their_bytes(tmp_path: Path) -> None:
    filled(tmp_path)
    before = rows_of(tmp_path, visible_paths(tmp_path))
    unit = Unit("quarantine", "", "razlog", DAY)

    outcome = compactor(tmp_path, limits=Limits(size_bytes=200)).compact(unit)

    assert outcome.files_after > 1
    assert rows_of(tmp_path, visible_paths(tmp_path)) == before


# --- reading --------------------------------------------------------------------------


def test_what_is_committed_and_not_published_is_read_from_staging(
    tmp_path: Path,
) -> None:
    here = filled(tmp_path)
    compact_all(compactor(tmp_path))
    before = exact_rows(tmp_path)
    here.writer.append(emission([reading(24)]))
    span = OffsetSpan(24, 25)
    files = here.writer.write(here.store, here.log.staging(), here.log.stem(span), span)
    counts = RecordCounts(records=1, decoded=1, readings=1)
    here.log.commit(Draft("commit", 25, tuple(files), counts))

    assert sum((exact_rows(tmp_path) - before).values()) == 1
    assert len(open_readings(tmp_path).collect()) == 17
    log = tmp_path / here.log._session.log
    for record in sorted(log.glob("*.json"))[:-1]:
        record.unlink()  # As if they had been squashed, and the hint lagged.
    assert len(open_readings(tmp_path).collect()) == 17
    here.log.publish()
    assert len(open_readings(tmp_path).collect()) == 17


def test_a_dataset_is_asked_for_by_its_name(tmp_path: Path) -> None:
    filled(tmp_path)

    assert len(open_dataset(tmp_path, "late", cities=["razlog"]).collect()) == 8
    assert not len(open_dataset(tmp_path, "late", dates=[TODAY]).collect())
    hours = open_dataset(tmp_path, "aggregates", window="1h").collect()
    assert hours["window"].unique().to_list() == ["1h"]
    with pytest.raises(InputError, match="is no dataset"):
        open_dataset(tmp_path, "reading")
    with pytest.raises(InputError, match="a window belongs to aggregates"):
        open_dataset(tmp_path, "aggregates")


def test_a_file_replaced_under_a_query_makes_it_fail_and_the_next_try_is_right(
    tmp_path: Path,
) -> None:
    here = filled(tmp_path)
    frame = open_readings(tmp_path)
    compact_all(compactor(tmp_path))
    with pytest.raises(FileNotFoundError):
        frame.collect()
    continued(here, tmp_path)
    tries: list[int] = []

    def query(frame: pl.LazyFrame) -> pl.LazyFrame:
        tries.append(1)
        compact_all(compactor(tmp_path))
        return frame

    assert len(read_dataset(tmp_path, "readings", query)) == 32
    assert len(tries) == 2


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "its bytes are not"),
    ],
)
def test_a_damaged_compacted_file_is_found(
    tmp_path: Path, damage: Callable[[Path], object], expected: str
) -> None:
    filled(tmp_path)
    compact_all(compactor(tmp_path))
    (path,) = (tmp_path / READINGS.folder).glob("*.parquet")

    damage(path)

    assert any(expected in finding for finding in verify(tmp_path).findings)


def test_a_changed_chain_is_found_and_not_believed(tmp_path: Path) -> None:
    filled(tmp_path)
    compact_all(compactor(tmp_path))
    record = next(p for p in homes(tmp_path) if "readings" in p.parts)
    record.write_text(record.read_text().replace('"rows":16', '"rows":17'))

    assert any("its inputs had 16" in finding for finding in verify(tmp_path).findings)
