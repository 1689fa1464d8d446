"""Where the files are: a folder of this host, or a bucket."""

import os
from pathlib import Path
from typing import Protocol

from obstore.exceptions import GenericError
from obstore.store import S3Store


class Away(Exception):
    """Whoever keeps the files does not answer."""


class Folder(Protocol):
    """Names are relative, with `/`; a name that is being written is not listed."""

    def names(self) -> list[str]:
        """Return the names of all files, hidden ones too. Raises `Away`."""

    def read(self, name: str) -> bytes:
        """Return a file's bytes. Raises `FileNotFoundError`, `Away`."""


class LocalFolder:
    """A folder; what is deleted between two looks is passed over."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        return [
            (Path(folder) / name).relative_to(self._root).as_posix()
            for folder, _, files in os.walk(self._root)
            for name in files
        ]

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()


class BucketFolder:
    """Everything below the store's prefix."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    def names(self) -> list[str]:
        try:
            return [one["path"] for page in self._store.list() for one in page]
        except GenericError as error:
            raise Away from error

    def read(self, name: str) -> bytes:
        try:
            return bytes(self._store.get(name).bytes())
        except GenericError as error:
            raise Away from error


def is_visible(name: str) -> bool:
    """Tell whether a reader of Parquet folders sees it."""
    return not any(part[0] in "._" for part in name.split("/"))
