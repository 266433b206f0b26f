"""Tokens are renewed once, stored before they are used, and shown nowhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.errors import Bitrix24AccessError, Bitrix24UnavailableError
from dialog_assets.bitrix24.oauth import Application, Grant, MemoryVault, OAuth
from dialog_assets_tests.bitrix24.small_portal import Freely, Naps, asked, bad, good

FIRST = "f1rstr3fr3sht0ken"
CLIENT_SECRET = "cl1ents3cr3t0000"
APPLICATION = Application("app.1", CLIENT_SECRET, FIRST)


class Vendor:
    """A token endpoint that rotates the refresh token, and a portal that takes the newest access token only."""

    def __init__(self) -> None:
        self.refresh_token = FIRST
        self.access_token = ""
        self.refreshes = 0
        self.calls: list[str] = []
        self.urls: list[str] = []
        self.on_call: Callable[[], None] = lambda: None

    def tokens(self, request: httpx2.Request) -> httpx2.Response:
        """The token endpoint."""
        if request.url.params["refresh_token"] != self.refresh_token:
            return httpx2.Response(400, json={"error": "invalid_grant", "error_description": "Invalid refresh token"})
        assert request.url.params["client_secret"] == CLIENT_SECRET
        self.refreshes += 1
        self.access_token, self.refresh_token = f"acc3ss{self.refreshes:010}", f"r3fr3sh{self.refreshes:010}"
        answer = {"access_token": self.access_token, "refresh_token": self.refresh_token, "expires_in": 3600}
        return httpx2.Response(200, json={**answer, "client_endpoint": "https://portal.example/rest/"})

    def portal(self, request: httpx2.Request) -> httpx2.Response:
        """The portal."""
        self.on_call()
        self.urls.append(str(request.url))
        method, params = asked(request)
        if params.pop("auth", None) != self.access_token:
            return bad(401, "expired_token", "The access token provided has expired")
        self.calls.append(method)
        return good(params)

    def oauth(self, vault: MemoryVault, application: Application = APPLICATION) -> OAuth:
        """A credential of one process."""
        transport = httpx2.MockTransport(self.tokens)
        return OAuth(application, vault, base="https://old.example/rest/", transport=transport, sleep=Naps())

    def client(self, vault: MemoryVault) -> Bitrix24Client:
        """A client of one process."""
        transport = httpx2.MockTransport(self.portal)
        return Bitrix24Client(self.oauth(vault), pacer=Freely(), sleep=Naps(), transport=transport)


def test_one_refresh_however_many_wait(caplog: pytest.LogCaptureFixture) -> None:
    """Thirty requests of two processes meet an expired token: one refresh, every call answered, no token in a URL or log."""
    caplog.set_level(logging.DEBUG)
    vendor, vault = Vendor(), MemoryVault()

    async def go() -> None:
        async with vendor.client(vault) as one, vendor.client(vault) as other:
            await asyncio.gather(one.call("a"), other.call("a"))
            assert vendor.refreshes == 1
            vendor.access_token = "another"
            await asyncio.gather(*(client.call("b", {"x": 1}) for client in (one, other) for _ in range(15)))
            assert one.origin == "https://portal.example"

    asyncio.run(go())
    assert vendor.refreshes == 2
    assert vendor.calls == ["a"] * 2 + ["b"] * 30
    tokens = (FIRST, CLIENT_SECRET, "acc3ss", "r3fr3sh")
    assert not any(token in text for token in tokens for text in [*vendor.urls, caplog.text, repr(vault.grant)])


def test_the_rotated_token_is_stored_before_it_is_used() -> None:
    """When the first request with a new token leaves, the vault has its refresh token already."""
    vendor = Vendor()
    stored: list[str] = []
    vault = MemoryVault(on_store=lambda grant: stored.append(grant.refresh_token))

    def check() -> None:
        assert stored[-1] == vendor.refresh_token

    vendor.on_call = check

    async def go() -> None:
        async with vendor.client(vault) as client:
            await client.call("a")
            vendor.access_token = "another"
            await client.call("a")

    asyncio.run(go())
    assert stored == ["r3fr3sh0000000001", "r3fr3sh0000000002"]


def test_a_later_process_goes_on_with_the_stored_tokens() -> None:
    """The first refresh token is used once in its life."""
    vendor, vault = Vendor(), MemoryVault()

    async def go() -> None:
        for _ in range(3):
            async with vendor.client(vault) as client:
                await client.call("a")

    asyncio.run(go())
    assert vendor.refreshes == 1


def test_a_new_authorisation_replaces_the_stored_tokens() -> None:
    """A new first refresh token in its variable is taken although older tokens are stored."""
    vendor = Vendor()
    old = Application("app.1", CLIENT_SECRET, "an0ther0ldt0ken")
    vault = MemoryVault(Grant("dead", "dead", "https://portal.example/rest/", 7, old.authorisation))

    async def go() -> None:
        async with vendor.client(vault) as client:
            await client.call("a")

    asyncio.run(go())
    assert vendor.refreshes == 1
    assert vault.grant is not None
    assert vault.grant.version == 8


def test_a_dead_refresh_token_stops_with_what_to_do() -> None:
    """invalid_grant is one clear error without the token, after one request."""
    vendor = Vendor()
    vendor.refresh_token = "else"

    async def go() -> None:
        async with vendor.client(MemoryVault()) as client:
            await client.call("a")

    with pytest.raises(Bitrix24AccessError, match="authorise the application again") as caught:
        asyncio.run(go())
    assert caught.value.code == "invalid_grant"
    assert FIRST not in f"{caught.value!r}"
    assert vendor.calls == []


def test_a_broken_token_endpoint_is_tried_again_and_then_said() -> None:
    """HTML and resets pass; when they stay, the error is passing and holds no secret."""
    answers: list[Any] = [httpx2.Response(502, html="<html>"), httpx2.ConnectError(FIRST)]
    vendor = Vendor()

    def flaky(request: httpx2.Request) -> httpx2.Response:
        if not answers:
            return vendor.tokens(request)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, httpx2.Response)
        return answer

    def credential(handler: Callable[[httpx2.Request], httpx2.Response]) -> OAuth:
        transport = httpx2.MockTransport(handler)
        return OAuth(APPLICATION, MemoryVault(), base="https://p.example/rest/", transport=transport, sleep=Naps())

    assert asyncio.run(credential(flaky).access()).token == vendor.access_token
    with pytest.raises(Bitrix24UnavailableError) as caught:
        asyncio.run(credential(lambda _: httpx2.Response(502)).access())
    assert caught.value.retryable


def test_a_token_that_stays_expired_ends() -> None:
    """A portal that refuses every token costs two refreshes and no endless loop."""
    vendor = Vendor()

    async def go() -> None:
        transport = httpx2.MockTransport(lambda _: bad(401, "expired_token"))
        async with Bitrix24Client(vendor.oauth(MemoryVault()), pacer=Freely(), transport=transport) as client:
            await client.call("a")

    with pytest.raises(Bitrix24AccessError, match="authorise again"):
        asyncio.run(go())
    assert vendor.refreshes == 3
