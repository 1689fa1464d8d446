"""Which files hold every committed row exactly once, at the moment of asking.

A listing of a folder alone can show rows twice while a swap goes on (`core.compaction`), and
lacks what is committed and not yet published. So the logs decide:

* the chains of the folder's compactions say which listed files are replaced, and by which;
* the newest record of each commit log names files that may still lie in staging: they are
  taken from there. What is older is published, or nobody could have created the newest.

Read in that order, and read again if a chain grew meanwhile. What is committed after the
call may or may not be in the answer. Nothing is locked: a file of the answer can be replaced
before it is opened. Then opening it fails, and asking again is right; rows are never missing.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Final

from streamproc.analytics.logs import LOGS, LogFolder, find_logs
from streamproc.analytics.roots import RootPath
from streamproc.core.chain import NO_RECORD, record_numbers
from streamproc.core.ports import StoredFile
from streamproc.core.record import FileEntry, decode_record, record_name
from streamproc.core.swaps import (
    CompactionChain,
    OutputName,
    Unit,
    is_at_rest,
    live_names,
)
from streamproc.errors import LogCorrupt

ATTEMPTS_MAX: Final = 20

Heads = dict[str, dict[str, int]]
"""Folder of a unit → job → number of its chain's newest record."""


@dataclass(frozen=True, slots=True)
class LiveFile:
    """One file to read; `at` is below the root, in the unit's folder or still in staging."""

    unit: Unit
    at: str
    size: int

    @property
    def published(self) -> bool:
        """Tell whether it has its final name."""
        return self.at.startswith(f"{self.unit.folder}/")

    @property
    def compacted(self) -> bool:
        """Tell whether a compactor wrote it."""
        return OutputName.parsed(self.at.rpartition("/")[2]) is not None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which folders are asked for; None means any city or date."""

    dataset: str
    window: str | None = None
    cities: Sequence[str] | None = None
    dates: Sequence[date] | None = None

    def has(self, unit: Unit) -> bool:
        """Tell whether a folder is one of them."""
        return (
            unit.dataset == self.dataset
            and (self.window is None or unit.window == self.window)
            and (self.cities is None or unit.city in self.cities)
            and (self.dates is None or unit.day in self.dates)
        )


def live_files(root: RootPath, wanted: Wanted) -> list[LiveFile]:
    """Return the files that hold each committed row of the wanted folders once, by path.

    Raises:
        LogCorrupt: a log does not hold together, a committed file is nowhere, or chains
            grew faster than they could be read.
    """
    for _ in range(ATTEMPTS_MAX):
        heads = chain_heads(root, wanted)
        listed = _listed(root, wanted)
        if chain_heads(root, wanted) != heads:
            continue
        found = _of_folders(root, heads, listed)
        if found is not None:
            known = {file.at for file in found}
            found += _unpublished(root, wanted, known)
            return sorted(found, key=lambda file: file.at)
    msg = f"{root}: {wanted.dataset} was compacted faster than it could be listed"
    raise LogCorrupt(msg)


def visible_files(root: RootPath, wanted: Wanted) -> list[LiveFile]:
    """Return what a folder reader sees, whatever the logs say, by path."""
    return [
        LiveFile(unit, f"{folder}/{name}", size)
        for folder, sizes in sorted(_listed(root, wanted).items())
        if (unit := Unit.of(folder)) is not None
        for name, size in sorted(sizes.items())
    ]


def read_chain(root: RootPath, job: str, unit: Unit) -> CompactionChain:
    """Return a unit's chain; without records where it was never compacted.

    Raises:
        LogCorrupt: it does not hold together.
    """
    chain = CompactionChain(unit.folder)
    for where, data in read_records(root, f"{unit.home(job)}/log"):
        chain.append(data, where)
    return chain


def read_records(root: RootPath, log: str) -> Iterator[tuple[str, bytes]]:
    """Yield path and bytes of a chain's records, oldest first."""
    folder = root / log
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    for n in record_numbers((StoredFile(f"{log}/{name}", 0) for name in names), log):
        where = f"{log}/{record_name(n)}"
        yield where, (root / where).read_bytes()


def chain_heads(root: RootPath, wanted: Wanted) -> Heads:
    """Return the number of each chain's newest record, for the wanted folders."""
    heads: Heads = defaultdict(dict)
    for shape in ("city=*/date=*", "window=*/city=*/date=*"):
        for log in root.glob(f"{LOGS}/*/compact/{wanted.dataset}/{shape}/log"):
            parts = below(root, log).split("/")
            unit = Unit.of("/".join(parts[3:-1]))
            if unit is None or not wanted.has(unit):
                continue
            stems = (path.name.removesuffix(".json") for path in log.iterdir())
            numbers = [int(stem) for stem in stems if stem.isdigit()]
            if numbers:
                heads[unit.folder][parts[1]] = max(numbers)
    return dict(heads)


def below(root: RootPath, path: RootPath) -> str:
    """Return a path below the root as it stands in logs."""
    return path.as_posix().removeprefix(root.as_posix()).strip("/")


def _listed(root: RootPath, wanted: Wanted) -> dict[str, dict[str, int]]:
    """Return name and size of every file of the wanted folders."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for shape in ("city=*/date=*", "window=*/city=*/date=*"):
        for path in (root / wanted.dataset).glob(f"{shape}/*.parquet"):
            folder, _, name = below(root, path).rpartition("/")
            unit = Unit.of(folder)
            if unit is None or name[0] in "._" or not wanted.has(unit):
                continue
            with suppress(FileNotFoundError):  # Replaced meanwhile: its chain tells.
                found[folder][name] = path.stat().st_size
    return dict(found)


def _of_folders(
    root: RootPath, heads: Heads, listed: dict[str, dict[str, int]]
) -> list[LiveFile] | None:
    """Return the published live files; None where a swap went on during the listing."""
    found = []
    for folder, sizes in listed.items():
        unit = Unit.of(folder)
        assert unit is not None
        names: Sequence[str] = tuple(sizes)
        if folder in heads and not _whole(names, heads[folder]):
            chains = [read_chain(root, job, unit) for job in heads[folder]]
            names, unseen = live_names(sizes, chains)
            if unseen:
                return None
        elif folder not in heads and any(OutputName.parsed(name) for name in names):
            return None
        found += [LiveFile(unit, f"{folder}/{name}", sizes[name]) for name in names]
    return found


def _whole(names: Sequence[str], heads: dict[str, int]) -> bool:
    """Tell that a folder is its newest compaction and nothing else, without reading it."""
    if not is_at_rest(names):
        return False
    output = OutputName.parsed(names[0])
    return output is not None and heads == {output.job: output.n}


# --- committed, not yet published -----------------------------------------------------


def _unpublished(root: RootPath, wanted: Wanted, known: set[str]) -> list[LiveFile]:
    found = []
    for log in find_logs(root):
        for entry in _newest_entries(log):
            unit = Unit.of(entry.path.rpartition("/")[0])
            if unit is None or not wanted.has(unit) or entry.path in known:
                continue
            at = _place(root, entry)
            if at is not None:
                found.append(LiveFile(unit, at, entry.size))
            elif not _is_replaced(root, log, unit, entry):
                msg = f"{entry.path}: committed, but neither staged nor published"
                raise LogCorrupt(msg)
    return found


def _newest_entries(log: LogFolder) -> tuple[FileEntry, ...]:
    """Return the files of the newest record: that it was created proves all others published."""
    found: bytes | None = None
    for n in itertools.count(max(0, log.hint("published"))):
        data = _record(log, n)
        if data is None:
            break
        found = data
    if found is None:  # The hint lags behind what was squashed.
        stems = (path.name.removesuffix(".json") for path in log.at("log").iterdir())
        n = max((int(stem) for stem in stems if stem.isdigit()), default=NO_RECORD)
        found = _record(log, n)
    return () if found is None else decode_record(found, f"{log.folder} newest").files


def _record(log: LogFolder, n: int) -> bytes | None:
    try:
        return log.at(f"log/{record_name(n)}").read_bytes()
    except FileNotFoundError:
        return None


def _place(root: RootPath, entry: FileEntry) -> str | None:
    # Published first, and last: between the two looks it may have got its final name.
    for at in (entry.path, entry.staged, entry.path):
        if (root / at).is_file():
            return at
    return None


def _is_replaced(root: RootPath, log: LogFolder, unit: Unit, entry: FileEntry) -> bool:
    job = log.folder.split("/")[1]
    name = entry.path.rpartition("/")[2]
    return name in read_chain(root, job, unit).replaced
