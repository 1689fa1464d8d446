"""What consuming costs, and nothing else: CPU of a process that fetches and drops records.

    python -m bench.fetch --rows 2000000 --codec lz4 --repeat 3

Against a real Kafka, JSON of 145 bytes in batches of some 3,600. Each path reads the whole
topic in a process of its own; a second run that finds nothing to read is taken off.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from pathlib import Path

from bench.child import run_child
from bench.machine import facts
from bench.preload import Load, preload
from streamproc.connectors import kafka_fetch
from streamproc.connectors.kafka_settings import KafkaConnection, KafkaOptions
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.core.values import TopicPartition
from streamproc.testing.kafka_broker import ApacheKafka

PATHS = ("ordinary", "raw, streams", "raw, arenas")
FETCH_MS = 200


class Drop:
    """Opens whatever is assigned, at the beginning or at the end."""

    def __init__(self) -> None:
        self.owned: frozenset[TopicPartition] = frozenset()

    async def revoked(self, _: frozenset[TopicPartition], /) -> None:
        self.owned = frozenset()

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self.owned = partitions


async def consume(
    servers: str, topic: str, path: str, *, nothing: bool
) -> dict[str, int]:
    """Read the topic to its end; count records and bytes."""
    kafka_fetch.read_a_batch(b"loads the kernels, also where nothing is read")
    if path == "raw, streams":
        vars(kafka_fetch)["why_not_arenas"] = lambda: "not in this run"
    options = KafkaOptions(
        connection=KafkaConnection(bootstrap_servers=servers),
        group=f"bench-{path}-{nothing}",
        topics=(topic,),
        raw=path != "ordinary",
    )
    source, listener = KafkaSource(options), Drop()
    await source.start(listener)
    while not listener.owned:
        await source.fetch(FETCH_MS)
    ends = {tp: (await source.bounds(tp)).end for tp in listener.owned}
    left = {tp for tp, end in ends.items() if end and not nothing}
    for tp in left:
        source.seek(tp, 0)
        source.resume(tp)
    records = size = fetches = 0
    while left:
        for batch in await source.fetch(FETCH_MS):
            records += len(batch)
            size += batch.values.nbytes
            if batch.span.end >= ends[batch.origin]:
                left.discard(batch.origin)
        fetches += 1
    await source.stop()
    return {"records": records, "bytes": size, "fetches": fetches}


def measure(servers: str, topic: str, path: str, rows: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.fetch", "--servers", servers]
    command += ["--topic", topic, "--path", path]
    said, cost = run_child(command)
    assert said["records"] == rows, said
    _, idle = run_child([*command, "--nothing"])
    net_s = cost.cpu_s - idle.cpu_s
    return {
        "ns_per_record": net_s / rows * 1e9,
        "records_per_cpu_s": rows / net_s,
        "wall_s": cost.wall_s - idle.wall_s,
        "rss_max_mb": cost.rss_max_bytes / 1e6,
        "fetches": said["fetches"],
    }


def report(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder, ApacheKafka(Path(folder)) as kafka:
        for codec in arguments.codec:
            topic = f"fetch-{codec}"
            preload(
                kafka.connection,
                Load(topic, arguments.partitions, arguments.rows, 10_000, codec=codec),
            )
            for path in PATHS:
                laps = [
                    measure(kafka.bootstrap_servers, topic, path, arguments.rows)
                    for _ in range(arguments.repeat)
                ]
                found = {
                    key: statistics.median(lap[key] for lap in laps) for key in laps[0]
                }
                least = min(lap["ns_per_record"] for lap in laps)
                print(
                    f"{codec:5} {path:13} {found['ns_per_record']:7.0f} ns a record"
                    f" (least {least:.0f}), {found['records_per_cpu_s'] / 1e6:5.2f} M a"
                    f" CPU-second, wall {found['wall_s']:.2f} s,"
                    f" peak {found['rss_max_mb']:.0f} MB, {found['fetches']:.0f} fetches"
                )
    print(json.dumps(facts()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--codec", nargs="+", default=["none", "lz4"])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--servers", help="for the children")
    parser.add_argument("--topic", help="likewise")
    parser.add_argument("--path", choices=PATHS, help="likewise")
    parser.add_argument("--nothing", action="store_true", help="likewise")
    arguments = parser.parse_args()
    if arguments.servers is None:
        report(arguments)
        return
    coroutine = consume(
        *(arguments.servers, arguments.topic, arguments.path), nothing=arguments.nothing
    )
    print(json.dumps(asyncio.run(coroutine)))


if __name__ == "__main__":
    main()
