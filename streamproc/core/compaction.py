"""Compaction and retention of one folder of a dataset: every decision, none of the IO.

Theory of operation. `CompactionSession` is one compactor's view of one unit's chain
(`core.swaps`), written as generators of store effects like `core.protocol`:

    open      read the chain · finish what its records say (S2)
    staging   a fresh folder for the outputs of record n+1
    commit    create record n+1, reading back where the answer was lost
    finish    publish outputs · settle · delete inputs · delete staging

A folder reader sees the outputs appear before the first input goes: never fewer rows, for
a short time some twice. Nothing is deleted that is not named by a durable record, and
nothing is committed upon a record whose outputs are not all published. Staging goes before
the next record, so no zombie can give an output its name again once that is an input.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from streamproc.core.chain import record_numbers, sweepable
from streamproc.core.create import create_content
from streamproc.core.effects import (
    Delete,
    List,
    Publish,
    Reached,
    Read,
    Settle,
    Steps,
)
from streamproc.core.ports import StoredFile
from streamproc.core.record import record_name
from streamproc.core.swaps import (
    CompactionChain,
    CompactionRecord,
    OutputEntry,
    OutputName,
    Unit,
    encode_compaction,
)
from streamproc.errors import Fenced, LogCorrupt

POINTS: Final = (
    "compact.staging.after",
    "compact.record.before",
    "compact.record.after",
    "compact.publish.middle",
    "compact.publish.after",
    "compact.delete.middle",
    "compact.delete.after",
    "compact.clean.after",
)
"""Every step of a swap at which a test may kill the process, in order."""


@dataclass(frozen=True, slots=True)
class Swap:
    """What record n+1 shall say; the session fills in the rest."""

    kind: Literal["compact", "retain"]
    inputs: tuple[str, ...]
    rows: int
    outputs: tuple[OutputEntry, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Compacting:
    """Who compacts: job, owner and code version go into records."""

    job: str
    owner: str
    code_version: str


class CompactionSession:
    """One compactor's session with one unit, from `open` until it is fenced or done."""

    def __init__(
        self, unit: Unit, who: Compacting, new_attempt: Callable[[], str]
    ) -> None:
        self.unit = unit
        self.home = unit.home(who.job)
        self._who = who
        self.attempt = new_attempt()
        self.chain = CompactionChain(unit.folder)

    @property
    def log(self) -> str:
        """The folder of the records."""
        return f"{self.home}/log"

    @property
    def staging(self) -> str:
        """A folder for the outputs of record n+1 that no other attempt uses."""
        return f"{self.home}/staging/{self.chain.next_n}-{self.attempt}"

    def output_name(self, k: int, of: int) -> str:
        """Return the name of output `k` of `of` of record n+1."""
        job, n = self._who.job, self.chain.next_n
        return str(OutputName(job, n, k, of, self.attempt[:8]))

    def open(self) -> Steps[tuple[StoredFile, ...]]:
        """Read the chain, finish its newest swap, and return what the folder holds then.

        Raises:
            LogCorrupt: the chain does not hold together.
            StoreFault: a committed output is missing or differs.
        """
        yield from self.locate()
        yield from self.finish()
        listed: Sequence[StoredFile] = yield List(self.unit.folder)
        gone = self.chain.replaced
        return tuple(file for file in listed if _name(file.path) not in gone)

    def locate(self) -> Steps[None]:
        """Read every record of the chain, oldest first."""
        chain = CompactionChain(self.unit.folder)
        for n in record_numbers((yield List(self.log)), self.log):
            path = f"{self.log}/{record_name(n)}"
            data: bytes | None = yield Read(path)
            if data is None:
                msg = f"{path}: listed, but not there"
                raise LogCorrupt(msg)
            chain.append(data, path)
        self.chain = chain

    def still_ours(self) -> Steps[bool]:
        """Return whether nobody has continued the chain since it was read."""
        path = f"{self.log}/{record_name(self.chain.next_n)}"
        return (yield Read(path)) is None

    def commit(self, swap: Swap) -> Steps[CompactionRecord]:
        """Create record n+1. When this returns, the swap has happened.

        Raises:
            Fenced: another compactor created record n+1; our staging is gone.
            Unreachable: the store would not tell; the next run finds out.
        """
        record = CompactionRecord(
            n=self.chain.next_n,
            kind=swap.kind,
            prev_sha256=self.chain.head_sha256,
            job=self._who.job,
            folder=self.unit.folder,
            attempt=self.attempt,
            owner=self._who.owner,
            code_version=self._who.code_version,
            inputs=swap.inputs,
            outputs=swap.outputs,
            rows=swap.rows,
            note=swap.note,
        )
        yield Reached("compact.staging.after")
        yield Reached("compact.record.before")
        if not (yield from self.create(record)):
            yield from self.abandon()
            msg = f"{self.log}: another compactor wrote record {record.n}"
            raise Fenced(msg)
        yield Reached("compact.record.after")
        where = f"{self.log}/{record_name(record.n)}"
        return self.chain.append(encode_compaction(record), where)

    def create(self, record: CompactionRecord) -> Steps[bool]:
        """Create the record; return whether it is ours, once that is certain and durable."""
        data = encode_compaction(record)
        # No two attempts write the same bytes.
        return (yield from create_content(self.log, record.n, data, data.__eq__))

    def abandon(self) -> Steps[None]:
        """Delete what we staged for record n+1."""
        for file in (yield List(self.staging)):
            yield Delete(file.path)
        yield Settle()

    def finish(self) -> Steps[None]:
        """Make the folder what the newest record says; idempotent, whoever began it.

        Outputs first, durably; only then do inputs go.
        """
        head = self.chain.head
        if head is None:
            return
        listed = yield from self._listed()
        yield from self.publish(head, listed)
        yield Reached("compact.publish.after")
        yield from self.delete_replaced(listed)
        yield Reached("compact.delete.after")
        yield from self.sweep()
        yield Reached("compact.clean.after")

    def publish(self, head: CompactionRecord, listed: Mapping[str, int]) -> Steps[None]:
        """Give every output its name, then make the names durable."""
        first = True
        for entry in head.outputs:
            if listed.get(entry.name) == entry.size:
                continue  # A listed name is durable, and its bytes were before it had one.
            final = f"{self.unit.folder}/{entry.name}"
            yield Publish(entry.staged, final, entry.size, entry.sha256)
            if first:
                yield Reached("compact.publish.middle")
            first = False
        yield Settle()

    def delete_replaced(self, listed: Mapping[str, int]) -> Steps[None]:
        """Delete what the records have taken out, durably."""
        gone = sorted(self.chain.replaced & listed.keys())
        for at, name in enumerate(gone):
            yield Delete(f"{self.unit.folder}/{name}")
            if at == 0:
                yield Reached("compact.delete.middle")
        if gone:
            yield Settle()
            # On a disk deleting is not synced, listing is: no name may come back.
            yield List(self.unit.folder)

    def sweep(self) -> Steps[None]:
        """Delete staging at or below the head: published by now, or another's for ever."""
        assert self.chain.head is not None
        staging = f"{self.home}/staging"
        listed: Sequence[StoredFile] = yield List(staging)
        for path in sweepable(listed, staging, self.chain.head.n, frozenset()):
            yield Delete(path)
        yield Settle()

    def _listed(self) -> Steps[dict[str, int]]:
        listed: Sequence[StoredFile] = yield List(self.unit.folder)
        return {_name(file.path): file.size for file in listed}


def _name(path: str) -> str:
    return path.rpartition("/")[2]
