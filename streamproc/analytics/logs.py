"""Reading commit logs below a root, without writing, locking or changing anything."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from streamproc.analytics.roots import RootPath
from streamproc.core.chain import (
    NO_RECORD,
    Chain,
    LogIdentity,
    parse_hint,
    record_numbers,
)
from streamproc.core.definition import Definition
from streamproc.core.ports import StoredFile
from streamproc.core.record import LogRecord, decode_record, record_name, sha256_hex
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
        """Return the numbers of the records. Raises `LogCorrupt` where one is missing."""
        names = (path.name for path in self.at("log").iterdir())
        return record_numbers((StoredFile(f"log/{name}", 0) for name in names), "log")

    def records(self) -> Iterator[LogRecord]:
        """Yield every record, oldest first, while each fits the one before.

        Raises:
            LogCorrupt: the chain, a record's identity, or a hint does not fit.
        """
        chain: Chain | None = None
        for n in self.numbers():
            where = f"{self.folder}/log/{record_name(n)}"
            data = (self.root / where).read_bytes()
            if chain is None:
                chain = self._chain(decode_record(data, where))
            record = chain.append(data, where)
            # What the service still has to do is not ours; keep the chain small.
            chain.published(n)
            chain.sent(n)
            yield record
        if chain is None:
            msg = f"{self.folder}: a log without records"
            raise LogCorrupt(msg)
        chain.check_hints()

    def definition(self, sha256: str) -> Definition:
        """Return a definition that a record names. Raises `LogCorrupt`."""
        path = self.at(f"definitions/{sha256}.json")
        data = path.read_bytes() if path.is_file() else b""
        if sha256_hex(data) != sha256:
            msg = f"{self.folder}/definitions/{sha256}.json: missing or changed"
            raise LogCorrupt(msg)
        try:
            return Definition.from_canonical(data)
        except ValueError as error:
            msg = f"{self.folder}: {error}"
            raise LogCorrupt(msg) from error

    def _chain(self, first: LogRecord) -> Chain:
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
        return Chain(identity, published, sent)


def find_logs(root: RootPath) -> list[LogFolder]:
    """Return the logs of every job below a root, in order of their folders."""
    # Never below other names: scratch folders of a running service come and go.
    jobs = (path for path in root.glob(f"{LOGS}/*") if _JOB.fullmatch(path.name))
    found = sorted(path.as_posix() for job in jobs for path in job.glob("*/*/log"))
    above = root.as_posix()
    folders = (path.removeprefix(above).strip("/") for path in found)
    logs = (folder for folder in folders if (root / folder).is_dir())
    return [LogFolder(root, folder.removesuffix("/log")) for folder in logs]
