"""The proxy forwards faithfully, and harms exactly as it is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from streamproc.testing.tcp_proxy import TcpProxy

LIMIT_S = 10.0
BIG = bytes(range(256)) * 2000


@dataclass
class Echo:
    """A server that sends back what it gets, and remembers it."""

    got: bytearray = field(default_factory=bytearray)
    told: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(65536):
                self.got += data
                self.told.set()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self.gone.set()
            writer.close()


@dataclass
class Ends:
    """A client's two streams, the proxy between, and the server."""

    echo: Echo
    proxy: TcpProxy
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@asynccontextmanager
async def connected(proxy: TcpProxy | None = None) -> AsyncIterator[Ends]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(LIMIT_S), proxy or TcpProxy() as between:
        between.target = ("127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", between.port)
        try:
            yield Ends(echo, between, reader, writer)
        finally:
            writer.close()
            server.close()


async def said(ends: Ends, data: bytes) -> None:
    ends.writer.write(data)
    assert await ends.reader.readexactly(len(data)) == data


async def test_bytes_pass_both_ways_unharmed() -> None:
    async with connected() as ends:
        await said(ends, BIG)
        ends.writer.write_eof()

        assert await ends.reader.read() == b""
        await ends.echo.gone.wait()


async def test_what_is_held_back_comes_once_it_is_over() -> None:
    async with connected() as ends:
        await said(ends, b"before")
        ends.proxy.hold("down")
        ends.writer.write(b"held")
        while not ends.echo.got.endswith(b"held"):
            ends.echo.told.clear()
            await ends.echo.told.wait()
        answer = asyncio.create_task(ends.reader.readexactly(4))
        done, _ = await asyncio.wait({answer}, timeout=0.1)
        assert not done
        ends.proxy.heal()

        assert await answer == b"held"


async def test_a_hold_upwards_keeps_the_server_from_hearing() -> None:
    async with connected() as ends:
        await said(ends, b"before")
        ends.proxy.hold("up")
        ends.writer.write(b"held")
        answer = asyncio.create_task(ends.reader.readexactly(4))
        done, _ = await asyncio.wait({answer}, timeout=0.1)
        assert not done
        assert bytes(ends.echo.got) == b"before"
        ends.proxy.heal()

        assert await answer == b"held"


async def test_a_reset_is_a_reset_at_both_ends() -> None:
    async with connected() as ends:
        await said(ends, b"before")
        assert ends.proxy.reset() == 1

        with pytest.raises(ConnectionResetError):
            await ends.reader.readexactly(1)
        await ends.echo.gone.wait()


async def test_a_client_that_is_cut_off_hears_nothing_and_the_server_sees_it_go() -> (
    None
):
    async with connected() as ends:
        await said(ends, b"before")
        assert ends.proxy.cut_off() == 1
        await ends.echo.gone.wait()
        ends.writer.write(b"into the void")
        answer = asyncio.create_task(ends.reader.read(1))
        done, _ = await asyncio.wait({answer}, timeout=0.1)
        assert not done
        assert bytes(ends.echo.got) == b"before"
        assert ends.proxy.cut_off() == 0
        ends.proxy.heal()
        ends.proxy.reset()

        with pytest.raises(ConnectionResetError):
            await answer


async def test_new_connections_are_refused_while_told_so() -> None:
    async with connected() as ends:
        await said(ends, b"before")
        ends.proxy.refusing = True
        reader, writer = await asyncio.open_connection("127.0.0.1", ends.proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        ends.proxy.heal()

        await said(ends, b"the old one lives")


async def test_delay_and_rate_say_how_long_each_piece_waits() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with connected(TcpProxy(sleep=sleep)) as ends:
        await said(ends, b"quick")
        assert waits == []
        ends.proxy.delay_s, ends.proxy.bytes_per_s = 0.25, 100.0
        await said(ends, b"slow")

        assert waits == [0.25 + 0.04] * 2


async def test_a_server_that_is_away_closes_the_connection() -> None:
    async with asyncio.timeout(LIMIT_S), TcpProxy(("127.0.0.1", 1)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        assert proxy.open == 0
