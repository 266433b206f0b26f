"""Table criteria_scores: the score and text of each (dialog, criterion version)."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.types.json import Jsonb

from dialog_assets.store.pool import Connection, Row
from dialog_assets.store.upsert import upsert


async def scored(connection: Connection, portal: str, call_id: int) -> set[tuple[str, str]]:
    """(criterion, version) pairs that the call has a score or a not-applicable for."""
    cursor = await connection.execute(
        "SELECT criterion, version FROM criteria_scores WHERE portal = %s AND call_id = %s", [portal, call_id]
    )
    return {(row["criterion"], row["version"]) for row in await cursor.fetchall()}


async def forget(connection: Connection, portal: str, call_id: int) -> None:
    """Remove the call's scores: its dialog has changed, they speak of another text."""
    await connection.execute("DELETE FROM criteria_scores WHERE portal = %s AND call_id = %s", [portal, call_id])


async def put(connection: Connection, portal: str, call_id: int, rows: Sequence[Row]) -> None:
    """Write scores: criterion, version, applicable, score, text, quotes, prompt_version, model, cost_rub each."""
    async with connection.cursor() as cursor:
        await cursor.executemany(
            upsert(
                "criteria_scores",
                ("portal", "call_id", "criterion", "version"),
                ("applicable", "score", "text", "quotes", "prompt_version", "model", "cost_rub"),
                touch="created_at",
            ),
            [{**row, "portal": portal, "call_id": call_id, "quotes": Jsonb(row["quotes"])} for row in rows],
        )
