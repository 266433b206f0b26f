"""Table request_buckets: whatever runs side by side, the portal's leaky bucket never overflows."""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dialog_assets.store import request_buckets
from dialog_assets_tests.store.rows import Pool, with_pool

_names = itertools.count()


def highest_level(sent_at: list[float], drain: float) -> float:
    """The level that a portal's bucket reaches when requests arrive at these moments."""
    level = highest = 0.0
    last = min(sent_at)
    for moment in sorted(sent_at):
        level = max(0.0, level - (moment - last) * drain) + 1
        last = moment
        highest = max(highest, level)
    return highest


async def reserve(pool: Pool, portal: str, size: int, drain: float) -> float:
    """Take a place; returns the moment, on the database's clock, at which the request may leave."""
    async with pool.connection() as connection:
        wait = await request_buckets.reserve(connection, portal, size, drain)
        cursor = await connection.execute(
            "SELECT extract(epoch FROM counted_at)::float8 AS at FROM request_buckets WHERE portal = %s", [portal]
        )
        row = await cursor.fetchone()
        assert row is not None
        return float(row["at"]) + wait


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 10),
    drain=st.sampled_from([0.5, 2.0, 50.0, 400.0]),
    pauses_ms=st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=8), min_size=1, max_size=5),
)
def test_the_bucket_never_overflows(database: str, size: int, drain: float, pauses_ms: list[list[int]]) -> None:
    """Several senders, each with pauses of its own: requests that leave when they may never lift the level above `size`."""
    portal = f"p{next(_names)}"

    async def work(pool: Pool) -> list[float]:
        async def sender(pauses: list[int]) -> list[float]:
            moments = []
            for pause in pauses:
                await asyncio.sleep(pause / 1000)
                moments.append(await reserve(pool, portal, size, drain))
            return moments

        return [moment for moments in await asyncio.gather(*map(sender, pauses_ms)) for moment in moments]

    sent_at = with_pool(database, work)
    assert highest_level(sent_at, drain) <= size + 1e-3 * drain + 1e-6


def test_no_one_waits_while_there_is_room(database: str) -> None:
    """The limit is used in full: `size` requests leave at once, the next ones a drain's time apart."""

    async def work(pool: Pool) -> list[float]:
        async with pool.connection() as connection:
            return [await request_buckets.reserve(connection, "p", 5, 0.005) for _ in range(8)]

    waits = with_pool(database, work)
    assert waits[:5] == [0] * 5
    for place, wait in enumerate(waits[5:], 1):
        assert abs(wait - 200 * place) < 60


def test_an_idle_bucket_is_empty_and_no_emptier(database: str) -> None:
    """However long nothing was sent, no more than `size` may leave at once."""

    async def work(pool: Pool) -> list[float]:
        async with pool.connection() as connection:
            await request_buckets.reserve(connection, "p", 3, 0.01)
            await connection.execute("UPDATE request_buckets SET counted_at = now() - interval '1 day'")
            return [await request_buckets.reserve(connection, "p", 3, 0.01) for _ in range(4)]

    waits = with_pool(database, work)
    assert waits[:3] == [0, 0, 0]
    assert waits[3] > 50
