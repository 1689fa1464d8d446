"""Single filesystem operations, as `LocalStore` needs them: plain names, no symbolic links.

Answers instead of exceptions where absence is an ordinary fact; any other failure is the
`OSError` it came as.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from streamproc.core.durability import Linked
from streamproc.core.effects import Content
from streamproc.errors import StoreFault

ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
_NAME_BYTES_MAX: Final = 255
_HASH_BYTES: Final = 1 << 20


def lock(name: Path) -> int:
    """Create the file if need be and lock it; raises `OSError` where it is held."""
    descriptor = os.open(
        name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def remove_tree(folder: Path) -> None:
    """Remove a scratch folder and the files in it, the lock last."""
    for inner, folders, names in os.walk(folder, topdown=False):
        for name in names:
            if name != "lock":
                Path(inner, name).unlink(missing_ok=True)
        for name in folders:
            Path(inner, name).rmdir()
    (folder / "lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def check_path(path: str) -> None:
    """Refuse what is not a plain relative path; raises `StoreFault`."""
    for name in path.split("/"):
        if name in {"", ".", ".."} or "\0" in name or "\\" in name:
            msg = f"{path!r}: not a plain relative path"
            raise StoreFault(msg)
        if len(name.encode()) > _NAME_BYTES_MAX:
            msg = f"{path!r}: a name longer than {_NAME_BYTES_MAX} bytes"
            raise StoreFault(msg)


def write_new(name: str, data: bytes | memoryview) -> None:
    """Create a file with these bytes; a failure leaves no file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o666)
    try:
        with open(descriptor, "wb", buffering=0, closefd=False) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
    except OSError:
        unlink(name)
        raise
    finally:
        os.close(descriptor)


def fill(name: str, content: Content) -> int | None:
    """Write the file, or let it be written; answer its size, None if its folder is gone."""
    if not callable(content):
        try:
            write_new(name, content)
        except FileNotFoundError:
            return None
        return len(content)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o666))
    except FileNotFoundError:
        return None
    try:
        content(name)
    except OSError:
        unlink(name)
        raise
    found = os.lstat(name)
    if not stat.S_ISREG(found.st_mode):
        msg = f"{name}: the writer left something that is not a file"
        raise StoreFault(msg)
    return found.st_size


def link(source: str, target: str) -> Linked:
    """Give a file a second name, never replacing one."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return Linked.EXISTS
    except OSError as error:
        if error.errno in ABSENT:
            return Linked.MISSING
        raise
    return Linked.DONE


def unlink(name: str) -> None:
    """Remove a name; fine if it is not there."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(name)  # noqa: PTH108  (paths are strings here)


def open_to_read(name: str, flags: int = 0) -> int | None:
    """Return a descriptor, None if nothing has that name."""
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise


def read(name: str) -> bytes | None:
    """Return the whole content, None if nothing has that name."""
    descriptor = open_to_read(name)
    if descriptor is None:
        return None
    with open(descriptor, "rb") as file:  # noqa: PTH123  (an own descriptor)
        return file.read()


def digest(name: str) -> tuple[int, str] | None:
    """Return (size, sha256), None if nothing has that name."""
    descriptor = open_to_read(name)
    if descriptor is None:
        return None
    digest = hashlib.sha256()
    size = 0
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  (an own descriptor)
        while chunk := file.read(_HASH_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()
