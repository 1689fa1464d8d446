"""S8: creating a record if absent, until it is certain whose record it is."""

from collections.abc import Callable
from functools import partial
from typing import Final

from streamproc.core.chain import record_numbers
from streamproc.core.effects import Create, List, Read, Steps
from streamproc.core.ports import Created
from streamproc.core.record import (
    LogRecord,
    decode_record,
    encode_record,
    record_name,
)
from streamproc.errors import LogCorrupt, StoreFault, Unreachable

# The store backs off between answers of its own; after this many unknown ones we stop, and
# the next owner finds out what happened.
UNKNOWN_MAX: Final = 10


def create_record(log: str, record: LogRecord) -> Steps[bool]:
    """Create the record; return whether it is ours, once that is certain and durable.

    Raises:
        Unreachable: the store would not tell; it may or may not be there.
        LogCorrupt: our attempt is there with other bytes, or nobody could read the record.
        StoreFault: it exists for a create, but not for a read.
    """
    path = f"{log}/{record_name(record.n)}"
    data = encode_record(record)
    decode_record(data, path)  # One that cannot be read would end the log for ever.
    ours = partial(_is_ours, path, record, data)
    return (yield from create_content(log, record.n, data, ours))


def create_content(
    log: str, n: int, data: bytes, is_ours: Callable[[bytes], bool]
) -> Steps[bool]:
    """Create record `n` of a log from its bytes, as `create_record` does.

    `is_ours` tells whether the bytes that were found there come from this attempt.
    """
    path = f"{log}/{record_name(n)}"
    for _ in range(UNKNOWN_MAX):
        outcome: Created = yield Create(path, data)
        if outcome is Created.CREATED:
            return True
        if outcome is Created.UNKNOWN:
            yield List(
                log
            )  # What a listing shows is durable, what a read finds may not be.
        found: bytes | None = yield Read(path)
        if found is not None:
            return is_ours(found)
        if outcome is Created.EXISTS:
            if record_numbers((yield List(log, path)), log):
                return False  # Squashed in between, so it was never ours.
            msg = f"{path}: exists for a create, but not for a read"
            raise StoreFault(msg)
    msg = f"{path}: the store does not tell whether it was created"
    raise Unreachable(msg)


def _is_ours(path: str, record: LogRecord, data: bytes, found: bytes) -> bool:
    if decode_record(found, path).attempt != record.attempt:
        return False
    if found != data:
        msg = f"{path}: attempt {record.attempt} is there with other bytes"
        raise LogCorrupt(msg)
    return True
