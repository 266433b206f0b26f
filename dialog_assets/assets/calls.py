"""Asset `calls`: the portal's call statistics of the days."""

from contextlib import aclosing
from typing import Any

import dagster as dg

from dialog_assets.assets.steps import StepRun, run_step, step_asset
from dialog_assets.bitrix24 import reading
from dialog_assets.bitrix24.credentials import origin_of
from dialog_assets.bitrix24.rows import CallRow, call_row
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
    """Read the days' calls page by page and write each page as it comes."""
    start, end = run.window
    async with bitrix24.client(run.portal, run.pool) as client, aclosing(reading.calls(client, start, end)) as pages:
        async for page in pages:
            rows = [stored(call_row(row), run.portal) for row in page]
            async with run.pool.connection() as connection:
                await table.write(connection, run.portal.portal, rows, record_hosts=run.portal.bitrix24.record_hosts)


def stored(call: CallRow, portal: Portal) -> dict[str, Any]:
    """The row of table calls. Links to recordings are credentials (rule 5): of those only the host is kept."""
    raw = {name: host_only(value) if name in LINKS else value for name, value in call.raw.items()}
    row: dict[str, Any] = {name: getattr(call, name) for name in table.COLUMNS if name not in ("day", "raw")}
    return {**row, "day": call.started_at.astimezone(portal.zone).date(), "raw": raw}


def host_only(link: object) -> object:
<<<<<<< HEAD
    """`https://host/…` of a link, `…` of another text; nothing stays nothing."""
    if not isinstance(link, str) or not link:
        return link
    try:
        parts = urlsplit(link)
    except ValueError:
        return "…"
    return f"{parts.scheme}://{parts.hostname or ''}/…" if parts.scheme and "://" in link else "…"
=======
    """`https://host[:port]/…` of a link; anything else as it is."""
    if not isinstance(link, str) or "://" not in link:
        return link
    return f"{origin_of(link) or 'unreadable:/'}/…"
>>>>>>> issue3-client
