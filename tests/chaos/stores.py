"""Where workers write: a folder of this host, or a bucket behind a proxy."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from tests.oracle.folder import Folder, LocalFolder


class Store(Protocol):
    """A root for workers, and what can go wrong with it alone."""

    def output(self) -> list[str]:
        """Return the configuration's lines for `[output]`."""

    def folder(self) -> Folder:
        """Return how the oracle reads it."""

    def inspected(self) -> str:
        """Return what `streamproc inspect` is given."""

    @property
    def faults(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        """Return its own faults by name."""


class LocalRoot:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def output(self) -> list[str]:
        return [f'root = "{self._root}"']

    def folder(self) -> Folder:
        return LocalFolder(self._root)

    def inspected(self) -> str:
        return str(self._root)

    @property
    def faults(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        return {}
