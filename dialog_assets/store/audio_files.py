"""Table audio_files: the archived recordings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

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
)


async def settle_without_recording(
    connection: Connection, portal: str, first: date, last: date, *, patience_from: datetime
) -> None:
    """Account for the days' calls that have no recording.

    A call that was talked in and is younger than `patience_from` waits for its recording; an older one is skipped
    (and taken up again if a recording still appears); a call that nobody answered is skipped at once.
    """
    await connection.execute(
        """
        INSERT INTO call_steps (portal, call_id, step, state, reason, input_key, attempts)
        SELECT c.portal, c.call_id, 'audio_files',
               CASE WHEN answered AND c.started_at >= %(patience_from)s THEN 'waiting' ELSE 'skipped' END,
               CASE WHEN NOT answered THEN 'not_answered'
                    WHEN c.started_at >= %(patience_from)s THEN 'recording_not_ready' ELSE 'no_recording' END,
               'none', 1
        FROM calls c
        JOIN call_steps up ON up.portal = c.portal AND up.call_id = c.call_id AND up.step = 'calls' AND up.output_key = 'none',
            LATERAL (SELECT c.duration_s > 0 AND coalesce(c.failed_code, '200') = '200' AS answered) AS talk
        WHERE c.portal = %(portal)s AND c.day BETWEEN %(first)s AND %(last)s
        ON CONFLICT (portal, call_id, step) DO UPDATE SET
            state = excluded.state, reason = excluded.reason, detail = NULL, input_key = 'none', next_try = NULL,
            updated_at = now()
        WHERE call_steps.state <> 'done'
            AND (call_steps.state, call_steps.reason) IS DISTINCT FROM (excluded.state, excluded.reason)
        """,
        {"portal": portal, "first": first, "last": last, "patience_from": patience_from},
    )


async def wanted(connection: Connection, portal: str, calls: Sequence[int]) -> dict[int, Row]:
    """Call id → what the call tells of its recording: call_id, record_file_id, activity_id."""
    cursor = await connection.execute(
        "SELECT call_id, record_file_id, activity_id FROM calls WHERE portal = %s AND call_id = ANY(%s)",
        [portal, list(calls)],
    )
    return {row["call_id"]: row for row in await cursor.fetchall()}


async def put(connection: Connection, portal: str, call_id: int, row: Row) -> None:
    """Write the archived recording of a call, replacing an earlier one."""
    await connection.execute(
        upsert("audio_files", ("portal", "call_id"), _COLUMNS, touch="archived_at"),
        {**row, "portal": portal, "call_id": call_id},
    )


async def get(connection: Connection, portal: str, call_id: int) -> Row:
    """The archived recording of a call; LookupError when there is none."""
    cursor = await connection.execute("SELECT * FROM audio_files WHERE portal = %s AND call_id = %s", [portal, call_id])
    row = await cursor.fetchone()
    if row is None:
        raise LookupError(f"call {call_id} of {portal} has no archived recording")
    return row
