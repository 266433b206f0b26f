"""The connections of one step: a pool of rows-as-dicts connections whose transactions keep to the step's lease.

Here: giving out connections, and transactions that are done again when a passing fault has undone them. Not here: how one
is opened (connections), who may write (leases), which faults pass (faults).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.abc import Params
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from psycopg_pool.base import AttemptWithBackoff

from dialog_assets.store.connections import PARAMETERS, configure
from dialog_assets.store.faults import LONGEST_PAUSE_S, PATIENCE_S, PAUSE_S, passing, sentence
from dialog_assets.store.leases import Lease

Connection = AsyncConnection[DictRow]
Row = dict[str, Any]
T = TypeVar("T")

log = logging.getLogger("dialog_assets")

# A server that comes back after a minute is found then, not after another minute.
AttemptWithBackoff.DELAY_BACKOFF = 1.0
# It tells each attempt; what matters is told here.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


class Pool(AsyncConnectionPool[Connection]):
    """Connections to the application database. `lease`: what every transaction that writes is checked against."""

    lease: Lease | None = None

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[Connection]:  # noqa: ASYNC109 - psycopg's
        """A connection for one transaction, unless its user sets autocommit. Raises LockLost, and nothing is written."""
        async with super().connection(timeout) as connection:
            yield connection
            await self._before_commit(connection)

    async def transact(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do `work` in one transaction, again where a passing fault of Postgres has undone it; returns what it returns.

        `work` does nothing but what the transaction undoes. Where the answer to COMMIT was lost, the server is asked what
        became of the transaction, so that it is done once. Raises the fault when it has not passed after PATIENCE_S.
        """
        patience = Patience()
        while True:
            transaction: str | None = None
            try:
                async with super().connection(patience.left_s()) as connection:
                    result = await work(connection)
                    transaction = await self._before_commit(connection)
                return result
            except psycopg.Error as error:
                await patience.wait(error)
            if transaction is not None and await self._is_committed(transaction, patience):
                return result

    async def rows(self, statement: LiteralString, values: Params | None = None) -> list[Row]:
        """The rows of one statement that only reads, asked for again as in `transact`."""

        async def read(connection: Connection) -> list[Row]:
            return await (await connection.execute(statement, values)).fetchall()

        return await self.transact(read)

    async def _before_commit(self, connection: Connection) -> str | None:
        """Check the lease of a transaction that has written; returns the transaction's number, if it has one."""
        if connection.info.transaction_status != TransactionStatus.INTRANS:
            return None
        cursor = await connection.execute("SELECT pg_current_xact_id_if_assigned()::text AS number")
        row = await cursor.fetchone()
        number = row["number"] if row else None
        if number is not None and self.lease is not None:
            await self.lease.check(connection)
        return None if number is None else str(number)

    async def _is_committed(self, transaction: str, patience: Patience) -> bool:
        while True:
            try:
                async with super().connection(patience.left_s()) as connection:
                    cursor = await connection.execute("SELECT pg_xact_status(%s::xid8) AS status", [transaction])
                    row = await cursor.fetchone()
            except psycopg.DataError:
                return False  # the server fell before it had written the number down
            except psycopg.Error as error:
                await patience.wait(error)
                continue
            if row is None or row["status"] != "in progress":
                return row is not None and row["status"] == "committed"
            await asyncio.sleep(PAUSE_S)


class Patience:
    """How long one piece of work waits for faults to pass: PATIENCE_S from the first of them on."""

    def __init__(self) -> None:
        self._until: float | None = None
        self._pause_s = PAUSE_S

    def left_s(self) -> float:
        """The seconds that are left."""
        now = asyncio.get_running_loop().time()
        return max(1.0, PATIENCE_S if self._until is None else self._until - now)

    async def wait(self, error: psycopg.Error) -> None:
        """Pause before the next try. Raises `error` if it does not pass, or has not for too long."""
        now = asyncio.get_running_loop().time()
        if not passing(error) or isinstance(error, PoolTimeout) or (self._until is not None and now >= self._until):
            raise error
        if self._until is None:
            self._until = now + PATIENCE_S
            _tell(error, now)
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)


_told: dict[asyncio.AbstractEventLoop, float] = {}


def _tell(error: psycopg.Error, now: float) -> None:
    """Say what is waited for, once for all who wait for it."""
    loop = asyncio.get_running_loop()
    if now - _told.get(loop, -PATIENCE_S) >= PATIENCE_S:
        _told.clear()
        _told[loop] = now
        log.warning("%s; waiting up to %.0f s for it to pass", sentence(error), PATIENCE_S)


@asynccontextmanager
async def open_pool(url: str, *, size: int = 8) -> AsyncIterator[Pool]:
    """A pool of at most `size` connections to the application database, closed at the end.

    A connection that ended while it was idle is replaced before it is given out. What is done in one `pool.connection()`
    is one transaction, unless its user sets autocommit.
    """
    pool = Pool(
        url,
        connection_class=AsyncConnection[DictRow],
        kwargs={"row_factory": dict_row, **PARAMETERS},
        configure=configure,
        min_size=1,
        max_size=size,
        timeout=PATIENCE_S,
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
