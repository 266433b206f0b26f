"""Categories of a dialog: what is right of an answer is kept, and only the rest is asked again."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from dialog_assets.assets.classifications import classify
from dialog_assets.assets.steps import StepRun
from dialog_assets.portals import Portal
from dialog_assets.store import fixed_dialogs, schema
from dialog_assets_tests.analysis.support import dialog
from dialog_assets_tests.analysis.support import portal as small_portal
from dialog_assets_tests.llm.support import Wire, chat_body, routed
from dialog_assets_tests.store.rows import (
    MONDAY,
    PORTAL,
    Pool,
    Row,
    all_rows,
    call,
    put_calls,
    put_step,
    step,
    with_pool,
)

GOOD: Row = {"name": "complaint", "confidence": 80, "reason": "Недоволен."}


@dataclass
class Desk:
    """Runs of the step over one corrected dialog; `answers` are given in turn, the last one for ever."""

    pool: Pool
    portal: Portal
    answers: list[list[Any]] = field(default_factory=list)

    async def run(self, *answers: list[Any]) -> list[tuple[str, ...]]:
        """One run; returns the categories that each request asked about."""
        asked: list[tuple[str, ...]] = []
        left = list(answers)

        def reply(request: httpx2.Request) -> httpx2.Response:
            (text,) = [m["content"] for m in json.loads(request.content)["messages"] if m["role"] == "user"]
            asked.append(tuple(re.findall(r"^\[\[(\w+)\]\]", text, re.MULTILINE)))
            answer = left.pop(0) if len(left) > 1 else left[0]
            return httpx2.Response(200, json=chat_body(json.dumps({"categories": answer})))

        async def nothing(_: date) -> None: ...

        async with routed(Wire([reply])) as router:
            await classify(StepRun(self.portal, "classifications", (MONDAY,), self.pool, nothing), router)
        return asked

    async def state(self) -> tuple[str, str | None]:
        """State and reason of the call."""
        row = await step(self.pool, 1, "classifications")
        return row["state"], row["reason"]

    async def categories(self) -> list[tuple[str, int]]:
        """What is stored."""
        rows = await all_rows(self.pool, "SELECT category, confidence FROM classifications ORDER BY 1")
        return [(row["category"], row["confidence"]) for row in rows]


@pytest.fixture
def desk(database: str) -> Callable[[Callable[[Desk], Awaitable[None]]], None]:
    """Plays a story on a desk."""

    def play(story: Callable[[Desk], Awaitable[None]]) -> None:
        portal = small_portal()
        schema.setup_portals(database, [portal])

        async def work(pool: Pool) -> None:
            await put_calls(pool, call(1))
            async with pool.connection() as connection:
                await fixed_dialogs.put(
                    connection, PORTAL, 1, turns=dialog(), edits=[], prompt_version="1", model="m", cost_rub=Decimal(0)
                )
            await put_step(pool, 1, "fixed_dialogs", "done", input_key="t", output_key="d")
            await story(Desk(pool, portal))
            states = await all_rows(pool, "SELECT DISTINCT state FROM ledger")
            assert [row["state"] for row in states] == ["settled"]

        with_pool(database, work)

    return play


@pytest.mark.parametrize("value", [True, 0.8, "80/100", None, [80], 180, "1_0"])
def test_a_doubtful_category_is_asked_again_alone(desk: Any, value: object) -> None:
    """The sure category stands; the one whose confidence cannot be read is asked about alone."""
    doubtful = {**GOOD, "name": "new_order", "confidence": value}

    async def story(desk: Desk) -> None:
        asked = await desk.run([GOOD, doubtful], [{**doubtful, "confidence": "60 %"}])
        assert asked == [("new_order", "complaint"), ("new_order",)]
        assert await desk.state() == ("done", None)
        assert await desk.categories() == [("complaint", 80), ("new_order", 60)]

    desk(story)


def test_a_category_that_stays_doubtful_fails_the_call(desk: Any) -> None:
    """After three answers the call is failed with a reason."""

    async def story(desk: Desk) -> None:
        asked = await desk.run([GOOD, {**GOOD, "name": "new_order", "confidence": True}])
        assert len(asked) == 3
        assert await desk.state() == ("failed", "llm_answer_invalid")
        assert await desk.categories() == []

    desk(story)


def test_a_name_that_is_no_category(desk: Any) -> None:
    """It is asked again what else there is; a name that still means nothing is left out."""
    spam = {**GOOD, "name": "spam"}

    async def story(desk: Desk) -> None:
        assert await desk.run([GOOD, spam], []) == [("new_order", "complaint"), ("new_order",)]
        assert await desk.state() == ("done", None)
        assert await desk.categories() == [("complaint", 80)]

    desk(story)


def test_nothing_but_names_that_are_no_categories(desk: Any) -> None:
    """It is not the same as no category: the call is failed."""

    async def story(desk: Desk) -> None:
        assert len(await desk.run([{**GOOD, "name": "spam"}])) == 3
        assert await desk.state() == ("failed", "llm_answer_invalid")

    desk(story)
