"""The systems that are compared: how each is set up, started and counted."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.peers.installs import CHECKOUT, HERE, classpath_of, java, python_of
from bench.peers.workload import Job, Workload

MARKER = '"first": true'
JAVA_FLAGS = ("-Xms1g", "-Xmx2g", "-XX:+UseSerialGC")
"""Heap enough, and of the three collectors tried the one that spends the least CPU."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A system that is not streamproc. `files` are those of its program, for each job."""

    name: str
    title: str
    setup: str
    kind: Literal["python", "java"]
    files: Mapping[Job, Sequence[str]]
    records_max: int | None = None
    env: Mapping[str, str] | None = None

    def command(self, work: Workload, servers: str) -> list[str]:
        """Return what to start; makes the environment if there is none.

        Raises:
            CannotInstallError: the peer is not to be had here.
        """
        words = [servers, work.topic, str(work.sent)]
        if self.kind == "python":
            module = f"bench.peers.{self.name}.{work.job}"
            return [str(python_of(self.name)), "-m", module, *words]
        main = work.job.capitalize()
        return [java(), *JAVA_FLAGS, "-cp", classpath_of(self.name), main, *words]

    def lines(self, job: Job) -> int:
        return sum(lines_of_code(HERE / name) for name in self.files[job])


def _python(folder: str, *shared: str) -> Mapping[Job, Sequence[str]]:
    jobs: tuple[Job, ...] = ("city", "uc2")
    return {
        job: [f"{folder}/{job}.py", *(name.format(job=job) for name in shared)]
        for job in jobs
    }


_POLARS = ("polars_windows.py", "polars_{job}.py")
_ONE_THREAD = {"POLARS_MAX_THREADS": "1"}

PEERS = (
    Peer(
        "confluent_polars",
        "confluent-kafka + polars",
        "by hand; librdkafka's queues enlarged; one polars thread",
        "python",
        _python("confluent_polars", "confluent_polars/consume.py", *_POLARS),
        env=_ONE_THREAD,
    ),
    Peer(
        "aiokafka_polars",
        "aiokafka + polars",
        "by hand; getmany; one polars thread",
        "python",
        _python("aiokafka_polars", "aiokafka_polars/consume.py", *_POLARS),
        env=_ONE_THREAD,
    ),
    Peer(
        "flink",
        "Apache Flink",
        "parallelism 1, heap state, object reuse, no checkpoints",
        "java",
        {
            "city": [
                *("flink/City.java", "flink/Pipeline.java", "flink/Reading.java"),
                *("java/CityReading.java", "java/Stats.java"),
            ],
            "uc2": [
                *("flink/Uc2.java", "flink/Pipeline.java", "flink/Reading.java"),
                *("java/PowerRecord.java", "java/Stats.java"),
            ],
        },
    ),
    Peer(
        "kafka_streams",
        "Kafka Streams",
        "one thread, windows in memory, no changelog",
        "java",
        {
            "city": [
                *("kafka_streams/City.java", "kafka_streams/Application.java"),
                *("java/CityReading.java", "java/Stats.java"),
            ],
            "uc2": [
                *("kafka_streams/Uc2.java", "kafka_streams/Application.java"),
                *("java/PowerRecord.java", "java/Stats.java"),
            ],
        },
    ),
    Peer(
        "quix",
        "Quix Streams",
        "RocksDB (there is no other), no changelog, closing by partition",
        "python",
        _python("quix", "quix/application.py"),
        records_max=800_000,
    ),
    Peer(
        "bytewax",
        "Bytewax",
        "one worker, fold not ordered, no recovery",
        "python",
        _python("bytewax", "bytewax/flow.py"),
        records_max=800_000,
    ),
    Peer(
        "pathway",
        "Pathway",
        "static read, no temporal behaviour",
        "python",
        _python("pathway", "pathway/pipeline.py"),
        records_max=800_000,
    ),
    Peer(
        "faust",
        "Faust",
        "table in memory; lateness and closing by hand",
        "python",
        _python("faust", "faust/worker.py"),
        records_max=40_000,
    ),
)

BASELINES = ("confluent_polars", "flink")
"""What ratios are to."""

ENV = {"PYTHONPATH": str(CHECKOUT)}


def lines_of_code(path: Path) -> int:
    """Return the lines that are not blank, comment or documentation."""
    text = path.read_text()
    return python_lines(text) if path.suffix == ".py" else java_lines(text)


def python_lines(text: str) -> int:
    """Count by the tree: docstrings and bare strings are documentation."""
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            documentation.update(range(node.lineno, (node.end_lineno or 0) + 1))
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#")
        for number, line in enumerate(text.splitlines(), 1)
        if number not in documentation
    )


def java_lines(text: str) -> int:
    """Count what is left without comments; there are no strings with comments in them."""
    bare = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    return sum(bool(line.strip()) for line in bare.splitlines())
