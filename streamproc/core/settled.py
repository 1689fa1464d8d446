"""Which published files compaction may take: those no start of a partition can need again.

A refold reads the `readings/` files of records after the newest snapshot; a roll-forward
publishes the newest record's files; and who still holds a staged file could give it its
name once more. `LogState.settled` is past all three, and none of them ever goes back.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from streamproc.core.archive import read_archive
from streamproc.core.chain import NO_RECORD
from streamproc.core.effects import List, Read, Steps
from streamproc.core.locate import checkpoint_of
from streamproc.core.ports import StoredFile
from streamproc.core.record import (
    ArchiveRef,
    FileEntry,
    decode_record,
    record_name,
    sha256_hex,
)
from streamproc.core.swaps import InputFile, SourceName, compact_folder
from streamproc.errors import LogCorrupt

RECORDS_KEPT: Final = 100_000

Entries: TypeAlias = Mapping[str, FileEntry]
"""The files of one record, by path."""


@dataclass(frozen=True, slots=True)
class LogState:
    """What a partition's log, as listed, says of its files.

    Attributes:
        folder: of the log.
        head: number of the newest record.
        snapshot: number of the record with the newest snapshot.
        staged: numbers of records of which something still lies in staging.
    """

    folder: str
    head: int = NO_RECORD
    snapshot: int = NO_RECORD
    staged: frozenset[int] = frozenset()

    def settled(self, n: int) -> bool:
        """Tell that no start of the partition can need the files of record n again.

        A refold reads the files of records after the newest snapshot. A roll-forward
        publishes those of the head: that n+1 was created proves that n is published. Who
        still holds a staged file could publish it once more. All three only ever move on.
        """
        return n < self.head and n <= self.snapshot and n not in self.staged


@dataclass(slots=True)
class PartitionLogs:
    """The commit logs of a job as listed, and the records read so far.

    Attributes:
        unfinished: homes of units in whose staging something lies.
    """

    unfinished: set[str] = field(default_factory=set)
    _by_place: dict[tuple[str, int], list[LogState]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _entries: dict[tuple[str, int], Entries] = field(default_factory=dict)
    _archives: dict[str, ArchiveRef | None] = field(default_factory=dict)

    def add(self, state: LogState) -> None:
        """Take note of a log. Its topic's label and id may both hold hyphens."""
        stream, partition = state.folder.rsplit("/", 2)[1:]
        parts = stream.split("-")
        for length in range(1, len(parts)):
            label = "-".join(parts[:length])
            self._by_place[label, int(partition)].append(state)

    def inputs(
        self, present: Iterable[StoredFile]
    ) -> Steps[tuple[list[InputFile], int]]:
        """Return the settled files of a folder in order of their commits, and how many wait.

        Files of other jobs, and of nobody, are in neither.
        """
        found: list[tuple[SourceName, InputFile]] = []
        waiting = 0
        for file in present:
            name = SourceName.of(file.path.rpartition("/")[2])
            if name is None:
                continue
            known = yield from self._of(name, file.path)
            if known is None:
                continue
            if known[0].settled(name.n):
                found.append((name, known[1]))
            else:
                waiting += 1
        found.sort(key=lambda pair: pair[0])
        return [file for _, file in found], waiting

    def _of(
        self, name: SourceName, path: str
    ) -> Steps[tuple[LogState, InputFile] | None]:
        """Return the log a file belongs to and what it says; None where none is found.

        Topics of one name, one after the other, have each a log: the record tells.
        """
        for state in self._by_place.get((name.label, name.partition), []):
            if name.n <= state.head:
                entries = yield from self._files(state.folder, name.n)
                if path in entries:
                    entry = entries[path]
                    return state, InputFile(path, entry.sha256, entry.rows)
        return None

    def _files(self, folder: str, n: int) -> Steps[Entries]:
        """Return the files of a record, also where it was squashed; empty where it is nowhere."""
        if (folder, n) not in self._entries:
            if len(self._entries) >= RECORDS_KEPT:
                self._entries.clear()
            where = f"{folder}/log/{record_name(n)}"
            data: bytes | None = yield Read(where)
            if data is None:
                yield from self._unpack(folder, n)
            else:
                self._entries[folder, n] = _entries_of(data, where)
        return self._entries.get((folder, n), {})

    def _unpack(self, folder: str, n: int) -> Steps[None]:
        """Read the archive that holds record n, with all its records."""
        if folder not in self._archives:
            squashed = yield from checkpoint_of(f"{folder}/log")
            self._archives[folder] = None if squashed is None else squashed.archive
        ref = self._archives[folder]
        while ref is not None and n <= ref.last:
            data: bytes | None = yield Read(ref.path)
            if data is None or sha256_hex(data) != ref.sha256:
                msg = f"{ref.path}: named by the log, and missing or changed"
                raise LogCorrupt(msg)
            header, texts = read_archive(data, ref.path)
            if n >= ref.first:
                for number, text in enumerate(texts, ref.first):
                    self._entries[folder, number] = _entries_of(text, ref.path)
                return
            ref = header.before


def _entries_of(data: bytes, where: str) -> Entries:
    return {entry.path: entry for entry in decode_record(data, where).files}


def survey(job: str) -> Steps[PartitionLogs]:
    """Look at all logs of a job; what they say of files only ever becomes more.

    Raises:
        LogCorrupt: a newest record does not parse.
    """
    newest: dict[str, str] = {}
    staged: dict[str, set[int]] = defaultdict(set)
    logs = PartitionLogs()
    listed: Sequence[StoredFile] = yield List(f"_streamproc/{job}")
    for file in listed:
        folder, found, rest = file.path.partition("/staging/")
        if file.path.startswith(f"{compact_folder(job)}/"):
            if found:
                logs.unfinished.add(folder)
        elif found:
            staged[folder].add(_number(rest))
        elif "/log/" in file.path:
            # Sorted by path, so the last one is the newest.
            newest[file.path.rpartition("/log/")[0]] = file.path
    for folder, path in newest.items():
        state = yield from _state(folder, path, frozenset(staged[folder]))
        if state is not None:
            logs.add(state)
    return logs


def _state(folder: str, newest: str, staged: frozenset[int]) -> Steps[LogState | None]:
    data: bytes | None = yield Read(newest)
    if data is None:
        return None  # Squashed a moment ago: nothing of it is touched this time.
    head = decode_record(data, newest)
    snapshot = NO_RECORD if head.snapshot is None else head.snapshot.n
    return LogState(folder, head.n, snapshot, staged)


def _number(name: str) -> int:
    """Return n of `<n>-<attempt>/…`; 0, which blocks nothing that matters, of other names."""
    number = name.partition("-")[0]
    return int(number) if number.isdigit() else 0
