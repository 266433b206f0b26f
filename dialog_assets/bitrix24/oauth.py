"""The credential of an OAuth application: access tokens of an hour, and the refresh token that changes with each use.

Here: when a token is renewed (on expired_token only, once however many wait), and the request that does it. Not here:
where tokens are kept (a `Vault`; over Postgres in resources/). Source: facts/bitrix24.md 1.4.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx2

from dialog_assets import certificates
from dialog_assets.bitrix24.answers import TooLargeError, decoded, read
from dialog_assets.bitrix24.credentials import Access, renamed, without
from dialog_assets.bitrix24.errors import Bitrix24AccessError, Bitrix24Error, Bitrix24UnavailableError, classify
from dialog_assets.bitrix24.quiet import silence_urls
from dialog_assets.bitrix24.retries import pause_s
from dialog_assets.hosts import is_loopback, origin_of
from dialog_assets.said import LONGEST, said, said_code

TOKEN_URL = "https://oauth.bitrix24.tech/oauth/token/"  # noqa: S105 - an address

_METHOD = "oauth/token"
_ATTEMPTS = 3
_TIMEOUT = httpx2.Timeout(30.0)
_WHOLE_S = 60.0
_MAX_BYTES = 100_000
_ADVICE = {
    "invalid_grant": "the refresh token is used up or older than 180 days: authorise the application again and put the "
    "new refresh token into its variable",
    "invalid_client": "check the application's client id and secret",
    "PAYMENT_REQUIRED": "the portal's subscription has ended",
}


@dataclass(frozen=True, slots=True)
class Application:
    """An OAuth application as the vendor registered it, and the refresh token that a person's authorisation gave."""

    client_id: str
    client_secret: str = field(repr=False)
    refresh_token: str = field(repr=False)
    token_url: str = TOKEN_URL

    @property
    def authorisation(self) -> str:
        """Which authorisation tokens descend from: a digest of the first refresh token."""
        return hashlib.sha256(self.refresh_token.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Grant:
    """What the token endpoint gave; `version` counts the refreshes, `base` is where the portal's methods are."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    base: str
    version: int
    authorisation: str


class VaultEntry(Protocol):
    """One portal's tokens, while nobody else can touch them."""

    async def load(self) -> Grant | None:
        """What was stored last."""

    async def store(self, grant: Grant) -> None:
        """Keep `grant`; durable once the vault is unlocked."""


class Vault(Protocol):
    """Keeps one portal's tokens for everybody who uses them."""

    def locked(self) -> AbstractAsyncContextManager[VaultEntry]:
        """The entry, held exclusively, among processes too."""


class MemoryVault:
    """A vault of one process. After its end the last refresh token is lost unless `on_store` keeps it."""

    def __init__(self, grant: Grant | None = None, on_store: Callable[[Grant], None] | None = None) -> None:
        self.grant = grant
        self._on_store = on_store
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[MemoryVault]:
        """The only entry."""
        async with self._lock:
            yield self

    async def load(self) -> Grant | None:
        """What was stored last."""
        return self.grant

    async def store(self, grant: Grant) -> None:
        """Keep it here and with `on_store`."""
        if self._on_store is not None:
            self._on_store(grant)
        self.grant = grant


class OAuth:
    """An application's access to one portal; its repr holds no secret.

    `base` (`https://{portal}/rest/`) is where methods are until the token endpoint names a client_endpoint. `transport`
    and `sleep` are seams for tests. `access` and `renewed` raise Bitrix24AccessError when the authorisation is over.
    """

    is_application = True

    def __init__(
        self,
        application: Application,
        vault: Vault,
        *,
        base: str,
        transport: httpx2.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        silence_urls()
        self._application = application
        self._vault = vault
        self._base = base
        self._transport = transport
        self._sleep = sleep
        self._grant: Grant | None = None
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"OAuth({self.origin})"

    @property
    def origin(self) -> str:
        """Where the portal is now."""
        return origin_of(self._base) or ""

    async def access(self) -> Access:
        """The present access token; the first call takes the stored one, or the first one of this authorisation."""
        return self._access(self._grant or await self._newer_than(0))

    async def renewed(self, used: Access) -> Access:
        """An access token newer than `used`: from the vault when another process renewed it, else from the vendor."""
        return self._access(await self._newer_than(used.version))

    def hide(self, text: str) -> str:
        """`text` without the tokens and the application's secret."""
        secrets = [self._application.client_secret, self._application.refresh_token]
        if self._grant is not None:
            secrets += [self._grant.access_token, self._grant.refresh_token]
        return without(text, *secrets)

    def follow(self, used: Access, method: str, location: str) -> bool:
        """Take over the portal's new domain until the next refresh names it."""
        base = renamed(used.base, method, location)
        if base is not None:
            self._base = base
        return base is not None

    def _access(self, grant: Grant) -> Access:
        return Access(self._base, grant.access_token, grant.version)

    async def _newer_than(self, version: int) -> Grant:
        async with self._lock:
            if self._grant is not None and self._grant.version > version:
                return self._grant
            async with self._vault.locked() as entry:
                stored = await entry.load()
                if stored is not None and stored.authorisation != self._application.authorisation:
                    # A person authorised again: what descends from the old authorisation is not used any more.
                    grant = await self._refresh(self._application.refresh_token, stored.version + 1)
                    await entry.store(grant)
                elif stored is not None and stored.version > version:
                    grant = stored
                else:
                    token = self._application.refresh_token if stored is None else stored.refresh_token
                    grant = await self._refresh(token, 1 if stored is None else stored.version + 1)
                    await entry.store(grant)
            # Only here, behind the vault's commit: a token that is used but not stored would be lost with this process.
            self._grant = grant
            self._base = grant.base
            return grant

    async def _refresh(self, refresh_token: str, version: int) -> Grant:
        attempt = 0
        while True:
            attempt += 1
            try:
                body = await self._ask(refresh_token)
            except Bitrix24UnavailableError as error:
                if attempt >= _ATTEMPTS:
                    raise
                await self._sleep(pause_s(error, attempt))
            else:
                endpoint = body.get("client_endpoint")
                return Grant(
                    access_token=str(body["access_token"]),
                    refresh_token=str(body["refresh_token"]),
                    base=_base(endpoint, self._base, self._application.token_url) or self._base,
                    version=version,
                    authorisation=self._application.authorisation,
                )

    async def _ask(self, refresh_token: str) -> dict[str, Any]:
        # The vendor documents GET with a query only; the library's log of URLs is silenced, and its errors stay here.
        params = {
            "grant_type": "refresh_token",
            "client_id": self._application.client_id,
            "client_secret": self._application.client_secret,
            "refresh_token": refresh_token,
        }
        failure: Bitrix24Error | None = None
        answer: tuple[int, bytes] | None = None
        try:
            async with (
                asyncio.timeout(_WHOLE_S),
                httpx2.AsyncClient(transport=self._transport, timeout=_TIMEOUT, verify=certificates.context()) as http,
                http.stream("GET", self._application.token_url, params=params, follow_redirects=False) as response,
            ):
                answer = response.status_code, await read(response, _MAX_BYTES)
        except TimeoutError:
            failure = _unavailable("timeout", None)
        except TooLargeError:
            failure = _unavailable("its answer is too large", None)
        except httpx2.RequestError as error:
            fault = certificates.fault(error)
            failure = _unavailable(type(error).__name__, None)
            if fault is not None:
                failure = Bitrix24AccessError("certificate", method=_METHOD, advice=fault)
        if answer is not None:
            status, body = answer[0], _decoded(answer[1])
            if (
                status == httpx2.codes.OK
                and _is_token(body.get("access_token"))
                and _is_token(body.get("refresh_token"))
            ):
                return body
            failure = self._failure(status, body)
        raise failure or _unavailable("no answer", None)

    def _failure(self, status: int, body: dict[str, Any]) -> Bitrix24Error:
        code = str(body.get("error") or "")
        known = classify(status, body)
        if not code or status >= 500 or (known is not None and known.retryable):
            return _unavailable(code or "no token came", status)
        text = said(self.hide(str(body.get("error_description") or "")[:LONGEST]))
        advice = _ADVICE.get(code, "check the application's settings in the portal")
        return Bitrix24AccessError(said_code(code), method=_METHOD, status=status, description=text, advice=advice)


def _unavailable(what: str, status: int | None) -> Bitrix24UnavailableError:
    return Bitrix24UnavailableError(
        "token_endpoint",
        method=_METHOD,
        status=status,
        description=said(what),
        advice="the vendor's authorisation server is in trouble; the next run tries again",
        retryable=True,
    )


def _decoded(content: bytes) -> dict[str, Any]:
    body, _ = decoded(content)
    return body if isinstance(body, dict) else {}


def _is_token(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= _MAX_BYTES // 2


def _base(endpoint: object, known: str, token_url: str) -> str | None:
    """A client_endpoint as a base, None when it is none: the token goes there, so it must be the name of a host, over https.

    `known` is the base so far: its own scheme and host are good in any case. An authorisation server on this machine may
    name a portal on this machine.
    """
    place = origin_of(endpoint) if isinstance(endpoint, str) else None
    if not isinstance(endpoint, str) or place is None:
        return None
    parts, found = urlsplit(endpoint), urlsplit(place)
    host = found.hostname or ""
    if parts.query or parts.fragment or "@" in parts.netloc or "\\" in endpoint or not parts.path.startswith("/"):
        return None
    here = is_loopback(host) and is_loopback(urlsplit(token_url).hostname or "")
    if place != origin_of(known) and not here and (found.scheme != "https" or _is_address(host)):
        return None
    return f"{place}{parts.path.rstrip('/')}/"


def _is_address(host: str) -> bool:
    """Whether a host is an IP address in any of the spellings that a resolver takes, or this machine."""
    if host == "localhost" or host.endswith(".localhost") or ":" in host:
        return True
    last = host.rpartition(".")[2]
    return last.isdecimal() or (last.startswith("0x") and all(digit in "0123456789abcdef" for digit in last[2:]))
