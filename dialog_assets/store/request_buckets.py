"""Table request_buckets: one leaky bucket of REST requests per portal, shared by every run on this database."""

from __future__ import annotations

from dialog_assets.store.pool import Connection


async def reserve(connection: Connection, portal: str, room: float, drain_per_second: float) -> float:
    """Count one request and return the seconds to wait before it may be sent.

    The level drains all the time; a request that would lift it above `room` takes its place in the queue by waiting until
    the level it was counted at has drained to `room`: first come, first served, whichever process it is of.
    One statement, and the table is unlogged, so on an autocommit connection it costs one round trip and no wait for the
    disk. A clock that was set back drains nothing for that once, and is counted from its new time on.
    """
    cursor = await connection.execute(
        """
        INSERT INTO request_buckets AS b (portal, level, counted_at) VALUES (%(portal)s, 1, clock_timestamp())
        ON CONFLICT (portal) DO UPDATE SET
            level = greatest(0, b.level - %(drain)s * greatest(0, extract(epoch FROM clock_timestamp() - b.counted_at))) + 1,
            counted_at = clock_timestamp()
        RETURNING greatest(0, (level - %(room)s) / %(drain)s)::float8 AS wait
        """,
        {"portal": portal, "room": room, "drain": drain_per_second},
    )
    row = await cursor.fetchone()
    return float(row["wait"]) if row else 0.0
