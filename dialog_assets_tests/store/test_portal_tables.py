"""Tables users, entities and audio_files: what is known, what is missing, and that each call is accounted for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dialog_assets.store import audio_files, call_steps, entities, users
from dialog_assets_tests.store.rows import (
    MONDAY,
    PORTAL,
    Pool,
    Row,
    all_rows,
    call,
    day,
    one,
    put_calls,
    put_step,
    step,
    with_pool,
)


def user(number: int, **fields: Any) -> Row:
    row: Row = {"user_id": number, "name": f"N{number}", "email": None, "phone": None, "departments": [1, 2]}
    return {**row, "position": None, "active": True, "raw": {"ID": str(number)}, **fields}


def entity(kind: str, number: int, **fields: Any) -> Row:
    row: Row = {"entity_type": kind, "entity_id": number, "title": f"{kind} {number}", "phones": ["+7"], "stage": None}
    return {**row, "amount": None, "currency": None, "responsible_id": None, "raw": {}, **fields}


def test_users_that_disappear_and_return(database: str) -> None:
    """A user the portal shows no more keeps the name that is known, is marked, and comes back when shown again."""

    async def work(pool: Pool) -> None:
        async with pool.connection() as connection:
            await users.write(connection, PORTAL, [user(1), user(2)])
            await users.mark_missing(connection, PORTAL, [2, 3])
        query = "SELECT user_id, found, name FROM users ORDER BY 1"
        assert [tuple(row.values()) for row in await all_rows(pool, query)] == [
            (1, True, "N1"),
            (2, False, "N2"),
            (3, False, None),
        ]
        before = await all_rows(pool, "SELECT xmin::text FROM users ORDER BY user_id")
        async with pool.connection() as connection:
            await users.mark_missing(connection, PORTAL, [2, 3])
            await users.write(connection, PORTAL, [user(1)])
        assert await all_rows(pool, "SELECT xmin::text FROM users ORDER BY user_id") == before
        async with pool.connection() as connection:
            await users.write(connection, PORTAL, [user(2)])
        assert (await one(pool, "SELECT found FROM users WHERE user_id = 2"))["found"]

    with_pool(database, work)


def test_every_call_is_settled_by_its_user(database: str) -> None:
    """done with a known user, skipped without one or with one the portal does not show; a later find mends it."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1, user_id=1), call(2, user_id=2), call(3, user_id=None), call(4, day(1)))
        for expected in ("skipped", "done"):
            async with pool.connection() as connection:
                await users.write(connection, PORTAL, [user(1)])
                if expected == "skipped":
                    await users.mark_missing(connection, PORTAL, [2])
                else:
                    await users.write(connection, PORTAL, [user(2)])
                await users.settle(connection, PORTAL, MONDAY, MONDAY)
                rows = await call_steps.summary(connection, PORTAL, "users", MONDAY, day(1))
            assert (await step(pool, 1, "users"))["state"] == "done"
            assert (await step(pool, 2, "users"))["state"] == expected
            assert (await step(pool, 3, "users"))["reason"] == "no_user"
            assert sum(row["calls"] for row in rows) == 4
            assert [row["reason"] for row in rows if row["day"] == day(1)] == ["not_run"]

    with_pool(database, work)


def test_every_call_is_settled_by_its_entity(database: str) -> None:
    """done with a known entity of that very type, skipped otherwise."""

    async def work(pool: Pool) -> None:
        await put_calls(
            pool,
            call(1, entity_id=1),
            call(2, entity_type="lead", entity_id=1),
            call(3, entity_type=None, entity_id=None),
            call(4, entity_id=1),
        )
        async with pool.connection() as connection:
            await entities.write(connection, PORTAL, [entity("contact", 1), entity("deal", 1)])
            await entities.mark_missing(connection, PORTAL, "lead", [1])
            await entities.settle(connection, PORTAL, MONDAY, MONDAY)
            assert await entities.titles(connection, PORTAL, [("contact", 1), ("lead", 1)]) == {
                ("contact", 1): "contact 1"
            }
        found = [(row["state"], row["reason"]) for row in [await step(pool, n, "entities") for n in (1, 2, 3, 4)]]
        assert found == [("done", None), ("skipped", "entity_not_found"), ("skipped", "no_entity"), ("done", None)]

    with_pool(database, work)


def test_deals_become_what_the_crm_says_now(database: str) -> None:
    """Of the entities that were read: deals that came are added, deals that went are removed; the others keep theirs."""

    async def deals(pool: Pool) -> list[tuple[Any, ...]]:
        rows = await all_rows(pool, "SELECT entity_type, entity_id, deal_id FROM entity_deals ORDER BY 1, 2, 3")
        return [tuple(row.values()) for row in rows]

    async def work(pool: Pool) -> None:
        async with pool.connection() as connection:
            await entities.set_deals(connection, PORTAL, "contact", {1: [10, 11], 2: [12]})
            await entities.set_deals(connection, PORTAL, "lead", {1: [10]})
            await entities.set_deals(connection, "avto_ural", "contact", {1: [99]})
            await entities.set_deals(connection, PORTAL, "contact", {1: [11, 13], 3: []})
            await entities.set_deals(connection, PORTAL, "contact", {})
        assert await deals(pool) == [
            ("contact", 1, 11),
            ("contact", 1, 13),
            ("contact", 1, 99),
            ("contact", 2, 12),
            ("lead", 1, 10),
        ]

    with_pool(database, work)


OLD = {"patience_from": datetime(2030, 1, 1, tzinfo=UTC)}
YOUNG = {"patience_from": datetime(2020, 1, 1, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("fields", "patience", "expected"),
    [
        ({"duration_s": 0}, YOUNG, ("skipped", "not_answered")),
        ({"failed_code": "304", "duration_s": 0}, YOUNG, ("skipped", "not_answered")),
        ({"failed_code": "304"}, YOUNG, ("waiting", "recording_not_ready")),
        ({"failed_code": None}, YOUNG, ("waiting", "recording_not_ready")),
        ({"failed_code": None}, OLD, ("skipped", "no_recording")),
        ({}, YOUNG, ("waiting", "recording_not_ready")),
        ({}, OLD, ("skipped", "no_recording")),
    ],
)
def test_calls_without_a_recording(database: str, fields: Row, patience: Any, expected: tuple[str, str]) -> None:
    """Nobody talked, or the recording is still to come, or it never came: each call says which; a second time is quiet."""

    async def settle(pool: Pool) -> None:
        async with pool.connection() as connection:
            await audio_files.settle_without_recording(connection, PORTAL, MONDAY, MONDAY, **patience)

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1, record_file_id=None, **fields), call(2))
        await settle(pool)
        row = await step(pool, 1, "audio_files")
        assert (row["state"], row["reason"]) == expected
        assert not await all_rows(pool, "SELECT FROM call_steps WHERE call_id = 2 AND step = 'audio_files'")
        await settle(pool)
        assert await step(pool, 1, "audio_files") == row
        await put_calls(pool, call(1, record_file_id=5))
        found = call_steps.pending(pool, PORTAL, "audio_files", "calls", MONDAY, MONDAY)
        assert [item.call_id async for item in found] == [1, 2], "a recording that appears late is taken up"

    with_pool(database, work)


def test_a_recording_that_disappears(database: str) -> None:
    """What is archived stays archived; a failed download of it waits, and its old failure is not shown any more."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1), call(2))
        await put_step(pool, 1, "audio_files", "done", input_key="disk:1001", output_key="sha")
        await put_step(
            pool, 2, "audio_files", "failed", reason="recording_gone", detail="text", next_try=datetime.now(UTC)
        )
        await put_calls(pool, call(1, record_file_id=None), call(2, record_file_id=None))
        async with pool.connection() as connection:
            await audio_files.settle_without_recording(connection, PORTAL, MONDAY, MONDAY, **YOUNG)
        assert (await step(pool, 1, "audio_files"))["output_key"] == "sha"
        row = await step(pool, 2, "audio_files")
        assert (row["state"], row["reason"], row["detail"]) == ("waiting", "recording_not_ready", None)
        assert row["next_try"] is None
        await put_calls(pool, call(2, started_at=call(2)["started_at"] + timedelta(seconds=1)))
        found = call_steps.pending(pool, PORTAL, "audio_files", "calls", MONDAY, MONDAY)
        assert [item.call_id async for item in found] == [2]

    with_pool(database, work)
