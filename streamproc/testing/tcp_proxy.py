"""A TCP proxy on loopback that misbehaves on demand: for tests of what a bad network does.

It stands in front of a server; clients connect to `port`. What it can do is what networks do:
bytes come late or slowly, are held back one way or both (and come once it is over, as
retransmissions would), connections are reset, or the far end vanishes without a word.

```python
async with TcpProxy(("127.0.0.1", 9092)) as proxy:
    proxy.hold("down")
```

Every method belongs to the loop it was opened in.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Self

Way = Literal["up", "down"]
"""`up`: from the client to the server."""

WAYS: Final[tuple[Way, Way]] = ("up", "down")

_CHUNK_BYTES: Final = 64 << 10
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER for no time: close sends RST


@dataclass(eq=False, slots=True)
class _Link:
    """One client's connection and ours to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    cut_off: bool = False
    pumps: "list[asyncio.Task[None]]" = field(default_factory=list)


class TcpProxy:
    """Forwards connections to `target` and harms them as told; an async context manager.

    Attributes:
        target: host and port of the server; may be set, or change, while it runs.
        delay_s: how late every piece of up to 64 KiB comes, each way.
        bytes_per_s: how fast bytes go, each way and connection; None: unlimited.
        refusing: whether new connections are reset at once.
        accepted: how many connections were accepted so far.
    """

    def __init__(
        self,
        target: tuple[str, int] | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.target = target
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.refusing = False
        self.accepted = 0
        self._sleep = sleep
        self._free = {way: asyncio.Event() for way in WAYS}
        self._links: set[_Link] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self.heal()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening and reset what is open."""
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """Return the port it listens on."""
        assert self._server is not None, "not open"
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def open(self) -> int:
        """Return how many connections it holds."""
        return len(self._links)

    # --- faults -----------------------------------------------------------------------

    def hold(self, *ways: Way) -> None:
        """Hold back every byte that goes one of these ways, and open no connection."""
        for way in ways:
            self._free[way].clear()

    def heal(self) -> None:
        """End every lasting fault; bytes held back go on. What was cut off stays so."""
        self.delay_s, self.bytes_per_s, self.refusing = 0.0, None, False
        for free in self._free.values():
            free.set()

    def reset(self) -> int:
        """Reset every connection, both ends; return how many."""
        for link in self._links:
            for end in (link.client, link.server):
                _abort(end)
            for pump in link.pumps:
                pump.cancel()
        return len(self._links)

    def cut_off(self) -> int:
        """Let the server's end of every connection vanish; clients are told nothing.

        What they send is swallowed (a half-open connection). Returns how many there were.
        """
        count = 0
        for link in self._links:
            if not link.cut_off:
                link.cut_off = True
                _abort(link.server)
                count += 1
        return count

    # --- forwarding -------------------------------------------------------------------

    async def _accept(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(reader, client)
        finally:
            _abort(client)
            self._serving.discard(task)

    async def _serve(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        self.accepted += 1
        for free in self._free.values():
            await free.wait()
        if self.refusing or self.target is None:
            return
        try:
            far, server = await asyncio.open_connection(*self.target)
        except OSError:
            return
        link = _Link(client, server)
        link.pumps = [
            asyncio.create_task(self._pump(link, "up", reader, server)),
            asyncio.create_task(self._pump(link, "down", far, client)),
        ]
        self._links.add(link)
        try:
            await asyncio.gather(*link.pumps, return_exceptions=True)
        finally:
            for pump in link.pumps:
                pump.cancel()
            self._links.discard(link)
            _abort(server)

    async def _pump(
        self,
        link: _Link,
        way: Way,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Forward one way until either end is gone; then tell the other end."""
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if link.cut_off:
                    continue
                await self._harm(way, len(data))
                writer.write(data)
                await writer.drain()
        if link.cut_off and way == "down":
            return
        # Whoever goes, the other end hears of it: in order here, with a reset in `reset`.
        await self._free[way].wait()
        with suppress(OSError):
            writer.write_eof()

    async def _harm(self, way: Way, size: int) -> None:
        await self._free[way].wait()
        rate = self.bytes_per_s
        wait_s = self.delay_s + (size / rate if rate else 0.0)
        if wait_s > 0:
            await self._sleep(wait_s)
            await self._free[way].wait()


def _abort(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        end: socket.socket = writer.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
