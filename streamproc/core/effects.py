"""What the commit protocol asks of a store, as values.

The protocol is written as generators (`Steps`) that yield one `Effect`, are sent the
fact that answers it, and return a result. `runtime.partition_log` answers from a `Store`;
the simulation answers from a disk that forgets. Neither has code of its own between them.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

Content: TypeAlias = bytes | memoryview | Callable[[str], None]
"""Bytes, or a function that fills the local file it is given the name of.

Bytes where they are in memory anyway: a store writes them in one go, a remote one sends them.
A function where they must not be (a snapshot of the whole state).
"""


@dataclass(frozen=True, slots=True)
class Create:
    """`Store.create`; answered by `Created`."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """`Store.read`; answered by the bytes or None."""

    path: str


@dataclass(frozen=True, slots=True)
class List:
    """`Store.list`; answered by a sequence of `StoredFile` whose names are durable."""

    folder: str
    after: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """`Store.stage`; answered by the size in bytes."""

    path: str
    content: Content


@dataclass(frozen=True, slots=True)
class Publish:
    """`Store.publish`; answered by None."""

    staged: str
    final: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Settle:
    """`Store.settle`; answered by None."""


@dataclass(frozen=True, slots=True)
class Replace:
    """`Store.replace`; answered by None."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """`Store.delete`; answered by None."""

    path: str


@dataclass(frozen=True, slots=True)
class Reached:
    """A named point between two effects, where a test may kill the process."""

    name: str


StoreEffect: TypeAlias = (
    Create | Read | List | Stage | Publish | Settle | Replace | Delete
)
Effect: TypeAlias = StoreEffect | Reached

T = TypeVar("T")
Steps: TypeAlias = Generator[Effect, Any, T]
