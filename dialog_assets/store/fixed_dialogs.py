"""Table fixed_dialogs: the corrected dialogs and the edits that led there."""

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
    turns: Sequence[Turn],
    edits: Sequence[dict[str, Any]],
    prompt_version: str,
    model: str,
    cost_rub: Decimal,
    refused: Sequence[str] = (),
    made_from: str | None = None,
) -> None:
    """Write a call's corrected dialog, replacing an earlier one.

    refused: what of the model's answers could not be used. made_from: the key of the dialog that was corrected.
    """
    await connection.execute(
        upsert(
            "fixed_dialogs",
            ("portal", "call_id"),
            ("turns", "edits", "refused", "made_from", "prompt_version", "model", "cost_rub"),
            touch="created_at",
        ),
        {
            "portal": portal,
            "call_id": call_id,
            "turns": Jsonb([turn.as_json() for turn in turns]),
            "edits": Jsonb(list(edits)),
            "refused": Jsonb(list(refused)),
            "made_from": made_from,
            "prompt_version": prompt_version,
            "model": model,
            "cost_rub": cost_rub,
        },
    )


async def turns(connection: Connection, portal: str, call_id: int) -> list[Turn]:
    """The corrected dialog; LookupError when the call has none."""
    cursor = await connection.execute(
        "SELECT turns FROM fixed_dialogs WHERE portal = %s AND call_id = %s", [portal, call_id]
    )
    row = await cursor.fetchone()
    if row is None:
        raise LookupError(f"call {call_id} of {portal} has no corrected dialog")
    return [Turn.from_json(turn) for turn in row["turns"]]
