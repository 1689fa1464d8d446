"""The log on a simulated disk as an outsider reads it: archives, then what follows them.

Shares no code with the protocol. A record at or below the newest checkpoint's `through` counts
as the archives have it, whatever lies under its name.
"""

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any


@lru_cache(4096)
def parsed(data: bytes) -> dict[str, Any]:
    """Return a record, the same object for the same bytes: nobody is to change it."""
    record: dict[str, Any] = json.loads(data)
    return record


@dataclass(slots=True)
class Reading:
    """A log as it stands.

    Attributes:
        records: bytes by number; `through` the last one that a checkpoint has replaced.
        fault: why it cannot be read, None where it can.
    """

    records: dict[int, bytes] = field(default_factory=dict)
    through: int = -1
    checkpoint: dict[str, Any] | None = None
    fault: str | None = None

    def parsed(self) -> list[dict[str, Any]]:
        """Return the records in order."""
        return [parsed(self.records[n]) for n in sorted(self.records)]


class LogReader:
    """Reads one log again and again; remembers archives, whose names are never used twice."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._archives: dict[tuple[str, str], list[bytes]] = {}
        self._kinds: dict[bytes, bool] = {}

    def read(self, files: Mapping[str, bytes]) -> Reading:
        """Return the log as `files` have it."""
        prefix = f"{self._folder}/log/"
        there = {
            int(path[len(prefix) : -5]): data
            for path, data in files.items()
            if path.startswith(prefix)
        }
        found = Reading()
        try:
            checkpoints = [n for n, data in there.items() if self._is_checkpoint(data)]
        except ValueError as error:
            return Reading(fault=f"a record is torn: {error}")
        # A checkpoint that was squashed itself may lie about as a leftover: the newest counts.
        if checkpoints:
            found.checkpoint = parsed(there[max(checkpoints)])["squashed"]
            found.through = found.checkpoint["through"]
            found.fault = self._unpack(files, found)
        tail = {n: data for n, data in there.items() if n > found.through}
        found.records |= tail
        if found.fault is None and sorted(found.records) != list(
            range(len(found.records))
        ):
            found.fault = f"numbers {sorted(found.records)}"
        return found

    def _is_checkpoint(self, data: bytes) -> bool:
        known = self._kinds.get(data)
        if known is None:
            known = self._kinds[data] = parsed(data)["kind"] == "checkpoint"
        return known

    def _unpack(self, files: Mapping[str, bytes], found: Reading) -> str | None:
        assert found.checkpoint is not None
        ref = found.checkpoint["archive"]
        while ref is not None:
            data = files.get(ref["path"])
            if data is None:
                return f"{ref['path']} is named and missing"
            if hashlib.sha256(data).hexdigest() != ref["sha256"]:
                return f"{ref['path']} has other bytes than its checkpoint names"
            texts = gzip.decompress(data).split(b"\x1e")[1:]
            numbers = range(ref["first"], ref["last"] + 1)
            if len(numbers) != len(texts) - 1:
                return f"{ref['path']} holds {len(texts) - 1} records"
            found.records.update(
                (n, text[:-1]) for n, text in zip(numbers, texts[1:], strict=True)
            )
            ref = json.loads(texts[0])["before"]
        return None
