"""Fetching from hosts outside the portal: only named ones, only https, and never an address of a private network.

Here: which outside URL may be opened, and a connection to exactly the address that was checked. Not here: what is
downloaded (downloads.py). Whoever may write a CALL_RECORD_URL must not be able to read our network through it (SSRF).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import httpx2

from dialog_assets import certificates
from dialog_assets.bitrix24.quiet import silence_urls
from dialog_assets.hosts import host_of, origin_of, place_of

_TIMEOUT = httpx2.Timeout(10.0, read=60.0)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NEVER = tuple(
    map(ipaddress.IPv6Network, ("64:ff9b:1::/48", "fec0::/10", "::/96", "::ffff:0:0:0/96", "100::/64", "3fff::/20"))
)
"""Local translation, site-local, addresses that stand for IPv4 ones in ways given up long ago, nowhere, documentation."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class NotAllowedError(Exception):
    """An outside address that must not be opened; the text is a sentence without the URL's path and query."""


async def addresses(host: str, port: int) -> Sequence[str]:
    """IP addresses of `host`, as the machine's resolver gives them. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, addresses that stand for another one taken as that one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if any(ip in network for network in _NEVER) or int(ip) >> 32 & 0xFFFFFFFF in (0x5EFE, 0x02005EFE):
            return False
    return ip.is_global and not ip.is_multicast


class OutsideHosts:
    """The allowed hosts, `name` or `name:port`; use `stream`.

    `resolve`, `allowed` and `verify` (certificates to trust, None for those of `certificates`) are seams for tests.
    """

    def __init__(
        self,
        hosts: Iterable[str] = (),
        *,
        resolve: Resolve = addresses,
        allowed: Callable[[str], bool] = is_public,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        silence_urls()
        self._hosts = frozenset(map(place_of, hosts))
        self._resolve = resolve
        self._allowed = allowed
        self._verify = verify or certificates.context()

    def __bool__(self) -> bool:
        return bool(self._hosts)

    def names(self, url: str) -> bool:
        """Whether the host of `url` is an allowed one."""
        place = origin_of(url)
        return place is not None and place.partition("://")[2] in self._hosts

    @asynccontextmanager
    async def stream(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[httpx2.Response]:
        """Open a GET without following redirects. Raises NotAllowedError before anything is sent, httpx2.RequestError."""
        parts = urlsplit(url)
        host = host_of(parts.hostname or "")
        if parts.scheme != "https":
            raise NotAllowedError("outside the portal only https is opened")
        if not self.names(url):
            raise NotAllowedError(f"host {host} is not in the portal file's record_hosts")
        if parts.username or parts.password:
            raise NotAllowedError("its address holds a user name")
        port = parts.port or 443
        try:
            found = await self._resolve(host, port)
        except OSError:
            found = []
        if not found:
            raise httpx2.ConnectError(f"no address for {host}")
        if not all(self._allowed(address) for address in found):
            # One private answer among public ones is what a rebinding server gives.
            raise NotAllowedError(f"host {host} lies in a private network")
        address = f"[{found[0]}]" if ":" in found[0] else found[0]
        # The checked address is the one connected to: a second look-up could give another. The certificate is the name's.
        target = urlunsplit(("https", f"{address}:{port}", parts.path or "/", parts.query, ""))
        shown = host if port == 443 else f"{host}:{port}"
        async with (
            # A client of its own each time: a kept connection belongs to an address and could serve another name.
            httpx2.AsyncClient(timeout=_TIMEOUT, verify=self._verify, trust_env=False) as http,
            http.stream(
                "GET",
                target,
                headers={**headers, "Host": shown},
                extensions={"sni_hostname": host},
                follow_redirects=False,
            ) as response,
        ):
            yield response
