"""Table read_days, and since when a portal has nights: which nights did not run.

A portal's nights begin with the first one that its schedule asks for. Every day since then is to be read; what was before
is an engineer's own choice, and nothing here counts it as missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from dialog_assets.store.pool import Connection


async def mark_read(connection: Connection, portal: str, days: Sequence[date]) -> None:
    """The calls of these days have been read whole."""
    await connection.execute(
        """
        INSERT INTO read_days (portal, day) SELECT %s, unnest(%s::date[])
        ON CONFLICT (portal, day) DO UPDATE SET read_at = now()
        """,
        [portal, list(days)],
    )


async def begin(connection: Connection, portal: str, first: date) -> date:
    """The first day of the portal's first night, which is this one if it has had none."""
    cursor = await connection.execute(
        "UPDATE portals SET nights_from = coalesce(nights_from, %s) WHERE portal = %s RETURNING nights_from",
        [first, portal],
    )
    row = await cursor.fetchone()
    return first if row is None else row["nights_from"]


async def begun(connection: Connection, portal: str) -> date | None:
    """The first day of the portal's first night; None while it has had none."""
    cursor = await connection.execute("SELECT nights_from FROM portals WHERE portal = %s", [portal])
    row = await cursor.fetchone()
    return None if row is None else row["nights_from"]


async def unread(connection: Connection, portal: str, first: date, last: date) -> list[date]:
    """The days from `first` to `last` whose calls have never been read, in order."""
    cursor = await connection.execute(
        """
        SELECT day::date AS day FROM generate_series(%(first)s::timestamp, %(last)s::timestamp, interval '1 day') AS day
        WHERE NOT EXISTS (SELECT FROM read_days r WHERE r.portal = %(portal)s AND r.day = day.day::date) ORDER BY 1
        """,
        {"portal": portal, "first": first, "last": last},
    )
    return [row["day"] for row in await cursor.fetchall()]
