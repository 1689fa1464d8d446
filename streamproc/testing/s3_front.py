"""Faults in front of a real S3 server: an HTTP proxy on loopback that misbehaves on demand.

A client uses `FaultFront.endpoint` instead of the server's. Every request is handed to the
front's `judge`, which lets it pass or names a `Fault`. Requests reach the server as they were
signed, so what passes is what the real server answers.

```python
with FaultFront(server.endpoint) as front:
    front.judge = first(Fault.APPLIED_500, lambda asked: asked.method == "PUT")
```
"""

import random
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self, TypeAlias
from urllib.parse import unquote, urlsplit

_UPSTREAM_S: Final = 60.0
_DONE: Final = 200
_REFUSED: Final = 412


class _Server(ThreadingHTTPServer):
    """A client that resets its connection is what faults are about: nothing is said of it."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Fault(Enum):
    """What happens to one request: whether the server sees it, and what the client gets.

    `RACY`: creates of one name that come at once are all told that they won, as by a service
    that looks first and writes then; one that comes later is refused. `IGNORED`: told that it is
    done, and nothing was.
    """

    SLOW_DOWN = (False, 503, "SlowDown")
    INTERNAL = (False, 500, "InternalError")
    APPLIED_500 = (True, 500, "InternalError")
    APPLIED_IN_BODY = (True, 200, "InternalError")
    CONFLICT = (False, 409, "ConditionalRequestConflict")
    PRECONDITION = (False, 412, "PreconditionFailed")
    DENIED = (False, 403, "AccessDenied")
    EXPIRED = (False, 403, "ExpiredToken")
    NO_BUCKET = (False, 404, "NoSuchBucket")
    RESET = (False, 0, "")
    APPLIED_RESET = (True, 0, "")
    TRUNCATED = (True, -1, "")
    FLIPPED = (True, -2, "")
    STALL = (False, -3, "")
    APPLIED_STALL = (True, -3, "")
    RACY = (True, -4, "")
    IGNORED = (False, -5, "")

    @property
    def reaches(self) -> bool:
        """Tell whether the server gets the request."""
        return bool(self.value[0])

    @property
    def status(self) -> int:
        """Return the status of the answer; below 1 where it is no answer of that kind."""
        return int(self.value[1])


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as a judge sees it: `key` without the bucket, unquoted."""

    method: str
    key: str
    query: str
    conditional: bool
    copies: bool


Judge: TypeAlias = Callable[[Asked], Fault | None]


def passing(_: Asked) -> Fault | None:
    """Let everything pass."""
    return None


def always(fault: Fault, which: Callable[[Asked], bool] = lambda _: True) -> Judge:
    """Return a judge that gives every request of a kind the same fault."""
    return lambda asked: fault if which(asked) else None


def first(
    fault: Fault, which: Callable[[Asked], bool] = lambda _: True, times: int = 1
) -> Judge:
    """Return a judge that spoils the first requests of a kind, and no others."""
    left, lock = [times], threading.Lock()

    def judge(asked: Asked) -> Fault | None:
        with lock:
            if left[0] and which(asked):
                left[0] -= 1
                return fault
        return None

    return judge


def share(
    faults: tuple[Fault, ...],
    of_all: float,
    seed: int,
    which: Callable[[Asked], bool] = lambda _: True,
) -> Judge:
    """Return a judge that spoils a share of the requests, drawn from a seed."""
    drawn, lock = random.Random(seed), threading.Lock()  # noqa: S311  (a test's chance)

    def judge(asked: Asked) -> Fault | None:
        with lock:
            if which(asked) and drawn.random() < of_all:
                return drawn.choice(faults)
        return None

    return judge


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class FaultFront:
    """The proxy; a context manager. `judge` may be replaced at any time.

    Attributes:
        judge: decides over each request.
        asked: every request so far, in order of arrival.
    """

    def __init__(self, upstream: str) -> None:
        self.judge: Judge = passing
        self.asked: list[Asked] = []
        self._upstream = urlsplit(upstream).netloc
        self._released = threading.Event()
        self._created: set[str] = set()
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def serve(self) -> None:
                front._serve(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = serve  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """Return the URL to use instead of the server's."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def release(self) -> None:
        """Let go of every stalled request: its connection ends without an answer."""
        self._released.set()
        self._released = threading.Event()

    # --- one request ------------------------------------------------------------------

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        asked = _asked(handler)
        self.asked.append(asked)
        released = self._released
        fault = self.judge(asked)
        with suppress(OSError, HTTPException):
            answer = None
            if fault is Fault.RACY and asked.conditional:
                answer = self._racy(handler, asked.key, body)
            elif fault is None or fault.reaches:
                answer = self._forward(handler, handler.command, body)
            if fault is None or fault is Fault.RACY:
                assert answer is not None
                _send(handler, answer)
                return
            self._spoil(handler, fault, answer, released)

    def _spoil(
        self,
        handler: BaseHTTPRequestHandler,
        fault: Fault,
        answer: _Answer | None,
        released: threading.Event,
    ) -> None:
        if fault.status > 0:
            text = f"<Error><Code>{fault.value[2]}</Code><Message>as ordered</Message></Error>"
            kind = (("Content-Type", "application/xml"),)
            _send(handler, _Answer(fault.status, kind, text.encode()))
            return
        if fault is Fault.IGNORED:
            done = b"<CopyObjectResult><ETag>e</ETag></CopyObjectResult>"
            _send(handler, _Answer(_DONE, (("ETag", '"e"'),), done))
            return
        if fault is Fault.FLIPPED and answer is not None:
            body = bytearray(answer.body)
            if body:
                body[len(body) // 2] ^= 1
            _send(handler, _Answer(answer.status, answer.headers, bytes(body)))
            return
        if fault is Fault.TRUNCATED and answer is not None:
            _send(handler, answer, cut=True)
        elif fault in {Fault.STALL, Fault.APPLIED_STALL}:
            released.wait()
        handler.close_connection = True

    def _racy(self, handler: BaseHTTPRequestHandler, key: str, body: bytes) -> _Answer:
        """Tell a create that it won unless the name was taken before it came."""
        taken = key in self._created
        answer = self._forward(handler, handler.command, body)
        self._created.add(key)
        if taken or answer.status != _REFUSED:
            return answer
        return _Answer(_DONE, (("ETag", '"won"'),), b"")

    def _forward(
        self, handler: BaseHTTPRequestHandler, method: str, body: bytes
    ) -> _Answer:
        connection = HTTPConnection(self._upstream, timeout=_UPSTREAM_S)
        try:
            connection.putrequest(
                method, handler.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in handler.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            headers = tuple(
                (name, value)
                for name, value in answer.getheaders()
                if name.lower() not in {"transfer-encoding", "connection"}
            )
            return _Answer(answer.status, headers, answer.read())
        finally:
            connection.close()


def _asked(handler: BaseHTTPRequestHandler) -> Asked:
    url = urlsplit(handler.path)
    key = unquote(url.path).lstrip("/").partition("/")[2]
    return Asked(
        method=handler.command,
        key=key,
        query=url.query,
        conditional=handler.headers.get("If-None-Match") is not None,
        copies=handler.headers.get("x-amz-copy-source") is not None,
    )


def _send(
    handler: BaseHTTPRequestHandler, answer: _Answer, *, cut: bool = False
) -> None:
    handler.send_response_only(answer.status)
    told = {name.lower() for name, _ in answer.headers}
    for name, value in answer.headers:
        if name.lower() != "content-length" or handler.command == "HEAD":
            handler.send_header(name, value)
    if handler.command != "HEAD" or "content-length" not in told:
        handler.send_header("Content-Length", str(len(answer.body)))
    handler.end_headers()
    if handler.command != "HEAD":
        body = answer.body[: len(answer.body) // 2] if cut else answer.body
        handler.wfile.write(body)
    handler.wfile.flush()
