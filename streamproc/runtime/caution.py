"""Reading carefully where owners have ended one after the other without having done anything.

Theory of operation. A record that makes native code crash ends the process before anything is
committed; the next owner reads it again and ends as well, and so from worker to worker. What all
of them leave is the record of their opening. Where three owners in a row leave nothing else, the
third lets a child process decode first (`core.ports.Trial`). What killed the others lies before
the end the partition had when it was opened, and no further on than an owner reads between two
commits; so far it goes. Records a child does not survive go to quarantine as `crashed`; all else
is decoded here, as ever.

Owners that had nothing to do, or were too short-lived, leave the same trace. Then either nothing
waits to be read, or some of it is decoded once more than needed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from streamproc.core.payloads import Payloads
from streamproc.core.ports import Decoder, SchemaProblem, Trial, WireSchema
from streamproc.core.values import (
    Decoded,
    Reason,
    Records,
    Reject,
    TopicPartition,
)
from streamproc.runtime.observer import Observer
from streamproc.runtime.worker import PartitionWorker

OWNERS: Final = 3
"""So many owners that have done nothing, the newest among them, make it careful."""

REACH: Final = 4_000_000
"""Offsets that are read carefully at most: two spans of the default `flush_rows`, as one may be
written while the next is folded. What lies further on has its three starts after that."""

_DETAIL: Final = "a process that decoded this record crashed, or never came to an end"


class Caution:
    """Tells which partitions are read carefully, and how far.

    Args:
        make: returns a careful decoder for a topic; None where nothing is read carefully.
        observer: told where it begins.
    """

    def __init__(
        self, make: "Callable[[str], CarefulDecoder] | None", observer: Observer
    ) -> None:
        self._make = make
        self._observer = observer
        self._until: dict[TopicPartition, int] = {}
        self._of: dict[str, CarefulDecoder] = {}

    def opened(self, worker: PartitionWorker, end: int) -> None:
        """Take note of a partition that was opened while it ended at `end`."""
        self._until.pop(worker.origin, None)
        quick = self._make is None or worker.openings < OWNERS
        if quick or worker.position >= end:
            return
        until = self._until[worker.origin] = min(end, worker.position + REACH)
        self._observer.failed(
            "processing",
            "careful",
            f"{worker.origin.source}: {worker.openings} owners in a row have ended without "
            f"progress at offset {worker.position}; a child process decodes first up to {until}",
        )

    def decoder(self, worker: PartitionWorker, usual: Decoder) -> Decoder:
        """Return what decodes the partition's next records."""
        until = self._until.get(worker.origin)
        if until is None:
            return usual
        if worker.position >= until:
            del self._until[worker.origin]
            return usual
        topic = worker.origin.topic
        if topic not in self._of:
            assert self._make is not None
            self._of[topic] = self._make(topic)
        return self._of[topic]

    def lost(self, origin: TopicPartition) -> None:
        """Take note of a partition that is not ours any more."""
        self._until.pop(origin, None)

    def close(self) -> None:
        """End what decodes carefully."""
        self._until.clear()
        self.close_idle()

    def close_idle(self) -> None:
        """End what no partition needs any more; never while something is being decoded."""
        for topic in self._of.keys() - {origin.topic for origin in self._until}:
            self._of.pop(topic).close()


class CarefulDecoder:
    """Decodes what a trial has survived; the rest is rejected as `crashed`.

    Args:
        decoder: does the work; of its own, for it has to be told of every schema again.
        trial: goes first.
    """

    def __init__(self, decoder: Decoder, trial: Trial) -> None:
        self._decoder = decoder
        self._trial = trial

    def missing(self, records: Records) -> frozenset[int]:
        """Ask the decoder."""
        return self._decoder.missing(records)

    def learn(self, schema_id: int, schema: WireSchema | SchemaProblem) -> None:
        """Tell both."""
        if isinstance(schema, WireSchema):
            self._trial.learn(schema_id, schema)
        self._decoder.learn(schema_id, schema)

    def decode(self, records: Records) -> Decoded:
        """Decode all but the deadly records, which keep their place."""
        deadly = self._trial.deadly(records)
        if not deadly:
            return self._decoder.decode(records)
        decoded = self._decoder.decode(
            replace(records, values=_without(records.values, deadly))
        )
        others = (r for r in decoded.rejects if r.row not in deadly)
        crashed = (Reject(row, Reason.CRASHED, _DETAIL) for row in deadly)
        return replace(
            decoded,
            rejects=tuple(sorted((*others, *crashed), key=lambda reject: reject.row)),
            ignored=tuple(i for i in decoded.ignored if i.row not in deadly),
        )

    def close(self) -> None:
        """End the trial."""
        self._trial.close()


def _without(values: Payloads, rows: Sequence[int]) -> Payloads:
    """Return the payloads with null, which no decoder reads, in some rows."""
    starts = values.starts.copy()
    starts[list(rows)] = -1
    return Payloads(values.data, starts, values.ends)
