"""Table classifications: the categories of each dialog, and the criteria that they select."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date

from dialog_assets.store.pool import Connection, Row


async def replace(connection: Connection, portal: str, call_id: int, rows: Sequence[Row]) -> None:
    """Make `rows` the call's categories.

    Each has category, category_version, confidence, reason, criteria, prompt_version, model, cost_rub; made_from is the key
    of the dialog.
    """
    await connection.execute("DELETE FROM classifications WHERE portal = %s AND call_id = %s", [portal, call_id])
    async with connection.cursor() as cursor:
        await cursor.executemany(
            """
            INSERT INTO classifications
                (portal, call_id, category, category_version, confidence, reason, criteria, prompt_version, model, cost_rub,
                made_from)
            VALUES (%(portal)s, %(call_id)s, %(category)s, %(category_version)s, %(confidence)s, %(reason)s, %(criteria)s,
                %(prompt_version)s, %(model)s, %(cost_rub)s, %(made_from)s)
            """,
            [{"made_from": None, **row, "portal": portal, "call_id": call_id} for row in rows],
        )


async def selected(connection: Connection, portal: str, call_id: int) -> set[str]:
    """The criteria, as name@version, that the call's categories select."""
    cursor = await connection.execute(
        "SELECT DISTINCT unnest(criteria) AS name FROM classifications WHERE portal = %s AND call_id = %s",
        [portal, call_id],
    )
    return {row["name"] for row in await cursor.fetchall()}


def output_key(criteria: Mapping[str, Sequence[str]]) -> str:
    """The call's categories and the criteria (name@version) that they select, as a key.

    Step classifications leaves `dialog key/this key`: criteria_scores works from both.
    """
    text = ";".join(f"{category}:{','.join(names)}" for category, names in sorted(criteria.items()))
    return hashlib.sha256(text.encode()).hexdigest()


async def select_criteria(
    connection: Connection, portal: str, first: date, last: date, criteria: Mapping[str, Sequence[str]]
) -> None:
    """Make `criteria` (category → name@version) what the days' categories select now.

    The step's output key follows, so that calls whose criteria changed come onto the worklist of criteria_scores.
    A category that is not configured any more keeps what it selected.
    """
    cursor = await connection.execute(
        """
        UPDATE classifications k SET criteria = string_to_array(w.criteria, ',')
        FROM calls c, unnest(%s::text[], %s::text[]) AS w (category, criteria)
        WHERE c.portal = %s AND c.day BETWEEN %s AND %s AND k.portal = c.portal AND k.call_id = c.call_id
            AND k.category = w.category AND array_to_string(k.criteria, ',') <> w.criteria
        RETURNING k.call_id
        """,
        [list(criteria), [",".join(names) for names in criteria.values()], portal, first, last],
    )
    for call_id in {row["call_id"] for row in await cursor.fetchall()}:
        cursor = await connection.execute(
            "SELECT category, criteria FROM classifications WHERE portal = %s AND call_id = %s", [portal, call_id]
        )
        key = output_key({row["category"]: row["criteria"] for row in await cursor.fetchall()})
        await connection.execute(
            """
            UPDATE call_steps SET output_key = input_key || '/' || %s, updated_at = now()
            WHERE portal = %s AND call_id = %s AND step = 'classifications' AND state = 'done'
            """,
            [key, portal, call_id],
        )
