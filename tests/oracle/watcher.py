"""O6, while the run goes on: a reader of folders that looks again and again.

It must never see a row twice, a file gone or changed, or one that cannot be read.
"""

import hashlib
import random
from contextlib import suppress

from pyarrow import ArrowException

from tests.oracle.folder import Away, Folder
from tests.oracle.published import DERIVED, key_of, rows_in, visible


class Watcher:
    """Call `look` as often as you like; `findings` grows if something is wrong."""

    def __init__(self, folder: Folder, rng: random.Random) -> None:
        self._folder = folder
        self._rng = rng
        self._digests: dict[str, str] = {}
        self._known: list[str] = []
        self._keys: set[int] = set()
        self.findings: list[str] = []
        self.looks = 0

    @property
    def files(self) -> int:
        return len(self._known)

    @property
    def rows(self) -> int:
        return len(self._keys)

    def look(self) -> None:
        """List, read what is new, and one file that was there before.

        A store that is away shows nothing, which is nothing wrong.
        """
        self.looks += 1
        with suppress(Away):
            self._look()

    def _look(self) -> None:
        names = set(visible(self._folder)) - set(DERIVED)
        for name in self._digests.keys() - names:
            self._find(f"{name} was there and is not any more")
            del self._digests[name]
            self._known.remove(name)
        for name in sorted(names - self._digests.keys()):
            self._first(name)
        if self._known:
            name = self._rng.choice(self._known)
            if _digest(self._folder.read(name)) != self._digests[name]:
                self._find(f"{name} has changed")

    def _first(self, name: str) -> None:
        try:
            data = self._folder.read(name)
            rows = rows_in(name, data)
        except (ArrowException, OSError) as error:
            self._find(f"{name} cannot be read: {error}")
            return
        self._digests[name] = _digest(data)
        self._known.append(name)
        for row in rows:
            # A hash of 64 bits instead of the key: a long run has millions.
            key = key_of(row)
            if hash(key) in self._keys:
                self._find(f"{name}: {key} was there already")
            self._keys.add(hash(key))

    def _find(self, what: str) -> None:
        self.findings.append(f"O6 look {self.looks}: {what}")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
