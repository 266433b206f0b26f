"""A portal's end: all that the database holds of it goes. Not here: its file, its recordings in S3, Dagster's history."""

from __future__ import annotations

from psycopg import sql

from dialog_assets.store.pool import Connection, Row

_VIEWS = ("dialogs", "stages")
"""Of each portal, after its name and `_`."""


async def holdings(connection: Connection, portal: str) -> Row:
    """What would go: calls, purchases, cost_rub."""
    cursor = await connection.execute(
        """
        SELECT (SELECT count(*) FROM calls WHERE portal = %(portal)s) AS calls, count(*) AS purchases,
               coalesce(sum(cost_rub), 0) AS cost_rub
        FROM ledger WHERE portal = %(portal)s
        """,
        {"portal": portal},
    )
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - an aggregate returns a row
    return row


async def drop(connection: Connection, portal: str) -> None:
    """Drop the portal's partitions and views, and its rows in every other table; all of it or nothing.

    Views that people have made stay: one that is built on what would go refuses all of it.
    """
    async with connection.transaction():
        for view in _VIEWS:
            await connection.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(sql.Identifier(f"{portal}_{view}")))
        for partition in await _partitions(connection, portal):
            await connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(partition)))
        for table in await _tables(connection):
            await connection.execute(
                sql.SQL("DELETE FROM {} WHERE portal = %s").format(sql.Identifier(table)), [portal]
            )


async def _partitions(connection: Connection, portal: str) -> list[str]:
    cursor = await connection.execute(
        """
        SELECT child.relname AS name FROM pg_inherits i
        JOIN pg_class child ON child.oid = i.inhrelid JOIN pg_class parent ON parent.oid = i.inhparent
        WHERE child.relkind = 'r' AND parent.relnamespace = current_schema()::regnamespace
            AND child.relname = %s || '_' || parent.relname
        """,
        [portal],
    )
    return [row["name"] for row in await cursor.fetchall()]


async def _tables(connection: Connection) -> list[str]:
    """Tables with a column `portal` that are no partitions."""
    cursor = await connection.execute(
        """
        SELECT c.relname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'portal'
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
            AND NOT a.attisdropped
        """
    )
    return [row["name"] for row in await cursor.fetchall()]
