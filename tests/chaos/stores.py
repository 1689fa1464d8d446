"""Where workers write: a folder of this host, or a bucket of a real S3 server.

Before the server stand two proxies: one spoils requests (503, 500 after the write was done,
answers lost), the other connections.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from obstore.store import S3Store

from streamproc.testing.s3_front import Fault, FaultFront, always, passing, share
from streamproc.testing.s3_server import ACCESS_KEY, SECRET_KEY, S3Server
from streamproc.testing.tcp_proxy import TcpProxy
from tests.oracle.folder import BucketFolder, Folder, LocalFolder

BUCKET, PREFIX = "chaos", "region"
BUSY = (
    *(Fault.SLOW_DOWN, Fault.INTERNAL, Fault.CONFLICT, Fault.RESET),
    *(Fault.APPLIED_500, Fault.APPLIED_RESET),
)
StoreFault = Callable[[random.Random], Awaitable[str]]


class Store(Protocol):
    """A root for workers, and what can go wrong with it alone."""

    def output(self) -> list[str]:
        """Return the configuration's lines from `[output]` on."""

    def folder(self) -> Folder:
        """Return how the oracle reads it."""

    def inspected(self) -> str:
        """Return what `streamproc inspect` is given."""

    @property
    def faults(self) -> Mapping[str, StoreFault]:
        """Return its own faults by name."""


class LocalRoot:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def output(self) -> list[str]:
        return [f'root = "{self._root}"']

    def folder(self) -> Folder:
        return LocalFolder(self._root)

    def inspected(self) -> str:
        return str(self._root)

    @property
    def faults(self) -> Mapping[str, StoreFault]:
        return {}


class Bucket:
    """A prefix of a bucket. The oracle goes straight to the server."""

    def __init__(self, server: S3Server, front: FaultFront, proxy: TcpProxy) -> None:
        self._server = server
        self._front = front
        self._proxy = proxy
        server.options(BUCKET)

    def output(self) -> list[str]:
        return [
            f'root = "{self.inspected()}"',
            "[s3]",
            f'endpoint = "http://127.0.0.1:{self._proxy.port}"',
            f'access_key_id = "{ACCESS_KEY}"',
            'secret_access_key_file = "s3.secret"',
            "path_style = true",
        ]

    def folder(self) -> Folder:
        return BucketFolder(
            S3Store(
                BUCKET,
                prefix=PREFIX,
                endpoint=self._server.endpoint,
                access_key_id=ACCESS_KEY,
                secret_access_key=SECRET_KEY,
                region="us-east-1",
                virtual_hosted_style_request=False,
                client_options={"allow_http": True},
            )
        )

    def inspected(self) -> str:
        return f"s3://{BUCKET}/{PREFIX}"

    @property
    def faults(self) -> Mapping[str, StoreFault]:
        return {
            fault.__name__: fault
            for fault in (
                *(self.store_busy, self.store_down, self.store_restart),
                *(self.store_reset, self.store_silent),
            )
        }

    async def store_busy(self, rng: random.Random) -> str:
        """Spoil a third of the requests, some after they were done."""
        self._front.judge = share(BUSY, 0.33, rng.getrandbits(32))
        return await self._healed(rng.uniform(4.0, 12.0))

    async def store_down(self, rng: random.Random) -> str:
        """Answer 503 to everything."""
        self._front.judge = always(Fault.SLOW_DOWN)
        return await self._healed(rng.uniform(3.0, 10.0))

    async def store_restart(self, rng: random.Random) -> str:
        """Kill the server; its data stay."""
        await asyncio.to_thread(self._server.kill)
        told = await self._healed(rng.uniform(0.0, 5.0))
        await asyncio.to_thread(self._server.start)
        return f"down {told}"

    async def store_reset(self, rng: random.Random) -> str:
        count = 0
        for _ in range(rng.randint(1, 5)):
            count += self._proxy.reset()
            await asyncio.sleep(0.3)
        return f"{count} connections"

    async def store_silent(self, rng: random.Random) -> str:
        """Hold back every byte one way or both."""
        self._proxy.hold(*rng.choice((("up",), ("down",), ("up", "down"))))
        return await self._healed(rng.uniform(2.0, 12.0))

    async def _healed(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        self._front.judge = passing
        self._proxy.heal()
        return f"{seconds:.1f} s"


@asynccontextmanager
async def open_store(kind: str, folder: Path) -> AsyncIterator[Store]:
    """Yield a fresh root of this kind, whatever it needs below `folder`."""
    if kind == "local":
        yield LocalRoot(folder / "root")
        return
    (folder / "s3.secret").write_text(SECRET_KEY, encoding="utf-8")
    (folder / "s3").mkdir()
    server = S3Server(folder / "s3")
    await asyncio.to_thread(server.start)
    try:
        with FaultFront(server.endpoint) as front:
            url = urlsplit(front.endpoint)
            assert url.hostname is not None
            assert url.port is not None
            async with TcpProxy((url.hostname, url.port)) as proxy:
                yield Bucket(server, front, proxy)
    finally:
        await asyncio.to_thread(server.stop)
