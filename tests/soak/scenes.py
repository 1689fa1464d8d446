"""What the workers of a soak are told, and what they are sent."""

import json
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bench import configs
from bench.configs import Job
from bench.load import Stream, write
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_produce import KafkaProduce
from streamproc.core.definition import WindowSpec
from streamproc.testing.kafka_broker import ApacheKafka
from tests.chaos.generator import Generator
from tests.chaos.run import TOPICS
from tests.chaos.setting import ALERTS, PARTITIONS, configuration, local_output
from tests.support.real_data import CHECKOUT

START_IN_US = 5_000_000
PATIENCE_S = 120.0


class Scene(Protocol):
    """Topics, a configuration for a root, and traffic for so long."""

    @property
    def topics(self) -> Sequence[str]:
        """Return the topics whose end the workers have to reach."""

    async def create_topics(self, produce: KafkaProduce) -> None:
        """Create the topics."""

    def configuration(self, broker: ApacheKafka, root: Path) -> str:
        """Return the workers' configuration."""

    def start(self, broker: ApacheKafka, seconds: float) -> None:
        """Begin to send."""

    def stop(self) -> list[str]:
        """Return once nothing more is sent; what went wrong with it."""


class Mixed:
    """What chaos sends: three towns, a call of librdkafka a record."""

    topics = TOPICS

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._generator: Generator | None = None

    async def create_topics(self, produce: KafkaProduce) -> None:
        await produce.create_topics(TOPICS, PARTITIONS)

    def configuration(self, broker: ApacheKafka, root: Path) -> str:
        return configuration(broker.bootstrap_servers, local_output(root))

    def start(self, broker: ApacheKafka, seconds: float) -> None:
        del seconds  # until it is stopped
        self._generator = Generator(
            broker.bootstrap_servers, random.Random(0), self._rate, keeps=False
        )
        self._generator.start()

    def stop(self) -> list[str]:
        generator, self._generator = self._generator, None
        if generator is None:
            return []
        left = generator.stop()
        return [f"{left} records were not acknowledged"] if left else []


def windows(minutes: Sequence[float]) -> tuple[WindowSpec, ...]:
    """Return windows as the bench's full profile has them, but so long."""
    sizes = [round(one * 60_000_000) for one in minutes]
    return tuple(
        WindowSpec(f"{size // 1_000_000}s", size, size, 30_000_000, (0.5, 0.95))
        for size in sizes
    )


class Bulk:
    """Rules of the bench's full profile, and readings that `bench.bulk` sends in whole batches.

    That profile's windows are of a minute, 15 minutes and an hour; an hour closes once while we look.
    """

    topics = ("soak.razlog",)
    PARTITIONS = 4
    KEPT = 512 << 20
    """Bytes a partition keeps: more than a minute, so that a disk is enough for hours."""

    def __init__(
        self, rate: float, devices: int, minutes: Sequence[float], folder: Path
    ) -> None:
        self._rate = rate
        self._devices = devices
        self._windows = windows(minutes)
        self._folder = folder
        self._sender: subprocess.Popen[bytes] | None = None

    async def create_topics(self, produce: KafkaProduce) -> None:
        kept = {"retention.bytes": f"{self.KEPT}", "segment.bytes": f"{self.KEPT // 8}"}
        await produce.create_topics(self.topics, self.PARTITIONS, kept)

    def configuration(self, broker: ApacheKafka, root: Path) -> str:
        job = Job(
            name="soak",
            servers=broker.bootstrap_servers,
            topics="soak.{city}",
            format="json",
            root=root,
            options={"metrics.enabled": "false", "alerts.topic": f'"{ALERTS}"'},
        )
        return configs.text(
            job.lines()
            + configs.windows(self._windows)
            + configs.rules(configs.ruled("full"))
        )

    def start(self, broker: ApacheKafka, seconds: float) -> None:
        stream = Stream(
            servers=broker.bootstrap_servers,
            topic=self.topics[0],
            partitions=self.PARTITIONS,
            devices=self._devices,
            rate=self._rate,
            seconds=seconds,
            start_us=SystemClock().wall_us() + START_IN_US,
            every=1_000_003,
            linger_ms=50.0,
        )
        command = write(stream, self._folder / "stream.json", "bench.bulk")
        self._sender = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE)

    def stop(self) -> list[str]:
        sender, self._sender = self._sender, None
        if sender is None:
            return []
        try:
            said, _ = sender.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            sender.kill()
            sender.communicate()
            return ["the generator did not come to its end"]
        if sender.returncode:
            return [f"the generator ended with {sender.returncode}"]
        told = json.loads(said.splitlines()[-1])
        (self._folder / "sent.json").write_text(json.dumps(told) + "\n")
        failed = told["failed"]
        return [f"{failed} batches were not acknowledged"] if failed else []
