"""The consumer service, put together."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from streamproc.app.outside import (
    SECOND_US,
    alert_sinks,
    kafka_options,
    make_schemas,
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
from streamproc.runtime.service import Service

NO_TOPICS: frozenset[str] = frozenset()


@contextmanager
def open_service(
    settings: Settings,
    *,
    until_end: bool = False,
    close: bool = False,
    accept_recreated: frozenset[str] = NO_TOPICS,
    observers: Sequence[Observer] = (),
    env: Mapping[str, str] = os.environ,
) -> Iterator[Service]:
    """Yield a consumer service, not yet started; its store is released afterwards.

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
    clock = SystemClock()
    observer = Observers(*observers)
    root = Root(settings, clock, env)
    kafka = kafka_options(settings)
    sinks = alert_sinks(settings, kafka.connection, clock)
    source = settings.source
    service: list[Service] = []
    kafka_source = KafkaSource(kafka)
    for note in kafka_source.notes:
        observer.failed("reading", "slow_path", note)
    parts = ServiceParts(
        source=kafka_source,
        store=root.store,
        decoder_for=Decoders(settings),
        schemas=make_schemas(settings, clock, lambda: service[0].stopping),
        make_worker=root.make_worker,
        definition=settings.definition,
        clock=clock,
        observer=observer,
        outboxes={name: Outbox(sink, clock, observer) for name, sink in sinks.items()},
        # A producer of its own: one that is cut off for being slow drops its connection.
        early=topic_sink(settings, kafka.connection),
        failpoint=root.failpoint,
    )
    options = ServiceOptions(
        start=Start(source.start.at, source.start.time_us),
        until_end=until_end,
        close=close,
        idle_us=settings.processing.idle_after_us,
        drain_s=settings.shutdown.drain_us / SECOND_US,
        max_rate=source.max_rate,
        accept_recreated=accept_recreated,
    )
    service.append(Service(parts, options))
    with closing(root.store):
        yield service[0]
