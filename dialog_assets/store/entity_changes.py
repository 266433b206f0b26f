"""Table entity_changes: what was found changed about a CRM entity or an employee, and when.

Here: how a change is recorded beside the row that changed, and what follows from the record. Not here: the rows themselves
(entities.py, users.py), and the links of calls (calls.py), which record their changes in statements of their own.
A change is one field of one entity: `changed_at` is when we saw it, `modified_at` when the CRM says that it happened.
The state at first sight is no change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from psycopg import sql

from dialog_assets.store.pool import Connection, Row
from dialog_assets.store.staging import stage
from dialog_assets.store.upsert import upsert

ChangedType = Literal["contact", "lead", "company", "deal", "user"]


@dataclass(frozen=True)
class TrackedTable:
    """A table whose rows are written with what changed about them.

    `columns` are all columns but the portal, name → type; `key` those of its primary key. `tracked` are the fields to
    keep changes of, each with the expression, over a staged row, of the moment that the portal gives for the change.
    `entity_type` and `entity_id` are expressions over a row.
    """

    name: str
    key: Sequence[str]
    columns: Mapping[str, str]
    tracked: Mapping[str, str]
    entity_type: str
    entity_id: str

    @property
    def written(self) -> dict[str, str]:
        """The columns beside the key."""
        return {name: kind for name, kind in self.columns.items() if name not in self.key}

    async def write(self, connection: Connection, portal: str, rows: Sequence[Row]) -> None:
        """Write rows with their changes, in one statement; a row that did not change is not touched.

        Of a row that is there twice the last counts.
        """
        unique = {tuple(row[name] for name in self.key): row for row in rows}
        async with connection.transaction():
            await stage(connection, f"staged_{self.name}", self.columns, unique.values())
            # A cached plan would be of the time when the table was small.
            await connection.execute(self._statement(), {"portal": portal}, prepare=False)

    def _statement(self) -> sql.Composed:
        # A row that was only known to be missing (raw is NULL) had no values that could have changed.
        fields = sql.SQL(", ").join(
            sql.SQL("({field}, {old}::text, {new}::text, {old} IS DISTINCT FROM {new} AND {told}, {modified})").format(
                field=sql.Literal(field),
                old=sql.Identifier(f"old_{field}"),
                new=sql.Identifier(field),
                told=sql.SQL("true" if field == "found" else "told"),
                modified=sql.SQL(modified),
            )
            for field, modified in self.tracked.items()
        )
        return sql.SQL(
            """
            WITH changed AS MATERIALIZED (
                SELECT s.*, c.portal IS NOT NULL AS known, c.raw IS NOT NULL AS told, {old}
                FROM {staged} s
                LEFT JOIN LATERAL (SELECT * FROM {table} t WHERE t.portal = %(portal)s AND {same_key} OFFSET 0) c ON true
                WHERE c.portal IS NULL OR ({current}) IS DISTINCT FROM ({new})
            ), kept AS (
                INSERT INTO entity_changes (portal, entity_type, entity_id, field, before, after, modified_at)
                SELECT %(portal)s, {entity_type}, {entity_id}, field, before, after, modified
                FROM changed, LATERAL (VALUES {fields}) AS fields (field, before, after, differs, modified)
                WHERE known AND differs
            )
            {write}
            """
        ).format(
            old=_list(sql.SQL("c.{} AS {}").format(_name(name), _name(f"old_{name}")) for name in self.tracked),
            staged=sql.Identifier("pg_temp", f"staged_{self.name}"),
            table=_name(self.name),
            same_key=sql.SQL(" AND ").join(sql.SQL("t.{0} = s.{0}").format(_name(name)) for name in self.key),
            current=_list(sql.Identifier("c", name) for name in self.written),
            new=_list(sql.Identifier("s", name) for name in self.written),
            entity_type=sql.SQL(self.entity_type),
            entity_id=sql.SQL(self.entity_id),
            fields=fields,
            write=upsert(
                self.name,
                ("portal", *self.key),
                tuple(self.written),
                source=sql.SQL("SELECT %(portal)s, {} FROM changed").format(
                    _list(map(_name, (*self.key, *self.written)))
                ),
                touch="updated_at",
            ),
        )


def _name(name: str) -> sql.Identifier:
    return sql.Identifier(name)


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.Composed(list(parts)).join(", ")


@dataclass(frozen=True)
class Known:
    """A field's value at a moment; `seen` says whether we had seen the entity by then (else it is what we found first)."""

    value: str | None
    seen: bool


async def value_at(
    connection: Connection, portal: str, entity_type: str, entity_id: int, field: str, moment: datetime
) -> Known | None:
    """What `field` (stage, category, amount, responsible_id, title) of an entity was at a moment, as text.

    The CRM's own time of the change counts where it gives one, else the time when we saw it. None for an entity that we
    do not know, or that the CRM created later.
    """
    cursor = await connection.execute(
        sql.SQL(
            """
            SELECT entity_value_at(portal, entity_type, entity_id, {name}, {column}::text, %(moment)s) AS value,
                   first_seen_at <= %(moment)s AS seen
            FROM entities
            WHERE portal = %(portal)s AND entity_type = %(entity_type)s AND entity_id = %(entity_id)s AND raw IS NOT NULL
                AND coalesce(created_at, '-infinity') <= %(moment)s
            """
        ).format(name=sql.Literal(field), column=_name(field)),
        {"portal": portal, "entity_type": entity_type, "entity_id": entity_id, "moment": moment},
    )
    row = await cursor.fetchone()
    return Known(**row) if row else None


async def deal_stage_at(connection: Connection, portal: str, deal: int, moment: datetime) -> Known | None:
    """The stage (`NEW`, `C5:WON`) that a deal was in at a moment; see `value_at`."""
    return await value_at(connection, portal, "deal", deal, "stage", moment)


async def of_entity(connection: Connection, portal: str, entity_type: ChangedType, entity_id: int) -> list[Row]:
    """Rows field, before, after, changed_at, modified_at of one entity, oldest first."""
    cursor = await connection.execute(
        """
        SELECT field, before, after, changed_at, modified_at FROM entity_changes
        WHERE portal = %s AND entity_type = %s AND entity_id = %s ORDER BY id
        """,
        [portal, entity_type, entity_id],
    )
    return await cursor.fetchall()
