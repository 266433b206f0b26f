"""The connections of one step: a pool of rows-as-dicts connections, and the lock that keeps two runs off the same step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]
Row = dict[str, Any]

log = logging.getLogger("dialog_assets")


@asynccontextmanager
async def open_pool(url: str, *, size: int = 8) -> AsyncIterator[Pool]:
    """A pool of at most `size` connections to the application database, closed at the end."""
    pool: Pool = AsyncConnectionPool(
        url,
        connection_class=AsyncConnection[DictRow],
        kwargs={"row_factory": dict_row},
        min_size=1,
        max_size=size,
        open=False,
    )
    async with pool:
        yield pool


@asynccontextmanager
async def step_lock(url: str, portal: str, step: str) -> AsyncIterator[None]:
    """Hold `portal/step` for this run; a second run waits here, then finds the first one's results and buys nothing twice.

    The lock lives on its own session, so it ends with the process, however that ends.
    """
    name = f"dialog_assets/{portal}/{step}"
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        told = False
        while True:
            cursor = await connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [name])
            row = await cursor.fetchone()
            if row is not None and row[0]:
                break
            if not told:
                log.info("%s/%s: another run works on this step; waiting for it to end", portal, step)
                told = True
            await asyncio.sleep(0.5)
        yield
