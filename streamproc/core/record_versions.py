"""Records of older programs: one step from each version of a record to the next.

A record's bytes are never rewritten, since the chain hashes them; they are brought up to date
when they are read. A version that is newer than this program is refused with advice: what it
says is not known here.

```text
1   until 0.2                counts may lack `ignored`, which was then always 0
2   checkpoints, gaps        `squashed`, `by`, `partitions`; no record of kind `checkpoint` before
```
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from streamproc.errors import LogCorrupt

RECORD_VERSION: Final = 2

Document = dict[str, Any]
Step = Callable[[Document], Document]


def _from_1(document: Document) -> Document:
    if document.get("kind") == "checkpoint":
        msg = "version 1 knows no checkpoints"
        raise ValueError(msg)
    return {**document, "squashed": None, "by": "", "partitions": 0}


STEPS: Final[Mapping[int, Step]] = {1: _from_1}
"""Version → what makes the next one of it."""


def too_new(what: str, version: int, known: int) -> str:
    """Return how to go on where `what` was written by a newer program."""
    return (
        f"{what} version {version}, this program reads up to {known}: a newer "
        "streamproc has written here. Start that one again; to go back for good, "
        "restore the root from before the upgrade"
    )


def up_to_date(document: Document, version: int, where: str) -> Document:
    """Return a record's JSON as this version would have written it.

    Raises:
        LogCorrupt: newer than this program, no such version, or a step refuses it.
    """
    if version > RECORD_VERSION:
        msg = f"{where}: {too_new('record', version, RECORD_VERSION)}"
        raise LogCorrupt(msg)
    for step in range(version, RECORD_VERSION):
        if step not in STEPS:
            msg = f"{where}: there is no record version {version}"
            raise LogCorrupt(msg)
        try:
            document = {**STEPS[step](document), "version": step + 1}
        except ValueError as error:
            msg = f"{where}: not a log record: {error}"
            raise LogCorrupt(msg) from error
    return document
