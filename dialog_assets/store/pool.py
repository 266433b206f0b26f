"""The connections of one step: a pool of rows-as-dicts connections, and the lock that keeps two runs off the same step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from dialog_assets.errors import DialogAssetsError

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]
Row = dict[str, Any]

log = logging.getLogger("dialog_assets")

HEARTBEAT_S = 30.0
"""How often a lock's session is used."""
ANSWER_S = 30.0
"""How long that may take before the session counts as lost."""
KEEPALIVES: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Seconds, but `tcp_user_timeout` is in milliseconds: networks cut a connection that is silent for minutes without a word."""


class LockLost(DialogAssetsError):
    """The session that held a step's lock has ended, so that another run may be working on the same items."""


@asynccontextmanager
async def open_pool(url: str, *, size: int = 8) -> AsyncIterator[Pool]:
    """A pool of at most `size` connections to the application database, closed at the end.

    A connection that ended while it was idle is replaced before it is given out. What is done in one `pool.connection()`
    is one transaction, unless its user sets autocommit.
    """
    pool: Pool = AsyncConnectionPool(
        url,
        connection_class=AsyncConnection[DictRow],
        kwargs={"row_factory": dict_row, **KEEPALIVES},
        min_size=1,
        max_size=size,
        check=_alive,
        open=False,
    )
    async with pool:
        yield pool


async def _alive(connection: Connection) -> None:
    """The pool's own check, which goes into autocommit and out again: one that is cancelled on the way is not used again.

    In autocommit whoever had it next would commit each statement by itself, a purchase settled and its result not stored
    (psycopg-pool 3.3.3).
    """
    try:
        await AsyncConnectionPool.check_connection(connection)
    except BaseException:
        await connection.close()
        raise


@asynccontextmanager
async def step_lock(url: str, portal: str, step: str) -> AsyncIterator[None]:
    """Hold `portal/step` for this run; a second run waits here, then finds the first one's results and buys nothing twice.

    The lock lives on its own session, so it ends with the process, however that ends. If the session ends before the
    body does, the body is cancelled and LockLost raised.
    """
    name = f"dialog_assets/{portal}/{step}"
    async with await AsyncConnection.connect(url, autocommit=True, **KEEPALIVES) as connection:
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
        async with _kept(connection, f"{portal}/{step}"):
            yield


@asynccontextmanager
async def _kept(connection: AsyncConnection[Any], what: str) -> AsyncIterator[None]:
    """Watch over the session that holds the lock of `what` while the body runs. Raises LockLost."""
    body = asyncio.current_task()
    assert body is not None  # noqa: S101 - only a task can wait
    cancelling = body.cancelling()
    lost: psycopg.Error | TimeoutError | None = None

    async def watch() -> None:
        nonlocal lost
        try:
            await _beat(connection)
        except (psycopg.Error, TimeoutError) as error:
            lost = error
            body.cancel()

    heart = asyncio.create_task(watch())
    try:
        try:
            yield
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
    except asyncio.CancelledError:
        # As asyncio.timeout does: only the cancellation from here becomes an error, one from outside stays what it is.
        if lost is not None and body.uncancel() <= cancelling:
            raise LockLost(
                f"{what}: the run has lost its lock on Postgres ({type(lost).__name__}), so another run may have begun "
                "the same work, and this one stops; run it again."
            ) from lost
        raise


async def _beat(connection: AsyncConnection[Any]) -> None:
    """Keep the session busy, so that nothing takes it for idle. Raises psycopg.Error or TimeoutError once it has ended."""
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        async with asyncio.timeout(ANSWER_S):
            await connection.execute("SELECT 1")
