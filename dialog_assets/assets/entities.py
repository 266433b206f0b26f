"""Asset `entities`: the CRM contacts, leads and companies of the days' calls, and their deals."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from datetime import datetime
from typing import Any, get_args

import dagster as dg

from dialog_assets.assets.steps import StepRun, run_step, step_asset
from dialog_assets.assets.storable import storable
from dialog_assets.bitrix24 import reading
from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.rows import CrmKind, EntityType, entity_row
from dialog_assets.portals import Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import calls as calls_table
from dialog_assets.store import entities as table


def build(portal: Portal) -> dg.AssetsDefinition:
    """The asset of one portal."""

    @step_asset(portal, "entities")
    def entities(
        context: dg.AssetExecutionContext, postgres: PostgresResource, bitrix24: Bitrix24Resource
    ) -> dg.MaterializeResult:
        """Contacts, leads and companies of the calls with their deals (crm.*.list); deleted ones are recorded as not found."""

        async def core(run: StepRun) -> None:
            await read_entities(run, bitrix24)

        return run_step(context, portal, "entities", postgres, core)

    return entities


async def read_entities(run: StepRun, bitrix24: Bitrix24Resource) -> None:
    """Read the entities of the days' calls and their deals; write the changed ones, and what changed.

    The portal's other open deals that are known are read again too: a deal moves when nobody calls.
    """
    asked: dict[str, list[int]] = defaultdict(list)
    portal = run.portal.portal
    async with run.pool.connection() as connection:
        for kind, entity in await calls_table.entities_of(connection, portal, run.first, run.last):
            asked[kind].append(entity)
    async with bitrix24.client(run.portal, run.pool) as client:
        read: set[int] = set()
        for kind in get_args(CrmKind):
            read |= await _read_kind(run, client, kind, asked[kind])
        async with run.pool.connection() as connection:
            others = [deal for deal in await table.open_deals(connection, portal) if deal not in read]
        await _read_entities(run, client, "deal", others)
    async with run.pool.connection() as connection:
        await table.settle(connection, portal, run.first, run.last)


async def _read_kind(run: StepRun, client: Bitrix24Client, kind: CrmKind, asked: Sequence[int]) -> set[int]:
    """Read and write the entities of a kind and their deals; returns the deals' ids.

    The deals come first, so that an entity and its links are written in one transaction: the links of a new entity came
    with it and are no change.
    """
    deals = reading.Deals(client, kind, asked, family=run.portal.bitrix24.crm)
    async with aclosing(deals.pages()) as pages:
        async for page in pages:
            async with run.pool.connection() as connection, connection.transaction():
                await table.write(connection, run.portal.portal, [stored("deal", row) for row in page])
    await _read_entities(run, client, kind, asked, deals.by_owner)
    return {deal for some in deals.by_owner.values() for deal in some}


async def _read_entities(
    run: StepRun,
    client: Bitrix24Client,
    kind: EntityType,
    asked: Sequence[int],
    deals: Mapping[int, Sequence[int]] | None = None,
) -> None:
    """Read and write entities, a transaction for each request's, with the links to their `deals`."""
    portal = run.portal.portal
    async with aclosing(reading.crm(client, kind, asked, family=run.portal.bitrix24.crm)) as chunks:
        async for rows, missing in chunks:
            async with run.pool.connection() as connection, connection.transaction():
                await table.write(connection, portal, [stored(kind, row) for row in rows.values()])
                await table.mark_missing(connection, portal, kind, missing)
                if deals is not None:
                    await table.set_deals(connection, portal, kind, {entity: deals[entity] for entity in rows})


def stored(kind: EntityType, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of table entities, of the classic or the universal family (facts/bitrix24.md 5.1)."""
    return {
        **storable(asdict(entity_row(kind, row))),
        "category": _text(row, "CATEGORY_ID", "categoryId") if kind == "deal" else None,
        "created_at": _moment(row, "DATE_CREATE", "createdTime"),
        "modified_at": _moment(row, "DATE_MODIFY", "updatedTime"),
        "moved_at": _moment(row, "MOVED_TIME", "movedTime"),
    }


def _text(row: Mapping[str, Any], *names: str) -> str | None:
    value = next((row[name] for name in names if row.get(name) not in (None, "")), None)
    return None if value is None else str(value)


def _moment(row: Mapping[str, Any], *names: str) -> datetime | None:
    """A moment with its offset; None where the portal gives none: nothing depends on these times but their own columns."""
    try:
        moment = datetime.fromisoformat(_text(row, *names) or "")
    except ValueError:
        return None
    return moment if moment.utcoffset() is not None else None
