"""What is asked of language models, in the ledger of a real database: estimates, ceilings, answers that nobody can use."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from psycopg.types.json import Jsonb

from dialog_assets.assets.purchases import PortalLedger
from dialog_assets.llm.errors import LLMAnswerInvalid, LLMCeilingReached, LLMError, LLMUnavailable
from dialog_assets.llm.requests import Subject, request_key
from dialog_assets.llm.router import Completion
from dialog_assets.portals import Portal
from dialog_assets.store import ledger
from dialog_assets_tests.llm.support import Number, Wire, chat_body, ok, question, routed
from dialog_assets_tests.store.rows import MONDAY, PORTAL, Pool, all_rows, with_pool

STEP = "classifications"


@pytest.fixture
def portal(portals: list[Portal]) -> Portal:
    """One of them."""
    return next(one for one in portals if one.portal == PORTAL)


CALL = Subject(PORTAL, STEP, call_id=7)
ENTITY = Subject(PORTAL, STEP, entity_type="contact", entity_id=7)


async def ask(pool: Pool, portal: Portal, wire: Wire, subject: Subject = CALL, **changes: Any) -> Completion[Number]:
    async with routed(wire) as asked:
        return await asked.complete(question(**changes), subject, PortalLedger(pool, portal, MONDAY))


async def rows(pool: Pool) -> list[dict[str, Any]]:
    return await all_rows(pool, "SELECT * FROM ledger ORDER BY id")


def lost() -> Wire:
    return Wire([httpx2.ReadTimeout("slow")])


@pytest.mark.parametrize("subject", [CALL, ENTITY])
def test_answers_that_never_come_are_booked_and_have_a_ceiling(database: str, portal: Portal, subject: Subject) -> None:
    """Each try is on the bill at its estimate; night after night it ends at the ceiling, and begins again where a person asks."""

    async def run(pool: Pool) -> None:
        for _ in range(4):
            with pytest.raises(LLMUnavailable):
                await ask(pool, portal, lost(), subject)
        found = await rows(pool)
        assert len(found) == portal.llm.ceiling.tries
        for row in found:
            assert (row["state"], row["estimated"], row["failure"]) == ("settled", True, row["failure"])
            assert row["cost_rub"] == round(row["cost"] * portal.llm.rub_per_usd, 6) > 0
        wire = lost()
        for _ in range(3):
            with pytest.raises(LLMCeilingReached, match="--retry-failed"):
                await ask(pool, portal, wire, subject)
        assert wire.sent == []
        assert (await ask(pool, portal, Wire([ok(chat_body())]), replace(subject, call_id=8))).value.number == 1
        async with pool.connection() as connection:
            costs = await ledger.costs(connection, [PORTAL], None, None)
            assert costs[0]["estimated_rub"] == sum(row["cost_rub"] for row in found)
            await ledger.pardon(connection, PORTAL, [STEP], MONDAY, MONDAY)
        assert (await ask(pool, portal, Wire([ok(chat_body())]), subject)).value.number == 1

    with_pool(database, run)


def test_the_ceiling_of_money(database: str, portal: Portal) -> None:
    """Dear answers end it before many have been bought; a result in between begins it anew."""
    llm = portal.llm.model_copy(update={"ceiling": portal.llm.ceiling.model_copy(update={"rub": Decimal("0.03")})})
    frugal = portal.model_copy(update={"llm": llm})

    async def run(pool: Pool) -> None:
        wire = Wire([ok(chat_body('{"number": 12}'))])
        with pytest.raises(LLMAnswerInvalid) as caught:
            await ask(pool, frugal, wire)
        async with pool.connection() as connection:
            await ledger.settle(connection, PORTAL, caught.value.keys, failure="llm_answer_invalid")
        with pytest.raises(LLMCeilingReached):
            await ask(pool, frugal, wire)
        assert len(wire.sent) == 3
        assert {row["answer"] for row in await rows(pool)} == {None}
        async with pool.connection() as connection:
            await connection.execute("UPDATE ledger SET failure = NULL WHERE id = (SELECT max(id) FROM ledger)")
        assert (await ask(pool, frugal, Wire([ok(chat_body())]))).value.number == 1

    with_pool(database, run)


POISON = [
    {"answer": "not json"},
    {"answer": json.dumps({"text": None, "finish": "stop"})},
    {"answer": json.dumps(["stop"])},
    {"answer": json.dumps({"text": "{}", "finish": None})},
    {"answer": "[" * 100_000},
    {"answer": None},
    {"usage": Jsonb(None)},
    {"usage": None},
    {"usage": Jsonb({"input": "many"})},
    {"usage": Jsonb({"input": None})},
    {"usage": Jsonb({"input": 1, "gold": 2})},
    {"usage": Jsonb([1])},
    {"cost": None},
]


@pytest.mark.parametrize("poison", POISON)
def test_a_kept_answer_that_cannot_be_read_is_set_aside(database: str, portal: Portal, poison: dict[str, Any]) -> None:
    """Its price stays, its words go, and it is asked for anew: it crashes nobody's night."""

    async def run(pool: Pool) -> None:
        await ask(pool, portal, Wire([ok(chat_body())]))
        ((name, value),) = poison.items()
        async with pool.connection() as connection:
            await connection.execute(f"UPDATE ledger SET {name} = %s", [value])
        wire = Wire([ok(chat_body('{"number": 2}'))])
        assert (await ask(pool, portal, wire)).value.number == 2
        first, second = await rows(pool)
        assert (first["state"], first["answer"], first["failure"]) == ("settled", None, "unreadable_answer")
        assert second["state"] == "answered"
        assert len(wire.sent) == 1

    with_pool(database, run)


@pytest.mark.parametrize("missing", ["model_returned", "vendor_request_id", "latency_ms"])
def test_what_is_not_needed_of_a_kept_answer_may_be_missing(database: str, portal: Portal, missing: str) -> None:
    """It is used all the same."""

    async def run(pool: Pool) -> None:
        await ask(pool, portal, Wire([ok(chat_body())]))
        async with pool.connection() as connection:
            await connection.execute(f"UPDATE ledger SET {missing} = NULL")
        wire = lost()
        assert (await ask(pool, portal, wire)).value.number == 1
        assert wire.sent == []

    with_pool(database, run)


def test_a_killed_run_leaves_its_questions_on_the_bill(database: str, portal: Portal) -> None:
    """What was in flight is counted from the moment it is asked, and closed when the next run takes stock."""

    async def run(pool: Pool) -> None:
        book = PortalLedger(pool, portal, MONDAY)
        async with routed(Wire([ok(chat_body())])) as asked:
            await book.ask(request_key(question(), CALL), asked._asked(question(), CALL))
        (row,) = await rows(pool)
        assert (row["state"], row["estimated"]) == ("asked", True)
        assert row["cost_rub"] > 0
        await ask(pool, portal, Wire([ok(chat_body())]))
        first, second = await rows(pool)
        assert (first["state"], first["failure"], first["cost"]) == ("settled", "no_answer", row["cost"])
        assert (second["state"], second["estimated"]) == ("answered", False)
        await book.ask("another", asked._asked(question(), CALL))
        async with pool.connection() as connection:
            assert await ledger.close_left_behind(connection, PORTAL, STEP, timedelta(days=14)) == 1
            assert await ledger.close_left_behind(connection, PORTAL, "fixed_dialogs", timedelta(0)) == 0
        assert [row["state"] for row in await rows(pool)] == ["settled", "answered", "settled"]
        async with pool.connection() as connection:
            await ledger.close_left_behind(connection, PORTAL, STEP, timedelta(0))
        assert {row["answer"] for row in await rows(pool)} == {None}

    with_pool(database, run)


def test_refusals_count_as_no_attempt_and_cost_nothing(database: str, portal: Portal) -> None:
    """Attempts are what a vendor took: four refusals before an answer leave one."""

    async def run(pool: Pool) -> None:
        refusals = [lambda _: httpx2.Response(429, json={})] * 3
        await ask(pool, portal, Wire([*refusals, ok(chat_body())]))
        (row,) = await rows(pool)
        assert (row["attempts"], row["state"], row["failure"]) == (1, "answered", None)
        with pytest.raises(LLMError):
            await ask(pool, portal, Wire([lambda _: httpx2.Response(503)]), replace(CALL, call_id=8))
        row = (await rows(pool))[-1]
        assert (row["attempts"], row["state"], row["cost"], row["estimated"]) == (0, "failed", None, False)
        async with pool.connection() as connection:
            (costs,) = await ledger.costs(connection, [PORTAL], None, None)
        assert (costs["requests"], costs["attempts"]) == (1, 1)

    with_pool(database, run)


def test_an_answer_to_a_question_that_changed_is_closed_with_its_price(database: str, portal: Portal) -> None:
    """Another model or limit takes it up; another wording does not, and once the new result stands nothing of it is kept."""

    async def run(pool: Pool) -> None:
        await ask(pool, portal, Wire([ok(chat_body())]))
        wire = lost()
        again = await ask(pool, portal, wire, vendor="deepseek", model="deepseek-flash", max_output_tokens=900)
        assert (again.value.number, wire.sent) == (1, [])
        other = await ask(pool, portal, Wire([ok(chat_body())]), system="Другая компания. Ответь в json.")
        await ask(pool, portal, Wire([ok(chat_body())]), replace(CALL, call_id=8))
        async with pool.connection() as connection:
            await ledger.close_unused(connection, PORTAL, other.keys)
            await ledger.settle(connection, PORTAL, other.keys)
        first, second, third = await rows(pool)
        assert (first["state"], first["failure"], first["answer"]) == ("settled", "not_used", None)
        assert first["cost"] > 0
        assert (second["state"], second["failure"]) == ("settled", None)
        assert third["state"] == "answered"

    with_pool(database, run)
