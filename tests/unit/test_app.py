"""What the composition root makes of a configuration."""

import asyncio
import base64
from dataclasses import replace
from pathlib import Path

import pytest

from streamproc.app.outside import alert_sinks, kafka_options
from streamproc.app.replay import replay_files
from streamproc.app.service import open_service
from streamproc.codecs.encode import WireReading, encode_avro
from streamproc.codecs.wire_schemas import READING_AVSC
from streamproc.config import Settings
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.embedded_broker import EmbeddedBroker
from streamproc.connectors.files.envelopes import Envelope, EnvelopeWriter
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.core.ports import AlertSink
from streamproc.core.values import AlertTransition
from streamproc.errors import ConfigError, WorldError
from streamproc.runtime.observer import Totals
from streamproc.testing.registry import LocalRegistry
from tests.support.configs import LEAST, settings

ALERT = AlertTransition(
    alert_id="a", transition=0, state="firing", rule="r", rule_version="v",
    severity="warning", city="razlog", device="d", property="pm10", window=None,
    event_us=0, value=1.0, source="t/0", offset=0, early=False,
)  # fmt: skip
OTHER = '[cities.ange]\ntimezone = "Europe/Stockholm"\n'


def webhook(folder: Path, *lines: str) -> AlertSink:
    """Return the sink of a receiver on this host, which is never connected to."""
    (folder / "key").write_text("whsec_" + base64.b64encode(b"k" * 32).decode())
    hook = '[[webhooks]]\nurl = "https://127.0.0.1/hook"\nsecret_file = "key"\n'
    found = settings(folder, LEAST + OTHER + hook + "\n".join(lines))
    return alert_sinks(found, kafka_options(found).connection, SystemClock())[
        "webhook-0"
    ]


async def test_a_webhook_gets_the_alerts_of_its_cities_alone(tmp_path: Path) -> None:
    sink = webhook(tmp_path, 'cities = ["ange"]')

    await sink.send([ALERT])

    with pytest.raises(WorldError, match="not public"):
        await sink.send([replace(ALERT, city="ange")])
    await sink.close()


async def test_a_webhook_trusts_the_authorities_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")

    with pytest.raises(ConfigError, match=r"webhook certificates .*ca\.pem"):
        webhook(tmp_path, 'ca_file = "ca.pem"')


# --- the end --------------------------------------------------------------------------

TOPIC = "telemetry.razlog"
LEFT_S = 10.0


def avro(
    folder: Path, registry: LocalRegistry, servers: str = "localhost:9"
) -> Settings:
    text = f"""
source = {{ bootstrap_servers = "{servers}", format = "avro" }}
registry.url = "{registry.url}"
output.root = "{folder / "data"}"
"""
    return settings(folder, text + LEAST)


def one_record(registry: LocalRegistry) -> bytes:
    schema_id = registry.register("razlog", "avro", READING_AVSC)
    (payload,) = encode_avro([WireReading("d", "pm10", 1_000_000, 1.5)], schema_id)
    return payload


async def test_a_service_that_has_ended_leaves_the_schema_registry(
    tmp_path: Path,
) -> None:
    totals = Totals()
    with EmbeddedBroker({TOPIC: 1}) as broker, LocalRegistry() as registry:
        servers = broker.bootstrap_servers
        async with KafkaProduce(KafkaConnection(bootstrap_servers=servers)) as produce:
            await produce.send([Message(TOPIC, one_record(registry))])
        async with open_service(
            avro(tmp_path, registry, servers),
            until_end=True,
            observers=(totals,),
            env={},
        ) as service:
            await service.run()
            assert registry.clients == 1

        assert await asyncio.to_thread(registry.wait_until_left, LEFT_S)

    assert totals.readings == 1


async def test_a_replay_that_has_ended_leaves_the_schema_registry(
    tmp_path: Path,
) -> None:
    totals = Totals()
    file = tmp_path / "all.ndjson"
    with LocalRegistry() as registry:
        with EnvelopeWriter(str(file)) as writer:
            writer.write([Envelope(TOPIC, 0, 0, None, [], 2_000, one_record(registry))])
        chosen = avro(tmp_path, registry)

        await replay_files(chosen, [file], close=True, observers=(totals,), env={})

        assert await asyncio.to_thread(registry.wait_until_left, LEFT_S)

    assert totals.readings == 1
