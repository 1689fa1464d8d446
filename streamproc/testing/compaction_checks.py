"""What must hold of a store while dates are compacted and deleted beside a partition that commits.

`KeepingChecker` looks at it as an outsider after every operation that gives or takes a name: a
folder reader never sees fewer rows, an exact reader sees each once.
"""

import json
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from streamproc.core.durability import Link, Operation, Rename, Unlink
from streamproc.core.effects import Create, StoreEffect
from streamproc.core.ports import Created
from streamproc.core.swaps import CompactionChain, live_names
from streamproc.testing.sim_bucket import (
    Copy,
    Put,
    PutNew,
    Remove,
    RequestOfStore,
    SimBucket,
)
from streamproc.testing.sim_checks import Violation
from streamproc.testing.sim_disk import SimDisk
from streamproc.testing.sim_log import LogReader, parsed


class KeepingChecker:
    """The oracle: what must hold of the disk after every operation.

    Args:
        disk: what all processes share.
        folder: the partition's, with its log.
        homes: where dates have their logs of compaction; ends with a slash.
        payloads: the ledger, payload by offset.
    """

    def __init__(
        self, disk: SimDisk | SimBucket, folder: str, homes: str, payloads: list[int]
    ) -> None:
        self._disk = disk
        self._homes = homes
        self._looked_at = ("readings/", homes, f"{folder}/log/")
        self._payloads = payloads
        self._rows: dict[str, tuple[int, ...]] = {}
        self._seen: set[int] = set()
        self._log = LogReader(folder)
        self._swaps_told: dict[str, bytes] = {}
        self.checkpoints = 0
        self.reopened = 0

    def delivered(self, alerts: tuple[str, ...]) -> None:
        """Nothing: alerts are for the other checker."""

    def owed(self) -> bool:
        """Return False: see `delivered`."""
        return False

    def after_effect(self, effect: StoreEffect, answer: Any) -> None:
        """Remember the records somebody was told are durable."""
        match effect:
            case Create(path, data) if answer is Created.CREATED:
                if path.startswith(self._homes):
                    self._swaps_told[path] = data
            case _:
                pass

    def after_operation(self, operation: Operation | RequestOfStore) -> None:
        """Look at the disk where a name came or went that a reader looks at."""
        match operation:
            case (
                Link(_, path) | Rename(_, path) | Unlink(path)
                | Put(path) | PutNew(path) | Copy(_, path) | Remove(path)
            ):  # fmt: skip
                if path.startswith(self._looked_at):
                    self._look()
            case _:
                pass

    def after_power_loss(self) -> None:
        """Look again: what was acknowledged must be there, and no row may be gone."""
        files = self._disk.files()
        for path, data in self._swaps_told.items():
            if files.get(path) != data:
                msg = f"O4: {path} was created and is now missing or different"
                raise Violation(msg)
        self._seen.clear()  # What was published and not settled may need publishing again.
        self._look()

    def restored(self, next_offset: int, position: int, total: int) -> None:
        """Compare a state folded from snapshot and files with the straight run's."""
        wanted = sum(self._payloads[:next_offset])
        if (position, total) != (next_offset, wanted):
            msg = f"refold: sum {total} at {position}, not {wanted} at {next_offset}"
            raise Violation(msg)

    def published_through(self) -> int:
        """Return up to which offset everything is committed and published."""
        known = {offset for rows in self._rows.values() for offset in rows}
        return next(n for n in range(len(known) + 1) if n not in known)

    def in_time(self, steps: int, steps_max: int) -> None:
        """O8: the run must come to an end."""
        if steps > steps_max:
            msg = f"O8: not done after {steps_max} steps"
            raise Violation(msg)

    def at_the_end(self) -> None:
        """After the last fault and the last compaction: each row once, for everybody."""
        self._look()
        visible = Counter(offset for _, rows in self._visible() for offset in rows)
        wanted = Counter(set(range(len(self._payloads))) - self._deleted())
        if visible != wanted:
            doubled, lost = visible - wanted, wanted - visible
            msg = f"at rest: doubled {sorted(doubled)}, missing {sorted(lost)}"
            raise Violation(msg)

    # --- the disk ---------------------------------------------------------------------

    def _look(self) -> None:
        named = self._named()
        for path, rows in self._visible():
            self._rows[path] = rows
            if path not in named:
                msg = f"O5: {path} is visible, no record names it"
                raise Violation(msg)
        chains = self._chains()
        deleted = self._deleted()
        visible = {offset for _, rows in self._visible() for offset in rows}
        fewer = self._seen - visible - deleted
        if fewer:
            msg = f"a folder reader sees fewer rows: {sorted(fewer)} are gone"
            raise Violation(msg)
        self._seen |= visible
        self._exact(chains, deleted)

    def _exact(self, chains: dict[str, CompactionChain], deleted: set[int]) -> None:
        files = self._disk.files()
        listed: dict[str, list[str]] = {}
        for path, _ in self._visible():
            folder, _, name = path.rpartition("/")
            listed.setdefault(folder, []).append(name)
        found: Counter[int] = Counter()
        live: set[str] = set()
        for folder in listed.keys() | chains.keys():
            names = listed.get(folder, [])
            chain = chains.get(folder, CompactionChain(folder))
            good, unseen = live_names(names, [chain])
            if unseen:
                msg = f"{folder}: {unseen} and their inputs are both missing"
                raise Violation(msg)
            live |= {f"{folder}/{name}" for name in good}
        for path in live:
            found.update(self._rows[path])
        replaced = {
            f"{f}/{name}" for f, chain in chains.items() for name in chain.replaced
        }
        committed: set[int] = set()
        for path, entry in self._entries().items():
            committed |= set(self._offsets(entry, files, path))
            if path not in live and path not in replaced:
                found.update(self._offsets(entry, files, path))
        if found != Counter(committed - deleted):
            doubled = found - Counter(committed - deleted)
            lost = Counter(committed - deleted) - found
            msg = f"an exact reader: doubled {sorted(doubled)}, missing {sorted(lost)}"
            raise Violation(msg)

    def _offsets(
        self, entry: dict[str, Any], files: dict[str, bytes], path: str
    ) -> tuple[int, ...]:
        """Return the offsets of a commit's file, wherever it lies or once lay."""
        if path not in self._rows:
            data = files.get(path) or files.get(entry["staged"])
            if data is None:
                msg = f"{path}: committed, but neither staged nor published"
                raise Violation(msg)
            self._rows[path] = _offsets_of(data)
        return self._rows[path]

    def _visible(self) -> Iterable[tuple[str, tuple[int, ...]]]:
        return [
            (path, _offsets_of(data))
            for path, data in self._disk.files().items()
            if path.startswith("readings/")
        ]

    def _entries(self) -> dict[str, dict[str, Any]]:
        """Return every committed file by path, also of records that were squashed."""
        log = self._log.read(self._disk.files())
        if log.fault is not None:
            raise Violation(log.fault)
        return {file["path"]: file for r in log.parsed() for file in r["files"]}

    def _named(self) -> set[str]:
        named = set(self._entries())
        for folder, records in self._records().items():
            for record in records:
                named |= {f"{folder}/{e['name']}" for e in parsed(record)["outputs"]}
        return named

    def _records(self) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for path, data in sorted(self._disk.files().items()):
            if path.startswith(self._homes) and "/log/" in path:
                folder = path.removeprefix(self._homes).partition("/log/")[0]
                found.setdefault(folder, []).append(data)
        return found

    def _chains(self) -> dict[str, CompactionChain]:
        chains = {}
        for folder, records in self._records().items():
            chains[folder] = CompactionChain(folder)
            for data in records:
                chains[folder].append(data, folder)
        return chains

    def _deleted(self) -> set[int]:
        deleted: set[int] = set()
        for folder, records in self._records().items():
            for data in records:
                record = parsed(data)
                if record["kind"] == "retain":
                    for name in record["inputs"]:
                        deleted |= set(self._rows[f"{folder}/{name}"])
        return deleted


@lru_cache(maxsize=4_096)
def _offsets_of(data: bytes) -> tuple[int, ...]:
    return tuple(row[0] for row in json.loads(data))
