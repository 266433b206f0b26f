"""The one way to write a row that may be there already: INSERT … ON CONFLICT … WHERE something changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg import sql


def upsert(
    table: str,
    key: Sequence[str],
    columns: Sequence[str],
    *,
    source: sql.Composable | None = None,
    touch: str | None = None,
) -> sql.Composed:
    """Statement that writes `key` and `columns` into `table`, leaving a row with equal columns untouched.

    Values come as named parameters, or from `source` (a SELECT of the same columns in the same order). `touch` is a
    timestamp column set to now() when the row changes.
    """
    names = [*key, *columns]
    if source is None:
        source = sql.SQL("VALUES ({})").format(_join(map(sql.Placeholder, names)))
    changes = [sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in columns]
    if touch:
        changes.append(sql.SQL("{} = now()").format(sql.Identifier(touch)))
    return sql.SQL(
        "INSERT INTO {table} ({names}) {source} ON CONFLICT ({key}) DO UPDATE SET {changes} "
        "WHERE ({current}) IS DISTINCT FROM ({excluded})"
    ).format(
        table=sql.Identifier(table),
        names=_join(map(sql.Identifier, names)),
        source=source,
        key=_join(map(sql.Identifier, key)),
        changes=_join(changes),
        current=_join(sql.Identifier(table, name) for name in columns),
        excluded=_join(sql.Identifier("excluded", name) for name in columns),
    )


def _join(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.Composed(list(parts)).join(", ")
