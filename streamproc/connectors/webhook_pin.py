"""Connect to the address that was checked, whatever the name resolves to afterwards.

Against requests forged through our network position (OWASP, Server-Side Request Forgery
Prevention; SECURITY.md 14): a name is resolved once per request, every address of the
answer must be public or explicitly allowed, and the connection goes to one of just those.
TLS still asks for, and verifies, the certificate of the name.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import httpx

from streamproc.errors import ConfigError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port → addresses as text; raises `OSError`."""

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(Exception):
    """The name leads to an address we do not connect to."""


class PinnedTransport(httpx.AsyncBaseTransport):
    """An httpx transport for one target host.

    Args:
        resolve: asked once per request, never for an address literal.
        networks: what may be connected to although it is not public.
        loopback: an http URL may lead to a loopback address, and to nothing else.
        context: verifies the server.

    Raises:
        ConfigError: a network that is none.
    """

    def __init__(
        self,
        resolve: Resolve,
        *,
        networks: Sequence[str],
        loopback: bool,
        context: ssl.SSLContext,
    ) -> None:
        self._resolve = resolve
        self._networks = tuple(_network(text) for text in networks)
        self._loopback = loopback
        self._turn = 0
        self._inner = httpx.AsyncHTTPTransport(
            verify=context, trust_env=False, limits=httpx.Limits(max_connections=4)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Resolve, check, connect.

        Raises:
            AddressRefused: before anything is sent.
            OSError, httpx.TransportError: the name or the host does not answer.
        """
        host = request.url.raw_host.decode("ascii")
        addresses = await self._addresses(host, request.url)
        # The Host header was set from the name and stays.
        request.extensions = {**request.extensions, "sni_hostname": host}
        pinned = addresses[self._turn % len(addresses)]
        request.url = request.url.copy_with(host=str(pinned))
        try:
            return await self._inner.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            self._turn += 1  # the next attempt takes another of its addresses
            raise

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()

    async def _addresses(self, host: str, url: httpx.URL) -> Sequence[Address]:
        literal = _literal(host)
        if literal is None:
            port = url.port or (443 if url.scheme == "https" else 80)
            texts = await self._resolve(host, port)
            # A scope (`fe80::1%eth0`) does not make an address more public.
            found = [ipaddress.ip_address(text.split("%")[0]) for text in texts]
        else:
            found = [literal]
        if not found:
            msg = f"{host} has no address"
            raise OSError(msg)
        for address in found:
            if not self._allowed(address, url.scheme):
                msg = f"{host} leads to {address}, which is not public"
                raise AddressRefused(msg)
        return found

    def _allowed(self, address: Address, scheme: str) -> bool:
        address = _embedded(address)
        if scheme == "http":
            return self._loopback and address.is_loopback
        if any(address in network for network in self._networks):
            return True
        return address.is_global and not (address.is_multicast or address.is_reserved)


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver, without blocking the loop. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a client context: TLS 1.2 or newer, chain and name verified.

    Raises:
        ConfigError: the file is missing or is not PEM.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        msg = f"webhook certificates {ca_file}: {error}"
        raise ConfigError(msg) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        msg = f"webhook allow_networks: {error}"
        raise ConfigError(msg) from error


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _embedded(address: Address) -> Address:
    """Return the IPv4 address a translating IPv6 address leads to, else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
