"""Recognition that a run has left unfinished: which days have it, and since when it may be taken up again.

Calls that wait at step transcripts for their next try, and purchases of runs that ended without a word, on any day.
Not here: what is done about it (assets/sensors.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from dialog_assets.store.pool import Connection

SILENT = timedelta(minutes=30)
"""A purchase that nobody has touched for so long is of a run that has ended."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A day's calls that wait at the recogniser: how many, how many of them are due, and when the next one is."""

    day: date
    waiting: int
    due: int
    next_try: datetime


async def recognition(connection: Connection, portal: str) -> list[Unfinished]:
    """The days with unfinished recognition, oldest first.

    A purchase left open counts as due only where the step would take it up: its recording is the present one, and the
    call is not failed for good.
    """
    cursor = await connection.execute(
        """
        WITH waiting AS (
            SELECT call_id, next_try FROM call_steps
            WHERE portal = %(portal)s AND step = 'transcripts' AND state = 'waiting' AND next_try IS NOT NULL
            UNION
            SELECT l.call_id, greatest(coalesce(mine.updated_at, l.asked_at), l.asked_at) + %(silent)s
            FROM ledger l
            JOIN call_steps up ON up.portal = l.portal AND up.call_id = l.call_id AND up.step = 'audio_files'
                AND up.state = 'done' AND l.request_key = concat_ws('/', l.vendor, l.call_id, up.output_key)
            LEFT JOIN call_steps mine ON mine.portal = l.portal AND mine.call_id = l.call_id AND mine.step = 'transcripts'
                AND mine.input_key = up.output_key
            WHERE l.portal = %(portal)s AND l.step = 'transcripts' AND l.state IN ('asked', 'answered')
                AND (mine.state IS NULL OR mine.state = 'failed' AND mine.next_try IS NOT NULL)
        )
        SELECT c.day, count(*) AS waiting, count(*) FILTER (WHERE w.next_try <= now()) AS due, min(w.next_try) AS next_try
        FROM waiting w JOIN calls c ON c.portal = %(portal)s AND c.call_id = w.call_id
        GROUP BY 1 ORDER BY 1
        """,
        {"portal": portal, "silent": SILENT},
    )
    return [Unfinished(**row) for row in await cursor.fetchall()]
