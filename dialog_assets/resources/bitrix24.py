"""Bitrix24 portals as a Dagster resource: each portal's credential, and what its runs share through Postgres.

Here: the request bucket and the tokens over the database, the client with the portal's settings. Not here: their logic
(bitrix24/pacing.py, bitrix24/oauth.py) and their SQL (store/).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dagster as dg

from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.credentials import Credential
from dialog_assets.bitrix24.oauth import TOKEN_URL, Application, Grant, OAuth
from dialog_assets.bitrix24.outside import OutsideHosts
from dialog_assets.bitrix24.pacing import room
from dialog_assets.bitrix24.webhook import Webhook
from dialog_assets.portals import OAuthSettings, Portal
from dialog_assets.resources.environment import required
from dialog_assets.store import oauth_tokens, request_buckets
from dialog_assets.store.oauth_tokens import Seal
from dialog_assets.store.pool import Connection, Pool


class PostgresPacer:
    """The portal's bucket, counted in Postgres, so that runs side by side stay under one limit."""

    def __init__(self, pool: Pool, portal: str, size: float, drain_per_second: float) -> None:
        self._pool = pool
        self._portal = portal
        self._room = room(size, drain_per_second)
        self._drain = drain_per_second

    async def take(self) -> None:
        """Return when one more request may be sent."""
        async with self._pool.connection() as connection:
            # One statement without BEGIN and COMMIT is one round trip; changing the mode is none.
            try:
                await connection.set_autocommit(True)
                wait = await request_buckets.reserve(connection, self._portal, self._room, self._drain)
            finally:
                if not connection.closed:
                    await connection.set_autocommit(False)
        if wait > 0:
            await asyncio.sleep(wait)


class PostgresVault:
    """A portal's tokens in Postgres, sealed; one process at a time holds them."""

    def __init__(self, pool: Pool, portal: str, seal: Seal) -> None:
        self._pool = pool
        self._portal = portal
        self._seal = seal

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[_Entry]:
        """The portal's entry; committed at the end."""
        async with self._pool.connection() as connection, connection.transaction():
            await oauth_tokens.lock(connection, self._portal)
            yield _Entry(connection, self._portal, self._seal)


class _Entry:
    def __init__(self, connection: Connection, portal: str, seal: Seal) -> None:
        self._connection = connection
        self._portal = portal
        self._seal = seal

    async def load(self) -> Grant | None:
        found = await oauth_tokens.load(self._connection, self._portal, self._seal)
        return None if found is None else Grant(version=found[0], **found[1])

    async def store(self, grant: Grant) -> None:
        values = {
            "access_token": grant.access_token,
            "refresh_token": grant.refresh_token,
            "base": grant.base,
            "authorisation": grant.authorisation,
        }
        await oauth_tokens.store(self._connection, self._portal, self._seal, grant.version, values)


class Bitrix24Resource(dg.ConfigurableResource[None]):
    """Opens a client per portal; the credential is in the variables that the portal's file names."""

    @asynccontextmanager
    async def client(self, portal: Portal, pool: Pool) -> AsyncIterator[Bitrix24Client]:
        """A client for `portal`, for the length of one step. Raises MissingCredential."""
        settings = portal.bitrix24
        credential: Credential
        if settings.oauth is not None:
            credential = _application(portal, settings.oauth, pool)
        else:
            name = settings.webhook or ""
            url = required(name, f"the inbound webhook URL of portal {portal.portal}")
            credential = Webhook(url, plain_http=settings.plain_http)
        async with Bitrix24Client(
            credential,
            pacer=PostgresPacer(pool, portal.portal, settings.bucket_size, settings.drain_per_second),
            operating_limit_s=settings.operating_limit_s,
            downloads_count=settings.downloads_count,
            link_hosts=settings.link_hosts,
        ) as client:
            yield client

    def outside(self, portal: Portal) -> OutsideHosts:
        """The hosts outside the portal from which its recordings may be fetched."""
        return OutsideHosts(portal.bitrix24.record_hosts)


def _application(portal: Portal, settings: OAuthSettings, pool: Pool) -> OAuth:
    whose = f"of portal {portal.portal}'s OAuth application"
    application = Application(
        client_id=required(settings.client_id, f"the client id {whose}"),
        client_secret=required(settings.client_secret, f"the client secret {whose}"),
        refresh_token=required(settings.refresh_token, f"the first refresh token {whose}"),
        token_url=settings.token_url or os.environ.get("BITRIX24_TOKEN_URL") or TOKEN_URL,
    )
    key = required("DIALOG_ASSETS_SECRET_KEY", f"the key that seals stored tokens; make one: {oauth_tokens.MAKE_A_KEY}")
    vault = PostgresVault(pool, portal.portal, Seal(key))
    return OAuth(application, vault, base=f"https://{portal.domain}/rest/")
