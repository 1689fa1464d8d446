"""How long an alert takes: from the reading's append to the alert in its topic.

    python -m bench.latency --rates 1000,10000,50000 --seconds 60

A real broker, the service as a child that follows its topic, and an open-loop generator:
`bench.load`, above 100,000 a second `bench.bulk`, which sends what is due within 5 ms as one
batch. Readings are due at fixed moments, and those moments are their timestamps. Each so many-th reading fires the one rule. The alert's moment is the broker's LogAppendTime in
the alert topic, so nothing depends on how fast this program reads it afterwards. Latency =
that moment - the moment when the reading was due; it contains the generator's own delay,
which is shown as `behind`, and is exact to a millisecond. A reading whose alert never came
counts as infinitely late, so nothing slow can drop out. Readings due in the warm-up are
not looked at.
"""

import argparse
import asyncio
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from bench import configs
from bench.configs import Job
from bench.live import LiveService, free_port
from bench.load import Stream, fires_every, write
from bench.machine import facts
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_produce import KafkaProduce
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.testing.kafka_broker import ApacheKafka

CITY = "razlog"
QUANTILES = (0.5, 0.99, 0.999, 1.0)
START_IN_US = 2_000_000
BULK_FROM = 100_000
BULK_LINGER_MS = 5.0
READ_S = 1.0
SETTLE_S = 15.0


@dataclass(frozen=True, slots=True)
class Result:
    """One rate. `latency_ms` has a value per quantile; null where alerts are missing."""

    rate: float
    seconds: float
    expected: int
    missing: int
    latency_ms: dict[str, float | None]
    behind_ms: float
    cpu_share: float
    rss_max_bytes: int


def percentiles(
    latencies: Iterable[float], expected: int, quantiles: Sequence[float]
) -> list[float]:
    """Return nearest-rank quantiles over all that were expected; missing ones are infinite."""
    found = sorted(latencies)
    assert len(found) <= expected, (len(found), expected)
    found += [math.inf] * (expected - len(found))
    return [found[max(math.ceil(q * expected), 1) - 1] for q in quantiles]


def latencies(
    due_ms: set[tuple[str, int]], alerts: Iterable[tuple[str, int, int]]
) -> list[float]:
    """Return alert moment - due moment of those that were due, each once, the first time.

    `alerts` are (device, event time in ms, moment in ms).
    """
    first: dict[tuple[str, int], int] = {}
    for device, event_ms, moment_ms in alerts:
        key = (device, event_ms)
        if key in due_ms:
            first[key] = min(moment_ms, first.get(key, moment_ms))
    return [moment_ms - event_ms for (_, event_ms), moment_ms in first.items()]


def due(stream: Stream, warm_up_s: float) -> set[tuple[str, int]]:
    """Return device and due moment of every reading that fires after the warm-up."""
    numbers = np.arange(0, stream.total, stream.every)
    due_us = stream.due_us(numbers)
    numbers = numbers[due_us >= stream.start_us + warm_up_s * 1e6]
    event_ms = stream.event_ms(numbers).tolist()
    devices = (numbers % stream.devices).tolist()
    return {
        (f"razlog-{device:07d}", moment)
        for device, moment in zip(devices, event_ms, strict=True)
    }


class Bench:
    """A broker, and a run a rate."""

    def __init__(self, broker: ApacheKafka, folder: Path, given: argparse.Namespace):
        self._broker = broker
        self._folder = folder
        self._given = given

    def measure(self, rate: float) -> Result:
        given = self._given
        name, alerts = f"latency-{rate:g}", f"alerts-{rate:g}"
        topic = f"{name}.{CITY}"
        asyncio.run(_create(self._broker.connection, topic, given.partitions, alerts))
        port = free_port()
        path = self._folder / f"{name}.toml"
        path.write_text(self._config(name, alerts, port))
        with LiveService(path, port) as service:
            service.wait_until_it_owns(given.partitions)
            before = service.metrics()["process_cpu_seconds_total"]
            stream = self._stream(topic, rate)
            generator = "bench.bulk" if rate > BULK_FROM else "bench.load"
            command = write(stream, self._folder / f"{name}.json", generator)
            told = _generate(command)
            after = service.metrics()["process_cpu_seconds_total"]
            expected = due(stream, given.warm_up)
            found = self._alerts(alerts, expected)
            cost = service.stop()
        assert told["failed"] == 0, told
        return Result(
            rate=rate,
            seconds=given.seconds,
            expected=len(expected),
            missing=len(expected) - len(found),
            latency_ms=_named(percentiles(found, len(expected), QUANTILES)),
            behind_ms=told["behind_ms"],
            cpu_share=(after - before) / (given.seconds + given.warm_up),
            rss_max_bytes=cost.rss_max_bytes,
        )

    def _stream(self, topic: str, rate: float) -> Stream:
        given = self._given
        return Stream(
            servers=self._broker.bootstrap_servers,
            topic=topic,
            partitions=given.partitions,
            devices=given.devices,
            rate=rate,
            seconds=given.seconds + given.warm_up,
            start_us=SystemClock().wall_us() + START_IN_US,
            every=fires_every(rate, given.devices),
            linger_ms=BULK_LINGER_MS if rate > BULK_FROM else 1.0,
        )

    def _config(self, name: str, alerts: str, port: int) -> str:
        options = {"metrics.port": str(port), "alerts.topic": f'"{alerts}"'}
        job = Job(
            name=name,
            servers=self._broker.bootstrap_servers,
            topics=f"{name}.{{city}}",
            format="json",
            root=self._folder / name,
            options=options,
        )
        profile = self._given.profile
        return configs.text(
            job.lines()
            + configs.windows(configs.windows_of(profile))
            + configs.rules(configs.ruled(profile))
        )

    def _alerts(self, topic: str, expected: set[tuple[str, int]]) -> list[float]:
        """Read the alert topic until all are there, or nothing more comes for a while."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._broker.bootstrap_servers,
                "group.id": "bench",
                "enable.auto.commit": False,
            }
        )
        consumer.assign([TopicPartition(topic, 0, 0)])
        seen: list[tuple[str, int, int]] = []
        silent_s = 0.0
        while len(latencies(expected, seen)) < len(expected) and silent_s < SETTLE_S:
            messages = consumer.consume(100_000, READ_S)
            silent_s = 0.0 if messages else silent_s + READ_S
            seen += [alert for message in messages for alert in _opened(message)]
        consumer.close()
        return latencies(expected, seen)


def _opened(message: Any) -> list[tuple[str, int, int]]:
    """Return (device, event time, moment) of an alert that opens; nothing of others."""
    assert message.error() is None, message.error()
    alert = json.loads(message.value())
    if alert["transition"] != 0:
        return []
    event = np.datetime64(alert["event_time"].removesuffix("Z"), "ms")
    return [(alert["device"], int(event.astype(np.int64)), message.timestamp()[1])]


async def _create(
    connection: KafkaConnection, topic: str, partitions: int, alerts: str
) -> None:
    async with KafkaProduce(connection) as producer:
        await producer.create_topics([topic], partitions)
        by_broker = {"message.timestamp.type": "LogAppendTime"}
        await producer.create_topics([alerts], 1, by_broker)


def _generate(command: Sequence[str]) -> dict[str, float]:
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 (ours)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _named(values: Sequence[float]) -> dict[str, float | None]:
    names = ["max" if q == 1 else f"p{q * 100:g}" for q in QUANTILES]
    found = zip(names, values, strict=True)
    return {name: None if math.isinf(value) else value for name, value in found}


def table(results: Sequence[Result]) -> str:
    names = list(results[0].latency_ms)
    head = ["rate/s", *(f"{name} ms" for name in names), "alerts", "missing"]
    lines = [[*head, "behind ms", "CPU", "peak MB"]]
    for r in results:
        shown = ["never" if v is None else f"{v:,.0f}" for v in r.latency_ms.values()]
        cells = [f"{r.rate:,.0f}", *shown, f"{r.expected:,}", f"{r.missing:,}"]
        cells += [f"{r.behind_ms:,.0f}", f"{r.cpu_share:.0%}"]
        lines.append([*cells, f"{r.rss_max_bytes / 1e6:.0f}"])
    return "\n".join("".join(f"{cell:>11}" for cell in line) for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="1000,10000,50000", help="readings a second")
    parser.add_argument("--seconds", type=float, default=60, help="after the warm-up")
    parser.add_argument("--warm-up", type=float, default=10, help="seconds")
    parser.add_argument("--devices", "--series", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--profile", choices=("core", "full"), default="core")
    parser.add_argument("--output", type=Path, default=Path(".benchmarks"))
    given = parser.parse_args(arguments)
    machine = facts()
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as name:
        folder = Path(name)
        with ApacheKafka(folder / "kafka") as broker:
            bench = Bench(broker, folder, given)
            results = [bench.measure(float(rate)) for rate in given.rates.split(",")]
    print(table(results))
    given.output.mkdir(exist_ok=True)
    options: Mapping[str, Any] = {k: str(v) for k, v in vars(given).items()}
    document = {
        "order": options,
        "machine": machine,
        "runs": [asdict(r) for r in results],
    }
    path = given.output / f"latency-{given.profile}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written: {path}")
    return 1 if any(result.missing for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
