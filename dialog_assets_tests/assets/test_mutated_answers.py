"""Answers of models, spoiled at random inside their JSON and around it: every dialog ends with a result or a reason."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import date
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from dialog_assets.assets import classifications, criteria_scores, entity_summaries, fixed_dialogs
from dialog_assets.assets.steps import StepRun
from dialog_assets.dialogs import turns_key
from dialog_assets.store import schema, transcripts
from dialog_assets_tests.analysis.support import dialog
from dialog_assets_tests.analysis.support import portal as small_portal
from dialog_assets_tests.assets.test_results_in_force import SETTINGS, answer
from dialog_assets_tests.llm.support import Wire, chat_body, routed
from dialog_assets_tests.store.rows import MONDAY, PORTAL, Pool, all_rows, call, put_calls, put_step, with_pool

STEPS = {
    "fixed_dialogs": fixed_dialogs.correct,
    "classifications": classifications.classify,
    "criteria_scores": criteria_scores.score,
    "entity_summaries": entity_summaries.summarise,
}
CALLS = 4
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        7.5,
        8.0,
        10**30,
        float("nan"),
        float("inf"),
        "",
        " ",
        "\u200b",
        "null",
        "N/A",
        "8/10",
    ),
    *("80%", "8,5", "1_0", "true", "да", "\x00", "\ud800", "а\r\nб", "L001", "[L1]", "`l002`", "L999", "grееting", "ё"),
    *("operator", "клиент", [], {}, [None], [[]], {"a": {}}, ["L001"], [{"line": "L001", "text": "меня зовут анна"}]),
    *("слово " * 2000, "{", '"', "}", "```", "<think>", "\u202eтекст"),
)


def spoil(value: Any, chance: random.Random) -> Any:
    """The value with one of its parts another one, gone, twice, or under another key."""
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        way = chance.random()
        if way < 0.15:
            return value[:place] + value[place + 1 :]
        if way < 0.3:
            return [*value, spoil(value[place], chance)]
        return [*value[:place], spoil(value[place], chance), *value[place + 1 :]]
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        way = chance.random()
        if way < 0.1:
            return {name: part for name, part in value.items() if name != key}
        if way < 0.2:
            return {(name.upper() if name == key else name): part for name, part in value.items()}
        return {**value, key: spoil(value[key], chance)}
    return chance.choice(VALUES)


def written(value: Any, chance: random.Random) -> str:
    """The answer as a model may write it."""
    text = json.dumps(value, ensure_ascii=chance.random() < 0.5)
    way = chance.randrange(9)
    if way == 0:
        return f"```json\r\n{text}\r\n```"
    if way == 1:
        return f'<think>{{"scores": []}}</think>\n{text}'
    if way == 2:
        return f"Черновик: {text}\nИтог: {json.dumps(spoil(value, chance))}"
    if way == 3:
        return text[: chance.randrange(len(text) + 1)]
    if way == 4:
        place = chance.randrange(len(text) + 1)
        return text[:place] + chance.choice('{}[]",:\\\n\t0я') + text[place:]
    return text


def play(database: str, seed: int) -> None:
    """One day with four calls of two cards and a model that is often beside itself."""
    chance = random.Random(seed)
    portal = small_portal(**SETTINGS)
    schema.setup_portals(database, [portal])

    def reply(request: httpx2.Request) -> httpx2.Response:
        (text,) = [m["content"] for m in json.loads(request.content)["messages"] if m["role"] == "user"]
        good = answer(text, categories=("complaint", "new_order"), score=chance.randrange(11))
        if '"edits"' in text:
            good = {
                "edits": [{"line": "L001", "text": "Добрый день."}],
                "speakers": [{"line": "L002", "speaker": "client"}],
            }
        for _ in range(chance.randrange(4)):
            good = spoil(good, chance)
        try:
            body = chat_body(written(good, chance))
            return httpx2.Response(200, json=body)
        except (ValueError, UnicodeError):
            return httpx2.Response(200, content=json.dumps(chat_body(written({}, chance))).encode())

    async def nothing(_: date) -> None: ...

    async def work(pool: Pool) -> None:
        await put_calls(pool, *(call(number, entity_id=number % 2 + 1) for number in range(1, CALLS + 1)))
        for number in range(1, CALLS + 1):
            turns = dialog("speaker" if number == 1 else None)
            async with pool.connection() as connection:
                await transcripts.put(
                    connection,
                    PORTAL,
                    number,
                    recogniser="voicekit",
                    operation_id="o",
                    sha256="s",
                    raw={},
                    turns=turns,
                    talk_metrics={},
                    cost_rub=Decimal(0),
                )
            await put_step(pool, number, "transcripts", "done", input_key="s", output_key=turns_key(turns))
        for name, core in STEPS.items():
            async with routed(Wire([reply])) as router:
                await core(StepRun(portal, name, (MONDAY,), pool, nothing), router)
        await asyncio.sleep(0)
        rows = await all_rows(pool, "SELECT call_id, step, state, reason, detail FROM call_steps")
        assert len(rows) == CALLS * (2 + len(STEPS)), rows
        assert not [row for row in rows if row["reason"] in ("internal_error", "unstorable_result", "input_changed")], (
            rows
        )
        assert {row["state"] for row in await all_rows(pool, "SELECT state FROM ledger")} <= {"settled"}
        for row in await all_rows(pool, "SELECT * FROM scores"):
            assert row["score"] is None or row["scale_min"] <= row["score"] <= row["scale_max"]
            assert row["text"]
        for row in await all_rows(pool, "SELECT * FROM classifications"):
            assert 0 <= row["confidence"] <= 100
            assert row["category"] in ("complaint", "new_order")
        await all_rows(pool, f"SELECT * FROM {PORTAL}_dialogs")

    with_pool(database, work)


@pytest.mark.parametrize("seed", range(3))
def test_a_few_spoiled_days(database: str, seed: int) -> None:
    """Three days of it."""
    play(database, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 300))
def test_many_spoiled_days(database: str, seed: int) -> None:
    """Two hundred days of it."""
    play(database, seed)
