"""`accept-gap`, put together: the output root, the log, and what the broker still has."""

from collections.abc import Mapping
from contextlib import closing

from streamproc.app.outside import kafka_options
from streamproc.app.root import Root
from streamproc.config import Settings
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_probe import KafkaProbe
from streamproc.core.record import LogRecord
from streamproc.runtime.gap import GapOrder, accept_gap


async def write_gap(
    settings: Settings, order: GapOrder, env: Mapping[str, str]
) -> LogRecord:
    """Ask the broker, then write the gap; returns its record.

    Raises:
        SourceMismatch: the bounds are not as ordered, or there is no log.
        Unreachable, WorldError: broker or store do not answer, or refuse.
    """
    options = kafka_options(settings)
    async with KafkaAdmin(options.connection, timeout_s=options.ask_timeout_s) as admin:
        topic_id = await admin.topic_id(order.origin.topic)
    probe = KafkaProbe(options.connection, timeout_s=options.ask_timeout_s)
    try:
        bounds = await probe.bounds(order.origin)
    finally:
        await probe.close()
    root = Root(settings, SystemClock(), env)
    with closing(root.store):
        log = root.make_log(order.origin, topic_id)
        return accept_gap(log, settings.definition, order, bounds)
