"""The view `{portal}_stages`: one row a stage that a deal or lead was in, made of what is kept in entity_changes."""

from __future__ import annotations

import psycopg
from psycopg import sql

_VIEW = """
    CREATE OR REPLACE VIEW {view} AS
    SELECT entity_type, entity_id, title, stage, since,
           lead(since) OVER (PARTITION BY entity_type, entity_id ORDER BY id) AS until, seen_at
    FROM (
        SELECT e.entity_type, e.entity_id, e.title, 0::bigint AS id, coalesce(e.created_at, e.first_seen_at) AS since,
               CASE WHEN oldest.id IS NULL THEN e.stage ELSE oldest.before END AS stage, e.first_seen_at AS seen_at
        FROM entities e
        LEFT JOIN LATERAL (
            SELECT h.id, h.before FROM entity_changes h WHERE h.portal = e.portal AND h.entity_type = e.entity_type
                AND h.entity_id = e.entity_id AND h.field = 'stage' ORDER BY h.id LIMIT 1
        ) oldest ON true
        WHERE e.portal = {portal} AND e.entity_type IN ('lead', 'deal') AND e.raw IS NOT NULL
        UNION ALL
        SELECT h.entity_type, h.entity_id, e.title, h.id, least(h.changed_at, h.modified_at), h.after, h.changed_at
        FROM entity_changes h JOIN entities e USING (portal, entity_type, entity_id)
        WHERE h.portal = {portal} AND h.field = 'stage'
    ) moves
"""


def create_view(connection: psycopg.Connection, portal: str) -> None:
    """Columns: entity_type, entity_id, title, stage, since and until (the CRM's time, else ours), seen_at (ours)."""
    connection.execute(sql.SQL(_VIEW).format(view=sql.Identifier(f"{portal}_stages"), portal=sql.Literal(portal)))
