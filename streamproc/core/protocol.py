"""The per-partition commit log: every decision of the protocol, none of its IO.

Theory of operation (EXACTLY_ONCE.md 1.2). A log is a chain of records; creating record n,
if absent, *is* commit n. `LogSession` is one owner's view of one log. Its methods are
generators of store effects (`core.effects`), so that a store, a test, or a simulation that
dies between any two operations can run the very same code:

    open     S1 locate · S2 roll forward · S3 fence by a takeover record
    staging  S6 a fresh folder for what record n+1 may name
    commit   S8 create record n+1, reading back where the answer was lost
    publish  S9 final names for everything committed, now and then the hint
    clean    S11, and a step of squashing (`core.squash`)

Safety rests on create-if-absent alone. The takeover record only stops an older owner
early; the hints `published`, `sent` and `squashed` only spare work and may lag, never lead.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from streamproc.core.chain import (
    NO_RECORD,
    Chain,
    Draft,
    Genesis,
    Head,
    LogIdentity,
    genesis_record,
    next_record,
    record_numbers,
    sweepable,
)
from streamproc.core.create import create_record
from streamproc.core.definition import Definition
from streamproc.core.effects import (
    Content,
    Delete,
    List,
    Publish,
    Reached,
    Read,
    Replace,
    Settle,
    Stage,
    Steps,
)
from streamproc.core.kept_definitions import keep_definition, kept_definition
from streamproc.core.locate import Moved, locate
from streamproc.core.record import (
    LogRecord,
    SnapshotRef,
    encode_record,
    record_name,
    sha256_hex,
)
from streamproc.core.squash import HOUSEKEEPING, Housekeeping, Squasher, archive_path
from streamproc.core.state_versions import advice, can_read
from streamproc.errors import Fenced, LogCorrupt

# Each lost race means that another owner got a record in, so the group is reassigning
# faster than we can list a log; the runtime starts over when it is assigned again.
TAKEOVERS_MAX: Final = 16
# Publishing again what is published costs a hash of each file, once, at the next start; the
# hint costs two syncs and a rename of every commit.
HINT_EVERY: Final = 8
# Own staging is deleted by name at every commit; a listing only looks for what others lost.
SWEEP_EVERY: Final = 64

T = TypeVar("T")


class LogSession:
    """One owner's session with one partition's log, from `open` until it is fenced.

    After any error of `open` or `commit` the session is over: whether a record was
    created may be unknown, and only a new `open` finds out.
    """

    squasher: type[Squasher] = Squasher

    def __init__(
        self,
        folder: str,
        identity: LogIdentity,
        new_attempt: Callable[[], str],
        keeping: Housekeeping = HOUSEKEEPING,
    ) -> None:
        self.folder = folder
        self.identity = identity
        self._new_attempt = new_attempt
        self._keeping = keeping
        self._chain = Chain(identity, NO_RECORD, NO_RECORD)
        self._squasher = self.squasher(folder, None, [], keeping.squash_every)
        self._over: str | None = "not opened"
        self._attempt: str | None = None
        self._litter: list[str] = []
        self._unhinted = 0
        self._cleans = 0

    @property
    def log(self) -> str:
        """The folder of the records."""
        return f"{self.folder}/log"

    @property
    def head(self) -> LogRecord:
        """The newest record; ours, after `open`."""
        assert self._chain.head is not None, "not opened"
        return self._chain.head.record

    @property
    def since_snapshot(self) -> tuple[LogRecord, ...]:
        """Records to refold on top of `head.snapshot`, in order."""
        return tuple(self._chain.since_snapshot)

    @property
    def began_at_checkpoint(self) -> bool:
        """Tell whether the log was read from a checkpoint on."""
        return self._squasher.squashed is not None

    @property
    def openings(self) -> int:
        """Owners in a row, us among them, that have done nothing but open the log."""
        return self._chain.openings

    @property
    def unsent(self) -> tuple[LogRecord, ...]:
        """Records whose outbox may not have left yet, in order."""
        return tuple(self._chain.unsent)

    # --- S1, S2, S3 -------------------------------------------------------------------

    def open(
        self, definition: Definition, genesis: Callable[[], Genesis]
    ) -> Steps[Head]:
        """Find the log or begin it, finish what is committed, and fence older owners.

        `genesis` is asked only where there is no record. The text of `definition` is
        stored unless the log names it already: an existing log keeps the one it names until
        a `config` record.

        Raises:
            LogCorrupt: the log does not hold together, or another state version wrote it.
            Fenced: lost too many races for the takeover.
            StoreFault: a committed file is missing or differs.
        """
        self._over = "opening failed"
        sha256 = definition.sha256()
        for _ in range(TAKEOVERS_MAX):
            yield from self.locate()
            head = self._chain.head
            if head is None or head.record.definition != sha256:
                yield from keep_definition(self.folder, definition)
            if head is None:
                record = genesis_record(
                    self.identity, genesis(), sha256, self._new_attempt()
                )
            else:
                self._chain.check_refold()
                yield from self.roll_forward()
                draft = Draft(kind="takeover", next=head.record.next)
                record = next_record(self.identity, head, draft, self._new_attempt())
            yield Reached("takeover.before")
            created = yield from self.create(record)
            if created and (yield from self.is_newest(record.n)):
                yield Reached("takeover.after")
                self._append(record)
                self._over = None
                assert self._chain.head is not None
                return self._chain.head
        msg = f"{self.log}: lost {TAKEOVERS_MAX} races for a takeover"
        raise Fenced(msg)

    def peek(self) -> Steps[LogRecord | None]:
        """Return the newest record; the session is not open by that."""
        yield from self.locate()
        return None if self._chain.head is None else self._chain.head.record

    def locate(self) -> Steps[None]:
        """S1: read what no checkpoint has replaced, and check that it holds together."""
        found = yield from locate(self.folder, self.identity)
        self._chain = found.chain
        self._squasher = self.squasher(
            self.folder,
            found.squashed,
            list(found.leftovers),
            self._keeping.squash_every,
        )

    def roll_forward(self) -> Steps[None]:
        """S2: publish what earlier owners committed and may not have published."""
        if self._chain.unpublished:
            yield from self.publish_files(tuple(self._chain.unpublished))
            self._unhinted = HINT_EVERY
            yield from self._note_published()

    def create(self, record: LogRecord) -> Steps[bool]:
        """Create a record; return whether it is ours."""
        return (yield from create_record(self.log, record))

    def is_newest(self, n: int) -> Steps[bool]:
        """Tell whether nothing follows the record that was just created.

        If something does, others have gone on since, or the name had been squashed.
        """
        newer = yield List(self.log, f"{self.log}/{record_name(n)}")
        return not record_numbers(newer, self.log)

    # --- S6, S8 -----------------------------------------------------------------------

    @property
    def attempt(self) -> str:
        """The attempt that record n+1 will carry; the same until commit or `staging`."""
        self._require_open()
        if self._attempt is None:
            self._attempt = self._new_attempt()
        return self._attempt

    def staging(self) -> Steps[str]:
        """Return a fresh folder for the files of record n+1."""
        self._require_open()
        self._attempt = None
        yield Reached("staging.before")
        return self._staging_folder()

    def stage_snapshot(
        self, content: Content, sha256: Callable[[], str]
    ) -> Steps[SnapshotRef]:
        """Make a snapshot durable; `sha256` is asked after `content` was written.

        The reference's `next` is the head's until `commit` sets it.
        """
        n = self.head.n + 1
        path = f"{self.folder}/snap/{n}-{self.attempt}.arrow"
        size: int = yield Stage(path, content)
        yield Reached("snapshot.after")
        return SnapshotRef(
            path=path,
            sha256=sha256(),
            size=size,
            state_version=self.identity.state_version,
            n=n,
            next=self.head.next,
        )

    def commit(self, draft: Draft) -> Steps[LogRecord]:
        """S8: create record n+1. When this returns, `draft` has happened.

        Raises:
            Fenced: another owner created record n+1; our staging is gone.
        """
        head = self._chain.head
        assert head is not None
        record = next_record(self.identity, head, draft, self.attempt)
        self._over = "a commit failed"
        if record.files:
            yield Reached("staging.after")
        yield Reached("record.before")
        if not (yield from self.create(record)):
            self._over = f"fenced at record {record.n}"
            yield from self._drop_staging(record.n)
            msg = f"{self.log}: another owner wrote record {record.n}"
            raise Fenced(msg)
        yield Reached("record.after")
        self._append(record)
        self._attempt = None
        self._over = None
        return record

    def try_again(self) -> None:
        """Let `commit` be called once more after `Unreachable`, with the very same draft.

        Its record then has the same attempt and the same bytes, so whether the earlier
        create took effect, or still will, it is ours or nobody's.
        """
        self._over = None

    # --- S9, S11 ----------------------------------------------------------------------

    def publish(self) -> Steps[None]:
        """S9: give every committed file its final name, in order of the records."""
        self._require_open()
        yield Reached("publish.before")
        records = tuple(self._chain.unpublished)
        if records:
            yield from self.publish_files(records)
        yield Reached("publish.after")
        if records:
            yield from self._note_published()

    def publish_files(self, records: tuple[LogRecord, ...]) -> Steps[None]:
        """Publish each file, whether or not some are there already, then settle."""
        first = True
        for record in records:
            for file in record.files:
                yield Publish(file.staged, file.path, file.size, file.sha256)
                if first:
                    yield Reached("publish.middle")
                first = False
        yield Settle()

    def note_sent(self, n: int) -> Steps[None]:
        """Note that the outboxes up to record `n` have left; only a hint, may be lost."""
        if any(record.n <= n for record in self._chain.unsent):
            yield Replace(f"{self.folder}/sent", b"%d\n" % n)
            self._chain.sent(n)

    def clean(self) -> Steps[None]:
        """S11: delete what can never be committed and is not needed any more."""
        self._require_open()
        yield Reached("clean.before")
        while self._litter:
            yield Delete(self._litter.pop())
        while len(self._chain.snapshots) > self._keeping.snapshots:
            yield Delete(self._chain.snapshots.pop(0).path)
        if self._cleans % SWEEP_EVERY == 0:
            yield from self.sweep()
        self._cleans += 1
        yield from self._squasher.tidy()
        yield from self.squash()

    def squashable(self) -> int:
        """Return up to which record everything is in a snapshot, published and sent.

        None is, while something is unpublished: no record is ever created before.
        """
        chain = self._chain
        if chain.unpublished or not chain.snapshots:
            return NO_RECORD
        newest = chain.snapshots[-1].n
        return min(newest, chain.unsent[0].n - 1) if chain.unsent else newest

    def squash(self) -> Steps[None]:
        """Go on collecting; once there is enough of it, replace it by a checkpoint."""
        squasher = self._squasher
        try:
            yield from squasher.collect(self.squashable())
        except (Moved, LogCorrupt) as moved:
            if (yield from self.still_ours()):
                raise LogCorrupt(str(moved)) from moved
            msg = f"{self.log}: another owner has taken over"
            raise Fenced(msg) from moved
        if not squasher.is_full:
            return
        yield Reached("squash.before")
        squashed = yield from squasher.stage(self.head.n + 1, self.attempt, self._chain)
        draft = Draft("checkpoint", self.head.next, squashed=squashed)
        yield from self.commit(draft)
        squasher.replaced(squashed)
        yield Reached("squash.after")

    def sweep(self) -> Steps[None]:
        """Delete what dead owners left: numbers at or below the head, named by nothing."""
        staging, snap = f"{self.folder}/staging", f"{self.folder}/snap"
        needed = frozenset(
            file.staged for record in self._chain.unpublished for file in record.files
        )
        listed = yield List(staging)
        for path in sweepable(listed, staging, self.head.n, needed):
            yield Delete(path)
        named = frozenset(ref.path for ref in self._chain.snapshots)
        listed = yield List(snap)
        for path in sweepable(listed, snap, self.head.n, named):
            yield Delete(path)
        yield from self._squasher.sweep(self.head.n)

    # --- reading back -----------------------------------------------------------------

    def read_snapshot(self, ref: SnapshotRef) -> Steps[bytes]:
        """Return the snapshot's bytes, checked.

        Raises:
            LogCorrupt: missing, changed, or of a state version there is no way from.
            Fenced: missing because a newer owner has replaced it.
        """
        if not can_read(ref.state_version, self.identity.state_version):
            why = advice(ref.state_version, self.identity.state_version)
            msg = f"{ref.path}: {why}"
            raise LogCorrupt(msg)
        data: bytes | None = yield Read(ref.path)
        if data is None:
            if not (yield from self.still_ours()):
                msg = f"{self.log}: another owner has taken over"
                raise Fenced(msg)
            msg = f"{ref.path}: named by the log, but not there"
            raise LogCorrupt(msg)
        if sha256_hex(data) != ref.sha256:
            msg = f"{ref.path}: its bytes are not those the log names"
            raise LogCorrupt(msg)
        return data

    def definition(self, sha256: str) -> Steps[Definition]:
        """Return a definition that a record of this log names. Raises `LogCorrupt`."""
        return (yield from kept_definition(self.folder, sha256))

    def still_ours(self) -> Steps[bool]:
        """Return whether the newest record in the store is our head."""
        if self._over is not None or self._chain.head is None:
            return False
        n = self.head.n
        data: bytes | None = yield Read(f"{self.log}/{record_name(n)}")
        if data is None or sha256_hex(data) != self._chain.head.sha256:
            return False
        return (yield Read(f"{self.log}/{record_name(n + 1)}")) is None

    # --- parts ------------------------------------------------------------------------

    def _append(self, record: LogRecord) -> None:
        self._chain.append(encode_record(record), f"{self.log}/{record_name(record.n)}")

    def _note_published(self) -> Steps[None]:
        done = self._chain.unpublished
        self._unhinted += 1
        if self._unhinted >= HINT_EVERY:
            yield Replace(f"{self.folder}/published", b"%d\n" % self.head.n)
            self._unhinted = 0
        self._litter.extend(file.staged for record in done for file in record.files)
        self._chain.published(self.head.n)

    def _staging_folder(self) -> str:
        return f"{self.folder}/staging/{self.head.n + 1}-{self.attempt}"

    def _drop_staging(self, n: int) -> Steps[None]:
        """Delete our staging for record n, which is another's for ever."""
        mine = f"{self.folder}/staging/{n}-{self._attempt}"
        for file in (yield List(mine)):
            yield Delete(file.path)
        yield Delete(f"{self.folder}/snap/{n}-{self._attempt}.arrow")
        yield Delete(archive_path(self.folder, n, str(self._attempt)))
        yield Settle()

    def _require_open(self) -> None:
        if self._over is not None:
            msg = f"{self.log}: {self._over}; open it again"
            raise Fenced(msg)
