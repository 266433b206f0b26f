"""Table calls: the rows of the portal's statistics."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date

from psycopg import errors, sql

from dialog_assets.hosts import place_of
from dialog_assets.store.pool import Connection, Row
from dialog_assets.store.staging import copy_rows, stage
from dialog_assets.store.upsert import upsert

_TYPES = {
    "call_id": "bigint",
    "vendor_call_id": "text",
    "started_at": "timestamptz",
    "day": "date",
    "direction": "text",
    "duration_s": "integer",
    "user_id": "bigint",
    "phone": "text",
    "line": "text",
    "failed_code": "text",
    "entity_type": "text",
    "entity_id": "bigint",
    "activity_id": "bigint",
    "record_file_id": "bigint",
    "record_duration_s": "integer",
    "vote": "integer",
    "cost": "numeric",
    "cost_currency": "text",
    "raw": "jsonb",
}

COLUMNS = tuple(_TYPES)

_STEP_TYPES = {"call_id": "bigint", "output_key": "text"}

WRITE_AT_ONCE = 2500
"""Calls a `write`: what one request of the portal brings at most, and where the time per row stops falling
(bench/store.py: 50 at a time cost twice as much a row, 10,000 no less)."""


def _columns(table: str) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(table, name) for name in COLUMNS)


# One index look-up a row, whatever the statistics say: LATERAL with OFFSET 0 cannot become a join, and with portal and id
# given, the primary key is the only sensible way. A plan made while the table was small read all of it for every chunk.
_KNOWN = """
    SELECT asked.call_id FROM unnest(%s::bigint[]) AS asked (call_id)
    CROSS JOIN LATERAL (SELECT FROM calls WHERE portal = %s AND call_id = asked.call_id OFFSET 0) known
"""

_OUTPUT_KEY = sql.SQL("coalesce('disk:' || record_file_id, allowed.key, 'none')")

# The comparison comes before ON CONFLICT because that would lock, and so write, every row that it then leaves alone.
_CHANGE = sql.SQL(
    """
    WITH changed AS MATERIALIZED (
        SELECT s.*, c.entity_type AS old_type, c.entity_id AS old_id,
               c.call_id IS NOT NULL AND (c.entity_type, c.entity_id) IS DISTINCT FROM (s.entity_type, s.entity_id) AS moved
        FROM pg_temp.staged_calls s
        LEFT JOIN LATERAL (SELECT * FROM calls WHERE portal = %(portal)s AND call_id = s.call_id OFFSET 0) c ON true
        WHERE c.call_id IS NULL OR ({current}) IS DISTINCT FROM ({staged}) OR s.call_id = ANY(%(failed)s::bigint[])
    ), kept AS (
        INSERT INTO entity_changes (portal, entity_type, entity_id, field, before, after)
        SELECT %(portal)s, linked.type, linked.id, 'call', linked.before, linked.after
        FROM changed, LATERAL (VALUES (old_type, old_id, call_id::text, NULL), (entity_type, entity_id, NULL, call_id::text))
            AS linked (type, id, before, after)
        WHERE moved AND linked.type IN ('contact', 'lead', 'company', 'deal')
    ), reopened AS (
        UPDATE call_steps SET state = 'waiting', reason = 'entity_changed', input_key = NULL, updated_at = now()
        WHERE portal = %(portal)s AND call_id IN (SELECT call_id FROM changed WHERE moved) AND step = 'entity_summaries'
            AND (state = 'done' OR reason = 'no_entity')
    ), written AS (
        {write}
    )
    INSERT INTO call_steps (portal, call_id, step, state, output_key, attempts)
    SELECT %(portal)s, call_id, 'calls', 'done', {output_key}, 1 FROM changed
    LEFT JOIN unnest(%(links)s::text[], %(keys)s::text[]) AS allowed (link, key) ON link = raw ->> 'CALL_RECORD_URL'
    ON CONFLICT (portal, call_id, step) DO UPDATE SET
        state = 'done', reason = NULL, detail = NULL, output_key = excluded.output_key, updated_at = now()
    WHERE (call_steps.state, call_steps.output_key) IS DISTINCT FROM ('done', excluded.output_key)
    """
).format(
    current=_columns("c"),
    staged=_columns("s"),
    output_key=_OUTPUT_KEY,
    write=upsert(
        "calls",
        ("portal", "call_id"),
        COLUMNS[1:],
        source=sql.SQL("SELECT %(portal)s, {} FROM changed").format(_columns("changed")),
        touch="updated_at",
    ),
)

_LINKS = sql.SQL(
    """
    UPDATE call_steps p SET output_key = {output_key}, updated_at = now()
    FROM pg_temp.staged_calls
    LEFT JOIN unnest(%(links)s::text[], %(keys)s::text[]) AS allowed (link, key) ON link = raw ->> 'CALL_RECORD_URL'
    WHERE p.portal = %(portal)s AND p.call_id = ANY(%(linked)s) AND p.step = 'calls'
        AND staged_calls.call_id = p.call_id AND p.output_key IS DISTINCT FROM {output_key}
    """
).format(output_key=_OUTPUT_KEY)


_NOTHING = (None, 0, "unknown")
"""What a field that is empty, or cannot be read, leaves in a column."""


async def write(
    connection: Connection,
    portal: str,
    rows: Sequence[Row],
    *,
    record_hosts: Sequence[str] = (),
    failed: Collection[int] = (),
) -> None:
    """Write rows (a dict of COLUMNS each), best WRITE_AT_ONCE at a time; a row that did not change is not touched.

    Of a call that `rows` have twice the last counts. Marks step `calls` of each new or changed row done; its output key
    is what the archive depends on: the recording's Disk id, else the provider's host where `record_hosts` has it. (Of the
    link itself only `scheme://host[:port]/…` is kept.) A known call that belongs to another CRM entity than before is kept
    as a change of both entities, and waits for its summary again. `failed` are the calls that may be failed at step
    `calls`: those among `rows` read well now.
    """
    hosts = {f"https://{place_of(host)}/…": f"link:{place_of(host)}" for host in record_hosts}
    unique = {row["call_id"]: row for row in rows}
    cursor = await connection.execute(_KNOWN, [list(unique), portal], prepare=False)
    known = {row["call_id"] for row in await cursor.fetchall()}
    new = [row for call_id, row in unique.items() if call_id not in known]
    if new and not await _add(connection, portal, new, hosts):
        known |= unique.keys()
    if known:
        some = [row for call_id, row in unique.items() if call_id in known]
        await _compare(connection, portal, some, hosts, [call_id for call_id in known if call_id in failed])


async def write_partly(connection: Connection, portal: str, rows: Sequence[Row], details: Mapping[int, str]) -> None:
    """Write calls of which not every field could be read, and mark them failed at step `calls` with their `details`.

    A column that the row leaves empty keeps what was known: it may be the one that cannot be read.
    """
    cursor = await connection.execute(
        sql.SQL("SELECT {} FROM calls WHERE portal = %s AND call_id = ANY(%s)").format(_columns("calls")),
        [portal, [row["call_id"] for row in rows]],
    )
    known = {row["call_id"]: row for row in await cursor.fetchall()}
    kept = [
        {**row, **{name: value for name, value in known.get(row["call_id"], {}).items() if row[name] in _NOTHING}}
        for row in rows
    ]
    await write(connection, portal, kept)
    await fail(connection, portal, details)


async def fail(connection: Connection, portal: str, details: Mapping[int, str]) -> None:
    """Mark calls failed at step `calls`, call id → what cannot be read; calls that are not known are left out."""
    await connection.execute(
        """
        UPDATE call_steps p SET state = 'failed', reason = 'row_unreadable', detail = told.detail, output_key = NULL,
            attempts = attempts + (state = 'failed')::int, updated_at = now()
        FROM unnest(%s::bigint[], %s::text[]) AS told (call_id, detail)
        WHERE p.portal = %s AND p.call_id = told.call_id AND p.step = 'calls'
        """,
        [list(details), list(details.values()), portal],
    )


async def _add(connection: Connection, portal: str, rows: Sequence[Row], hosts: Mapping[str, str]) -> bool:
    """COPY rows that the table did not have a moment ago; False, with nothing written, if it has one of them now."""
    same = {"portal": ("text", portal)}
    done = {**same, "step": ("text", "calls"), "state": ("text", "done"), "attempts": ("integer", 1)}
    steps = ({"call_id": row["call_id"], "output_key": _output_key(row, hosts)} for row in rows)
    try:
        async with connection.transaction():
            await copy_rows(connection, sql.Identifier("calls"), _TYPES, rows, same=same)
            await copy_rows(connection, sql.Identifier("call_steps"), _STEP_TYPES, steps, same=done)
    except errors.UniqueViolation:
        return False
    return True


def _output_key(row: Row, hosts: Mapping[str, str]) -> str:
    record = row["record_file_id"]
    if record is not None:
        return f"disk:{record}"
    link = row["raw"].get("CALL_RECORD_URL")
    return hosts.get(link, "none") if isinstance(link, str) else "none"


async def _compare(
    connection: Connection, portal: str, rows: Sequence[Row], hosts: Mapping[str, str], failed: Sequence[int]
) -> None:
    """Bring the table to `rows` through the staging table."""
    parameters = {"portal": portal, "links": list(hosts), "keys": list(hosts.values()), "failed": failed}
    async with connection.transaction():
        await stage(connection, "staged_calls", _TYPES, rows)
        await connection.execute(_CHANGE, parameters, prepare=False)
        # Which links may be used is the portal's configuration: it can change while the call stays as it is.
        linked = [row["call_id"] for row in rows if row["record_file_id"] is None and row["raw"].get("CALL_RECORD_URL")]
        if linked:
            await connection.execute(_LINKS, {**parameters, "linked": linked}, prepare=False)


async def way(connection: Connection, portal: str, call_id: int) -> tuple[str, str | None]:
    """The call's direction, and the line (PORTAL_NUMBER) that it went over; LookupError when there is no such call."""
    cursor = await connection.execute(
        "SELECT direction, line FROM calls WHERE portal = %s AND call_id = %s", [portal, call_id]
    )
    row = await cursor.fetchone()
    if row is None:
        raise LookupError(f"{portal} has no call {call_id}")
    return row["direction"], row["line"]


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


async def by_day(connection: Connection, portal: str, first: date, last: date) -> dict[date, int]:
    """How many calls each day has; days without any are absent."""
    cursor = await connection.execute(
        "SELECT day, count(*) AS calls FROM calls WHERE portal = %s AND day BETWEEN %s AND %s GROUP BY day",
        [portal, first, last],
    )
    return {row["day"]: row["calls"] for row in await cursor.fetchall()}


async def days(connection: Connection, portal: str) -> tuple[date, date] | None:
    """The first and the last day with a call, or None."""
    cursor = await connection.execute(
        "SELECT min(day) AS first, max(day) AS last FROM calls WHERE portal = %s", [portal]
    )
    row = await cursor.fetchone()
    return (row["first"], row["last"]) if row and row["first"] else None
