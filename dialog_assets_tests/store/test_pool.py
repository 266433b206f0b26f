"""The connections of one run: how they are given out, what they do again, and what they must not write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psycopg
import pytest

from dialog_assets.resources.bitrix24 import PostgresPacer
from dialog_assets.store.pool import Pool, open_pool
from dialog_assets_tests.store.rows import PORTAL, all_rows


def test_a_connection_that_died_while_idle_is_replaced(database: str) -> None:
    """The work after a long wait gets a connection that works, not the one that a network has cut meanwhile."""

    async def run() -> None:
        async with open_pool(database, size=1) as pool:
            async with pool.connection() as connection:
                pid = connection.info.backend_pid
                assert connection.info.get_parameters()["keepalives_idle"] == "30"
            async with await psycopg.AsyncConnection.connect(database, autocommit=True) as other:
                await other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            async with pool.connection() as connection:
                assert connection.info.backend_pid != pid
                await connection.execute("SELECT 1")

    asyncio.run(run())


async def take(pool: Pool) -> None:
    """A connection, for nothing."""
    async with pool.connection():
        pass


async def pace(pool: Pool) -> None:
    """A request of the portal's bucket, which is taken in autocommit."""
    await PostgresPacer(pool, PORTAL, 1000.0, 1000.0).take()


@pytest.mark.parametrize("use", [take, pace])
def test_a_cancelled_use_of_a_connection_leaves_transactions_whole(
    database: str, monkeypatch: pytest.MonkeyPatch, use: Callable[[Pool], Awaitable[None]]
) -> None:
    """At whichever of its steps it is cancelled: what the next one does and takes back is taken back whole."""
    # psycopg lets others run after any step when the loop has been busy, so that a cancellation can come there.
    monkeypatch.setattr("psycopg.waiting.MAX_BUSY_TIME", -1.0)

    async def used(pool: Pool, steps: int) -> bool:
        """Whether the use came to its end before so many steps."""
        using = asyncio.ensure_future(use(pool))

        async def step(seconds: float) -> None:
            nonlocal steps
            if asyncio.current_task() is using:
                steps -= 1
                if steps == 0:
                    using.cancel()
            await asyncio.sleep(seconds)

        monkeypatch.setattr("psycopg.waiting.sleep", step)
        await asyncio.gather(using, return_exceptions=True)
        return not using.cancelled()

    async def run() -> None:
        async with open_pool(database, size=1) as pool:
            steps = 1
            while not await used(pool, steps):
                with suppress(ZeroDivisionError):
                    async with pool.connection() as connection:
                        await connection.execute("UPDATE portals SET domain = 'taken back'")
                        raise ZeroDivisionError
                rows = await all_rows(pool, "SELECT FROM portals WHERE domain = 'taken back'")
                assert not rows, f"cancelled at step {steps}"
                steps += 1
            assert steps > 3, "nothing of it was cancelled"

    asyncio.run(run())
