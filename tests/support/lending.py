"""One server per test run: lent to whoever asks, stopped when nobody needs it any more."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar


class Stoppable(Protocol):
    """A server that was started."""

    def stop(self) -> None: ...


Server = TypeVar("Server", bound=Stoppable)


class Lent(Generic[Server]):
    """The run's one server of a kind."""

    def __init__(self) -> None:
        self._server: Server | None = None
        self._users = 0

    @contextmanager
    def lend(self, start: Callable[[], Server]) -> Iterator[Server]:
        """Lend it; the first borrower starts it, the last one stops it."""
        if self._server is None:
            self._server = start()
        self._users += 1
        try:
            yield self._server
        finally:
            self._users -= 1
            if not self._users:
                self._server.stop()
                self._server = None
