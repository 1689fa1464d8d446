"""The consumer service, put together."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing

from streamproc.app.outside import (
    SECOND_US,
    alert_sinks,
    kafka_options,
    make_schemas,
    open_registry,
    topic_sink,
)
from streamproc.app.root import Decoders, Root
from streamproc.config import Settings
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.runtime.observer import Observer, Observers
from streamproc.runtime.opening import Start
from streamproc.runtime.outbox import Outbox
from streamproc.runtime.parts import ServiceOptions, ServiceParts
from streamproc.runtime.schemas import Schemas
from streamproc.runtime.service import Service

NO_TOPICS: frozenset[str] = frozenset()


@asynccontextmanager
async def open_service(
    settings: Settings,
    *,
    until_end: bool = False,
    close: bool = False,
    accept_recreated: frozenset[str] = NO_TOPICS,
    observers: Sequence[Observer] = (),
    env: Mapping[str, str] = os.environ,
) -> AsyncIterator[Service]:
    """Yield a consumer service, not yet started; store and registry are closed afterwards.

    Args:
        settings: the whole configuration.
        until_end: stop at the end offsets seen when each partition was opened.
        close: then close every open window by a logged decision.
        accept_recreated: topics that may have been deleted and created anew.
        observers: told what happens.
        env: where `STREAMPROC_FAILPOINT` is looked for; nothing else.

    Raises:
        ConfigError: certificates or webhook keys cannot be used.
        StoreFault: the output root cannot be written durably.
    """
    source = settings.source
    options = ServiceOptions(
        start=Start(source.start.at, source.start.time_us),
        until_end=until_end,
        close=close,
        idle_us=settings.processing.idle_after_us,
        drain_s=settings.shutdown.drain_us / SECOND_US,
        max_rate=source.max_rate,
        accept_recreated=accept_recreated,
        buffer=settings.buffer,
        bytes_max=settings.bytes_max,
        weights=settings.weights,
    )
    root = Root(settings, SystemClock(), env)
    with closing(root.store):
        async with open_registry(settings, root.clock) as registry:
            service: list[Service] = []
            schemas = make_schemas(
                settings, registry, root.clock, lambda: service[0].stopping
            )
            parts = _parts(
                settings, root, Decoders(settings, env), schemas, Observers(*observers)
            )
            service.append(Service(parts, options))
            yield service[0]


def _parts(
    settings: Settings,
    root: Root,
    decoders: Decoders,
    schemas: Schemas,
    observer: Observer,
) -> ServiceParts:
    clock, kafka = root.clock, kafka_options(settings)
    sinks = alert_sinks(settings, kafka.connection, clock)
    kafka_source = KafkaSource(kafka)
    for note in kafka_source.notes:
        observer.failed("reading", "slow_path", note)
    return ServiceParts(
        source=kafka_source,
        store=root.store,
        make_decoder=decoders.make,
        careful_decoder_for=decoders.careful,
        schemas=schemas,
        make_worker=root.make_worker,
        definition=settings.definition,
        clock=clock,
        observer=observer,
        outboxes={name: Outbox(sink, clock, observer) for name, sink in sinks.items()},
        # A producer of its own: one that is cut off for being slow drops its connection.
        early=topic_sink(settings, kafka.connection),
        failpoint=root.failpoint,
    )
