"""Asset `entities`: the CRM contacts, leads and companies of the days' calls, and their deals."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, get_args

import dagster as dg

from dialog_assets.assets.steps import StepRun, run_step, step_asset
from dialog_assets.assets.storable import storable, storable_row
from dialog_assets.assets.unreadable import Rows
from dialog_assets.bitrix24 import reading
from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.errors import RowError
from dialog_assets.bitrix24.families import list_method
from dialog_assets.bitrix24.paging import chunks
from dialog_assets.bitrix24.rows import CrmKind, EntityType, entity_row
from dialog_assets.bitrix24.wire import id_of, moment_of
from dialog_assets.portals import Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import calls as calls_table
from dialog_assets.store import entities as table
from dialog_assets.store import unreadable_rows
from dialog_assets.store.unreadable_rows import UnreadableRow

AT_ONCE = 2500
"""Entities that are read and written together: what one request of the portal brings, so that memory stays flat."""


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
            for some in chunks(asked[kind], AT_ONCE):
                await entities.read(kind, some)
        async with run.pool.connection() as connection:
            others = [deal for deal in await table.open_deals(connection, portal) if deal not in entities.deals]
        for some in chunks(others, AT_ONCE):
            await entities.read_deals(some)
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
        self._rows = Rows(run)

    async def read(self, kind: CrmKind, asked: Collection[int]) -> None:
        """Some entities of a kind, and their deals."""
        portal, family = self._run.portal.portal, self._run.portal.bitrix24.crm
        found = await reading.crm(self._client, kind, asked, family=family)
        deals = await reading.deals(self._client, kind, list(found), family=family)
        links = {entity: [id_of(deal) for deal in some] for entity, some in deals.items()}
        unique = {deal: row for some in deals.values() for row in some if (deal := id_of(row)) is not None}
        rows = [*self._readable(kind, found), *self._readable("deal", unique)]
        for entity, some in deals.items():
            self._keep_nameless(kind, entity, some)
        kept = self._rows.take()
        self._note(kind, links, kept)
        self.deals |= unique.keys()
        async with self._run.pool.connection() as connection, connection.transaction():
            await table.write(connection, portal, rows)
            await table.mark_missing(connection, portal, kind, [entity for entity in asked if entity not in found])
            # Where a deal has no readable ID, those that did not come may be it: the known links stay.
            told = {entity: [deal for deal in some if deal] for entity, some in links.items() if None not in some}
            await table.set_deals(connection, portal, kind, told)
            await unreadable_rows.replace(connection, portal, kind, asked, [row for row in kept if row.kind == kind])
            await unreadable_rows.replace(
                connection, portal, "deal", unique, [row for row in kept if row.kind == "deal"]
            )

    async def read_deals(self, asked: Collection[int]) -> None:
        """Some deals by id."""
        portal = self._run.portal.portal
        found = await reading.crm(self._client, "deal", asked, family=self._run.portal.bitrix24.crm)
        rows = self._readable("deal", found)
        kept = self._rows.take()
        async with self._run.pool.connection() as connection, connection.transaction():
            await table.write(connection, portal, rows)
            await table.mark_missing(connection, portal, "deal", [deal for deal in asked if deal not in found])
            await unreadable_rows.replace(connection, portal, "deal", asked, kept)

    def _readable(self, kind: EntityType, found: Mapping[int, Any]) -> list[dict[str, Any]]:
        read = (self._rows.read(kind, partial(stored, kind), row, entity) for entity, row in found.items())
        return [row for row in read if row is not None]

    def _keep_nameless(self, kind: CrmKind, entity: int, deals: Sequence[Any]) -> None:
        """Of a deal without a readable ID only its owner is known: it is kept as the owner's."""
        for row in deals:
            if id_of(row) is None:
                error = RowError(list_method("deal", self._run.portal.bitrix24.crm), "ID", "a whole number")
                self._rows.unread("deal", error)
                field = "the ID of one of its deals"
                self._rows.keep(UnreadableRow(kind, entity, error.method, field, error.expected, storable(row)))

    def _note(self, kind: CrmKind, links: Mapping[int, Sequence[int | None]], kept: Sequence[UnreadableRow]) -> None:
        """Which entities suffer from the rows that were kept."""
        details = {(row.kind, row.row_id): row.detail for row in kept}
        for entity, some in links.items():
            for deal in some:
                if ("deal", deal) in details:
                    self.unreadable[kind, entity] = details["deal", deal]
        self.unreadable |= {(row.kind, row.row_id): row.detail for row in kept if row.row_id and row.kind == kind}


def stored(kind: EntityType, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of table entities, of the classic or the universal family (facts/bitrix24.md 5.1)."""
    return {
        **storable_row(entity_row(kind, row)),
        "category": storable(_text(row, "CATEGORY_ID", "categoryId")) if kind == "deal" else None,
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
