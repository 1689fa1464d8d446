"""The oracle of the simulation: what must hold at every step (EXACTLY_ONCE.md 3.4).

It reads the disk as an outsider does and shares no code with the protocol.
"""

import hashlib
import json
from typing import Any, NoReturn

from streamproc.core.durability import Link, Operation, Rename, Unlink
from streamproc.core.effects import Create, StoreEffect
from streamproc.core.ports import Created
from streamproc.testing.sim_disk import SimDisk


class Violation(AssertionError):
    """A promise was broken."""


class Checker:
    """Watches one disk.

    Args:
        disk: the shared disk.
        folder: the log's folder.
        payloads: the ledger, payload by offset.
    """

    def __init__(self, disk: SimDisk, folder: str, payloads: list[int]) -> None:
        self._disk = disk
        self._folder = folder
        self._payloads = payloads
        self._sums = [0]
        for payload in payloads:
            self._sums.append(self._sums[-1] + payload)
        self._acknowledged: dict[str, bytes] = {}
        self._visible: dict[str, list[int]] = {}

    def after_effect(self, effect: StoreEffect, answer: Any) -> None:
        """Remember the records some worker was told are durable."""
        if isinstance(effect, Create) and answer is Created.CREATED:
            self._acknowledged[effect.path] = effect.data

    def after_operation(self, operation: Operation) -> None:
        """Look at what one filesystem operation made visible, or took away."""
        match operation:
            case Link(_, target) | Rename(_, target):
                if target.startswith("readings/"):
                    self._appeared(target)
                elif target == f"{self._folder}/published":
                    self._hint_does_not_lead()
                elif target.startswith(f"{self._folder}/log/"):
                    self._records_stay()
            case Unlink(path):
                if path.startswith("readings/"):
                    _fail(f"O6: {path} was visible and is deleted")
            case _:
                pass

    def after_power_loss(self) -> None:
        """Look at the whole disk again: what was promised as durable must be there."""
        self._records_stay()
        self._visible.clear()
        for path in self._disk.files():
            if path.startswith("readings/"):
                self._appeared(path)
        self._hint_does_not_lead()

    def restored(self, next_offset: int, position: int, total: int) -> None:
        """Compare a restored state with the straight run's."""
        if (position, total) != (next_offset, self._sums[next_offset]):
            _fail(
                f"state after restore: sum {total} at {position}, "
                f"should be {self._sums[next_offset]} at {next_offset}"
            )

    def published_through(self) -> int:
        """Return up to which offset everything is visible."""
        offsets = {offset for seen in self._visible.values() for offset in seen}
        return next(n for n in range(len(offsets) + 1) if n not in offsets)

    def in_time(self, steps: int, steps_max: int) -> None:
        """O8: the run must come to an end."""
        if steps > steps_max:
            _fail(f"O8: not done after {steps_max} steps")

    def at_the_end(self) -> None:
        """O1, O4, O5 after the last fault."""
        self._chain_holds()
        self._records_stay()
        files = {p for p in self._disk.files() if p.startswith("readings/")}
        if files != set(self._visible):
            _fail("the checker lost track of what is visible")
        named = set(self._named())
        if files != named:
            _fail(f"O5: visible {sorted(files - named)}, named {sorted(named - files)}")
        offsets = sorted(o for seen in self._visible.values() for o in seen)
        if offsets != list(range(len(self._payloads))):
            _fail(f"O1: offsets {offsets}")

    def _appeared(self, path: str) -> None:
        data = self._disk.files().get(path)
        if data is None:
            return  # A link without a source: nothing appeared.
        entry = self._named().get(path)
        if entry is None:
            _fail(f"O5: {path} is visible, no record names it")
        found = (len(data), hashlib.sha256(data).hexdigest())
        if found != (entry["size"], entry["sha256"]):
            _fail(f"O6: {path} is visible with other bytes than its record names")
        offsets = []
        for offset, payload, total in json.loads(data):
            if payload != self._payloads[offset] or total != self._sums[offset + 1]:
                _fail(f"O1: {path}: offset {offset} has {payload}, sum {total}")
            offsets.append(offset)
        others = {o for p, seen in self._visible.items() if p != path for o in seen}
        if others & set(offsets):
            _fail(f"O1: {path}: offsets {sorted(others & set(offsets))} are double")
        self._visible[path] = offsets

    def _named(self) -> dict[str, dict[str, Any]]:
        return {
            file["path"]: file for record in self._records() for file in record["files"]
        }

    def _records(self) -> list[dict[str, Any]]:
        return [json.loads(data) for _, data in self._raw_records()]

    def _raw_records(self) -> list[tuple[str, bytes]]:
        prefix = f"{self._folder}/log/"
        return sorted(
            (path, data)
            for path, data in self._disk.files().items()
            if path.startswith(prefix)
        )

    def _records_stay(self) -> None:
        files = self._disk.files()
        for path, data in self._acknowledged.items():
            if files.get(path) != data:
                _fail(f"O4: {path} was created and is now missing or different")

    def _hint_does_not_lead(self) -> None:
        files = self._disk.files()
        hint = files.get(f"{self._folder}/published")
        if hint is None:
            return
        for record in self._records():
            for file in record["files"]:
                if record["n"] <= int(hint) and file["path"] not in files:
                    _fail(f"the hint says {int(hint)}, {file['path']} is not visible")

    def _chain_holds(self) -> None:
        digest, offset = "", 0
        for n, (path, data) in enumerate(self._raw_records()):
            record = json.loads(data)
            if not path.endswith(f"/{n:020d}.json") or record["n"] != n:
                _fail(f"O4: {path} is record {record['n']}, should be {n}")
            if record["prev_sha256"] != digest or record["start"] != offset:
                _fail(f"O4: {path} does not continue the record before")
            digest, offset = hashlib.sha256(data).hexdigest(), record["next"]


def _fail(message: str) -> NoReturn:
    raise Violation(message)
