"""What a commit costs on a folder and in a bucket: time, CPU, requests, bytes a reading.

    python -m bench.commit_cost --rows 100000 --cities 7 --commits 50

Each commit is the whole of it: files encoded and staged, the record created, the files
published, staging deleted, as `PartitionLog` and `ParquetWriter` do it. The bucket is a real
versitygw on loopback; `--far MS` delays each of its answers, as a service elsewhere would.
Bytes written are what went to the store: files, records and hints (a copy is the server's).
"""

import argparse
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import quantiles

from bench import workloads as w
from bench.machine import facts
from bench.test_stages import emitted, make_writer
from streamproc.app.storing import real_time
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.local_store import LocalStore
from streamproc.connectors.object_store import ObjectStore
from streamproc.core.chain import Draft, Genesis, LogIdentity
from streamproc.core.definition import STATE_VERSION
from streamproc.core.record import encode_record, log_folder
from streamproc.core.values import Emission, OffsetSpan
from streamproc.runtime.partition_log import PartitionLog
from streamproc.testing.s3_front import Asked, FaultFront
from streamproc.testing.s3_server import S3Server, at_endpoint

WARM = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one commit. Seconds of wall are quantiles; the rest are means.

    `cpu_ms` is this process', all threads; `requests` are a bucket's.
    """

    store: str
    commits: int
    rows: int
    files: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    requests: float
    bytes_per_reading: float


def measure(
    name: str, store: LocalStore | ObjectStore, held: Sequence[Emission], commits: int
) -> Cost:
    """Commit the same emissions over and over; say what one commit costs."""
    log = _opened(store)
    rows = sum(emission.readings.num_rows for emission in held)
    walls, sizes, files, cpu_s, requests = [], 0, 0, 0.0, 0
    for lap in range(WARM + commits):
        writer = make_writer()
        for emission in held:
            writer.append(emission)
        asked = _requests(store)
        began, began_cpu = time.perf_counter(), time.process_time()
        start = log.head.next
        span = OffsetSpan(start, start + rows)
        staged = writer.write(store, log.staging(), log.stem(span), span)
        record = log.commit(Draft("commit", span.end, staged))
        log.publish()
        log.clean()
        store.settle()
        if lap < WARM:
            continue
        walls.append(time.perf_counter() - began)
        cpu_s += time.process_time() - began_cpu
        requests += _requests(store) - asked
        files += len(staged)
        sizes += sum(file.size for file in staged) + len(encode_record(record))
    cuts = quantiles(walls, n=100, method="inclusive")
    return Cost(
        store=name,
        commits=commits,
        rows=rows,
        files=files / commits,
        p50_ms=cuts[49] * 1e3,
        p99_ms=cuts[98] * 1e3,
        cpu_ms=cpu_s / commits * 1e3,
        requests=requests / commits,
        bytes_per_reading=sizes / commits / rows,
    )


def _requests(store: LocalStore | ObjectStore) -> int:
    return store.client.requests if isinstance(store, ObjectStore) else 0


def _opened(store: LocalStore | ObjectStore) -> PartitionLog:
    store.self_test()
    identity = LogIdentity("bench", w.TOPIC, "id", 0, "me", "bench", STATE_VERSION)
    numbers = itertools.count()
    folder = log_folder("bench", w.TOPIC, "id", 0)
    log = PartitionLog(store, folder, identity, lambda: f"{next(numbers):08d}")
    log.open(w.definition("core"), lambda: Genesis(0, "start = earliest"))
    return log


@contextmanager
def buckets(folder: Path, far_s: float) -> Iterator[Iterator[ObjectStore]]:
    """Yield stores in fresh prefixes of one server, the answers of which take `far_s`."""

    def late(_: Asked) -> None:
        time.sleep(far_s)

    with S3Server(folder) as server, FaultFront(server.endpoint) as front:
        front.judge = late

        def opened() -> Iterator[ObjectStore]:
            for number in itertools.count():
                options = server.options("bench", f"lap-{number}")
                if far_s:
                    options = at_endpoint(options, front.endpoint)
                yield ObjectStore(
                    replace(options, patience_s=60.0), real_time(SystemClock())
                )

        yield opened()


def costs(given: argparse.Namespace, folder: Path) -> Iterator[Cost]:
    """Yield the cost on a folder, then in a bucket, for each number of cities."""
    with buckets(folder / "s3", given.far / 1e3) as made:
        for cities in given.cities:
            held = emitted(given.rows, cities)
            root = folder / "local"
            local = LocalStore(root)
            yield measure(f"local, {cities} cities", local, held, given.commits)
            local.close()
            shutil.rmtree(root)
            bucket = next(made)
            yield measure(f"s3, {cities} cities", bucket, held, given.commits)
            bucket.close()


def table(found: Sequence[Cost]) -> str:
    """Return one line a store."""
    head = (
        f"{'store':18}{'rows':>9}{'files':>7}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}"
        f"{'requests':>10}{'B/reading':>11}"
    )
    lines = [
        f"{c.store:18}{c.rows:9,}{c.files:7.0f}{c.p50_ms:9.1f}{c.p99_ms:9.1f}"
        f"{c.cpu_ms:9.1f}{c.requests:10.1f}{c.bytes_per_reading:11.2f}"
        for c in found
    ]
    return "\n".join([head, *lines])


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="readings a commit")
    parser.add_argument("--cities", type=int, nargs="+", default=[1, 7])
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--far", type=float, default=0, help="ms each answer is late")
    parser.add_argument("--output", type=Path, default=Path(".benchmarks"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    given = parsed(arguments)
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as name:
        found = list(costs(given, Path(name)))
    print(table(found))
    given.output.mkdir(exist_ok=True)
    document = {
        "machine": facts(),
        "far_ms": given.far,
        "costs": list(map(asdict, found)),
    }
    path = given.output / "commit-cost.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
