"""Bitrix24 portals as a Dagster resource: the webhook of each portal, and its request bucket shared through Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dagster as dg

from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.portals import Portal
from dialog_assets.resources.environment import required
from dialog_assets.store import request_buckets
from dialog_assets.store.pool import Pool


class PostgresPacer:
    """The portal's bucket, counted in Postgres, so that runs side by side stay under one limit."""

    def __init__(self, pool: Pool, portal: Portal) -> None:
        self._pool = pool
        self._portal = portal

    async def take(self) -> None:
        """Return when one more request may be sent."""
        settings = self._portal.bitrix24
        async with self._pool.connection() as connection:
            wait = await request_buckets.reserve(
                connection, self._portal.portal, settings.bucket_size, settings.drain_per_second
            )
        if wait > 0:
            await asyncio.sleep(wait)


class Bitrix24Resource(dg.ConfigurableResource[None]):
    """Opens a client per portal; the inbound webhook's URL is in the variable that the portal's file names."""

    @asynccontextmanager
    async def client(self, portal: Portal, pool: Pool) -> AsyncIterator[Bitrix24Client]:
        """A client for `portal`, for the length of one step. Raises MissingCredential."""
        name = portal.bitrix24.webhook
        webhook = required(name, f"the inbound webhook URL of portal {portal.portal}")
        async with Bitrix24Client(webhook, pacer=PostgresPacer(pool, portal)) as client:
            yield client
