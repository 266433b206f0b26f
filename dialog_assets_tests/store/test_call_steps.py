"""Table call_steps: which calls a step takes up, and that every call is accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import psycopg
import pytest

from dialog_assets.store import call_steps
from dialog_assets_tests.store.rows import (
    MONDAY,
    PORTAL,
    Pool,
    all_rows,
    call,
    day,
    put_calls,
    put_step,
    step,
    with_pool,
)

NOW = datetime.now(UTC)
PAST, FUTURE = NOW - timedelta(days=1), NOW + timedelta(days=1)


async def pending(pool: Pool, last: int = 0, page: int = 200, name: str = "transcripts") -> list[int]:
    """The call ids on the worklist of `name`, from Monday on."""
    found = call_steps.pending(pool, PORTAL, name, "audio_files", MONDAY, day(last), page=page)
    return [item.call_id async for item in found]


FAILED_LATER = {"state": "failed", "input_key": "a", "next_try": FUTURE}
CASES: list[tuple[str, dict[str, Any] | None, dict[str, Any] | None, bool]] = [
    ("upstream has not run", None, None, False),
    ("upstream done", {"state": "done", "output_key": "a"}, None, True),
    ("upstream done with nothing for us", {"state": "done", "output_key": "none"}, None, False),
    ("upstream failed", {"state": "failed", "output_key": "a"}, None, False),
    ("upstream skipped", {"state": "skipped", "output_key": "a"}, None, False),
    ("upstream waiting", {"state": "waiting"}, None, False),
    ("done", {"state": "done", "output_key": "a"}, {"state": "done", "input_key": "a"}, False),
    ("done, input changed", {"state": "done", "output_key": "b"}, {"state": "done", "input_key": "a"}, True),
    ("skipped", {"state": "done", "output_key": "a"}, {"state": "skipped", "input_key": "a"}, False),
    ("skipped, input changed", {"state": "done", "output_key": "b"}, {"state": "skipped", "input_key": "a"}, True),
    ("inherited before", {"state": "done", "output_key": "a"}, {"state": "waiting"}, True),
    ("failed for good", {"state": "done", "output_key": "a"}, {"state": "failed", "input_key": "a"}, False),
    ("failed for good, input changed", {"state": "done", "output_key": "b"}, {"state": "failed", "input_key": "a"}, True),
    ("failed, may be tried", {"state": "done", "output_key": "a"}, {"state": "failed", "input_key": "a", "next_try": PAST}, True),
    ("failed, later", {"state": "done", "output_key": "a"}, FAILED_LATER, False),
    ("failed, later, input changed", {"state": "done", "output_key": "b"}, FAILED_LATER, True),
    ("waiting", {"state": "done", "output_key": "a"}, {"state": "waiting", "input_key": "a"}, True),
    ("waiting, due", {"state": "done", "output_key": "a"}, {"state": "waiting", "input_key": "a", "next_try": PAST}, True),
    ("waiting, later", {"state": "done", "output_key": "a"}, {"state": "waiting", "input_key": "a", "next_try": FUTURE}, False),
]  # fmt: skip


def test_what_is_pending(database: str) -> None:
    """A call is taken up if its input is ready and this step has no lasting result from that very input."""

    async def work(pool: Pool) -> list[int]:
        await put_calls(pool, *(call(number) for number in range(1, len(CASES) + 1)))
        for number, (_, upstream, mine, _) in enumerate(CASES, 1):
            if upstream:
                await put_step(pool, number, "audio_files", **upstream)
            if mine:
                await put_step(pool, number, "transcripts", **mine)
        return await pending(pool)

    found = with_pool(database, work)
    wrong = [name for number, (name, _, _, expected) in enumerate(CASES, 1) if (number in found) != expected]
    assert not wrong


def test_pages_give_each_call_once_and_in_order(database: str) -> None:
    """Whatever the page's size, also over calls of one second and while items finish between pages."""
    rows = [call(number, day(number % 3)) for number in range(1, 12)]
    for row in rows[::2]:
        row["started_at"] = rows[0]["started_at"].replace(day=row["day"].day)
    expected = [row["call_id"] for row in sorted(rows, key=lambda row: (row["started_at"], row["call_id"]))]

    async def work(pool: Pool) -> None:
        await put_calls(pool, *rows)
        for number in range(1, 12):
            await put_step(pool, number, "audio_files", "done", output_key="a")
        for page in (1, 2, 11, 12):
            assert await pending(pool, 2, page) == expected
        found = []
        async for item in call_steps.pending(pool, PORTAL, "transcripts", "audio_files", MONDAY, day(2), page=2):
            assert item.input_key == "a"
            await put_step(pool, item.call_id, "transcripts", "failed", input_key="a", next_try=PAST)
            found.append(item.call_id)
        assert found == expected, "what fails in this run is not taken up again in this run"
        assert await pending(pool, 2, 2) == expected

    with_pool(database, work)


def test_only_the_days_and_the_portal_asked_for(database: str) -> None:
    """Neither a neighbour's calls nor a neighbouring day's come onto the list."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1), call(2, day(1)), call(3, day(2)))
        await put_calls(pool, call(4), portal="avto_ural")
        for number in (1, 2, 3, 4):
            await put_step(pool, number, "audio_files", "done", output_key="a")
        found = call_steps.pending(pool, PORTAL, "transcripts", "audio_files", day(1), day(1))
        assert [item.call_id async for item in found] == [2]

    with_pool(database, work)


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        (None, ("waiting", "audio_files_not_run")),
        (("waiting", "recording_not_ready"), ("waiting", "recording_not_ready")),
        (("failed", "recording_gone"), ("waiting", "audio_files_failed")),
        (("skipped", "not_answered"), ("skipped", "not_answered")),
    ],
)
def test_what_is_inherited(database: str, upstream: Any, expected: tuple[str, str]) -> None:
    """A call that upstream did not finish is accounted for; a result that is there already is never taken back."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1), call(2), call(3, day(1)))
        if upstream:
            for number in (1, 2, 3):
                await put_step(pool, number, "audio_files", upstream[0], reason=upstream[1])
        await put_step(pool, 2, "transcripts", "done", input_key="old", output_key="kept")
        async with pool.connection() as connection:
            await call_steps.inherit(connection, PORTAL, "transcripts", "audio_files", MONDAY, MONDAY)
        row = await step(pool, 1, "transcripts")
        assert ((row["state"], row["reason"]), row["attempts"], row["input_key"]) == (expected, 0, None)
        kept = await step(pool, 2, "transcripts")
        assert (kept["state"], kept["input_key"], kept["output_key"]) == ("done", "old", "kept")
        assert not await all_rows(pool, "SELECT FROM call_steps WHERE call_id = 3 AND step = 'transcripts'")

    with_pool(database, work)


@pytest.mark.parametrize("upstream", [None, "waiting", "failed", "skipped"])
def test_inheriting_leaves_what_this_step_skipped_itself(database: str, upstream: call_steps.State | None) -> None:
    """A skip that was found out by paying (no speech, no category) stays: when upstream is back, nothing is bought again."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1), call(2))
        for number in (1, 2):
            await put_step(pool, number, "audio_files", "done", output_key="a")
        await put_step(pool, 1, "transcripts", "skipped", reason="no_speech", input_key="a")
        await put_step(pool, 2, "transcripts", "skipped", reason="not_answered")  # inherited: it was never worked on
        async with pool.connection() as connection:
            await connection.execute("DELETE FROM call_steps WHERE step = 'audio_files'")
        for number in (1, 2):
            if upstream:
                await put_step(pool, number, "audio_files", upstream, reason="some")
        async with pool.connection() as connection:
            await call_steps.inherit(connection, PORTAL, "transcripts", "audio_files", MONDAY, MONDAY)
        own, inherited = await step(pool, 1, "transcripts"), await step(pool, 2, "transcripts")
        assert (own["state"], own["reason"], own["input_key"], own["attempts"]) == ("skipped", "no_speech", "a", 1)
        assert inherited["reason"] != "not_answered"
        for number in (1, 2):
            await put_step(pool, number, "audio_files", "done", output_key="a")
        assert await pending(pool) == [2]
        await put_step(pool, 1, "audio_files", "done", output_key="b")
        assert await pending(pool) == [1, 2], "another recording is another matter"

    with_pool(database, work)


def test_inheriting_twice_changes_nothing(database: str) -> None:
    """A second run over an unchanged day writes no row."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1))
        rows = []
        for _ in range(2):
            async with pool.connection() as connection:
                await call_steps.inherit(connection, PORTAL, "transcripts", "audio_files", MONDAY, MONDAY)
            rows.append(await all_rows(pool, "SELECT xmin::text, * FROM call_steps WHERE step = 'transcripts'"))
        assert rows[0] == rows[1]

    with_pool(database, work)


def test_inheriting_clears_what_a_former_failure_left(database: str) -> None:
    """A failed call whose input is gone waits for it, and is taken up when it comes back, even the same as before."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1))
        await put_step(pool, 1, "transcripts", "failed", input_key="a", detail="text", next_try=FUTURE)
        async with pool.connection() as connection:
            await call_steps.inherit(connection, PORTAL, "transcripts", "audio_files", MONDAY, MONDAY)
        row = await step(pool, 1, "transcripts")
        assert (row["state"], row["detail"], row["next_try"]) == ("waiting", None, None)
        await put_step(pool, 1, "audio_files", "done", output_key="a")
        assert await pending(pool) == [1]

    with_pool(database, work)


def test_the_summary_counts_every_call_once(database: str) -> None:
    """done + skipped + failed + waiting = the calls of the day, with a call that the step never saw as waiting(not_run)."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, *(call(number, day(number % 2)) for number in range(1, 11)))
        states = get_args(call_steps.State)
        for number in range(1, 9):
            await put_step(pool, number, "transcripts", states[number % 4], input_key="a")
        async with pool.connection() as connection:
            rows = await call_steps.summary(connection, PORTAL, "transcripts", MONDAY, day(1))
        counts = Counter({(row["day"], row["state"], row["reason"]): row["calls"] for row in rows})
        assert sum(counts.values()) == 10
        assert counts[day(0), "waiting", "not_run"] == counts[day(1), "waiting", "not_run"] == 1
        assert counts[day(0), "done", None] == 2
        assert counts[day(1), "failed", "some"] + counts[day(0), "failed", "some"] == 2

    with_pool(database, work)


def test_attempts_count_work_and_not_waiting(database: str) -> None:
    """Every try of a call is counted, whatever came of it; waiting is no try."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1))
        attempts = []
        for state in ("waiting", "failed", "waiting", "failed", "done"):
            await put_step(pool, 1, "transcripts", state)
            attempts.append((await step(pool, 1, "transcripts"))["attempts"])
        assert attempts == [0, 1, 1, 2, 3]
        row = await step(pool, 1, "transcripts")
        assert (row["state"], row["reason"]) == ("done", None)

    with_pool(database, work)


def test_failures_name_the_newest_first(database: str) -> None:
    """The failed calls for the check's table: newest first, at most `limit`."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, *(call(number) for number in range(1, 5)))
        for number in (1, 2, 4):
            await put_step(pool, number, "transcripts", "failed", detail=f"d{number}")
        async with pool.connection() as connection:
            rows = await call_steps.failures(connection, PORTAL, "transcripts", MONDAY, MONDAY, limit=2)
        assert [(row["call_id"], row["detail"], row["attempts"]) for row in rows] == [(4, "d4", 1), (2, "d2", 1)]

    with_pool(database, work)


def test_one_record_sets_the_state_of_many_calls(database: str) -> None:
    """An entity's outcome is the outcome of all its calls."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, call(1), call(2))
        async with pool.connection() as connection:
            await call_steps.record(connection, PORTAL, [1, 2], "entity_summaries", "done", output_key="k")
            await call_steps.record(connection, PORTAL, [], "entity_summaries", "done", output_key="k")
        rows = await all_rows(pool, "SELECT call_id FROM call_steps WHERE step = 'entity_summaries' ORDER BY 1")
        assert [row["call_id"] for row in rows] == [1, 2]

    with_pool(database, work)


def test_failed_calls_can_be_tried_again_on_demand(database: str) -> None:
    """Those of the steps and days asked for come onto the worklist, also those that failed for good; no others."""

    async def work(pool: Pool) -> None:
        await put_calls(pool, *(call(number) for number in range(1, 6)), call(6, day(1)))
        await put_calls(pool, call(7), portal="avto_ural")
        for number in range(1, 7):
            await put_step(pool, number, "audio_files", "done", output_key="a")
        for number in (1, 6, 7):
            await put_step(pool, number, "transcripts", "failed", input_key="a", detail="why")
        await put_step(pool, 2, "transcripts", "failed", input_key="a", next_try=FUTURE)
        await put_step(pool, 3, "transcripts", "skipped", input_key="a")
        await put_step(pool, 4, "transcripts", "done", input_key="a", output_key="k")
        await put_step(pool, 5, "transcripts", "waiting", input_key="a", next_try=FUTURE)
        await put_step(pool, 1, "fixed_dialogs", "failed", input_key="k")
        assert await pending(pool, 1) == []
        before = await all_rows(
            pool, "SELECT * FROM call_steps WHERE call_id > 2 OR step <> 'transcripts' ORDER BY 2, 3"
        )
        async with pool.connection() as connection:
            again = [await call_steps.retry_failed(connection, PORTAL, ["transcripts"], MONDAY, MONDAY)]
            again.append(await call_steps.retry_failed(connection, PORTAL, ["audio_files", "calls"], MONDAY, MONDAY))
        assert again == [2, 0]
        assert await pending(pool, 1) == [1, 2]
        row = await step(pool, 1, "transcripts")
        assert (row["state"], row["reason"], row["detail"], row["attempts"]) == ("failed", "some", "why", 1)
        assert before == await all_rows(
            pool, "SELECT * FROM call_steps WHERE call_id > 2 OR step <> 'transcripts' ORDER BY 2, 3"
        )

    with_pool(database, work)


CROWD, DAYS = 20_000, 5
"""Calls in the window of the test below, four thousand a day."""


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A node of a plan and those under it."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


@pytest.mark.parametrize("analyzed", [True, False])
def test_a_page_of_a_big_worklist_reads_few_rows(
    database: str, monkeypatch: pytest.MonkeyPatch, *, analyzed: bool
) -> None:
    """A page costs what it holds, wherever in the window it is: the calls come off their index, and nothing is sorted."""
    asked: list[tuple[Any, Any]] = []
    execute = psycopg.AsyncConnection.execute

    async def noted(self: Any, query: Any, params: Any = None, **options: Any) -> Any:
        if params:  # the pool tries a connection with a query of nothing
            asked.append((query, params))
        return await execute(self, query, params, **options)

    async def work(pool: Pool) -> None:
        async with pool.connection() as connection:
            await connection.execute(
                """
                INSERT INTO calls (portal, call_id, started_at, day, direction, duration_s, raw)
                SELECT %(portal)s, n, at, (at AT TIME ZONE 'Europe/Moscow')::date, 'incoming', 60, '{}'
                FROM (SELECT n, timestamptz '2026-03-02 00:00+03' + (n * 7919 %% %(crowd)s) * interval '432 seconds' / 20
                      FROM generate_series(1, %(crowd)s) n) AS called (n, at)
                """,
                {"portal": PORTAL, "crowd": CROWD},
            )
            await connection.execute(
                """
                INSERT INTO call_steps (portal, call_id, step, state, input_key, output_key)
                SELECT portal, call_id, step, 'done', 'k', 'k' FROM calls, unnest(ARRAY['calls', 'audio_files', 'transcripts']) step
                WHERE step <> 'transcripts' OR call_id % 10 = 0
                """
            )
        if analyzed:
            async with pool.connection() as connection:
                await connection.execute("ANALYZE calls, call_steps")
        with monkeypatch.context() as patch:
            patch.setattr(psycopg.AsyncConnection, "execute", noted)
            found = await pending(pool, DAYS - 1)
        assert len(found) == CROWD * 9 // 10
        assert len(asked) == len(found) // 200 + 1
        for page in (0, 1, 45, 89):
            query, params = asked[page]
            async with pool.connection() as connection:
                cursor = await connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}".encode(), params)
                (row,) = await cursor.fetchall()
            (plan,) = row["QUERY PLAN"]
            seen = list(nodes(plan["Plan"]))
            assert seen[0]["Actual Rows"] == 200
            assert "Sort" not in {node["Node Type"] for node in seen}
            read = sum(
                (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
                for node in seen
                if "Relation Name" in node
            )
            assert read < 3 * 300, f"page {page} reads {read} rows"

    with_pool(database, work)
