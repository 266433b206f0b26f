"""Rows in bulk: binary COPY into a table, or into a temporary table of the session from where one statement takes them.

Here: how rows get to the server. Not here: what becomes of them (one module a table).
A temporary table is written without WAL, and binary COPY spares the server the parsing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter

from psycopg import sql
from psycopg.types.json import Jsonb

from dialog_assets.store.pool import Connection, Row


async def copy_rows(
    connection: Connection,
    table: sql.Identifier,
    columns: Mapping[str, str],
    rows: Iterable[Row],
    *,
    same: Mapping[str, tuple[str, object]] | None = None,
) -> None:
    """COPY the `columns` (name → type) of `rows` into `table`, and with them `same` (name → type, value in every row).

    At least two columns are not jsonb. What is in a jsonb column is wrapped here.
    """
    documents = [name for name, kind in columns.items() if kind == "jsonb"]
    plain = [name for name in columns if name not in documents]
    common = same or {}
    constant = tuple(value for _, value in common.values())
    names = [*common, *plain, *documents]
    kinds = [*(kind for kind, _ in common.values()), *(columns[name] for name in (*plain, *documents))]
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        table, sql.SQL(", ").join(map(sql.Identifier, names))
    )
    values = itemgetter(*plain)
    async with connection.cursor().copy(statement) as copy:
        copy.set_types(kinds)
        for row in rows:
            await copy.write_row((*constant, *values(row), *[Jsonb(row[name]) for name in documents]))


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
