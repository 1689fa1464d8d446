"""One member of a group, telling when what happens: a child of `bench.rebalance` and `bench.fairness`.

    python -m bench.member CONFIG

Runs the service as `streamproc run CONFIG` does, and says on standard output, a JSON array a line
with CLOCK_MONOTONIC in nanoseconds at the end, when it is asked to give partitions back, when one
is opened and when its first record since then is folded. What it says at its end (SIGTERM) is how
long records took from their timestamp to being folded: for each topic a histogram in whole ms.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from streamproc.app.service import open_service
from streamproc.app.watching import Watching
from streamproc.config import load
from streamproc.core.values import Emission, Records, TopicPartition
from streamproc.runtime.collector import set_for_streaming
from streamproc.runtime.observer import Observer
from streamproc.runtime.ownership import Ownership
from streamproc.runtime.signals import stop_on_signals
from streamproc.runtime.worker import PartitionWorker

MS_MAX = 600_000


def say(*words: object) -> None:
    sys.stdout.write(json.dumps([*words, time.monotonic_ns()]) + "\n")
    sys.stdout.flush()


class Teller(Observer):
    """Says what `bench.rebalance` wants to know, and counts delays."""

    def __init__(self) -> None:
        self._new: set[TopicPartition] = set()
        self.delays: dict[str, Counter[int]] = {}

    def opened(self, worker: PartitionWorker, seconds: float) -> None:
        self._new.add(worker.origin)
        say("opened", worker.origin.source, round(seconds, 4))

    def stepped(self, records: Records, emission: Emission, seconds: float) -> None:  # noqa: ARG002
        if not len(records):
            return
        if records.origin in self._new:
            self._new.discard(records.origin)
            say("record", records.origin.source)
        delay_ms = (time.time_ns() // 1000 - records.broker_us) // 1000
        found, counts = np.unique(delay_ms.clip(0, MS_MAX), return_counts=True)
        of_topic = self.delays.setdefault(records.origin.topic, Counter())
        of_topic.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))

    def released(self, origin: TopicPartition) -> None:
        say("released", origin.source)

    def failed(self, stage: str, kind: str, message: str) -> None:
        say("failed", stage, kind, message)


def watch_revocations() -> None:
    """Let it be said when partitions are asked for, before anything is done about it."""
    revoked = Ownership.revoked

    async def telling(self: Ownership, partitions: Any) -> None:
        say("revoking", len(partitions))
        await revoked(self, partitions)
        say("revoked", len(partitions))

    Ownership.revoked = telling  # type: ignore[method-assign]


async def main(path: Path) -> None:
    settings, teller = load(path, os.environ), Teller()
    async with (
        Watching(settings) as watching,
        open_service(settings, observers=(teller, watching.observer)) as service,
    ):
        watching.watch(service)
        with stop_on_signals(service.stop):
            await service.run()
    say(
        "delays",
        {topic: sorted(found.items()) for topic, found in teller.delays.items()},
    )


if __name__ == "__main__":
    watch_revocations()
    set_for_streaming()
    asyncio.run(main(Path(sys.argv[1])))
