"""Table calls: the rows of the portal's statistics."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from psycopg import sql
from psycopg.types.json import Jsonb

from dialog_assets.store.pool import Connection, Row
from dialog_assets.store.upsert import upsert

COLUMNS = (
    "call_id",
    "vendor_call_id",
    "started_at",
    "day",
    "direction",
    "duration_s",
    "user_id",
    "phone",
    "line",
    "failed_code",
    "entity_type",
    "entity_id",
    "activity_id",
    "record_file_id",
    "record_duration_s",
    "vote",
    "cost",
    "cost_currency",
    "raw",
)


async def write(connection: Connection, portal: str, rows: Sequence[Row], *, record_hosts: Sequence[str] = ()) -> None:
    """Write rows (a dict of COLUMNS each) through a staging table; a row that did not change is not rewritten.

    Marks step `calls` of each row done; its output key is what the archive depends on: the recording's Disk id, else the
    provider's host where `record_hosts` has it. (Of the link itself only `scheme://host[:port]/…` is kept.)
    """
    columns = sql.SQL(", ").join(map(sql.Identifier, ("portal", *COLUMNS)))
    await connection.execute(
        "CREATE TEMP TABLE IF NOT EXISTS staged_calls (LIKE calls INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
    )
    async with connection.cursor().copy(sql.SQL("COPY staged_calls ({}) FROM STDIN").format(columns)) as copy:
        for row in {row["call_id"]: row for row in rows}.values():
            await copy.write_row((portal, *(Jsonb(row[name]) if name == "raw" else row[name] for name in COLUMNS)))
    await connection.execute(
        upsert(
            "calls",
            ("portal", "call_id"),
            COLUMNS[1:],
            source=sql.SQL("SELECT {} FROM staged_calls").format(columns),
            touch="updated_at",
        )
    )
    await connection.execute(
        """
        INSERT INTO call_steps (portal, call_id, step, state, output_key, attempts)
        SELECT portal, call_id, 'calls', 'done', coalesce('disk:' || record_file_id, 'link:' || host, 'none'), 1
        FROM staged_calls
        LEFT JOIN unnest(%s::text[]) AS host ON raw ->> 'CALL_RECORD_URL' = 'https://' || host || '/…'
        ON CONFLICT (portal, call_id, step) DO UPDATE SET output_key = excluded.output_key, updated_at = now()
        WHERE call_steps.output_key IS DISTINCT FROM excluded.output_key
        """,
        [sorted({host.lower() for host in record_hosts})],
    )


async def users_of(connection: Connection, portal: str, first: date, last: date) -> list[int]:
    """Ids of the employees who made or took the calls of the days."""
    cursor = await connection.execute(
        "SELECT DISTINCT user_id FROM calls WHERE portal = %s AND day BETWEEN %s AND %s AND user_id IS NOT NULL ORDER BY 1",
        [portal, first, last],
    )
    return [row["user_id"] for row in await cursor.fetchall()]


async def entities_of(connection: Connection, portal: str, first: date, last: date) -> list[tuple[str, int]]:
    """(type, id) of the CRM entities that the calls of the days belong to."""
    cursor = await connection.execute(
        """
        SELECT DISTINCT entity_type, entity_id FROM calls
        WHERE portal = %s AND day BETWEEN %s AND %s AND entity_id IS NOT NULL ORDER BY 1, 2
        """,
        [portal, first, last],
    )
    return [(row["entity_type"], row["entity_id"]) for row in await cursor.fetchall()]


async def days(connection: Connection, portal: str) -> tuple[date, date] | None:
    """The first and the last day with a call, or None."""
    cursor = await connection.execute(
        "SELECT min(day) AS first, max(day) AS last FROM calls WHERE portal = %s", [portal]
    )
    row = await cursor.fetchone()
    return (row["first"], row["last"]) if row and row["first"] else None
