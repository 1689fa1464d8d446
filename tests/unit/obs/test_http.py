"""The page server over a real loopback socket."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from streamproc.obs.health import Judgement
from streamproc.obs.http import (
    CONNECTIONS_MAX,
    HEAD_BYTES_MAX,
    Answer,
    Route,
    judged,
    serve,
    serve_at,
)
from streamproc.obs.http import ask as asked

ROUTES: Mapping[str, Route] = {
    "/metrics": lambda: Answer(b"m 1\n"),
    "/healthz": judged(lambda: Judgement(True, False, ("not yet",)), ready=False),
    "/readyz": judged(lambda: Judgement(True, False, ("not yet",)), ready=True),
}


async def ask(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send raw bytes, read to the end, return status, headers and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    await hang_up(writer)
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection that may already be gone."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def test_a_page_is_answered_and_the_connection_closed() -> None:
    async with await serve("127.0.0.1", 0, ROUTES) as server:
        status, headers, body = await ask(server.port, get("/metrics?x=1"))

    assert (status, body) == (200, b"m 1\n")
    assert headers["Content-Length"] == "4"
    assert headers["Connection"] == "close"


async def test_head_has_the_length_but_no_body() -> None:
    async with await serve("127.0.0.1", 0, ROUTES) as server:
        status, headers, body = await ask(server.port, get("/metrics", "HEAD"))

    assert (status, headers["Content-Length"], body) == (200, "4", b"")


async def test_health_and_readiness_say_why() -> None:
    async with await serve("127.0.0.1", 0, ROUTES) as server:
        alive, _, _ = await ask(server.port, get("/healthz"))
        ready, headers, body = await ask(server.port, get("/readyz"))

    assert (alive, ready) == (200, 503)
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {
        "status": "failing", "healthy": True, "ready": False, "reasons": ["not yet"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/other"), 404),
        (get("/metrics", "POST"), 405),
        (get("/metrics", "DELETE"), 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\x16\x03\x01 not http\r\n\r\n", 400),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", 404),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * (2 * HEAD_BYTES_MAX), 431),
    ],
    ids=["path", "post", "delete", "http09", "tls", "absolute", "dots", "large"],
)
async def test_anything_else_is_refused(request_bytes: bytes, status: int) -> None:
    async with await serve("127.0.0.1", 0, ROUTES) as server:
        found, _, body = await ask(server.port, request_bytes)

    assert found == status
    assert b"etc" not in body


async def test_a_client_that_says_nothing_is_dropped_in_time() -> None:
    async with await serve("127.0.0.1", 0, ROUTES, timeout_s=0.05) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /metrics HTT")
        async with asyncio.timeout(5):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        await hang_up(writer)


async def test_a_client_that_hangs_up_early_does_no_harm() -> None:
    async with await serve("127.0.0.1", 0, ROUTES) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /me")
        await hang_up(writer)
        status, _, _ = await ask(server.port, get("/metrics"))

    assert status == 200


async def test_more_connections_than_allowed_are_dropped_and_others_served() -> None:
    async with await serve("127.0.0.1", 0, ROUTES) as server:
        held = [
            await asyncio.open_connection("127.0.0.1", server.port)
            for _ in range(CONNECTIONS_MAX)
        ]
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        await hang_up(writer)
        held_reader, held_writer = held[0]
        held_writer.write(get("/metrics"))
        answer = await held_reader.read()
        for _, other in held:
            await hang_up(other)

    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_route_that_fails_answers_500_and_the_server_goes_on() -> None:
    def broken() -> Answer:
        message = "secret detail"
        raise RuntimeError(message)

    async with await serve("127.0.0.1", 0, {**ROUTES, "/broken": broken}) as server:
        status, _, body = await ask(server.port, get("/broken"))
        after, _, _ = await ask(server.port, get("/metrics"))

    assert (status, after) == (500, 200)
    assert b"secret" not in body


async def test_closing_twice_is_fine_and_the_port_is_free_again() -> None:
    server = await serve("127.0.0.1", 0, ROUTES)
    port = server.port
    await server.close()
    await server.close()

    async with await serve("127.0.0.1", port, ROUTES) as again:
        assert again.port == port


async def test_closing_drops_requests_under_way() -> None:
    server = await serve("127.0.0.1", 0, ROUTES, timeout_s=60)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(get("/metrics"))
    first = await reader.readuntil(b"m 1\n")
    silent, other = await asyncio.open_connection("127.0.0.1", server.port)
    other.write(b"GET /me")
    await other.drain()

    await server.close()

    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await silent.readexactly(1)
    assert first.startswith(b"HTTP/1.1 200")
    await hang_up(writer)
    await hang_up(other)


async def test_a_taken_port_is_an_error() -> None:
    async with await serve("127.0.0.1", 0, ROUTES) as server:
        with pytest.raises(OSError, match="in use"):
            await serve("127.0.0.1", server.port, ROUTES)


async def test_a_process_on_this_host_is_asked_through_a_socket(tmp_path: Path) -> None:
    async def later() -> Answer:
        await asyncio.sleep(0)
        return Answer(b"a page")

    path = str(tmp_path / "1.sock")
    async with await serve_at(path, {"/metrics": later}):
        assert await asked(path, "/metrics") == b"a page"
        assert await asked(path, "/nothing") == b"Not Found\n"


async def test_nobody_at_a_socket_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await asked(str(tmp_path / "nobody.sock"), "/metrics")
