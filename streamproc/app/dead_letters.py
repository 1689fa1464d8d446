"""Dead letters back again, put together: quarantine, rehearsal, plan, replay.

Refused records are read from `quarantine/`, rehearsed through decoder and processor, and
those that are accepted now are claimed by a plan (`core.replays`) and folded into the same
layout. Running it again finds nothing left to claim. A record is put back whole or not.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Final

import numpy as np
import polars as pl

from streamproc import __version__
from streamproc.analytics.dead_letters import (
    Filter,
    dead_letter_keys,
    dead_letter_rows,
)
from streamproc.app.outside import make_schemas, open_registry
from streamproc.app.reading import open_root
from streamproc.app.root import Decoders, Root, zones_of
from streamproc.config import Settings
from streamproc.connectors.clock import SystemClock
from streamproc.core.chain import Genesis
from streamproc.core.definition import Definition
from streamproc.core.payloads import Payloads
from streamproc.core.ports import Created, SchemaRegistry
from streamproc.core.processor import PartitionProcessor
from streamproc.core.replays import (
    ReplayPlan,
    all_taken,
    decode_plan,
    done_path,
    encode_plan,
    is_plan,
    origin_of,
    plan_path,
    replays_folder,
    topic_id_of,
)
from streamproc.core.values import NO_TIME, OffsetSpan, Records, TopicPartition
from streamproc.errors import Fenced, LogCorrupt
from streamproc.runtime.observer import Observer, Observers
from streamproc.runtime.replay import Replay, ReplayParts
from streamproc.runtime.schemas import Schemas
from streamproc.runtime.signals import stop_on_signals

PORTION_BYTES: Final = 64 << 20
PORTION_ROWS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that stays in quarantine, and why."""

    source: str
    offset: int
    reason: str
    detail: str


@dataclass(slots=True)
class PutBack:
    """What a run did: records chosen, put back, and those that stay."""

    chosen: int = 0
    taken: int = 0
    finished: int = 0
    replays: list[int] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)


async def replay_dead_letters(
    settings: Settings,
    chosen: Filter,
    note: str,
    *,
    dry: bool = False,
    observers: Sequence[Observer] = (),
    env: Mapping[str, str] = os.environ,
) -> PutBack:
    """Put refused records back that are accepted now.

    Args:
        settings: the whole configuration.
        chosen: which records; those put back before are never chosen.
        note: kept in the plan, for people.
        dry: rehearse only.
        observers: told what happens.
        env: where `STREAMPROC_FAILPOINT` is looked for; nothing else.

    Raises:
        Fenced: another replay runs.
        StreamprocError: the store or a log failed.
    """
    root = Root(settings, SystemClock(), env)
    with closing(root.store):
        async with open_registry(settings, root.clock) as registry:
            run = _Run(settings, root, registry, Observers(*observers))
            await run.go(replace(chosen, replayed=False), note, dry=dry)
            return run.done


class _Run:
    def __init__(
        self,
        settings: Settings,
        root: Root,
        registry: SchemaRegistry | None,
        observer: Observer,
    ) -> None:
        self._settings = settings
        self._root = root
        self._observer = observer
        self._decoders = Decoders(settings)
        self._stopping = False
        self._replays: list[Replay] = []
        self._schemas: Schemas = make_schemas(
            settings, registry, root.clock, lambda: self._stopping
        )
        self._job = settings.job.name
        self._place = open_root(settings.output.root, settings.path)
        self.done = PutBack()

    async def go(self, chosen: Filter, note: str, *, dry: bool) -> None:
        """Finish what was killed, then put back portion after portion."""
        with stop_on_signals(self._stop):
            if not dry:
                await self._finish_earlier()
            keys = dead_letter_keys(self._place, chosen)
            self.done.chosen = len(keys)
            for portion in _portions(self._usable(keys)):
                rows = dead_letter_rows(self._place, portion)
                taken, refused = await self._rehearsed(rows)
                self.done.kept += refused
                if self._stopping:
                    return
                if taken and not dry:
                    plan = self._claim(taken, len(refused), note)
                    await self._fold(plan, rows)
                self.done.taken += sum(map(len, taken.values()))

    def _stop(self) -> None:
        self._stopping = True
        for replay in self._replays:
            replay.stop()

    # --- choosing ---------------------------------------------------------------------

    def _usable(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Return the keys that can be tried; note why the others cannot."""
        known = set(self._settings.topics.names)
        twice = keys.select(pl.struct("source", "offset").is_duplicated()).to_series()
        topic = pl.col("source").str.replace(r"/\d+$", "")
        why = (
            pl.when(pl.lit(twice)).then(pl.lit("ambiguous"))
            .when(pl.col("kept_bytes").fill_null(0) < pl.col("payload_bytes"))
            .then(pl.lit("truncated"))
            .when(~topic.is_in(sorted(known))).then(pl.lit("unknown_topic"))
            .otherwise(None)
        )  # fmt: skip
        judged = keys.with_columns(why=why)
        for row in judged.filter(pl.col("why").is_not_null()).iter_rows(named=True):
            detail = _DETAILS[row["why"]].format(**row)
            self.done.kept.append(
                Kept(row["source"], row["offset"], row["why"], detail)
            )
        return judged.filter(pl.col("why").is_null()).drop("why")

    async def _rehearsed(
        self, rows: pl.DataFrame
    ) -> tuple[dict[str, tuple[int, ...]], list[Kept]]:
        """Return which records the processor accepts now, and why not the others."""
        taken: dict[str, tuple[int, ...]] = {}
        refused: list[Kept] = []
        for records in _records(rows):
            decoder = self._decoders(records.origin.topic)
            if not await self._schemas.teach(decoder, records):
                return {}, []
            definition = self._settings.definition
            trial = PartitionProcessor(records.origin, definition, zones_of(definition))
            now_us = self._root.clock.monotonic_us()
            emission = trial.step(records, decoder.decode(records), now_us)
            source = records.origin.source
            letters = [
                Kept(source, row["offset"], row["reason"], row["detail"])
                for row in emission.quarantine.to_pylist()
            ]
            refused += letters
            again = {letter.offset for letter in letters}
            good = tuple(n for n in records.offsets.tolist() if n not in again)
            if good:
                taken[source] = good
        return taken, refused

    # --- claiming and folding ---------------------------------------------------------

    def _plans(self) -> list[ReplayPlan]:
        paths = [file.path for file in self._root.store.list(replays_folder(self._job))]
        return [
            decode_plan(self._root.store.read(path) or b"", path)
            for path in paths
            if is_plan(path)
        ]

    def _claim(
        self, taken: dict[str, tuple[int, ...]], refused: int, note: str
    ) -> ReplayPlan:
        """Create the next plan: from then on nobody else puts these records back."""
        plans, store = self._plans(), self._root.store
        before = all_taken(plans)
        for source, offsets in taken.items():
            if not before.get(source, set()).isdisjoint(offsets):
                msg = "another replay has taken some of these records: run it again"
                raise Fenced(msg)
        definition = self._settings.definition
        sha256 = definition.sha256()
        store.create(self._definition_path(sha256), definition.canonical())
        plan = ReplayPlan(
            k=plans[-1].k + 1 if plans else 0,
            job=self._job,
            owner=self._root.owner,
            code_version=__version__,
            definition=sha256,
            heads=self._heads(),
            taken=taken,
            refused=refused,
            unusable=len(self.done.kept) - refused,
            note=note,
        )
        path, data = plan_path(self._job, plan.k), encode_plan(plan)
        outcome = store.create(path, data)
        if outcome is not Created.CREATED and store.read(path) != data:
            msg = f"{path}: another replay was faster: run it again"
            raise Fenced(msg)
        return plan

    def _heads(self) -> dict[str, int]:
        """Return the newest record of every log of the job."""
        heads: dict[str, int] = {}
        for file in self._root.store.list(f"_streamproc/{self._job}"):
            folder, found, name = file.path.rpartition("/log/")
            if found and "/compact/" not in file.path and name[:20].isdigit():
                heads[folder] = int(name[:20])
        return heads

    def _definition_path(self, sha256: str) -> str:
        return f"{replays_folder(self._job)}/definitions/{sha256}.json"

    async def _finish_earlier(self) -> None:
        """Fold what a killed replay has claimed; its records are nobody else's any more."""
        store = self._root.store
        for plan in self._plans():
            if store.read(done_path(self._job, plan.k)) is None:
                pairs = [(s, n) for s, offsets in plan.taken.items() for n in offsets]
                keys = pl.DataFrame(
                    pairs, schema={"source": pl.String(), "offset": pl.Int64()},
                    orient="row",
                )  # fmt: skip
                await self._fold(plan, dead_letter_rows(self._place, keys))
                self.done.finished += plan.records

    async def _fold(self, plan: ReplayPlan, rows: pl.DataFrame) -> None:
        """Fold a plan's records, each source into a log of its own, and close all windows."""
        replay = self._replay(plan)
        parts = [r for r in _records(rows) if r.origin.source in plan.taken]
        chosen = [_only(r, plan.taken[r.origin.source]) for r in parts]
        if sum(map(len, chosen)) != plan.records:
            path = plan_path(plan.job, plan.k)
            msg = f"{path}: some of its records are not in quarantine any more"
            raise LogCorrupt(msg)
        await replay.feed((records, None) for records in chosen)
        await replay.finish(close=True)
        if replay.stopping:
            return
        self._root.store.replace(done_path(self._job, plan.k), b"done\n")
        self.done.replays.append(plan.k)

    def _replay(self, plan: ReplayPlan) -> Replay:
        path = self._definition_path(plan.definition)
        definition = Definition.from_canonical(self._root.store.read(path) or b"{}")

        def begin(origin: TopicPartition) -> Genesis:
            return Genesis(plan.taken[origin.source][0], f"dead letters, {plan.k}")

        parts = ReplayParts(
            make_worker=self._root.make_worker,
            decoder_for=self._decoders,
            schemas=self._schemas,
            definition=definition,
            clock=self._root.clock,
            observer=self._observer,
            buffer=self._settings.buffer,
            topic_id=topic_id_of(plan.k),
            begin=begin,
        )
        self._replays.append(Replay(parts))
        return self._replays[-1]


_DETAILS: Final = {
    "ambiguous": "two refused records have this source and offset",
    "truncated": "only {kept_bytes} of its {payload_bytes} bytes were kept",
    "unknown_topic": "no topic of this configuration; a row of a file is put back by "
    "replaying the file",
}


def _portions(keys: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield the keys in portions whose payloads fit into memory; sorted as they are."""
    if keys.is_empty():
        return
    held = keys.select(pl.col("payload_bytes").cum_sum() // PORTION_BYTES).to_series()
    number = np.arange(len(keys)) // PORTION_ROWS
    labels = list(zip(held.to_list(), number.tolist(), strict=True))
    at = 0
    for _, group in groupby(labels):
        count = len(list(group))
        yield keys.slice(at, count).select("source", "offset")
        at += count


def _records(rows: pl.DataFrame) -> Iterator[Records]:
    """Yield refused records as a source would have delivered them, source after source."""
    for (source,), group in rows.group_by("source", maintain_order=True):
        assert isinstance(source, str)
        offsets = group["offset"].to_numpy().astype(np.int64)
        times: Any = group["broker_time"].dt.epoch("us").fill_null(NO_TIME).to_numpy()
        yield Records(
            origin=origin_of(source),
            offsets=offsets,
            broker_us=times.astype(np.int64),
            values=Payloads.of(group["payload"].to_list()),
            keys=Payloads.nulls(len(offsets)),
            span=OffsetSpan(int(offsets[0]), int(offsets[-1]) + 1),
        )


def _only(records: Records, offsets: Sequence[int]) -> Records:
    """Return the records with these offsets."""
    rows = np.flatnonzero(np.isin(records.offsets, np.array(offsets, np.int64)))
    values, keys = list(records.values), list(records.keys)
    span = OffsetSpan(offsets[0], offsets[-1] + 1)
    return Records(
        records.origin,
        records.offsets[rows],
        records.broker_us[rows],
        Payloads.of([values[row] for row in rows]),
        Payloads.of([keys[row] for row in rows]),
        span,
    )
