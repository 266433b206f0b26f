"""Tables entities and entity_deals: the contacts, leads and companies of the calls, and their deals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from dialog_assets.store.entity_changes import TrackedTable
from dialog_assets.store.pool import Connection, Row

_ENTITIES = TrackedTable(
    name="entities",
    key=("entity_type", "entity_id"),
    columns={
        "entity_type": "text",
        "entity_id": "bigint",
        "found": "boolean",
        "title": "text",
        "phones": "text[]",
        "stage": "text",
        "category": "text",
        "amount": "numeric",
        "currency": "text",
        "responsible_id": "bigint",
        "created_at": "timestamptz",
        "modified_at": "timestamptz",
        "moved_at": "timestamptz",
        "raw": "jsonb",
    },
    tracked={
        "found": "modified_at",
        "stage": "coalesce(moved_at, modified_at)",
        "category": "coalesce(moved_at, modified_at)",
        "amount": "modified_at",
        "currency": "modified_at",
        "responsible_id": "modified_at",
        "title": "modified_at",
    },
    entity_type="entity_type",
    entity_id="entity_id",
)


async def write(connection: Connection, portal: str, rows: Iterable[Row]) -> None:
    """Write found entities and what changed about them; a row that did not change is not touched.

    A row has title, phones, stage, amount, currency, responsible_id and raw; a deal's has its category, and each the
    CRM's own times created_at, modified_at and moved_at, where it gives them.
    """
    untold = dict.fromkeys(("category", "created_at", "modified_at", "moved_at"))
    await _ENTITIES.write(connection, portal, [{**untold, **row, "found": True} for row in rows])


async def mark_missing(connection: Connection, portal: str, entity_type: str, ids: Iterable[int]) -> None:
    """Record entities that are asked for and the CRM does not return (deleted, or no right); what was known stays."""
    await connection.execute(
        """
        WITH lost AS (
            INSERT INTO entity_changes (portal, entity_type, entity_id, field, before, after)
            SELECT portal, entity_type, entity_id, 'found', 'true', 'false' FROM entities
            WHERE portal = %(portal)s AND entity_type = %(entity_type)s AND entity_id = ANY(%(ids)s::bigint[]) AND found
        )
        INSERT INTO entities (portal, entity_type, entity_id, found)
        SELECT %(portal)s, %(entity_type)s, id, false FROM unnest(%(ids)s::bigint[]) AS id
        ON CONFLICT (portal, entity_type, entity_id) DO UPDATE SET found = false, updated_at = now() WHERE entities.found
        """,
        {"portal": portal, "entity_type": entity_type, "ids": list(ids)},
    )


async def set_deals(connection: Connection, portal: str, entity_type: str, deals: Mapping[int, Sequence[int]]) -> None:
    """Make `deals` (entity id → deal ids) the related deals of those entities; links that came and went are kept.

    The deals of an entity that is new in this transaction came with it: they are no change.
    """
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
        WITH gone AS (
            DELETE FROM entity_deals d
            WHERE portal = %(portal)s AND entity_type = %(entity_type)s AND entity_id = ANY(%(asked)s::bigint[])
                AND (entity_id, deal_id) NOT IN (SELECT * FROM unnest(%(entities)s::bigint[], %(deals)s::bigint[]))
            RETURNING entity_id, deal_id
        )
        INSERT INTO entity_changes (portal, entity_type, entity_id, field, before)
        SELECT %(portal)s, %(entity_type)s, entity_id, 'deal', deal_id FROM gone
        """,
        parameters,
    )
    await connection.execute(
        """
        WITH come AS (
            INSERT INTO entity_deals (portal, entity_type, entity_id, deal_id)
            SELECT %(portal)s, %(entity_type)s, entity_id, deal_id
            FROM unnest(%(entities)s::bigint[], %(deals)s::bigint[]) AS now (entity_id, deal_id)
            ON CONFLICT DO NOTHING
            RETURNING entity_id, deal_id
        )
        INSERT INTO entity_changes (portal, entity_type, entity_id, field, after)
        SELECT e.portal, e.entity_type, e.entity_id, 'deal', come.deal_id
        FROM come JOIN entities e ON e.portal = %(portal)s AND e.entity_type = %(entity_type)s AND e.entity_id = come.entity_id
        WHERE e.first_seen_at < now()
        """,
        parameters,
    )


async def open_deals(connection: Connection, portal: str) -> list[int]:
    """Ids of the known deals that the portal still had, and that were not closed, when they were last read."""
    cursor = await connection.execute(
        """
        SELECT entity_id FROM entities
        WHERE portal = %s AND entity_type = 'deal' AND found
            AND coalesce(raw ->> 'CLOSED', raw ->> 'closed', 'N') <> 'Y'
        ORDER BY entity_id
        """,
        [portal],
    )
    return [row["entity_id"] for row in await cursor.fetchall()]


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


async def settle(
    connection: Connection,
    portal: str,
    first: date,
    last: date,
    unreadable: Mapping[tuple[str, int], str] | None = None,
) -> None:
    """Account for the days' read calls at step `entities`.

    `unreadable`: (type, id) → what of the entity's row, or of one of its deals', cannot be read.
    """
    told = unreadable or {}
    await connection.execute(
        """
        INSERT INTO call_steps (portal, call_id, step, state, reason, detail, attempts)
        SELECT c.portal, c.call_id, 'entities',
               CASE WHEN bad.detail IS NOT NULL THEN 'failed' WHEN e.found THEN 'done' ELSE 'skipped' END,
               CASE WHEN bad.detail IS NOT NULL THEN 'row_unreadable' WHEN e.found THEN NULL
                    WHEN c.entity_id IS NULL THEN 'no_entity' ELSE 'entity_not_found' END, bad.detail, 1
        FROM calls c
        JOIN call_steps up ON up.portal = c.portal AND up.call_id = c.call_id AND up.step = 'calls' AND up.state = 'done'
        LEFT JOIN entities e ON e.portal = c.portal AND e.entity_type = c.entity_type AND e.entity_id = c.entity_id
        LEFT JOIN unnest(%(types)s::text[], %(ids)s::bigint[], %(details)s::text[]) AS bad (entity_type, entity_id, detail)
            ON bad.entity_type = c.entity_type AND bad.entity_id = c.entity_id
        WHERE c.portal = %(portal)s AND c.day BETWEEN %(first)s AND %(last)s
        ON CONFLICT (portal, call_id, step) DO UPDATE SET
            state = excluded.state, reason = excluded.reason, detail = excluded.detail, updated_at = now()
        WHERE (call_steps.state, call_steps.reason, call_steps.detail)
            IS DISTINCT FROM (excluded.state, excluded.reason, excluded.detail)
        """,
        {
            "portal": portal,
            "first": first,
            "last": last,
            "types": [kind for kind, _ in told],
            "ids": [entity for _, entity in told],
            "details": list(told.values()),
        },
    )
