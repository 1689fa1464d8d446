"""Compaction and retention beside a partition that commits, under every fault, from a seed.

One partition as in `testing.simulation`, whose restarts fold the *published files* again,
and up to two compactors that run `core.settled`, `core.swaps` and `core.compaction`
unchanged. Files are JSON, so merging is sorting; everything else is what production does.
`testing.compaction_checks` says what must hold.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Final

from streamproc.core.compaction import Compacting, CompactionSession, Swap
from streamproc.core.durability import Durability
from streamproc.core.effects import Create, List, Read, Stage, Steps
from streamproc.core.ports import StoredFile
from streamproc.core.protocol import LogSession
from streamproc.core.settled import PartitionLogs, survey
from streamproc.core.swaps import (
    InputFile,
    OutputEntry,
    Unit,
)
from streamproc.errors import Fenced, StoreFault
from streamproc.testing.compaction_checks import KeepingChecker
from streamproc.testing.sim_checks import Violation
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
        self.checker = KeepingChecker(  # type: ignore[assignment]  # the same methods
            self.disk, FOLDER, _HOMES, self.partition.payloads
        )
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
