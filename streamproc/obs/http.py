"""A very small HTTP server for /metrics, /healthz and /readyz: GET and HEAD, nothing else.

Standard library only. Every request is bounded in size and time, connections in number,
and each is closed after one answer; nothing of a request is ever echoed or logged.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

from streamproc.obs.health import Judgement

HEAD_BYTES_MAX: Final = 8 * 1024
CONNECTIONS_MAX: Final = 32
TIMEOUT_S: Final = 5.0
_METHODS: Final = frozenset({b"GET", b"HEAD"})
_WORDS: Final = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route says."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"


Route = Callable[[], Answer | Awaitable[Answer]]


def judged(judge: Callable[[], Judgement], *, ready: bool) -> Route:
    """Return the route of /readyz (`ready`) or /healthz: 200 or 503, with the reasons."""
    return lambda: judgement(judge(), ready=ready)


def judgement(found: Judgement, *, ready: bool) -> Answer:
    """Return what /readyz (`ready`) or /healthz says."""
    good = found.ready if ready else found.healthy
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    document = {
        "status": "ok" if good else "failing",
        "healthy": found.healthy,
        "ready": found.ready,
        "reasons": list(found.reasons),
    }
    body = json.dumps(document, ensure_ascii=False).encode() + b"\n"
    return Answer(body, status, "application/json")


class Server:
    """A listening server; use it as an async context manager, or `close` it."""

    def __init__(self, routes: Mapping[str, Route], timeout_s: float) -> None:
        self._routes = {path.encode(): route for path, route in routes.items()}
        self._timeout_s = timeout_s
        self._busy: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Return the port in use, also where 0 was asked for."""
        assert self._server is not None, "only while it listens"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def listen(self, host: str, port: int) -> None:
        """Start. Raises `OSError` where the address cannot be had."""
        self._server = await asyncio.start_server(
            self._serve, host, port, limit=HEAD_BYTES_MAX
        )

    async def listen_at(self, path: str) -> None:
        """Start on a Unix socket. Raises `OSError` where the name cannot be had."""
        self._server = await asyncio.start_unix_server(
            self._serve, path, limit=HEAD_BYTES_MAX
        )

    async def close(self) -> None:
        """Stop listening and drop the requests under way; safe twice."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for task in self._busy:
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        if task is None or len(self._busy) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._busy.add(task)
        try:
            async with asyncio.timeout(self._timeout_s):
                writer.write(await self._answer(reader))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, ConnectionError):
            pass  # the client's trouble; nobody else is told
        except asyncio.CancelledError:
            if self._server is not None:
                raise  # not our `close`
        finally:
            writer.transport.abort()
            self._busy.discard(task)

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except asyncio.IncompleteReadError:
            return _plain(HTTPStatus.BAD_REQUEST)
        return await self._routed(head.split(b"\r\n", 1)[0].split(b" "))

    async def _routed(self, words: list[bytes]) -> bytes:
        """Return the answer to a request line."""
        if len(words) != _WORDS or not words[2].startswith(b"HTTP/1."):
            return _plain(HTTPStatus.BAD_REQUEST)
        if words[0] not in _METHODS:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED)
        route = self._routes.get(words[1].partition(b"?")[0])
        if route is None:
            return _plain(HTTPStatus.NOT_FOUND)
        try:
            answer = route()
            if not isinstance(answer, Answer):
                answer = await answer
        except Exception:  # noqa: BLE001  (a page must not take the service along)
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR)
        return _encoded(answer, with_body=words[0] == b"GET")


async def serve(
    host: str,
    port: int,
    routes: Mapping[str, Route],
    *,
    timeout_s: float = TIMEOUT_S,
) -> Server:
    """Listen on `host` and `port` (0: a free one) and answer `routes` (path to route).

    Routes run on the event loop and must be quick.

    Raises:
        OSError: the address cannot be had.
    """
    server = Server(routes, timeout_s)
    await server.listen(host, port)
    return server


async def serve_at(
    path: str, routes: Mapping[str, Route], *, timeout_s: float = TIMEOUT_S
) -> Server:
    """Listen on a Unix socket: for another process of ours on this host.

    Raises:
        OSError: the name cannot be had.
    """
    server = Server(routes, timeout_s)
    await server.listen_at(path)
    return server


async def ask(path: str, target: str, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """Return the body of the answer of a server on a Unix socket, whatever its status.

    Raises:
        OSError: nobody listens, or the answer breaks off; `TimeoutError` is one, too.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(f"GET {target} HTTP/1.1\r\n\r\n".encode())
            answer = await reader.read()
        finally:
            writer.close()
    _, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        msg = "the answer breaks off"
        raise ConnectionResetError(msg)
    return body


def _plain(status: HTTPStatus) -> bytes:
    return _encoded(Answer(f"{status.phrase}\n".encode(), status), with_body=True)


def _encoded(answer: Answer, *, with_body: bool) -> bytes:
    allow = (
        "Allow: GET, HEAD\r\n" if answer.status is HTTPStatus.METHOD_NOT_ALLOWED else ""
    )
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
        f"{allow}Connection: close\r\n\r\n"
    )
    return head.encode() + (answer.body if with_body else b"")
