"""Asset `entities`: the CRM contacts, leads and companies of the days' calls, and their deals."""

from collections import defaultdict
from dataclasses import asdict
from typing import Any, get_args

import dagster as dg

from dialog_assets.assets.steps import StepRun, run_step, step_asset
from dialog_assets.bitrix24 import reading
from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.rows import CrmKind, entity_row
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
    """Read the entities of the days' calls and their deals; write the changed ones."""
    asked: dict[str, list[int]] = defaultdict(list)
    async with run.pool.connection() as connection:
        for kind, entity in await calls_table.entities_of(connection, run.portal.portal, run.first, run.last):
            asked[kind].append(entity)
    async with bitrix24.client(run.portal, run.pool) as client:
        for kind in get_args(CrmKind):
            if asked[kind]:
                await _read_kind(run, client, kind, asked[kind])
    async with run.pool.connection() as connection:
        await table.settle(connection, run.portal.portal, run.first, run.last)


async def _read_kind(run: StepRun, client: Bitrix24Client, kind: CrmKind, asked: list[int]) -> None:
    portal = run.portal.portal
    found = await reading.crm(client, kind, asked, family=run.portal.bitrix24.crm)
    deals = await reading.deals(client, kind, list(found), family=run.portal.bitrix24.crm)
    rows: list[dict[str, Any]] = [asdict(entity_row(kind, row)) for row in found.values()]
    related = {entity: [entity_row("deal", row) for row in some] for entity, some in deals.items()}
    unique = {deal.entity_id: asdict(deal) for some in related.values() for deal in some}
    async with run.pool.connection() as connection:
        await table.write(connection, portal, [*rows, *unique.values()])
        await table.mark_missing(connection, portal, kind, [entity for entity in asked if entity not in found])
        await table.set_deals(
            connection, portal, kind, {entity: [deal.entity_id for deal in some] for entity, some in related.items()}
        )
