"""Any topic is a source: what one service sends, a second one consumes with a log of its own."""

import json
from collections.abc import Sequence
from pathlib import Path

from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.core.definition import PropertySpec, RuleSpec, WindowSpec
from streamproc.core.flush import FlushPolicy
from streamproc.core.values import AlertTransition
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.kafka_broker import ApacheKafka
from tests.support.failpoints import fill, verified_logs
from tests.support.kafka import fresh, options_for
from tests.support.service import MINUTE_US, Rig, accounted, definition, published

TO_CLOSE = ServiceOptions(until_end=True, close=True)


class FlatJsonSink:
    """Sends every alert as a flat JSON reading: property `<rule>`, value of the transition."""

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self._connection = connection
        self._topic = topic

    async def send(self, alerts: Sequence[AlertTransition]) -> None:
        async with KafkaProduce(self._connection) as produce:
            await produce.send([self._message(alert) for alert in alerts])

    def _message(self, alert: AlertTransition) -> Message:
        document = {
            "device": alert.device,
            "property": alert.rule,
            "time": alert.event_us // 1000,
            "value": alert.value,
        }
        return Message(
            self._topic, json.dumps(document).encode(), alert.device.encode()
        )

    async def close(self) -> None:
        pass


async def test_a_second_service_consumes_what_the_first_one_sends(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    raw, stage_two = fresh("raw"), fresh("stage-two")
    connection, root = kafka.connection, tmp_path / "data"
    async with KafkaAdmin(connection) as admin:
        await admin.create_topics([raw, stage_two], 2)
        await admin.wait_for_topics([raw, stage_two])
    await fill(connection, raw, 2, 400)
    first = Rig(
        root,
        KafkaSource(options_for(connection, topics=(raw,))),
        SystemClock(),
        definition=definition(topic_cities=((raw, "razlog"),)),
        options=TO_CLOSE,
        flush=FlushPolicy(rows_max=100),
        sinks={"next": FlatJsonSink(connection, stage_two)},
    )
    await first.run()
    alerts = published(root, "alerts")
    assert len(alerts) > 5

    hour = WindowSpec("1h", 60 * MINUTE_US, 60 * MINUTE_US, 0)
    seldom = RuleSpec("often", "warm", "1h", "count >= 2", None, 0, "info")
    made = definition(
        job="stage-two",
        windows=(hour,),
        rules=(seldom,),
        properties=(PropertySpec("hot", "Cel"), PropertySpec("warm", "Cel")),
        topic_cities=((stage_two, "razlog"),),
    )
    out = tmp_path / "data-two"
    for _ in range(2):  # The second run must add nothing.
        second = Rig(
            out,
            KafkaSource(options_for(connection, topics=(stage_two,))),
            SystemClock(),
            definition=made,
            options=TO_CLOSE,
        )
        await second.run()

    rows = published(out, "readings")
    assert sorted(
        (r["device"], r["property"], r["event_time"], r["value"]) for r in rows
    ) == sorted((a["device"], a["rule"], a["event_time"], a["value"]) for a in alerts)
    assert len(accounted(out)) == len(alerts)
    counted = sum(r["count"] + r["invalid"] for r in published(out, "aggregates"))
    assert counted == len(alerts)
    assert {r["rule"] for r in published(out, "alerts")} == {"often"}
    assert {log[0].job for log in verified_logs(out).values()} == {"stage-two"}
    assert {log[0].topic for log in verified_logs(out).values()} == {stage_two}
