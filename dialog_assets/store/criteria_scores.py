"""Table criteria_scores: the score and text of each (dialog, criterion version)."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql
from psycopg.types.json import Jsonb

from dialog_assets.store.pool import Connection, Row
from dialog_assets.store.upsert import upsert

IN_FORCE = sql.SQL(
    """EXISTS (
    SELECT FROM classifications k WHERE k.portal = x.portal AND k.call_id = x.call_id
        AND x.criterion || '@' || x.version = ANY(k.criteria))"""
)
"""Whether a row `x` is a score in the wording that the call's categories select now."""


async def scored(connection: Connection, portal: str, call_id: int, dialog_key: str) -> set[tuple[str, str]]:
    """(criterion, version) pairs that the call has a score or a not-applicable for, given to this very dialog."""
    cursor = await connection.execute(
        "SELECT criterion, version FROM criteria_scores WHERE portal = %s AND call_id = %s AND dialog_key = %s",
        [portal, call_id, dialog_key],
    )
    return {(row["criterion"], row["version"]) for row in await cursor.fetchall()}


async def put(connection: Connection, portal: str, call_id: int, dialog_key: str, rows: Sequence[Row]) -> None:
    """Write scores of a dialog. Those of an earlier text of it, which they would contradict, are withdrawn.

    Each row has criterion, version, applicable, score, text, quotes, prompt_version, model, cost_rub.
    """
    await connection.execute(
        """
        WITH earlier AS (
            DELETE FROM criteria_scores r WHERE portal = %s AND call_id = %s AND dialog_key <> %s RETURNING r.*
        )
        INSERT INTO withdrawn_results (portal, call_id, step, result)
        SELECT portal, call_id, 'criteria_scores', to_jsonb(earlier) FROM earlier
        """,
        [portal, call_id, dialog_key],
    )
    async with connection.cursor() as cursor:
        await cursor.executemany(
            upsert(
                "criteria_scores",
                ("portal", "call_id", "criterion", "version"),
                ("dialog_key", "applicable", "score", "text", "quotes", "prompt_version", "model", "cost_rub"),
                touch="created_at",
            ),
            [
                {**row, "portal": portal, "call_id": call_id, "dialog_key": dialog_key, "quotes": Jsonb(row["quotes"])}
                for row in rows
            ],
        )
