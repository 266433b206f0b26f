"""Table unreadable_rows: what a portal sent and nobody can read, as it came, until it reads well or is gone.

Here: calls without a readable ID or start, and unreadable users and CRM entities. Not here: calls of which the rest can be
read; they are in table calls, failed at step calls.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable
from datetime import date
from typing import Any, Literal

from psycopg.types.json import Jsonb

from dialog_assets.store.pool import Connection

Kind = Literal["call", "user", "contact", "lead", "company", "deal"]


@dataclasses.dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row of `method` whose `field` is not what was `expected`; `raw` may hold people's data, but no credential.

    `row_id` is the id of the call, user or entity that it belongs to, None where that is not known.
    """

    kind: Kind
    row_id: int | None
    method: str
    field: str
    expected: str
    raw: Any = dataclasses.field(repr=False)

    @property
    def key(self) -> str:
        """What the row is known by: its id, or else its content."""
        if self.row_id is not None:
            return str(self.row_id)
        return "sha256:" + hashlib.sha256(json.dumps(self.raw, sort_keys=True).encode()).hexdigest()

    @property
    def detail(self) -> str:
        """What is wrong, without any value."""
        return f"{self.kind} {self.row_id or 'without a readable ID'}: {self.field} is not {self.expected}"


async def write(
    connection: Connection, portal: str, rows: Iterable[UnreadableRow], days: tuple[date, date] | None = None
) -> None:
    """Keep rows; of calls, `days` are the first and the last on which they may lie: two readings narrow that down."""
    first, last = days or (None, None)
    async with connection.cursor() as cursor:
        await cursor.executemany(
            """
            INSERT INTO unreadable_rows AS known (portal, kind, row_key, row_id, method, field, expected, raw, days)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s,
                CASE WHEN %s::date IS NOT NULL THEN datemultirange(daterange(%s, %s, '[]')) END)
            ON CONFLICT (portal, kind, row_key) DO UPDATE SET
                method = excluded.method, field = excluded.field, expected = excluded.expected, raw = excluded.raw,
                days = CASE WHEN known.days && excluded.days THEN known.days * excluded.days ELSE excluded.days END,
                last_seen_at = now()
            """,
            [
                (
                    *(portal, row.kind, row.key, row.row_id, row.method, row.field, row.expected, Jsonb(row.raw)),
                    *(first, first, last),
                )
                for row in rows
            ],
        )


async def known(connection: Connection, portal: str, kind: Kind) -> set[int]:
    """Ids of the kept rows that have one."""
    cursor = await connection.execute(
        "SELECT row_id FROM unreadable_rows WHERE portal = %s AND kind = %s AND row_id IS NOT NULL", [portal, kind]
    )
    return {row["row_id"] for row in await cursor.fetchall()}


async def details(connection: Connection, portal: str, kinds: Collection[Kind]) -> list[str]:
    """What is wrong with each kept row of these kinds, without any value; the newest first."""
    cursor = await connection.execute(
        """
        SELECT kind, row_id, method, field, expected FROM unreadable_rows
        WHERE portal = %s AND kind = ANY(%s) ORDER BY last_seen_at DESC, kind, row_key
        """,
        [portal, list(kinds)],
    )
    return [UnreadableRow(**row, raw=None).detail for row in await cursor.fetchall()]


async def replace(
    connection: Connection, portal: str, kind: Kind, ids: Iterable[int], rows: Collection[UnreadableRow]
) -> None:
    """Of the users or entities `ids`, which have been read again, `rows` are those that still cannot be."""
    await forget(connection, portal, kind, set(ids) - {row.row_id for row in rows})
    await write(connection, portal, rows)


async def forget(connection: Connection, portal: str, kind: Kind, ids: Iterable[int]) -> None:
    """Let go of the rows of these calls, users or entities: they read well again, or are gone."""
    await connection.execute(
        "DELETE FROM unreadable_rows WHERE portal = %s AND kind = %s AND row_id = ANY(%s::bigint[])",
        [portal, kind, list(ids)],
    )


async def all_read(connection: Connection, portal: str, first: date, last: date, unreadable: Collection[str]) -> None:
    """The calls of the days have been read to the last one: one that was not among the `unreadable` keys lies elsewhere.

    It keeps the other days on which it may lie, and goes when none is left: then it reads well, or the portal has it no more.
    """
    parameters = {"portal": portal, "first": first, "last": last, "unreadable": list(unreadable)}
    await connection.execute(
        """
        UPDATE unreadable_rows SET days = days - datemultirange(daterange(%(first)s, %(last)s, '[]'))
        WHERE portal = %(portal)s AND kind = 'call' AND row_key <> ALL(%(unreadable)s::text[])
            AND days && daterange(%(first)s, %(last)s, '[]')
        """,
        parameters,
    )
    await connection.execute(
        "DELETE FROM unreadable_rows WHERE portal = %(portal)s AND kind = 'call' AND isempty(days)", parameters
    )
