"""What a flood from one city costs the others: p99 from a record's timestamp to its being folded.

    python -m bench.fairness --rate 200 --flood 50 --backlog 3000000 --seconds 20

A real broker, a topic per city, one member (`bench.member`), and records of each city at an even
rate (`bench.trickle`, which stamps them with the moment of sending). First that alone. Then the
same, while one city more floods: `--flood` times the rate of the others, and besides a `--backlog`
that lies in its topic before the member starts, as after an outage, so that the process is busy to
its limit for as long as it lasts. The others' p99 may double at most.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import configs
from bench.configs import Job
from bench.machine import facts
from bench.preload import Load, preload
from bench.rebalance import Member, wait_until
from streamproc.testing.kafka_broker import ApacheKafka

GREEDY = "flood"
WARM_UP = "warm"
FACTOR = 2.0


@dataclass(frozen=True, slots=True)
class Result:
    """Delays of the quiet cities in ms; of the greedy one how much was folded."""

    flooded: bool
    records: int
    p50_ms: int
    p99_ms: int
    worst_ms: int
    flood_records: int


def percentile(found: Counter[int], part: float) -> int:
    """Return the nearest-rank quantile of a histogram."""
    rank, seen = max(1, round(part * found.total())), 0
    for value in sorted(found):
        seen += found[value]
        if seen >= rank:
            return value
    return 0


class Bench:
    """A broker, and the two runs."""

    def __init__(self, broker: ApacheKafka, folder: Path, given: argparse.Namespace):
        self._broker = broker
        self._folder = folder
        self._given = given
        self.quiet = tuple(f"town-{number}" for number in range(given.cities))

    def measure(self, lap: int, *, flooded: bool) -> Result:
        given, name = self._given, f"fairness-{lap}-{'flood' if flooded else 'quiet'}"
        cities = (*self.quiet, GREEDY)
        made = Job(
            name=name,
            servers=self._broker.bootstrap_servers,
            topics=f"{name}.{{city}}",
            format="json",
            root=self._folder / f"data-{name}",
            cities=cities,
            options={
                "metrics.enabled": "false",
                "source.topics_refresh": '"1s"',
                "processing.future_max": '"366d"',
            },
        )
        config = self._folder / f"{name}.toml"
        lines = made.lines() + configs.windows(configs.windows_of("core"))
        config.write_text(configs.text(lines))
        topic = f"{name}.{{city}}"
        self._fill(topic, self.quiet, len(self.quiet) * given.partitions)
        self._fill(topic, (GREEDY,), given.backlog if flooded else given.partitions)
        with Member(config, name) as member:
            wait_until(
                lambda: (
                    len({s[1] for s in member.since(0, "record")})
                    == len(cities) * given.partitions
                ),
                "every partition has a record",
            )
            rates = dict.fromkeys(self.quiet, given.rate)
            if flooded:
                rates[GREEDY] = given.rate * given.flood
            sent = self._trickle(topic, rates)
            member.child.send_signal(signal.SIGTERM)
            wait_until(lambda: member.said[-1][0] == "ended", "the drain")
            (told,) = member.since(0, "delays")
        return self._result(told[1], topic, sent, flooded=flooded)

    def _fill(self, topic: str, cities: tuple[str, ...], rows: int) -> None:
        load = Load(
            topic, self._given.partitions, rows, min(rows, 10_000), cities=cities
        )
        preload(self._broker.connection, load)

    def _trickle(self, topic: str, rates: dict[str, float]) -> int:
        """Send at the rates of the cities, one process a rate; return what the quiet ones sent."""
        sent = 0
        with ExitStack() as stack:
            children = []
            for rate in sorted(set(rates.values())):
                given = {
                    "servers": self._broker.bootstrap_servers,
                    "topics": [topic.format(city=c) for c in rates if rates[c] == rate],
                    "partitions": self._given.partitions,
                    "rate": rate,
                    "seconds": self._given.seconds,
                }
                command = [sys.executable, "-m", "bench.trickle", json.dumps(given)]
                child = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603  (ours)
                children.append(stack.enter_context(child))
            for child in children:
                said = json.loads(child.communicate()[0])
                assert child.returncode == 0, said
                print(said, file=sys.stderr)
                sent = sent or said["sent"]  # the least rate is the quiet cities'
        return sent

    def _result(
        self,
        delays: dict[str, list[list[int]]],
        topic: str,
        sent: int,
        *,
        flooded: bool,
    ) -> Result:
        quiet: Counter[int] = Counter()
        for city in self.quiet:
            quiet.update(dict(map(tuple, delays[topic.format(city=city)])))  # type: ignore[arg-type]
        # What lay there before the member started is no delay of its.
        first = quiet.total() - sent
        for value in sorted(quiet, reverse=True):
            taken = min(first, quiet[value])
            first, quiet[value] = first - taken, quiet[value] - taken
        return Result(
            flooded=flooded,
            records=quiet.total(),
            p50_ms=percentile(quiet, 0.5),
            p99_ms=percentile(quiet, 0.99),
            worst_ms=max(value for value, count in quiet.items() if count),
            flood_records=sum(n for _, n in delays[topic.format(city=GREEDY)]),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cities", type=int, default=6, help="besides the greedy one")
    parser.add_argument("--partitions", type=int, default=2, help="of each topic")
    parser.add_argument(
        "--rate", type=float, default=200, help="records a second and city"
    )
    parser.add_argument("--flood", type=float, default=50, help="times the rate")
    parser.add_argument("--backlog", type=int, default=6_000_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(".benchmarks"))
    given = parser.parse_args(arguments)
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="streamproc-bench-") as name,
        ApacheKafka(Path(name) / "kafka") as broker,
    ):
        bench = Bench(broker, Path(name), given)
        for lap in range(given.repeat):
            for flooded in (False, True):
                results.append(bench.measure(lap, flooded=flooded))
                print(results[-1])
    before = max(r.p99_ms for r in results if not r.flooded)
    during = max(r.p99_ms for r in results if r.flooded)
    print(
        f"p99 of the others: {before} ms, {during} ms with the flood (at most {FACTOR} times)"
    )
    given.output.mkdir(exist_ok=True)
    path = given.output / "fairness.json"
    document = {
        "order": {k: v for k, v in vars(given).items() if k != "output"},
        "machine": facts(),
        "runs": [asdict(result) for result in results],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
