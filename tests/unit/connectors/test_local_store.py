"""What `LocalStore` adds to the port: faults, links, scratch folders, ballast."""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from streamproc.connectors import local_files, local_store
from streamproc.connectors.local_store import LocalStore
from streamproc.core.ports import Created
from streamproc.errors import StoreFault, StoreFull


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path / "root")
    yield store
    store.close()


def _fill(name: str) -> None:
    Path(name).write_bytes(b"data")


def _refuse(code: int) -> None:
    raise OSError(code, os.strerror(code))


def test_the_self_test_passes_here_and_leaves_nothing_behind(
    store: LocalStore, tmp_path: Path
) -> None:
    store.self_test()

    files = [path.name for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert sorted(files) == ["ballast", "lock"]


def test_the_self_test_refuses_a_filesystem_that_overwrites(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: str, target: str, *, follow_symlinks: bool) -> None:
        Path(source).replace(target)

    monkeypatch.setattr(os, "link", link)

    with pytest.raises(StoreFault, match="a second create was not refused"):
        store.self_test()


def test_the_self_test_sweeps_dead_scratch_folders_and_spares_living_ones(
    store: LocalStore, tmp_path: Path
) -> None:
    scratch = tmp_path / "root" / local_store.SCRATCH
    dead = scratch / "1-dead"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "17").write_bytes(b"half a rec")
    living = LocalStore(tmp_path / "root")

    store.self_test()

    assert not dead.exists()
    assert len(list(scratch.iterdir())) == 2
    assert living.create("log/0", b"x") is Created.CREATED
    living.close()
    living.close()


@pytest.mark.fault("F25", how="EIO of fsync", seen="the store ends; never tried again")
def test_a_failed_fsync_is_never_retried(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("log/0", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: _refuse(errno.EIO))
        with pytest.raises(StoreFault, match="fsync failed"):
            store.create("log/1", b"x")

    with pytest.raises(StoreFault, match="fsync failed"):
        store.read("log/0")


@pytest.mark.fault("F24", how="ENOSPC in staging", seen="said; the store goes on")
def test_a_full_disk_says_so_and_does_not_end_the_store(
    store: LocalStore,
) -> None:
    with pytest.raises(StoreFull, match="disk full"):
        store.stage("staging/1-a/x", lambda _: _refuse(errno.ENOSPC))

    assert store.stage("staging/1-a/x", _fill) == 4


def test_operations_of_several_threads_do_not_interleave(store: LocalStore) -> None:
    """What one has published, another one's `settle` must not take for settled half-way."""
    inside, go_on, done = Event(), Event(), Event()

    def fill(name: str) -> None:
        inside.set()
        assert go_on.wait(30)
        _fill(name)

    def settle() -> None:
        store.settle()
        done.set()

    one = Thread(target=store.stage, args=("staging/1-a/x", fill))
    other = Thread(target=settle)
    one.start()
    assert inside.wait(30)
    other.start()
    assert not done.wait(0.2)
    go_on.set()
    one.join()
    other.join()
    assert done.is_set()


@pytest.mark.fault(
    "F24", how="ENOSPC while the record is created", seen="created on the ballast"
)
def test_a_record_is_created_on_the_ballast_when_the_disk_is_full(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ballast = next((tmp_path / "root" / local_store.SCRATCH).rglob("ballast"))
    write_new = local_files.write_new

    def write(name: str, data: bytes) -> None:
        if ballast.exists():
            _refuse(errno.ENOSPC)
        write_new(name, data)

    def allocate(descriptor: int, offset: int, size: int) -> None:
        _refuse(errno.ENOSPC)

    monkeypatch.setattr(local_files, "write_new", write)
    monkeypatch.setattr(os, "posix_fallocate", allocate)

    assert store.create("log/0", b"record") is Created.CREATED
    assert store.read("log/0") == b"record"
    assert not ballast.exists()


def test_without_ballast_a_full_disk_refuses_the_record_and_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path, ballast_bytes=0)
    monkeypatch.setattr(local_files, "write_new", lambda *_: _refuse(errno.ENOSPC))

    with pytest.raises(StoreFull, match="disk full"):
        store.create("log/0", b"record")
    assert store.read("log/0") is None
    store.close()


def test_another_filesystem_below_the_root_is_explained(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = store.stage("staging/1-a/x", _fill)
    digest = hashlib.sha256(b"data").hexdigest()

    def link(source: str, target: str, *, follow_symlinks: bool) -> None:
        _refuse(errno.EXDEV)

    monkeypatch.setattr(os, "link", link)

    with pytest.raises(StoreFault, match="must be on one filesystem"):
        store.publish("staging/1-a/x", "readings/x", size, digest)


def test_symbolic_links_below_the_root_are_refused(
    store: LocalStore, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"secret")
    (tmp_path / "root" / "readings").symlink_to(outside)
    (tmp_path / "root" / "log").mkdir()
    (tmp_path / "root" / "log" / "0").symlink_to(outside / "x")

    for path in ("readings/x", "log/0"):
        with pytest.raises(StoreFault):
            store.read(path)
    with pytest.raises(StoreFault):
        store.stage("readings/y", _fill)
    assert [file.path for file in store.list("log")] == []
    assert list(outside.iterdir()) == [outside / "x"]


def test_a_failed_writer_leaves_no_half_file(store: LocalStore) -> None:
    def half(name: str) -> None:
        Path(name).write_bytes(b"ha")
        _refuse(errno.EIO)

    with pytest.raises(StoreFault, match="Input/output"):
        store.stage("staging/1-a/x", half)

    assert store.read("staging/1-a/x") is None


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreFault, match="file"):
        LocalStore(tmp_path / "file")


def test_a_store_whose_folder_cannot_be_cleared_up_closes_and_the_next_one_clears_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(local_files, "remove_tree", lambda _: _refuse(errno.EROFS))
        store.close()
    following = LocalStore(tmp_path)

    following.self_test()

    assert len(list((tmp_path / local_store.SCRATCH).iterdir())) == 1
    following.close()


def test_a_root_that_is_gone_is_a_fault_of_the_store(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: _refuse(errno.EACCES))

    with pytest.raises(StoreFault, match="root: Permission denied"):
        store.stage("staging/1-a/x", _fill)
