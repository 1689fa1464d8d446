"""Decoding in a child process, where a native crash costs only the child.

Theory of operation. The child is started when it is first asked, with a decoder of its own; a
batch is sent to it in pieces of `PIECE` records. A child that dies over a piece, or says nothing
for `PATIENCE_S`, is replaced. Where the next one dies over it as well, the piece is given record by
record, and a record over which two in a row die is deadly: one may have been killed for reasons of
its own.

What the child decodes is thrown away. Whoever asks decodes the survivors again, so that nothing of
a reading ever depends on the way it went.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final

import numpy as np

from streamproc.core.payloads import Payloads
from streamproc.core.ports import Decoder, WireSchema
from streamproc.core.values import Records
from streamproc.errors import WorldError

PIECE: Final = 1024
PATIENCE_S: Final = 60.0
"""Starting a child and decoding a piece takes a few seconds where kernels are cached."""

_Message = tuple[int, WireSchema] | Records


class DecodeTrial:
    """Implements `core.ports.Trial`; one batch at a time.

    Args:
        make: returns a fresh decoder; must be picklable, for the child calls it.
        patience_s: after how long a child that says nothing counts as dead.
    """

    def __init__(
        self, make: Callable[[], Decoder], patience_s: float = PATIENCE_S
    ) -> None:
        self._make = make
        self._patience_s = patience_s
        self._schemas: dict[int, WireSchema] = {}
        self._child: _Child | None = None

    def learn(self, schema_id: int, schema: WireSchema) -> None:
        """Tell the child that runs and those to come."""
        self._schemas[schema_id] = schema
        if self._child is not None:
            self._child.tell((schema_id, schema))

    def deadly(self, records: Records) -> tuple[int, ...]:
        """Return the rows that end a child, ascending."""
        found: list[int] = []
        for low in range(0, len(records), PIECE):
            high = min(low + PIECE, len(records))
            if self._is_deadly(_rows(records, low, high)):
                found.extend(self._deadly_among(records, low, high))
        return tuple(found)

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def _deadly_among(self, records: Records, low: int, high: int) -> Iterator[int]:
        alone = 0
        for row in range(low, high):
            if self._is_deadly(_rows(records, row, row + 1)):
                alone += 1
                yield row
        if not alone:
            first, last = records.offsets[low], records.offsets[high - 1]
            msg = (
                f"{records.origin.source}: a process that decodes the offsets {first} to "
                f"{last} together crashes, and none does that decodes one of them alone: "
                "this needs a fix of the decoder, or a gap (streamproc accept-gap)"
            )
            raise WorldError(msg)

    def _is_deadly(self, piece: Records) -> bool:
        return not self._survives(piece) and not self._survives(piece)

    def _survives(self, piece: Records) -> bool:
        if self._child is None:
            self._child = _Child(self._make)
            for schema in self._schemas.items():
                self._child.tell(schema)
        if self._child.decodes(piece, self._patience_s):
            return True
        self.close()
        return False


class _Child:
    def __init__(self, make: Callable[[], Decoder]) -> None:
        # Never fork: the compute threads of a fork would be gone, their locks held.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_serve, args=(theirs, make), name="decode-trial", daemon=True
        )
        self._process.start()
        theirs.close()

    def tell(self, message: _Message) -> None:
        with suppress(OSError):  # a dead child is noticed when it has to answer
            self._pipe.send(message)

    def decodes(self, piece: Records, patience_s: float) -> bool:
        self.tell(piece)
        try:
            return self._pipe.poll(patience_s) and self._pipe.recv() == len(piece)
        except (EOFError, OSError):
            return False

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _rows(records: Records, low: int, high: int) -> Records:
    """Return the rows `[low, high)` with a buffer of their own, and no more than is decoded."""
    start = int(records.offsets[low])
    part = records.between(start, int(records.offsets[high - 1]) + 1)
    assert len(part) == high - low
    return Records(
        part.origin,
        np.array(part.offsets),
        np.array(part.broker_us),
        Payloads.of(list(part.values)),
        Payloads.of(list(part.keys)),
        part.span,
        part.headers,
    )


def _serve(pipe: "Connection[int, _Message]", make: Callable[[], Decoder]) -> None:
    """Decode until nobody asks any more; the child's main function."""
    # Who stops the service stops the one that asks us; dead, we would blame a record.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    decoder = make()
    with suppress(EOFError, OSError):
        while True:
            message = pipe.recv()
            if isinstance(message, Records):
                decoder.decode(message)
                pipe.send(len(message))
            else:
                decoder.learn(*message)
