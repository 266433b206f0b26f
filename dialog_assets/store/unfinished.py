"""Work that is left, of whatever day: which steps of which days have it, and since when it may be taken up.

Three kinds. A call that failed or waits and may be tried again. A purchase that a run which ended has left at the vendor.
And, since the portal has nights, a call that a step has not come to, though the step before it has left something to do.
Not here: what is done about it (assets/sensors.py), days that were never read (nights.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from dialog_assets.store.pool import Connection

SILENT = timedelta(minutes=30)
"""What nobody has touched for so long is of a run that has ended."""
AGAIN = timedelta(minutes=15)
"""How long a failed call is left alone after its first try; twice as long after each that follows."""
LONGEST = timedelta(hours=12)
"""And at most so long."""
BY_DAY = ("users", "entities", "entity_summaries")
"""Steps that take all calls of a day, whatever key the step before them left."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The calls of a day that a step has left: how many, how many of them are due, when the first is, and some of them."""

    day: date
    step: str
    waiting: int
    due: int
    next_try: datetime
    calls: tuple[int, ...] = ()


async def read(connection: Connection, portal: str, upstream: Mapping[str, str]) -> list[Unfinished]:
    """What is left, oldest day first. `upstream`: step → the step that it works from, in order of the graph.

    A call counts only where its step would take it up. A failed call is due when its own time has come and it has been
    left alone for a while, longer after each try, so that a call which fails every time costs less and less.
    """
    cursor = await connection.execute(
        """
        WITH chain AS (
            SELECT * FROM unnest(%(steps)s::text[], %(upstreams)s::text[]) WITH ORDINALITY AS chain (step, upstream, place)
        ), left_over AS (
            SELECT mine.call_id, mine.step,
                CASE mine.state WHEN 'waiting' THEN mine.next_try ELSE greatest(mine.next_try,
                    mine.updated_at + least(%(longest)s, %(again)s * power(2, least(greatest(mine.attempts, 1), 10) - 1)))
                END AS next_try
            FROM call_steps mine JOIN chain USING (step)
            JOIN call_steps up ON up.portal = mine.portal AND up.call_id = mine.call_id AND up.step = chain.upstream
                AND up.state = 'done' AND (mine.step = ANY(%(by_day)s) OR up.output_key <> 'none')
            WHERE mine.portal = %(portal)s AND mine.state IN ('failed', 'waiting') AND mine.next_try IS NOT NULL
            UNION
            SELECT l.call_id, 'transcripts', greatest(coalesce(mine.updated_at, l.asked_at), l.asked_at) + %(silent)s
            FROM ledger l
            JOIN call_steps up ON up.portal = l.portal AND up.call_id = l.call_id AND up.step = 'audio_files'
                AND up.state = 'done' AND l.request_key = concat_ws('/', l.vendor, l.call_id, up.output_key)
            LEFT JOIN call_steps mine ON mine.portal = l.portal AND mine.call_id = l.call_id AND mine.step = 'transcripts'
                AND mine.input_key = up.output_key
            WHERE l.portal = %(portal)s AND l.step = 'transcripts' AND l.state IN ('asked', 'answered')
                AND (mine.state IS NULL OR mine.state = 'failed' AND mine.next_try IS NOT NULL)
            UNION
            SELECT up.call_id, chain.step, up.updated_at + %(silent)s
            FROM portals p
            JOIN calls c ON c.portal = p.portal AND c.day >= p.nights_from
            JOIN call_steps up ON up.portal = c.portal AND up.call_id = c.call_id AND up.state = 'done'
            JOIN chain ON chain.upstream = up.step
            LEFT JOIN call_steps mine ON mine.portal = c.portal AND mine.call_id = c.call_id AND mine.step = chain.step
            WHERE p.portal = %(portal)s AND (
                mine.call_id IS NULL OR mine.state = 'waiting' AND mine.next_try IS NULL
                OR chain.step <> ALL(%(by_day)s) AND mine.input_key IS DISTINCT FROM up.output_key
            ) AND (chain.step = ANY(%(by_day)s) OR up.output_key <> 'none')
        ), one_each AS (
            SELECT call_id, step, min(next_try) AS next_try FROM left_over GROUP BY 1, 2
        )
        SELECT c.day, o.step, count(*) AS waiting, count(*) FILTER (WHERE o.next_try <= now()) AS due,
            min(o.next_try) AS next_try, (array_agg(o.call_id ORDER BY o.next_try, o.call_id))[1:3] AS calls
        FROM one_each o JOIN calls c ON c.portal = %(portal)s AND c.call_id = o.call_id JOIN chain USING (step)
        GROUP BY c.day, o.step, chain.place ORDER BY c.day, chain.place
        """,
        {
            "portal": portal,
            "steps": list(upstream),
            "upstreams": list(upstream.values()),
            "by_day": list(BY_DAY),
            "silent": SILENT,
            "again": AGAIN,
            "longest": LONGEST,
        },
    )
    return [Unfinished(**{**row, "calls": tuple(row["calls"])}) for row in await cursor.fetchall()]
