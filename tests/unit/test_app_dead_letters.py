"""Dead letters back again: what the fix accepts is put back once, the rest is named."""

import json
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pytest

from streamproc.analytics.dataset import open_quarantine, open_readings
from streamproc.analytics.dead_letters import (
    Filter,
    dead_letter_keys,
    dead_letter_rows,
    list_dead_letters,
)
from streamproc.analytics.inspect import inspect
from streamproc.analytics.merge import aggregates
from streamproc.analytics.replays import read_plans
from streamproc.analytics.verify import verify
from streamproc.app.dead_letters import PutBack, _Run, replay_dead_letters
from streamproc.app.replay import replay_files
from streamproc.app.root import Root
from streamproc.config import Settings
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.files.envelopes import Envelope, EnvelopeWriter
from streamproc.connectors.local_store import LocalStore
from streamproc.core.replays import done_path, plan_path
from streamproc.core.values import PAYLOAD_BYTES_MAX, Emission, Records
from streamproc.errors import Fenced
from streamproc.runtime.observer import Observers
from streamproc.runtime.opening import first_records
from streamproc.runtime.worker import Committed, PartitionWorker
from tests.support.compaction import Killed
from tests.support.configs import LEAST
from tests.support.configs import settings as configured
from tests.support.service import START_US, Watch

TOPIC = "telemetry.razlog"
FIX = '[[properties]]\nproperty = "quax"\nunit = "m"\n'
GOOD, UNKNOWN, BROKEN = "temperature", "quax", "broken"


def settings(folder: Path, text: str = "") -> Settings:
    return configured(
        folder, LEAST + text, overrides={"output.root": str(folder / "data")}
    )


def payload(offset: int, kind: str) -> bytes:
    if kind == BROKEN:
        return b"{nonsense"
    document = {
        "device": f"d{offset % 3}",
        "property": kind,
        "time": START_US // 1000 + offset * 1000,
        "value": float(offset),
    }
    return json.dumps(document).encode()


def write(
    path: Path, kinds: Iterable[str], *, partition: int = 0, first: int = 0
) -> Path:
    writer = EnvelopeWriter(str(path))
    for offset, kind in enumerate(kinds, first):
        writer.write(
            [
                Envelope(
                    topic=TOPIC,
                    partition=partition,
                    offset=offset,
                    key=None,
                    headers=[],
                    timestamp=START_US // 1000 + offset * 1000,
                    value_base64=payload(offset, kind) if kind != "long" else LONG,
                )
            ]
        )
    writer.close()
    return path


LONG = json.dumps(
    {"device": "d", "property": "quax", "x": "y" * PAYLOAD_BYTES_MAX}
).encode()
KINDS = [GOOD, UNKNOWN, BROKEN, UNKNOWN, GOOD, UNKNOWN, "long", GOOD]


async def refused(folder: Path, kinds: Iterable[str] = KINDS) -> None:
    """Fill a root: offsets 1, 3 and 5 name an unknown property, 2 and 6 are past help."""
    path = write(folder / "sent.ndjson", kinds)
    await replay_files(settings(folder), [path], close=True, env={})


async def put_back(folder: Path, text: str = FIX, **more: object) -> PutBack:
    chosen = more.pop("chosen", Filter())
    assert isinstance(chosen, Filter)
    return await replay_dead_letters(
        settings(folder, text),
        chosen,
        "all",
        env={},
        **more,  # type: ignore[arg-type]
    )


def readings(folder: Path) -> list[tuple[str, int]]:
    rows = open_readings(folder / "data").collect()
    return sorted(zip(rows["source"].cast(pl.String), rows["offset"], strict=True))


def files(folder: Path) -> dict[str, bytes]:
    root = folder / "data"
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in root.rglob("*")
        if p.is_file() and ".tmp" not in p.parts
    }


async def test_what_the_fix_accepts_is_put_back_under_its_own_source_and_offset(
    tmp_path: Path,
) -> None:
    await refused(tmp_path)
    before = readings(tmp_path)

    done = await put_back(tmp_path)

    source = f"{TOPIC}/0"
    assert before == [(source, n) for n in (0, 4, 7)]
    assert readings(tmp_path) == [(source, n) for n in (0, 1, 3, 4, 5, 7)]
    assert (done.chosen, done.taken) == (5, 3)
    assert {(k.offset, k.reason) for k in done.kept} == {
        (2, "malformed"),
        (6, "truncated"),
    }
    (cut,) = (k.detail for k in done.kept if k.reason == "truncated")
    assert cut == f"only {PAYLOAD_BYTES_MAX} of its {len(LONG)} bytes were kept"
    assert len(open_quarantine(tmp_path / "data").collect()) == 5
    assert verify(tmp_path / "data").findings == ()


async def test_its_windows_merge_with_those_of_the_log_that_refused_it(
    tmp_path: Path,
) -> None:
    await refused(tmp_path)
    await put_back(tmp_path)

    hours = aggregates(tmp_path / "data", "1h")

    count = dict(zip(hours["property"].cast(str), hours["count"], strict=False))
    assert hours.filter(pl.col("property") == "quax")["count"].sum() == 3
    assert count.keys() == {GOOD, UNKNOWN}
    assert not hours.filter(pl.col("property") == "quax")["partial"].any()


async def test_a_second_run_adds_nothing_not_even_a_record(tmp_path: Path) -> None:
    await refused(tmp_path)
    await put_back(tmp_path)
    before = files(tmp_path)

    done = await put_back(tmp_path)

    assert (done.chosen, done.taken) == (2, 0)
    assert files(tmp_path) == before


async def test_verification_counts_what_a_replay_claims(tmp_path: Path) -> None:
    await refused(tmp_path)
    await put_back(tmp_path)
    plan = tmp_path / "data" / plan_path("streamproc", 0)
    done = tmp_path / "data" / done_path("streamproc", 0)
    plan.write_text(plan.read_text().replace("[1,3,5]", "[1,3]"))

    (finding,) = verify(tmp_path / "data").findings
    assert "claims 2 records, its logs hold 3" in finding
    done.unlink()
    (finding,) = verify(tmp_path / "data").findings
    assert "not finished" in finding
    plan.write_text("{}")
    (finding,) = verify(tmp_path / "data").findings
    assert "not a replay of dead letters" in finding


async def test_a_rehearsal_writes_nothing(tmp_path: Path) -> None:
    await refused(tmp_path)
    before = files(tmp_path)

    done = await put_back(tmp_path, dry=True)

    assert (done.taken, done.replays) == (3, [])
    after = files(tmp_path)
    del before["properties.parquet"], after["properties.parquet"]  # Of the new file.
    assert after == before


async def test_who_put_back_how_many_and_after_which_records_is_kept(
    tmp_path: Path,
) -> None:
    await refused(tmp_path)
    await put_back(tmp_path, chosen=Filter(offset=3))
    await put_back(tmp_path)

    first, second = read_plans(tmp_path / "data")

    assert (first.k, first.taken, first.refused) == (0, {f"{TOPIC}/0": (3,)}, 0)
    assert (second.k, second.taken) == (1, {f"{TOPIC}/0": (1, 5)})
    assert (second.refused, second.unusable) == (1, 1)
    assert first.owner == second.owner
    home = f"_streamproc/streamproc/{TOPIC}-file/0"
    assert first.heads.keys() == {home}
    assert second.heads.keys() == {
        home,
        f"_streamproc/streamproc/{TOPIC}-dead-letters-0/0",
    }
    letters = inspect(tmp_path / "data").dead_letters
    assert letters is not None
    assert (letters.quarantined, letters.replayed, letters.remaining) == (5, 3, 2)
    assert (letters.runs, letters.unfinished, letters.refused_again) == (2, 0, 1)


async def test_what_was_put_back_is_not_listed_any_more(tmp_path: Path) -> None:
    await refused(tmp_path)
    await put_back(tmp_path)

    groups = list_dead_letters(tmp_path / "data")
    everything = list_dead_letters(tmp_path / "data", Filter(replayed=True))

    assert sum(g.records for g in groups) == 2
    assert sum(g.records for g in everything) == 5


@pytest.mark.parametrize(
    ("chosen", "taken"),
    [
        (Filter(reasons=["malformed"]), 0),
        (Filter(reasons=["unknown_property"]), 3),
        (Filter(cities=["ange"]), 0),
        (Filter(source=f"{TOPIC}/0", offset=1), 1),
    ],
)
async def test_only_what_was_chosen_is_tried(
    tmp_path: Path, chosen: Filter, taken: int
) -> None:
    await refused(tmp_path)

    assert (await put_back(tmp_path, chosen=chosen)).taken == taken


async def test_without_the_fix_everything_stays(tmp_path: Path) -> None:
    await refused(tmp_path)

    done = await put_back(tmp_path, text="")

    assert (done.taken, len(done.kept)) == (0, 5)
    assert not read_plans(tmp_path / "data")


class Dying(Watch):
    """Ends everything when it is told something for the nth time."""

    def __init__(self, of: str, nth: int) -> None:
        super().__init__()
        self._of, self._left = of, nth

    def _told(self, what: str) -> None:
        self._left -= what == self._of
        if self._left <= 0:
            raise Killed(what)

    def opened(self, worker: PartitionWorker, seconds: float) -> None:
        self._told("opened")

    def stepped(self, records: Records, emission: Emission, seconds: float) -> None:
        self._told("stepped")

    def committed(self, worker: PartitionWorker, committed: Committed) -> None:
        self._told("committed")


@pytest.mark.parametrize("what", ["opened", "stepped", "committed"])
@pytest.mark.parametrize("nth", [1, 2])
async def test_a_replay_that_was_killed_after_its_claim_is_finished_by_the_next(
    tmp_path: Path, what: str, nth: int
) -> None:
    await refused(tmp_path)
    more = write(tmp_path / "more.ndjson", KINDS, partition=1)
    await replay_files(settings(tmp_path), [more], close=True, env={})
    with pytest.raises(Killed):
        await put_back(tmp_path, observers=[Dying(what, nth)])
    letters = inspect(tmp_path / "data").dead_letters
    assert letters is not None
    assert letters.unfinished == 1

    done = await put_back(tmp_path)

    assert (done.finished, done.taken) == (6, 0)
    sources = (f"{TOPIC}/0", f"{TOPIC}/1")
    assert readings(tmp_path) == [(s, n) for s in sources for n in (0, 1, 3, 4, 5, 7)]
    hours = aggregates(tmp_path / "data", "1h")
    assert hours["count"].sum() == 12
    assert verify(tmp_path / "data").findings == ()


async def test_of_two_that_rehearsed_the_same_records_one_claims_them(
    tmp_path: Path,
) -> None:
    await refused(tmp_path)
    made = settings(tmp_path, FIX)
    slow = _Run(made, Root(made, SystemClock(), {}), None, Observers())
    keys = dead_letter_keys(made.output.root, Filter(offset=3))
    taken, _ = await slow._rehearsed(dead_letter_rows(made.output.root, keys))
    assert (await put_back(tmp_path)).taken == 3

    with pytest.raises(Fenced, match="run it again"):
        slow._claim(taken, 0, "all")

    assert len(read_plans(tmp_path / "data")) == 1


async def test_a_new_partition_is_not_taken_for_one_of_a_deleted_topic(
    tmp_path: Path,
) -> None:
    await refused(tmp_path)
    await put_back(tmp_path)
    store = LocalStore(tmp_path / "data", ballast_bytes=0)

    logs = first_records(store, "streamproc", TOPIC)
    assert {record.topic_id for record in logs} <= {"file"}
