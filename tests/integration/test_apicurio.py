"""The registry client, the decoders and the service with a registry others wrote: Apicurio."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import polars as pl
import pytest

from streamproc.codecs.confluent import frame
from streamproc.codecs.encode import WireReading, encode_avro, encode_protobuf
from streamproc.codecs.select import make_decoder
from streamproc.codecs.wire_schemas import READING_AVSC, READING_PROTO
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.schema_registry import HttpSchemaRegistry, RegistryOptions
from streamproc.core.ports import SchemaProblem, WireSchema
from streamproc.core.values import TopicPartition
from streamproc.errors import StoreFault
from streamproc.runtime.parts import ServiceOptions
from streamproc.simulate.registering import register_schemas
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.apicurio import Apicurio, ApicurioUnavailable
from tests.support.service import ANGE, RAZLOG, START_US, Rig, published
from tests.support.wire import records_of, rows_of

pytestmark = pytest.mark.long

AVRO, PROTOBUF = TopicPartition(RAZLOG, 0), TopicPartition(ANGE, 0)
UNKNOWN = 99_999
READINGS = [
    WireReading(f"d{n}", "temperature", START_US + n * 1_000_000, 0.5 * n)
    for n in range(3)
]
CONFIG = """
[job]
name = "apicurio"

[source]
topics = "telemetry.{city}"
format = "@format@"

[registry]
url = "@registry@"
patience = "0s"

[protobuf]
time = "time_us"
time_unit = "us"

[cities.fundao]
timezone = "Europe/Lisbon"
[cities.ange]
timezone = "Europe/Stockholm"

[[windows]]
name = "1m"
every = "1m"
"""


@pytest.fixture(scope="module")
def apicurio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    registry = Apicurio(tmp_path_factory.mktemp("apicurio"))
    try:
        registry.start()
    except ApicurioUnavailable as error:
        pytest.skip(f"no Apicurio Registry: {error}")
    yield registry
    registry.kill()


def client(apicurio: Apicurio) -> HttpSchemaRegistry:
    clock = SystemClock()
    return HttpSchemaRegistry(
        RegistryOptions(url=apicurio.url),
        monotonic_us=clock.monotonic_us,
        sleep=clock.sleep,
        jitter=random.random,
    )


async def test_what_was_registered_comes_back_under_the_same_id(
    apicurio: Apicurio,
) -> None:
    ours = {
        "avro": WireSchema("avro", READING_AVSC),
        "protobuf": WireSchema("protobuf", READING_PROTO),
    }
    async with client(apicurio) as registry:
        for kind, schema in ours.items():
            schema_id = await registry.register(f"same/{kind} value", schema)
            assert await registry.register(f"again-{kind}", schema) == schema_id
            found = await registry.fetch(schema_id)

            assert isinstance(found, WireSchema)
            assert found.kind == kind
            encode = encode_avro if kind == "avro" else encode_protobuf
            decoder = make_decoder("avro" if kind == "avro" else "protobuf")
            decoder.learn(schema_id, found)
            decoded = decoder.decode(records_of(encode(READINGS, schema_id)))
            assert not decoded.rejects
            assert len(rows_of(decoded)) == len(READINGS)


async def test_an_id_nobody_gave_is_missing_and_nonsense_is_refused(
    apicurio: Apicurio,
) -> None:
    async with client(apicurio) as registry:
        problem = await registry.fetch(UNKNOWN)
        with pytest.raises(StoreFault, match="nonsense: registry answers 422"):
            await registry.register("nonsense", WireSchema("avro", '{"type":"no"}'))

    assert isinstance(problem, SchemaProblem)
    assert problem.missing
    assert "99999 not found" in problem.detail


async def test_a_referenced_schema_comes_along(apicurio: Apicurio) -> None:
    unit = '{"type":"enum","name":"Unit","namespace":"town","symbols":["Cel","K"]}'
    reading = READING_AVSC.replace('["null", "string"]', '["null", "town.Unit"]')
    assert "town.Unit" in reading
    reference = {"name": "town.Unit", "subject": "town.Unit", "version": 1}
    async with httpx.AsyncClient(base_url=apicurio.url) as http:
        await http.post("subjects/town.Unit/versions", json={"schema": unit})
        body = {"schema": reading, "references": [reference]}
        answer = await http.post("subjects/referring/versions", json=body)
    schema_id = answer.raise_for_status().json()["id"]

    async with client(apicurio) as registry:
        found = await registry.fetch(schema_id)

    assert isinstance(found, WireSchema)
    assert [name for name, _ in found.references] == ["town.Unit"]
    (plain,) = encode_avro(READINGS[:1], schema_id)
    # unit: branch 1 of the union, symbol 0 of the enum; quality: null
    payload = plain[:-2] + b"\x02\x00" + b"\x00"
    decoder = make_decoder("avro")
    decoder.learn(schema_id, found)
    decoded = decoder.decode(records_of([payload]))
    assert not decoded.rejects
    assert [row[4] for row in rows_of(decoded)] == ["Cel"]


async def test_the_service_reads_both_formats_and_refuses_an_unknown_id(
    apicurio: Apicurio, tmp_path: Path
) -> None:
    ids = await register_schemas(RegistryOptions(url=apicurio.url), SystemClock())
    async with client(apicurio) as registry:
        rig = _rig(tmp_path, registry, ids)
        await rig.run()

    cities = sorted(row["city"] for row in published(tmp_path, "readings"))
    assert cities == ["ange"] * 3 + ["razlog"] * 3
    (refused,) = published(tmp_path, "quarantine")
    assert (refused["source"], refused["offset"]) == (AVRO.source, 3)
    assert refused["reason"] == "unknown_schema"
    assert refused["detail"].endswith("Schema 99999 not found.")


async def test_a_killed_registry_is_said_to_be_unavailable_and_forgets_nothing(
    apicurio: Apicurio, tmp_path: Path
) -> None:
    ids = await register_schemas(RegistryOptions(url=apicurio.url), SystemClock())
    apicurio.kill()
    async with client(apicurio) as registry:
        await _rig(tmp_path / "down", registry, ids).run()
        apicurio.start()
        await _rig(tmp_path / "up", registry, ids).run()

    refused = published(tmp_path / "down", "quarantine")
    assert len(refused) == 2 * len(READINGS) + 1
    assert {row["reason"] for row in refused} == {"registry_unavailable"}
    assert not published(tmp_path / "down", "readings")
    assert len(published(tmp_path / "up", "readings")) == 2 * len(READINGS)


def _rig(root: Path, registry: HttpSchemaRegistry, ids: dict[str, int]) -> Rig:
    """Return a service on an Avro and a Protobuf topic, the former with an unknown id."""
    source = ScriptedSource({RAZLOG: 1, ANGE: 1})
    unknown = frame(UNKNOWN, b"body")
    source.produce(AVRO, [*encode_avro(READINGS, ids["avro"]), unknown])
    source.produce(PROTOBUF, encode_protobuf(READINGS, ids["protobuf"]))
    return Rig(
        root,
        source,
        SystemClock(),
        registry=registry,
        formats={RAZLOG: "avro", ANGE: "protobuf"},
        patience_us=0,
        options=ServiceOptions(until_end=True, close=True, tick_us=100_000),
    )


@pytest.mark.parametrize("wire", ["avro", "protobuf"])
def test_a_simulated_day_is_replayed_to_the_last_reading(
    apicurio: Apicurio, tmp_path: Path, wire: str
) -> None:
    text = CONFIG.replace("@registry@", apicurio.url).replace("@format@", wire)
    (tmp_path / "town.toml").write_text(text)
    sent = ("--cities", "2", "--devices", "10", "--rate", "20", "--duration", "5m")
    files = ("--output", "day.ndjson.zst", "--ledger", "day.parquet")

    _streamproc(
        tmp_path,
        "simulate",
        *sent,
        *files,
        "--format",
        wire,
        "--registry",
        apicurio.url,
    )
    ran = _streamproc(tmp_path, "replay", "town.toml", "day.ndjson.zst", "--json")

    ledger = pl.read_parquet(tmp_path / "day.parquet")
    assert json.loads(ran)["readings"] == ledger.filter(~pl.col("bad")).height > 1_000


def _streamproc(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "streamproc", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
