"""One partition's commit log on a real store: `core.protocol`, performed.

Synchronous; called in the writer thread alone. All decisions are in `core.protocol`; this
module answers its effects from a `Store` and knows the format of a snapshot file.

A snapshot file is a sequence of Arrow IPC streams, one a table, in the order given. Each
stream's schema carries the table's name under the metadata key `streamproc.table`.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import pyarrow as pa

from streamproc.core.chain import Draft, Genesis, Head, LogIdentity
from streamproc.core.definition import Definition
from streamproc.core.effects import Steps
from streamproc.core.ports import Failpoint, Store, no_failpoint
from streamproc.core.protocol import LogSession
from streamproc.core.record import LogRecord, SnapshotRef, file_stem
from streamproc.core.squash import HOUSEKEEPING, Housekeeping
from streamproc.core.state_versions import up_to_date
from streamproc.core.values import OffsetSpan
from streamproc.errors import Fenced, LogCorrupt, StoreFault, Unreachable
from streamproc.runtime.steps import run_steps

__all__ = ["Draft", "Genesis", "Head", "LogIdentity", "PartitionLog"]

_TABLE_KEY: Final = b"streamproc.table"

T = TypeVar("T")


class PartitionLog:
    """The commit log of one partition, from S1 to S11 (EXACTLY_ONCE.md 1.2).

    The order is `open`, then per commit: `staging`, files, `stage_snapshot` where due,
    `commit`, `publish`, `clean`. Once a method has raised, only `open` may be called, but after
    `Unreachable` that method once more.

    Args:
        store: where everything lives.
        folder: `core.record.log_folder(…)`.
        identity: whose log it is and who writes.
        new_attempt: returns a name that was never returned before, in any process; at
            least its first 8 characters go into file names.
        failpoint: called with the name of each step.
        keeping: how much of the log stays as it is.
    """

    def __init__(
        self,
        store: Store,
        folder: str,
        identity: LogIdentity,
        new_attempt: Callable[[], str],
        failpoint: Failpoint = no_failpoint,
        keeping: Housekeeping = HOUSEKEEPING,
    ) -> None:
        self._store = store
        self._failpoint = failpoint
        self._session = LogSession(folder, identity, new_attempt, keeping)

    @property
    def head(self) -> LogRecord:
        """The newest record; ours, after `open`."""
        return self._session.head

    @property
    def openings(self) -> int:
        """Owners in a row, us among them, that have done nothing but open the log."""
        return self._session.openings

    def open(self, definition: Definition, genesis: Callable[[], Genesis]) -> Head:
        """Find or begin the log, publish what is committed, fence older owners (S1 to S3).

        `genesis` is asked only where there is no record yet. `definition`'s text is kept
        beside the log, so that later records may name it; the head of an existing log
        goes on naming its own until a `config` record.

        Raises:
            LogCorrupt: the log does not hold together, or another state version wrote it.
            Fenced: other owners took over faster than we could.
            StoreFault: the store failed, or a committed file is missing or differs.
            Unreachable: the store would not tell an outcome.
        """
        return self._run(self._session.open(definition, genesis))

    def peek(self) -> LogRecord | None:
        """Return the newest record without taking anything over, None where there is no log.

        Raises:
            LogCorrupt: the log does not hold together.
        """
        return self._run(self._session.peek())

    def records_since_snapshot(self) -> tuple[LogRecord, ...]:
        """Return what a refold needs on top of `head.snapshot`, in order.

        Records of kinds commit, timer, config, final, gap and rewrite; from the first on
        where there is no snapshot.
        """
        return self._session.since_snapshot

    def definition(self, sha256: str) -> Definition:
        """Return a definition some record names. Raises `LogCorrupt`."""
        return self._run(self._session.definition(sha256))

    def read_snapshot(self, ref: SnapshotRef) -> dict[str, pa.Table]:
        """Return the tables `stage_snapshot` was given, as this version writes them.

        Raises:
            LogCorrupt: missing, changed, or of a state version there is no way from.
            Fenced: a newer owner has replaced it.
        """
        data = self._run(self._session.read_snapshot(ref))
        try:
            tables = read_tables(data)
        except pa.ArrowInvalid as error:
            msg = f"{ref.path}: not a snapshot: {error}"
            raise LogCorrupt(msg) from error
        current = self._session.identity.state_version
        return dict(up_to_date(tables, ref.state_version, ref.path, current))

    def staging(self) -> str:
        """Return a fresh folder for the files of record n+1; raises `Fenced` when over."""
        return self._run(self._session.staging())

    def stem(self, span: OffsetSpan) -> str:
        """Return how the files of record n+1 begin, for `TableWriter.write`."""
        mine = self._session.identity
        attempt = self._session.attempt
        return file_stem(mine.topic, mine.partition, self.head.n + 1, span, attempt)

    def stage_snapshot(
        self, tables: Mapping[str, pa.Table | Iterable[pa.Table]]
    ) -> SnapshotRef:
        """Write a snapshot for record n+1, durably; its `next` is set by `commit`.

        Tables in pieces are written piece by piece.
        """
        digest = hashlib.sha256()

        def write(name: str) -> None:
            with Path(name).open("wb") as file:
                write_tables(tables, _Hashing(file, digest))

        return self._run(self._session.stage_snapshot(write, digest.hexdigest))

    def commit(self, draft: Draft) -> LogRecord:
        """Create record n+1 (S8). When this returns, `draft` has happened.

        Raises:
            Fenced: another owner wrote record n+1; our staging is gone.
            StoreFault: the store failed.
            Unreachable: it is not known whether the record was created. The same draft
                may be given again, and nothing else be asked of the log before.
        """
        try:
            return self._run(self._session.commit(draft))
        except Unreachable:
            self._session.try_again()
            raise

    def publish(self) -> None:
        """Give every committed file its final name, durably (S9). Idempotent."""
        self._run(self._session.publish())

    def unsent(self) -> tuple[LogRecord, ...]:
        """Return the records whose outbox may not have left, in order of n."""
        return self._session.unsent

    def note_sent(self, n: int) -> None:
        """Note that every outbox up to record `n` has left; a hint, which may be lost."""
        self._run(self._session.note_sent(n))

    def clean(self) -> None:
        """Delete staging and snapshots that nobody can need any more (S11)."""
        self._run(self._session.clean())

    def still_ours(self) -> bool:
        """Return whether the newest record in the store is our own head ("keep hot")."""
        return self._run(self._session.still_ours())

    def reading(self, read: Callable[[], T]) -> T:
        """Return what `read` makes of published files that records since the snapshot name.

        Raises:
            Fenced: it failed, and a newer owner has taken over: after that one's snapshot,
                compaction may have replaced what we still wanted.
        """
        try:
            return read()
        except StoreFault as error:
            if self.still_ours():
                raise
            raise Fenced(str(error)) from error

    def _run(self, steps: Steps[T]) -> T:
        return run_steps(steps, self._store, self._failpoint)


class _Hashing:
    """A file that digests what passes through."""

    closed = False

    def __init__(self, file: BinaryIO, digest: "hashlib._Hash") -> None:
        self._file = file
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def write_tables(
    tables: Mapping[str, pa.Table | Iterable[pa.Table]], file: Any
) -> None:
    """Write a snapshot's tables to a file-like object; `read_tables` is the inverse.

    Of a table in pieces, only one is held at a time.
    """
    for name, given in tables.items():
        pieces = iter([given] if isinstance(given, pa.Table) else given)
        first = next(pieces)
        metadata = {**(first.schema.metadata or {}), _TABLE_KEY: name.encode()}
        schema = first.schema.with_metadata(metadata)
        with pa.ipc.new_stream(pa.PythonFile(file, mode="w"), schema) as stream:
            stream.write_table(first)
            del first
            for piece in pieces:
                stream.write_table(piece)


def read_tables(data: bytes) -> dict[str, pa.Table]:
    """Return the tables of a snapshot file; they share its memory.

    Raises:
        pyarrow.ArrowInvalid: not such a file.
    """
    tables = {}
    with pa.BufferReader(data) as source:
        while source.tell() < len(data):
            table = pa.ipc.open_stream(source).read_all()
            metadata = dict(table.schema.metadata or {})
            name = metadata.pop(_TABLE_KEY, None)
            if name is None:
                msg = "a table without a name"
                raise pa.ArrowInvalid(msg)
            tables[name.decode()] = table.replace_schema_metadata(metadata or None)
    return tables
