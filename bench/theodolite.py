"""Theodolite's UC1 and UC2, and its demand metric, for one core of streamproc.

    python -m bench.theodolite uc2 --loads 10000,50000,100000,200000 --one-core
    python -m bench.theodolite uc1 --loads 100000 --one-core --paper
    python -m bench.theodolite uc2 --search 100000 --one-core --warm-up 5 --seconds 10

Re-implemented from Henning and Hasselbring, "Benchmarking scalability of stream processing
frameworks deployed as microservices in the cloud" (JSS 2024, arXiv 2303.11088) and the
benchmark's definitions (github.com/cau-se/theodolite); none of its code is used. NUM_SENSORS
sensors send one power record a second each, Avro with a schema registry, key = identifier.
UC1 stores each record. UC2 keeps count, sum, minimum, maximum, mean and population variance
per sensor in tumbling windows of a minute of event time. A load is *sustained* if a line
fitted to the consumer's lag after the warm-up rises by at most 2,000 records a second; demand
turned around: the most sensors that one instance, one core, sustains.

What differs from the original:

- UC1 there hands each record to a stand-in for a database. Here it is stored: Parquet,
  fsynced, committed. UC2 there sends each aggregate to a topic `output`; streamproc publishes
  aggregates as files and has no such topic, so they go to Parquet, *and so does every reading*,
  which cannot be turned off: our UC2 contains our UC1. Our UC1 also folds a window of a day, which never closes: a
  configuration must have a window.
- The record has a fourth field, `property`, always `power`: streamproc needs one. Identifiers
  have a fixed width (`s_0000042`), so that records can be patched and not encoded anew.
- The generator sends whole record batches made before (`bench.bulk`), one a partition and 20 ms;
  there, a producer batches records one by one. What is in them is the same, CreateTime to the
  millisecond included.
- Values are uniform noise, always the same of one sensor; there all send one constant. Sensors are spread evenly over
  the second, by number; there each has a timer with a random first delay.
- Event time is set by the generator (there, too) and shifted by less than a minute, so that
  a minute's windows close in the middle of a measurement that is shorter than a minute.
- Lag is end offsets minus records *folded*, from the service's metrics, once a second. There it
  is end offsets minus the group's offsets. Ours are committed with files (`--commit`, 5 s; theirs
  100 ms for Kafka Streams), so their sawtooth would be part of the slope.
- Windows of a minute close 5 s of event time after their end; what is later would be counted as
  late. Theirs differ by framework.
- One broker, replication 1, `--partitions` 4 (there 100; three brokers), and all of it on one
  machine: with `--one-core` the service has the last processor for itself, generator and
  broker the others. There an instance is a Kubernetes pod of one CPU and 4 GiB; memory is
  not bounded here but shown.
- Warm-up 15 s and 30 s of measurement, where `--paper` takes 60 s of 300 s; one repetition.
- Loads are tried in order up to the first that is not sustained. `--search` doubles from a
  first load up to that one and then halves the interval until it is within a tenth; there, the
  loads are a list, too.
- The generator is open-loop. A load that it or the broker did not take in time is no result:
  `invalid`; a search then takes it for too much.

Afterwards every record must be in `readings/` once, and for UC2 each minute that must have
closed must count all its readings.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from confluent_kafka import Consumer, TopicPartition

from bench import configs
from bench.child import Cost
from bench.configs import Job
from bench.live import LiveService, free_port, pin
from bench.load import Stream, write
from bench.machine import facts
from bench.peers.contract import UC2_SCHEMA
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_produce import KafkaProduce
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.testing.kafka_broker import ApacheKafka
from streamproc.testing.registry import LocalRegistry

CITY = "razlog"
MINUTE_MS = 60_000
LATENESS_MS = 5_000
SLOPE_MAX = 2_000.0
"""Theodolite's `lag trend` threshold, records a second."""

BEHIND_MAX_MS = 1_000.0
ACKED_MAX_MS = 5_000.0
"""Beyond it the broker is what does not keep up, and what it has not got is not in the lag."""

SECONDS_MIN = LATENESS_MS // 1000 + 4
SEARCH_WITHIN = 0.1
START_IN_US = 3_000_000
START_PER_SENSOR_US = 2
"""What it takes to make the first batches."""

EVERY_S = 1.0
CATCH_UP_S = 60.0
LINGER_MS = 20.0


@dataclass(frozen=True, slots=True)
class Result:
    """One load. `verdict` is sustained, not sustained or invalid.

    `cpu_share` is of the measurement, user and system, of one core; `generator_cpu_s` is of
    the generator's whole life.
    """

    sensors: int
    verdict: str
    slope: float
    lag_first: int
    lag_last: int
    lag_max: int
    cpu_share: float
    records_per_cpu_s: float
    generator_cpu_s: float
    behind_ms: float
    acked_ms: float
    rss_max_bytes: int


@dataclass(frozen=True, slots=True)
class Sample:
    """How things stood at a moment: seconds since the first record was due."""

    at_s: float
    folded: int
    lag: int
    cpu_s: float


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Return the least-squares slope of (x, y)."""
    assert len(samples) > 1, "two points make a line"
    x, y = np.array(samples, float).T
    x = x - x.mean()
    return float((x * (y - y.mean())).sum() / (x * x).sum())


def verdict_of(rise: float, told: Mapping[str, float]) -> str:
    """Judge a slope; `told` is what the generator says."""
    late = told["behind_ms"] > BEHIND_MAX_MS or told["acked_ms"] > ACKED_MAX_MS
    if told["failed"] or late:
        return "invalid"
    return "sustained" if rise <= SLOPE_MAX else "not sustained"


def most(results: Sequence[Result]) -> int:
    """Return the most sensors that were sustained, 0 for none."""
    return max((r.sensors for r in results if r.verdict == "sustained"), default=0)


def tried(loads: Sequence[int], measure: Callable[[int], Result]) -> list[Result]:
    """Measure loads in order up to the first that is not sustained."""
    results: list[Result] = []
    for load in sorted(loads):
        results.append(measure(load))
        if results[-1].verdict != "sustained":
            break
    return results


def searched(first: int, measure: Callable[[int], Result]) -> list[Result]:
    """Measure the double each time, then between the last two until they are near."""
    assert first > 0
    results = [measure(first)]
    low, high = 0, first
    while results[-1].verdict == "sustained":
        low, high = high, 2 * high
        results.append(measure(high))
    while high - low > SEARCH_WITHIN * high:
        middle = (low + high) // 2
        results.append(measure(middle))
        if results[-1].verdict == "sustained":
            low = middle
        else:
            high = middle
    return results


def closes_at_s(warm_up_s: float, measure_s: float) -> float:
    """Return when a minute shall close: in the middle of the measurement, if it can be.

    There must be readings in that minute, and a little time behind it.
    """
    middle_s, end_s = warm_up_s + measure_s / 2, warm_up_s + measure_s
    return min(max(middle_s, LATENESS_MS / 1e3 + 1), end_s - 2)


def event_shift_us(start_us: int, middle_s: float) -> int:
    """Return a shift of -1 min to 0 with which a minute closes `middle_s` after the start."""
    closes_us = start_us + round(middle_s * 1e6) - LATENESS_MS * 1000
    return -(closes_us % (MINUTE_MS * 1000))


class Bench:
    """A broker and a registry, and a run a load."""

    def __init__(
        self,
        broker: ApacheKafka,
        registry: LocalRegistry,
        folder: Path,
        given: argparse.Namespace,
    ) -> None:
        self._broker = broker
        self._folder = folder
        self._given = given
        self._registry = registry
        self._schema_id = registry.register("input-value", "avro", UC2_SCHEMA)
        self._core: int | None = None
        if given.one_core:
            cores = sorted(os.sched_getaffinity(0))
            assert len(cores) > 1, "--one-core needs another one for everything else"
            self._core = cores[-1]
            os.sched_setaffinity(0, set(cores[:-1]))  # the generator inherits it
            pin(broker.pid, set(cores[:-1]))

    def measure(self, sensors: int) -> Result:
        given, name = self._given, f"{self._given.case}-{sensors}"
        topic = f"{name}.{CITY}"
        asyncio.run(_create(self._broker.connection, topic, given.partitions))
        port = free_port()
        path = self._folder / f"{name}.toml"
        path.write_text(self._config(name, port))
        with LiveService(path, port, self._core) as service:
            service.wait_until_it_owns(given.partitions)
            stream = self._stream(topic, sensors)
            command = write(stream, self._folder / f"{name}.json", "bench.bulk")
            with subprocess.Popen(command, stdout=subprocess.PIPE) as generator:  # noqa: S603 (ours)
                watch = _Watch(self._broker.bootstrap_servers, stream, service)
                samples = watch.until(stream.seconds)
                told = json.loads(generator.communicate()[0])
                caught_up = watch.caught_up(stream.total)
            cost = service.stop()
        if caught_up and not told["failed"]:
            check(self._folder / name, stream, windows=given.case == "uc2")
        return self._result(sensors, samples, told, cost)

    def _result(
        self, sensors: int, samples: list[Sample], told: dict[str, float], cost: Cost
    ) -> Result:
        measured = [s for s in samples if s.at_s >= self._given.warm_up]
        first, last = measured[0], measured[-1]
        rise = slope([(sample.at_s, sample.lag) for sample in measured])
        cpu_s = last.cpu_s - first.cpu_s
        return Result(
            sensors=sensors,
            verdict=verdict_of(rise, told),
            slope=rise,
            lag_first=first.lag,
            lag_last=last.lag,
            lag_max=max(sample.lag for sample in measured),
            cpu_share=cpu_s / (last.at_s - first.at_s),
            records_per_cpu_s=(last.folded - first.folded) / cpu_s,
            generator_cpu_s=told["cpu_s"],
            behind_ms=told["behind_ms"],
            acked_ms=told["acked_ms"],
            rss_max_bytes=cost.rss_max_bytes,
        )

    def _stream(self, topic: str, sensors: int) -> Stream:
        given = self._given
        start_in_us = START_IN_US + START_PER_SENSOR_US * sensors
        start_us = SystemClock().wall_us() + start_in_us
        middle_s = closes_at_s(given.warm_up, given.measure)
        return Stream(
            servers=self._broker.bootstrap_servers,
            topic=topic,
            partitions=given.partitions,
            devices=sensors,
            rate=sensors,
            seconds=given.warm_up + given.measure,
            start_us=start_us,
            event_shift_us=event_shift_us(start_us, middle_s),
            schema_id=self._schema_id,
            linger_ms=LINGER_MS,
            compression=given.compression,
        )

    def _config(self, name: str, port: int) -> str:
        options = {
            "metrics.port": str(port),
            "output.flush_age": f'"{self._given.commit}"',
            "avro": '{ device = "identifier", time = "timestamp", value = "valueInW" }',
            "properties": '[{ property = "power", unit = "W" }]',
        }
        job = Job(
            name=name,
            servers=self._broker.bootstrap_servers,
            topics=f"{name}.{{city}}",
            format="avro",
            root=self._folder / name,
            registry=self._registry.url,
            options=options,
        )
        lines = job.lines()
        every = "1m" if self._given.case == "uc2" else "1d"
        lines += ["[[windows]]", f'name = "{every}"', f'every = "{every}"']
        lines.append(f'lateness = "{LATENESS_MS // 1000}s"')
        return configs.text(lines)


class _Watch:
    """Looks at the lag of a service once a second."""

    def __init__(self, servers: str, stream: Stream, service: LiveService) -> None:
        self._service = service
        self._stream = stream
        self._clock = SystemClock()
        self._consumer = Consumer({"bootstrap.servers": servers, "group.id": "bench"})

    def until(self, seconds: float) -> list[Sample]:
        """Return samples from the first second to the last."""
        samples: list[Sample] = []
        for second in range(1, int(seconds / EVERY_S) + 1):
            time.sleep(max(0.0, second * EVERY_S - self._now_s()))
            samples.append(self._sample())
        return samples

    def caught_up(self, total: int) -> bool:
        """Wait until everything is folded; False where that takes too long."""
        until = self._now_s() + CATCH_UP_S
        while (done := self._folded()[0] >= total) is False and self._now_s() < until:
            time.sleep(EVERY_S)
        self._consumer.close()
        return done

    def _now_s(self) -> float:
        return (self._clock.wall_us() - self._stream.start_us) / 1e6

    def _sample(self) -> Sample:
        folded, cpu_s = self._folded()  # first, or the lag could be negative
        ends = 0
        for partition in range(self._stream.partitions):
            place = TopicPartition(self._stream.topic, partition)
            _, end = self._consumer.get_watermark_offsets(place, timeout=30)
            ends += end
        return Sample(self._now_s(), folded, ends - folded, cpu_s)

    def _folded(self) -> tuple[int, float]:
        page = self._service.metrics()
        records = int(page.get("streamproc_records_total", 0))
        return records, page["process_cpu_seconds_total"]


def check(root: Path, stream: Stream, *, windows: bool) -> None:
    """Raise `AssertionError` unless all was stored once and counted in its minute."""
    readings = duckdb.read_parquet(f"{root}/readings/**/*.parquet")
    place = '(source, "offset", ordinal)'
    ((rows, places),) = readings.aggregate(
        f"count(*), count(DISTINCT {place})"
    ).fetchall()
    assert (rows, places) == (stream.total, stream.total), (rows, places)
    if not windows:
        return
    event_ms = stream.event_ms(np.arange(stream.total))
    minutes, sent = np.unique(event_ms // MINUTE_MS * MINUTE_MS, return_counts=True)
    aggregates = duckdb.read_parquet(f"{root}/aggregates/**/*.parquet")
    counted: dict[Any, Any] = dict(
        aggregates.aggregate('epoch_ms("start"), sum("count")', "start").fetchall()
    )
    # Every sensor, so every partition, has gone past the end one second later.
    closed = minutes + MINUTE_MS + LATENESS_MS + 1_000 <= event_ms[-1]
    assert closed.any(), "the stream closes no minute"
    for minute, count in zip(minutes[closed], sent[closed], strict=True):
        assert counted.get(int(minute)) == count, (minute, count, counted)


async def _create(connection: KafkaConnection, topic: str, partitions: int) -> None:
    async with KafkaProduce(connection) as producer:
        await producer.create_topics([topic], partitions)


def table(results: Sequence[Result]) -> str:
    names = ("sensors", "slope/s", "lag first", "last", "max", "CPU", "per CPU s")
    lines = [[*names, "behind ms", "acked ms", "peak MB", "verdict"]]
    for r in results:
        numbers = (r.sensors, r.slope, r.lag_first, r.lag_last, r.lag_max)
        cells = [f"{number:,.0f}" for number in numbers]
        cells += [f"{r.cpu_share:.0%}", f"{r.records_per_cpu_s:,.0f}"]
        cells += [f"{r.behind_ms:,.0f}", f"{r.acked_ms:,.0f}"]
        cells += [f"{r.rss_max_bytes / 1e6:.0f}", r.verdict]
        lines.append(cells)
    return "\n".join(
        "".join(f"{cell:>11}" for cell in line[:-1]) + f"  {line[-1]}" for line in lines
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=("uc1", "uc2"))
    parser.add_argument("--loads", default="10000,50000,100000", help="sensors")
    parser.add_argument(
        "--search", type=int, metavar="SENSORS", help="find the most, from so many on"
    )
    parser.add_argument("--warm-up", type=float, default=15, help="seconds")
    parser.add_argument(
        *("--seconds", "--measure"),
        dest="measure",
        type=float,
        default=30,
        help="measured after it",
    )
    parser.add_argument(
        "--paper", action="store_true", help="warm up 60 s, measure 240 s"
    )
    parser.add_argument("--one-core", action="store_true", help="pin the service")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--commit", default="5s", help="[output] flush_age")
    parser.add_argument("--compression", choices=("lz4", "none", "zstd"), default="lz4")
    parser.add_argument("--output", type=Path, default=Path(".benchmarks"))
    given = parser.parse_args(arguments)
    if given.paper:
        given.warm_up, given.measure = 60.0, 240.0
    if given.warm_up + given.measure < SECONDS_MIN:
        parser.error(f"no minute can close: {SECONDS_MIN} s at least with the warm-up")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    given = parsed(arguments)
    machine = facts()
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as name:
        folder = Path(name)
        with ApacheKafka(folder / "kafka") as broker, LocalRegistry() as registry:
            bench = Bench(broker, registry, folder, given)

            def measure(sensors: int) -> Result:
                result = bench.measure(sensors)
                print(table([result]), flush=True)
                return result

            loads = [int(load) for load in given.loads.split(",")]
            results = (
                searched(given.search, measure)
                if given.search
                else tried(loads, measure)
            )
    print(f"\n{given.case}\n{table(results)}")
    where = "one core" if given.one_core else "the service, not pinned"
    print(f"most sensors sustained by {where}: {most(results):,}")
    given.output.mkdir(exist_ok=True)
    document = {
        "order": {key: str(value) for key, value in vars(given).items()},
        "machine": machine,
        "runs": [asdict(result) for result in results],
        "most_sensors": most(results),
    }
    path = given.output / f"theodolite-{given.case}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
