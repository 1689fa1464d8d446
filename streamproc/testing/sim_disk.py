"""A disk that forgets what was not synced.

It performs the operations of `core.durability` in memory. Bytes are safe after `SyncFile`,
names after `SyncDir` of their folder, a folder after `SyncDir` of its parent. A power loss
keeps an arbitrary part of everything else, name by name, and tears unsynced files.
This is harsher than ext4, which orders a little more than POSIX promises.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from streamproc.core.durability import (
    Digest,
    Fill,
    Link,
    Linked,
    MakeDir,
    Operation,
    ReadFile,
    RemoveDir,
    Rename,
    SyncDir,
    SyncFile,
    Unlink,
    Walk,
    WriteNew,
)
from streamproc.core.effects import Content
from streamproc.core.ports import StoredFile
from streamproc.errors import StoreFault


class _File:
    """Bytes as processes see them, and as they are after a power loss (None: torn)."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.synced = False


class _Folder:
    """Names as processes see them, and as they are for certain after a power loss."""

    def __init__(self) -> None:
        self.live: dict[str, _File | _Folder] = {}
        self.safe: dict[str, _File | _Folder] = {}


class SimDisk:
    """One filesystem, shared by every simulated process; survives them all."""

    def __init__(self) -> None:
        self._root = _Folder()

    def perform(  # noqa: C901, PLR0911, PLR0912  (one arm per operation)
        self, operation: Operation
    ) -> Any:
        """Carry out one operation, as atomically as a filesystem does.

        Raises:
            StoreFault: what the operating system would refuse.
        """
        match operation:
            case MakeDir(path):
                folder, name = self._place(path)
                folder.live.setdefault(name, _Folder())
                return None
            case SyncDir(path):
                return self._sync_folder(path)
            case WriteNew(path, data):
                return self._write_new(path, data)
            case Fill(path, content):
                return self._fill(path, content)
            case SyncFile(path):
                return self._sync_file(path)
            case Link(source, target):
                return self._link(source, target)
            case Rename(source, target):
                return self._rename(source, target)
            case Unlink(path):
                return self._unlink(path)
            case RemoveDir(path):
                return self._remove_folder(path)
            case ReadFile(path):
                file = self._find(path)
                return file.data if isinstance(file, _File) else None
            case Walk(folder_path, after):
                found = self._find(folder_path)
                return tuple(
                    StoredFile(path, len(file.data))
                    for path, file in sorted(_files(folder_path, found))
                    if path > after
                )
            case Digest(path):
                file = self._find(path)
                if not isinstance(file, _File):
                    return None
                return len(file.data), hashlib.sha256(file.data).hexdigest()

    def lose_power(self, random: Random) -> None:
        """Forget a random part of what was not synced; what is left is then durable."""
        _forget(self._root, random, set())

    def files(self) -> dict[str, bytes]:
        """Return every file there is, by path."""
        return {path: file.data for path, file in _files("", self._root)}

    def _find(self, path: str) -> _File | _Folder | None:
        node: _File | _Folder | None = self._root
        for name in path.split("/") if path else ():
            if not isinstance(node, _Folder):
                return None
            node = node.live.get(name)
        return node

    def _folder(self, path: str) -> _Folder:
        node = self._find(path)
        if not isinstance(node, _Folder):
            msg = f"{path}: no such folder"
            raise StoreFault(msg)
        return node

    def _file(self, path: str) -> _File:
        node = self._find(path)
        if not isinstance(node, _File):
            msg = f"{path}: no such file"
            raise StoreFault(msg)
        return node

    def _place(self, path: str) -> tuple[_Folder, str]:
        folder, _, name = path.rpartition("/")
        return self._folder(folder), name

    def _sync_folder(self, path: str) -> bool:
        node = self._find(path)
        if not isinstance(node, _Folder):
            return False
        node.safe = dict(node.live)
        return True

    def _sync_file(self, path: str) -> bool:
        node = self._find(path)
        if not isinstance(node, _File):
            return False
        node.synced = True
        return True

    def _write_new(self, path: str, data: bytes) -> None:
        folder, name = self._place(path)
        if name in folder.live:
            msg = f"{path}: exists"
            raise StoreFault(msg)
        folder.live[name] = _File(data)

    def _fill(self, path: str, content: Content) -> int | None:
        if not isinstance(self._find(path.rpartition("/")[0]), _Folder):
            return None
        data = _written_by(content) if callable(content) else bytes(content)
        self._write_new(path, data)
        return len(data)

    def _link(self, source: str, target: str) -> Linked:
        file = self._find(source)
        folder, _, name = target.rpartition("/")
        into = self._find(folder)
        if not isinstance(file, _File) or not isinstance(into, _Folder):
            return Linked.MISSING
        if name in into.live:
            return Linked.EXISTS
        into.live[name] = file
        return Linked.DONE

    def _rename(self, source: str, target: str) -> None:
        file = self._file(source)
        folder, name = self._place(target)
        folder.live[name] = file
        self._unlink(source)

    def _unlink(self, path: str) -> None:
        if isinstance(self._find(path), _File):
            folder, name = self._place(path)
            del folder.live[name]

    def _remove_folder(self, path: str) -> bool:
        node = self._find(path)
        if isinstance(node, _Folder):
            if node.live:
                return False
            folder, name = self._place(path)
            del folder.live[name]
        return True


def _written_by(write: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        name = Path(folder, "file")
        name.touch()
        write(str(name))
        return name.read_bytes()


def _files(path: str, node: _File | _Folder | None) -> Iterator[tuple[str, _File]]:
    if isinstance(node, _File):
        yield path, node
    elif node is not None:
        prefix = f"{path}/" if path else ""
        for name, child in node.live.items():
            yield from _files(f"{prefix}{name}", child)


def _forget(node: _File | _Folder, random: Random, done: set[int]) -> None:
    if id(node) in done:
        return
    done.add(id(node))
    if isinstance(node, _File):
        if not node.synced:
            kept = random.choice((0, random.randint(0, len(node.data)), len(node.data)))
            node.data = node.data[:kept]
            node.synced = True
        return
    # Sorted, so that a seed means the same run whatever the process's hash seed is.
    for name in sorted(node.live.keys() | node.safe.keys()):
        survivor = random.choice((node.live, node.safe)).get(name)
        if survivor is None:
            node.live.pop(name, None)
        else:
            node.live[name] = survivor
            _forget(survivor, random, done)
    node.safe = dict(node.live)
