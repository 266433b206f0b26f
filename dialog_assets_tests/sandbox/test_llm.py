"""The stand-in LLM vendors over a real socket: the real SDKs work with them, the books are right, faults strike."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion

from dialog_assets.sandbox.llm_prices import MODELS, Tokens, cost_usd
from dialog_assets_tests.sandbox.llm_support import (
    ANTHROPIC_KEY,
    CATEGORIES,
    DEEPSEEK_KEY,
    EDITS,
    HEARD,
    OPENAI_KEY,
    SCORES,
    TRUE,
    WINDOWS,
    Running,
    parsed,
    running,
)

DEEPSEEK_PROMPT = f'Исправь ошибки распознавания, ответ - json: {{"edits": [], "speakers": []}}\n{HEARD}'


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """One server for this file; each test starts with empty books and no faults."""
    with running() as server:
        yield server


@pytest.fixture
def server(shared: Running) -> Running:
    shared.books.reset()
    shared.faults.set([])
    return shared


def _deepseek(server: Running, **extra: Any) -> ChatCompletion:
    async def ask() -> ChatCompletion:
        async with openai.AsyncOpenAI(api_key=DEEPSEEK_KEY, base_url=f"{server.url}/deepseek", max_retries=0) as client:
            return await client.chat.completions.create(
                model="deepseek-flash",
                messages=[{"role": "user", "content": DEEPSEEK_PROMPT}],
                response_format={"type": "json_object"},
                extra_body={"thinking": {"type": "disabled"}} | extra,
            )

    return asyncio.run(ask())


def test_openai_sdk_gets_classification_and_the_bill(server: Running) -> None:
    """The OpenAI SDK gets the script's categories, ids, full usage, and the books hold the same bill."""

    async def ask() -> tuple[ChatCompletion, int]:
        async with openai.AsyncOpenAI(api_key=OPENAI_KEY, base_url=f"{server.url}/openai/v1", max_retries=0) as client:
            completion = await client.chat.completions.create(
                model="gpt-6-luna",
                messages=[
                    {"role": "user", "content": f"{TRUE}\n[[sale]] Продажа: …\n[[measuring]] Замер: …\n[[other]] Иное"}
                ],
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "categories", "strict": True, "schema": CATEGORIES},
                },
                reasoning_effort="none",
                max_completion_tokens=500,
                temperature=0,
                extra_body={"prompt_cache_options": {"mode": "explicit"}},
            )
            return completion, len((await client.models.list()).data)

    completion, models = asyncio.run(ask())
    found = parsed(completion.choices[0].message.content)["categories"]
    assert [(item["name"], item["confidence"]) for item in found] == [("sale", 95), ("measuring", 80)]
    assert list(found[0]) == ["reason", "name", "confidence"]
    assert completion._request_id is not None
    assert completion.id.startswith("chatcmpl-")
    assert completion.usage is not None
    assert completion.usage.completion_tokens_details is not None
    assert completion.usage.completion_tokens_details.reasoning_tokens == 0
    assert completion.usage.completion_tokens == math.ceil(len(completion.choices[0].message.content or "") / 3.2)
    bill = (
        completion.usage.prompt_tokens * Decimal("0.10") + completion.usage.completion_tokens * Decimal("0.50")
    ) / 10**6
    assert Decimal(server.book("openai")["cost"]["USD"]) == bill
    assert models >= 5


def test_anthropic_sdk_gets_scores_and_pays_for_thinking(server: Running) -> None:
    """The Anthropic SDK gets scores and quotes; who leaves thinking on pays for it, who switches it off does not."""
    import anthropic

    asked = "[[greeting]] Приветствие\n[[objections]] Возражения\n[[new]] Новый"

    async def ask() -> list[Any]:
        async with anthropic.AsyncAnthropic(
            api_key=ANTHROPIC_KEY, base_url=f"{server.url}/anthropic", max_retries=0
        ) as client:
            common: dict[str, Any] = {
                "model": "claude-haiku-5-5",
                "max_tokens": 4000,
                "system": "Оцени разговор.",
                "messages": [{"role": "user", "content": f"{TRUE}\n{asked}"}],
                "output_config": {"format": {"type": "json_schema", "schema": SCORES}},
            }
            counted = await client.messages.count_tokens(
                model="claude-haiku-5-5", messages=common["messages"], system=common["system"]
            )
            listed = await client.models.list()
            return [
                await client.messages.create(**common, thinking={"type": "disabled"}),
                await client.messages.create(**common),
                counted.input_tokens,
                [model.id for model in listed.data],
            ]

    quiet, thinking, counted, models = asyncio.run(ask())
    assert quiet._request_id.startswith("req_")
    assert [block.type for block in quiet.content] == ["text"]
    assert [block.type for block in thinking.content] == ["thinking", "text"]
    assert quiet.stop_reason == "end_turn"
    greeting, objections, new = parsed(quiet.content[0].text)["scores"]
    assert greeting["score"] == 10
    assert greeting["quotes"] == [{"line": "L001", "text": "Добрый день! Компания «Окна Север»,"}]
    assert (objections["applicable"], objections["score"], objections["quotes"]) == (False, None, [])
    assert new["applicable"] is False
    assert "есочница" in new["text"]
    assert thinking.usage.output_tokens == quiet.usage.output_tokens + 2500
    assert thinking.usage.output_tokens_details.thinking_tokens == 2500
    assert 0 < counted < quiet.usage.input_tokens
    assert "claude-haiku-5-5" in models
    assert server.book("anthropic")["counts"]["answered"] == 2


def test_deepseek_corrects_the_text(server: Running) -> None:
    """DeepSeek through the OpenAI SDK gives the true text of each line and its own usage fields."""
    completion = _deepseek(server)
    answer = parsed(completion.choices[0].message.content)
    assert {edit["line"]: edit["text"] for edit in answer["edits"]} == {
        f"L{number:03d}": turn.text for number, turn in enumerate(WINDOWS.turns, 1)
    }
    assert answer["speakers"] == []
    assert completion.usage is not None
    extra = completion.usage.model_extra or {}
    assert extra["prompt_cache_miss_tokens"] + extra["prompt_cache_hit_tokens"] == completion.usage.prompt_tokens
    assert completion.usage.prompt_tokens == math.ceil(len(DEEPSEEK_PROMPT) / 2.8)


def test_deepseek_thinks_unless_told_not_to(server: Running) -> None:
    """Without thinking disabled, effort high is billed as output and reasoning comes with the message."""
    completion = _deepseek(server, thinking={"type": "enabled"})
    assert completion.usage is not None
    assert completion.usage.completion_tokens > 6000
    assert (completion.choices[0].message.model_extra or {})["reasoning_content"]


def test_same_request_same_answer_and_seen_twice(server: Running) -> None:
    """The same request gets the same answer; the books show its prompt paid twice."""
    first, second = _deepseek(server), _deepseek(server)
    assert first.choices[0].message.content == second.choices[0].message.content
    book = server.book("deepseek")
    assert list(book["items"]["prompt"].values()) == [2]
    assert book["items"]["answered"] == {"edits:deepseek-flash": 2}
    assert book["counts"]["answered:deepseek-flash"] == 2


def test_too_small_a_limit_cuts_the_answer(server: Running) -> None:
    """An answer longer than the limit ends with `length`, exactly as many tokens as allowed, and broken JSON."""
    completion = _deepseek(server, max_tokens=20)
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 20
    with pytest.raises(json.JSONDecodeError):
        parsed(completion.choices[0].message.content)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("429", openai.RateLimitError),
        ("500", openai.InternalServerError),
        ("503", openai.InternalServerError),
        ("529", openai.InternalServerError),
        ("401", openai.AuthenticationError),
        ("402", openai.APIStatusError),
        ("insufficient_quota", openai.APIStatusError),
        ("reset", openai.APIConnectionError),
    ],
)
def test_faults_that_cost_nothing(server: Running, kind: str, error: type[Exception]) -> None:
    """A refused or broken request raises what the SDK raises in truth, and nothing is billed."""
    server.faults.set([{"service": "deepseek", "kind": kind, "match": "edits:deepseek-flash", "value": 7, "times": 1}])
    with pytest.raises(error) as caught:
        _deepseek(server)
    if kind == "429":
        assert isinstance(caught.value, openai.RateLimitError)
        assert caught.value.response.headers["retry-after"] == "7"
    counts = server.book("deepseek")["counts"]
    assert counts["requests"] == 1
    assert counts[f"fault:{kind}"] == 1
    assert "answered" not in counts
    assert server.book("deepseek")["cost"] == {}
    assert _deepseek(server).choices[0].finish_reason == "stop"


def test_connection_cut_after_the_answer_is_billed(server: Running) -> None:
    """`reset_after`: the client sees a broken connection, the books see a paid answer."""
    server.faults.set([{"service": "deepseek", "kind": "reset_after", "times": 1}])
    with pytest.raises(openai.APIConnectionError):
        _deepseek(server)
    assert server.book("deepseek")["counts"]["answered"] == 1
    assert Decimal(server.book("deepseek")["cost"]["USD"]) > 0


@pytest.mark.parametrize("service", ["openai", "anthropic", "deepseek"])
@pytest.mark.parametrize(
    ("kind", "status"), [("429", 429), ("500", 500), ("503", 503), ("401", 401), ("402", 402), ("529", None)]
)
def test_every_vendor_fails_in_its_own_form(server: Running, service: str, kind: str, status: int | None) -> None:
    """Each vendor's error has its status and its own body, with a request id in the header."""
    server.faults.set([{"service": service, "kind": kind}])
    response = ask_plainly(server, service)
    assert status is None or response.status_code == status
    assert response.status_code >= 400
    error = response.json()["error"]
    assert error["message"]
    assert ("type" in response.json()) == (service == "anthropic")
    assert ("code" in error) == (service != "anthropic")
    assert response.headers[{"openai": "x-request-id", "anthropic": "request-id", "deepseek": "x-ds-trace-id"}[service]]


@pytest.mark.parametrize("service", ["openai", "anthropic", "deepseek"])
def test_faults_in_the_content_are_billed(server: Running, service: str) -> None:
    """Broken, blank, wrong, cut and declined answers come with 200 and a bill."""
    texts: dict[str, str] = {}
    ends: dict[str, str] = {}
    for kind in ("invalid_json", "blank", "wrong_shape", "length", "refusal"):
        server.faults.set([{"service": service, "kind": kind}])
        response = ask_plainly(server, service)
        assert response.status_code == 200
        texts[kind], ends[kind] = _content(response.json())
    assert not texts["blank"].strip()
    for kind in ("invalid_json", "length"):
        with pytest.raises(json.JSONDecodeError):
            parsed(texts[kind])
    assert any(edit["line"] == "L999" for edit in parsed(texts["wrong_shape"])["edits"])
    assert ends["length"] in ("length", "max_tokens")
    assert ends["refusal"] in ("refusal", "content_filter", "declined")
    assert server.book(service)["counts"]["answered"] == 5


def test_slow_answer_and_latency() -> None:
    """`slow` adds its seconds to the server's latency, without blocking other requests."""
    with running(latency_ms=50) as server:
        server.faults.set([{"service": "openai", "kind": "slow", "value": 8}])

        async def both() -> tuple[float, float]:
            async def timed(service: str) -> float:
                start = time.monotonic()
                await asyncio.to_thread(ask_plainly, server, service)
                return time.monotonic() - start

            slow = asyncio.create_task(timed("openai"))
            while "openai" not in server.books.as_dict() and not slow.done():  # noqa: ASYNC110 - the books tell nobody
                await asyncio.sleep(0.01)
            quick = await timed("anthropic")
            assert not slow.done()
            return await slow, quick

        slow, quick = asyncio.run(both())
        assert slow >= 8.05
        assert quick >= 0.05


def ask_plainly(server: Running, service: str) -> httpx2.Response:
    """One correction request to a vendor, without an SDK."""
    prompt = [{"role": "user", "content": DEEPSEEK_PROMPT}]
    bodies: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
        "openai": (
            "/openai/v1/chat/completions",
            {"authorization": f"Bearer {OPENAI_KEY}"},
            {
                "model": "gpt-6-luna",
                "messages": prompt,
                "reasoning_effort": "none",
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "e", "strict": True, "schema": EDITS},
                },
            },
        ),
        "anthropic": (
            "/anthropic/v1/messages",
            {"x-api-key": ANTHROPIC_KEY, "anthropic-version": "2026-10-21"},
            {
                "model": "claude-haiku-5-5",
                "messages": prompt,
                "max_tokens": 4000,
                "thinking": {"type": "disabled"},
                "output_config": {"format": {"type": "json_schema", "schema": EDITS}},
            },
        ),
        "deepseek": (
            "/deepseek/v1/chat/completions",
            {"authorization": f"Bearer {DEEPSEEK_KEY}"},
            {
                "model": "deepseek-flash",
                "messages": prompt,
                "thinking": {"type": "disabled"},
                "response_format": {"type": "json_object"},
            },
        ),
    }
    path, headers, body = bodies[service]
    return httpx2.post(server.url + path, headers=headers, json=body, timeout=60)


def _content(body: dict[str, Any]) -> tuple[str, str]:
    if "choices" in body:
        choice = body["choices"][0]
        if choice["message"].get("refusal"):
            return choice["message"]["refusal"], "declined"
        return choice["message"]["content"], choice["finish_reason"]
    return "".join(block.get("text", "") for block in body["content"]), body["stop_reason"]


def test_deepseek_peak_hours_and_long_prompts() -> None:
    """DeepSeek doubles its price in peak hours of working days; Haiku takes five times as much above 100k tokens."""
    flash, haiku = MODELS["deepseek-flash"], MODELS["claude-haiku-5-5"]
    tokens = Tokens(1_000_000, 0)
    monday = datetime(2026, 3, 2, 8, tzinfo=UTC)
    assert cost_usd(flash, tokens, monday) == Decimal("0.30")
    assert cost_usd(flash, tokens, monday.replace(hour=12)) == Decimal("0.15")
    assert cost_usd(flash, tokens, monday.replace(day=7)) == Decimal("0.15")
    assert cost_usd(haiku, Tokens(100_000, 0), monday) * 5 == cost_usd(haiku, Tokens(100_001, 0), monday).quantize(
        Decimal("0.0001")
    )
