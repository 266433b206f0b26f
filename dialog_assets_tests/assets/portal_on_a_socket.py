"""A sandbox portal on a socket, with the environment pointing at it, and one step run over its days."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from dialog_assets.assets.steps import Findings, StepRun
from dialog_assets.portals import Portal, load_portals
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.sandbox.world.model import SandboxPortal
from dialog_assets.store.pool import open_pool
from dialog_assets_tests.sandbox.bitrix24_portal import Site, make_site, served

Core = Callable[[StepRun, Bitrix24Resource], Awaitable[None]]


def okna_sever() -> Portal:
    """The configuration of portal okna_sever."""
    return next(
        portal for portal in load_portals(Path(__file__).parents[2] / "portals") if portal.portal == "okna_sever"
    )


@contextmanager
def portal_site(portal: SandboxPortal) -> Iterator[Site]:
    """The stand-in serving `portal`; OKNA_SEVER_WEBHOOK leads to it."""
    site = make_site(portal)
    with site_served(site):
        yield site


@contextmanager
def site_served(site: Site, *, secret: str = "s3cret") -> Iterator[None]:
    """The same for a stand-in that is there already."""
    with served(site) as base:
        os.environ["OKNA_SEVER_WEBHOOK"] = f"{base}/rest/1/{secret}/"
        try:
            yield
        finally:
            del os.environ["OKNA_SEVER_WEBHOOK"]


def run_step(database: str, step: str, core: Core, *days: date, portal: Portal | None = None) -> Findings:
    """Run one step's core over `days` as its asset does; `portal` is okna_sever, configured otherwise."""

    async def day_done(_: date) -> None:
        return None

    async def run() -> Findings:
        async with open_pool(database, size=4) as pool:
            one = StepRun(portal or okna_sever(), step, days, pool, day_done)
            await core(one, Bitrix24Resource())
            return one.findings

    return asyncio.run(run())
