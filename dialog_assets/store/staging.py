"""Rows in bulk: binary COPY into a table, or into a temporary table of the session from where one statement takes them.

Here: how rows get to the server. Not here: what becomes of them (one module a table).
A temporary table is written without WAL, and binary COPY spares the server the parsing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from psycopg import sql
from psycopg.types.json import Jsonb

from dialog_assets.store.pool import Connection, Row


async def copy_rows(
    connection: Connection, table: sql.Identifier, columns: Mapping[str, str], rows: Iterable[Row]
) -> None:
    """COPY the `columns` (name → type) of `rows` into `table`. What is in a jsonb column is wrapped here."""
    wrapped = [(name, kind == "jsonb") for name, kind in columns.items()]
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    async with connection.cursor().copy(statement) as copy:
        copy.set_types(list(columns.values()))
        for row in rows:
            await copy.write_row([Jsonb(row[name]) if json else row[name] for name, json in wrapped])


async def stage(connection: Connection, name: str, columns: Mapping[str, str], rows: Iterable[Row]) -> sql.Identifier:
    """Fill the session's temporary table `name`, empty before, with the `columns` (name → type) of `rows`; returns it.

    It holds them until the end of the transaction, or until it is staged again.
    """
    table = sql.Identifier("pg_temp", name)
    definition = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(kind)) for column, kind in columns.items()
    )
    await connection.execute(
        sql.SQL("CREATE TEMP TABLE IF NOT EXISTS {} ({}) ON COMMIT DELETE ROWS").format(
            sql.Identifier(name), definition
        )
    )
    await connection.execute(sql.SQL("DELETE FROM {}").format(table))
    await copy_rows(connection, table, columns, rows)
    return table
