"""S1: where a log begins and what it says, from one listing and a bounded tail of records.

Old records are replaced by checkpoints (`core.squash`), and what a listing shows of them may
have holes: some are kept for ever, some are about to be deleted, and an owner that has slept
may have written one anew under a name that was free again. None of them counts. The newest
checkpoint is found from the newest record backwards, and the log is what follows the record it
replaces last: of those none is ever deleted before a newer checkpoint is durable.

An owner may squash while we read. A record that was listed and is gone, a hole where there should
be none, or one that does not fit (whose name was free again, and was taken by an owner that had
slept) is therefore looked for once more; found twice, it is corruption.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from streamproc.core.chain import (
    NO_RECORD,
    Chain,
    LogIdentity,
    parse_hint,
    record_numbers,
)
from streamproc.core.effects import List, Read, Steps
from streamproc.core.record import LogRecord, Squashed, decode_record, record_name
from streamproc.errors import LogCorrupt

LOOKS_MAX: Final = 16
_HELD_BYTES_MAX: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class Located:
    """A log as found.

    Attributes:
        squashed: what the newest checkpoint says, None without one.
        leftovers: numbers of listed records that a checkpoint has replaced, ascending.
    """

    chain: Chain
    squashed: Squashed | None
    leftovers: Sequence[int]


class Moved(Exception):
    """A record is not there, which an owner that squashes now explains."""


class Looks:
    """Looks at a log that its owner may squash meanwhile: a fault is one if it is found twice."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._left = LOOKS_MAX
        self._seen: Sequence[int] | None = None

    def again(self, numbers: Sequence[int], fault: Exception) -> None:
        """Allow another look after one that listed these records and met a fault.

        Raises:
            LogCorrupt: the look before listed the same; or there were enough of them.
        """
        if numbers == self._seen:
            raise LogCorrupt(str(fault)) from fault
        self._seen = numbers
        self._left -= 1
        if not self._left:
            msg = f"{self._log}: changes faster than it can be read"
            raise LogCorrupt(msg) from fault


def locate(folder: str, identity: LogIdentity) -> Steps[Located]:
    """Read the log from its newest checkpoint on; check that each record follows the one before.

    Raises:
        LogCorrupt: it does not hold together.
    """
    # Hints before the listing: they can then never be newer than what is listed.
    published = parse_hint((yield Read(f"{folder}/published")))
    sent = parse_hint((yield Read(f"{folder}/sent")))
    floor = parse_hint((yield Read(f"{folder}/squashed")))
    log = f"{folder}/log"
    after = "" if floor == NO_RECORD else f"{log}/{record_name(floor)}"
    looks = Looks(log)
    while True:
        numbers = record_numbers((yield List(log, after)), log)
        # Nobody creates a record before all older ones are published, durably.
        done = max(published, numbers[-1] - 1 if numbers else NO_RECORD)
        try:
            squashed, held = yield from newest_checkpoint(log, numbers)
            chain = Chain(identity, done, sent, squashed)
            yield from _read_tail(log, chain, numbers, squashed, held)
        except (Moved, LogCorrupt) as fault:
            looks.again(numbers, fault)
            continue
        through = NO_RECORD if squashed is None else squashed.through
        if through < floor:
            msg = (
                f"{log}: records up to {floor} were squashed, but no checkpoint says so"
            )
            raise LogCorrupt(msg)
        chain.check_hints()
        return Located(chain, squashed, [n for n in numbers if n <= through])


def checkpoint_of(log: str) -> Steps[Squashed | None]:
    """Return what the newest checkpoint of a log says, None without one; its owner may squash.

    Raises:
        LogCorrupt: a record is missing, twice.
    """
    looks = Looks(log)
    while True:
        numbers = record_numbers((yield List(log)), log)
        try:
            squashed, _ = yield from newest_checkpoint(log, numbers)
        except Moved as moved:
            looks.again(numbers, moved)
        else:
            return squashed


def newest_checkpoint(
    log: str, numbers: Sequence[int]
) -> Steps[tuple[Squashed | None, dict[int, bytes]]]:
    """Go back from the newest record to a checkpoint; return it and bytes read on the way.

    One that cannot be parsed is passed over here: it does not fit the chain either.

    Raises:
        Moved: one is missing before a checkpoint or record 0 was met.
    """
    held: dict[int, bytes] = {}
    size = 0
    expected = None
    for n in reversed(numbers):
        if expected is not None and n != expected:
            break
        data = yield from _read(log, n)
        squashed = _checkpoint(data)
        if squashed is not None and squashed.through < n:
            return squashed, held
        size += len(data)
        if size <= _HELD_BYTES_MAX:
            held[n] = data
        expected = n - 1
    if expected is not None and expected != NO_RECORD:
        msg = f"{log}: {record_name(expected)} is missing"
        raise Moved(msg)
    return None, held


def read_record(log: str, n: int) -> Steps[tuple[bytes, LogRecord]]:
    """Read a record that must be there.

    Raises:
        LogCorrupt: it cannot be parsed.
        Moved: it is not there.
    """
    data = yield from _read(log, n)
    return data, decode_record(data, f"{log}/{record_name(n)}")


def _read(log: str, n: int) -> Steps[bytes]:
    path = f"{log}/{record_name(n)}"
    data: bytes | None = yield Read(path)
    if data is None:
        msg = f"{path}: listed, but not there"
        raise Moved(msg)
    return data


def _checkpoint(data: bytes) -> Squashed | None:
    try:
        return decode_record(data, "").squashed
    except LogCorrupt:
        return None


def _read_tail(
    log: str,
    chain: Chain,
    numbers: Sequence[int],
    squashed: Squashed | None,
    held: dict[int, bytes],
) -> Steps[None]:
    """Feed the chain with what no checkpoint has replaced."""
    first = 0 if squashed is None else squashed.through + 1
    tail = [n for n in numbers if n >= first]
    for place, n in enumerate(tail, first):
        if n != place:
            msg = f"{log}: {record_name(place)} is missing"
            raise Moved(msg)
        data = held.pop(n, None)
        if data is None:
            data, _ = yield from read_record(log, n)
        chain.append(data, f"{log}/{record_name(n)}")
