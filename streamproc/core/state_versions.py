"""State of older programs: one step from each version of it to the next.

A snapshot's reference in the log carries the version. Whoever raises `STATE_VERSION` adds the
step from the version before, one in `core.definition`, and a fixture written by the old program
to `tests/fixtures`. Nothing has changed what a snapshot holds since the first one, so there is no
step yet.

A refold over records of an older version is another matter: it would do with today's code what
was done with another's. It is refused; a drain with the old program, which ends with a snapshot,
leaves nothing to refold.
"""

from collections.abc import Callable, Mapping
from typing import Final

import pyarrow as pa

from streamproc.core.definition import STATE_VERSION
from streamproc.errors import LogCorrupt

Snapshot = Mapping[str, pa.Table]

SNAPSHOT_STEPS: Final[dict[int, Callable[[Snapshot], Snapshot]]] = {}
"""Version → what makes a snapshot of the next one of it."""


def can_read(version: int, current: int = STATE_VERSION) -> bool:
    """Tell whether a snapshot of `version` can be brought up to `current`."""
    return version <= current and all(
        step in SNAPSHOT_STEPS for step in range(version, current)
    )


def up_to_date(
    tables: Snapshot, version: int, where: str, current: int = STATE_VERSION
) -> Snapshot:
    """Return a snapshot's tables as version `current` would have written them.

    Raises:
        LogCorrupt: there is no way from that version.
    """
    if not can_read(version, current):
        msg = f"{where}: {advice(version, current)}"
        raise LogCorrupt(msg)
    for step in range(version, current):
        tables = SNAPSHOT_STEPS[step](tables)
    return tables


def advice(version: int, current: int) -> str:
    """Return what to do about state of another version that cannot be read."""
    if version > current:
        return (
            f"state version {version}, this program reads up to {current}: a newer "
            "streamproc has written here. Start that one again; to go back for good, "
            "restore the root from before the upgrade"
        )
    return (
        f"state version {version}, this program has {current} and no migrator from "
        f"{version}: go over a release that reads both, one after the other"
    )
