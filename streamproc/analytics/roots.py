"""Where published tables and logs are read: a folder, or a bucket that looks like one.

`BucketPath` answers what the reading side asks of `pathlib.Path`, so that everything here is
written once. It never writes. Nothing is kept: two questions may have two answers while a
service commits, as with a folder. What a listing told of a file's size is believed.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import polars as pl

from streamproc.core.ports import StoredFile
from streamproc.errors import InputError


class Bucket(Protocol):
    """What is read of an object store; `connectors.object_store` is one."""

    @property
    def url(self) -> str:
        """Return `s3://bucket/prefix`, without a slash at its end."""
        ...

    @property
    def reader_options(self) -> Mapping[str, str]:
        """Return what polars and object_store want to know to read the same bucket."""
        ...

    def list(self, folder: str) -> Sequence[StoredFile]:
        """Return every file below a folder, sorted by path."""
        ...

    def children(self, folder: str) -> tuple[Sequence[str], Sequence[StoredFile]]:
        """Return the paths of the folders directly in a folder, and its files."""
        ...

    def size(self, path: str) -> int | None:
        """Return a file's size in bytes, None where nothing has that name."""
        ...

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, None where nothing has that name."""
        ...


@dataclass(frozen=True, slots=True)
class Stat:
    """What is known of a file without reading it."""

    st_size: int


@dataclass(frozen=True, slots=True)
class BucketPath:
    """A place in a bucket. `size` is None where no listing has told it."""

    bucket: Bucket
    path: str = ""
    size: int | None = None

    def __truediv__(self, name: str) -> "BucketPath":
        """Return the place below; `name` may have several parts."""
        return BucketPath(self.bucket, f"{self.path}/{name}".strip("/"))

    def __str__(self) -> str:
        """Return the URL."""
        return f"{self.bucket.url}/{self.path}".rstrip("/")

    def __lt__(self, other: "BucketPath") -> bool:
        """Order by path, part by part, as folders do."""
        return self.path.split("/") < other.path.split("/")

    @property
    def name(self) -> str:
        """Return the last part."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> "BucketPath":
        """Return the place above."""
        return BucketPath(self.bucket, self.path.rpartition("/")[0])

    def as_posix(self) -> str:
        """Return the path below the prefix."""
        return self.path

    def relative_to(self, other: "BucketPath") -> "BucketPath":
        """Return the path below another place."""
        below = self.path.removeprefix(f"{other.path}/" if other.path else "")
        return BucketPath(self.bucket, below)

    def is_file(self) -> bool:
        """Tell whether an object has this name."""
        return self._known_size() is not None

    def is_dir(self) -> bool:
        """Tell whether an object has a name below this one."""
        return self.size is None and any(self.bucket.children(self.path))

    def stat(self) -> Stat:
        """Return the size. Raises FileNotFoundError."""
        size = self._known_size()
        if size is None:
            raise FileNotFoundError(str(self))
        return Stat(size)

    def read_bytes(self) -> bytes:
        """Return the content. Raises FileNotFoundError."""
        data = self.bucket.read(self.path)
        if data is None:
            raise FileNotFoundError(str(self))
        return data

    def iterdir(self) -> Iterator["BucketPath"]:
        """Yield the folders and files directly in this one."""
        folders, files = self.bucket.children(self.path)
        for path in folders:
            yield BucketPath(self.bucket, path)
        yield from self._files(files)

    def rglob(self, pattern: str) -> Iterator["BucketPath"]:
        """Yield the files below whose name fits; by one listing."""
        for file in self._files(self.bucket.list(self.path)):
            if fnmatchcase(file.name, pattern):
                yield file

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        """Yield what fits, part by part. For files ending in `.parquet` by one listing."""
        parts = pattern.split("/")
        if not pattern.endswith(".parquet"):
            yield from _descend(self, parts)
            return
        fixed = next((i for i, part in enumerate(parts) if "*" in part), 0)
        start = self / "/".join(parts[:fixed]) if fixed else self
        for file in self._files(self.bucket.list(start.path)):
            names = file.relative_to(self).path.split("/")
            if len(names) == len(parts) and all(map(fnmatchcase, names, parts)):
                yield file

    def _files(self, files: Sequence[StoredFile]) -> Iterator["BucketPath"]:
        for file in files:
            yield BucketPath(self.bucket, file.path, file.size)

    def _known_size(self) -> int | None:
        """Return the size a listing told, or the bucket tells now; None if it is no file."""
        if self.size is not None or not self.path:
            return self.size
        return self.bucket.size(self.path)


def _descend(place: BucketPath, parts: list[str]) -> Iterator[BucketPath]:
    if not parts:
        yield place
    elif "*" not in parts[0]:
        yield from _descend(place / parts[0], parts[1:])
    else:
        for child in place.iterdir():
            if fnmatchcase(child.name, parts[0]):
                yield from _descend(child, parts[1:])


RootPath: TypeAlias = Path | BucketPath
Root: TypeAlias = Path | str | BucketPath


def root_path(root: Root) -> RootPath:
    """Return a root as a path.

    Raises:
        InputError: a bucket's URL, which does not say how to reach it.
    """
    if isinstance(root, str) and "://" in root:
        msg = f"{root}: open it with streamproc.app.reading.open_root"
        raise InputError(msg)
    return Path(root) if isinstance(root, str) else root


def in_order(paths: Iterable[RootPath]) -> list[RootPath]:
    """Return paths sorted part by part."""
    return sorted(paths, key=lambda path: path.as_posix().split("/"))


def content(path: RootPath) -> Any:
    """Return what pyarrow reads a file from: its name, or an object's bytes."""
    return path if isinstance(path, Path) else io.BytesIO(path.read_bytes())


def scan(
    where: RootPath | Sequence[RootPath], hive: pl.Schema | None = None
) -> pl.LazyFrame:
    """Return Parquet files, read where they lie: those below a folder, or a list of them.

    `hive` are the columns that come from their paths; without it none do.
    """
    places = [where] if isinstance(where, Path | BucketPath) else list(where)
    first = places[0]
    if isinstance(first, Path):
        return pl.scan_parquet(
            first if len(places) == 1 else [str(place) for place in places],
            hive_partitioning=hive is not None,
            hive_schema=hive,
        )
    # Of a URL polars takes every `key=value`, also those above the folder that is meant.
    keys = [part.split("=")[0] for part in str(first).split("/") if "=" in part]
    above = dict.fromkeys(keys, pl.String())
    below = "/**/*.parquet" if places == [where] else ""
    return pl.scan_parquet(
        [f"{place}{below}" for place in places],
        hive_partitioning=hive is not None,
        hive_schema=None if hive is None else pl.Schema({**above, **hive}),
        storage_options=dict(first.bucket.reader_options),
    )
