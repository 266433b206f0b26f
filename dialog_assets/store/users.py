"""Table users: the employees seen in calls."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from psycopg.types.json import Jsonb

from dialog_assets.store.pool import Connection, Row
from dialog_assets.store.upsert import upsert

_COLUMNS = ("found", "name", "email", "phone", "departments", "position", "active", "raw")


async def write(connection: Connection, portal: str, rows: Iterable[Row]) -> None:
    """Write found users; a row that did not change is not rewritten."""
    async with connection.cursor() as cursor:
        await cursor.executemany(
            upsert("users", ("portal", "user_id"), _COLUMNS, touch="updated_at"),
            [{**row, "portal": portal, "found": True, "raw": Jsonb(row["raw"])} for row in rows],
        )


async def mark_missing(connection: Connection, portal: str, ids: Iterable[int]) -> None:
    """Record users that calls name and user.get does not return; what was known of them stays."""
    await connection.execute(
        """
        INSERT INTO users (portal, user_id, found) SELECT %s, id, false FROM unnest(%s::bigint[]) AS id
        ON CONFLICT (portal, user_id) DO UPDATE SET found = false, updated_at = now() WHERE users.found
        """,
        [portal, list(ids)],
    )


async def settle(connection: Connection, portal: str, first: date, last: date) -> None:
    """Account for the days' calls at step `users`."""
    await connection.execute(
        """
        INSERT INTO call_steps (portal, call_id, step, state, reason, attempts)
        SELECT c.portal, c.call_id, 'users',
               CASE WHEN u.found THEN 'done' ELSE 'skipped' END,
               CASE WHEN u.found THEN NULL WHEN c.user_id IS NULL THEN 'no_user' ELSE 'user_not_found' END, 1
        FROM calls c LEFT JOIN users u ON u.portal = c.portal AND u.user_id = c.user_id
        WHERE c.portal = %s AND c.day BETWEEN %s AND %s
        ON CONFLICT (portal, call_id, step) DO UPDATE SET
            state = excluded.state, reason = excluded.reason, updated_at = now()
        WHERE (call_steps.state, call_steps.reason) IS DISTINCT FROM (excluded.state, excluded.reason)
        """,
        [portal, first, last],
    )
