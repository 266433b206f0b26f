"""The lease that keeps two runs off one step, however its holder ends, and whatever becomes of its connections."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest

from dialog_assets.store import call_steps, leases
from dialog_assets.store.connections import connect
from dialog_assets.store.errors import LockLost
from dialog_assets.store.leases import Lease, living, step_lock
from dialog_assets.store.pool import Pool, open_pool
from dialog_assets_tests.store.rows import PORTAL, all_rows, call, put_calls

STEP = "transcripts"
HOLDER = """
import asyncio, sys
from dialog_assets.store.leases import step_lock

async def hold():
    async with step_lock(sys.argv[1], sys.argv[2], "transcripts", "run-of-another-process"):
        print("held", flush=True)
        await asyncio.sleep(120)

asyncio.run(hold())
"""


async def taken(url: str, portal: str = PORTAL, step: str = STEP) -> bool:
    """Whether somebody else holds the step: it is not had within a second."""
    try:
        async with asyncio.timeout(1), step_lock(url, portal, step):
            return False
    except TimeoutError:
        return True


async def free(url: str, portal: str = PORTAL, step: str = STEP) -> bool:
    """Whether the step is had in a time that a busy machine needs to connect."""
    try:
        async with asyncio.timeout(20), step_lock(url, portal, step):
            return True
    except TimeoutError:
        return False


@contextmanager
def another_process(url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the step."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, url, PORTAL], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.wait(10)
        if holder.stdout is not None:
            holder.stdout.close()


async def who_lives(url: str) -> list[tuple[str, str, bool]]:
    """(run, step, working) of what `living` tells."""
    connection = await connect(url)
    async with connection:
        return [(holder.run_id, holder.step, holder.working) for holder in await living(connection, PORTAL)]


def test_a_second_run_waits_for_the_first(database: str) -> None:
    """Two runs of one step go one after the other; other steps and other portals are not held up."""
    order: list[str] = []

    async def run() -> None:
        async def second() -> None:
            async with step_lock(database, PORTAL, STEP):
                order.append("second")

        async with step_lock(database, PORTAL, STEP):
            waiting = asyncio.create_task(second())
            assert await taken(database)
            assert await free(database, step="fixed_dialogs")
            assert await free(database, portal="avto_ural")
            order.append("first")
        await waiting
        assert await free(database)

    asyncio.run(run())
    assert order == ["first", "second"]


def test_an_error_frees_the_step(database: str) -> None:
    """A step that fails does not stand in the way of its next run."""

    async def run() -> None:
        with pytest.raises(ZeroDivisionError):
            async with step_lock(database, PORTAL, STEP):
                raise ZeroDivisionError
        assert await free(database)

    asyncio.run(run())


def test_a_killed_run_holds_nothing_and_is_told_apart_from_one_that_lives(database: str) -> None:
    """After `kill -9`, and before anybody has waited for its process, the next run begins, and nobody is said to live."""

    async def run() -> None:
        with another_process(database) as holder:
            assert await taken(database)
            assert await who_lives(database) == [("run-of-another-process", STEP, True)]
            holder.kill()
            assert await free(database)
        assert [found for found in await who_lives(database) if found[0]] == []

    asyncio.run(run())


def test_a_run_between_two_steps_lives(database: str) -> None:
    """What has let a step go is on its way to the next for a while."""

    async def run() -> None:
        async with step_lock(database, PORTAL, STEP, "the run"):
            assert await who_lives(database) == [("the run", STEP, True)]
        assert await who_lives(database) == [("the run", STEP, False)]

    asyncio.run(run())


@pytest.mark.parametrize("column", ["place", "process"])
def test_a_run_that_cannot_be_seen_is_waited_for_until_it_is_silent(
    database: str, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    """A process of another machine counts by its beats; one whose number belongs to another process by now has ended."""
    monkeypatch.setattr(leases, "LEASE_S", 2.0)
    monkeypatch.setattr(leases, "BEAT_S", 60.0)

    async def run() -> None:
        connection = await connect(database, autocommit=True)
        async with connection, step_lock(database, PORTAL, STEP, "far away"):
            await connection.execute(
                f"UPDATE step_leases SET {column} = split_part({column}, ' ', 1) || ' other'".encode()
            )
            began = asyncio.get_running_loop().time()
            assert await free(database)
            waited = asyncio.get_running_loop().time() - began
            assert waited >= 2 if column == "place" else waited < 2

    with suppress(LockLost):
        asyncio.run(run())


SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def test_a_cut_connection_does_not_lose_the_step(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every session is ended while another run waits: the first goes on and writes, the second waits on."""
    monkeypatch.setattr(leases, "BEAT_S", 0.05)

    async def run() -> None:
        async with open_pool(database, size=2) as pool, step_lock(database, PORTAL, STEP) as lease:
            pool.lease = lease
            connection = await connect(database, autocommit=True)
            async with connection:
                await connection.execute(SESSIONS)
            await more_beats(pool, 5)
            assert await taken(database)
            await pool.transact(lambda connection: put_calls_of(connection))
            assert len(await all_rows(pool, "SELECT FROM call_steps")) == 1

    asyncio.run(run())


async def more_beats(pool: Pool, number: int) -> None:
    """Return when the only lease was renewed so many times."""
    goal = (await pool.rows("SELECT beats FROM step_leases"))[0]["beats"] + number
    while (await pool.rows("SELECT beats FROM step_leases"))[0]["beats"] < goal:  # noqa: ASYNC110 - it is the server that is asked
        await asyncio.sleep(0.05)


async def put_calls_of(connection: Any) -> None:
    """One state of a call."""
    await call_steps.record(connection, PORTAL, [1], STEP, "done", output_key="x")


def test_who_lost_the_step_writes_nothing_more(database: str) -> None:
    """A run that was taken for dead and was not: its writes are undone, its reads are not held up, its successor's stand."""

    async def record(pool: Pool, key: str) -> None:
        await pool.transact(lambda connection: call_steps.record(connection, PORTAL, [1], STEP, "done", output_key=key))

    async def run() -> None:
        async with open_pool(database, size=2) as first, open_pool(database, size=2) as second:
            await put_calls(first, call(1))
            connection = await connect(database, autocommit=True)
            async with connection:
                row = await leases._look(connection, PORTAL, STEP)
                one = await leases._take(connection, row, "one")
                row = await leases._look(connection, PORTAL, STEP)
                two = await leases._take(connection, row, "two")
            assert one is not None and two == one + 1
            first.lease, second.lease = Lease(PORTAL, STEP, one), Lease(PORTAL, STEP, two)
            await record(second, "second")
            with pytest.raises(LockLost, match=r"^okna_sever/transcripts: .* another has begun the same work"):
                await record(first, "first")
            with pytest.raises(LockLost):
                async with first.connection() as writing:
                    await writing.execute("UPDATE call_steps SET output_key = 'first'")
            assert [
                row["output_key"]
                for row in await first.rows(f"SELECT output_key FROM call_steps WHERE step = '{STEP}'")
            ] == ["second"]

    asyncio.run(run())


def test_a_step_taken_over_cancels_the_run(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run's next beat finds that it is not its step any more: the body is cancelled, and one sentence raised."""
    monkeypatch.setattr(leases, "BEAT_S", 0.1)
    ended: list[str] = []

    async def hold() -> None:
        async with step_lock(database, PORTAL, STEP):
            try:
                connection = await connect(database, autocommit=True)
                async with connection:
                    while (
                        await leases._take(connection, await leases._look(connection, PORTAL, STEP), "another") is None
                    ):
                        pass  # a beat came between the look and the taking
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

    async def run() -> None:
        with pytest.raises(LockLost, match=r"^okna_sever/transcripts: .* this one stops;"):
            await hold()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(run())
    assert ended == ["cancelled"]


def test_cancelling_a_run_stays_a_cancellation(database: str) -> None:
    """Only a lost step becomes an error; a run that is told to stop is cancelled as ever."""

    async def hold(held: asyncio.Event) -> None:
        async with step_lock(database, PORTAL, STEP):
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
        assert await free(database)

    asyncio.run(run())


def test_a_network_that_swallows_everything_costs_a_connection_only(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat without an answer is tried again over another connection."""
    monkeypatch.setattr(leases, "BEAT_S", 0.1)
    monkeypatch.setattr(leases, "ANSWER_S", 1.0)
    where = psycopg.conninfo.conninfo_to_dict(database)
    through = asyncio.Event()
    connections = 0

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = connections
        while data := await reader.read(65536):
            if mine == 1:
                await through.wait()
            writer.write(data)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        far_reader, far_writer = await asyncio.open_unix_connection(f"{where['host']}/.s.PGSQL.5432")
        with suppress(ConnectionError):
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async def run() -> None:
        through.set()
        proxy = await asyncio.start_server(connected, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        url = psycopg.conninfo.make_conninfo(database, host="127.0.0.1", port=port, sslmode="disable")
        async with open_pool(database, size=1) as pool, step_lock(url, PORTAL, STEP):
            through.clear()
            while connections < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await more_beats(pool, 2)
        through.set()
        proxy.close()

    asyncio.run(run())


def test_a_run_does_not_wait_for_what_it_took_itself(database: str) -> None:
    """Cut off before it heard that the step is its own, a run that tries again has it at once; its first number is void."""

    async def run() -> None:
        connection = await connect(database, autocommit=True)
        unheard = await leases._wait(connection, PORTAL, STEP, "the run")
        await connection.close()
        assert await taken(database)
        async with asyncio.timeout(60), step_lock(database, PORTAL, STEP, "the run") as lease:
            assert lease.fence == unheard.fence + 1
            async with open_pool(database, size=1) as pool:
                pool.lease = unheard
                with pytest.raises(LockLost):
                    await pool.transact(
                        lambda connection: call_steps.record(connection, PORTAL, [1], STEP, "done", output_key="k")
                    )

    asyncio.run(run())
