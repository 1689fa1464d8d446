"""Killing ourselves at a named step, for the kill tests: `STREAMPROC_FAILPOINT=name:count`."""

import os
import signal
from collections.abc import Mapping

from streamproc.core import compaction
from streamproc.core.ports import Failpoint, no_failpoint
from streamproc.errors import ConfigError

VARIABLE = "STREAMPROC_FAILPOINT"

POINTS = (
    "decode.before",
    "decode.after",
    "staging.before",
    "staging.after",
    "snapshot.after",
    "record.before",
    "record.after",
    "publish.before",
    "publish.middle",
    "publish.after",
    "clean.before",
    "squash.before",
    "squash.after",
    "takeover.before",
    "takeover.after",
    "ack.before",
    "ack.after",
)
"""Every step of a service that calls the failpoint, in the order of a partition's life.

`core.compaction.POINTS` are those of a compactor.
"""


def failpoint_from(environment: Mapping[str, str]) -> Failpoint:
    """Return a failpoint that sends SIGKILL to this process at the named step's nth time.

    Without the variable nothing ever happens; production never sets it.

    Raises:
        ConfigError: not `name:count`, or no step of that name.
    """
    wanted = environment.get(VARIABLE, "")
    if not wanted:
        return no_failpoint
    name, _, count = wanted.partition(":")
    points = (*POINTS, *compaction.POINTS)
    if name not in points or not (count.isdigit() and int(count) > 0):
        msg = (
            f"{VARIABLE}={wanted!r}: give <step>:<count>, steps are {', '.join(points)}"
        )
        raise ConfigError(msg)
    left = int(count)

    def reached(step: str) -> None:
        nonlocal left
        if step == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reached
