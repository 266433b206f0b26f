"""Table recogniser_slots: a recogniser account's concurrent streams, shared by every run on this database.

A slot is taken before a recording is submitted and held for as long as its operation is at the vendor, whatever becomes of
the run: a later run of the same recording takes the slot over with the operation, others free it when they find that the
operation has ended, and time ends it if all else fails. Who finds none waits in line, first come, first served; of each
process one recording stands in it, the rest behind it in the process's own line, so that a slot that becomes free wakes a
handful and not hundreds.

Here: the line and the SQL. Not here: what is asked of the vendor (given as `has_ended`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection

from dialog_assets.store.connections import connect
from dialog_assets.store.pool import Connection, Pool

log = logging.getLogger("dialog_assets")

CHANNEL = "recogniser_slots"
LINE = timedelta(seconds=20)
"""How long a place in line is kept for a process that does not come back."""
SUBMISSION = timedelta(minutes=15)
"""How long a slot is held for a submission of which nothing more is heard."""
UNCLEAR = timedelta(hours=1)
"""How long for one that may be at the vendor."""


class Slots:
    """The slots of one account as one run of `portal` uses them; an async context manager.

    number: how many streams the account has. has_ended: whether an operation has left the vendor's work, told by asking.
    life: how long an operation may be at the vendor. look_s: seconds after which a waiting process looks without being
    woken. stale_s: seconds after which an operation that nobody looked after may be asked for by others.
    """

    def __init__(
        self,
        pool: Pool,
        account: str,
        portal: str,
        number: int,
        *,
        has_ended: Callable[[str], Awaitable[bool]],
        life: timedelta,
        look_s: float = 5.0,
        stale_s: float = 180.0,
    ) -> None:
        self._pool = pool
        self._whose = {"account": account, "portal": portal}
        self._number = number
        self._has_ended = has_ended
        self._life = life
        self._look_s = look_s
        self._stale_s = stale_s
        self._line = asyncio.Lock()
        self._listening: AsyncConnection[Any] | None = None

    async def __aenter__(self) -> Slots:
        """Take stock: no other run of this portal lives, so what it left may be asked for at once."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """
                DELETE FROM recogniser_slots
                WHERE account = %(account)s AND (ends_at < clock_timestamp() OR portal = %(portal)s AND NOT granted)
                """,
                self._whose,
            )
            await connection.execute(
                """
                UPDATE recogniser_slots SET seen_at = '-infinity'
                WHERE account = %(account)s AND portal = %(portal)s AND operation_id IS NOT NULL
                """,
                self._whose,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listening is not None:
            await self._listening.close()

    async def take(self, key: str, until: float) -> bool:
        """Get a slot for the recording `key`, waiting for it until the event loop's time `until`; whether there was one.

        Who has one already keeps it.
        """
        async with self._line:
            return await self._ask(key) or await self._wait(key, until)

    async def drop_unasked(self) -> None:
        """Give back what earlier runs of this portal had taken, when nothing of it was submitted or can still be there."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """
                WITH freed AS (
                    DELETE FROM recogniser_slots s
                    WHERE account = %(account)s AND portal = %(portal)s AND operation_id IS NULL
                        AND NOT EXISTS (SELECT FROM ledger l
                            WHERE l.portal = s.portal AND l.request_key = s.request_key AND l.state = 'asked')
                    RETURNING account)
                SELECT pg_notify(%(channel)s, account) FROM freed
                """,
                {**self._whose, "channel": CHANNEL},
            )

    async def hold(self, connection: Connection, key: str, operation_id: str) -> None:
        """Hold the slot for an operation that is at the vendor, whether or not there was one left for it."""
        await connection.execute(
            """
            INSERT INTO recogniser_slots (account, portal, request_key, granted, operation_id, ends_at)
            VALUES (%(account)s, %(portal)s, %(key)s, true, %(operation_id)s, clock_timestamp() + %(life)s)
            ON CONFLICT (account, portal, request_key) DO UPDATE SET granted = true, operation_id = excluded.operation_id,
                seen_at = excluded.seen_at, ends_at = excluded.ends_at
            """,
            {**self._whose, "key": key, "operation_id": operation_id, "life": self._life},
        )

    async def keep(self, key: str, time: timedelta = SUBMISSION) -> None:
        """Hold the slot at least so much longer, and let others know that somebody looks after it."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """
                UPDATE recogniser_slots SET seen_at = clock_timestamp(), ends_at = greatest(ends_at, clock_timestamp() + %(time)s)
                WHERE account = %(account)s AND portal = %(portal)s AND request_key = %(key)s
                """,
                {**self._whose, "key": key, "time": time},
            )

    async def free(self, connection: Connection, key: str) -> None:
        """Give the slot, or the place in line, back; the next in line is woken when the caller's transaction ends."""
        await _free(connection, {**self._whose, "key": key, "operation_id": None})

    async def _ask(self, key: str) -> bool:
        """Stand in line for `key`, or stay in it; whether its turn has come."""
        values = {**self._whose, "key": key, "number": self._number, "line": LINE, "submission": SUBMISSION}
        async with self._pool.connection() as connection:
            # One process after another, each seeing what the one before it wrote.
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('dialog_assets/recogniser_slots/' || %(account)s, 0))",
                values,
            )
            await connection.execute(
                """
                INSERT INTO recogniser_slots AS s (account, portal, request_key, ends_at)
                VALUES (%(account)s, %(portal)s, %(key)s, clock_timestamp() + %(line)s)
                ON CONFLICT (account, portal, request_key) DO UPDATE SET seen_at = excluded.seen_at,
                    granted = s.granted AND s.ends_at > clock_timestamp(), ends_at = greatest(s.ends_at, excluded.ends_at)
                """,
                values,
            )
            cursor = await connection.execute(
                """
                UPDATE recogniser_slots mine SET granted = true, ends_at = greatest(ends_at, clock_timestamp() + %(submission)s)
                WHERE account = %(account)s AND portal = %(portal)s AND request_key = %(key)s
                    AND (granted OR %(number)s > (
                        SELECT count(*) FROM recogniser_slots other
                        WHERE other.account = mine.account AND other.ends_at > clock_timestamp()
                            AND (other.granted OR other.place < mine.place)))
                """,
                values,
            )
            return cursor.rowcount == 1

    async def _wait(self, key: str, until: float) -> bool:
        loop = asyncio.get_running_loop()
        listening = await self._listen()
        # Asked again before waiting: a slot may have become free before this process listened.
        while not await self._ask(key):
            left = until - loop.time()
            if left <= 0:
                async with self._pool.connection() as connection:
                    await self.free(connection, key)
                return False
            if await self._looked_after_another():
                continue
            try:
                async for _ in listening.notifies(timeout=min(left, self._look_s), stop_after=1):
                    pass
            except psycopg.OperationalError:
                listening = await self._listen()
        return True

    async def _listen(self) -> AsyncConnection[Any]:
        """A connection of its own that hears of freed slots; one that was lost in a long pause is replaced."""
        if self._listening is not None:
            try:
                await self._listening.execute("SELECT 1")
            except psycopg.OperationalError:
                await self._listening.close()
            else:
                return self._listening
        assert isinstance(self._pool.conninfo, str)  # noqa: S101 - open_pool gives a URL
        self._listening = await connect(self._pool.conninfo, autocommit=True)
        await self._listening.execute(f"LISTEN {CHANNEL}".encode())
        return self._listening

    async def _looked_after_another(self) -> bool:
        """Ask for one operation that nobody looks after, of a run that was killed or whose patience ended, if there is one."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                """
                UPDATE recogniser_slots SET seen_at = clock_timestamp()
                WHERE (account, portal, request_key) = (
                    SELECT account, portal, request_key FROM recogniser_slots
                    WHERE account = %(account)s AND operation_id IS NOT NULL
                        AND seen_at < clock_timestamp() - make_interval(secs => %(stale_s)s)
                    ORDER BY seen_at LIMIT 1 FOR UPDATE SKIP LOCKED)
                RETURNING account, portal, request_key AS key, operation_id
                """,
                {**self._whose, "stale_s": self._stale_s},
            )
            left = await cursor.fetchone()
        if left is None:
            return False
        if await self._has_ended(left["operation_id"]):
            log.info("%s: the operation of %s has ended; its slot is free", left["portal"], left["key"])
            async with self._pool.connection() as connection:
                await _free(connection, left)
        return True


async def _free(connection: Connection, whose: dict[str, Any]) -> None:
    """Delete the row, if it still is of `operation_id` where that is given."""
    await connection.execute(
        """
        WITH freed AS (
            DELETE FROM recogniser_slots
            WHERE account = %(account)s AND portal = %(portal)s AND request_key = %(key)s
                AND operation_id IS NOT DISTINCT FROM coalesce(%(operation_id)s, operation_id)
            RETURNING account)
        SELECT pg_notify(%(channel)s, account) FROM freed
        """,
        {**whose, "channel": CHANNEL},
    )
