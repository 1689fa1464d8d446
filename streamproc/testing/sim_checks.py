"""The oracle of the simulation: what must hold at every step (EXACTLY_ONCE.md 3.4).

It reads the disk as an outsider does and shares no code with the protocol.
"""

import hashlib
import json
from typing import Any, NoReturn

from streamproc.core.durability import Link, Operation, Rename, Unlink
from streamproc.core.effects import Create, StoreEffect
from streamproc.core.ports import Created
from streamproc.testing.sim_bucket import (
    Copy,
    Put,
    PutNew,
    Remove,
    RequestOfStore,
    SimBucket,
)
from streamproc.testing.sim_disk import SimDisk
from streamproc.testing.sim_log import LogReader, Reading, parsed


class Violation(AssertionError):
    """A promise was broken."""


class Checker:
    """Watches one disk.

    Args:
        disk: the shared disk.
        folder: the log's folder.
        payloads: the ledger, payload by offset.
    """

    def __init__(
        self, disk: SimDisk | SimBucket, folder: str, payloads: list[int]
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._payloads = payloads
        self._sums = [0]
        for payload in payloads:
            self._sums.append(self._sums[-1] + payload)
        self._acknowledged: dict[int, bytes] = {}
        self._visible: dict[str, list[int]] = {}
        self._reader = LogReader(folder)
        self._log = Reading()
        self._alerts_out: set[str] = set()
        self.checkpoints = 0
        self.reopened = 0

    def after_effect(self, effect: StoreEffect, answer: Any) -> None:
        """Remember the records some worker was told are durable."""
        prefix = f"{self._folder}/log/"
        if not isinstance(effect, Create) or answer is not Created.CREATED:
            return
        if not effect.path.startswith(prefix):
            return
        n = int(effect.path[len(prefix) : -5])
        if n > self._log.through or self._log.records[n] == effect.data:
            self._acknowledged[n] = effect.data
        elif json.loads(effect.data)["kind"] in {"takeover", "genesis"}:
            self.reopened += 1  # Its creator is about to find out.
        else:
            _fail(f"O4: {effect.path} was squashed and is created once more")

    def delivered(self, alerts: tuple[str, ...]) -> None:
        """Take note of alerts that have left."""
        self._alerts_out.update(alerts)

    def owed(self) -> bool:
        """Tell whether an alert of some record has not left yet."""
        return any(
            alert["alert_id"] not in self._alerts_out
            for record in self._log.parsed()
            for alert in record["outbox"]
        )

    def after_operation(self, operation: Operation | RequestOfStore) -> None:
        """Look at what one operation or request made visible, or took away."""
        match operation:
            case Link(_, target) | Rename(_, target):
                self._written(target)
            case Put(path) | PutNew(path) | Copy(_, path):
                self._written(path)
            case Unlink(path) | Remove(path):
                if path.startswith("readings/"):
                    _fail(f"O6: {path} was visible and is deleted")
                elif path.startswith(f"{self._folder}/log/"):
                    self._log_changed()
            case _:
                pass

    def _written(self, path: str) -> None:
        if path.startswith("readings/"):
            self._appeared(path)
        elif path == f"{self._folder}/published":
            self._hint_does_not_lead()
        elif path.startswith(f"{self._folder}/log/"):
            self._log_changed()

    def after_power_loss(self) -> None:
        """Look at the whole disk again: what was promised as durable must be there."""
        self._log_changed(forgotten=True)
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
        self._log_changed()
        self._chain_holds()
        files = {p for p in self._disk.files() if p.startswith("readings/")}
        if files != set(self._visible):
            _fail("the checker lost track of what is visible")
        named = set(self._named())
        if files != named:
            _fail(f"O5: visible {sorted(files - named)}, named {sorted(named - files)}")
        offsets = sorted(o for seen in self._visible.values() for o in seen)
        if offsets != list(range(len(self._payloads))):
            _fail(f"O1: offsets {offsets}")
        if self.owed():
            _fail("O3: an alert never left")

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
        return self._log.parsed()

    def _log_changed(self, *, forgotten: bool = False) -> None:
        """Read the log again: it is whole, and holds every record that was acknowledged."""
        before = -1 if forgotten else self._log.through
        self._log = self._reader.read(self._disk.files())
        if self._log.fault is not None:
            _fail(f"O4: {self._log.fault}")
        for n, data in self._acknowledged.items():
            if self._log.records.get(n) != data:
                _fail(f"O4: record {n} was created and is now missing or different")
        if self._log.through < before:
            _fail(f"O4: squashed through {before}, now through {self._log.through}")
        if self._log.through > before:
            self.checkpoints += 1
            self._may_be_squashed()

    def _may_be_squashed(self) -> None:
        """Check what a checkpoint replaces: all in a snapshot, visible, and its alerts out."""
        assert self._log.checkpoint is not None
        files = self._disk.files()
        snapshot = -1
        for record in self._log.parsed():
            ref = record["snapshot"]
            if ref is not None:
                snapshot = ref["n"]
            if record["n"] > self._log.through:
                continue
            for file in record["files"]:
                if file["path"] not in files:
                    _fail(f"record {record['n']} is squashed and not published")
            for alert in record["outbox"]:
                if alert["alert_id"] not in self._alerts_out:
                    _fail(f"record {record['n']} is squashed and has alerts to send")
        if self._log.through > snapshot:
            _fail(f"squashed through {self._log.through}, past snapshot {snapshot}")

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
        for n, data in sorted(self._log.records.items()):
            record = parsed(data)
            if record["n"] != n:
                _fail(f"O4: record {n} says that it is {record['n']}")
            if record["prev_sha256"] != digest or record["start"] != offset:
                _fail(f"O4: record {n} does not continue the record before")
            digest, offset = hashlib.sha256(data).hexdigest(), record["next"]
            squashed = record["squashed"]
            if squashed is not None:
                replaced = self._log.records[squashed["through"]]
                if squashed["sha256"] != hashlib.sha256(replaced).hexdigest():
                    _fail(f"O4: checkpoint {n} names another record")


def _fail(message: str) -> NoReturn:
    raise Violation(message)
