"""Table transcripts: what the recogniser answered, and the dialog built from it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb

from dialog_assets.dialogs import Turn
from dialog_assets.store.pool import Connection
from dialog_assets.store.upsert import upsert


async def put(
    connection: Connection,
    portal: str,
    call_id: int,
    *,
    recogniser: str,
    operation_id: str,
    sha256: str,
    raw: dict[str, Any],
    turns: Sequence[Turn],
    talk_metrics: dict[str, Any],
    cost_rub: Decimal,
) -> None:
    """Write a call's transcript, replacing an earlier one."""
    await connection.execute(
        upsert(
            "transcripts",
            ("portal", "call_id"),
            ("recogniser", "operation_id", "sha256", "raw", "turns", "talk_metrics", "cost_rub"),
            touch="created_at",
        ),
        {
            "portal": portal,
            "call_id": call_id,
            "recogniser": recogniser,
            "operation_id": operation_id,
            "sha256": sha256,
            "raw": Jsonb(raw),
            "turns": Jsonb([turn.as_json() for turn in turns]),
            "talk_metrics": Jsonb(talk_metrics),
            "cost_rub": cost_rub,
        },
    )


async def turns(connection: Connection, portal: str, call_id: int) -> list[Turn]:
    """The dialog as recognised; LookupError when the call has no transcript."""
    cursor = await connection.execute(
        "SELECT turns FROM transcripts WHERE portal = %s AND call_id = %s", [portal, call_id]
    )
    row = await cursor.fetchone()
    if row is None:
        raise LookupError(f"call {call_id} of {portal} has no transcript")
    return [Turn.from_json(turn) for turn in row["turns"]]
