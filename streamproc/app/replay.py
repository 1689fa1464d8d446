"""Replay from files, put together."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from streamproc.app.outside import make_schemas, open_registry
from streamproc.app.root import Decoders, Root
from streamproc.config import Settings
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.files.envelopes import all_envelopes, open_envelopes
from streamproc.connectors.files.inputs import StreamOptions
from streamproc.connectors.files.mapping import ColumnMapping, FileMapping
from streamproc.connectors.files.stream import open_stream
from streamproc.core.definition import Definition, DeviceSpec
from streamproc.core.ports import SchemaRegistry
from streamproc.core.values import TopicPartition
from streamproc.runtime.observer import Observer, Observers
from streamproc.runtime.replay import Replay, ReplayParts
from streamproc.runtime.signals import stop_on_signals


async def replay_files(
    settings: Settings,
    files: Sequence[Path],
    *,
    close: bool,
    observers: Sequence[Observer] = (),
    env: Mapping[str, str] = os.environ,
) -> None:
    """Write files into the layout of `[output] root`; what was read before is skipped.

    Args:
        settings: the whole configuration; `files` says what columns mean.
        files: envelopes only, or none.
        close: close every open window at the end.
        observers: told what happens.
        env: where `STREAMPROC_FAILPOINT` is looked for; nothing else.

    Raises:
        InputError: a file cannot be used; the message names it and the line.
        StreamprocError: the store or the log failed.
    """
    paths = [str(path) for path in files]
    root = Root(settings, SystemClock(), env)
    with closing(root.store):
        async with open_registry(settings, root.clock) as registry:
            backfill = _Backfill(settings, root, registry, Observers(*observers))
            await backfill.run(paths, close=close)


class _Backfill:
    """The two kinds of replay, on one root."""

    def __init__(
        self,
        settings: Settings,
        root: Root,
        registry: SchemaRegistry | None,
        observer: Observer,
    ) -> None:
        self._settings = settings
        self._root = root
        self._registry = registry
        self._observer = observer
        self._decoders = Decoders(settings)

    def _replay(self, definition: Definition) -> Replay:
        replays: list[Replay] = []
        clock = self._root.clock
        parts = ReplayParts(
            make_worker=self._root.make_worker,
            decoder_for=self._decoders,
            schemas=make_schemas(
                self._settings, self._registry, clock, lambda: replays[0].stopping
            ),
            definition=definition,
            clock=clock,
            observer=self._observer,
            max_rate=self._settings.source.max_rate,
            buffer=self._settings.buffer,
        )
        replays.append(Replay(parts))
        return replays[0]

    async def run(self, paths: Sequence[str], *, close: bool) -> None:
        """Replay files of one kind."""
        if all_envelopes(paths):
            await self.envelopes(paths, close=close)
        else:
            await self.stream(paths, close=close)

    async def envelopes(self, paths: Sequence[str], *, close: bool) -> None:
        """Replay envelopes: each (topic, partition) has a log of its own."""
        replay = self._replay(self._settings.definition)
        stream = open_envelopes(paths, lambda origin: replay.open(origin).position)
        with stop_on_signals(replay.stop):
            await replay.feed((records, None) for records in stream.batches())
            await replay.finish(close=close)

    async def stream(self, paths: Sequence[str], *, close: bool) -> None:
        """Replay one stream, plan after plan: an interrupted one is completed first."""
        origin = TopicPartition(self._settings.files.stream, 0)
        homes = {d.device: d.city for d in self._settings.definition.devices}
        while True:
            head = self._root.peek(origin)
            if head is not None:
                known = self._root.definition_of(origin, head)
                homes = {d.device: d.city for d in known.devices} | homes
            options = stream_options(self._settings, homes)
            stream = open_stream(
                paths,
                options,
                () if head is None else head.inputs,
                0 if head is None else head.next,
                self._decoders(origin.topic),
            )
            replay = self._replay(self._placed(stream.homes))
            if stream.plan is None:
                replay.open(origin)
                await replay.finish(close=close)
                return
            with stop_on_signals(replay.stop):
                batches = ((b.records, b.decoded) for b in stream.batches())
                await replay.feed(batches, stream.plan)
                await replay.finish(close=False)
            if replay.stopping:
                return

    def _placed(self, homes: Mapping[str, str]) -> Definition:
        """Return the definition with the stream's city, and its devices' if it has many."""
        definition, files = self._settings.definition, self._settings.files
        if files.city_fixed is not None:
            cities = (*definition.topic_cities, (files.stream, files.city_fixed))
            return replace(definition, topic_cities=tuple(dict(cities).items()))
        listed = {device.device for device in definition.devices}
        found = [
            DeviceSpec(city, device)
            for device, city in sorted(homes.items())
            if device not in listed
        ]
        return replace(definition, devices=(*definition.devices, *found))


def stream_options(settings: Settings, homes: Mapping[str, str]) -> StreamOptions:
    """Return how the files of the configured stream are read."""
    files = settings.files
    mapping = None
    if files.time is not None:
        mapping = FileMapping(
            time=files.time,
            time_format=files.time_format,
            timezone=files.timezone,
            device=files.device,
            device_fixed=files.device_fixed,
            city=files.city,
            columns={
                name: ColumnMapping(column.property, column.unit, column.map)
                for name, column in files.columns.items()
            },
            property=files.property,
            value=files.value,
            unit=files.unit,
            properties=files.properties,
            validity=None if files.valid is None else files.valid.column,
            valid=() if files.valid is None else files.valid.equals,
            missing=files.missing,
            separator=files.separator,
            quote=files.quote or None,
            decimal=files.decimal,
        )
    return StreamOptions(
        stream=files.stream,
        mapping=mapping,
        codec=files.format,
        cities=tuple(city.slug for city in settings.definition.cities),
        homes=homes,
    )
