"""Reading commit logs below a root, without writing, locking or changing anything."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from streamproc.analytics.roots import RootPath
from streamproc.core.archive import read_archive, read_header
from streamproc.core.chain import (
    NO_RECORD,
    Chain,
    LogIdentity,
    parse_hint,
    record_numbers,
)
from streamproc.core.definition import Definition
from streamproc.core.effects import Read, Steps, T
from streamproc.core.kept_definitions import kept_definition
from streamproc.core.locate import LOOKS_MAX, Looks, Moved, newest_checkpoint
from streamproc.core.ports import StoredFile
from streamproc.core.record import (
    ArchiveRef,
    LogRecord,
    Squashed,
    decode_record,
    record_name,
    sha256_hex,
)
from streamproc.errors import LogCorrupt

LOGS: Final = "_streamproc"
_JOB: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class LogFolder:
    """One partition's folder, `root/_streamproc/<job>/<topic>-<topic id>/<partition>`."""

    root: RootPath
    folder: str

    def at(self, name: str) -> RootPath:
        """Return the path of a name inside the folder."""
        return self.root / f"{self.folder}/{name}"

    def hint(self, name: str) -> int:
        """Return the number in the hint file `published` or `sent`, -1 for none."""
        path = self.at(name)
        return parse_hint(path.read_bytes() if path.is_file() else None)

    def numbers(self) -> list[int]:
        """Return the numbers of the records that are files of their own, ascending."""
        names = (path.name for path in self.at("log").iterdir())
        return record_numbers((StoredFile(f"log/{name}", 0) for name in names), "log")

    def records(self) -> Iterator[LogRecord]:
        """Yield every record since genesis, squashed ones too, while each fits the one before.

        The service may squash meanwhile: what is gone from the log is then in an archive, and what
        does not fit is looked for once more (`core.locate` says how it comes).

        Raises:
            LogCorrupt: the chain, an archive, a record's identity, or a hint does not fit.
        """
        chain: Chain | None = None
        n, doubted = 0, NO_RECORD
        while True:
            squashed, newest = self._look()
            if n > newest:
                break
            for data, where in self._bytes_from(n, squashed, newest):
                try:
                    if chain is None:
                        chain = self._chain(decode_record(data, where), None)
                    record = chain.append(data, where)
                except LogCorrupt:
                    if n == doubted:
                        raise
                    doubted = n
                    break
                # What the service still has to do is not ours; keep the chain small.
                chain.published(n)
                chain.sent(n)
                n += 1
                yield record
        assert chain is not None
        chain.check_hints()

    def tail(self) -> "Tail":
        """Return what the newest checkpoint says, and the records it has not replaced.

        A service that commits and squashes meanwhile makes hints newer than our listing, and names
        free that another owner may take: a fault is one if a second look finds the same.

        Raises:
            LogCorrupt: one that must be there is missing.
        """
        doubted: str | None = None
        for _ in range(LOOKS_MAX):
            squashed, newest = self._look()
            first = 0 if squashed is None else squashed.through + 1
            read = [self._read(n) for n in range(first, newest + 1)]
            found = [data for data in read if data is not None]
            if len(found) < len(read):
                continue
            tail = self._tail(squashed, found)
            if tail.fault is None or tail.fault == doubted:
                return tail
            doubted = tail.fault
        msg = f"{self.folder}: changes faster than it can be read"
        raise LogCorrupt(msg)

    def _tail(self, squashed: Squashed | None, found: Sequence[bytes]) -> "Tail":
        first = 0 if squashed is None else squashed.through + 1
        records: list[LogRecord] = []
        chain: Chain | None = None
        try:
            for n, data in enumerate(found, first):
                where = f"{self.folder}/log/{record_name(n)}"
                if chain is None:
                    chain = self._chain(decode_record(data, where), squashed)
                records.append(chain.append(data, where))
            if chain is not None:
                chain.check_hints()
        except LogCorrupt as error:
            return Tail(squashed, records, str(error))
        return Tail(squashed, records, None)

    def definition(self, sha256: str) -> Definition:
        """Return a definition that a record names. Raises `LogCorrupt`."""
        return self._run(kept_definition(self.folder, sha256))

    # --- parts ------------------------------------------------------------------------

    def _look(self) -> tuple[Squashed | None, int]:
        """Return the newest checkpoint's content and the newest record's number."""
        looks = Looks(self.folder)
        while True:
            numbers = self.numbers()
            if not numbers:
                msg = f"{self.folder}: a log without records"
                raise LogCorrupt(msg)
            try:
                steps = newest_checkpoint(f"{self.folder}/log", numbers)
                squashed, _ = self._run(steps)
                self._complete(squashed, numbers)
            except Moved as moved:
                looks.again(numbers, moved)
            else:
                return squashed, numbers[-1]

    def _complete(self, squashed: Squashed | None, numbers: Sequence[int]) -> None:
        first = 0 if squashed is None else squashed.through + 1
        there = set(numbers)
        for n in range(first, numbers[-1]):
            if n not in there:
                msg = f"{self.folder}/log: {record_name(n)} is missing"
                raise Moved(msg)

    def _bytes_from(
        self, n: int, squashed: Squashed | None, newest: int
    ) -> Iterator[tuple[bytes, str]]:
        """Yield records from `n` on with their places; ends early where one was squashed."""
        for ref in reversed(list(self._archives(squashed, n))):
            _, texts = read_archive(self._archive(ref), ref.path)
            if len(texts) != ref.last - ref.first + 1:
                msg = f"{ref.path}: holds {len(texts)} records, not {ref.first} to {ref.last}"
                raise LogCorrupt(msg)
            for data in texts[max(0, n - ref.first) :]:
                yield data, f"{ref.path} record {n}"
                n += 1
        for number in range(n, newest + 1):
            found = self._read(number)
            if found is None:
                return
            yield found, f"{self.folder}/log/{record_name(number)}"

    def _archives(self, squashed: Squashed | None, n: int) -> Iterator[ArchiveRef]:
        """Yield the archives that hold records from `n` on, newest first."""
        ref = None if squashed is None else squashed.archive
        while ref is not None and ref.last >= n:
            yield ref
            before = read_header(self._archive(ref), ref.path).before
            if before is not None and before.last != ref.first - 1:
                msg = f"{ref.path}: begins with {ref.first}, {before.path} ends at {before.last}"
                raise LogCorrupt(msg)
            ref = before

    def _archive(self, ref: ArchiveRef) -> bytes:
        path = self.root / ref.path
        data = path.read_bytes() if path.is_file() else None
        if data is None or sha256_hex(data) != ref.sha256:
            msg = f"{ref.path}: named by the log, and missing or changed"
            raise LogCorrupt(msg)
        return data

    def _read(self, n: int) -> bytes | None:
        try:
            return self.at(f"log/{record_name(n)}").read_bytes()
        except FileNotFoundError:
            return None

    def _run(self, steps: Steps[T]) -> T:
        answer: Any = None
        while True:
            try:
                effect = steps.send(answer)
            except StopIteration as done:
                result: T = done.value
                return result
            assert isinstance(effect, Read)
            path = self.root / effect.path
            answer = path.read_bytes() if path.is_file() else None

    def _chain(self, first: LogRecord, base: Squashed | None) -> Chain:
        identity = LogIdentity(
            job=first.job,
            topic=first.topic,
            topic_id=first.topic_id,
            partition=first.partition,
            owner="",
            code_version="",
            state_version=first.state_version,
        )
        published, sent = self.hint("published"), self.hint("sent")
        assert min(published, sent) >= NO_RECORD
        return Chain(identity, published, sent, base)


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a log, up to the first record that does not fit: `fault` says why not."""

    squashed: Squashed | None
    records: list[LogRecord]
    fault: str | None


def find_logs(root: RootPath) -> list[LogFolder]:
    """Return the logs of every job below a root, in order of their folders."""
    # Never below other names: scratch folders of a running service come and go.
    jobs = (path for path in root.glob(f"{LOGS}/*") if _JOB.fullmatch(path.name))
    found = sorted(path.as_posix() for job in jobs for path in job.glob("*/*/log"))
    above = root.as_posix()
    folders = (path.removeprefix(above).strip("/") for path in found)
    logs = (folder for folder in folders if (root / folder).is_dir())
    return [LogFolder(root, folder.removesuffix("/log")) for folder in logs]
