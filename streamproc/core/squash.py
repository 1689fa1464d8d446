"""Squashing: the published beginning of a log becomes one `checkpoint` record.

Theory of operation. A checkpoint is a record like any other: number n+1, created if absent,
chained to the one before. It says that all records up to `through` are in an archive
(`core.archive`), durable before the checkpoint is, and what is needed of them. Only then are
they deleted, so whoever reads meanwhile finds the log complete one way or the other.

What a name that is free again would allow is the danger: an owner that has slept since then
could create the record it was about to, believe it, and publish offsets twice. So two kinds of
records are never deleted: each *opening* record (genesis, takeover) and the last one before
it. Whatever an owner creates next follows its own last record, so there it finds either its own
attempt or the takeover that has fenced it. Only an opening itself goes to a name that may have
become free, which it finds out by listing what is newer (`LogSession.is_newest`); a record that
is created so lies below the checkpoint, where nobody looks.

The work is done in small steps after each commit, so that none of them waits for long. The
hint `squashed` moves when the deleting is done: a listing begins after it.
"""

from dataclasses import dataclass
from typing import Final

from streamproc.core.archive import ArchiveWriter
from streamproc.core.chain import OPENING, Chain
from streamproc.core.effects import (
    Delete,
    List,
    Read,
    Replace,
    Settle,
    Stage,
    Steps,
)
from streamproc.core.locate import read_record
from streamproc.core.record import (
    ArchiveRef,
    SnapshotRef,
    Squashed,
    decode_record,
    record_name,
    sha256_hex,
)
from streamproc.core.totals import Sums
from streamproc.errors import LogCorrupt


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """What of a log is kept as it is.

    Attributes:
        squash_every: records an archive holds: a start reads about as many, twice at most.
        snapshots: the head's, and those before it for whoever finds a damaged one.
    """

    squash_every: int = 256
    snapshots: int = 2


HOUSEKEEPING: Final = Housekeeping()

ARCHIVE_BYTES: Final = 8 << 20
"""An archive is closed at this size before compression, however few its records."""

_DIGITS: Final = 20
# Per commit, where little waits: more than one of each, so that squashing catches up.
READS_EACH: Final = 8
DELETES_EACH: Final = 8


class Squasher:
    """What one session knows of squashing its log.

    Args:
        squashed: what the newest checkpoint says.
        leftovers: records it has replaced and that may still have to be deleted.
        squash_every: records of an archive.
    """

    def __init__(
        self,
        folder: str,
        squashed: Squashed | None,
        leftovers: list[int],
        squash_every: int,
    ) -> None:
        self._folder = folder
        self._squash_every = squash_every
        self._log = f"{folder}/log"
        self._before = squashed
        self._unsure = leftovers
        self._doomed: list[int] = []
        self._hint_due = bool(leftovers)
        self._begin()

    def _begin(self) -> None:
        before = self._before
        self._archive = ArchiveWriter(None if before is None else before.archive)
        self._sums = Sums(None if before is None else before.totals)
        self._start = None if before is None else before.start
        self._first = 0 if before is None else before.through + 1
        self._last = None if before is None else (before.sha256, before.next)
        self._kept: set[int] = set()

    @property
    def squashed(self) -> Squashed | None:
        """Return what the newest checkpoint says, None without one."""
        return self._before

    # --- collecting -------------------------------------------------------------------

    def collect(self, through: int) -> Steps[None]:
        """Take a few more records, none after `through`, into the coming archive.

        Half of what waits at least: owners that change often get there, too.

        Raises:
            Moved: a record of the chain is not there.
            LogCorrupt: it is another one than the chain had.
        """
        waiting = through + 1 - self._first - self._archive.count
        for _ in range(max(READS_EACH, waiting // 2)):
            n = self._first + self._archive.count
            if n > through or self.is_full:
                return
            data, record = yield from read_record(self._log, n)
            if self._last is not None and record.prev_sha256 != self._last[0]:
                msg = f"{self._log}/{record_name(n)}: does not name the record before"
                raise LogCorrupt(msg)
            if record.kind in OPENING:
                self._kept.update((n - 1, n))
            if self._start is None:
                self._start = record.start
            self._archive.add(data)
            self._sums.add(record)
            self._last = (sha256_hex(data), record.next)

    @property
    def is_full(self) -> bool:
        """Tell whether the coming archive holds enough to be written."""
        enough = self._archive.count >= self._squash_every
        return enough or self._archive.size >= ARCHIVE_BYTES

    # --- writing ----------------------------------------------------------------------

    def stage(self, n: int, attempt: str, chain: Chain) -> Steps[Squashed]:
        """Make the archive durable; return what checkpoint `n` is to say."""
        assert self._last is not None
        assert self._start is not None
        data = self._archive.finish()
        path = archive_path(self._folder, n, attempt)
        yield Stage(path, data)
        through = self._first + self._archive.count - 1
        sha256, end = self._last
        snapshots: list[SnapshotRef] = [s for s in chain.snapshots if s.n <= through]
        return Squashed(
            through=through,
            sha256=sha256,
            start=self._start,
            next=end,
            archive=ArchiveRef(
                path=path,
                sha256=sha256_hex(data),
                size=len(data),
                first=self._first,
                last=through,
            ),
            snapshots=tuple(snapshots),
            totals=self._sums.totals(),
        )

    def replaced(self, squashed: Squashed) -> None:
        """Note that the checkpoint is durable: what it replaces may be deleted."""
        numbers = range(self._first, squashed.through)
        self._doomed.extend(n for n in numbers if n not in self._kept)
        # Whether the last one is kept depends on the record after it.
        self._unsure.append(squashed.through)
        self._hint_due = True
        self._before = squashed
        self._begin()

    # --- deleting ---------------------------------------------------------------------

    def tidy(self) -> Steps[None]:
        """Delete a few records that a checkpoint has replaced, then move the hint."""
        waiting = len(self._doomed) + len(self._unsure)
        for _ in range(max(DELETES_EACH, waiting // 4)):
            if self._doomed:
                yield Delete(f"{self._log}/{record_name(self._doomed.pop(0))}")
            elif self._unsure:
                n = self._unsure.pop(0)
                if not (yield from self._is_kept(n)):
                    yield Delete(f"{self._log}/{record_name(n)}")
        if self._hint_due and not self._doomed and not self._unsure:
            assert self._before is not None
            yield Settle()
            yield Replace(f"{self._folder}/squashed", b"%d\n" % self._before.through)
            self._hint_due = False

    def _is_kept(self, n: int) -> Steps[bool]:
        """Tell whether a record opens, or is the last before one that does.

        One that follows and is not there was deleted, and so did not open.
        """
        for number in (n, n + 1):
            path = f"{self._log}/{record_name(number)}"
            data: bytes | None = yield Read(path)
            if data is not None and decode_record(data, path).kind in OPENING:
                return True
        return False

    def sweep(self, head_n: int) -> Steps[None]:
        """Delete archives that dead owners staged and no checkpoint names.

        Each is named after the checkpoint that was to name it; one at or below the head is
        decided. What is older was swept before.
        """
        folder = archive_folder(self._folder)
        named = after = ""
        if self._before is not None:
            named = self._before.archive.path
            after = named[: len(folder) + 1 + _DIGITS]
        for file in (yield List(folder, after)):
            n = file.path.removeprefix(f"{folder}/").partition("-")[0]
            if n.isdigit() and int(n) <= head_n and file.path != named:
                yield Delete(file.path)


def archive_folder(folder: str) -> str:
    """Return where the archives of a log are."""
    return f"{folder}/archive"


def archive_path(folder: str, n: int, attempt: str) -> str:
    """Return the name of the archive that checkpoint `n` names."""
    return f"{archive_folder(folder)}/{n:0{_DIGITS}d}-{attempt}.gz"
