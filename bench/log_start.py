"""How long a start takes to find its place in a log of very many commits, and what it asks.

    python -m bench.log_start --commits 1000000

The log is written by the product's own code into memory, squashed on the way as a service does
it, then copied into a folder and opened there once: in this process, whose first commit has
paid for imports. What a store is asked is what an object store would be asked.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pyarrow as pa

from streamproc.connectors.local_store import LocalStore
from streamproc.core.chain import Draft, Genesis, LogIdentity
from streamproc.core.definition import STATE_VERSION, Definition
from streamproc.core.effects import Content
from streamproc.core.ports import Created, StagedFile, Store, StoredFile
from streamproc.core.record import RecordCounts, log_folder
from streamproc.runtime.partition_log import PartitionLog

FOLDER = log_folder("bench", "telemetry.razlog", "id", 0)
DEFINITION = Definition(job="bench", windows=(), rules=(), properties=(), cities=())
FILES = 5
TABLES = {"state": pa.table({"x": [1]})}


class Memory:
    """`core.ports.Store` in memory; data files are not kept, only the log is of interest."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def create(self, path: str, data: bytes) -> Created:
        """See the port."""
        if path in self.files:
            return Created.EXISTS
        self.files[path] = data
        return Created.CREATED

    def read(self, path: str) -> bytes | None:
        """See the port."""
        return self.files.get(path)

    def list(self, folder: str, after: str = "") -> Sequence[StoredFile]:
        """See the port."""
        found = [p for p in self.files if p.startswith(f"{folder}/") and p > after]
        return [StoredFile(path, len(self.files[path])) for path in sorted(found)]

    def stage(self, path: str, content: Content) -> int:
        """See the port."""
        if callable(content):
            with tempfile.NamedTemporaryFile() as file:
                content(file.name)
                content = Path(file.name).read_bytes()
        self.files[path] = bytes(content)
        return len(self.files[path])

    def publish(self, staged: str, final: str, size: int, sha256: str) -> None:
        """See the port."""

    def settle(self) -> None:
        """See the port."""

    def replace(self, path: str, data: bytes) -> None:
        """See the port."""
        self.files[path] = data

    def delete(self, path: str) -> None:
        """See the port."""
        self.files.pop(path, None)

    def local_path(self, path: str) -> str:
        """See the port: there is no such place."""
        raise NotImplementedError(path)


class Counting:
    """A store that counts what it is asked, by method."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> object:
        self.asked[name] += 1
        return getattr(self._store, name)


def identity(owner: str) -> LogIdentity:
    """Return who writes the log."""
    return LogIdentity(
        job="bench",
        topic="telemetry.razlog",
        topic_id="id",
        partition=0,
        owner=owner,
        code_version="bench",
        state_version=STATE_VERSION,
    )


def opened(store: Store, owner: str) -> PartitionLog:
    """Open the log as one more owner."""
    numbers = count()
    log = PartitionLog(
        store, FOLDER, identity(owner), lambda: f"{owner}{next(numbers):08d}"
    )
    log.open(DEFINITION, lambda: Genesis(0, "start = earliest"))
    return log


def fill(store: Store, commits: int, snapshot_every: int) -> None:
    """Commit, publish and clean; the owner changes a hundred times."""
    owners = max(1, commits // 100)
    log = opened(store, "o0")
    for n in range(commits):
        if n and n % owners == 0:
            log = opened(store, f"o{n}")
        folder, first = log.staging(), log.head.next
        files = [
            StagedFile(
                staged=f"{folder}/{k}.parquet",
                final=f"readings/city=town-{k}/date=2026-01-01/{n}-{k}.parquet",
                size=10_000,
                rows=200,
                sha256=f"{n * FILES + k:064x}",
                dataset="readings",
                first_offset=first,
                last_offset=first + 999,
            )
            for k in range(FILES)
        ]
        ref = log.stage_snapshot(TABLES) if n % snapshot_every == 0 else None
        counts = RecordCounts(records=1000, decoded=1000, readings=1000)
        log.commit(Draft("commit", first + 1000, files, counts, ref))
        log.publish()
        log.clean()
        if n % 10_000 == 0 and sys.stderr.isatty():
            sys.stderr.write(f"\r{n:,} of {commits:,} commits")
    # A start would look for the files of the newest record, which are nowhere.
    log.commit(Draft("timer", log.head.next))


def measure(files: dict[str, bytes], root: Path) -> tuple[float, Counter[str], int]:
    """Return seconds of an opening, what it asked, and the number it took over at."""
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    local = LocalStore(root)
    store = Counting(local)
    began = time.perf_counter()
    log = opened(store, "last")  # type: ignore[arg-type]  # it forwards every method
    seconds = time.perf_counter() - began
    local.close()
    return seconds, store.asked, log.head.n


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=1_000_000)
    parser.add_argument("--snapshot-every", type=int, default=100)
    given = parser.parse_args()
    memory = Memory()
    began = time.perf_counter()
    fill(memory, given.commits, given.snapshot_every)
    each_us = (time.perf_counter() - began) / given.commits * 1e6
    sizes: Counter[str] = Counter()
    number: Counter[str] = Counter()
    for path, data in memory.files.items():
        kind = path.removeprefix(f"{FOLDER}/").partition("/")[0]
        sizes[kind] += len(data)
        number[kind] += 1
    with tempfile.TemporaryDirectory() as folder:
        seconds, asked, head = measure(memory.files, Path(folder))
    print(
        f"commits                {given.commits:,} ({each_us:.0f} µs each, in memory)"
    )
    for kind in sorted(number):
        print(f"{kind:<22} {number[kind]:,} files, {sizes[kind] / 1e6:,.1f} MB")
    print(f"start, local           {seconds:.3f} s, takes over with record {head:,}")
    print(f"asked                  {sum(asked.values()):,}: {dict(asked)}")


if __name__ == "__main__":
    main()
