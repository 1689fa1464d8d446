"""Which dates are closed, which are old, and what of them may go."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from streamproc.analytics.dataset import open_dataset
from streamproc.analytics.verify import verify
from streamproc.app.keeping import Chosen, compact, jobs_of, last_ended, retain
from streamproc.config import Settings
from streamproc.connectors.local_store import LocalStore
from streamproc.core.replays import done_path, plan_path
from tests.support.compaction import (
    DAY,
    READINGS,
    continued,
    filled,
    mixed,
    rows_of,
    visible_paths,
)
from tests.support.configs import LEAST, faults
from tests.support.configs import settings as configured
from tests.support.tables import town

DAY_US = 86_400_000_000


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)


def settings(tmp_path: Path, text: str) -> Settings:
    folder = tmp_path.parent / f"{tmp_path.name}-configuration"
    folder.mkdir(exist_ok=True)
    return configured(folder, f'{LEAST}\n[job]\nname = "region"\n{text}')


def store(root: Path) -> LocalStore:
    return LocalStore(root, ballast_bytes=0)


@pytest.mark.parametrize(
    ("now", "ago_us", "last"),
    [
        ("2026-01-02T11:59:59", 0, date(2025, 12, 31)),
        ("2026-01-02T12:00:00", 0, date(2026, 1, 1)),
        ("2026-01-04T12:00:00", 2 * DAY_US, date(2026, 1, 1)),
        ("2026-03-01T11:00:00", 0, date(2026, 2, 27)),
    ],
)
def test_a_date_has_ended_when_it_has_ended_everywhere(
    now: str, ago_us: int, last: date
) -> None:
    assert last_ended(at(now), ago_us) == last


def test_open_dates_are_not_compacted_and_chosen_ones_alone_are(tmp_path: Path) -> None:
    filled(tmp_path)
    here = store(tmp_path)

    assert jobs_of(here) == ["region"]
    assert not list(compact(here, "region", date(2023, 11, 14), env={}))
    only = Chosen(datasets=["late"], cities=["razlog"], dates=[DAY])
    assert [o.unit.dataset for o in compact(here, "region", DAY, only, {})] == ["late"]
    assert not list(compact(here, "region", DAY, Chosen(cities=["ange"]), {}))
    assert len(list(compact(here, "region", DAY, env={}))) == 4


def test_what_is_older_than_its_dataset_is_kept_goes_whole_and_by_a_record(
    tmp_path: Path,
) -> None:
    filled(tmp_path)
    made = settings(tmp_path, '[retain]\nreadings = "400d"\nquarantine = "90d"\n')
    here = store(tmp_path)
    # November 15th has ended on the 16th at noon.
    before, after = at("2024-12-20T11:59:59"), at("2024-12-20T12:00:00")

    assert [o.unit.dataset for o in retain(here, made, before, dry=True, env={})] == [
        "quarantine"
    ]
    assert [o.what for o in retain(here, made, after, dry=True, env={})] == ["due"] * 2
    outcomes = list(retain(here, made, after, env={}))

    assert [(o.unit.dataset, o.what, o.files, o.rows) for o in outcomes] == [
        ("readings", "deleted", 8, 16),
        ("quarantine", "deleted", 8, 8),
    ]
    report = verify(tmp_path)
    assert report.findings == ()
    assert report.deleted == {"readings": 16, "quarantine": 8}
    assert open_dataset(tmp_path, "readings").collect().is_empty()
    assert not (tmp_path / READINGS.folder).exists()
    assert not list(retain(here, made, after, env={}))


def test_rows_that_come_for_a_deleted_date_go_with_the_next_run(tmp_path: Path) -> None:
    here = filled(tmp_path)
    made = settings(
        tmp_path, '[retain]\nreadings = "1d"\n[compaction]\nclosed_after = "1d"\n'
    )
    now = at("2026-01-01T00:00:00")
    list(retain(store(tmp_path), made, now, env={}))
    continued(here, tmp_path)
    assert len(open_dataset(tmp_path, "readings").collect()) == 16

    list(compact(store(tmp_path), "region", DAY, env={}))
    assert len(open_dataset(tmp_path, "readings").collect()) == 16
    list(retain(store(tmp_path), made, now, env={}))

    assert open_dataset(tmp_path, "readings").collect().is_empty()
    assert verify(tmp_path).findings == ()


def test_what_a_refold_still_reads_is_kept_however_old(tmp_path: Path) -> None:
    here = filled(tmp_path)
    for n in range(8):
        here.commit(mixed(24 + 3 * n), 3)
    needed = [f for r in here.log.records_since_snapshot() for f in r.files]
    town(tmp_path)
    made = settings(tmp_path, '[retain]\nreadings = "400d"\n')

    (outcome,) = retain(store(tmp_path), made, at("2030-01-01T00:00:00"), env={})

    assert (outcome.what, outcome.files, outcome.waiting) == ("deleted", 8, 8)
    left = {f.path for f in needed if f.dataset == "readings"}
    assert {p for p in visible_paths(tmp_path) if p.startswith("readings/")} == left
    assert sum(rows_of(tmp_path, sorted(left)).values()) == 16
    town(tmp_path)  # The next owner finds all it asks for.


def test_what_an_unfinished_replay_has_claimed_is_kept(tmp_path: Path) -> None:
    filled(tmp_path)
    made = settings(tmp_path, '[retain]\nquarantine = "90d"\n')
    here, now = store(tmp_path), at("2030-01-01T00:00:00")
    here.create(plan_path("region", 0), b"{}")

    assert [o.what for o in retain(here, made, now, env={})] == ["waiting"]
    here.create(done_path("region", 0), b"")
    assert [o.what for o in retain(here, made, now, env={})] == ["deleted"]


def test_without_retain_nothing_is_deleted(tmp_path: Path) -> None:
    filled(tmp_path)

    assert not list(
        retain(
            store(tmp_path), settings(tmp_path, ""), at("2030-01-01T00:00:00"), env={}
        )
    )


def test_dates_may_not_go_before_they_are_closed(tmp_path: Path) -> None:
    text = '[compaction]\nclosed_after = "40d"\n[retain]\nreadings = "30d"\n'

    (fault,) = faults(tmp_path, f"{LEAST}\n{text}")

    assert "retain.readings" in fault
    assert "must not be shorter than [compaction] closed_after = 40d" in fault
