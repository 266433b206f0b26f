"""Writing calls in bulk: what is touched, what follows, and what it costs beside a bare COPY."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from dialog_assets.store import call_steps, calls, entity_summaries
from dialog_assets.store.pool import Connection, open_pool
from dialog_assets_tests.store.bulk import DAY, PORTAL, call, on, rows, write

STAMPS = "SELECT call_id, xmin::text, xmax::text, ctid::text FROM calls ORDER BY call_id"


def test_reading_again_touches_nothing(database: str) -> None:
    """Not one row version, lock or state is written where nothing changed; a changed call changes alone."""

    async def work(connection: Connection) -> None:
        await write(connection, *(call(number) for number in range(1, 301)))
        steps = "SELECT call_id, xmin::text, ctid::text FROM call_steps ORDER BY call_id"
        before, steps_before = await rows(connection, STAMPS), await rows(connection, steps)
        assert len(before) == len(steps_before) == 300
        await write(connection, *(call(number) for number in range(1, 301)))
        assert await rows(connection, STAMPS) == before
        await write(connection, *(call(number, vote=5 if number == 7 else None) for number in range(1, 301)))
        after = await rows(connection, STAMPS)
        assert [new[0] for old, new in zip(before, sorted(after), strict=True) if old != new] == [7]
        assert await rows(connection, steps) == steps_before
        assert await rows(connection, "SELECT count(*) FROM entity_changes") == [(0,)]

    on(database, work)


def test_new_and_known_calls_in_one_page(database: str) -> None:
    """Late votes, costs, recordings and unknown fields reach known calls while new calls come with them."""

    async def work(connection: Connection) -> None:
        await write(connection, call(1), call(2))
        late = call(2, vote=4, cost=Decimal("2.5200"), record_file_id=900, raw={"ID": "2", "NEW_FIELD": "x"})
        await write(connection, call(1), late, call(3), call(3, vote=1))
        assert await rows(connection, "SELECT call_id, vote, cost, record_file_id, raw ->> 'NEW_FIELD' FROM calls ORDER BY 1") == [
            (1, None, Decimal("1.2600"), None, None),
            (2, 4, Decimal("2.5200"), 900, "x"),
            (3, 1, Decimal("1.2600"), None, None),
        ]  # fmt: skip
        keys = await rows(connection, "SELECT call_id, output_key FROM call_steps WHERE step = 'calls' ORDER BY 1")
        assert keys == [(1, "none"), (2, "disk:900"), (3, "none")]

    on(database, work)


def test_a_call_that_another_writer_adds_meanwhile(database: str) -> None:
    """Two writers of the same calls at once, which the step's lock forbids, still end with one row a call."""

    async def work() -> None:
        first = await AsyncConnection.connect(database, row_factory=dict_row)
        second = await AsyncConnection.connect(database, row_factory=dict_row)
        async with first, second:
            await calls.write(first, PORTAL, [call(1), call(2)])
            other = asyncio.create_task(calls.write(second, PORTAL, [call(2, vote=3), call(3)]))
            await asyncio.sleep(0.2)
            assert not other.done()
            await first.commit()
            await other
            await second.commit()
            assert await rows(first, "SELECT call_id, vote FROM calls ORDER BY 1") == [(1, None), (2, 3), (3, None)]
            assert await rows(first, "SELECT count(*) FROM call_steps") == [(3,)]

    asyncio.run(work())


def test_the_plan_does_not_age(database: str) -> None:
    """A chunk looks its rows up by key also when the statistics say that the table is empty."""

    async def work(connection: Connection) -> None:
        await connection.execute("ANALYZE calls")
        for start in range(0, 5000, 500):
            await write(connection, *(call(number) for number in range(start, start + 500)))
        scans = "SELECT sum(seq_scan)::int FROM pg_stat_user_tables WHERE relname = 'okna_sever_calls'"
        await connection.execute("SELECT pg_stat_force_next_flush()")
        before = await rows(connection, scans)
        for start in range(0, 5000, 500):
            await write(connection, *(call(number) for number in range(start, start + 500)))
        await connection.execute("SELECT pg_stat_force_next_flush()")
        assert await rows(connection, scans) == before

    on(database, work)


def test_links_that_the_portal_allows(database: str) -> None:
    """A provider's link is the archive's key while its host is allowed, also when only the configuration changes."""

    async def key(connection: Connection, *hosts: str, **fields: object) -> object:
        row = call(1, raw={"CALL_RECORD_URL": "https://pbx.example/…"}, **fields)
        await calls.write(connection, PORTAL, [row], record_hosts=hosts)
        return (await rows(connection, "SELECT output_key FROM call_steps WHERE step = 'calls'"))[0][0]

    async def work(connection: Connection) -> None:
        assert await key(connection, "other.example") == "none"
        assert await key(connection, "PBX.example") == "link:pbx.example"
        assert await key(connection) == "none"
        assert await key(connection, "pbx.example", record_file_id=5) == "disk:5"

    on(database, work)


async def settle(connection: Connection, call_id: int, step: str, state: call_steps.State, reason: str | None) -> None:
    await call_steps.record(connection, PORTAL, [call_id], step, state, reason=reason, input_key="k", output_key="k")


async def summary_step(connection: Connection) -> list[tuple[object, ...]]:
    return await rows(
        connection, "SELECT call_id, state, reason FROM call_steps WHERE step = 'entity_summaries' ORDER BY 1"
    )


def test_the_summary_waits_for_a_call_that_changed_its_entity(database: str) -> None:
    """A link that came late, moved or went reopens the call's last step and is kept for both entities."""

    async def work(connection: Connection) -> None:
        nobody = {"entity_type": None, "entity_id": None}
        await write(connection, call(1, **nobody), call(2), call(3), call(4), call(5))
        await settle(connection, 1, "entity_summaries", "skipped", "no_entity")
        for number in (2, 3, 4):
            await settle(connection, number, "entity_summaries", "done", None)
        await settle(connection, 5, "entity_summaries", "waiting", "transcripts_failed")
        moved = [
            call(1),
            call(2, entity_type="lead", entity_id=8),
            call(3, **nobody),
            call(4, vote=5),
            call(5, entity_id=6),
        ]
        await write(connection, *moved)
        assert await summary_step(connection) == [
            (1, "waiting", "entity_changed"),
            (2, "waiting", "entity_changed"),
            (3, "waiting", "entity_changed"),
            (4, "done", None),
            (5, "waiting", "transcripts_failed"),
        ]
        kept = "SELECT entity_type, entity_id, before, after FROM entity_changes WHERE field = 'call' ORDER BY 3, 4, 1"
        assert await rows(connection, kept) == [
            ("contact", 5, "2", None),
            ("contact", 5, "3", None),
            ("contact", 5, "5", None),
            ("contact", 5, None, "1"),
            ("lead", 8, None, "2"),
            ("contact", 6, None, "5"),
        ]
        await write(connection, *moved)
        assert len(await rows(connection, kept)) == 6

    on(database, work)


def test_the_entity_that_lost_a_call_is_summarised_again(database: str) -> None:
    """Both entities are on the list of summaries: the new one, and the old one while its summary tells of the call."""

    async def listed() -> list[tuple[str, int, list[int]]]:
        async with open_pool(database, size=2) as pool:
            found = entity_summaries.entities_with_scores(pool, PORTAL, DAY, DAY, page=1)
            return [(row["entity_type"], row["entity_id"], row["calls"]) async for row in found]

    async def before(connection: Connection) -> None:
        await write(connection, call(1), call(2, entity_id=6))
        for number in (1, 2):
            await settle(connection, number, "criteria_scores", "done", None)
        await entity_summaries.add(
            connection,
            PORTAL,
            "contact",
            5,
            {
                "version": 1,
                "text": "о звонке 1",
                "average_scores": {},
                "inputs_hash": "h",
                "calls": [1],
                "prompt_version": "1",
                "model": "m",
                "cost_rub": 0,
            },
        )

    async def move(connection: Connection) -> None:
        await write(connection, call(1, entity_id=6), call(2, entity_id=6))

    async def end(connection: Connection) -> None:
        await entity_summaries.end(connection, PORTAL, "contact", 5, "none")
        await entity_summaries.end(connection, PORTAL, "contact", 5, "none")

    on(database, before)
    assert asyncio.run(listed()) == [("contact", 5, [1]), ("contact", 6, [2])]
    on(database, move)
    assert asyncio.run(listed()) == [("contact", 5, []), ("contact", 6, [1, 2])]
    on(database, end)
    assert asyncio.run(listed()) == [("contact", 6, [1, 2])]
    with psycopg.connect(database) as connection:
        versions = connection.execute("SELECT version, text, calls FROM entity_summaries ORDER BY version").fetchall()
    assert versions == [(1, "о звонке 1", [1]), (2, "", [])]
