"""A portal's end: all that the database holds of it goes. Not here: its file, its recordings in S3, Dagster's history."""

from __future__ import annotations

from psycopg import sql

from dialog_assets.store.pool import Connection, Row


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
    """Drop the portal's partitions and views, and its rows in every other table; all of it or nothing."""
    async with connection.transaction():
        for view in await _views(connection, portal):
            await connection.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier(view)))
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


async def _views(connection: Connection, portal: str) -> list[str]:
    """The views of the portal, and not those of another whose name begins alike."""
    cursor = await connection.execute(
        """
        SELECT v.viewname AS name FROM pg_views v
        WHERE v.schemaname = current_schema() AND starts_with(v.viewname, %(portal)s || '_')
            AND NOT EXISTS (SELECT FROM portals p WHERE starts_with(v.viewname, p.portal || '_')
                AND length(p.portal) > length(%(portal)s))
        """,
        {"portal": portal},
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
