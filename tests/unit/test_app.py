"""What the composition root makes of a configuration."""

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from streamproc.app.outside import alert_sinks, kafka_options
from streamproc.connectors.clock import SystemClock
from streamproc.core.ports import AlertSink
from streamproc.core.values import AlertTransition
from streamproc.errors import ConfigError, WorldError
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
