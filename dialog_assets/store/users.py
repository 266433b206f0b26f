"""Table users: the employees seen in calls, dismissed ones (active is false) and those that the portal does not show included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

from dialog_assets.store.entity_changes import TrackedTable
from dialog_assets.store.pool import Connection, Row

_USERS = TrackedTable(
    name="users",
    key=("user_id",),
    columns={
        "user_id": "bigint",
        "found": "boolean",
        "name": "text",
        "email": "text",
        "phone": "text",
        "departments": "bigint[]",
        "position": "text",
        "active": "boolean",
        "raw": "jsonb",
    },
    # user.get gives no readable time of change: TIMESTAMP_X arrives as {} (facts/bitrix24.md 6).
    tracked=dict.fromkeys(("found", "active", "name", "position", "departments"), "NULL::timestamptz"),
    entity_type="'user'",
    entity_id="user_id",
)


async def write(connection: Connection, portal: str, rows: Iterable[Row]) -> None:
    """Write found users and what changed about them; a row that did not change is not touched."""
    await _USERS.write(connection, portal, [{**row, "found": True} for row in rows])


async def mark_missing(connection: Connection, portal: str, ids: Iterable[int]) -> None:
    """Record users that calls name and user.get does not return; what was known of them stays."""
    await connection.execute(
        """
        WITH lost AS (
            INSERT INTO entity_changes (portal, entity_type, entity_id, field, before, after)
            SELECT portal, 'user', user_id, 'found', 'true', 'false' FROM users
            WHERE portal = %(portal)s AND user_id = ANY(%(ids)s::bigint[]) AND found
        )
        INSERT INTO users (portal, user_id, found) SELECT %(portal)s, id, false FROM unnest(%(ids)s::bigint[]) AS id
        ON CONFLICT (portal, user_id) DO UPDATE SET found = false, updated_at = now() WHERE users.found
        """,
        {"portal": portal, "ids": list(ids)},
    )


async def settle(
    connection: Connection, portal: str, first: date, last: date, unreadable: Mapping[int, str] | None = None
) -> None:
    """Account for the days' read calls at step `users`; `unreadable`: user id → what of the row cannot be read."""
    told = unreadable or {}
    await connection.execute(
        """
        INSERT INTO call_steps (portal, call_id, step, state, reason, detail, attempts)
        SELECT c.portal, c.call_id, 'users',
               CASE WHEN bad.detail IS NOT NULL THEN 'failed' WHEN u.found THEN 'done' ELSE 'skipped' END,
               CASE WHEN bad.detail IS NOT NULL THEN 'row_unreadable' WHEN u.found THEN NULL
                    WHEN c.user_id IS NULL THEN 'no_user' ELSE 'user_not_found' END, bad.detail, 1
        FROM calls c
        JOIN call_steps up ON up.portal = c.portal AND up.call_id = c.call_id AND up.step = 'calls' AND up.state = 'done'
        LEFT JOIN users u ON u.portal = c.portal AND u.user_id = c.user_id
        LEFT JOIN unnest(%(ids)s::bigint[], %(details)s::text[]) AS bad (user_id, detail) ON bad.user_id = c.user_id
        WHERE c.portal = %(portal)s AND c.day BETWEEN %(first)s AND %(last)s
        ON CONFLICT (portal, call_id, step) DO UPDATE SET
            state = excluded.state, reason = excluded.reason, detail = excluded.detail, updated_at = now()
        WHERE (call_steps.state, call_steps.reason, call_steps.detail)
            IS DISTINCT FROM (excluded.state, excluded.reason, excluded.detail)
        """,
        {"portal": portal, "first": first, "last": last, "ids": list(told), "details": list(told.values())},
    )
