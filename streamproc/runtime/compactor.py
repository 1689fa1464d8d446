"""Compaction and retention of a root, unit by unit: `core.compaction`, performed.

One listing of a job's logs says which files a start may still need; one listing of each
dataset says which folders hold anything but one whole compaction. Each of those is opened
(which finishes what a killed compactor began), merged, and swapped by one record.

Compactors may run at once, anywhere: of two that want the same folder, one creates the
record, the other drops what it staged and goes on with the next folder.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from streamproc.core.compaction import Compacting, CompactionSession, Swap
from streamproc.core.effects import Steps
from streamproc.core.ports import Failpoint, Store, StoredFile, no_failpoint
from streamproc.core.settled import PartitionLogs, survey
from streamproc.core.swaps import InputFile, OutputEntry, Unit, is_at_rest
from streamproc.errors import Fenced, StoreFault
from streamproc.runtime.steps import run_steps

DATASETS: Final = ("readings", "aggregates", "alerts", "late", "quarantine")

T = TypeVar("T")


class Merger(Protocol):
    """Rows of many files into few, sorted; `connectors.compacted_files.FileMerger`."""

    def merge(
        self,
        dataset: str,
        inputs: Sequence[InputFile],
        staging: str,
        name_of: Callable[[int, int], str],
    ) -> tuple[OutputEntry, ...]:
        """Write the same rows below `staging` and compare; raises `StoreFault`."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one folder.

    Attributes:
        what: `compacted`, `deleted`, `finished` (only what a killed run had left to do),
            `lost` (another compactor was faster), `waiting` (nothing but files that a
            restart may still need) or `failed`.
        files, size_bytes, rows: taken out of the folder; `files_after` and `bytes_after`
            what replaced them.
        waiting: files left as they are, because a restart may still need them.
        fault: why it failed.
    """

    unit: Unit
    what: str
    files: int = 0
    rows: int = 0
    size_bytes: int = 0
    files_after: int = 0
    bytes_after: int = 0
    waiting: int = 0
    fault: str = ""


class Compactor:
    """Compacts and deletes the published files of one job below one root.

    Args:
        store: the output root.
        who: job and owner.
        merger: reads and writes Parquet.
        new_attempt: returns a name that was never returned before, in any process.
        failpoint: called with the name of each step of `core.compaction.POINTS`.
    """

    def __init__(
        self,
        store: Store,
        who: Compacting,
        merger: Merger,
        new_attempt: Callable[[], str],
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._store = store
        self._who = who
        self._merger = merger
        self._new_attempt = new_attempt
        self._failpoint = failpoint
        self._logs = PartitionLogs()

    def survey(self) -> None:
        """Look at the job's logs; `compact` and `delete` go by what was found."""
        self._logs = self._run(survey(self._who.job))

    def units(self, datasets: Sequence[str] = DATASETS) -> Iterator[tuple[Unit, bool]]:
        """Yield every folder with files, and whether it is one whole compaction already."""
        for dataset in datasets:
            folders: dict[str, list[str]] = defaultdict(list)
            for file in self._store.list(dataset):
                folder, _, name = file.path.rpartition("/")
                folders[folder].append(name)
            for folder in sorted(folders):
                unit = Unit.of(folder)
                if unit is not None:
                    left = unit.home(self._who.job) in self._logs.unfinished
                    yield unit, is_at_rest(folders[folder]) and not left

    def compact(self, unit: Unit) -> Outcome:
        """Make one folder few sorted files, and finish what a killed run left there."""
        return self._guarded(unit, self._compact)

    def delete(self, unit: Unit, note: str) -> Outcome:
        """Delete one folder's files by a record; `note` says why."""
        return self._guarded(unit, lambda session: self._delete(session, note))

    # --- one folder -------------------------------------------------------------------

    def _guarded(
        self, unit: Unit, work: Callable[[CompactionSession], Outcome]
    ) -> Outcome:
        session = CompactionSession(unit, self._who, self._new_attempt)
        try:
            return work(session)
        except Fenced:
            return Outcome(unit, "lost")
        except StoreFault as error:
            if self._run(session.still_ours()):
                self._run(session.abandon())
                return Outcome(unit, "failed", fault=str(error))
            return Outcome(unit, "lost")

    def _compact(self, session: CompactionSession) -> Outcome:
        unit = session.unit
        present = self._run(session.open())
        fresh, waiting = self._run(self._logs.inputs(present))
        if not fresh:
            what = "waiting" if waiting else "finished"
            return Outcome(unit, what, waiting=waiting)
        before = [
            InputFile(f"{unit.folder}/{entry.name}", entry.sha256, entry.rows)
            for entry in session.chain.outputs
        ]
        inputs = [*before, *fresh]
        outputs = self._merger.merge(
            unit.dataset, inputs, session.staging, session.output_name
        )
        swap = Swap(
            kind="compact",
            inputs=_names(inputs),
            rows=sum(entry.rows for entry in outputs),
            outputs=outputs,
        )
        return self._swap(session, swap, present, waiting)

    def _delete(self, session: CompactionSession, note: str) -> Outcome:
        unit = session.unit
        present = self._run(session.open())
        fresh, waiting = self._run(self._logs.inputs(present))
        rows = sum(entry.rows for entry in session.chain.outputs)
        rows += sum(file.rows for file in fresh)
        names = [entry.name for entry in session.chain.outputs]
        gone = tuple(sorted([*names, *_names(fresh)]))
        if not gone:
            what = "waiting" if waiting else "finished"
            return Outcome(unit, what, waiting=waiting)
        swap = Swap(kind="retain", inputs=gone, rows=rows, note=note)
        return self._swap(session, swap, present, waiting)

    def _swap(
        self,
        session: CompactionSession,
        swap: Swap,
        present: Sequence[StoredFile],
        waiting: int,
    ) -> Outcome:
        self._run(session.commit(swap))
        self._run(session.finish())
        gone = set(swap.inputs)
        return Outcome(
            session.unit,
            "compacted" if swap.kind == "compact" else "deleted",
            files=len(gone),
            rows=swap.rows,
            size_bytes=sum(f.size for f in present if _name(f.path) in gone),
            files_after=len(swap.outputs),
            bytes_after=sum(entry.size for entry in swap.outputs),
            waiting=waiting,
        )

    def _run(self, steps: Steps[T]) -> T:
        return run_steps(steps, self._store, self._failpoint)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _names(files: Iterable[InputFile]) -> tuple[str, ...]:
    return tuple(sorted(_name(file.path) for file in files))
