"""The log of one folder's compactions: units, names, records, and which files are valid.

A *unit* is one (dataset, window, city, date): one folder of published files. It has a chain
of records of its own, `_streamproc/<job>/compact/<unit>/log/<n>.json`; creating record n, if
absent, *is* the swap. A record of kind `compact` says which files of the folder are replaced
by which; one of kind `retain` says which are gone for good.

Pure; readers and compactors share it. `SourceName` is the name of a commit's file,
`OutputName` of a compactor's, and neither can be taken for the other.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final, Literal, Self

import msgspec

from streamproc.core.record import sha256_hex
from streamproc.errors import LogCorrupt

COMPACTION_VERSION: Final = 1

_UNIT: Final = re.compile(
    r"(?P<dataset>[a-z]+)/(?:window=(?P<window>[^/]+)/)?city=(?P<city>[^/]+)"
    r"/date=(?P<date>\d{4}-\d{2}-\d{2})"
)
_SOURCE_NAME: Final = re.compile(
    r"(?P<label>.+)-p(?P<p>\d+)-n(?P<n>\d+)-\d+-\d+-(?P<attempt>[^./]{8})\.parquet"
)
_OUTPUT_NAME: Final = re.compile(
    r"(?P<job>.+)-n(?P<n>\d+)-(?P<k>\d+)of(?P<of>\d+)-(?P<attempt>[^./]{8})"
    r"\.compact\.parquet"
)


# --- names ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """One folder of published files; `window` is empty where the dataset has none."""

    dataset: str
    window: str
    city: str
    day: date

    @property
    def folder(self) -> str:
        """Return the folder, as in `readings/city=razlog/date=2026-01-01`."""
        window = f"window={self.window}/" if self.window else ""
        return f"{self.dataset}/{window}city={self.city}/date={self.day.isoformat()}"

    def home(self, job: str) -> str:
        """Return the folder of the unit's chain."""
        return f"{compact_folder(job)}/{self.folder}"

    @classmethod
    def of(cls, folder: str) -> Self | None:
        """Return the unit with this folder; None for a folder of another shape."""
        match = _UNIT.fullmatch(folder)
        if match is None:
            return None
        try:
            day = date.fromisoformat(match["date"])
        except ValueError:
            return None
        return cls(match["dataset"], match["window"] or "", match["city"], day)


def compact_folder(job: str) -> str:
    """Return the folder of all chains of a job."""
    return f"_streamproc/{job}/compact"


@dataclass(frozen=True, slots=True, order=True)
class SourceName:
    """The name of a file that a commit published: topic label, partition, record n."""

    label: str
    partition: int
    n: int
    attempt: str

    @classmethod
    def of(cls, name: str) -> Self | None:
        """Return what a name says; None if no commit gives such names."""
        match = _SOURCE_NAME.fullmatch(name)
        if match is None:
            return None
        return cls(match["label"], int(match["p"]), int(match["n"]), match["attempt"])


@dataclass(frozen=True, slots=True, order=True)
class OutputName:
    """The name of a compacted file: file `k` of `of` of record `n` of the unit's chain."""

    job: str
    n: int
    k: int
    of: int
    attempt: str

    def __str__(self) -> str:
        return (
            f"{self.job}-n{self.n}-{self.k}of{self.of}-{self.attempt}.compact.parquet"
        )

    @classmethod
    def parsed(cls, name: str) -> Self | None:
        """Return what a name says; None if no compactor gives such names."""
        match = _OUTPUT_NAME.fullmatch(name)
        if match is None:
            return None
        n, k, of = int(match["n"]), int(match["k"]), int(match["of"])
        return cls(match["job"], n, k, of, match["attempt"])


def is_at_rest(names: Sequence[str]) -> bool:
    """Tell by its names alone that a folder holds one whole compaction and nothing else."""
    parsed = [OutputName.parsed(name) for name in names]
    if not parsed or any(name is None for name in parsed):
        return False
    outputs = sorted(name for name in parsed if name is not None)
    first = outputs[0]
    wanted = [
        OutputName(first.job, first.n, k, first.of, first.attempt)
        for k in range(first.of)
    ]
    return outputs == wanted


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to be read: its path, and what a log says of it."""

    path: str
    sha256: str
    rows: int


# --- records --------------------------------------------------------------------------


class OutputEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One compacted file: where it was staged, its name in the folder, what it holds."""

    staged: str
    name: str
    size: int
    rows: int
    sha256: str


class CompactionRecord(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """One record of a unit's chain.

    Attributes:
        kind: `compact` replaces inputs by outputs with the same rows; `retain` deletes
            inputs and has no outputs.
        folder: the unit's folder.
        inputs: names in the folder that are gone from this record on.
        rows: of all inputs together; `compact` has as many in its outputs.
        note: why, for people.
    """

    version: int = COMPACTION_VERSION
    n: int
    kind: Literal["compact", "retain"]
    prev_sha256: str
    job: str
    folder: str
    attempt: str
    owner: str
    code_version: str
    inputs: tuple[str, ...]
    outputs: tuple[OutputEntry, ...] = ()
    rows: int
    note: str = ""


_DECODER: Final = msgspec.json.Decoder(CompactionRecord)


def encode_compaction(record: CompactionRecord) -> bytes:
    """Return the record's bytes; equal records give equal bytes."""
    return msgspec.json.encode(record, order="deterministic")


def decode_compaction(data: bytes, where: str) -> CompactionRecord:
    """Parse a record. Raises `LogCorrupt`, naming `where`, on anything unexpected."""
    try:
        record = _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        msg = f"{where}: not a compaction record: {error}"
        raise LogCorrupt(msg) from error
    if record.version != COMPACTION_VERSION:
        msg = (
            f"{where}: record version {record.version}, this program reads "
            f"{COMPACTION_VERSION}"
        )
        raise LogCorrupt(msg)
    return record


@dataclass(slots=True)
class CompactionChain:
    """A unit's chain, read up to `head`.

    Attributes:
        head: the newest record, None where the unit was never compacted.
        replaced: every name that some record has taken out of the folder.
    """

    folder: str
    head: CompactionRecord | None = None
    head_sha256: str = ""
    replaced: set[str] = field(default_factory=set)

    def append(self, data: bytes, where: str) -> CompactionRecord:
        """Take the next record.

        Raises:
            LogCorrupt: it does not parse, belongs elsewhere, or does not follow `head`.
        """
        record = decode_compaction(data, where)
        fault = self._fault(record)
        if fault:
            msg = f"{where}: {fault}"
            raise LogCorrupt(msg)
        self.replaced.update(record.inputs)
        self.head, self.head_sha256 = record, sha256_hex(data)
        return record

    @property
    def next_n(self) -> int:
        """Return the number of the next record."""
        return 0 if self.head is None else self.head.n + 1

    @property
    def outputs(self) -> tuple[OutputEntry, ...]:
        """Return the outputs that are valid now."""
        return () if self.head is None else self.head.outputs

    def _fault(self, record: CompactionRecord) -> str | None:
        if record.folder != self.folder:
            return f"a record of {record.folder}"
        if record.n != self.next_n:
            return f"record {record.n} stands where record {self.next_n} belongs"
        if record.prev_sha256 != self.head_sha256:
            return "does not name the bytes of the record before as its predecessor"
        if self.replaced & set(record.inputs):
            return f"takes out {min(self.replaced & set(record.inputs))} a second time"
        missing = {entry.name for entry in self.outputs} - set(record.inputs)
        if missing:
            return f"leaves {min(missing)} of the record before as it is"
        return None


def live_names(
    names: Iterable[str], chains: Sequence[CompactionChain]
) -> tuple[list[str], list[str]]:
    """Return which names of a listing hold the unit's rows once, and which to look for.

    `chains` are those of every job that compacts the folder. The second list is not empty
    where a chain's outputs were not all listed and neither were its inputs: then the swap
    went on during the listing, and the outputs are there.
    """
    listed = set(names)
    replaced = {name for chain in chains for name in chain.replaced}
    live = {name for name in listed - replaced if OutputName.parsed(name) is None}
    unseen: list[str] = []
    for chain in chains:
        outputs = {entry.name for entry in chain.outputs}
        if outputs <= listed or chain.head is None:
            live |= outputs
        elif listed.issuperset(chain.head.inputs):
            live |= set(chain.head.inputs)
        else:
            live |= outputs & listed
            unseen += sorted(outputs - listed)
    return sorted(live), unseen
