"""Dying on purpose, for the kill tests.

`STREAMPROC_FAILPOINT=name:count` kills the process at a named step. `STREAMPROC_POISON=text` lets
every decoder crash at a record that has this text in its value.
"""

import os
import signal
from collections.abc import Mapping

from streamproc.core import compaction
from streamproc.core.ports import (
    Decoder,
    Failpoint,
    SchemaProblem,
    WireSchema,
    no_failpoint,
)
from streamproc.core.values import Decoded, Records
from streamproc.errors import ConfigError

VARIABLE = "STREAMPROC_FAILPOINT"
POISON = "STREAMPROC_POISON"

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


def poisoned(decoder: Decoder, environment: Mapping[str, str]) -> Decoder:
    """Return the decoder, or one that crashes at a text; production never names one."""
    text = environment.get(POISON, "")
    return _Poisoned(decoder, text.encode()) if text else decoder


class _Poisoned:
    """A decoder that ends its process by SIGSEGV, as broken native code does."""

    def __init__(self, decoder: Decoder, text: bytes) -> None:
        self._decoder = decoder
        self._text = text

    def missing(self, records: Records) -> frozenset[int]:
        return self._decoder.missing(records)

    def learn(self, schema_id: int, schema: WireSchema | SchemaProblem) -> None:
        self._decoder.learn(schema_id, schema)

    def decode(self, records: Records) -> Decoded:
        if any(self._text in value for value in records.values if value is not None):
            os.kill(os.getpid(), signal.SIGSEGV)
        return self._decoder.decode(records)
