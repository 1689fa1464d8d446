"""A store in a folder of this host.

`core.durability` says which filesystem operations make an effect durable, and in which
order; this module performs them. What it adds:

* a failed `fsync` is never retried, because the kernel may have dropped the pages and
  reported it once: the store refuses everything from then on, and the process must stop;
* a full disk is `StoreFull`, before the last bytes are gone, and stays so until there is
  clearly more room than that (hysteresis: each commit would fill it again); records have
  a ballast to fall back on, so that what is staged can still be committed;
* one operation at a time: partitions are opened and written in several threads, and what
  `settle` has to make durable belongs to all of them;
* symbolic links below the root are refused, names are checked component by component;
* files without a name live in a scratch folder of this process, locked while it runs;
  `self_test` removes the folders of processes that are gone.

The folder must be one filesystem that several owners see alike: a disk of this host, or a
shared volume on which `self_test` passes.
"""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final
from uuid import uuid4

from streamproc.connectors import local_files
from streamproc.core.durability import (
    Digest,
    Durability,
    Fill,
    Link,
    MakeDir,
    Operation,
    Operations,
    ReadFile,
    RemoveDir,
    Rename,
    SyncDir,
    SyncFile,
    Unlink,
    Walk,
    WriteNew,
)
from streamproc.core.effects import Content, T
from streamproc.core.ports import Created, StoredFile
from streamproc.errors import StoreFault, StoreFull, WorldError

SCRATCH: Final = "_streamproc/.tmp"
# A record is a few kB; a commit creates one record, its link and perhaps a folder block.
_BALLAST_BYTES: Final = 1 << 20
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_MEBIBYTE: Final = 1 << 20
_FULL_BELOW: Final = (16 * _MEBIBYTE, 50)
_ROOM_FROM: Final = (128 * _MEBIBYTE, 10)
"""Bytes free, but on a small disk at most one so many-th of it."""


class LocalStore:
    """`core.ports.Store` on a local filesystem.

    Every `StoreFault` means that the process must stop; `StoreFull` is none.

    Args:
        root: the output root; created if its parent exists. It may itself be a symbolic
            link, nothing below it may.
        ballast_bytes: room kept for records when the disk is full; 0 for none.

    Raises:
        StoreFault: the root cannot be used.
    """

    def __init__(self, root: Path, ballast_bytes: int = _BALLAST_BYTES) -> None:
        session = f"{os.getpid()}-{uuid4().hex}"
        self._scratch = f"{SCRATCH}/{session}"
        self._durability = Durability(self._scratch)
        self._ballast_bytes = ballast_bytes
        self._broken: str | None = None
        self._full = False
        self._one_at_a_time = Lock()
        self._plain_folders = {""}
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._root = os.path.realpath(root)
            scratch = Path(self._root, self._scratch)
            scratch.mkdir(parents=True)
            self._lock: int | None = local_files.lock(scratch / "lock")
            self._fill_ballast()
        except OSError as error:
            msg = f"{root}: {error.strerror}"
            raise StoreFault(msg) from error

    # --- the port ---------------------------------------------------------------------

    def create(self, path: str, data: bytes) -> Created:
        """See the port. Never answers `UNKNOWN`: what cannot be told here is a fault."""
        try:
            return self._run(self._durability.create(path, data), path)
        except StoreFull:
            if not self._drop_ballast():
                raise
        outcome = self._run(self._durability.create(path, data), path)
        with contextlib.suppress(OSError):  # Still full: the next record has to wait.
            self._fill_ballast()
        return outcome

    def read(self, path: str) -> bytes | None:
        """See the port."""
        return self._run(self._durability.read(path), path)

    def list(self, folder: str, after: str = "") -> Sequence[StoredFile]:
        """See the port."""
        return self._run(self._durability.list(folder, after), folder)

    def stage(self, path: str, content: Content) -> int:
        """See the port."""
        self._require_room()
        return self._run(self._durability.stage(path, content), path)

    def publish(self, staged: str, final: str, size: int, sha256: str) -> None:
        """See the port."""
        local_files.check_path(staged)
        self._run(self._durability.publish(staged, final, size, sha256), final)

    def settle(self) -> None:
        """See the port."""
        self._run(self._durability.settle(), "")

    def replace(self, path: str, data: bytes) -> None:
        """See the port."""
        self._run(self._durability.replace(path, data), path)

    def delete(self, path: str) -> None:
        """See the port. Also removes the folder that is left empty."""
        self._run(self._durability.delete(path), path)

    def local_path(self, path: str) -> str:
        """Return the file's name on this host."""
        local_files.check_path(path)
        return f"{self._root}/{path}"

    # --- lifecycle --------------------------------------------------------------------

    def self_test(self) -> str:
        """Try on this filesystem what the protocol rests on, and sweep dead scratch folders.

        Returns what was seen, in a line.

        Raises:
            StoreFault: a second create was not refused, bytes or names do not come back,
                hard links, locks or fsync do not work here.
        """
        probe = f"{self._scratch}/self-test"
        first = self.create(f"{probe}/record", b"first")
        second = self.create(f"{probe}/record", b"second")
        if (first, second) != (Created.CREATED, Created.EXISTS):
            msg = f"{self._root}: a second create was not refused ({first}, {second})"
            raise StoreFault(msg)
        size = self.stage(f"{probe}/staged", b"staged")
        digest = hashlib.sha256(b"staged").hexdigest()
        self.publish(f"{probe}/staged", f"{probe}/final/a", size, digest)
        self.publish(f"{probe}/staged", f"{probe}/final/a", size, digest)
        self.settle()
        found = [file.path for file in self.list(probe)]
        wanted = [f"{probe}/final/a", f"{probe}/record", f"{probe}/staged"]
        if found != wanted or self.read(f"{probe}/record") != b"first":
            msg = f"{self._root}: what was written does not come back"
            raise StoreFault(msg)
        for path in found:
            self.delete(path)
        self._sweep_scratch()
        return "a second create is refused; links, locks and fsync work"

    def close(self) -> None:
        """Remove the scratch folder and let go of its lock; safe twice.

        What cannot be removed stays for the next `self_test`: no fault, and it must not hide one.
        """
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            local_files.remove_tree(Path(self._root, self._scratch))
        os.close(self._lock)
        self._lock = None

    # --- performing -------------------------------------------------------------------

    def _require_room(self) -> None:
        """Refuse to stage before the disk is full to the brim, and until it is clearly not."""
        try:
            found = os.statvfs(self._root)
        except OSError as error:
            msg = f"{self._root}: {error.strerror}"
            raise StoreFault(msg) from error
        free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
        most, part = _ROOM_FROM if self._full else _FULL_BELOW
        needed = min(most, size // part)
        self._full = free < needed
        if self._full:
            msg = f"disk full: {self._root}: {free} bytes are free, {needed} are needed"
            raise StoreFull(msg)

    def _run(self, operations: Operations[T], path: str) -> T:
        with self._one_at_a_time:
            return self._run_alone(operations, path)

    def _run_alone(self, operations: Operations[T], path: str) -> T:
        if path:
            local_files.check_path(path)
        if self._broken is not None:
            raise StoreFault(self._broken)
        answer: Any = None
        while True:
            try:
                operation = operations.send(answer)
            except StopIteration as done:
                result: T = done.value
                return result
            try:
                answer = self._perform(operation)
            except OSError as error:
                raise self._fault(operation, error) from error

    def _perform(  # noqa: C901, PLR0911, PLR0912  (one arm per operation)
        self, operation: Operation
    ) -> Any:
        match operation:
            case SyncDir(path):
                return self._sync(path, os.O_DIRECTORY)
            case SyncFile(path):
                return self._sync(path, 0)
            case WriteNew(path, data):
                return local_files.write_new(self._at(path), data)
            case Link(source, target):
                return local_files.link(self._at(source), self._at(target))
            case MakeDir(path):
                return self._make_folder(path)
            case Fill(path, content):
                return local_files.fill(self._at(path), content)
            case Rename(source, target):
                return os.rename(self._at(source), self._at(target))  # noqa: PTH104  (hot)
            case Unlink(path):
                return local_files.unlink(self._at(path))
            case RemoveDir(path):
                return self._remove_folder(path)
            case ReadFile(path):
                return local_files.read(self._at(path))
            case Walk(folder, after):
                found = self._walk(folder, after)
                return tuple(sorted(found, key=lambda file: file.path))
            case Digest(path):
                return local_files.digest(self._at(path))

    def _sync(self, path: str, flags: int) -> bool:
        name = f"{self._root}/{path}" if path else self._root
        descriptor = local_files.open_to_read(name, flags)
        if descriptor is None:
            return False
        try:
            os.fsync(descriptor)
        except OSError as error:
            self._broken = (
                f"{name}: fsync failed ({error.strerror}); what was written since the last "
                "one may be lost, so this process must stop and start over"
            )
            raise StoreFault(self._broken) from error
        finally:
            os.close(descriptor)
        return True

    def _at(self, path: str) -> str:
        """Return the absolute name, with no symbolic link between root and file."""
        folder = path.rpartition("/")[0]
        if folder not in self._plain_folders:
            self._check_plain(folder)
        return f"{self._root}/{path}"

    def _check_plain(self, folder: str) -> None:
        above = folder.rpartition("/")[0]
        if above not in self._plain_folders:
            self._check_plain(above)
        try:
            mode = os.lstat(f"{self._root}/{folder}").st_mode
        except OSError as error:
            if error.errno in local_files.ABSENT:
                return
            raise
        if stat.S_ISLNK(mode):
            msg = f"{self._root}/{folder}: symbolic links below the root are refused"
            raise StoreFault(msg)
        if stat.S_ISDIR(mode):
            self._plain_folders.add(folder)

    def _make_folder(self, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._at(path))  # noqa: PTH102  (paths are strings here)
        self._check_plain(path)

    def _remove_folder(self, path: str) -> bool:
        try:
            os.rmdir(self._at(path))  # noqa: PTH106  (paths are strings here)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                return False
            if error.errno not in local_files.ABSENT:
                raise
        self._plain_folders.discard(path)
        return True

    def _walk(self, folder: str, after: str) -> Iterator[StoredFile]:
        prefix = f"{folder}/" if folder else ""
        try:
            entries = os.scandir(self._at(f"{prefix}."))
        except OSError as error:
            if error.errno in local_files.ABSENT:
                return
            raise
        with entries:
            for entry in entries:
                path = f"{prefix}{entry.name}"
                with contextlib.suppress(FileNotFoundError):  # Deleted meanwhile.
                    if entry.is_dir(follow_symlinks=False):
                        yield from self._walk(path, after)
                    elif path > after and entry.is_file(follow_symlinks=False):
                        size = entry.stat(follow_symlinks=False).st_size
                        yield StoredFile(path, size)

    def _fault(self, operation: Operation, error: OSError) -> WorldError:
        what = f"{self._root}: {operation.__class__.__name__}: {error}"
        if error.errno in _FULL:
            self._full = True
            return StoreFull(f"disk full: {what}")
        if error.errno == errno.EXDEV:
            return StoreFault(
                f"{what}: staging and output must be on one filesystem, "
                "so nothing below the root may be a mount point"
            )
        return StoreFault(what)

    # --- scratch and ballast ----------------------------------------------------------

    def _fill_ballast(self) -> None:
        if not self._ballast_bytes:
            return
        name = Path(self._root, self._scratch, "ballast")
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._ballast_bytes)
        except OSError:
            name.unlink()
            raise
        finally:
            os.close(descriptor)

    def _drop_ballast(self) -> bool:
        try:
            Path(self._root, self._scratch, "ballast").unlink()
        except FileNotFoundError:
            return False
        return True

    def _sweep_scratch(self) -> None:
        """Remove scratch folders whose owner is gone: nobody holds their lock."""
        for folder in Path(self._root, SCRATCH).iterdir():
            if folder.name == Path(self._scratch).name or folder.is_symlink():
                continue
            try:
                descriptor = local_files.lock(folder / "lock")
            except OSError:  # Alive, or just being made or removed.
                continue
            try:
                local_files.remove_tree(folder)
            finally:
                os.close(descriptor)
