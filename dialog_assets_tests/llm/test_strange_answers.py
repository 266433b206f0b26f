"""What servers of the vendors' formats really answer: odd answers are used, odd errors stop the step or fail the item rightly."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import zlib
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from dialog_assets.llm import prices, router
from dialog_assets.llm.errors import (
    LLMAnswerInvalid,
    LLMError,
    LLMItemUnanswered,
    LLMRefused,
    LLMRequestRejected,
    LLMRequestTooLarge,
    LLMTruncated,
    LLMUnavailable,
    UnknownPrice,
)
from dialog_assets.llm.ledger import Usage
from dialog_assets.llm.router import Completion, LLMRouter
from dialog_assets.llm.vendors.http import MOST_BYTES
from dialog_assets_tests.llm.support import (
    KEYS,
    SUBJECT,
    MemoryLedger,
    Number,
    Reply,
    Wire,
    chat_body,
    message_body,
    ok,
    question,
    routed,
)


def complete(llm: LLMRouter, ledger: MemoryLedger, vendor: str = "openai", **changes: Any) -> Completion[Number]:
    async def go() -> Completion[Number]:
        async with llm:
            return await llm.complete(question(vendor, **changes), SUBJECT, ledger)

    return asyncio.run(go())


def chat(changes: dict[str, Any] | None = None, **choice: Any) -> dict[str, Any]:
    """A chat completion with another body, and another choice."""
    body = {**chat_body(), **(changes or {})}
    return {**body, "choices": [{**body["choices"][0], **choice}]} if choice else body


def message(**changes: Any) -> dict[str, Any]:
    return {**message_body(), **changes}


def says(**parts: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, **parts}


ANSWER = '{"number": 1}'

WHOLE = [
    ("openai", chat({"usage": None}), True),
    ("openai", chat({"usage": {}}), True),
    ("openai", {key: value for key, value in chat_body().items() if key != "usage"}, True),
    ("openai", chat({"usage": "1100"}), True),
    ("openai", chat({"usage": {"prompt_tokens": -1, "completion_tokens": 10}}), True),
    ("openai", chat({"usage": {"prompt_tokens": 10**30, "completion_tokens": 10}}), True),
    ("openai", chat({"usage": {"prompt_tokens": True, "completion_tokens": 10}}), True),
    ("openai", chat({"usage": {"prompt_tokens": "1000", "completion_tokens": 100.0}}), False),
    ("openai", chat({"usage": {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": []}}), False),
    ("openai", chat({"model": None}), False),
    ("openai", chat({"model": "a\x00b\ud83d" + "m" * 5000, "id": 7}), False),
    ("openai", chat(finish_reason=None), False),
    ("openai", chat(finish_reason="eos"), False),
    ("openai", chat(finish_reason=["stop"]), False),
    (
        "openai",
        chat(message=says(content=[{"type": "text", "text": '{"num'}, {"type": "text", "text": 'ber": 1}'}])),
        False,
    ),
    ("openai", chat(message=says(content=["", ANSWER, None, {"type": "image"}])), False),
    ("openai", chat(message=says(content=ANSWER, refusal="")), False),
    ("openai", chat(message=says(content=ANSWER, refusal="нет")), False),
    ("openai", chat(message=says(tool_calls=[{"function": {"name": "f", "arguments": ANSWER}}])), False),
    ("openai", chat(finish_reason="tool_calls", message=says(function_call={"arguments": ANSWER})), False),
    ("openai", chat(finish_reason=None, message=None, text=ANSWER), False),
    ("deepseek", chat(message=says(content="", reasoning_content=f"Думаю. {ANSWER}")), False),
    ("deepseek", chat(message=says(content='<think>{"number": 7}</think>{"number": 1}')), False),
    ("deepseek", chat(message=says(content='{"number": 7}\nЛучше так: {"number": 1}')), False),
    ("anthropic", message(usage=None), True),
    ("anthropic", message(usage={"input_tokens": 5}), True),
    ("anthropic", message(usage={"input_tokens": 5, "output_tokens": 5, "cache_creation": None}), False),
    ("anthropic", message(stop_reason=None, model=None), False),
    ("anthropic", message(stop_reason="pause_turn"), False),
    ("anthropic", message(content=ANSWER), False),
    ("anthropic", message(content=[{"type": "tool_use", "input": {"number": 1}}], stop_reason="tool_use"), False),
    ("anthropic", message(content=[None, {"type": "text"}, {"type": "text", "text": ANSWER}]), False),
]


@pytest.mark.parametrize(("vendor", "body", "estimated"), WHOLE)
def test_a_whole_valid_answer_is_used(vendor: str, body: dict[str, Any], estimated: bool) -> None:  # noqa: FBT001
    """Bought once, whatever is missing or odd around it; tokens that nobody told are reckoned, and the booking says so."""
    ledger = MemoryLedger()
    wire = Wire([lambda _: httpx2.Response(200, content=json.dumps(body))])
    done = complete(routed(wire), ledger, vendor)
    assert (done.value.number, len(wire.sent)) == (1, 1)
    kept = ledger.answers[done.keys[0]]
    assert kept.estimated is estimated
    assert kept.cost_usd > 0
    assert kept.model_returned.isprintable()
    assert 0 < len(kept.model_returned) <= 200
    assert ledger.estimates[0] > 0


@pytest.mark.parametrize(
    ("vendor", "body"),
    [
        ("openai", chat({"choices": []})),
        ("openai", chat(message=None)),
        ("openai", chat(finish_reason=None, message=says(content='{"num'))),
        ("deepseek", chat(finish_reason="insufficient_system_resource", message=says(content='{"num'))),
        ("anthropic", message(content=None)),
        ("anthropic", message(content=[], stop_reason="pause_turn")),
    ],
)
def test_an_answer_without_use_is_booked_and_asked_for_again_so_often(vendor: str, body: dict[str, Any]) -> None:
    """What was billed and told stays in the book, and after three such answers the item fails."""
    ledger = MemoryLedger()
    with pytest.raises(LLMAnswerInvalid):
        complete(routed(Wire([ok(body)])), ledger, vendor)
    assert ledger.steps == ["ask", "answered"] * 3
    assert all(answer.cost_usd > 0 and not answer.estimated for answer in ledger.answers.values())


@pytest.mark.parametrize("vendor", ["openai", "deepseek", "anthropic"])
@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"null", b"", b'{"id": "1"}', b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 50_000 + b"1"]
)
def test_an_answer_that_cannot_be_read_may_be_on_the_bill(vendor: str, content: bytes) -> None:
    """It is asked for once more, each time booked at its estimate; a small question tells that others fare no better."""
    ledger = MemoryLedger()
    wire = Wire([lambda _: httpx2.Response(200, content=content, headers={"content-type": "application/json"})])
    with pytest.raises(LLMUnavailable):
        complete(routed(wire), ledger, vendor)
    assert ledger.steps == ["ask", "perhaps_paid"] * 3


def error(status: int, text: str, headers: dict[str, str] | None = None, **more: Any) -> Reply:
    body = json.dumps({"error": {"message": text, **more}})
    return lambda _: httpx2.Response(status, content=body, headers=headers or {})


INVALID: dict[str, Any] = {"type": "invalid_request_error"}

ACCOUNT: list[tuple[str, Reply]] = [
    (
        "anthropic",
        error(
            400, "You have reached your specified API usage limits. You will regain access on 2026-12-01.", **INVALID
        ),
    ),
    ("anthropic", error(400, "This organization has been disabled.", **INVALID)),
    ("anthropic", error(400, "Your credit balance is too low to access the Anthropic API.", **INVALID)),
    ("anthropic", error(400, "Workspace spend limit reached", **INVALID)),
    ("anthropic", error(403, "Request not allowed", type="forbidden")),
    ("anthropic", error(404, "model: claude-haiku-9", type="not_found_error")),
    ("anthropic", error(400, "model: claude-haiku-9 is not supported", **INVALID)),
    ("deepseek", error(400, "Model Not Exist", **INVALID)),
    ("deepseek", error(402, "Insufficient Balance")),
    ("openai", error(404, "The API deployment for this resource does not exist.", code="DeploymentNotFound")),
    ("openai", error(451, "Unavailable for legal reasons")),
    ("openai", error(429, "You exceeded your current quota, please check your plan.", code="insufficient_quota")),
    ("openai", error(429, "You exceeded your current quota, please check your plan.")),
    ("openai", error(400, "Billing hard limit has been reached", code="billing_hard_limit_reached")),
    ("openai", error(403, "Country, region, or territory not supported", code="unsupported_country_region_territory")),
    ("openai", lambda _: httpx2.Response(410, text="gone")),
    ("openai", lambda _: httpx2.Response(403, text="<html>Blocked</html>")),
    ("openai", lambda _: httpx2.Response(400, json={"detail": "Your account is suspended"})),
    ("openai", lambda _: httpx2.Response(400, json=["Account was deactivated"] * 3)),
]


@pytest.mark.parametrize(("vendor", "reply"), ACCOUNT)
def test_what_concerns_the_account_or_the_model_stops_the_step(vendor: str, reply: Reply) -> None:
    """By status, code, and where these say too little the words: one sentence, nothing bought, nothing final."""
    ledger = MemoryLedger()
    with pytest.raises(LLMRefused, match=f"{vendor} .* refuses .HTTP ") as caught:
        complete(routed(Wire([reply])), ledger, vendor)
    assert str(caught.value).count("\n") == 0
    assert set(ledger.steps) == {"ask", "failed"}


OWN: list[tuple[str, Reply]] = [
    (
        "openai",
        error(
            429,
            "Request too large for gpt-6-luna on tokens per min (TPM): Limit 30000, Requested 45000.",
            code="rate_limit_exceeded",
            type="tokens",
        ),
    ),
    ("openai", error(429, "Rate limit: Limit: 3000, Used 0, Requested: 4500", code="rate_limit_exceeded")),
    ("openai", error(429, "slow down", {"x-ratelimit-limit-tokens": "10"})),
    (
        "anthropic",
        error(
            429,
            "This request would exceed your organization's rate limit",
            {"anthropic-ratelimit-input-tokens-limit": "12"},
        ),
    ),
    ("anthropic", error(429, "Extra usage is required for long context requests.", type="rate_limit_error")),
    ("anthropic", error(400, "prompt is too long: 210000 tokens > 200000 maximum", **INVALID)),
    ("anthropic", error(400, "input length and `max_tokens` exceed context limit: 199000 + 8000 > 200000", **INVALID)),
    (
        "anthropic",
        error(400, "max_tokens: 500000 > 128000, which is the maximum allowed number of output tokens", **INVALID),
    ),
    (
        "deepseek",
        error(400, "This model's maximum context length is 131072 tokens, you requested 140000", **INVALID),
    ),
    ("openai", error(400, "max_tokens is too large: 200000. This model supports at most 16384 completion tokens")),
    ("openai", error(413, "Payload Too Large")),
    ("openai", error(400, "too long", code="context_length_exceeded")),
]


@pytest.mark.parametrize(("vendor", "reply"), OWN)
def test_what_is_too_large_is_the_items_own_trouble(vendor: str, reply: Reply) -> None:
    """Told at once as what it is: waiting does not make it smaller, and it says nothing about the others."""
    wire = Wire([reply])
    with pytest.raises(LLMRequestTooLarge):
        complete(routed(wire), MemoryLedger(), vendor, user="Назови число в json. " * 4)
    assert len(wire.sent) == 1


@pytest.mark.parametrize("vendor", ["openai", "deepseek", "anthropic"])
@pytest.mark.parametrize(
    ("reply", "accepted", "kind", "sent"),
    [
        (error(400, "Ошибка.", **INVALID), True, LLMRequestRejected, 2),
        (error(400, "Ошибка.", **INVALID), False, LLMRefused, 2),
        (error(422, "Unprocessable", **INVALID), True, LLMRequestRejected, 2),
        (error(422, "Unprocessable", **INVALID), False, LLMRefused, 2),
        (lambda _: httpx2.Response(418, text="?"), False, LLMRefused, 2),
        (error(429, "slow down"), True, LLMItemUnanswered, 5),
        (error(429, "slow down"), False, LLMUnavailable, 5),
        (httpx2.ReadTimeout("slow"), True, LLMItemUnanswered, 3),
        (httpx2.ReadTimeout("slow"), False, LLMUnavailable, 3),
        (httpx2.RemoteProtocolError("gone"), True, LLMItemUnanswered, 3),
        (httpx2.ReadError("gone"), False, LLMUnavailable, 3),
        (lambda _: httpx2.Response(504, text="gateway"), True, LLMItemUnanswered, 3),
        (httpx2.ConnectError("no"), False, LLMUnavailable, 4),
        (httpx2.ConnectTimeout("no"), False, LLMUnavailable, 4),
        (lambda _: httpx2.Response(503), False, LLMUnavailable, 4),
    ],
)
def test_a_small_question_tells_whose_trouble_it_is(
    vendor: str,
    reply: Any,
    accepted: bool,  # noqa: FBT001
    kind: type[LLMError],
    sent: int,
) -> None:
    """Where an error leaves it open, the answer to a question of a few words decides: this item, or everybody."""
    seen: list[bytes] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.content)
        small = "Ты отвечаешь" in json.dumps(json.loads(request.content), ensure_ascii=False)
        if small and accepted:
            return httpx2.Response(200, json=message_body("да") if vendor == "anthropic" else chat_body("да"))
        if isinstance(reply, Exception):
            raise reply
        found: httpx2.Response = reply(request)
        return found

    ledger = MemoryLedger()
    with pytest.raises(LLMError) as caught:
        complete(routed(Wire([answer])), ledger, vendor)
    assert type(caught.value) is kind
    assert len(seen) == sent
    if accepted:
        assert ledger.steps[-3:] == ["ask", "answered", "set_aside"], "the small question has its price in the book"


def test_those_who_ask_at_once_share_the_small_question() -> None:
    """Eight items that are rejected in one moment send a few of them, not eight."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        small = "Ты отвечаешь" in json.dumps(json.loads(request.content), ensure_ascii=False)
        return httpx2.Response(200, json=chat_body("да")) if small else httpx2.Response(400, json={})

    async def go() -> MemoryLedger:
        ledger = MemoryLedger()
        async with routed(Wire([answer])) as asked:
            done = await asyncio.gather(
                *(asked.complete(question(user=f"{n} json"), SUBJECT, ledger) for n in range(8)),
                return_exceptions=True,
            )
        assert {type(one) for one in done} == {LLMRequestRejected}
        return ledger

    assert asyncio.run(go()).steps.count("set_aside") < 8


def test_limits_of_output_stay_below_the_models_own() -> None:
    """A limit above what the model can write is sent as the most it can, and is not doubled beyond it."""
    cut = Wire([ok(chat_body('{"number"', "length"))])
    with pytest.raises(LLMTruncated, match="16384 output tokens, the most"):
        complete(routed(cut), MemoryLedger(), model="gpt-4o-mini", max_output_tokens=10_000)
    assert [cut.body(number)["max_completion_tokens"] for number in range(2)] == [10_000, 16_384]
    whole = Wire([ok(chat_body('{"number"', "length"))])
    with pytest.raises(LLMTruncated):
        complete(routed(whole), MemoryLedger(), model="gpt-4o-mini", max_output_tokens=200_000)
    assert [body["max_completion_tokens"] for body in [whole.body(0)]] == [16_384]
    assert len(whole.sent) == 1


def test_a_check_that_breaks_on_an_answer_is_the_answers_mistake() -> None:
    """An answer that no rule foresaw is asked for again, and crashes nobody, tonight or when it is read again."""

    def check(value: Number) -> list[str]:
        return [] if value.number == 2 else [str(1 // (value.number - 1))]

    ledger = MemoryLedger()
    done = complete(routed(Wire([ok(chat_body()), ok(chat_body('{"number": 2}'))])), ledger, check=check)
    assert done.value.number == 2
    assert len(ledger.answers) == 2


@pytest.mark.parametrize("vendor", ["openai", "deepseek", "anthropic"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_prompt_follows_a_redirect(vendor: str, status: int) -> None:
    """What an address leads to elsewhere is not asked, and the step stops with a sentence."""
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.host)
        return httpx2.Response(status, headers={"location": "https://elsewhere.example/v1/chat/completions"})

    with pytest.raises(LLMRefused, match="leads elsewhere"):
        complete(routed(Wire([answer])), MemoryLedger(), vendor)
    assert len(asked) == 1
    assert "elsewhere.example" not in asked


class _Flood(httpx2.AsyncByteStream):
    """A body without an end; counts what was taken of it."""

    def __init__(self, chunk: bytes) -> None:
        self.chunk = chunk
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.taken += len(self.chunk)
            yield self.chunk


@pytest.mark.parametrize("vendor", ["openai", "deepseek", "anthropic"])
@pytest.mark.parametrize("packed", ["identity", "gzip", "deflate"])
@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_answer_is_read_as_far_as_one_can_be(vendor: str, packed: str, status: int) -> None:
    """A body that does not end, or unpacks to gigabytes, costs no more memory than the longest answer, and no more tries."""
    pack = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | (16 if packed == "gzip" else 0))
    bomb = pack.compress(b" " * 4 * MOST_BYTES) + pack.flush()
    floods: list[_Flood] = []

    def answer(_: httpx2.Request) -> httpx2.Response:
        floods.append(_Flood(bomb if packed != "identity" else b" " * 65_536))
        return httpx2.Response(status, headers={"content-encoding": packed}, stream=floods[-1])

    with pytest.raises(LLMUnavailable):
        complete(routed(Wire([answer])), MemoryLedger(), vendor)
    assert all(flood.taken <= MOST_BYTES + 65_536 for flood in floods)
    assert len(floods) == 3


def test_an_answer_that_is_packed_unasked_is_read() -> None:
    """A proxy in between may pack it."""
    body = gzip.compress(json.dumps(chat_body()).encode())
    wire = Wire([lambda _: httpx2.Response(200, stream=httpx2.ByteStream(body), headers={"content-encoding": "gzip"})])
    assert complete(routed(wire), MemoryLedger()).value.number == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks://127.0.0.1:1"), ("HTTPS_PROXY", "nonsense://x")],
)
@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_a_proxy_that_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, vendor: str, name: str, value: str
) -> None:
    """One sentence before anything is sent, not a traceback."""
    monkeypatch.setenv(name, value)
    with pytest.raises(LLMRefused, match="in the environment"):
        complete(LLMRouter(KEYS, {}, timeout_s=1), MemoryLedger(), vendor)


def test_prices_without_a_rate_lose_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of a kind for which no price is known are booked as ordinary ones, as an estimate."""

    def cost(model: str, usage: Usage, at: datetime) -> Decimal:
        if usage.cache_write:
            raise UnknownPrice("no rate")
        return prices.cost(model, usage, at)

    monkeypatch.setattr(router, "cost", cost)
    ledger = MemoryLedger()
    done = complete(routed(Wire([ok(chat_body())])), ledger)
    assert ledger.answers[done.keys[0]].estimated
    assert done.cost_usd == Decimal("0.00015"), "a thousand tokens of input, a hundred of output"


def test_estimates_learn_from_answers() -> None:
    """Before the first answer it is a part of the prompt, then what such answers cost."""

    async def go() -> MemoryLedger:
        ledger = MemoryLedger()
        async with routed(Wire([ok(chat_body())])) as asked:
            for number in range(2):
                await asked.complete(question(user=f"{number} json"), SUBJECT, ledger)
        return ledger

    first, second = asyncio.run(go()).estimates
    assert second > first
    assert second == pytest.approx(Decimal("0.00005"), rel=Decimal("0.1")), "a hundred tokens of output"


@pytest.mark.parametrize("way", ["level_after", "child", "handler_on_child"])
def test_libraries_say_nothing_of_prompts(caplog: pytest.LogCaptureFixture, way: str) -> None:
    """Whoever sets their loggers to DEBUG, after the client is made, sees no prompt, key or address."""
    names = ("openai", "anthropic", "httpx2", "httpcore2", "httpx", "httpcore")
    told: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(f"{record.getMessage()} {record.exc_info} {record.args}")

    ear = Ear()

    async def go(vendor: str) -> None:
        wire = Wire([ok(message_body() if vendor == "anthropic" else chat_body())])
        async with routed(wire) as asked:
            await asked.complete(question(vendor, user="Тайна клиента, json"), SUBJECT, MemoryLedger())
            for name in names:
                logging.getLogger(name).setLevel(logging.DEBUG)
                children = [
                    logging.getLogger(child)
                    for child in logging.root.manager.loggerDict
                    if child.startswith(f"{name}.")
                ]
                for child in children:
                    if way != "level_after":
                        child.setLevel(logging.DEBUG)
                    if way == "handler_on_child":
                        child.addHandler(ear)
            await asked.complete(question(vendor, user="Тайна второго, json"), SUBJECT, MemoryLedger())
            for name in names:
                logging.getLogger(f"{name}.later").debug("Тайна %s", KEYS[vendor])
                try:
                    raise ValueError(f"Тайна {KEYS[vendor]}")
                except ValueError:
                    logging.getLogger(name).info("wrong", exc_info=True)

    try:
        with caplog.at_level("DEBUG"):
            for vendor in ("openai", "anthropic"):
                asyncio.run(go(vendor))
    finally:
        for child in [logging.getLogger(name) for name in logging.root.manager.loggerDict]:
            child.removeHandler(ear)
        for name in names:
            logging.getLogger(name).setLevel(logging.NOTSET)
    everything = caplog.text + "\n".join(told)
    assert "Тайна" not in everything
    assert not any(key in everything for key in KEYS.values())


def test_cancelled_in_flight_is_booked_as_perhaps_paid() -> None:
    """The run is ended while an answer is awaited: the purchase stays in the book."""

    async def go() -> MemoryLedger:
        sent = asyncio.Event()

        async def dawdle(_request: httpx2.Request) -> httpx2.Response:
            sent.set()
            await asyncio.sleep(600)
            raise AssertionError

        class Slow(MemoryLedger):
            async def perhaps_paid(self, key: str, reason: str) -> None:
                await asyncio.sleep(0.02)
                await super().perhaps_paid(key, reason)

        ledger = Slow()
        async with routed(Wire([]), transport=httpx2.MockTransport(dawdle)) as asked:
            task = asyncio.create_task(asked.complete(question(), SUBJECT, ledger))
            await sent.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return ledger

    assert asyncio.run(go()).steps == ["ask", "perhaps_paid"]


def test_other_answers_of_the_moment_tell_as_well() -> None:
    """Where others are answered while one item is not, no small question is needed."""

    async def answer(request: httpx2.Request) -> httpx2.Response:
        if "long" in json.dumps(json.loads(request.content)):
            await asyncio.sleep(0.05)
            raise httpx2.ReadTimeout("slow")
        return httpx2.Response(200, json=chat_body())

    async def go() -> MemoryLedger:
        ledger = MemoryLedger()
        async with routed(Wire([]), transport=httpx2.MockTransport(answer)) as asked:
            asking = asyncio.create_task(asked.complete(question(user="long json"), SUBJECT, ledger))
            await asyncio.sleep(0.01)
            await asked.complete(question(), SUBJECT, ledger)
            with pytest.raises(LLMItemUnanswered):
                await asking
        return ledger

    assert "set_aside" not in asyncio.run(go()).steps
