"""A broker that allows nothing unasked: what the manual's rights do, and what is said of less.

Everything goes through the command line, as an operator meets it. Each test has a user of
its own, so that none waits for another's rights to go.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import TopicAuthorizationFailedError

from streamproc.connectors.alert_topic import AlertTopic
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.core.flush import FlushPolicy
from streamproc.core.values import AlertTransition, TopicPartition
from streamproc.errors import Forbidden, WorldError
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.kafka_cluster import SESSION_MS, KafkaCluster
from tests.support.kafka import certificates, fresh, options_for, started
from tests.support.service import Rig, accounted, definition, published, reading

USERS = (
    "whole",
    "narrow",
    "hidden",
    "blind",
    "alone",
    "mute",
    "half",
    "wrong",
    "short",
    "revoked",
    "removed",
    "expelled",
)
COUNT = 300
ENDS_S = 120.0
PROPAGATION = 40
"""How often to ask whether a right has arrived: brokers learn of it a moment later."""

CONFIG = """
[job]
name = "region"

[source]
bootstrap_servers = "{servers}"
protocol = "sasl_ssl"
username = "{user}"
{authority}
topics = "{stem}.{{city}}"
group = "{stem}-group"
session_timeout = "6s"
heartbeat = "1s"

[alerts]
topic = "{stem}-alerts"

[metrics]
enabled = false

[cities.razlog]
timezone = "Europe/Sofia"
[cities.ange]
timezone = "Europe/Stockholm"

[[windows]]
name = "1m"
every = "1m"

[[rules]]
name = "hot"
property = "temperature"
when = "value > 20"
severity = "warning"
"""


ALERT = AlertTransition(
    alert_id="0123456789abcdef0123456789abcdef",
    transition=0,
    state="firing",
    rule="hot",
    rule_version="00ff00ff00ff00ff",
    severity="warning",
    city="razlog",
    device="d1",
    property="temperature",
    window=None,
    event_us=0,
    value=None,
    source="telemetry.razlog/0",
    offset=7,
    early=False,
)


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """Check that it ended with a plain error that has all these words."""
        assert self.code == 1, self
        assert "Traceback" not in self.out + self.err
        said = " ".join((self.out + self.err).split())
        for word in words:
            assert word in said, f"{word!r} is not in {said!r}"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    folder = tmp_path_factory.mktemp("rights")
    broker = started(KafkaCluster(folder, certificates(folder / "tls"), users=USERS))
    yield broker
    broker.stop()


async def streamproc(folder: Path, password: str, *arguments: str) -> Said:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "streamproc", *arguments),
        cwd=folder,
        env={**os.environ, "STREAMPROC_SOURCE__PASSWORD": password},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    found = Said(process.returncode, out.decode(), err.decode())
    assert password not in found.out + found.err
    return found


class Town:
    """A configuration for one user, and topics of its own with readings in them."""

    def __init__(self, folder: Path, cluster: KafkaCluster, user: str) -> None:
        self.folder = folder
        self.cluster = cluster
        self.user = user
        self.stem = fresh(user)
        self.topics = tuple(f"{self.stem}.{city}" for city in ("razlog", "ange"))
        self.alerts = f"{self.stem}-alerts"
        self.group = f"{self.stem}-group"
        self.password = cluster.connection(user).security.password or ""
        self.write(cluster.connection(user))

    def write(self, connection: KafkaConnection) -> None:
        ca_file = connection.security.ca_file
        text = CONFIG.format(
            servers=connection.bootstrap_servers,
            user=self.user,
            authority=f'ca_file = "{ca_file}"' if ca_file else "",
            stem=self.stem,
        )
        (self.folder / "town.toml").write_text(text, encoding="utf-8")

    async def fill(self) -> None:
        """As administrator: make the topics, and readings some of which are an alert."""
        async with KafkaProduce(self.cluster.connection()) as producer:
            await producer.create_topics([*self.topics, self.alerts], 1)
            await producer.send(
                [
                    Message(topic, reading(n * 4, 15.0 + n % 9), b"d1")
                    for topic in self.topics
                    for n in range(COUNT)
                ]
            )

    async def allow(self, rights: Mapping[str, str]) -> None:
        """Give rights, and wait until the broker knows them."""
        await asyncio.to_thread(self.cluster.allow, self.user, rights)
        async with KafkaAdmin(self.cluster.connection(self.user)) as admin:
            for resource, operations in rights.items():
                kind, name = resource.split(":", 1)
                for _ in range(PROPAGATION):
                    if kind == "topic":
                        every = {
                            t for t in (*self.topics, self.alerts) if t.startswith(name)
                        }
                        found = await admin.rights_on_topics(sorted(every))
                        if all(
                            set(operations.split()) <= (r or set())
                            for r in found.values()
                        ):
                            break
                    elif await admin.rights_on_group(name) != frozenset():
                        break

    @property
    def manual(self) -> dict[str, str]:
        """The rights that docs/operator.md asks for."""
        return {
            f"topic:{self.stem}.": "READ DESCRIBE",
            f"group:{self.group}": "READ",
            f"topic:{self.alerts}": "WRITE DESCRIBE",
        }

    async def run(self, *more: str) -> Said:
        arguments = ("run", "town.toml", "--until-end", "--close", "--json", *more)
        return await streamproc(self.folder, self.password, *arguments)

    async def check(self) -> Said:
        return await streamproc(
            self.folder, self.password, "check", "town.toml", "--connect"
        )

    async def alert_ids(self) -> list[str]:
        """Read the alert topic as administrator."""
        consumer = AIOKafkaConsumer(
            self.alerts,
            auto_offset_reset="earliest",
            **self.cluster.connection().aiokafka(),
        )
        await consumer.start()
        try:
            (tp,) = consumer.assignment()
            end = (await consumer.end_offsets([tp]))[tp]
            found: list[str] = []
            while len(found) < end:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += [
                        json.loads(record.value)["alert_id"] for record in records
                    ]
            return found
        finally:
            await consumer.stop()


async def test_the_manuals_rights_are_enough_from_end_to_end(
    cluster: KafkaCluster, tmp_path: Path
) -> None:
    town = Town(tmp_path, cluster, "whole")
    await town.fill()
    await town.allow(town.manual)

    checked = await town.check()
    ran = await town.run()

    assert checked.code == 0, checked
    assert "DescribeConfigs" in checked.out
    assert ran.code == 0, ran
    every = [(f"{topic}/0", n) for topic in town.topics for n in range(COUNT)]
    assert accounted(tmp_path / "data") == sorted(every)
    assert set(await town.alert_ids()) == {
        row["alert_id"] for row in published(tmp_path / "data", "alerts")
    }
    verified = await streamproc(tmp_path, town.password, "inspect", "data", "--verify")
    assert verified.code == 0


async def test_the_manuals_rights_allow_nothing_else(
    cluster: KafkaCluster, tmp_path: Path
) -> None:
    """Control 18: what the service never does is refused to it."""
    town = Town(tmp_path, cluster, "narrow")
    await town.fill()
    await town.allow(town.manual)
    ours = cluster.connection("narrow")

    async with KafkaAdmin(ours) as admin:
        with pytest.raises(WorldError, match=r"(?i)authorization failed"):
            await admin.create_topics([fresh("new")], 1)
        with pytest.raises(WorldError, match=r"(?i)authorization failed"):
            await admin.delete_topics([town.topics[0]])
        with pytest.raises(WorldError, match=r"(?i)authorization failed"):
            await admin.delete_records(TopicPartition(town.topics[0], 0), 1)
        assert await admin.topic_config(town.topics[0]) == {}
        assert await admin.topics() == {*town.topics, town.alerts}
    async with KafkaProduce(ours) as producer:
        with pytest.raises(WorldError, match="TopicAuthorizationFailed"):
            await producer.send([Message(town.topics[0], b"forged", b"d1")])
    sink = AlertTopic(town.topics[0], ours.aiokafka())
    with pytest.raises(Forbidden, match="lacks Write and Describe on topic"):
        await sink.send([ALERT])
    await sink.close()
    consumer = AIOKafkaConsumer(
        town.alerts, auto_offset_reset="earliest", **ours.aiokafka()
    )
    await consumer.start()
    with pytest.raises(TopicAuthorizationFailedError):
        await consumer.getmany(timeout_ms=5000)
    await consumer.stop()


@pytest.mark.parametrize(
    ("user", "left_out", "words"),
    [
        (
            "hidden",
            "topic:{stem}.",
            ("lacks Read and Describe on topic {stem}.razlog",),
        ),
        (
            "blind",
            "READ",
            ("lacks Read on topic {stem}.ange", "--operation Read --topic"),
        ),
        (
            "alone",
            "group:",
            ("lacks Read on group {stem}-group", "--group {stem}-group"),
        ),
        ("mute", "-alerts", ("lacks Write and Describe on topic {stem}-alerts",)),
    ],
    ids=["topics", "reading", "group", "alert topic"],
)
async def test_a_missing_right_is_named_with_the_command_that_gives_it(
    cluster: KafkaCluster,
    tmp_path: Path,
    user: str,
    left_out: str,
    words: tuple[str, ...],
) -> None:
    town = Town(tmp_path, cluster, user)
    await town.fill()
    rights = town.manual
    if left_out == "READ":
        rights[f"topic:{town.stem}."] = "DESCRIBE"
    else:
        wanted = left_out.format(stem=town.stem)
        rights = {name: given for name, given in rights.items() if wanted not in name}
    await town.allow(rights)

    ran, checked = await asyncio.gather(town.run(), town.check())

    told = [word.format(stem=town.stem) for word in words]
    for said in (ran, checked):
        said.refused(f"user '{user}'", f"--allow-principal User:{user}", *told)
    assert not accounted(tmp_path / "data")


async def test_a_town_without_rights_does_not_stop_the_others(
    cluster: KafkaCluster, tmp_path: Path
) -> None:
    town = Town(tmp_path, cluster, "half")
    await town.fill()
    rights = town.manual
    del rights[f"topic:{town.stem}."]
    await town.allow(
        {
            **rights,
            f"topic:{town.topics[0]}": "READ DESCRIBE",
            f"topic:{town.topics[1]}": "DESCRIBE",
        }
    )

    ran = await town.run()

    ran.refused(f"lacks Read on topic {town.topics[1]}")
    read = [(f"{town.topics[0]}/0", n) for n in range(COUNT)]
    assert accounted(tmp_path / "data") == read


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            "password",
            ("refused user 'wrong'", "check user name, password and mechanism"),
        ),
        ("host", ("the certificate of 127.0.0.1", "use the name that stands in it")),
        ("expired", ("certificate has expired", "renew the broker's certificate")),
        (
            "stranger",
            ("self-signed certificate in certificate chain", "[source] ca_file"),
        ),
        ("system", ("in [source] ca_file",)),
    ],
)
async def test_a_handshake_that_fails_says_what_to_do(
    cluster: KafkaCluster, tmp_path: Path, fault: str, words: tuple[str, ...]
) -> None:
    town = Town(tmp_path, cluster, "wrong")
    right = cluster.connection("wrong")
    security = right.security
    stranger = str(Path(security.ca_file or "").with_name("stranger.pem"))
    by_address = right.bootstrap_servers.replace("localhost", "127.0.0.1")
    wrong = {
        "password": right,
        "host": replace(right, bootstrap_servers=by_address),
        "expired": replace(right, bootstrap_servers=cluster.expired_servers),
        "stranger": replace(right, security=replace(security, ca_file=stranger)),
        "system": replace(right, security=replace(security, ca_file=None)),
    }
    town.write(wrong[fault])
    if fault == "password":
        town.password = "guessed-it"  # noqa: S105 (wrong on purpose)

    ran, checked = await asyncio.gather(town.run(), town.check())

    for said in (ran, checked):
        said.refused(*words)


@pytest.mark.fault(
    "F44",
    how="the broker ends every connection two seconds after its log-in",
    seen="logged in again, every record once",
)
async def test_a_log_in_that_ends_costs_no_record(
    cluster: KafkaCluster, tmp_path: Path
) -> None:
    """F44: aiokafka cannot renew a session (A15), so the broker ends it and we log in again."""
    town = Town(tmp_path, cluster, "short")
    await town.fill()
    await town.allow(town.manual)
    town.write(
        replace(cluster.connection("short"), bootstrap_servers=cluster.short_servers)
    )
    seconds = 5 * SESSION_MS / 1000
    rate = 2 * COUNT / seconds
    text = (tmp_path / "town.toml").read_text()
    text = text.replace("session_timeout", f"max_rate = {rate:.0f}\nsession_timeout")
    (tmp_path / "town.toml").write_text(text)

    ran = await town.run()

    assert ran.code == 0, ran
    summary: dict[str, Any] = json.loads(ran.out)
    assert summary["seconds"] > 2 * SESSION_MS / 1000, summary
    every = [(f"{topic}/0", n) for topic in town.topics for n in range(COUNT)]
    assert accounted(tmp_path / "data") == sorted(every)


# --- what is taken away while the service runs -------------------------------------------


def rig(town: Town, connection: KafkaConnection) -> Rig:
    """The service in this process, committing every 50 rows; it runs until it is stopped."""
    source = KafkaSource(
        options_for(connection, topics=town.topics, group=town.group, records_max=50)
    )
    cities = zip(town.topics, ("razlog", "ange"), strict=True)
    return Rig(
        town.folder / "data",
        source,
        SystemClock(),
        definition=definition(topic_cities=tuple(cities)),
        options=ServiceOptions(tick_us=100_000),
        flush=FlushPolicy(rows_max=50),
    )


def steps(run: Rig, town: Town) -> tuple[int, ...]:
    """Return how far each topic was read."""
    places = [TopicPartition(topic, 0) for topic in town.topics]
    return tuple(run.watch.stepped_to.get(place, 0) for place in places)


async def test_a_topic_that_is_taken_away_leaves_the_others_going(
    cluster: KafkaCluster, tmp_path: Path
) -> None:
    town = Town(tmp_path, cluster, "revoked")
    await town.fill()
    await town.allow(town.manual)
    run = rig(town, cluster.connection("revoked"))
    kept, lost = town.topics

    task = asyncio.create_task(run.service.run())
    await run.watch.until(lambda: steps(run, town) == (COUNT, COUNT))
    await asyncio.to_thread(
        cluster.allow, "revoked", {f"topic:{kept}": "READ DESCRIBE"}
    )
    await asyncio.to_thread(cluster.forbid, "revoked", "topic", f"{town.stem}.")
    await run.watch.until(lambda: run.service.stopped)
    await town.fill()
    await run.watch.until(lambda: steps(run, town)[0] == 2 * COUNT)
    run.service.stop()
    with pytest.raises(Forbidden, match=f"lacks Read and Describe on topic {lost}"):
        await task

    assert list(run.service.stopped) == [TopicPartition(lost, 0)]
    every = [(f"{kept}/0", n) for n in range(2 * COUNT)]
    every += [(f"{lost}/0", n) for n in range(COUNT)]
    assert accounted(tmp_path / "data") == sorted(every)


@pytest.mark.fault(
    "F44",
    how="the password is taken away while the service runs",
    seen="it ends with an error that names user and broker; what was read is committed",
)
async def test_a_password_that_is_taken_away_ends_the_service_and_says_so(
    cluster: KafkaCluster, tmp_path: Path
) -> None:
    town = Town(tmp_path, cluster, "removed")
    await town.fill()
    await town.allow(town.manual)
    ours = replace(
        cluster.connection("removed"), bootstrap_servers=cluster.short_servers
    )
    run = rig(town, ours)

    task = asyncio.create_task(run.service.run())
    await run.watch.until(lambda: steps(run, town) == (COUNT, COUNT))
    await asyncio.to_thread(cluster.remove, "removed")
    async with asyncio.timeout(ENDS_S):
        with pytest.raises(WorldError, match="refused user 'removed'"):
            await task

    every = [(f"{topic}/0", n) for topic in town.topics for n in range(COUNT)]
    assert accounted(tmp_path / "data") == sorted(every)


async def test_a_group_that_is_taken_away_ends_the_service_and_says_so(
    cluster: KafkaCluster, tmp_path: Path
) -> None:
    town = Town(tmp_path, cluster, "expelled")
    await town.fill()
    await town.allow(town.manual)
    run = rig(town, cluster.connection("expelled"))

    task = asyncio.create_task(run.service.run())
    await run.watch.until(lambda: steps(run, town) == (COUNT, COUNT))
    await asyncio.to_thread(cluster.forbid, "expelled", "group")
    async with asyncio.timeout(ENDS_S):
        with pytest.raises(WorldError, match=r"lacks .*Read on group"):
            await task
