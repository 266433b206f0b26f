"""Tables entities and entity_deals: the contacts, leads and companies of the calls, and their deals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from psycopg.types.json import Jsonb

from dialog_assets.store.pool import Connection, Row
from dialog_assets.store.upsert import upsert

_COLUMNS = ("found", "title", "phones", "stage", "amount", "currency", "responsible_id", "raw")


async def write(connection: Connection, portal: str, rows: Iterable[Row]) -> None:
    """Write found entities; a row that did not change is not rewritten."""
    async with connection.cursor() as cursor:
        await cursor.executemany(
            upsert("entities", ("portal", "entity_type", "entity_id"), _COLUMNS, touch="updated_at"),
            [{**row, "portal": portal, "found": True, "raw": Jsonb(row["raw"])} for row in rows],
        )


async def mark_missing(connection: Connection, portal: str, entity_type: str, ids: Iterable[int]) -> None:
    """Record entities that calls name and the CRM does not return; what was known of them stays."""
    await connection.execute(
        """
        INSERT INTO entities (portal, entity_type, entity_id, found) SELECT %s, %s, id, false FROM unnest(%s::bigint[]) AS id
        ON CONFLICT (portal, entity_type, entity_id) DO UPDATE SET found = false, updated_at = now() WHERE entities.found
        """,
        [portal, entity_type, list(ids)],
    )


async def set_deals(connection: Connection, portal: str, entity_type: str, deals: Mapping[int, Sequence[int]]) -> None:
    """Make `deals` (entity id → deal ids) the related deals of those entities."""
    pairs = [(entity, deal) for entity, found in deals.items() for deal in found]
    parameters = {
        "portal": portal,
        "entity_type": entity_type,
        "asked": list(deals),
        "entities": [entity for entity, _ in pairs],
        "deals": [deal for _, deal in pairs],
    }
    await connection.execute(
        """
        DELETE FROM entity_deals d
        WHERE portal = %(portal)s AND entity_type = %(entity_type)s AND entity_id = ANY(%(asked)s::bigint[])
            AND NOT EXISTS (SELECT FROM unnest(%(entities)s::bigint[], %(deals)s::bigint[]) AS now (entity_id, deal_id)
                            WHERE now.entity_id = d.entity_id AND now.deal_id = d.deal_id)
        """,
        parameters,
    )
    await connection.execute(
        """
        INSERT INTO entity_deals (portal, entity_type, entity_id, deal_id)
        SELECT %(portal)s, %(entity_type)s, entity_id, deal_id
        FROM unnest(%(entities)s::bigint[], %(deals)s::bigint[]) AS now (entity_id, deal_id)
        ON CONFLICT DO NOTHING
        """,
        parameters,
    )


async def titles(
    connection: Connection, portal: str, entities: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], str]:
    """Titles of the entities that have one."""
    cursor = await connection.execute(
        """
        SELECT e.entity_type, e.entity_id, e.title
        FROM entities e JOIN unnest(%s::text[], %s::bigint[]) AS asked (entity_type, entity_id) USING (entity_type, entity_id)
        WHERE e.portal = %s AND e.title IS NOT NULL
        """,
        [[kind for kind, _ in entities], [entity for _, entity in entities], portal],
    )
    return {(row["entity_type"], row["entity_id"]): row["title"] for row in await cursor.fetchall()}


async def settle(connection: Connection, portal: str, first: date, last: date) -> None:
    """Account for the days' calls at step `entities`."""
    await connection.execute(
        """
        INSERT INTO call_steps (portal, call_id, step, state, reason, attempts)
        SELECT c.portal, c.call_id, 'entities',
               CASE WHEN e.found THEN 'done' ELSE 'skipped' END,
               CASE WHEN e.found THEN NULL WHEN c.entity_id IS NULL THEN 'no_entity' ELSE 'entity_not_found' END, 1
        FROM calls c
        LEFT JOIN entities e ON e.portal = c.portal AND e.entity_type = c.entity_type AND e.entity_id = c.entity_id
        WHERE c.portal = %s AND c.day BETWEEN %s AND %s
        ON CONFLICT (portal, call_id, step) DO UPDATE SET
            state = excluded.state, reason = excluded.reason, updated_at = now()
        WHERE (call_steps.state, call_steps.reason) IS DISTINCT FROM (excluded.state, excluded.reason)
        """,
        [portal, first, last],
    )
