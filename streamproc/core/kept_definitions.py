"""The definitions that records of a log name, stored beside it by their digest."""

from streamproc.core.create import UNKNOWN_MAX
from streamproc.core.definition import Definition
from streamproc.core.effects import Create, Read, Steps
from streamproc.core.ports import Created
from streamproc.core.record import sha256_hex
from streamproc.errors import LogCorrupt, Unreachable


def keep_definition(folder: str, definition: Definition) -> Steps[None]:
    """Store a definition's text, unless it is there.

    Raises:
        Unreachable: the store would not tell the outcome.
    """
    path = f"{folder}/definitions/{definition.sha256()}.json"
    for _ in range(UNKNOWN_MAX):
        outcome: Created = yield Create(path, definition.canonical())
        if outcome is not Created.UNKNOWN:
            return
    msg = f"{path}: the store does not tell whether it was created"
    raise Unreachable(msg)


def kept_definition(folder: str, sha256: str) -> Steps[Definition]:
    """Return a definition that a record of the log names.

    Raises:
        LogCorrupt: missing, changed, or written for another state version.
    """
    path = f"{folder}/definitions/{sha256}.json"
    data: bytes | None = yield Read(path)
    if data is None or sha256_hex(data) != sha256:
        msg = f"{path}: missing or changed"
        raise LogCorrupt(msg)
    try:
        return Definition.from_canonical(data)
    except ValueError as error:
        msg = f"{path}: {error}"
        raise LogCorrupt(msg) from error
