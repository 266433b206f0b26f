"""Rows for tests of the tables: calls of a day, and a pool around an async piece of work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta, timezone
from typing import Any, TypeVar

from dialog_assets.store import call_steps, calls
from dialog_assets.store.pool import Pool, Row, open_pool

MSK = timezone(timedelta(hours=3))
MONDAY = date(2026, 3, 2)
PORTAL = "okna_sever"

T = TypeVar("T")


def day(offset: int) -> date:
    """Monday the 2nd of March 2026, and the days after it."""
    return MONDAY + timedelta(days=offset)


def call(call_id: int, on: date = MONDAY, **fields: Any) -> Row:
    """A row of table calls: at ten o'clock and `call_id` seconds, talked in, with recording 1000 + call_id."""
    started = datetime.combine(on, datetime.min.time(), MSK) + timedelta(hours=10, seconds=call_id)
    row: Row = {
        "call_id": call_id,
        "vendor_call_id": f"v{call_id}",
        "started_at": started,
        "day": on,
        "direction": "incoming",
        "duration_s": 60,
        "user_id": 7,
        "phone": "+70000000000",
        "line": None,
        "failed_code": "200",
        "entity_type": "contact",
        "entity_id": 5,
        "activity_id": None,
        "record_file_id": 1000 + call_id,
        "record_duration_s": 60,
        "vote": None,
        "cost": None,
        "cost_currency": None,
        "raw": {"ID": str(call_id), "nested": {"a": [1, None, "ё"]}},
    }
    return {**row, **fields}


def with_pool(url: str, work: Callable[[Pool], Awaitable[T]]) -> T:
    """Run `work` with a pool of connections to `url`."""

    async def run() -> T:
        async with open_pool(url, size=6) as pool:
            return await work(pool)

    return asyncio.run(run())


async def put_calls(pool: Pool, *rows: Row, portal: str = PORTAL) -> None:
    """Write calls as the asset does."""
    async with pool.connection() as connection:
        await calls.write(connection, portal, rows)


async def put_step(pool: Pool, call_id: int, step: str, state: call_steps.State, **fields: Any) -> None:
    """Record a state; one that is not done has the reason `some` unless told otherwise."""
    if state != "done":
        fields = {"reason": "some", **fields}
    async with pool.connection() as connection:
        await call_steps.record(connection, PORTAL, [call_id], step, state, **fields)


async def step(pool: Pool, call_id: int, name: str) -> Row:
    """The row of call_steps."""
    return await one(
        pool, "SELECT * FROM call_steps WHERE portal = %s AND call_id = %s AND step = %s", PORTAL, call_id, name
    )


async def one(pool: Pool, query: str, *parameters: Any) -> Row:
    """The only row of a query."""
    rows = await all_rows(pool, query, *parameters)
    assert len(rows) == 1, rows
    return rows[0]


async def all_rows(pool: Pool, query: str, *parameters: Any) -> list[Row]:
    """The rows of a query."""
    async with pool.connection() as connection:
        cursor = await connection.execute(query.encode(), parameters or None)
        return await cursor.fetchall()


__all__ = [
    "MONDAY",
    "PORTAL",
    "Pool",
    "Row",
    "all_rows",
    "call",
    "day",
    "one",
    "put_calls",
    "put_step",
    "step",
    "with_pool",
]
