"""Table ledger: asked → answered → settled, one open row a request, every rouble to the sixth place."""

from __future__ import annotations

from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dialog_assets.store import ledger
from dialog_assets_tests.store.rows import MONDAY, PORTAL, Pool, Row, all_rows, day, one, with_pool

KEY = "openai/m/1/abc"


def intent(**fields: Any) -> Row:
    row: Row = {"vendor": "openai", "model": "m", "step": "classifications", "day": MONDAY, "call_id": 1}
    return {**row, "rub_rate": Decimal("80.00"), **fields}


async def ask(pool: Pool, key: str = KEY, **fields: Any) -> Row:
    async with pool.connection() as connection:
        return await ledger.ask(connection, PORTAL, key, intent(**fields))


async def answer(pool: Pool, key: str = KEY, cost: Decimal = Decimal("0.001"), **fields: Any) -> None:
    given_fields = {"currency": "USD", "vendor_request_id": "resp_1", "answer": "{}", **fields}
    async with pool.connection() as connection:
        await ledger.answered(connection, PORTAL, key, cost=cost, **given_fields)


async def find(pool: Pool, key: str = KEY) -> Row | None:
    async with pool.connection() as connection:
        return await ledger.find(connection, PORTAL, key)


async def settle(pool: Pool, *keys: str) -> None:
    async with pool.connection() as connection:
        await ledger.settle(connection, PORTAL, keys)


def test_the_life_of_a_request(database: str) -> None:
    """Written before it is asked; the answer kept until the result is stored; then closed, with its price."""

    async def work(pool: Pool) -> None:
        assert await find(pool) is None
        asked = await ask(pool)
        row = await find(pool)
        assert row is not None
        assert (row["id"], row["state"], row["attempts"], row["cost_rub"]) == (asked["id"], "asked", 1, None)
        await answer(pool, answer="text", usage={"input": 5, "output": 2}, latency_ms=40, model_returned="m-1")
        row = await find(pool)
        assert row is not None
        assert (row["state"], row["answer"], row["usage"]) == ("answered", "text", {"input": 5, "output": 2})
        assert (row["cost"], row["cost_rub"], row["currency"]) == (Decimal("0.001"), Decimal("0.080000"), "USD")
        await settle(pool, KEY, "unknown")
        assert await find(pool) is None
        row = await one(pool, "SELECT * FROM ledger")
        assert (row["state"], row["answer"], row["cost_rub"]) == ("settled", None, Decimal("0.08"))
        assert row["asked_at"] <= row["answered_at"] <= row["settled_at"]

    with_pool(database, work)


def test_a_request_has_one_open_row(database: str) -> None:
    """Asking again before the answer counts an attempt on the same row, and forgets the former try's id and failure."""

    async def work(pool: Pool) -> None:
        first = await ask(pool)
        async with pool.connection() as connection:
            await ledger.accepted(connection, PORTAL, KEY, "op1")
        again = await ask(pool, rub_rate=Decimal(90))
        assert (again["id"], again["attempts"]) == (first["id"], 2)
        row = await find(pool)
        assert row is not None
        assert (row["vendor_request_id"], row["rub_rate"]) == (None, Decimal(90))
        async with pool.connection() as connection:
            await ledger.failed(connection, PORTAL, KEY, "timeout")
        assert await find(pool) is None, "what came to nothing is not waited for"
        row = await one(pool, "SELECT state, failure FROM ledger")
        assert row == {"state": "failed", "failure": "timeout"}
        third = await ask(pool)
        assert (third["id"], third["attempts"]) == (first["id"], 3)
        assert (await one(pool, "SELECT state, failure FROM ledger")) == {"state": "asked", "failure": None}

    with_pool(database, work)


def test_a_settled_request_may_be_bought_again(database: str) -> None:
    """The same question later (its result was removed) is a purchase of its own; the first one stays on the bill."""

    async def work(pool: Pool) -> None:
        for _ in range(2):
            await ask(pool)
            await answer(pool)
            await settle(pool, KEY)
        rows = await all_rows(pool, "SELECT id, attempts, cost_rub FROM ledger ORDER BY id")
        assert len({row["id"] for row in rows}) == 2
        assert [(row["attempts"], row["cost_rub"]) for row in rows] == [(1, Decimal("0.08"))] * 2

    with_pool(database, work)


@pytest.mark.parametrize("step", ["accepted", "answered", "failed"])
def test_what_is_settled_is_not_touched_again(database: str, step: str) -> None:
    """A late word about a closed request changes nothing of it."""

    async def work(pool: Pool) -> None:
        await ask(pool)
        await answer(pool)
        await settle(pool, KEY)
        before = await one(pool, "SELECT xmin::text, * FROM ledger")
        async with pool.connection() as connection:
            if step == "accepted":
                await ledger.accepted(connection, PORTAL, KEY, "late")
            elif step == "failed":
                await ledger.failed(connection, PORTAL, KEY, "late")
            else:
                await ledger.answered(connection, PORTAL, KEY, cost=Decimal(9), currency="USD", vendor_request_id="l")
        await settle(pool, KEY)
        assert await one(pool, "SELECT xmin::text, * FROM ledger") == before

    with_pool(database, work)


def test_only_an_answer_can_be_settled(database: str) -> None:
    """What is asked or failed stays open, so that it is looked for again."""

    async def work(pool: Pool) -> None:
        await ask(pool, "a")
        await ask(pool, "b")
        async with pool.connection() as connection:
            await ledger.failed(connection, PORTAL, "b", "x")
        await settle(pool, "a", "b")
        rows = await all_rows(pool, "SELECT state FROM ledger ORDER BY request_key")
        assert [row["state"] for row in rows] == ["asked", "failed"]

    with_pool(database, work)


def test_portals_do_not_share_requests(database: str) -> None:
    """The same key of two portals is two purchases, each on its own bill."""

    async def work(pool: Pool) -> None:
        await ask(pool)
        async with pool.connection() as connection:
            await ledger.ask(connection, "avto_ural", KEY, intent())
            await ledger.answered(connection, "avto_ural", KEY, cost=Decimal(1), currency="USD", vendor_request_id="x")
        row = await find(pool)
        assert row is not None
        assert row["state"] == "asked"

    with_pool(database, work)


def test_a_second_open_row_is_impossible(database: str) -> None:
    """The database itself refuses it, whatever the code does."""

    async def work(pool: Pool) -> None:
        await ask(pool)
        with pytest.raises(psycopg.errors.UniqueViolation):
            await all_rows(
                pool,
                "INSERT INTO ledger (portal, request_key, state, vendor, model, step, day) "
                "VALUES (%s, %s, 'failed', 'v', 'm', 's', '2026-03-02') RETURNING id",
                PORTAL,
                KEY,
            )

    with_pool(database, work)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    costs=st.lists(st.tuples(st.decimals(0, 100, places=9), st.decimals("0.01", 200, places=4)), min_size=1, max_size=4)
)
def test_roubles_are_rounded_once_and_add_up(database: str, costs: list[tuple[Decimal, Decimal]]) -> None:
    """Each row is cost times its own rate to six places, and the report is their exact sum."""

    async def work(pool: Pool) -> None:
        async with pool.connection() as connection:
            await connection.execute("TRUNCATE ledger")
        for number, (cost, rate) in enumerate(costs):
            await ask(pool, str(number), rub_rate=rate, day=day(number % 2))
            await answer(pool, str(number), cost)
        rows = await all_rows(pool, "SELECT cost_rub, day FROM ledger ORDER BY id")
        places = Decimal("0.000001")
        assert [row["cost_rub"] for row in rows] == [
            (cost * rate).quantize(places, ROUND_HALF_UP) for cost, rate in costs
        ]
        async with pool.connection() as connection:
            by_day = await ledger.cost_by_day(connection, PORTAL, "classifications", MONDAY, day(1))
            reports = await ledger.costs(connection, [PORTAL], None, None)
            [report] = reports
        assert sum(by_day.values()) == report["cost_rub"] == sum(row["cost_rub"] for row in rows)
        assert report["requests"] == report["attempts"] == len(costs)

    with_pool(database, work)


def test_the_bill_counts_tokens_of_the_days_asked(database: str) -> None:
    """By portal, step and model: requests, attempts, tokens in of every kind, tokens out, seconds and roubles."""
    usage = {"input": 10, "cache_read": 5, "cache_write": 2, "cache_write_long": 1, "output": 4, "reasoning": 3}

    async def work(pool: Pool) -> None:
        for number in range(3):
            await ask(pool, f"k{number}", day=day(number))
            await answer(pool, f"k{number}", usage=usage)
        await ask(pool, "again", day=day(1))
        await ask(pool, "again", day=day(1))
        await ask(pool, "speech", step="transcripts", vendor="voicekit", day=day(1), rub_rate=Decimal(1))
        await answer(pool, "speech", Decimal("0.18"), currency="RUB", audio_seconds=Decimal("60.5"))
        async with pool.connection() as connection:
            llm, speech = await ledger.costs(connection, [PORTAL], day(1), day(2))
            assert await ledger.costs(connection, ["avto_ural"], None, None) == []
        assert (llm["requests"], llm["attempts"], llm["tokens_in"], llm["tokens_out"]) == (3, 4, 36, 8)
        assert llm["cost_rub"] == Decimal("0.16")
        assert (speech["audio_seconds"], speech["cost_rub"], speech["tokens_in"]) == (
            Decimal("60.5"),
            Decimal("0.18"),
            None,
        )

    with_pool(database, work)


def test_a_bill_goes_by_the_day_of_the_purchase(database: str) -> None:
    """A call of Monday that is bought on Wednesday is on Wednesday's bill, by the portal's clock."""

    async def work(pool: Pool) -> None:
        await ask(pool, day=MONDAY)
        await answer(pool)
        async with pool.connection() as connection:
            # 22:30 UTC is the next day in Moscow.
            await connection.execute("UPDATE ledger SET asked_at = '2026-03-03 22:30+00'")
            [monday] = await ledger.costs(connection, [PORTAL], MONDAY, MONDAY)
            assert await ledger.costs(connection, [PORTAL], day(2), day(2)) == []
            assert await ledger.costs(connection, [PORTAL], MONDAY, day(1), by_purchase=True) == []
            assert await ledger.costs(connection, [PORTAL], day(2), day(2), by_purchase=True) == [monday]
            before = (await ledger.bought_since(connection, PORTAL, None))["now"]
            assert (await ledger.bought_since(connection, PORTAL, before))["requests"] == 0
            since = await ledger.bought_since(connection, PORTAL, before - timedelta(days=3650))
        assert (since["recognitions"], since["requests"], since["cost_rub"]) == (0, 1, monday["cost_rub"])

    with_pool(database, work)
