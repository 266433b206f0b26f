"""The lock that keeps two runs off one step, however its holder ends, and the connections of one run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from dialog_assets.resources.bitrix24 import PostgresPacer
from dialog_assets.store import pool as module
from dialog_assets.store.pool import LockLost, Pool, open_pool, step_lock
from dialog_assets_tests.store.rows import PORTAL, all_rows

HOLDER = """
import asyncio, sys
from dialog_assets.store.pool import step_lock

async def hold():
    async with step_lock(sys.argv[1], sys.argv[2], "transcripts"):
        print("held", flush=True)
        await asyncio.sleep(120)

asyncio.run(hold())
"""


async def taken(url: str, portal: str = PORTAL, step: str = "transcripts") -> bool:
    """Whether somebody else holds the lock: it is not had within a second."""
    try:
        async with asyncio.timeout(1), step_lock(url, portal, step):
            return False
    except TimeoutError:
        return True


async def free(url: str, portal: str = PORTAL, step: str = "transcripts") -> bool:
    """Whether the lock is had in a time that a busy machine needs to connect."""
    try:
        async with asyncio.timeout(20), step_lock(url, portal, step):
            return True
    except TimeoutError:
        return False


def test_a_second_run_waits_for_the_first(database: str) -> None:
    """Two runs of one step go one after the other; other steps and other portals are not held up."""
    order: list[str] = []

    async def run() -> None:
        async def second() -> None:
            async with step_lock(database, PORTAL, "transcripts"):
                order.append("second")

        async with step_lock(database, PORTAL, "transcripts"):
            waiting = asyncio.create_task(second())
            assert await taken(database)
            assert await free(database, step="fixed_dialogs")
            assert await free(database, portal="avto_ural")
            order.append("first")
        await waiting
        assert await free(database)

    asyncio.run(run())
    assert order == ["first", "second"]


def test_an_error_frees_the_lock(database: str) -> None:
    """A step that fails does not stand in the way of its next run."""

    async def run() -> None:
        with pytest.raises(ZeroDivisionError):
            async with step_lock(database, PORTAL, "transcripts"):
                raise ZeroDivisionError
        assert await free(database)

    asyncio.run(run())


def test_the_lock_ends_with_its_holder(database: str) -> None:
    """After `kill -9` of the run that holds it, the next run begins."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, database, PORTAL], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert asyncio.run(taken(database))
    finally:
        holder.kill()
        holder.wait(10)
    assert asyncio.run(free(database))
    holder.stdout.close()


LOCK_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def cut(url: str) -> None:
    """End the session that holds a lock."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        assert len(await (await connection.execute(LOCK_SESSIONS)).fetchall()) == 1


def test_a_lost_lock_stops_the_run(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the lock's session ends before the step, the step is cancelled and fails with one sentence that says what to do."""
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.1)
    ended: list[str] = []

    async def hold() -> None:
        async with step_lock(database, PORTAL, "transcripts"):
            try:
                await cut(database)
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

    async def run() -> None:
        with pytest.raises(
            LockLost, match=r"^okna_sever/transcripts: .* lost its lock on Postgres .*; run it again\.$"
        ):
            await hold()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert await free(database)

    asyncio.run(run())
    assert ended == ["cancelled"]


def test_a_session_without_an_answer_is_a_lost_one(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that swallows everything without cutting the connection is noticed too."""
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.5)
    monkeypatch.setattr(module, "ANSWER_S", 0.5)
    where = psycopg.conninfo.conninfo_to_dict(database)
    through = asyncio.Event()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await through.wait()
            writer.write(data)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = str(where["host"]), int(where.get("port") or 5432)
        opened = asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}") if host.startswith("/") else (
            asyncio.open_connection(host, port)
        )  # fmt: skip
        far_reader, far_writer = await opened
        with suppress(ConnectionError):
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async def run() -> None:
        through.set()
        proxy = await asyncio.start_server(connected, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        url = psycopg.conninfo.make_conninfo(database, host="127.0.0.1", port=port, sslmode="disable")
        with pytest.raises(LockLost, match="TimeoutError"):
            async with step_lock(url, PORTAL, "transcripts"):
                through.clear()
                await asyncio.sleep(3600)
        proxy.close()

    asyncio.run(run())


def test_cancelling_a_run_stays_a_cancellation(database: str) -> None:
    """Only a lost lock becomes an error; a run that is told to stop is cancelled as ever."""

    async def hold(held: asyncio.Event) -> None:
        async with step_lock(database, PORTAL, "transcripts"):
            held.set()
            await asyncio.sleep(3600)

    async def run() -> None:
        held = asyncio.Event()
        holder = asyncio.create_task(hold(held))
        await held.wait()
        assert await taken(database)
        holder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holder

    asyncio.run(run())


LOCK_USED_AT = """
    SELECT query_start FROM pg_stat_activity WHERE pid IN (
        SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )
"""


def test_the_lock_is_never_idle(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock's session is used again and again, so that a server that ends idle sessions does not end it."""
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.05)

    async def run() -> None:
        used: set[Any] = set()
        async with (
            step_lock(database, PORTAL, "transcripts"),
            await psycopg.AsyncConnection.connect(database, autocommit=True) as connection,
        ):
            while len(used) < 4:
                used.update(await (await connection.execute(LOCK_USED_AT)).fetchall())
                await asyncio.sleep(0.01)

    asyncio.run(run())


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
            steps -= 1
            if asyncio.current_task() is using and steps == 0:
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
