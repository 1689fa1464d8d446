"""The files of each date, exactly: what `inspect --files` shows and the datasets sum up."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (row counts from footers)

from streamproc.analytics.dataset import DATASETS
from streamproc.analytics.live import LiveFile, Wanted, live_files
from streamproc.analytics.roots import RootPath, content
from streamproc.core.swaps import Unit
from streamproc.errors import LogCorrupt

_TRIES: Final = 5

Look = Callable[[RootPath, Wanted], list[LiveFile]]


@dataclass(frozen=True, slots=True)
class DateFiles:
    """The files that hold one date's rows once, as `live_files` names them.

    Attributes:
        window: empty where the dataset has none.
        compacted: how many of `files` a compactor wrote.
        staged: how many are committed and have no final name yet.
    """

    dataset: str
    window: str
    city: str
    date: str
    files: int
    rows: int
    file_bytes: int
    compacted: int
    staged: int


def date_files(root: RootPath, look: Look = live_files) -> Iterator[DateFiles]:
    """Yield every date's files, by folder; `look` may be `visible_files` instead.

    Raises:
        LogCorrupt: a log below the root does not hold together.
    """
    for dataset in sorted(DATASETS):
        for _ in range(_TRIES):
            found = _dataset(root, dataset, look)
            if found is not None:
                break
        else:
            msg = f"{root}: {dataset} was compacted faster than it could be read"
            raise LogCorrupt(msg)
        yield from found


def _dataset(root: RootPath, dataset: str, look: Look) -> list[DateFiles] | None:
    """Return a dataset's dates; None where a file was replaced before it was read."""
    files = sorted(look(root, Wanted(dataset)), key=lambda file: file.unit)
    dates = []
    for unit, group in groupby(files, key=lambda file: file.unit):
        try:
            dates.append(_date(root, unit, list(group)))
        except FileNotFoundError:
            return None
    return dates


def _date(root: RootPath, unit: Unit, files: list[LiveFile]) -> DateFiles:
    return DateFiles(
        dataset=unit.dataset,
        window=unit.window,
        city=unit.city,
        date=unit.day.isoformat(),
        files=len(files),
        rows=sum(_rows(root / file.at) for file in files),
        file_bytes=sum(file.size for file in files),
        compacted=sum(file.compacted for file in files),
        staged=sum(not file.published for file in files),
    )


def _rows(file: RootPath) -> int:
    """Return a file's rows; 0 where it cannot be read, which is for `verify` to tell."""
    try:
        return int(pq.read_metadata(content(file)).num_rows)
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError):
        return 0
