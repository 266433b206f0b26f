"""Table calls: written in bulk, rewritten only where something changed."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from dialog_assets.store import calls
from dialog_assets_tests.store.rows import (
    MONDAY,
    PORTAL,
    Pool,
    Row,
    all_rows,
    call,
    day,
    one,
    put_calls,
    step,
    with_pool,
)


async def versions(pool: Pool) -> dict[int, Row]:
    """Where and by which transaction each call was written."""
    rows = await all_rows(pool, "SELECT call_id, xmin::text, ctid::text, updated_at FROM calls ORDER BY call_id")
    return {row.pop("call_id"): row for row in rows}


def test_an_unchanged_row_is_not_rewritten(database: str) -> None:
    """Reading the trailing days again each night touches only the rows that changed."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, *(call(number) for number in range(1, 6)))
        before = await versions(pool)
        await put_calls(pool, *(call(number) for number in range(1, 6)))
        assert await versions(pool) == before
        changed = call(3, cost=Decimal("1.50"), vote=5)
        await put_calls(pool, call(1), call(2), changed, call(4), call(5))
        after = await versions(pool)
        assert [number for number in after if after[number] != before[number]] == [3]
        assert after[3]["updated_at"] > before[3]["updated_at"]
        row = await one(pool, "SELECT cost, vote, first_seen_at < updated_at AS seen FROM calls WHERE call_id = 3")
        assert row == {"cost": Decimal("1.50"), "vote": 5, "seen": True}

    with_pool(database, work)


def test_a_change_from_and_to_nothing_is_seen(database: str) -> None:
    """NULL is a value like another when rows are compared."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1, vote=5), call(2))
        await put_calls(pool, call(1, vote=None), call(2, vote=4))
        rows = await all_rows(pool, "SELECT vote FROM calls ORDER BY call_id")
        assert [row["vote"] for row in rows] == [None, 4]

    with_pool(database, work)


def test_the_raw_row_survives_whole(database: str) -> None:
    """Fields that nobody knows are kept as they came, with Cyrillic, nesting, tabs and line ends."""
    raw = {"ID": "1", "X": {"а": ["б", None, 1.5, True]}, "T": "a\tb\nc\\d\\N\"'", "E": ""}

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1, raw=raw, phone="\\N", line="a\tb\nc"))
        row = await one(pool, "SELECT raw, phone, line FROM calls")
        assert row == {"raw": raw, "phone": "\\N", "line": "a\tb\nc"}

    with_pool(database, work)


def test_step_calls_leaves_the_recordings_id(database: str) -> None:
    """The archive depends on the recording alone: its key changes when the recording appears, and with nothing else."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1, record_file_id=None))
        first = await step(pool, 1, "calls")
        assert (first["state"], first["output_key"]) == ("done", "none")
        await put_calls(pool, call(1, record_file_id=None, vote=1))
        assert await step(pool, 1, "calls") == first
        await put_calls(pool, call(1, record_file_id=77))
        assert (await step(pool, 1, "calls"))["output_key"] == "disk:77"

    with_pool(database, work)


def test_several_pages_in_one_session(database: str) -> None:
    """The staging table starts empty for each page, also an empty one."""

    async def work(pool: Pool) -> None:
        async with pool.connection() as connection:
            for page in ([call(1), call(2)], [], [call(3), call(1, vote=2)]):
                await calls.write(connection, PORTAL, page)
                await connection.commit()
        rows = await all_rows(pool, "SELECT call_id, vote FROM calls ORDER BY 1")
        assert [tuple(row.values()) for row in rows] == [(1, 2), (2, None), (3, None)]

    with_pool(database, work)


def test_a_call_that_a_page_lists_twice_is_one_call(database: str) -> None:
    """A portal that repeats a row (it shifts while it is read) does not stop the day; the last one counts."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1), call(1, vote=3))
        assert (await one(pool, "SELECT vote FROM calls"))["vote"] == 3

    with_pool(database, work)


def test_what_the_days_calls_name(database: str) -> None:
    """Users and entities of the days asked for, each once, without calls that name none; other portals stay apart."""

    async def work(pool: Pool) -> None:
        await put_calls(
            pool,
            call(1, user_id=9),
            call(2, user_id=8, entity_type="lead", entity_id=1),
            call(3, user_id=9, entity_type=None, entity_id=None),
            call(4, user_id=None),
            call(5, day(1), user_id=10, entity_id=6),
        )
        await put_calls(pool, call(1, user_id=99, entity_id=99), portal="avto_ural")
        async with pool.connection() as connection:
            assert await calls.users_of(connection, PORTAL, MONDAY, MONDAY) == [8, 9]
            assert await calls.users_of(connection, PORTAL, MONDAY, day(1)) == [8, 9, 10]
            assert await calls.entities_of(connection, PORTAL, MONDAY, MONDAY) == [("contact", 5), ("lead", 1)]
            assert await calls.days(connection, PORTAL) == (MONDAY, MONDAY + timedelta(days=1))
            assert await calls.days(connection, "nobody") is None

    with_pool(database, work)
