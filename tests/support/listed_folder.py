"""A folder that is listed and read as a bucket is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from streamproc.core.ports import StoredFile


class FolderAsBucket:
    """What a bucket's listings say of files that lie in a folder."""

    url = "s3://bucket/prefix"
    reader_options: Mapping[str, str] = {}

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _all(self) -> Iterator[StoredFile]:
        for path in sorted(self._folder.rglob("*")):
            if path.is_file():
                name = path.relative_to(self._folder).as_posix()
                yield StoredFile(name, path.stat().st_size)

    def list(self, folder: str) -> Sequence[StoredFile]:
        start = f"{folder}/" if folder else ""
        return [file for file in self._all() if file.path.startswith(start)]

    def children(self, folder: str) -> tuple[Sequence[str], Sequence[StoredFile]]:
        start = f"{folder}/" if folder else ""
        below = [(file, file.path[len(start) :]) for file in self.list(folder)]
        folders = {start + rest.split("/")[0] for _, rest in below if "/" in rest}
        return sorted(folders), [file for file, rest in below if "/" not in rest]

    def size(self, path: str) -> int | None:
        file = self._folder / path
        return file.stat().st_size if file.is_file() else None

    def read(self, path: str) -> bytes | None:
        file = self._folder / path
        return file.read_bytes() if file.is_file() else None


class BusyBucket(FolderAsBucket):
    """A folder in which something happens just before a file is read for the first time."""

    def __init__(self, folder: Path, ending: str, happens: Callable[[], None]) -> None:
        super().__init__(folder)
        self._ending = ending
        self._happens: Callable[[], None] | None = happens

    def read(self, path: str) -> bytes | None:
        if self._happens is not None and path.endswith(self._ending):
            happens, self._happens = self._happens, None
            happens()
        return super().read(path)
