"""The order of filesystem operations behind each store effect.

A filesystem promises little: bytes are safe after `fsync` of the file, a name is safe
after `fsync` of the directory that holds it, and a new directory is safe after `fsync` of
its parent. Everything in between may be lost with the power, name by name. `Durability`
turns each store effect into a sequence of operations that keeps the `Store` contract all
the same (EXACTLY_ONCE.md 1.2 (a)). It performs nothing itself: `connectors.local_store`
does, and `testing.sim_disk`, which stops between any two of them.

Rules that are easy to get wrong, each of them a mutant in `tests/simulation`:

* a record becomes visible by `link`, never by `rename`, which would overwrite;
* what somebody else has linked may not be durable yet: whoever *acts* on a name (a listed
  record, a file found in place) makes its directory durable first;
* a directory that is already there may not be durable either.
"""

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from streamproc.core.effects import (
    Content,
    Create,
    Delete,
    List,
    Publish,
    Read,
    Replace,
    Settle,
    Stage,
    StoreEffect,
    T,
)
from streamproc.core.ports import Created, StoredFile
from streamproc.errors import Fenced, StoreFault


class Linked(StrEnum):
    """The outcome of a `Link`; `MISSING`: no such source, or no folder to put it in."""

    DONE = "done"
    EXISTS = "exists"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class MakeDir:
    """Create one directory; fine if it is there."""

    path: str


@dataclass(frozen=True, slots=True)
class SyncDir:
    """Make the names in a directory durable; answered by whether there is one."""

    path: str


@dataclass(frozen=True, slots=True)
class WriteNew:
    """Create a file with these bytes; it must not exist."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Fill:
    """Create a file from `Content`; answered by its size, None if its folder is gone."""

    path: str
    content: Content


@dataclass(frozen=True, slots=True)
class SyncFile:
    """Make a file's bytes durable; answered by whether there is one."""

    path: str


@dataclass(frozen=True, slots=True)
class Link:
    """Give a file a second name, never replacing one; answered by `Linked`."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Rename:
    """Give a file another name, replacing what has it."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Unlink:
    """Remove a name; fine if it is not there."""

    path: str


@dataclass(frozen=True, slots=True)
class RemoveDir:
    """Remove a directory if it is empty; answered by whether it is gone."""

    path: str


@dataclass(frozen=True, slots=True)
class ReadFile:
    """Answered by a file's bytes, None where there is none."""

    path: str


@dataclass(frozen=True, slots=True)
class Walk:
    """Answered by every file below a folder with a path above `after`, sorted by path."""

    folder: str
    after: str = ""


@dataclass(frozen=True, slots=True)
class Digest:
    """Answered by a file's (size, sha256), None where there is none."""

    path: str


Operation: TypeAlias = (
    MakeDir
    | SyncDir
    | WriteNew
    | Fill
    | SyncFile
    | Link
    | Rename
    | Unlink
    | RemoveDir
    | ReadFile
    | Walk
    | Digest
)
Operations: TypeAlias = Generator[Operation, Any, T]


def parent(path: str) -> str:
    """Return the folder of `path`; the root is the empty string."""
    return path.rpartition("/")[0]


class Durability:
    """One process's view of one filesystem: which operations make an effect durable.

    Holds what the process remembers (folders it has made durable, publications not yet
    settled, files it staged itself) and dies with it.

    Args:
        scratch: folder for files that have no name yet; no other process uses it.
    """

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._serial = 0
        self._durable_folders = {""}
        self._unsynced: set[str] = set()
        self._unsettled: set[str] = set()
        self._staged_here: set[str] = set()

    def plan(  # noqa: PLR0911  (one arm per effect)
        self, effect: StoreEffect
    ) -> Operations[Any]:
        """Return the operations of `effect`; their result is the effect's answer."""
        match effect:
            case Create(path, data):
                return self.create(path, data)
            case Read(path):
                return self.read(path)
            case List(folder, after):
                return self.list(folder, after)
            case Stage(path, content):
                return self.stage(path, content)
            case Publish(staged, final, size, sha256):
                return self.publish(staged, final, size, sha256)
            case Settle():
                return self.settle()
            case Replace(path, data):
                return self.replace(path, data)
            case Delete(path):
                return self.delete(path)

    def create(self, path: str, data: bytes) -> Operations[Created]:
        """Sync what was staged, write and sync a nameless file, link it, sync the folder.

        The folder is synced also where the name was taken: its owner may have died
        between link and sync, and the caller is going to believe what it reads there.
        """
        yield from self._ensure(parent(path))
        scratch = yield from self._write_scratch(data)
        linked: Linked = yield Link(scratch, path)
        if linked is Linked.MISSING:
            msg = f"{path}: its folder was removed while the store was in use"
            raise StoreFault(msg)
        yield from _sync_folder(parent(path))
        yield Unlink(scratch)
        return Created.CREATED if linked is Linked.DONE else Created.EXISTS

    def read(self, path: str) -> Operations[bytes | None]:
        """Read a file."""
        data: bytes | None = yield ReadFile(path)
        return data

    def list(self, folder: str, after: str = "") -> Operations[tuple[StoredFile, ...]]:
        """Walk, then sync the folder, so that no name in it can vanish any more."""
        files: tuple[StoredFile, ...] = yield Walk(folder, after)
        if files and not (yield SyncDir(folder)):
            return ()  # Another owner removed it meanwhile.
        return files

    def stage(self, path: str, content: Content) -> Operations[int]:
        """Fill a file under its own name and sync it.

        Its name, and its folder's, are synced by the next `create`, before the record that
        names it exists: once for all files of a commit. A staged file alone is worth nothing.
        """
        yield from self._ensure(parent(path), self._unsynced)
        yield Unlink(path)
        size: int | None = yield Fill(path, content)
        if size is None:
            # Another owner cleaned up the empty folder after we had made it.
            yield from self._ensure_again(parent(path))
            size = yield Fill(path, content)
        if size is None or not (yield SyncFile(path)):
            msg = f"{path}: swept while it was written, which only a newer owner does"
            raise Fenced(msg)
        self._unsynced.add(parent(path))
        self._staged_here.add(path)
        return size

    def publish(
        self, staged: str, final: str, size: int, sha256: str
    ) -> Operations[None]:
        """Link the staged file to its final name; `settle` makes the name durable.

        What another process staged is hashed before it gets a name. A name that is there
        already is compared, and settled too: its owner may have died before it did.
        """
        folder = parent(final)
        yield from self._ensure(folder)
        if staged not in self._staged_here:
            found: tuple[int, str] | None = yield Digest(staged)
            if found is not None and found != (size, sha256):
                raise _differs(staged, found, (size, sha256))
        linked: Linked = yield Link(staged, final)
        if linked is Linked.MISSING:
            yield from self._ensure_again(folder)
            linked = yield Link(staged, final)
        if linked is not Linked.DONE:
            found = yield Digest(final)
            if found != (size, sha256):
                raise _differs(final, found, (size, sha256))
        self._unsettled.add(folder)

    def settle(self) -> Operations[None]:
        """Sync every folder that was published into."""
        yield from self._sync_staged()
        for folder in sorted(self._unsettled):
            yield from _sync_folder(folder)
        self._unsettled.clear()

    def replace(self, path: str, data: bytes) -> Operations[None]:
        """Write and sync a nameless file, rename it over `path`, sync the folder."""
        yield from self._ensure(parent(path))
        scratch = yield from self._write_scratch(data)
        yield Rename(scratch, path)
        yield from _sync_folder(parent(path))

    def delete(self, path: str) -> Operations[None]:
        """Unlink, and remove the folder it leaves empty. Not synced: it may come back."""
        yield Unlink(path)
        self._staged_here.discard(path)
        folder = parent(path)
        if any(parent(other) == folder for other in self._staged_here):
            return  # Not empty yet, and finding that out costs 0.1 ms.
        removed: bool = yield RemoveDir(folder)
        if removed:
            self._durable_folders.discard(folder)
            self._unsynced.discard(folder)

    def _write_scratch(self, data: bytes) -> Operations[str]:
        yield from self._ensure(self._scratch)
        self._serial += 1
        scratch = f"{self._scratch}/{self._serial}"
        yield WriteNew(scratch, data)
        yield SyncFile(scratch)
        yield from self._sync_staged()
        return scratch

    def _sync_staged(self) -> Operations[None]:
        for folder in sorted(self._unsynced):
            # Gone: swept by a newer owner, whose record the coming link is going to find.
            yield SyncDir(folder)
        self._unsynced.clear()

    def _ensure(self, folder: str, later: set[str] | None = None) -> Operations[None]:
        """Make `folder` and everything above it exist durably, once per process.

        What has to be synced for that is added to `later`, or synced at once.
        """
        if folder in self._durable_folders:
            return
        above = parent(folder)
        yield from self._ensure(above, later)
        yield MakeDir(folder)
        if later is None:
            yield from _sync_folder(above)
        else:
            later.add(above)
        self._durable_folders.add(folder)

    def _ensure_again(self, folder: str) -> Operations[None]:
        above = folder
        while above:
            self._durable_folders.discard(above)
            above = parent(above)
        yield from self._ensure(folder)


def _sync_folder(folder: str) -> Operations[None]:
    if not (yield SyncDir(folder)):
        msg = f"{folder}: removed while the store was in use"
        raise StoreFault(msg)


def _differs(
    path: str, found: tuple[int, str] | None, wanted: tuple[int, str]
) -> StoreFault:
    if found is None:
        return StoreFault(f"{path}: committed, but neither staged nor published")
    return StoreFault(
        f"{path}: {found[0]} bytes, sha256 {found[1]}; "
        f"the log says {wanted[0]} bytes, {wanted[1]}"
    )
