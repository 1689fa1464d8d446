"""A store that can fall silent, stall, run full, or lose its answers, when a test says so."""

from collections.abc import Sequence
from threading import Event

from streamproc.core.effects import Content
from streamproc.core.ports import Created, Store, StoredFile
from streamproc.errors import StoreFull, Unreachable


class TroubledStore:
    """Implements `core.ports.Store` by another one, with trouble on top. Thread-safe as that is.

    Attributes:
        silent: while True every operation raises `Unreachable` and does nothing.
        full: while True whatever needs room raises `StoreFull`; records, too.
        deaf: so many of the next creates are done, and then raise `Unreachable`.
        calls: operations that were asked for, refused ones included.
        deleted: the paths whose deletion was asked for.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._going = Event()
        self._going.set()
        self.silent = False
        self.full = False
        self.deaf = 0
        self.calls = 0
        self.deleted: list[str] = []

    def stall(self) -> None:
        """Let every operation from now on take until `go_on`."""
        self._going.clear()

    def go_on(self) -> None:
        """Let what has been stalled go on."""
        self._going.set()

    def _enter(self, *, needs_room: bool) -> None:
        self.calls += 1
        self._going.wait()
        if self.silent:
            msg = "the store does not answer"
            raise Unreachable(msg)
        if needs_room and self.full:
            msg = "disk full: on purpose"
            raise StoreFull(msg)

    def create(self, path: str, data: bytes) -> Created:
        """See the port."""
        self._enter(needs_room=True)
        outcome = self._store.create(path, data)
        if self.deaf > 0:
            self.deaf -= 1
            msg = "the answer was lost"
            raise Unreachable(msg)
        return outcome

    def read(self, path: str) -> bytes | None:
        """See the port."""
        self._enter(needs_room=False)
        return self._store.read(path)

    def list(self, folder: str, after: str = "") -> Sequence[StoredFile]:
        """See the port."""
        self._enter(needs_room=False)
        return self._store.list(folder, after)

    def stage(self, path: str, content: Content) -> int:
        """See the port."""
        self._enter(needs_room=True)
        return self._store.stage(path, content)

    def publish(self, staged: str, final: str, size: int, sha256: str) -> None:
        """See the port."""
        self._enter(needs_room=True)
        self._store.publish(staged, final, size, sha256)

    def settle(self) -> None:
        """See the port."""
        self._enter(needs_room=False)
        self._store.settle()

    def replace(self, path: str, data: bytes) -> None:
        """See the port."""
        self._enter(needs_room=True)
        self._store.replace(path, data)

    def delete(self, path: str) -> None:
        """See the port."""
        self.deleted.append(path)
        self._enter(needs_room=False)
        self._store.delete(path)
