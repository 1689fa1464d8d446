"""Verification finds every kind of damage, and nothing in a sound root."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from streamproc.analytics.inspect import inspect
from streamproc.analytics.verify import verify
from streamproc.cli.main import run
from streamproc.core.chain import Draft
from streamproc.core.definition import CitySpec, DeviceSpec
from streamproc.core.ports import StagedFile
from streamproc.core.record import RecordCounts
from streamproc.core.values import Emission, OffsetSpan, TimerDecision
from tests.support.tables import (
    DEFINITION,
    START_US,
    Row,
    Town,
    alert,
    emission,
    late_row,
    part,
    reading,
    refused,
    town,
)

GOOD = RecordCounts(records=1, decoded=1, readings=1)


def replace_counts(**changes: int) -> RecordCounts:
    return msgspec.structs.replace(GOOD, **changes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    _fill(town(root))
    other = town(root, "nevers")
    mine = {"city": "nevers", "source": "telemetry.nevers/0"}
    other.commit(emission([reading(i, **mine) for i in range(3)]), records=3)
    return root


def _fill(here: Town) -> None:
    first = emission(
        [reading(0), reading(0, ordinal=1), reading(1)],
        [part([1.0])],
        quarantine=[refused(2)],
        alerts=[alert(1)],
    )
    here.commit(first, records=3)
    second = emission(
        [reading(3, flags=1), reading(4)],
        late=[late_row(3)],
        # A rule's `for` may be due now and have begun with an earlier record.
        alerts=[alert(0, 1)],
        quarantine=[refused(5, city="_unknown")],
    )
    here.commit(second, records=3, late=1)


def _only(root: Path, pattern: str) -> Path:
    found = sorted(root.glob(pattern))
    assert found, pattern
    return found[0]


def test_a_sound_root_has_no_findings(root: Path) -> None:
    report = verify(root)

    assert report.findings == ()
    assert report.ok
    assert (report.logs, report.records, report.offsets) == (2, 5, 9)
    assert report.rows == {
        "readings": 8,
        "aggregates": 1,
        "quarantine": 2,
        "alerts": 2,
        "late": 1,
    }
    assert report.files == 9
    assert report.to_dict()["findings"] == ()


def test_derived_and_hidden_files_are_no_findings(root: Path) -> None:
    for name in ("properties.parquet", "stations.parquet", ".hidden", "_SUCCESS"):
        (root / name).write_bytes(b"")

    assert verify(root).ok


def test_a_folder_without_a_log_is_a_finding(tmp_path: Path) -> None:
    assert "no commit log" in verify(tmp_path).findings[0]


READINGS = "readings/city=razlog/*/*.parquet"
LOG = "_streamproc/region/telemetry.razlog-id/0"


def _remove(root: Path) -> None:
    _only(root, READINGS).unlink()


def _truncate(root: Path) -> None:
    path = _only(root, READINGS)
    path.write_bytes(path.read_bytes()[:-1])


def _flip(root: Path) -> None:
    path = _only(root, READINGS)
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(bytes(data))


def _stray(root: Path) -> None:
    path = _only(root, READINGS)
    shutil.copy(path, path.with_name("copy.parquet"))


def _move_city(root: Path) -> None:
    path = _only(root, READINGS)
    there = root / "readings/city=ange" / path.parent.name
    there.mkdir(parents=True)
    path.rename(there / path.name)


def _drop_record(root: Path) -> None:
    (root / LOG / "log/00000000000000000001.json").unlink()


def _drop_head(root: Path) -> None:
    (root / LOG / "published").write_text("2")
    (root / LOG / "log/00000000000000000002.json").unlink()


def _edit_record(root: Path) -> None:
    path = root / LOG / "log/00000000000000000001.json"
    path.write_text(path.read_text().replace('"records": 3', '"records": 4'))


def _tear_record(root: Path) -> None:
    path = root / LOG / "log/00000000000000000002.json"
    path.write_bytes(path.read_bytes()[:100])


def _move_log(root: Path) -> None:
    shutil.move(root / LOG, root / "_streamproc/region/telemetry.razlog-id/7")


def _edit_definition(root: Path) -> None:
    path = _only(root, f"{LOG}/definitions/*.json")
    path.write_text(path.read_text().replace("Sofia", "Paris"))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_remove, "missing"),
        (_truncate, "the log says"),
        (_flip, "sha256"),
        (_stray, "no log names it"),
        (_move_city, "missing"),
        (_drop_record, "the log begins with|is missing"),
        (_drop_head, "the log ends at 1"),
        (_edit_record, "does not name the bytes of record 1"),
        (_tear_record, "not a log record"),
        (_move_log, "holds the log of"),
        (_edit_definition, "missing or changed"),
    ],
)
def test_damage_is_found(
    root: Path, damage: Callable[[Path], None], expected: str
) -> None:
    damage(root)

    findings = verify(root).findings

    assert any(re.search(expected, finding) for finding in findings), findings


def _foreign(root: Path) -> None:
    path = _only(root, READINGS)
    path.with_name("theirs.parquet").write_bytes(b"not ours")


@pytest.mark.parametrize(
    ("damage", "code"),
    [(None, 0), (_remove, 3), (_flip, 3), (_stray, 3), (_foreign, 3)],
    ids=["sound", "missing", "changed", "doubled", "foreign"],
)
@pytest.mark.fault(
    "F31",
    how="a file missing, changed, doubled or foreign",
    seen="inspect --verify exits with 3",
)
def test_inspect_exits_with_3_where_one_file_is_wrong(
    root: Path, damage: Callable[[Path], None] | None, code: int
) -> None:
    if damage is not None:
        damage(root)

    assert run(["inspect", str(root), "--verify"]) == code


def _stage(here: Town, made: Emission, records: int) -> tuple[StagedFile, ...]:
    here.writer.append(made)
    span = OffsetSpan(here.next, here.next + records)
    files = here.writer.write(here.store, here.log.staging(), here.log.stem(span), span)
    return tuple(files)


def test_a_committed_file_that_is_not_published_is_told_apart(root: Path) -> None:
    here = town(root, "ange")
    mine = {"city": "ange", "source": "telemetry.ange/0"}
    files = _stage(here, emission([reading(0, **mine)]), 1)
    here.log.commit(Draft(kind="commit", next=1, files=files, counts=GOOD))

    (finding,) = verify(root).findings

    assert finding.endswith("committed, but not yet published")
    summary = next(p for p in inspect(root).partitions if p.topic == "telemetry.ange")
    assert (summary.unpublished, summary.staging_files) == (1, 1)


@pytest.mark.parametrize(
    ("rows", "counts", "expected"),
    [
        ([reading(0), reading(0)], replace_counts(readings=2), "more than once"),
        ([reading(5)], GOOD, r"5 to 5 leave the record's \[0, 1\)"),
        ([reading(0, source="telemetry.nevers/0")], GOOD, "rows of telemetry.nevers/0"),
        ([reading(0, city="nevers")], GOOD, "its topic belongs to razlog"),
        ([reading(0, city="atlantis")], GOOD, "no city of the definition"),
        ([reading(0, date=date(2023, 11, 14))], GOOD, "local date: 2023-11-15"),
        (
            [reading(0)],
            replace_counts(readings=2),
            "counts 2 readings, its files hold 1",
        ),
        (
            [reading(0)],
            replace_counts(late=1),
            "counts 1 late readings, its files hold 0",
        ),
        (
            [reading(0)],
            replace_counts(quarantined=1),
            "1 records are not 1 decoded, 1 quarantined and 0 ignored",
        ),
        (
            [reading(0)],
            replace_counts(ignored=1),
            "1 records are not 1 decoded, 0 quarantined and 1 ignored",
        ),
        (
            [reading(0)],
            replace_counts(skipped=1),
            "1 offsets are not 1 records and 1 sk",
        ),
        ([reading(0)], replace_counts(aggregates=3), "counts 3 aggregates"),
    ],
)
def test_a_lying_record_is_found(
    tmp_path: Path, rows: list[Row], counts: RecordCounts, expected: str
) -> None:
    here = town(tmp_path / "root")
    files = _stage(here, emission(rows), 1)
    here.log.commit(Draft(kind="commit", next=1, files=files, counts=counts))
    here.log.publish()

    findings = verify(tmp_path / "root").findings

    assert any(re.search(expected, finding) for finding in findings), findings


def test_an_ignored_record_is_accounted_for(tmp_path: Path) -> None:
    here = town(tmp_path / "root")
    files = _stage(here, emission([reading(0)]), 3)
    counts = replace_counts(records=3, ignored=2)
    here.log.commit(Draft(kind="commit", next=3, files=files, counts=counts))
    here.log.publish()

    assert verify(tmp_path / "root").findings == ()
    rows = inspect(tmp_path / "root").partitions[0].rows
    assert (rows["records"], rows["ignored"], rows["skipped"]) == (3, 2, 0)


def test_an_entry_with_other_offsets_than_its_rows_is_found(tmp_path: Path) -> None:
    here = town(tmp_path / "root")
    (file,) = _stage(here, emission([reading(0)]), 1)
    lying = replace(file, last_offset=9)
    here.log.commit(Draft(kind="commit", next=1, files=(lying,), counts=GOOD))
    here.log.publish()

    (finding,) = verify(tmp_path / "root").findings

    assert "offsets 0 to 0, the log says 0 to 9" in finding


@pytest.mark.parametrize(("device", "found"), [("d1", 0), ("d2", 1)])
def test_rows_of_a_shared_topic_are_held_against_the_device_list(
    tmp_path: Path, device: str, found: int
) -> None:
    definition = replace(
        DEFINITION,
        topic_cities=(),
        devices=(DeviceSpec("razlog", "d1"), DeviceSpec("nevers", "d2")),
    )
    here = town(tmp_path / "root", topic="shared", definition=definition)
    rows = [reading(0, device=device, source="shared/0")]
    here.commit(
        emission(rows, quarantine=[refused(1, city="_unknown", source="shared/0")]), 2
    )

    findings = verify(tmp_path / "root").findings

    assert len(findings) == found
    assert all("not registered in razlog: d2" in finding for finding in findings)


def test_rows_are_held_against_the_definition_they_were_made_under(root: Path) -> None:
    moved = CitySpec("razlog", "Razlog", "America/New_York")
    new = replace(DEFINITION, cities=(moved, *DEFINITION.cities[1:]))
    here = town(root, definition=new)
    n = here.next
    before = _stage(here, emission([reading(n)]), 1)
    here.log.commit(
        Draft(
            kind="commit",
            next=n + 1,
            files=before,
            counts=GOOD,
            definition=new.sha256(),
        )
    )
    here.log.publish()
    here.next += 1
    here.commit(emission([reading(n + 1, date=date(2023, 11, 14))]), records=1)

    assert verify(root).findings == ()


def test_two_jobs_that_read_the_same_offsets_into_one_root_are_found(
    root: Path,
) -> None:
    town(root, job="other").commit(emission([reading(0)]), 1)

    (finding,) = verify(root).findings

    assert "both read offsets from 0" in finding


@pytest.mark.parametrize("damaged", [False, True])
def test_the_newest_snapshot_is_checked(root: Path, damaged: bool) -> None:
    here = town(root)
    table = pa.table({"a": [1, 2]})
    snapshot = here.log.stage_snapshot({"state": table})
    here.log.commit(Draft(kind="commit", next=here.next, snapshot=snapshot))
    assert verify(root).ok

    path = root / snapshot.path
    if damaged:
        path.write_bytes(path.read_bytes() + b"x")
    else:
        path.unlink()

    (finding,) = verify(root).findings
    assert snapshot.path in finding


# --- inspect --------------------------------------------------------------------------


def test_a_summary_tells_positions_files_and_leftovers(root: Path) -> None:
    here = town(root)
    timer = TimerDecision("idle", "razlog", None, here.next, START_US)
    snapshot = here.log.stage_snapshot({"state": pa.table({"a": [1]})})
    here.log.commit(
        Draft(
            kind="timer",
            next=here.next,
            timers=(timer,),
            watermarks={"razlog": START_US},
            snapshot=snapshot,
        )
    )
    (root / LOG / "staging/9-x").mkdir(parents=True)
    (root / LOG / "staging/9-x/left").write_bytes(b"abc")

    summary = inspect(root)

    first, second = summary.partitions
    assert (first.topic, second.topic) == ("telemetry.nevers", "telemetry.razlog")
    assert (second.start, second.next, second.head, second.kind) == (0, 6, 4, "timer")
    assert second.kinds == {"genesis": 1, "commit": 2, "takeover": 1, "timer": 1}
    assert second.timers == {"idle": 1}
    assert second.watermarks == {"razlog": START_US}
    assert second.rows["readings"] == 5
    assert (second.rows["records"], second.rows["late_readings"]) == (6, 1)
    assert second.snapshot is not None
    assert (second.snapshot.n, second.snapshot.next) == (4, 6)
    assert (second.unpublished, second.staging_files, second.staging_bytes) == (0, 1, 3)
    assert second.fault is None
    totals = {(d.dataset, d.window, d.city): d.rows for d in summary.datasets}
    assert totals == {
        ("aggregates", "1h", "razlog"): 1,
        ("alerts", "", "razlog"): 2,
        ("late", "", "razlog"): 1,
        ("quarantine", "", "_unknown"): 1,
        ("quarantine", "", "razlog"): 1,
        ("readings", "", "nevers"): 3,
        ("readings", "", "razlog"): 5,
    }
    json.dumps(summary.to_dict())


def test_a_broken_log_is_summarised_as_far_as_it_can_be_read(root: Path) -> None:
    _tear_record(root)

    broken = next(p for p in inspect(root).partitions if p.topic == "telemetry.razlog")

    assert broken.head == 1
    assert broken.fault is not None


def test_nothing_is_summarised_of_a_root_that_is_not_there(tmp_path: Path) -> None:
    summary = inspect(tmp_path / "nothing")

    assert summary.partitions == ()
    assert summary.datasets == ()
