"""`PartitionLog` on real and simulated stores: commits, restarts, snapshots, power loss."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from streamproc.connectors.local_store import LocalStore
from streamproc.core.ports import Store
from streamproc.core.values import OffsetSpan
from streamproc.errors import Fenced, LogCorrupt
from streamproc.runtime.partition_log import (
    Draft,
    PartitionLog,
    read_tables,
)
from streamproc.testing.sim_disk import SimDisk
from streamproc.testing.sim_store import SimStore
from tests.support.logs import DEFINITION, FOLDER, attempts, earliest, identity, stage


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path)
    yield store
    store.close()


def _log(store: Store, owner: str = "a") -> PartitionLog:
    log = PartitionLog(store, FOLDER, identity(owner), attempts(owner))
    log.open(DEFINITION, earliest)
    return log


def _commit(store: Store, log: PartitionLog, data: bytes) -> str:
    """Commit one record with one file; return its final name."""
    folder = log.staging()
    span = OffsetSpan(log.head.next, log.head.next + 10)
    final = f"readings/city=razlog/date=2026-01-01/{log.stem(span)}.parquet"
    file = stage(store, f"{folder}/x.parquet", final, data, span.start)
    log.commit(Draft("commit", span.end, [file]))
    return final


TABLES = {
    "windows": pa.table({"start": [1, 2, 3], "sum": [0.5, 1.5, 2.5]}),
    "series": pa.table({"device": pa.array(["a", "b", "a"]).dictionary_encode()}),
    "empty": pa.table({"x": pa.array([], pa.int64())}).replace_schema_metadata(
        {b"version": b"1"}
    ),
}


def test_a_commit_is_published_cleaned_and_found_again(store: LocalStore) -> None:
    log = _log(store)
    final = _commit(store, log, b"data")
    assert store.read(final) is None

    log.publish()
    log.publish()
    log.clean()

    assert store.read(final) == b"data"
    assert list(store.list(f"{FOLDER}/staging")) == []
    assert Path(store.local_path(f"{FOLDER}/staging")).is_dir()
    assert list(Path(store.local_path(f"{FOLDER}/staging")).iterdir()) == []
    again = _log(store, "b")
    assert (again.head.n, again.head.kind, again.head.next) == (2, "takeover", 10)
    assert [r.n for r in again.records_since_snapshot()] == [1]


def test_the_next_owner_publishes_what_was_committed_and_fences(
    store: LocalStore,
) -> None:
    first = _log(store)
    final = _commit(store, first, b"data")

    second = _log(store, "b")

    assert store.read(final) == b"data"
    assert second.still_ours()
    assert not first.still_ours()
    with pytest.raises(Fenced):
        _commit(store, first, b"more")
    assert list(store.list(f"{FOLDER}/staging/3-a0000003")) == []
    final = _commit(store, second, b"more")
    second.publish()
    assert store.read(final) == b"more"


def test_a_snapshot_comes_back_as_it_went_with_the_records_after_it(
    store: LocalStore,
) -> None:
    log = _log(store)
    log.staging()
    ref = log.stage_snapshot(TABLES)
    log.commit(Draft("commit", 7, snapshot=ref, watermarks={"razlog": 5}))
    _commit(store, log, b"data")

    again = _log(store, "b")

    assert again.head.snapshot is not None
    assert (again.head.snapshot.n, again.head.snapshot.next) == (1, 7)
    assert again.head.watermarks == {"razlog": 5}
    assert [(r.n, r.start, r.next) for r in again.records_since_snapshot()] == [
        (2, 7, 17)
    ]
    tables = again.read_snapshot(again.head.snapshot)
    assert list(tables) == list(TABLES)
    for name, table in TABLES.items():
        assert tables[name].equals(table, check_metadata=True)


@pytest.mark.fault(
    "F31", how="one bit of a snapshot changed", seen="refused by its sha256"
)
def test_a_snapshot_with_one_changed_bit_is_refused(store: LocalStore) -> None:
    log = _log(store)
    ref = log.stage_snapshot(TABLES)
    log.commit(Draft("commit", 7, snapshot=ref))
    path = Path(store.local_path(ref.path))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    assert log.head.snapshot is not None
    with pytest.raises(LogCorrupt, match="bytes"):
        log.read_snapshot(log.head.snapshot)


def test_tables_without_names_are_not_a_snapshot() -> None:
    sink = pa.BufferOutputStream()
    table = pa.table({"x": [1]})
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)

    with pytest.raises(pa.ArrowInvalid):
        read_tables(sink.getvalue().to_pybytes())


def test_the_definition_in_force_stays_until_a_config_record(store: LocalStore) -> None:
    log = _log(store)
    newer = dataclasses.replace(DEFINITION, dedup=4)
    log = PartitionLog(store, FOLDER, identity("b"), attempts("b"))

    log.open(newer, earliest)

    assert log.head.definition == DEFINITION.sha256()
    log.commit(Draft("config", 0, definition=newer.sha256()))
    assert log.definition(log.head.definition) == newer
    assert _log(store, "c").head.definition == newer.sha256()


def test_failpoints_are_called_on_the_way(store: LocalStore) -> None:
    reached: list[str] = []
    log = PartitionLog(store, FOLDER, identity(), attempts("a"), reached.append)
    log.open(DEFINITION, earliest)
    _commit(store, log, b"data")
    log.publish()
    log.clean()

    assert reached == [
        "takeover.before",
        "takeover.after",
        "staging.before",
        "staging.after",
        "record.before",
        "record.after",
        "publish.before",
        "publish.middle",
        "publish.after",
        "clean.before",
    ]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.fault(
    "F26",
    how="simulated disk loses what was not synced, at any failpoint",
    seen="what was published is there",
)
def test_what_was_published_survives_a_power_loss_at_any_failpoint(seed: int) -> None:
    class Dead(Exception):
        pass

    random = Random(seed)
    disk = SimDisk()
    store = SimStore(disk, "a")
    finals: list[str] = []
    dies_at = random.randrange(7, 60)
    reached: list[str] = []

    def failpoint(name: str) -> None:
        reached.append(name)
        if len(reached) == dies_at:
            raise Dead

    log = PartitionLog(store, FOLDER, identity(), attempts("a"), failpoint)

    def run_until_dead() -> None:
        log.open(DEFINITION, earliest)
        while True:
            finals.append(_commit(store, log, b"%d" % len(finals)))
            log.publish()
            log.clean()

    with pytest.raises(Dead):
        run_until_dead()
    disk.lose_power(random)
    store.close()

    store = SimStore(disk, "b")
    log = _log(store, "b")

    committed = log.head.next // 10
    assert committed in {len(finals), len(finals) + 1}
    for n, final in enumerate(finals):
        assert store.read(final) == b"%d" % n
    visible = [file.path for file in store.list("readings")]
    assert len(visible) == committed
    store.close()
