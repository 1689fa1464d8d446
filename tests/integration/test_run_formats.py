"""`run` and `replay` of formats that the file describes, as a user meets them: real processes."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from streamproc.codecs.encode import WireReading, encode_packed, encode_uplink
from streamproc.connectors.embedded_broker import EmbeddedBroker
from streamproc.connectors.files.envelopes import Envelope, EnvelopeWriter
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection
from tests.support import wire
from tests.support.configs import CHIRPSTACK, LEAST, PACKED

NOW_US = 1_772_323_200_000_000
EUI = "0101010101010101"
KEY = f"application.17c82e96.device.{EUI}.event.".encode()


async def streamproc(folder: Path, *arguments: str, env: dict[str, str]) -> Any:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "streamproc", *arguments, "--json"),
        cwd=folder,
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def run(
    folder: Path, config: str, topic: str, messages: list[tuple[bytes | None, bytes]]
) -> tuple[Any, pl.DataFrame]:
    """Return the summary of a `run` over these records, and what it published, verified."""
    (folder / "town.toml").write_text(config + LEAST, encoding="utf-8")
    with EmbeddedBroker({topic: 1}) as broker:
        servers = broker.bootstrap_servers
        async with KafkaProduce(KafkaConnection(bootstrap_servers=servers)) as produce:
            await produce.send(
                [Message(topic, value, key=key) for key, value in messages]
            )
        summary = await streamproc(
            folder,
            *("run", "town.toml", "--until-end"),
            env={
                "STREAMPROC_SOURCE__BOOTSTRAP_SERVERS": servers,
                "STREAMPROC_METRICS__PORT": "0",
            },
        )
    return summary, await verified(folder)


async def verified(folder: Path) -> pl.DataFrame:
    found = await streamproc(folder, "inspect", "data", "--verify", env={})
    assert found["verification"]["findings"] == []
    (folder / "inspect.json").write_text(json.dumps(found))
    return pl.read_parquet(folder / "data/readings/**/*.parquet").sort(
        "offset", "ordinal"
    )


async def test_packed_records_are_run(tmp_path: Path) -> None:
    readings = [WireReading(f"m-{n % 3}", "pm10", NOW_US + n, n / 2) for n in range(40)]
    values = [encode_packed(readings[n : n + 4], wire.PACKED) for n in range(0, 40, 4)]

    summary, rows = await run(
        tmp_path,
        PACKED,
        "telemetry.razlog",
        [(None, value) for value in [*values, b"too short"]],
    )

    assert (summary["records"], summary["quarantined"], summary["ignored"]) == (
        *(11, 1, 0),
    )
    assert rows["value"].to_list() == [n / 2 for n in range(40)]
    assert rows["device"].cast(str).to_list() == [f"m-{n % 3}" for n in range(40)]


EVENTS = [
    (KEY + b"join", b'{"deviceInfo":{}}'),
    (KEY + b"up", encode_uplink(EUI, NOW_US, {"pm10": 7, "air": {"no2": 2.5}})),
    (KEY + b"status", b'{"margin":7}'),
    (None, encode_uplink(EUI, NOW_US + 1, {"list": [0, {"t": -1.5}], "state": "free"})),
    (KEY + b"up", b"{nonsense"),
    (KEY + b"up", encode_uplink(EUI, NOW_US + 2, {"battery": 3.6})),
]


def assert_accounted(folder: Path, summary: Any, rows: pl.DataFrame) -> None:
    assert (summary["records"], summary["quarantined"], summary["ignored"]) == (6, 1, 3)
    assert rows["offset"].to_list() == [1, 1, 3, 3]
    assert rows["device"].cast(str).unique().to_list() == [EUI]
    assert rows["property"].cast(str).to_list() == [
        *("pm10", "no2", "temperature", "parking_state"),
    ]
    # ppb to ug/m3.
    assert rows["value"].to_list() == pytest.approx([7.0, 2.5 * 1.91, -1.5, 0.0], 1e-2)
    found = json.loads((folder / "inspect.json").read_text())
    (partition,) = found["summary"]["partitions"]
    counted = partition["rows"]
    assert (counted["records"], counted["ignored"], counted["skipped"]) == (6, 3, 0)


async def test_chirpstack_events_are_run_and_those_without_readings_counted(
    tmp_path: Path,
) -> None:
    summary, rows = await run(tmp_path, CHIRPSTACK, "chirpstack.razlog", EVENTS)

    assert_accounted(tmp_path, summary, rows)


async def test_chirpstack_events_are_replayed_by_their_headers(tmp_path: Path) -> None:
    (tmp_path / "town.toml").write_text(CHIRPSTACK + LEAST, encoding="utf-8")
    with EnvelopeWriter(str(tmp_path / "all.ndjson")) as writer:
        for offset, (key, value) in enumerate(EVENTS):
            kind = (key or b"up").rpartition(b".")[2]
            headers: list[tuple[str, bytes | None]] = [("event", kind)]
            writer.write(
                [
                    Envelope(
                        "chirpstack.razlog",
                        0,
                        offset,
                        None,
                        headers,
                        NOW_US // 1000,
                        value,
                    )
                ]
            )

    summary = await streamproc(tmp_path, "replay", "town.toml", "all.ndjson", env={})

    assert_accounted(tmp_path, summary, await verified(tmp_path))
