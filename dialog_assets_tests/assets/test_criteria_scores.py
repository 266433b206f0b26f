"""Scores of a dialog: bought once for each text of it, group by group, and never left over from an earlier text."""

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

from dialog_assets.assets.criteria_scores import score
from dialog_assets.assets.steps import StepRun
from dialog_assets.dialogs import Turn
from dialog_assets.portals import Portal
from dialog_assets.store import call_steps, classifications, fixed_dialogs, schema
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

GROUPS = (("greeting", "needs"), ("refund",))
"""The criteria of the one dialog here, as they are asked."""

Reply = Callable[[tuple[str, ...]], httpx2.Response | None]


def good(asked: tuple[str, ...], value: int = 5) -> httpx2.Response:
    """A score for each criterion that was asked."""
    scores = [
        {"criterion": name, "quotes": [], "text": "Потому что.", "applicable": True, "score": value} for name in asked
    ]
    return httpx2.Response(200, json=chat_body(json.dumps({"scores": scores})))


def refused(status: int) -> httpx2.Response:
    """An error of the service."""
    return httpx2.Response(status, json={"error": {"message": "no"}})


@dataclass
class Desk:
    """Runs of the step over Monday, one after another; `asked` has the criteria of each request that was sent."""

    pool: Pool
    portal: Portal
    asked: list[tuple[str, ...]] = field(default_factory=list)

    async def dialog(self, key: str, turns: list[Turn]) -> None:
        """The call has this text, classified as always."""
        criteria = {"complaint": [c.label for c in self.portal.criteria]}
        async with self.pool.connection() as connection:
            await fixed_dialogs.put(
                connection, PORTAL, 1, turns=turns, edits=[], prompt_version="1", model="m", cost_rub=Decimal(0)
            )
            common: Row = {
                "category_version": "1",
                "confidence": 90,
                "reason": "r",
                "prompt_version": "1",
                "model": "m",
            }
            await classifications.replace(
                connection,
                PORTAL,
                1,
                [{**common, "category": "complaint", "criteria": criteria["complaint"], "cost_rub": Decimal(0)}],
            )
        output = f"{key}/{classifications.output_key(criteria)}"
        await put_step(self.pool, 1, "classifications", "done", input_key=key, output_key=output)

    async def run(self, reply: Reply = good) -> list[tuple[str, ...]]:
        """One run of the step; returns the criteria of each request that was sent."""
        before = len(self.asked)

        def answer(request: httpx2.Request) -> httpx2.Response:
            (text,) = [m["content"] for m in json.loads(request.content)["messages"] if m["role"] == "user"]
            asked = tuple(re.findall(r"^\[\[(\w+)\]\]", text, re.MULTILINE))
            self.asked.append(asked)
            return reply(asked) or good(asked)

        async def nothing(_: date) -> None: ...

        async with routed(Wire([answer])) as router:
            await score(StepRun(self.portal, "criteria_scores", (MONDAY,), self.pool, nothing), router)
        return self.asked[before:]

    async def step(self) -> tuple[str, str | None]:
        """State and reason of the call."""
        row = await step(self.pool, 1, "criteria_scores")
        return row["state"], row["reason"]

    async def scores(self) -> dict[str, tuple[str, int]]:
        """Criterion → the dialog that it was given to, and the score."""
        rows = await all_rows(self.pool, "SELECT criterion, dialog_key, score FROM criteria_scores ORDER BY 1")
        return {row["criterion"]: (row["dialog_key"], row["score"]) for row in rows}

    async def ledger(self) -> list[tuple[str, int]]:
        """State and attempts of each purchase."""
        rows = await all_rows(self.pool, "SELECT state, attempts FROM ledger ORDER BY id")
        return [(row["state"], row["attempts"]) for row in rows]


@pytest.fixture
def desk(database: str) -> Callable[[Callable[[Desk], Awaitable[None]]], None]:
    """Plays a story on a desk with one classified dialog."""

    def play(story: Callable[[Desk], Awaitable[None]]) -> None:
        portal = small_portal(
            categories=[
                {"name": "complaint", "title": "Т", "description": "Т", "criteria": ["greeting", "needs", "refund"]}
            ]
        )
        schema.setup_portals(database, [portal])

        async def work(pool: Pool) -> None:
            await put_calls(pool, call(1))
            desk = Desk(pool, portal)
            await desk.dialog("old", dialog())
            await story(desk)

        with_pool(database, work)

    return play


def changed() -> list[Turn]:
    """The dialog without its last turn."""
    return dialog()[:-1]


def scored(key: str, value: int = 5, *names: str) -> dict[str, tuple[str, int]]:
    """All scores, or those named, of that dialog."""
    return dict.fromkeys(names or (name for group in GROUPS for name in group), (key, value))


def test_scores_are_bought_once(desk: Any) -> None:
    """One request a group, its scores beside the settled purchase; a second run asks nothing."""

    async def story(desk: Desk) -> None:
        assert await desk.run() == list(GROUPS)
        assert await desk.step() == ("done", None)
        assert await desk.scores() == scored("old")
        assert await desk.ledger() == [("settled", 1), ("settled", 1)]
        assert await desk.run() == []

    desk(story)


def test_scores_of_an_earlier_text_never_stand_for_the_new_one(desk: Any) -> None:
    """The dialog changes and its scoring fails once for want of a vendor: the next run scores all of it anew."""

    async def story(desk: Desk) -> None:
        await desk.run()
        await desk.dialog("new", changed())
        await desk.run(lambda _: refused(503))
        assert await desk.step() == ("failed", "llm_unavailable")
        assert await desk.run(lambda asked: good(asked, 4)) == list(GROUPS)
        assert await desk.step() == ("done", None)
        assert await desk.scores() == scored("new", 4)
        assert {state for state, _ in await desk.ledger()} == {"settled"}
        await desk.dialog("old", dialog())
        assert await desk.run() == list(GROUPS), "the first text's scores are gone"

    desk(story)


def test_a_new_text_of_which_only_a_part_could_be_scored(desk: Any) -> None:
    """Its scores are stored and the earlier text's are gone, so that the two never stand side by side."""

    async def story(desk: Desk) -> None:
        await desk.run()
        await desk.dialog("new", changed())
        await desk.run(lambda asked: refused(400) if asked == GROUPS[1] else good(asked, 4))
        assert await desk.step() == ("failed", "llm_request_rejected")
        assert await desk.scores() == scored("new", 4, *GROUPS[0])

    desk(story)


@pytest.mark.parametrize("bad", GROUPS)
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (lambda asked: refused(400), "llm_request_rejected"),
        (lambda asked: httpx2.Response(200, json=chat_body("{}")), "llm_answer_invalid"),
        (lambda asked: httpx2.Response(200, json=chat_body(None, refusal="Нет.")), "llm_content_refused"),
    ],
    ids=["rejected", "invalid", "declined"],
)
def test_one_group_fails_the_call_and_keeps_the_others(
    desk: Any, bad: tuple[str, ...], reply: Reply, reason: str
) -> None:
    """The call fails, the other group's scores are stored, what was paid is settled; tried again, only that group is asked."""

    async def story(desk: Desk) -> None:
        (kept,) = [group for group in GROUPS if group != bad]
        await desk.run(lambda asked: reply(asked) if asked == bad else None)
        assert await desk.step() == ("failed", reason)
        assert await desk.scores() == scored("old", 5, *kept)
        states = [state for state, _ in await desk.ledger()]
        assert set(states) - {"failed"} == {"settled"}
        assert ("failed" in states) == (reason == "llm_request_rejected")

        assert await desk.run() == [], "its input is the same: it failed for good"
        async with desk.pool.connection() as connection:
            assert await call_steps.retry_failed(connection, PORTAL, ["criteria_scores"], MONDAY, MONDAY) == 1
        assert await desk.run() == [bad]
        assert await desk.step() == ("done", None)
        assert await desk.scores() == scored("old")
        assert {state for state, _ in await desk.ledger()} == {"settled"}

    desk(story)


def some_wrong(asked: tuple[str, ...], wrong: Row) -> httpx2.Response:
    """Good scores, but what is `wrong` about needs."""
    scores = json.loads(json.loads(good(asked).content)["choices"][0]["message"]["content"])["scores"]
    scores = [{**score, **wrong} if score["criterion"] == "needs" else score for score in scores]
    return httpx2.Response(200, json=chat_body(json.dumps({"scores": scores})))


WRONG: dict[str, Row] = {
    "a line that is missing": {"quotes": [{"line": "L099", "text": "слова"}]},
    "a truth value": {"score": True},
    "out of scale": {"score": 99},
    "underscore": {"score": "1_0"},
    "no text": {"text": " "},
    "an unknown name": {"criterion": "nееds_2"},
    "no object": {"applicable": [1]},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_only_what_is_wrong_is_asked_again(desk: Any, wrong: Row) -> None:
    """One criterion of a group is answered badly: the others stand, and the second request asks for that one alone."""

    async def story(desk: Desk) -> None:
        asked = await desk.run(lambda asked: some_wrong(asked, wrong) if len(asked) == 2 else None)
        assert asked == [GROUPS[0], ("needs",), GROUPS[1]]
        assert await desk.step() == ("done", None)
        assert await desk.scores() == scored("old")
        assert {state for state, _ in await desk.ledger()} == {"settled"}

    desk(story)


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_right_survives_what_stays_wrong(desk: Any, wrong: Row) -> None:
    """Three answers and no more; the good scores are stored, and another try asks only for the one that is missing."""

    async def story(desk: Desk) -> None:
        asked = await desk.run(lambda asked: some_wrong(asked, wrong))
        assert asked == [GROUPS[0], ("needs",), ("needs",), GROUPS[1]]
        assert await desk.step() == ("failed", "llm_answer_invalid")
        assert await desk.scores() == scored("old", 5, "greeting", "refund")
        assert {state for state, _ in await desk.ledger()} == {"settled"}
        async with desk.pool.connection() as connection:
            await call_steps.retry_failed(connection, PORTAL, ["criteria_scores"], MONDAY, MONDAY)
        assert await desk.run() == [("needs",)]
        assert await desk.scores() == scored("old")

    desk(story)


def test_a_vendor_that_fails_before_the_rest_is_asked_costs_nothing_twice(desk: Any) -> None:
    """The answer of which a part is right waits in the ledger; the next run goes on from it."""

    async def story(desk: Desk) -> None:
        wrong = WRONG["out of scale"]
        await desk.run(lambda asked: refused(503) if asked == ("needs",) else some_wrong(asked, wrong))
        assert await desk.step() == ("failed", "llm_unavailable")
        assert await desk.run() == [("needs",), GROUPS[1]]
        assert await desk.scores() == scored("old")
        assert {state for state, _ in await desk.ledger()} == {"settled"}

    desk(story)


def test_a_vendor_that_fails_between_groups_costs_nothing_twice(desk: Any) -> None:
    """The first group's answer waits in the ledger; the next run takes it from there and asks for the second alone."""

    async def story(desk: Desk) -> None:
        await desk.run(lambda asked: refused(503) if asked == GROUPS[1] else None)
        assert await desk.step() == ("failed", "llm_unavailable")
        assert [state for state, _ in await desk.ledger()] == ["answered", "failed"]
        assert await desk.run() == [GROUPS[1]]
        assert await desk.scores() == scored("old")
        assert {state for state, _ in await desk.ledger()} == {"settled"}

    desk(story)
