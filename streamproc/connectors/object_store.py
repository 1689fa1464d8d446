"""A store in a bucket of an S3-compatible service (EXACTLY_ONCE.md 1.2 (b)).

What makes the port's promises true here:

* **create** is one PUT with `If-None-Match: *`, sent once. Refused: a HEAD tells whether an
  object is there; a 409 may have left none, and then nobody won yet (`UNKNOWN`). Anything
  unsure is `UNKNOWN`, too: `core.protocol` reads back, and knows its own attempt when it
  finds it. No retry hides in the client below (`object_client`), which could take our own
  first attempt for somebody else's.
* **bytes are what they were**: an upload is signed with the sha256 of its body, so that the
  server refuses other bytes, and carries the same sha256 as metadata, which a copy keeps. So
  a HEAD tells size and sha256 of everything this module wrote. An object without that
  metadata is read and hashed.
* **publish** looks first: what is there under the final name is compared, never believed and
  never overwritten. Else the server copies, and a second look compares what it made. Final
  names carry the attempt, so two owners that publish at once copy the same bytes.
* **no multipart** below 128 MiB: a single PUT is there whole or not at all and leaves no
  parts behind.

Uploads and copies of one commit go out side by side, `at_once` of them; its deletions go out as
one request. `stage` and `publish` only begin, `delete` only notes; `settle`, and every other
method, first finishes all of that, and raises what went wrong. An object store has no slow
step but the way to it, and a commit has dozens of files.

Several owners see the same bucket alike; `self_test` proves that creates are refused.
"""

import hashlib
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from streamproc.connectors.object_client import (
    Client,
    Missing,
    ObjectOptions,
    Taken,
    Unsure,
    Waiting,
)
from streamproc.connectors.object_probe import probe
from streamproc.core.effects import Content
from streamproc.core.ports import Created, StoredFile
from streamproc.errors import StoreFault, Unreachable, WorldError

PARTS_FROM_BYTES: Final = 128 << 20
_PART_BYTES: Final = 16 << 20
_COPY_BYTES_MAX: Final = 5 << 30
"""What S3 copies in one request, and so the largest file that can be published."""

_NAME_BYTES_MAX: Final = 255
_KEY_BYTES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class _Unknown:
    """A create whose outcome is not known: of what, since when, how often asked."""

    path: str
    since_us: int
    tries: int


@dataclass(slots=True)
class _UnderWay:
    """What one of the calling threads has begun. A step of a log is one thread's."""

    kind: str = ""
    begun: dict[str, "Future[None]"] = field(default_factory=dict)
    doomed: list[str] = field(default_factory=list)
    unknown: _Unknown | None = None


class ObjectStore:
    """`core.ports.Store` in a bucket. Requests have threads of their own; each caller waits for its.

    A `StoreFault` means that the process must stop; `Unreachable` that the store did not
    answer for `options.patience_s`, and may do so later.

    Args:
        options: which bucket, and how it is reached.
        waiting: time and chance.

    Raises:
        StoreFault: the options cannot be used.
    """

    def __init__(self, options: ObjectOptions, waiting: Waiting) -> None:
        self.client = Client(options, waiting)
        self._options = options
        self._pool = ThreadPoolExecutor(options.at_once, "object-store")
        self._local = threading.local()
        self._all: list[_UnderWay] = []
        self._staged: dict[str, tuple[int, str]] = {}

    # --- the port ---------------------------------------------------------------------

    def create(self, path: str, data: bytes) -> Created:
        """See the port. `Unreachable` where it has been unknown for the whole patience."""
        self._check(path)
        self.settle()
        sha256 = hashlib.sha256(data).hexdigest()
        client = self.client
        try:
            client.once("create", path, lambda: client.create(path, data, sha256))
        except Taken:
            there = self._head(path) is not None
            outcome = Created.EXISTS if there else Created.UNKNOWN
            why = "refused, but nothing is there"
        except Unsure as error:
            outcome, why = Created.UNKNOWN, str(error)
        except Missing as error:
            raise StoreFault(str(error)) from None
        else:
            outcome, why = Created.CREATED, ""
        if outcome is Created.UNKNOWN:
            self._note_unknown(path, why)
        else:
            self._mine.unknown = None
        return outcome

    def read(self, path: str) -> bytes | None:
        """See the port."""
        self._check(path)
        self.settle()
        try:
            return self.client.repeat("read", path, lambda: self.client.get(path))
        except Missing:
            return None

    def list(self, folder: str, after: str = "") -> Sequence[StoredFile]:
        """Return what the port says; with `after` only paths that are greater."""
        if folder:
            self._check(folder)
        self.settle()
        found = self.client.repeat(
            "list", folder, lambda: self.client.list_below(folder, after)
        )
        return tuple(StoredFile(path, size) for path, size in sorted(found))

    def stage(self, path: str, content: Content) -> int:
        """See the port. What a function writes passes through a file in the temporary folder.

        Raises:
            StoreFault: larger than S3 can copy, or refused.
        """
        self._check(path)
        if callable(content):
            self.settle()
            return self._stage_file(path, content)
        data = memoryview(content).cast("B")  # Arrow's bytes are signed ones.
        self._check_size(path, len(data))
        self._begin("stage", path, lambda: self._upload(path, data))
        return len(data)

    def publish(self, staged: str, final: str, size: int, sha256: str) -> None:
        """See the port."""
        self._check(staged)
        self._check(final)
        wanted = (size, sha256)
        self._begin("publish", final, lambda: self._publish(staged, final, wanted))

    def settle(self) -> None:
        """See the port. Raises the first thing that went wrong; nothing is under way then.

        Of what the calling thread has begun: what another one does is another partition's.
        """
        self._settle(self._mine)

    def replace(self, path: str, data: bytes) -> None:
        """See the port."""
        self._check(path)
        self.settle()
        self._upload(path, data)

    def delete(self, path: str) -> None:
        """See the port."""
        self._check(path)
        self._staged.pop(path, None)
        if self._mine.begun:
            self.settle()
        self._mine.doomed.append(path)

    # --- reading beside the port ------------------------------------------------------

    @property
    def url(self) -> str:
        """Return `s3://bucket/prefix`, without a slash at its end."""
        return self._options.url

    @property
    def reader_options(self) -> Mapping[str, str]:
        """Return how polars reaches the same bucket; holds the secret."""
        return self._options.for_polars()

    def children(self, folder: str) -> tuple[Sequence[str], Sequence[StoredFile]]:
        """Return the paths of the folders directly in a folder, and its files."""
        if folder:
            self._check(folder)
        self.settle()
        client = self.client
        folders, files = client.repeat("list", folder, lambda: client.children(folder))
        return folders, tuple(StoredFile(path, size) for path, size in files)

    def size(self, path: str) -> int | None:
        """Return an object's size in bytes, None where there is none."""
        self._check(path)
        self.settle()
        client = self.client
        try:
            return client.repeat("look", path, lambda: client.head(path))[0]
        except Missing:
            return None

    # --- lifecycle --------------------------------------------------------------------

    def self_test(self) -> str:
        """Try on this bucket what the protocol rests on; return what was seen, in a line.

        Raises:
            StoreFault: creates are not refused, one by one or in a race, bytes or names do
                not come back, keys or bucket are wrong.
            Unreachable: it does not answer.
        """
        return probe(self)

    def close(self) -> None:
        """Finish what was begun, without judging it or asking twice; safe twice."""
        self.client.patience_s = 0.0
        for one in self._all:
            with suppress(WorldError):
                self._settle(one)
        self._pool.shutdown()

    # --- parts ------------------------------------------------------------------------

    @property
    def _mine(self) -> _UnderWay:
        """Return what the calling thread has begun."""
        mine: _UnderWay | None = getattr(self._local, "mine", None)
        if mine is None:
            mine = self._local.mine = _UnderWay()
            self._all.append(mine)
        return mine

    def _settle(self, whose: _UnderWay) -> None:
        begun, whose.begun = whose.begun.values(), {}
        wait(begun)
        for one in begun:
            one.result()
        if whose.doomed:
            doomed, client = whose.doomed, self.client
            client.repeat("delete", doomed[0], lambda: client.delete(doomed))
            whose.doomed = []

    def _begin(self, kind: str, path: str, task: Callable[[], None]) -> None:
        """Begin what may run beside others of its kind, on paths of their own."""
        mine = self._mine
        if kind != mine.kind or path in mine.begun or mine.doomed:
            self.settle()
        mine.kind = kind
        mine.begun[path] = self._pool.submit(task)

    def _note_unknown(self, path: str, why: str) -> None:
        """Wait a little before the caller reads back; give up after the patience."""
        client, now_us = self.client, self.client.waiting.monotonic_us()
        known = self._mine.unknown
        if known is None or known.path != path:
            known = _Unknown(path, now_us, 0)
        known = replace(known, tries=known.tries + 1)
        wait_s = client.backoff_s(known.tries)
        passed_s = (now_us - known.since_us) / 1e6
        if passed_s + wait_s > client.patience_s:
            self._mine.unknown = None
            msg = f"{why}; gave up after {known.tries} creates in {passed_s:.0f} s"
            raise Unreachable(msg)
        self._mine.unknown = known
        client.waiting.sleep(wait_s)

    def _head(self, path: str) -> tuple[int, str] | None:
        """Return size and sha256 of an object, None where there is none."""
        client = self.client
        try:
            size, sha256 = client.repeat("look", path, lambda: client.head(path))
            if sha256 is None:
                data = client.repeat("read", path, lambda: client.get(path))
                return len(data), hashlib.sha256(data).hexdigest()
        except Missing:
            return None
        return size, sha256

    def _upload(self, path: str, data: bytes | memoryview) -> None:
        self._put(path, data, len(data), hashlib.sha256(data).hexdigest())

    def _put(
        self, path: str, data: bytes | memoryview | Path, size: int, sha256: str
    ) -> None:
        client = self.client

        def request() -> None:
            if size < PARTS_FROM_BYTES:
                client.put(path, data, sha256)
            else:
                client.put_parts(path, data, sha256, _PART_BYTES)

        try:
            client.repeat("write", path, request)
        except Missing as error:
            raise StoreFault(str(error)) from None
        self._staged[path] = (size, sha256)

    def _stage_file(self, path: str, write: Callable[[str], None]) -> int:
        with tempfile.TemporaryDirectory(prefix="streamproc-") as folder:
            name = Path(folder, "content")
            try:
                write(str(name))
            except OSError as error:
                msg = f"{name}: {error.strerror or error}"
                raise StoreFault(msg) from error
            size = name.stat().st_size
            self._check_size(path, size)
            with name.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self._put(path, name, size, sha256)
        return size

    def _publish(self, staged: str, final: str, wanted: tuple[int, str]) -> None:
        found = self._head(final)
        if found is not None:
            self._require(final, found, wanted)
            return
        # What is missing may have been published and swept by another owner since: look again.
        source = self._staged.get(staged) or self._head(staged)
        if source is not None:
            self._require(staged, source, wanted)
            client = self.client
            with suppress(Missing):
                client.repeat("copy", final, lambda: client.copy(staged, final))
        found = self._head(final)
        if source is None and found is None:
            msg = f"{self._at(staged)}: committed, but neither staged nor published"
            raise StoreFault(msg)
        self._require(final, found, wanted)

    def _require(
        self, path: str, found: tuple[int, str] | None, wanted: tuple[int, str]
    ) -> None:
        if found == wanted:
            return
        what = "nothing" if found is None else f"{found[0]} bytes, sha256 {found[1]}"
        msg = (
            f"{self._at(path)}: {what}; "
            f"the log says {wanted[0]} bytes, sha256 {wanted[1]}"
        )
        raise StoreFault(msg)

    def _at(self, path: str) -> str:
        return f"{self._options.url}/{path}"

    def _check_size(self, path: str, size: int) -> None:
        if size > _COPY_BYTES_MAX:
            msg = f"{self._at(path)}: {size} bytes are more than S3 copies at once"
            raise StoreFault(msg)

    def _check(self, path: str) -> None:
        """Refuse what is not a plain relative path; raises `StoreFault`."""
        for name in path.split("/"):
            if name in {"", ".", ".."} or "\\" in name or not name.isprintable():
                msg = f"{path!r}: not a plain relative path"
                raise StoreFault(msg)
            if len(name.encode()) > _NAME_BYTES_MAX:
                msg = f"{path!r}: a name longer than {_NAME_BYTES_MAX} bytes"
                raise StoreFault(msg)
        if len(f"{self._options.prefix}/{path}".encode()) > _KEY_BYTES_MAX:
            msg = f"{self._at(path)}: a key longer than {_KEY_BYTES_MAX} bytes"
            raise StoreFault(msg)
