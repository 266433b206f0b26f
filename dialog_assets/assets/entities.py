"""Asset `entities`: the CRM contacts, leads and companies of the days' calls, and their deals."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Any, get_args

import dagster as dg

from dialog_assets.assets.steps import StepRun, run_step, step_asset
from dialog_assets.assets.storable import storable_json, storable_row
from dialog_assets.assets.unreadable import Rows
from dialog_assets.bitrix24 import reading
from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.errors import RowError
from dialog_assets.bitrix24.families import list_method
from dialog_assets.bitrix24.reading import ById
from dialog_assets.bitrix24.rows import CrmKind, EntityType, entity_row
from dialog_assets.bitrix24.wire import id_of, moment_of
from dialog_assets.portals import Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import calls as calls_table
from dialog_assets.store import entities as table
from dialog_assets.store import unreadable_rows
from dialog_assets.store.unreadable_rows import UnreadableRow


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

    The portal's other open deals that are known are read again too: a deal moves when nobody calls. Of an entity whose row
    cannot be read stays what was known; calls of such an entity, or of one with such a deal, are failed.
    """
    asked: dict[str, list[int]] = defaultdict(list)
    portal = run.portal.portal
    async with run.pool.connection() as connection:
        for kind, entity in await calls_table.entities_of(connection, portal, run.first, run.last):
            asked[kind].append(entity)
    async with bitrix24.client(run.portal, run.pool) as client:
        entities = _Entities(run, client)
        for kind in get_args(CrmKind):
            await entities.read(kind, asked[kind])
        async with run.pool.connection() as connection:
            others = [deal for deal in await table.open_deals(connection, portal) if deal not in entities.deals]
        await entities.read_deals(others)
    await run.inherit()
    async with run.pool.connection() as connection:
        await table.settle(connection, portal, run.first, run.last, entities.unreadable)


class _Entities:
    """Reads and writes entities; `deals` are the ids of the deals read, `unreadable`: entity → what cannot be read."""

    def __init__(self, run: StepRun, client: Bitrix24Client) -> None:
        self.deals: set[int] = set()
        self.unreadable: dict[tuple[str, int], str] = {}
        self._run = run
        self._client = client
        self._family = run.portal.bitrix24.crm
        self._rows = Rows(run)

    async def read(self, kind: CrmKind, asked: Sequence[int]) -> None:
        """The entities of a kind, and their deals.

        The deals come first, so that an entity and its links are written in one transaction: the links of a new entity
        came with it and are no change.
        """
        deals = reading.Deals(self._client, kind, asked, family=self._family)
        details: dict[int, str] = {}
        async with aclosing(deals.pages()) as pages:
            async for page in pages:
                found = {deal: row for row in page if (deal := id_of(row)) is not None}
                details |= await self._write("deal", ById(found, []))
                self.deals |= found.keys()
        async with aclosing(reading.crm(self._client, kind, asked, family=self._family)) as chunks:
            async for chunk in chunks:
                for entity in chunk.rows:
                    self._keep_nameless(kind, entity, deals.nameless.get(entity, ()))
                    unread = [details[deal] for deal in deals.by_owner[entity] if deal in details]
                    if unread:
                        self.unreadable[kind, entity] = unread[-1]
                links = {entity: deals.by_owner[entity] for entity in chunk.rows if entity not in deals.nameless}
                own = await self._write(kind, chunk, links)
                self.unreadable |= {(kind, entity): detail for entity, detail in own.items()}

    async def read_deals(self, asked: Sequence[int]) -> None:
        """Some deals by id."""
        async with aclosing(reading.crm(self._client, "deal", asked, family=self._family)) as chunks:
            async for chunk in chunks:
                await self._write("deal", chunk)

    async def _write(
        self, kind: EntityType, chunk: ById, links: Mapping[int, Sequence[int]] | None = None
    ) -> dict[int, str]:
        """Write what one request brought, in one transaction; returns what is wrong with the rows that cannot be read.

        `links`: entity → all its deals. Where a deal has no readable ID, those that did not come may be it, so its owner
        is not among them and the known links stay.
        """
        portal = self._run.portal.portal
        read = (self._rows.read(kind, partial(stored, kind), row, entity) for entity, row in chunk.rows.items())
        known = [row for row in read if row is not None]
        kept = self._rows.take()
        async with self._run.pool.connection() as connection, connection.transaction():
            await table.write(connection, portal, known)
            await table.mark_missing(connection, portal, kind, chunk.missing)
            if links is not None:
                await table.set_deals(connection, portal, kind, links)
            await unreadable_rows.replace(connection, portal, kind, [*chunk.rows, *chunk.missing], kept)
        return {row.row_id: row.detail for row in kept if row.row_id}

    def _keep_nameless(self, kind: CrmKind, entity: int, deals: Sequence[Any]) -> None:
        """Of a deal without a readable ID only its owner is known: it is kept as the owner's."""
        for row in deals:
            error = RowError(list_method("deal", self._family), "ID", "a whole number")
            self._rows.unread("deal", error)
            field = "the ID of one of its deals"
            self._rows.keep(UnreadableRow(kind, entity, error.method, field, error.expected, storable_json(row)))


def stored(kind: EntityType, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of table entities, of the classic or the universal family (facts/bitrix24.md 5.1)."""
    return {
        **storable_row(entity_row(kind, row)),
        "category": storable_json(_text(row, "CATEGORY_ID", "categoryId")) if kind == "deal" else None,
        "created_at": _moment(row, "DATE_CREATE", "createdTime"),
        "modified_at": _moment(row, "DATE_MODIFY", "updatedTime"),
        "moved_at": _moment(row, "MOVED_TIME", "movedTime"),
    }


def _text(row: Mapping[str, Any], *names: str) -> str | None:
    value = next((row[name] for name in names if row.get(name) not in (None, "")), None)
    return str(value) if isinstance(value, str | int) else None


def _moment(row: Mapping[str, Any], *names: str) -> datetime | None:
    """A moment with its offset; None where the portal gives none: nothing depends on these times but their own columns."""
    return moment_of(_text(row, *names))
