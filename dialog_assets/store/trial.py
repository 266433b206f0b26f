"""What a night relies on in Postgres, tried on a small scale and taken back: for doctor.

Here: a round trip of the values that are stored, a lock between two connections, rights. Nothing of it stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from dialog_assets.store.connections import connect, is_pooled
from dialog_assets.store.errors import UnsuitableDatabase
from dialog_assets.store.pool import Connection

_VALUES: dict[str, tuple[LiteralString, Any]] = {
    "words": ("text", "Ёлка «Привет», 你好 — 🙂👩‍💻"),
    "moment": ("timestamptz", datetime(2026, 3, 2, 23, 59, 58, 123456, UTC)),
    "day": ("date", date(2026, 3, 2)),
    "money": ("numeric", Decimal("1234567.000001")),
    "share": ("float8", 0.1),
    "raw": ("jsonb", {"имя": "Ёж 🙂", "сумма": 12.5}),
    "sealed": ("bytea", b"\x00\xff\\"),
    "length": ("interval", timedelta(days=1, seconds=2.5)),
    "ids": ("bigint[]", [1, 2**60]),
}


@dataclass(frozen=True)
class Trial:
    """What was found: the server's version, whether a pooler stands before it, and whether the role may make tables."""

    version: int
    pooled: bool
    may_create: bool


async def trial(url: str) -> Trial:
    """Do what a night does. Raises psycopg.Error, UnsuitableDatabase with one sentence."""
    one, two = await connect(url), await connect(url)
    async with one, two:
        await _round_trip(one)
        await _lock(one, two)
        cursor = await one.execute(
            """
            SELECT pg_backend_pid() AS pid, current_setting('transaction_isolation') AS isolation,
                coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create
            """
        )
        row = await cursor.fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM has one row
        if row["isolation"] != "read committed":
            raise UnsuitableDatabase(
                f"transactions are {row['isolation']} however they are asked for: look at the pooler before Postgres."
            )
        await _rights(one)
        return Trial(one.info.server_version // 10000, is_pooled(one, row["pid"]), row["may_create"])


async def _round_trip(connection: Connection) -> None:
    """Whether values come back as they were written."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, (kind, _) in _VALUES.items()
    )
    values = {name: Jsonb(value) if kind == "jsonb" else value for name, (kind, value) in _VALUES.items()}
    places = sql.SQL(", ").join(map(sql.Placeholder, _VALUES))
    try:
        await connection.execute(sql.SQL("CREATE TEMP TABLE dialog_assets_trial ({}) ON COMMIT DROP").format(columns))
    except psycopg.errors.InsufficientPrivilege:
        raise UnsuitableDatabase(
            "the role may not make temporary tables, which reading many calls needs: GRANT TEMPORARY ON DATABASE … TO it."
        ) from None
    await connection.execute(sql.SQL("INSERT INTO dialog_assets_trial VALUES ({})").format(places), values)
    row = await (await connection.execute("SELECT * FROM dialog_assets_trial")).fetchone()
    await connection.rollback()
    spoiled = [name for name, (_, value) in _VALUES.items() if row is None or row[name] != value]
    if spoiled:
        kinds = ", ".join(_VALUES[name][0] for name in spoiled)
        raise UnsuitableDatabase(
            f"values of type {kinds} do not come back as they are written: look at the pooler before it."
        )


async def _lock(one: Connection, two: Connection) -> None:
    """Whether what one connection holds is held against the other: so two runs do not buy the same."""
    take = "INSERT INTO step_leases (portal, step) VALUES ('', 'doctor')"
    await one.execute(take)
    try:
        await two.execute("SET LOCAL lock_timeout = '200ms'")
        await two.execute(take)
    except psycopg.errors.LockNotAvailable:
        return
    finally:
        await two.rollback()
        await one.rollback()
    raise UnsuitableDatabase(
        "two connections do not see each other's locks, so two runs could buy the same: the address is to lead to one server."
    )


async def _rights(connection: Connection) -> None:
    """Whether the role may read and write every table of the project."""
    cursor = await connection.execute(
        """
        SELECT c.relname AS name FROM pg_class c
        WHERE c.relkind IN ('r', 'p')
            AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('call_steps'))
            AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'portal')
            AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
        ORDER BY 1 LIMIT 1
        """
    )
    row = await cursor.fetchone()
    if row is not None:
        raise UnsuitableDatabase(
            f"the role may not read and write table {row['name']}: let it own the tables, or GRANT it SELECT, INSERT, UPDATE, "
            "DELETE on them."
        )
