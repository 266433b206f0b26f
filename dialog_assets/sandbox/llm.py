"""The three LLM vendors in one server, over their real wire formats, as strict as facts/llm.md says they are.

Here: addresses, books, faults, and the way of a request. Not here: each vendor's rules and bodies (`llm_openai`, `llm_anthropic`,
`llm_deepseek`), prices (`llm_prices`), what is answered (`llm_answers`), which always comes from the world's scripts.

Base URLs: `/openai/v1`, `/anthropic`, `/deepseek` (or `/deepseek/v1`).

Books, per service "openai" | "anthropic" | "deepseek":

- counts: `requests`, `answered` (billed), `refused` (an error answer), `fault:KIND`, `requests:MODEL`, `answered:MODEL`,
  `input_tokens` (the whole prompt), `cache_write_tokens` (part of it), `output_tokens`, `thinking_tokens` (part of it),
  `count_tokens`
- items: `prompt` (sha256 of an answered request's canonical body: 2 means paid twice), `requests` and `answered` by label
- cost: USD

Faults match the label `STEP:MODEL`; STEP is the answer's top-level property: edits, categories, scores, text, or other. Kinds:

- "429" (value: Retry-After in seconds, none without it), "500", "503", "529" (503 at DeepSeek), "401", "402",
  "insufficient_quota" (429 at OpenAI, 400 at Anthropic, 402 at DeepSeek): the vendor's error, nothing billed
- "reset": the connection breaks before anything was done; "reset_after": it breaks after the answer was made and billed
- "slow": the answer comes `value` seconds later
- "invalid_json": the answer is no JSON (DeepSeek's json_object mode then gives blanks, as it does in truth); "blank": only spaces
- "wrong_shape": valid JSON with an unknown line or category, a score of 99, or a summary far over its limit
- "manner" (value: a name of `llm_manners.MANNERS`): the right answer in another dress
- "length": cut in the middle as if the limit of output tokens were reached; "refusal": the model declines; all these are billed
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.llm_answers import answer_text
from dialog_assets.sandbox.llm_anthropic import Anthropic
from dialog_assets.sandbox.llm_deepseek import DeepSeek
from dialog_assets.sandbox.llm_manners import MANNERS
from dialog_assets.sandbox.llm_match import ScriptBook
from dialog_assets.sandbox.llm_openai import OpenAI
from dialog_assets.sandbox.llm_prices import Tokens, cost_usd
from dialog_assets.sandbox.llm_prompt import Asked
from dialog_assets.sandbox.llm_wire import ERROR_KINDS, Answer, Ending, Passed, Refused, Vendor, token_count
from dialog_assets.sandbox.world.model import World

_CONTENT_KINDS = ("invalid_json", "manner", "wrong_shape", "blank", "length", "refusal")
FAULT_KINDS = (*ERROR_KINDS, "reset", "reset_after", "slow", *_CONTENT_KINDS)

_DECLINED = "Я не могу помочь с этим запросом."


class _BrokenConnection(Response):
    """Promises a body, sends its first bytes and ends; the server then cuts the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        await send({"type": "http.response.body", "body": b'{"id":', "more_body": True})


class LLMServer:
    """OpenAI, Anthropic and DeepSeek for the sandbox; `app` serves them. `latency_ms` delays every answer."""

    def __init__(
        self,
        world: World,
        books: Books,
        faults: Faults,
        *,
        openai_key: str,
        anthropic_key: str,
        deepseek_key: str,
        latency_ms: int = 0,
    ) -> None:
        self._scripts = ScriptBook(world.scripts.values())
        self._books = books
        self._faults = faults
        self._latency_s = latency_ms / 1000
        self._serial = 0
        openai, anthropic, deepseek = OpenAI(openai_key), Anthropic(anthropic_key), DeepSeek(deepseek_key)
        self.app = Starlette(
            routes=[
                Route("/openai/v1/chat/completions", self._generation(openai), methods=["POST"]),
                Route("/openai/v1/models", self._lookup(openai, openai.models)),
                Route("/anthropic/v1/messages", self._generation(anthropic), methods=["POST"]),
                Route("/anthropic/v1/messages/count_tokens", self._token_counter(anthropic), methods=["POST"]),
                Route("/anthropic/v1/models", self._lookup(anthropic, anthropic.models)),
                *(
                    route
                    for prefix in ("/deepseek", "/deepseek/v1")
                    for route in (
                        Route(f"{prefix}/chat/completions", self._generation(deepseek), methods=["POST"]),
                        Route(f"{prefix}/models", self._lookup(deepseek, deepseek.models)),
                        Route(f"{prefix}/user/balance", self._lookup(deepseek, deepseek.balance)),
                    )
                ),
            ]
        )

    def _lookup(self, vendor: Vendor, make: Callable[[], dict[str, Any]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            request_id = self._request_id(vendor)
            try:
                vendor.authorise(request.headers)
            except Refused as refused:
                return self._refusal(vendor, refused, request_id)
            return JSONResponse(make(), headers={vendor.request_id_header: request_id})

        return endpoint

    def _token_counter(self, vendor: Anthropic) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            request_id = self._request_id(vendor)
            self._books.count(vendor.name, "count_tokens")
            try:
                vendor.authorise(request.headers)
                counted = vendor.count_tokens(await _body(vendor, request))
            except Refused as refused:
                return self._refusal(vendor, refused, request_id)
            return JSONResponse(counted, headers={vendor.request_id_header: request_id})

        return endpoint

    def _generation(self, vendor: Vendor) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            request_id = self._request_id(vendor)
            self._books.count(vendor.name, "requests")
            try:
                return await self._generate(vendor, request, request_id)
            except Refused as refused:
                self._books.count(vendor.name, "refused")
                return self._refusal(vendor, refused, request_id)

        return endpoint

    async def _generate(self, vendor: Vendor, request: Request, request_id: str) -> Response:
        started = time.monotonic()
        vendor.authorise(request.headers)
        body = await _body(vendor, request)
        asked = vendor.read(body)
        self._books.count(vendor.name, f"requests:{asked.model}")
        self._books.item(vendor.name, "requests", asked.label)
        fault = self._faults.strike(vendor.name, asked.label, FAULT_KINDS)
        kind = fault.kind if fault is not None else None
        value = fault.value if fault is not None else None
        if kind is not None:
            self._books.count(vendor.name, f"fault:{kind}")
        await asyncio.sleep(self._latency_s + (float(value or 0) if kind == "slow" else 0))
        if kind == "reset":
            return _BrokenConnection()
        if kind in ERROR_KINDS:
            raise vendor.failure(kind, value, asked)
        passed = vendor.check(body, asked, request.headers)
        answer = self._answer(vendor, body, asked, passed, kind, value, request_id)
        self._settle(vendor, passed, answer)
        if kind == "reset_after":
            return _BrokenConnection()
        headers = {vendor.request_id_header: request_id}
        if vendor.name == "openai":
            headers |= {
                "openai-processing-ms": str(round((time.monotonic() - started) * 1000)),
                "openai-version": "2020-10-01",
            }
        return JSONResponse(vendor.reply(answer), headers=headers)

    def _answer(
        self,
        vendor: Vendor,
        body: dict[str, Any],
        asked: Asked,
        passed: Passed,
        kind: str | None,
        value: Any,
        request_id: str,
    ) -> Answer:
        ratio = vendor.chars_per_token
        text = answer_text(self._scripts, asked, wrong=kind == "wrong_shape")
        if kind == "manner":
            text = MANNERS[str(value)](text)
        ending: Ending = "stop"
        if kind == "refusal":
            text, ending = _DECLINED, "refusal"
        elif kind == "blank" or (kind == "invalid_json" and vendor.name == "deepseek" and asked.json_only):
            text = " " * 40
        elif kind == "invalid_json":
            text = f"{text.rstrip('`}] ').rstrip()},"
        elif kind == "length":
            text, ending = text[: len(text) // 2], "length"
        thinking = asked.thinking
        written = token_count(len(text), ratio)
        if asked.max_output is not None and thinking + written > asked.max_output:
            ending = "length"
            thinking = min(thinking, asked.max_output)
            written = asked.max_output - thinking
            text = text[: int(written * ratio)]
        read = token_count(passed.chars_read, ratio)
        cached = int(read * passed.cache_write_share) if read >= passed.model.cache_minimum else 0
        tokens = Tokens(read - cached, thinking + written, cache_write=cached, thinking=thinking)
        return Answer(asked, body, text, ending, tokens, request_id, int(time.time()))

    def _settle(self, vendor: Vendor, passed: Passed, answer: Answer) -> None:
        books, name, label, used = self._books, vendor.name, answer.asked.label, answer.tokens
        canonical = json.dumps(answer.body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        books.count(name, "answered")
        books.count(name, f"answered:{answer.asked.model}")
        books.item(name, "answered", label)
        books.item(name, "prompt", hashlib.sha256(canonical.encode()).hexdigest())
        for what, number in (
            ("input_tokens", used.prompt),
            ("cache_write_tokens", used.cache_write),
            ("output_tokens", used.output),
            ("thinking_tokens", used.thinking),
        ):
            books.count(name, what, number)
        at = datetime.fromtimestamp(answer.created, UTC)
        books.cost(name, "USD", cost_usd(passed.model, used, at, passed.tier_factor))

    def _refusal(self, vendor: Vendor, refused: Refused, request_id: str) -> Response:
        body = refused.body if vendor.name != "anthropic" else {**refused.body, "request_id": request_id}
        headers: Mapping[str, str] = {**refused.headers, vendor.request_id_header: request_id}
        return JSONResponse(body, status_code=refused.status, headers=headers)

    def _request_id(self, vendor: Vendor) -> str:
        self._serial += 1
        prefix = "" if vendor.name == "deepseek" else "req_"
        return f"{prefix}{vendor.name}{self._serial:012d}"


async def _body(vendor: Vendor, request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise vendor.malformed("We could not parse the JSON body of your request.") from error
    if not isinstance(body, dict):
        raise vendor.malformed("The body of the request must be a JSON object.")
    return body
