"""Every `Store` keeps the port's contract: local, in a bucket of a real server, simulated."""

import hashlib
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from streamproc.connectors.local_store import LocalStore
from streamproc.connectors.object_store import ObjectStore
from streamproc.core.ports import Created, Store, StoredFile
from streamproc.errors import StoreFault
from streamproc.testing.s3_server import S3Server
from streamproc.testing.sim_disk import SimDisk
from streamproc.testing.sim_store import SimStore
from tests.support.buckets import store_at
from tests.support.kafka import fresh
from tests.support.s3 import shared_s3

Closing = LocalStore | ObjectStore | SimStore
Stores = tuple[Store, Store]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with shared_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["local", "s3", "simulated"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """Two processes' views of one store."""
    pair: tuple[Closing, Closing]
    if request.param == "local":
        pair = (LocalStore(tmp_path), LocalStore(tmp_path))
    elif request.param == "s3":
        server: S3Server = request.getfixturevalue("s3")
        options = server.options("contracts", fresh("root"))
        pair = (store_at(options), store_at(options))
    else:
        disk = SimDisk()
        pair = (SimStore(disk, "a"), SimStore(disk, "b"))
    yield pair
    for store in pair:
        store.close()


def _stage(store: Store, path: str, data: bytes) -> tuple[int, str]:
    size = store.stage(path, data)
    store.settle()
    return size, hashlib.sha256(data).hexdigest()


def _publish(store: Store, staged: str, final: str, size: int, digest: str) -> None:
    store.publish(staged, final, size, digest)
    store.settle()


def _delete(store: Store, path: str) -> None:
    store.delete(path)
    store.settle()


def test_the_first_create_wins_and_the_second_leaves_it_alone(stores: Stores) -> None:
    mine, other = stores

    assert mine.create("log/0", b"mine") is Created.CREATED
    assert other.create("log/0", b"other") is Created.EXISTS
    assert mine.create("log/0", b"again") is Created.EXISTS
    assert mine.read("log/0") == other.read("log/0") == b"mine"


def test_reading_what_is_not_there_answers_none(stores: Stores) -> None:
    mine, _ = stores
    mine.create("log/0", b"x")

    assert mine.read("log/1") is None
    assert mine.read("nowhere/at/all") is None
    assert mine.read("log/0/below-a-file") is None


def test_a_listing_is_sorted_and_recursive_and_shows_only_whole_files(
    stores: Stores,
) -> None:
    mine, other = stores
    other.create("log/2", b"22")
    mine.create("log/deep/er/1", b"1")
    mine.create("log/10", b"")
    mine.create("logs/3", b"3")

    assert tuple(mine.list("log")) == (
        StoredFile("log/10", 0),
        StoredFile("log/2", 2),
        StoredFile("log/deep/er/1", 1),
    )
    assert tuple(mine.list("nowhere")) == ()


def test_a_listing_may_begin_after_a_name_whether_or_not_it_is_there(
    stores: Stores,
) -> None:
    mine, other = stores
    for name in ("log/1", "log/2", "log/3", "log/deep/1", "logs/3"):
        other.create(name, b"x")

    def after(name: str) -> list[str]:
        return [file.path for file in mine.list("log", name)]

    assert after("log/1") == ["log/2", "log/3", "log/deep/1"]
    assert after("log/2x") == ["log/3", "log/deep/1"]
    assert after("log/deep") == ["log/deep/1"]
    assert after("log/deep/1") == after("z") == []
    assert after("") == after("log") == after("lo") == ["log/1", *after("log/1")]


def test_staging_overwrites_a_leftover_and_returns_the_size(stores: Stores) -> None:
    mine, other = stores
    _stage(other, "staging/1-a/x", b"a longer leftover")

    size, _ = _stage(mine, "staging/1-a/x", b"new")

    assert size == 3
    assert mine.read("staging/1-a/x") == b"new"


def test_what_is_staged_is_bytes_a_view_of_bytes_or_written_by_a_function(
    stores: Stores,
) -> None:
    mine, _ = stores

    def write(name: str) -> None:
        Path(name).write_bytes(b"data")

    arrow = memoryview(pa.py_buffer(b"data"))
    for content in (b"data", memoryview(b"some data")[5:], arrow, write):
        assert mine.stage("staging/1-a/x", content) == 4
        assert mine.read("staging/1-a/x") == b"data"


def test_publishing_is_idempotent_for_every_process_and_outlives_its_staging(
    stores: Stores,
) -> None:
    mine, other = stores
    size, digest = _stage(mine, "staging/1-a/x", b"data")

    for store in (mine, other, mine):
        _publish(store, "staging/1-a/x", "readings/city=a/x", size, digest)
    _delete(mine, "staging/1-a/x")
    _publish(other, "staging/1-a/x", "readings/city=a/x", size, digest)

    assert other.read("readings/city=a/x") == b"data"
    assert tuple(mine.list("staging")) == ()


def test_publishing_refuses_other_bytes_under_the_same_name(stores: Stores) -> None:
    mine, other = stores
    size, digest = _stage(mine, "staging/1-a/x", b"data")
    _publish(mine, "staging/1-a/x", "readings/x", size, digest)
    size, digest = _stage(other, "staging/1-b/x", b"tada")

    with pytest.raises(StoreFault, match="readings/x"):
        _publish(other, "staging/1-b/x", "readings/x", size, digest)
    assert mine.read("readings/x") == b"data"


def test_publishing_refuses_what_is_neither_staged_nor_published(
    stores: Stores,
) -> None:
    mine, _ = stores

    with pytest.raises(StoreFault, match="neither staged nor published"):
        _publish(mine, "staging/1-a/x", "readings/x", 1, "0" * 64)


def test_publishing_another_process_s_staging_checks_its_bytes_first(
    stores: Stores,
) -> None:
    mine, other = stores
    size, digest = _stage(mine, "staging/1-a/x", b"data")
    _stage(mine, "staging/1-a/x", b"dXta")

    with pytest.raises(StoreFault, match="staging/1-a/x"):
        _publish(other, "staging/1-a/x", "readings/x", size, digest)
    assert other.read("readings/x") is None


def test_replace_puts_whole_content_over_whatever_was_there(stores: Stores) -> None:
    mine, other = stores

    mine.replace("log/published", b"123456")
    other.replace("log/published", b"7")

    assert mine.read("log/published") == b"7"


def test_deleting_twice_is_fine_and_the_folder_can_be_used_again(
    stores: Stores,
) -> None:
    mine, other = stores
    _stage(mine, "staging/1-a/x", b"data")

    _delete(other, "staging/1-a/x")
    _delete(mine, "staging/1-a/x")
    _stage(mine, "staging/1-a/x", b"more")

    assert other.read("staging/1-a/x") == b"more"


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a//b", "a/./b", "", "a/../../b"]
)
def test_names_that_are_not_plain_relative_paths_are_refused(
    stores: Stores, path: str
) -> None:
    mine, _ = stores

    with pytest.raises(StoreFault, match="not a plain relative path"):
        mine.create(f"{path}/x", b"x")


def _race(
    root: Path, racer: int, names: int, wins: "multiprocessing.Queue[list[int]]"
) -> None:
    store = LocalStore(root)
    data = str(racer).encode() * 500
    won = [n for n in range(names) if store.create(f"log/{n}", data) is Created.CREATED]
    store.close()
    wins.put(won)


def test_of_eight_processes_exactly_one_wins_each_name(tmp_path: Path) -> None:
    racers, names = 8, 40
    context = multiprocessing.get_context("spawn")
    wins: multiprocessing.Queue[list[int]] = context.Queue()
    processes = [
        context.Process(target=_race, args=(tmp_path, racer, names, wins))
        for racer in range(racers)
    ]
    for process in processes:
        process.start()
    won = [n for _ in processes for n in wins.get(timeout=60)]
    for process in processes:
        process.join(timeout=60)

    assert sorted(won) == list(range(names))
    store = LocalStore(tmp_path)
    for n in range(names):
        data = store.read(f"log/{n}")
        assert data is not None
        assert data == data[:1] * 500
    store.close()


def test_of_racing_simulated_processes_exactly_one_wins_whatever_the_order() -> None:
    disk = SimDisk()
    racers = [SimStore(disk, str(n)) for n in range(8)]

    outcomes = [racer.create("log/0", b"x") for racer in racers]

    assert sorted(outcomes) == [Created.CREATED, *[Created.EXISTS] * 7]
    for racer in racers:
        racer.close()
