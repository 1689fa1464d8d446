"""A store on a simulated disk: what `LocalStore` does, in memory, and without time.

The order of operations is the one of `core.durability`, so that a test can lose the power
under a real `PartitionLog`.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamproc.core.durability import Durability, Operations
from streamproc.core.effects import Content, T
from streamproc.core.ports import Created, StoredFile
from streamproc.errors import StoreFault
from streamproc.testing.sim_disk import SimDisk


class SimStore:
    """`core.ports.Store` of one simulated process.

    Args:
        disk: shared with the other processes.
        process: a name no other process uses, not even an earlier one.
    """

    def __init__(self, disk: SimDisk, process: str) -> None:
        self._disk = disk
        self._durability = Durability(f"_streamproc/.tmp/{process}")
        self._copies = tempfile.TemporaryDirectory()

    def create(self, path: str, data: bytes) -> Created:
        """See the port."""
        return self._run(self._durability.create(path, data), path)

    def read(self, path: str) -> bytes | None:
        """See the port."""
        return self._run(self._durability.read(path), path)

    def list(self, folder: str, after: str = "") -> Sequence[StoredFile]:
        """See the port."""
        return self._run(self._durability.list(folder, after), folder)

    def stage(self, path: str, content: Content) -> int:
        """See the port."""
        return self._run(self._durability.stage(path, content), path)

    def publish(self, staged: str, final: str, size: int, sha256: str) -> None:
        """See the port."""
        self._run(self._durability.publish(staged, final, size, sha256), final)

    def settle(self) -> None:
        """See the port."""
        self._run(self._durability.settle(), "")

    def replace(self, path: str, data: bytes) -> None:
        """See the port."""
        self._run(self._durability.replace(path, data), path)

    def delete(self, path: str) -> None:
        """See the port."""
        self._run(self._durability.delete(path), path)

    def local_path(self, path: str) -> str:
        """Return the name of a copy on this host, which `close` removes."""
        data = self.read(path)
        copy = Path(self._copies.name, path)
        if data is not None:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(data)
        return str(copy)

    def close(self) -> None:
        """Remove the copies `local_path` made."""
        self._copies.cleanup()

    def _run(self, operations: Operations[T], path: str) -> T:
        if path and not all(name not in {"", ".", ".."} for name in path.split("/")):
            msg = f"{path!r}: not a plain relative path"
            raise StoreFault(msg)
        answer: Any = None
        while True:
            try:
                operation = operations.send(answer)
            except StopIteration as done:
                result: T = done.value
                return result
            answer = self._disk.perform(operation)
