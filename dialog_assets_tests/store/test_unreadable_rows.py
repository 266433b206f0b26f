"""Calls that were read partly, and rows kept apart: what is written, what stays, and what lets go of them."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from dialog_assets.store import calls, unreadable_rows
from dialog_assets.store.pool import Connection
from dialog_assets.store.unreadable_rows import Kind, UnreadableRow
from dialog_assets_tests.store.bulk import DAY, PORTAL, call, on, rows, write

STEP = "SELECT call_id, state, reason, detail, output_key, attempts FROM call_steps WHERE step = 'calls' ORDER BY 1"
NOT_READ = (1, "failed", "row_unreadable", "COST is not a number", None)


def row(kind: Kind, row_id: int | None, raw: object = "x") -> UnreadableRow:
    return UnreadableRow(kind, row_id, "some.method", "ID", "a number", raw)


async def write_partly(connection: Connection, **fields: object) -> None:
    partly = call(1, **{"cost": Decimal(0), "record_file_id": 9, **fields})
    await calls.write_partly(connection, PORTAL, [partly], {1: "COST is not a number"})


def test_a_partly_read_call(database: str) -> None:
    """Failed while it is not read well, which counts as tries; done by the reading that is told of it, were nothing changed."""

    async def work(connection: Connection) -> None:
        await write_partly(connection)
        assert await rows(connection, STEP) == [(*NOT_READ, 1)]
        await write_partly(connection)
        assert await rows(connection, STEP) == [(*NOT_READ, 2)]
        same = call(1, cost=Decimal(0), record_file_id=9)
        before = await rows(connection, "SELECT xmin::text FROM calls")
        await write(connection, same, call(2))
        assert (await rows(connection, STEP))[0] == (*NOT_READ, 2), "nothing changed, and nobody asked"
        await calls.write(connection, PORTAL, [same, call(2)], failed={1, 7})
        assert await rows(connection, STEP) == [
            (1, "done", None, None, "disk:9", 2),
            (2, "done", None, None, "none", 1),
        ]
        assert (await rows(connection, "SELECT xmin::text FROM calls WHERE call_id = 1")) == before

    on(database, work)


def test_what_is_known_of_a_partly_read_call_stays(database: str) -> None:
    """Empty columns keep the known value, others are written; a call that was done is failed without another try counted."""

    async def work(connection: Connection) -> None:
        await write(connection, call(1, record_file_id=9, vote=5, direction="incoming"))
        await write_partly(connection, record_file_id=None, vote=3, direction="unknown", duration_s=0, raw={"ID": "1"})
        assert await rows(connection, STEP) == [(*NOT_READ, 1)]
        columns = "record_file_id, vote, direction, duration_s, cost, raw"
        assert await rows(connection, f"SELECT {columns} FROM calls") == [
            (9, 3, "incoming", 60, Decimal("1.2600"), {"ID": "1"})
        ]
        await calls.fail(connection, PORTAL, {1: "again", 2: "unknown"})
        assert [one[:4] for one in await rows(connection, STEP)] == [(1, "failed", "row_unreadable", "again")]

    on(database, work)


def test_rows_kept_apart(database: str) -> None:
    """By id, or by content where there is none; seen again they are one; read again they go, other kinds stay."""

    async def work(connection: Connection) -> None:
        days = (DAY, date(2026, 3, 4))
        apart = [row("call", 7), row("call", None, {"a": 1}), row("call", None, {"a": 2})]
        for _ in range(2):
            await unreadable_rows.write(connection, PORTAL, apart, days)
        await unreadable_rows.write(connection, PORTAL, [row("user", 7), row("contact", 7)])
        found = await rows(
            connection, "SELECT kind, row_id, days::text FROM unreadable_rows ORDER BY kind, row_id, row_key"
        )
        both = "{[2026-03-02,2026-03-05)}"
        assert found == [
            ("call", 7, both),
            ("call", None, both),
            ("call", None, both),
            ("contact", 7, None),
            ("user", 7, None),
        ]
        assert await unreadable_rows.known(connection, PORTAL, "call") == {7}
        await unreadable_rows.replace(connection, PORTAL, "user", [6, 7], [row("user", 6)])
        await unreadable_rows.forget(connection, PORTAL, "call", {7})
        found = await rows(connection, "SELECT kind, row_id FROM unreadable_rows WHERE row_id IS NOT NULL ORDER BY 1")
        assert found == [("contact", 7), ("user", 6)]

    on(database, work)


@pytest.mark.parametrize(
    ("first", "last", "left"),
    [
        (1, 5, None),
        (2, 4, None),
        (1, 1, "{[2026-03-02,2026-03-05)}"),
        (2, 2, "{[2026-03-03,2026-03-05)}"),
        (3, 3, "{[2026-03-02,2026-03-03),[2026-03-04,2026-03-05)}"),
        (4, 9, "{[2026-03-02,2026-03-04)}"),
    ],
)
def test_days_that_were_read_without_it(database: str, first: int, last: int, left: str | None) -> None:
    """A row that did not come with days that were read to the end lies on the others, or nowhere any more."""

    async def work(connection: Connection) -> None:
        gone, came = row("call", 7), row("call", 8)
        await unreadable_rows.write(connection, PORTAL, [gone, came], (DAY, date(2026, 3, 4)))
        await unreadable_rows.all_read(connection, PORTAL, date(2026, 3, first), date(2026, 3, last), [came.key])
        found = dict(await rows(connection, "SELECT row_id, days::text FROM unreadable_rows"))
        assert found == ({8: "{[2026-03-02,2026-03-05)}"} | ({7: left} if left else {}))

    on(database, work)
