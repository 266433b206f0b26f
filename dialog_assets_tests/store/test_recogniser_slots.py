"""The account's streams: one number for all runs, whatever becomes of a run, first come, first served."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from dialog_assets.store.pool import Pool, open_pool
from dialog_assets.store.recogniser_slots import CHANNEL, Slots
from dialog_assets_tests.store.rows import all_rows, with_pool

ACCOUNT = "voicekit-1/deferred"
LONG = 60.0


async def never(operation: str) -> bool:
    """What is at the vendor stays there."""
    return False


def slots(
    pool: Pool,
    portal: str,
    number: int,
    *,
    has_ended: Callable[[str], Awaitable[bool]] = never,
    account: str = ACCOUNT,
    **more: Any,
) -> Slots:
    """The account's slots as a run of `portal` uses them."""
    return Slots(pool, account, portal, number, has_ended=has_ended, life=timedelta(hours=30), **more)


async def free(pool: Pool, mine: Slots, key: str) -> None:
    """Give a slot back."""
    async with pool.connection() as connection:
        await mine.free(connection, key)


async def hold(pool: Pool, mine: Slots, key: str, operation: str) -> None:
    """Hold a slot for an operation."""
    async with pool.connection() as connection:
        await mine.hold(connection, key, operation)


async def held(pool: Pool) -> list[str]:
    """The keys that have a slot."""
    rows = await all_rows(pool, "SELECT request_key FROM recogniser_slots WHERE granted ORDER BY place")
    return [row["request_key"] for row in rows]


async def rows(pool: Pool, number: int) -> None:
    """Wait until so many have a slot or stand in line."""
    while len(await all_rows(pool, "SELECT 1 FROM recogniser_slots")) < number:  # noqa: ASYNC110 - of the database
        await asyncio.sleep(0.01)


def soon(seconds: float = 0.05) -> float:
    """A moment of the event loop that comes soon."""
    return asyncio.get_running_loop().time() + seconds


def later() -> float:
    """One that never comes."""
    return math.inf


@pytest.mark.parametrize("seed", range(3))
def test_runs_side_by_side_keep_to_one_number(database: str, seed: int) -> None:
    """Five runs with pools of their own, 100 recordings, four streams: never more than four at once, and all have their turn."""
    chance = random.Random(seed)
    now, most, turns = 0, 0, 0

    async def run() -> None:
        nonlocal now, most, turns

        async def one(pool: Pool, mine: Slots, key: str) -> None:
            nonlocal now, most, turns
            await asyncio.sleep(chance.random() * 0.05)
            assert await mine.take(key, later())
            now, turns = now + 1, turns + 1
            most = max(most, now)
            await asyncio.sleep(0.02)
            now -= 1
            await free(pool, mine, key)

        async with AsyncExitStack() as stack:
            work = []
            for portal in range(5):
                pool = await stack.enter_async_context(open_pool(database, size=3))
                mine = await stack.enter_async_context(slots(pool, f"p{portal}", 4))
                work += [one(pool, mine, f"k{number}") for number in range(20)]
            await asyncio.gather(*work)

    asyncio.run(run())
    assert 1 < most <= 4
    assert turns == 100


def test_first_come_first_served(database: str) -> None:
    """A freed slot goes to the run that has waited longest, though all are woken."""

    async def work(pool: Pool) -> None:
        async with AsyncExitStack() as stack:
            runs = [await stack.enter_async_context(slots(pool, f"p{number}", 1)) for number in range(4)]
            assert await runs[0].take("k", later())
            order: list[int] = []

            async def wait(number: int) -> None:
                assert await runs[number].take("k", later())
                order.append(number)
                await free(pool, runs[number], "k")

            waiting = []
            for number in (3, 1, 2):
                waiting.append(asyncio.create_task(wait(number)))
                await rows(pool, 1 + len(waiting))
            await free(pool, runs[0], "k")
            await asyncio.gather(*waiting)
            assert order == [3, 1, 2]

    with_pool(database, work)


def test_patience_ends(database: str) -> None:
    """Who has waited in vain leaves the line, and does not stand in the way of others."""

    async def work(pool: Pool) -> None:
        async with slots(pool, "a", 1) as a, slots(pool, "b", 1) as b:
            assert await a.take("k", later())
            assert not await b.take("k", soon())
            await free(pool, a, "k")
            assert await a.take("other", soon())
            assert await held(pool) == ["other"]

    with_pool(database, work)


def test_accounts_and_methods_have_their_own_number(database: str) -> None:
    """Another key's streams, and those of Recognize, are counted apart."""

    async def work(pool: Pool) -> None:
        async with slots(pool, "a", 1) as deferred, slots(pool, "a", 1, account="voicekit-1/immediate") as at_once:
            assert await deferred.take("k", soon())
            assert await at_once.take("k", soon())
            assert not await at_once.take("other", soon())

    with_pool(database, work)


def test_the_same_recording_takes_its_slot_over(database: str) -> None:
    """After a crash the next run of the portal goes on with the slots of its recordings, though none is free."""

    async def work(pool: Pool) -> None:
        async with slots(pool, "a", 1) as killed:
            assert await killed.take("k", later())
        async with slots(pool, "a", 1) as a:
            assert await a.take("k", soon())
            assert not await a.take("other", soon())

    with_pool(database, work)


def test_an_operation_at_the_vendor_is_held_over_the_number(database: str) -> None:
    """It is there, whatever the number says: others wait until there is room below it."""

    async def work(pool: Pool) -> None:
        async with slots(pool, "a", 1) as a:
            for number in range(3):
                await hold(pool, a, f"k{number}", f"op{number}")
            assert await held(pool) == ["k0", "k1", "k2"]
            for number in range(3):
                assert not await a.take("new", soon())
                await free(pool, a, f"k{number}")
            assert await a.take("new", soon())

    with_pool(database, work)


def test_who_waits_asks_for_what_nobody_looks_after(database: str) -> None:
    """What a killed run of the portal left is asked for at once, another portal's when it is stale; the ended frees its slot."""
    asked: list[str] = []

    async def has_ended(operation: str) -> bool:
        asked.append(operation)
        return operation == "op3"

    async def work(pool: Pool) -> None:
        async with slots(pool, "other", 4) as other:
            await hold(pool, other, "k1", "op1")
        async with slots(pool, "a", 4) as killed:
            await hold(pool, killed, "k2", "op2")
            await hold(pool, killed, "k3", "op3")
        async with slots(pool, "a", 3, has_ended=has_ended) as a:
            assert await a.take("new", later())
            assert asked[-1] == "op3"
            assert "op1" not in asked, "its run may live"
            waiting = asyncio.create_task(a.take("more", later()))
            await rows(pool, 4)
            async with pool.connection() as connection:
                await connection.execute("UPDATE recogniser_slots SET seen_at = seen_at - make_interval(mins => 4)")
                await connection.execute("SELECT pg_notify(%s, 'a')", [CHANNEL])
            while {"op1", "op2"} - set(asked[asked.index("op3") + 1 :]):  # noqa: ASYNC110 - of the vendor
                await asyncio.sleep(0.01)
            assert len(asked) <= 4, "what was asked for is left alone for a while"
            assert not waiting.done()
            waiting.cancel()

    with_pool(database, work)


def test_a_slot_bought_anew_meanwhile_is_not_freed(database: str) -> None:
    """While one asks about an old operation its owner comes back, and buys the recording again: that slot stays."""

    async def work(pool: Pool) -> None:
        async with slots(pool, "a", 1) as a:
            await hold(pool, a, "k", "old")

            async def has_ended(operation: str) -> bool:
                await hold(pool, a, "k", "new")
                return True

            async with pool.connection() as connection:
                await connection.execute("UPDATE recogniser_slots SET seen_at = '-infinity'")
            async with slots(pool, "b", 1, has_ended=has_ended) as b:
                assert not await b.take("k", soon())
                assert await held(pool) == ["k"]

    with_pool(database, work)


@pytest.mark.parametrize(
    ("state", "minutes"), [("in line", 0.33), ("submitting", 16), ("unclear", 61), ("operation", 1801)]
)
def test_time_ends_what_nobody_comes_back_for(database: str, state: str, minutes: float) -> None:
    """A place in line in seconds, a slot without an operation within the hour, one with an operation when that must be over."""

    async def work(pool: Pool) -> None:
        async with slots(pool, "gone", 1) as gone, slots(pool, "b", 1) as b:
            if state == "in line":
                await hold(pool, b, "k", "op")
                waiting = asyncio.create_task(gone.take("k", later()))
                await rows(pool, 2)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                await free(pool, b, "k")
            elif state == "operation":
                await hold(pool, gone, "k", "op")
            else:
                assert await gone.take("k", later())
            if state == "unclear":
                await gone.keep("k", timedelta(hours=1))
            await age(pool, minutes * 0.5)
            assert not await b.take("new", soon())
            await age(pool, minutes * 0.6)
            assert await b.take("new", soon())
            if state == "submitting":
                assert not await gone.take("k", soon()), "who comes back too late has lost it"

    async def age(pool: Pool, minutes: float) -> None:
        async with pool.connection() as connection:
            await connection.execute("UPDATE recogniser_slots SET ends_at = ends_at - %s", [timedelta(minutes=minutes)])

    with_pool(database, work)


def test_a_lost_listening_connection_is_replaced(database: str) -> None:
    """The network may cut it, in a long pause and while it listens: another one is opened."""

    async def cut(pool: Pool) -> None:
        """As soon as it listens and is idle."""
        cut = False
        async with asyncio.timeout(120):
            while not cut:
                cut = bool(
                    await all_rows(
                        pool,
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE query LIKE 'LISTEN%' AND state = 'idle' AND datname = current_database()",
                    )
                )
                await asyncio.sleep(0.05)

    async def work(pool: Pool) -> None:
        async with slots(pool, "a", 1, look_s=LONG) as a, slots(pool, "b", 1) as b:
            assert await b.take("k", later())
            assert not await a.take("k", soon())
            await cut(pool)
            waiting = asyncio.create_task(a.take("k", later()))
            await cut(pool)
            await rows(pool, 2)
            await free(pool, b, "k")
            assert await waiting

    with_pool(database, work)
