"""Compaction and retention beside a partition that commits, under every fault, from a seed.

One partition as in `testing.simulation`, whose restarts fold the *published files* again,
and up to two compactors that run `core.settled`, `core.swaps` and `core.compaction`
unchanged. Files are JSON, so merging is sorting; everything else is what production does.

`KeepingChecker` looks at the disk as an outsider after every operation that gives or takes
a name: a folder reader never sees fewer rows, an exact reader sees each once.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from streamproc.core.compaction import Compacting, CompactionSession, Swap
from streamproc.core.durability import Durability, Link, Operation, Rename, Unlink
from streamproc.core.effects import Create, List, Read, Stage, Steps, StoreEffect
from streamproc.core.ports import Created, StoredFile
from streamproc.core.protocol import LogSession
from streamproc.core.settled import PartitionLogs, survey
from streamproc.core.swaps import (
    CompactionChain,
    InputFile,
    OutputEntry,
    Unit,
    live_names,
)
from streamproc.errors import Fenced, StoreFault
from streamproc.testing.sim_bucket import SimBucket
from streamproc.testing.sim_checks import Violation
from streamproc.testing.sim_disk import SimDisk
from streamproc.testing.sim_log import LogReader
from streamproc.testing.simulation import (
    FOLDER,
    Faults,
    Life,
    Process,
    Request,
    Simulation,
    Variant,
)

JOB: Final = "sim"
COMPACTORS: Final = (10, 11)
_HOMES: Final = f"_streamproc/{JOB}/compact/"
_LAST_RUNS: Final = 3
FAULTS_UNTIL: Final = 3_000


@dataclass(frozen=True, slots=True)
class KeepingVariant:
    """The compactor under test; a mutant replaces one part of it."""

    session: Callable[..., CompactionSession] = CompactionSession
    survey: Callable[[str], Steps[PartitionLogs]] = survey
    log: Callable[..., LogSession] = LogSession
    durability: Callable[[str], Durability] = Durability


class CompactionSimulation(Simulation):
    """One run. `run` returns what happened or raises `Violation`."""

    def __init__(
        self,
        seed: int,
        variant: KeepingVariant | None = None,
        faults: Faults | None = None,
        records: int = 80,
    ) -> None:
        self.keeping = variant or KeepingVariant()
        owner = Variant(self.keeping.log, self.keeping.durability)
        super().__init__(seed, owner, faults, records)
        if faults is None:  # Until the last record; before the first there is no swap.
            self.faults = replace(self.faults, steps=FAULTS_UNTIL)
        self.swaps: Counter[str] = Counter()
        self.checker = KeepingChecker(self.disk, self.partition.payloads)  # type: ignore[assignment]  # the same methods
        self._sessions: dict[int, CompactionSession] = {}
        self._last_runs = 0

    def _step(self) -> bool:
        if self.tally.steps < self.faults.steps:
            self._maybe_fault()
            if self.random.random() < 0.02:  # noqa: PLR2004  (one life takes some 100 steps)
                self._compactor(self.random.choice(COMPACTORS))
        owner = self.partition.owner
        if owner not in self._processes and not self._is_complete():
            self._start(owner)
        elif not self._processes and self._last_runs < _LAST_RUNS:
            self._last_runs += 1
            self._compactor(COMPACTORS[self._last_runs % 2])
        awake = [
            p for p in self._processes.values() if p.asleep_until <= self.tally.steps
        ]
        if awake:
            self._advance(self.random.choice(awake))
        return bool(self._processes) or self._last_runs < _LAST_RUNS

    def _advance(self, process: Process) -> None:
        try:
            super()._advance(process)
        except Violation as violation:
            # Who has lost its log or unit meanwhile may find that its files are gone.
            if not isinstance(violation.__cause__, StoreFault) or self._is_current(
                process
            ):
                raise
            self.tally.fenced += 1
            self._forget(process)

    def _is_current(self, process: Process) -> bool:
        session = self._sessions.get(process.worker)
        if session is not None:
            number = f"{session.chain.next_n:020d}.json"
            return f"{session.log}/{number}" not in self.disk.files()
        records = [p for p in self.disk.files() if p.startswith(f"{FOLDER}/log/")]
        newest = json.loads(self.disk.files()[max(records)])
        return bool(newest["owner"] == process.name)

    def _maybe_lose_reply(self, process: Process) -> None:
        super()._maybe_lose_reply(process)
        effect = process.effect
        if (
            isinstance(effect, Create)
            and effect.path.startswith(_HOMES)
            and self.tally.steps < self.faults.steps
            and self.random.random() < self.faults.lost_reply
        ):
            process.lose_reply_at = self.random.choice((0, 2, 3, 4, 5, 99))

    # --- the partition ----------------------------------------------------------------

    def place_of(self, offset: int, payload: int) -> tuple[str, str]:
        """Return one city, and for some records an old date."""
        late = payload % 5 == 0
        return "razlog", f"2026-01-{1 if late else offset // 8 + 1:02}"

    def _restore(self, session: LogSession) -> Generator[Request, Any, int]:
        """S4: the snapshot, then the published files of what came after it."""
        total = position = 0
        self.tally.begun_at_checkpoint += session.began_at_checkpoint
        snapshot = session.head.snapshot
        if snapshot is not None:
            state = json.loads((yield from session.read_snapshot(snapshot)))
            total, position = state["sum"], state["next"]
            self.tally.snapshots_read += 1
        for record in session.since_snapshot:
            for file in record.files:
                data: bytes | None = yield Read(file.path)
                if data is None:
                    if not (yield from session.still_ours()):
                        msg = "another owner has taken over"
                        raise Fenced(msg)
                    msg = f"{file.path}: a refold needs it, and it is gone"
                    raise Violation(msg)
                total += sum(row[1] for row in json.loads(data))
            position = record.next
        self.checker.restored(session.head.next, position, total)
        return total

    # --- a compactor ------------------------------------------------------------------

    def _compactor(self, slot: int) -> None:
        if slot in self._processes:
            return
        self._lives += 1
        name = f"{self._lives}-{slot}"
        self._sessions.pop(slot, None)
        self._processes[slot] = Process(
            slot,
            self._compacting(slot, name),
            self._new_plans(name),
            name=name,
        )

    def _compacting(self, slot: int, name: str) -> Life:
        logs: PartitionLogs = yield from self.keeping.survey(JOB)
        listed: tuple[StoredFile, ...] = yield List("readings")
        folders = sorted({file.path.rpartition("/")[0] for file in listed})
        for number, folder in enumerate(folders):
            unit = Unit.of(folder)
            assert unit is not None
            attempt = f"{number}-{name}".rjust(8, "0")
            session = self.keeping.session(
                unit, Compacting(JOB, name, "sim"), lambda attempt=attempt: attempt
            )
            self._sessions[slot] = session
            yield from self._one(session, logs)

    def _one(self, session: CompactionSession, logs: PartitionLogs) -> Life:
        """As `runtime.compactor` does it."""
        unit = session.unit
        present = yield from session.open()
        fresh, _ = yield from logs.inputs(present)
        if not fresh:
            return
        old = [
            InputFile(f"{unit.folder}/{e.name}", e.sha256, e.rows)
            for e in session.chain.outputs
        ]
        names = tuple(sorted(f.path.rpartition("/")[2] for f in [*old, *fresh]))
        if self.random.random() < 0.1:  # noqa: PLR2004  (dates go, now and then)
            rows = sum(file.rows or 0 for file in [*old, *fresh])
            swap = Swap("retain", names, rows)
        else:
            outputs = yield from self._merged(session, [*old, *fresh])
            swap = Swap("compact", names, sum(e.rows for e in outputs), outputs)
        yield from session.commit(swap)
        self.swaps[swap.kind] += 1
        yield from session.finish()

    def _merged(
        self, session: CompactionSession, inputs: list[InputFile]
    ) -> Generator[Request, Any, tuple[OutputEntry, ...]]:
        rows: list[Any] = []
        for file in inputs:
            data: bytes | None = yield Read(file.path)
            if data is None:
                if not (yield from session.still_ours()):
                    msg = "another compactor was faster"
                    raise Fenced(msg)
                msg = f"{file.path}: an input is gone, and no compaction names it"
                raise Violation(msg)
            rows += json.loads(data)
        rows.sort()
        half = len(rows) // 2 if self.random.random() < 0.5 else 0  # noqa: PLR2004  (one or two)
        portions = [part for part in (rows[:half], rows[half:]) if part]
        outputs = []
        for k, portion in enumerate(portions):
            written = json.dumps(portion).encode()
            name = session.output_name(k, len(portions))
            staged = f"{session.staging}/{name}"
            size: int = yield Stage(staged, written)
            outputs.append(
                OutputEntry(
                    staged=staged,
                    name=name,
                    size=size,
                    rows=len(portion),
                    sha256=hashlib.sha256(written).hexdigest(),
                )
            )
        return tuple(outputs)


class KeepingChecker:
    """The oracle: what must hold of the disk after every operation.

    Args:
        disk: the shared disk.
        payloads: the ledger, payload by offset.
    """

    def __init__(self, disk: SimDisk | SimBucket, payloads: list[int]) -> None:
        self._disk = disk
        self._payloads = payloads
        self._rows: dict[str, tuple[int, ...]] = {}
        self._seen: set[int] = set()
        self._log = LogReader(FOLDER)
        self._swaps_told: dict[str, bytes] = {}
        self.checkpoints = 0
        self.reopened = 0

    def delivered(self, alerts: tuple[str, ...]) -> None:
        """Nothing: alerts are for the other checker."""

    def owed(self) -> bool:
        """Return False: see `delivered`."""
        return False

    def after_effect(self, effect: StoreEffect, answer: Any) -> None:
        """Remember the records somebody was told are durable."""
        match effect:
            case Create(path, data) if answer is Created.CREATED:
                if path.startswith(_HOMES):
                    self._swaps_told[path] = data
            case _:
                pass

    def after_operation(self, operation: Operation) -> None:
        """Look at the disk where a name came or went that a reader looks at."""
        match operation:
            case Link(_, path) | Rename(_, path) | Unlink(path):
                if path.startswith(("readings/", _HOMES, f"{FOLDER}/log/")):
                    self._look()
            case _:
                pass

    def after_power_loss(self) -> None:
        """Look again: what was acknowledged must be there, and no row may be gone."""
        files = self._disk.files()
        for path, data in self._swaps_told.items():
            if files.get(path) != data:
                msg = f"O4: {path} was created and is now missing or different"
                raise Violation(msg)
        self._seen.clear()  # What was published and not settled may need publishing again.
        self._look()

    def restored(self, next_offset: int, position: int, total: int) -> None:
        """Compare a state folded from snapshot and files with the straight run's."""
        wanted = sum(self._payloads[:next_offset])
        if (position, total) != (next_offset, wanted):
            msg = f"refold: sum {total} at {position}, not {wanted} at {next_offset}"
            raise Violation(msg)

    def published_through(self) -> int:
        """Return up to which offset everything is committed and published."""
        known = {offset for rows in self._rows.values() for offset in rows}
        return next(n for n in range(len(known) + 1) if n not in known)

    def in_time(self, steps: int, steps_max: int) -> None:
        """O8: the run must come to an end."""
        if steps > steps_max:
            msg = f"O8: not done after {steps_max} steps"
            raise Violation(msg)

    def at_the_end(self) -> None:
        """After the last fault and the last compaction: each row once, for everybody."""
        self._look()
        visible = Counter(offset for _, rows in self._visible() for offset in rows)
        wanted = Counter(set(range(len(self._payloads))) - self._deleted())
        if visible != wanted:
            doubled, lost = visible - wanted, wanted - visible
            msg = f"at rest: doubled {sorted(doubled)}, missing {sorted(lost)}"
            raise Violation(msg)

    # --- the disk ---------------------------------------------------------------------

    def _look(self) -> None:
        named = self._named()
        for path, rows in self._visible():
            self._rows[path] = rows
            if path not in named:
                msg = f"O5: {path} is visible, no record names it"
                raise Violation(msg)
        chains = self._chains()
        deleted = self._deleted()
        visible = {offset for _, rows in self._visible() for offset in rows}
        fewer = self._seen - visible - deleted
        if fewer:
            msg = f"a folder reader sees fewer rows: {sorted(fewer)} are gone"
            raise Violation(msg)
        self._seen |= visible
        self._exact(chains, deleted)

    def _exact(self, chains: dict[str, CompactionChain], deleted: set[int]) -> None:
        files = self._disk.files()
        listed: dict[str, list[str]] = {}
        for path, _ in self._visible():
            folder, _, name = path.rpartition("/")
            listed.setdefault(folder, []).append(name)
        found: Counter[int] = Counter()
        live: set[str] = set()
        for folder in listed.keys() | chains.keys():
            names = listed.get(folder, [])
            chain = chains.get(folder, CompactionChain(folder))
            good, unseen = live_names(names, [chain])
            if unseen:
                msg = f"{folder}: {unseen} and their inputs are both missing"
                raise Violation(msg)
            live |= {f"{folder}/{name}" for name in good}
        for path in live:
            found.update(self._rows[path])
        replaced = {
            f"{f}/{name}" for f, chain in chains.items() for name in chain.replaced
        }
        committed: set[int] = set()
        for path, entry in self._entries().items():
            committed |= set(self._offsets(entry, files, path))
            if path not in live and path not in replaced:
                found.update(self._offsets(entry, files, path))
        if found != Counter(committed - deleted):
            doubled = found - Counter(committed - deleted)
            lost = Counter(committed - deleted) - found
            msg = f"an exact reader: doubled {sorted(doubled)}, missing {sorted(lost)}"
            raise Violation(msg)

    def _offsets(
        self, entry: dict[str, Any], files: dict[str, bytes], path: str
    ) -> tuple[int, ...]:
        """Return the offsets of a commit's file, wherever it lies or once lay."""
        if path not in self._rows:
            data = files.get(path) or files.get(entry["staged"])
            if data is None:
                msg = f"{path}: committed, but neither staged nor published"
                raise Violation(msg)
            self._rows[path] = _offsets_of(data)
        return self._rows[path]

    def _visible(self) -> Iterable[tuple[str, tuple[int, ...]]]:
        return [
            (path, _offsets_of(data))
            for path, data in self._disk.files().items()
            if path.startswith("readings/")
        ]

    def _entries(self) -> dict[str, dict[str, Any]]:
        """Return every committed file by path, also of records that were squashed."""
        log = self._log.read(self._disk.files())
        if log.fault is not None:
            raise Violation(log.fault)
        return {file["path"]: file for r in log.parsed() for file in r["files"]}

    def _named(self) -> set[str]:
        named = set(self._entries())
        for folder, records in self._records().items():
            for record in records:
                named |= {f"{folder}/{e['name']}" for e in _parsed(record)["outputs"]}
        return named

    def _records(self) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for path, data in sorted(self._disk.files().items()):
            if path.startswith(_HOMES) and "/log/" in path:
                folder = path.removeprefix(_HOMES).partition("/log/")[0]
                found.setdefault(folder, []).append(data)
        return found

    def _chains(self) -> dict[str, CompactionChain]:
        chains = {}
        for folder, records in self._records().items():
            chains[folder] = CompactionChain(folder)
            for data in records:
                chains[folder].append(data, folder)
        return chains

    def _deleted(self) -> set[int]:
        deleted: set[int] = set()
        for folder, records in self._records().items():
            for data in records:
                record = _parsed(data)
                if record["kind"] == "retain":
                    for name in record["inputs"]:
                        deleted |= set(self._rows[f"{folder}/{name}"])
        return deleted


@lru_cache(maxsize=4_096)
def _offsets_of(data: bytes) -> tuple[int, ...]:
    return tuple(row[0] for row in json.loads(data))


@lru_cache(maxsize=4_096)
def _parsed(data: bytes) -> Any:
    return json.loads(data)
