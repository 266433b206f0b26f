"""Asset `calls`: the portal's call statistics of the days."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import dagster as dg

from dialog_assets.assets.steps import StepRun, run_step, step_asset
from dialog_assets.assets.storable import storable
from dialog_assets.bitrix24 import reading
from dialog_assets.bitrix24.credentials import origin_of
from dialog_assets.bitrix24.rows import CallRow, call_row
from dialog_assets.errors import DialogAssetsError
from dialog_assets.portals import Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import calls as table

LINKS = ("CALL_RECORD_URL", "CALL_LOG")


def build(portal: Portal) -> dg.AssetsDefinition:
    """The asset of one portal."""

    @step_asset(portal, "calls")
    def calls(
        context: dg.AssetExecutionContext, postgres: PostgresResource, bitrix24: Bitrix24Resource
    ) -> dg.MaterializeResult:
        """Phone calls of the days as the portal's statistics list them (voximplant.statistic.get)."""

        async def core(run: StepRun) -> None:
            await read_calls(run, bitrix24)

        return run_step(context, portal, "calls", postgres, core)

    return calls


async def read_calls(run: StepRun, bitrix24: Bitrix24Resource) -> None:
    """Read the days' calls and write them while the next ones are read."""
    writing: asyncio.Task[None] | None = None
    async with (
        bitrix24.client(run.portal, run.pool) as client,
        aclosing(gathered(reading.calls(client, *run.window), table.WRITE_AT_ONCE)) as pages,
    ):
        try:
            async for page in pages:
                rows = [stored(call_row(row), run.portal) for row in page]
                if writing is not None:
                    await writing
                writing = asyncio.create_task(_write(run, rows))
        finally:
            if writing is not None:
                await writing


async def _write(run: StepRun, rows: list[dict[str, Any]]) -> None:
    async with run.pool.connection() as connection:
        await table.write(connection, run.portal.portal, rows, record_hosts=run.portal.bitrix24.record_hosts)


async def gathered(pages: AsyncIterator[list[dict[str, Any]]], rows: int) -> AsyncGenerator[list[dict[str, Any]], None]:
    """Pages put together until there are `rows` rows; what came before an error is given first, then the error."""
    waiting: list[dict[str, Any]] = []
    failure: DialogAssetsError | None = None
    try:
        async for page in pages:
            waiting += page
            if len(waiting) >= rows:
                yield waiting
                waiting = []
    except DialogAssetsError as error:
        failure = error
    finally:
        if isinstance(pages, AsyncGenerator):
            await pages.aclose()
    if waiting:
        yield waiting
    if failure is not None:
        raise failure


def stored(call: CallRow, portal: Portal) -> dict[str, Any]:
    """The row of table calls. Links to recordings are credentials (rule 5): of those only the host is kept."""
    raw = {name: host_only(value) if name in LINKS else value for name, value in call.raw.items()}
    row: dict[str, Any] = {name: getattr(call, name) for name in table.COLUMNS if name not in ("day", "raw")}
    kept: dict[str, Any] = storable({**row, "raw": raw})
    return {**kept, "day": call.started_at.astimezone(portal.zone).date()}


def host_only(link: object) -> object:
    """`https://host[:port]/…` of a link, `…` of another text; nothing stays nothing."""
    if not isinstance(link, str) or not link:
        return link
    origin = origin_of(link) if "://" in link else None
    return f"{origin}/…" if origin else "…"
