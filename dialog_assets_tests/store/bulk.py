"""Calls and CRM entities in numbers, and a connection that commits by itself, for the tests of what changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from dialog_assets.store import calls
from dialog_assets.store.pool import Connection, Row

PORTAL = "okna_sever"
DAY = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def call(call_id: int, **fields: Any) -> Row:
    """A call at noon and `call_id` seconds with contact 5."""
    row: Row = dict.fromkeys(calls.COLUMNS)
    return {
        **row,
        "call_id": call_id,
        "started_at": NOON + timedelta(seconds=call_id),
        "day": DAY,
        "direction": "incoming",
        "duration_s": 60,
        "entity_type": "contact",
        "entity_id": 5,
        "cost": Decimal("1.2600"),
        "raw": {"ID": str(call_id), "CALL_VOTE": None, "UNKNOWN": {"ё": [1, 2.5, None]}},
        **fields,
    }


def entity(entity_type: str, entity_id: int, **fields: Any) -> Row:
    """A found entity as the asset writes it; `raw` follows the fields."""
    row: Row = {
        "entity_type": entity_type,
        "entity_id": entity_id,
        "title": "Окна на дачу",
        "phones": ["+79000000000"],
        "stage": "NEW" if entity_type in ("deal", "lead") else None,
        "category": "0" if entity_type == "deal" else None,
        "amount": None,
        "currency": "RUB",
        "responsible_id": 10,
        "created_at": NOON - timedelta(days=30),
        "modified_at": NOON - timedelta(days=1),
        "moved_at": None,
        **fields,
    }
    return {**row, "raw": {name: str(value) for name, value in row.items()}}


def on(url: str, work: Callable[[Connection], Awaitable[None]]) -> None:
    """Run `work` on a connection where each statement is a transaction, unless it opens one."""

    async def run() -> None:
        connection: AsyncConnection[DictRow] = await AsyncConnection.connect(url, autocommit=True, row_factory=dict_row)
        async with connection:
            await work(connection)

    asyncio.run(run())


async def rows(connection: Connection, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """The rows of a query as tuples."""
    cursor = await connection.execute(query.encode(), parameters)
    return [tuple(row.values()) for row in await cursor.fetchall()]


async def write(connection: Connection, *some: Row) -> None:
    """Write calls in one transaction."""
    async with connection.transaction():
        await calls.write(connection, PORTAL, some)
