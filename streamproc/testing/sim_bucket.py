"""An object store as several owners see it: requests that are lost, repeated, and late.

A request is there whole or not at all and is durable at once, so no power is lost here.
Instead an answer may be: of a request that was carried out, of one that never will be, or of
one that is carried out *later*, when whoever sent it has gone on, or is dead, or has long
been replaced. `ObjectRequests` sends what `connectors.object_store` sends, in its order.
"""

import hashlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from random import Random
from typing import Any, Final, TypeAlias

from streamproc.core.effects import (
    Create,
    Delete,
    List,
    Publish,
    Read,
    Replace,
    Settle,
    Stage,
    StoreEffect,
    T,
)
from streamproc.core.ports import Created, StoredFile
from streamproc.errors import StoreFault


@dataclass(frozen=True, slots=True)
class Put:
    """Write an object, whatever was there."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class PutNew:
    """Write an object if there is none; answered by whether there was none."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy an object on the server; answered by whether there was a source."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove an object; fine if there is none."""

    path: str


@dataclass(frozen=True, slots=True)
class Get:
    """Answered by an object's bytes, None where there is none."""

    path: str


@dataclass(frozen=True, slots=True)
class Look:
    """Answered by (size, sha256), None where there is no object."""

    path: str


@dataclass(frozen=True, slots=True)
class ListBelow:
    """Answered by every object below a folder with a path above `after`, sorted."""

    folder: str
    after: str


Writing: TypeAlias = Put | PutNew | Copy | Remove
RequestOfStore: TypeAlias = Writing | Get | Look | ListBelow
Requests: TypeAlias = Generator[RequestOfStore, Any, T]

_REQUESTED_MAX: Final = 3
"""A client that repeats what was not answered has sent it so many times at most."""


class SimBucket:
    """One bucket, shared by every simulated process; survives them all."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self.late: list[Writing] = []

    def perform(  # noqa: PLR0911  (one arm per request)
        self, request: RequestOfStore
    ) -> Any:
        """Carry out one request."""
        objects = self._objects
        match request:
            case Put(path, data):
                objects[path] = data
                return None
            case PutNew(path, data):
                return objects.setdefault(path, data) is data
            case Copy(source, target):
                if source in objects:
                    objects[target] = objects[source]
                return source in objects
            case Remove(path):
                objects.pop(path, None)
                return None
            case Get(path):
                return objects.get(path)
            case Look(path):
                if path not in objects:
                    return None
                found = objects[path]
                return len(found), hashlib.sha256(found).hexdigest()
            case ListBelow(folder, after):
                prefix = f"{folder}/" if folder else ""
                return tuple(
                    StoredFile(path, len(objects[path]))
                    for path in sorted(objects)
                    if path.startswith(prefix) and path > after
                )

    def lose_power(self, random: Random) -> None:
        """Nothing: whatever was answered is durable."""

    def files(self) -> dict[str, bytes]:
        """Return every object there is, by path."""
        return dict(self._objects)


class ObjectRequests:
    """One process's requests behind each store effect.

    Args:
        random: which of several uploads comes first, and what happens to a request.
        goes_wrong: asked of each request that writes.
        late: takes a request that is carried out later.
    """

    def __init__(
        self,
        random: Random,
        goes_wrong: Callable[[], bool],
        late: Callable[[Writing], None],
    ) -> None:
        self._random = random
        self._goes_wrong = goes_wrong
        self._late = late
        self._begun: list[Requests[None]] = []
        self._staged: dict[str, tuple[int, str]] = {}

    def plan(  # noqa: PLR0911  (one arm per effect)
        self, effect: StoreEffect
    ) -> Requests[Any]:
        """Return the requests of `effect`; their result is the effect's answer."""
        match effect:
            case Create(path, data):
                return self.create(path, data)
            case Read(path):
                return self._after_settling(Get(path))
            case List(folder, after):
                return self._after_settling(ListBelow(folder, after))
            case Stage(path, content):
                assert isinstance(content, bytes)
                return self._begin(self._upload(path, content), len(content))
            case Publish(staged, final, size, sha256):
                return self._begin(self._publish(staged, final, (size, sha256)), None)
            case Settle():
                return self.settle()
            case Replace(path, data):
                return self._replace(path, data)
            case Delete(path):
                self._staged.pop(path, None)
                return self._begin(self._write(Remove(path)), None)

    def create(self, path: str, data: bytes) -> Requests[Created]:
        """Settle, then one conditional PUT, sent once, whatever becomes of its answer."""
        yield from self.settle()
        request = PutNew(path, data)
        if self._goes_wrong():
            fate = self._random.choice(("carried out", "never", "later"))
            if fate == "carried out":
                yield request
            elif fate == "later":
                self._late(request)
            return Created.UNKNOWN
        if (yield request):
            return Created.CREATED
        there: tuple[int, str] | None = yield Look(path)
        return Created.UNKNOWN if there is None else Created.EXISTS

    def settle(self) -> Requests[None]:
        """Carry on with all that was begun, side by side, until all of it is done."""
        begun, self._begun = self._begun, []
        waiting = [(requests, None) for requests in begun]
        while waiting:
            requests, answer = waiting.pop(self._random.randrange(len(waiting)))
            try:
                request = requests.send(answer)
            except StopIteration:
                continue
            waiting.append((requests, (yield request)))

    def _begin(self, requests: Requests[None], answer: Any) -> Requests[Any]:
        self._begun.append(requests)
        yield from ()
        return answer

    def _after_settling(self, request: RequestOfStore) -> Requests[Any]:
        yield from self.settle()
        return (yield request)

    def _write(self, request: Writing) -> Requests[Any]:
        """Send it until it is answered; what was sent before may be carried out later."""
        for _ in range(_REQUESTED_MAX):
            if not self._goes_wrong():
                break
            if self._random.random() < 0.5:  # noqa: PLR2004  (as good as not)
                yield request
            if self._random.random() < 0.5:  # noqa: PLR2004
                self._late(request)
        return (yield request)

    def _upload(self, path: str, data: bytes) -> Requests[None]:
        yield from self._write(Put(path, data))
        self._staged[path] = (len(data), hashlib.sha256(data).hexdigest())

    def _replace(self, path: str, data: bytes) -> Requests[None]:
        yield from self.settle()
        yield from self._write(Put(path, data))

    def _publish(
        self, staged: str, final: str, wanted: tuple[int, str]
    ) -> Requests[None]:
        """Look first; copy what is not there; look at what was made.

        What is gone from staging was published by another owner after the first look.
        """
        found: tuple[int, str] | None = yield Look(final)
        if found is None:
            source = self._staged.get(staged) or (yield Look(staged))
            if source is not None:
                _require(staged, source, wanted)
                yield from self._write(Copy(staged, final))
            found = yield Look(final)
        _require(final, found, wanted)


def _require(path: str, found: tuple[int, str] | None, wanted: tuple[int, str]) -> None:
    if found != wanted:
        msg = f"{path}: {found}, the log says {wanted}"
        raise StoreFault(msg)
