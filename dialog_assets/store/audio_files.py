"""Table audio_files: the archived recordings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from psycopg import sql
from psycopg.types.json import Jsonb

from dialog_assets.store.pool import Connection, Row
from dialog_assets.store.upsert import upsert

_COLUMNS = (
    "record_source",
    "record_file_id",
    "s3_bucket",
    "s3_key",
    "sha256",
    "bytes",
    "container",
    "codec",
    "sample_rate",
    "channels",
    "bit_rate",
    "duration_s",
    "peak_dbfs",
    "measures",
    "marks",
    "gate",
)

_DECIDED_AT_ONCE = 500

_UNANSWERED = ("402", "403", "404", "423", "480", "484", "486", "503", "603", "603-S")
"""Codes of the telephony that say that nobody talked, whatever stands before an underscore in them."""


async def settle_without_recording(
    connection: Connection, portal: str, first: date, last: date, *, patience_from: datetime
) -> None:
    """Account for the days' calls that have no recording.

    A call that was talked in and is younger than `patience_from` waits for its recording; an older one is skipped
    (and taken up again if a recording still appears); a call that nobody answered is skipped at once: one without a
    duration, or with a code that says so. Other codes than 200 are the exchanges' own words and say nothing. A call whose
    link may not be used is skipped with the link's host. What is archived stays as it is, also if the portal deletes its
    recording.
    """
    await connection.execute(
        """
        INSERT INTO call_steps (portal, call_id, step, state, reason, detail, input_key, attempts)
        SELECT c.portal, c.call_id, 'audio_files',
               CASE WHEN answered AND link IS NULL AND c.started_at >= %(patience_from)s THEN 'waiting' ELSE 'skipped' END,
               CASE WHEN NOT answered THEN 'not_answered'
                    WHEN link IS NOT NULL THEN 'recording_not_allowed'
                    WHEN c.started_at >= %(patience_from)s THEN 'recording_not_ready' ELSE 'no_recording' END,
               CASE WHEN NOT answered OR link IS NULL THEN NULL
                    WHEN host IS NULL THEN 'the recording''s link names no host: the exchange must give a whole https:// link'
                    WHEN link ILIKE 'https:%%' THEN 'host ' || host || ' is not in bitrix24.record_hosts of the portal file'
                    ELSE 'host ' || host || ' is linked without https://, and nothing else is fetched' END,
               'none', 1
        FROM calls c
        JOIN call_steps up ON up.portal = c.portal AND up.call_id = c.call_id AND up.step = 'calls' AND up.output_key = 'none',
            LATERAL (SELECT nullif(btrim(c.raw ->> 'CALL_RECORD_URL'), '') AS link) AS told,
            LATERAL (SELECT substring(link FROM '^(?:[A-Za-z][A-Za-z0-9+.-]*:)?//([^/]+)') AS host) AS place,
            LATERAL (SELECT c.duration_s > 0 AND split_part(
                regexp_replace(upper(btrim(coalesce(c.failed_code, ''))), '^.*_', ''), ' ', 1) <> ALL(%(unanswered)s)
                AS answered) AS talk
        WHERE c.portal = %(portal)s AND c.day BETWEEN %(first)s AND %(last)s
        ON CONFLICT (portal, call_id, step) DO UPDATE SET
            state = excluded.state, reason = excluded.reason, detail = excluded.detail, input_key = 'none', next_try = NULL,
            updated_at = now()
        WHERE call_steps.state <> 'done' AND NOT (call_steps.state = 'skipped' AND call_steps.output_key IS NOT NULL)
            AND (call_steps.state, call_steps.reason, call_steps.detail)
                IS DISTINCT FROM (excluded.state, excluded.reason, excluded.detail)
        """,
        {
            "portal": portal,
            "first": first,
            "last": last,
            "patience_from": patience_from,
            "unanswered": list(_UNANSWERED),
        },
    )


async def wanted(connection: Connection, portal: str, calls: Sequence[int]) -> dict[int, Row]:
    """Call id → what the call tells of its recording: call_id, record_file_id, activity_id; s3_key of an earlier one; cut_before,
    how often it was tried if its last try found it truncated."""
    cursor = await connection.execute(
        """
        SELECT c.call_id, c.record_file_id, c.activity_id, a.s3_key,
               CASE WHEN s.reason = 'recording_truncated' THEN s.attempts ELSE 0 END AS cut_before
        FROM calls c LEFT JOIN audio_files a USING (portal, call_id)
        LEFT JOIN call_steps s ON s.portal = c.portal AND s.call_id = c.call_id AND s.step = 'audio_files'
        WHERE c.portal = %s AND c.call_id = ANY(%s)
        """,
        [portal, list(calls)],
    )
    return {row["call_id"]: row for row in await cursor.fetchall()}


async def put(connection: Connection, portal: str, call_id: int, row: Row) -> None:
    """Write the archived recording of a call, replacing an earlier one. `measures`, `marks` and `gate` may be left out."""
    measures = row.get("measures")
    await connection.execute(
        upsert("audio_files", ("portal", "call_id"), _COLUMNS, touch="archived_at"),
        {
            "marks": None,
            "gate": None,
            **row,
            "measures": None if measures is None else Jsonb(measures),
            "portal": portal,
            "call_id": call_id,
        },
    )


async def decided_otherwise(
    connection: Connection, portal: str, first: date, last: date, gate: str, *, after: int
) -> list[Row]:
    """The days' measured recordings above call `after` that were let through or stopped by another gate, some at a time."""
    cursor = await connection.execute(
        """
        SELECT a.* FROM calls c
        JOIN audio_files a USING (portal, call_id)
        JOIN call_steps s ON s.portal = c.portal AND s.call_id = c.call_id AND s.step = 'audio_files'
            AND s.state IN ('done', 'skipped') AND s.output_key = a.sha256
        WHERE c.portal = %s AND c.day BETWEEN %s AND %s AND c.call_id > %s
            AND a.measures IS NOT NULL AND a.gate IS DISTINCT FROM %s
        ORDER BY c.call_id LIMIT %s
        """,
        [portal, first, last, after, gate, _DECIDED_AT_ONCE],
    )
    return await cursor.fetchall()


_BOUGHT = sql.SQL(
    """
    SELECT FROM ledger WHERE portal = %(portal)s AND call_id = %(call_id)s AND step = 'transcripts'
        AND state IN ('asked', 'answered')
    """
)
"""A recognition that nothing has come of yet."""

_DECIDE = sql.SQL(
    """
    UPDATE audio_files SET marks = %(marks)s, gate = %(gate)s
    WHERE portal = %(portal)s AND call_id = %(call_id)s AND (%(skip)s::text IS NULL OR NOT EXISTS ({bought}))
    """
).format(bought=_BOUGHT)

_STOP = sql.SQL(
    """
    UPDATE call_steps s SET state = CASE WHEN %(skip)s::text IS NULL THEN 'done' ELSE 'skipped' END, reason = %(skip)s,
        updated_at = now()
    WHERE portal = %(portal)s AND call_id = %(call_id)s AND step = 'audio_files' AND reason IS DISTINCT FROM %(skip)s
        AND (%(skip)s::text IS NULL OR NOT EXISTS ({bought}
            UNION ALL
            SELECT FROM call_steps t WHERE t.portal = %(portal)s AND t.call_id = %(call_id)s AND t.step = 'transcripts'
                AND t.state IN ('done', 'skipped') AND t.input_key = s.output_key))
    """
).format(bought=_BOUGHT)


async def decide(
    connection: Connection, portal: str, gate: str, decisions: Sequence[tuple[int, str | None, Sequence[str]]]
) -> None:
    """Write what a gate made of archived recordings: call, the reason to skip it or None, marks.

    A recording whose recognition is bought is not stopped any more; as long as nothing came of it, it is not decided.
    """
    if not decisions:
        return
    values = [
        {"portal": portal, "call_id": call_id, "gate": gate, "skip": skip, "marks": list(marks)}
        for call_id, skip, marks in decisions
    ]
    async with connection.cursor() as cursor:
        await cursor.executemany(_DECIDE, values)
        await cursor.executemany(_STOP, values)


async def get(connection: Connection, portal: str, call_id: int) -> Row:
    """The archived recording of a call; LookupError when there is none."""
    cursor = await connection.execute("SELECT * FROM audio_files WHERE portal = %s AND call_id = %s", [portal, call_id])
    row = await cursor.fetchone()
    if row is None:
        raise LookupError(f"call {call_id} of {portal} has no archived recording")
    return row
