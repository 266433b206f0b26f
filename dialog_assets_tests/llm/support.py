"""What the tests of paid answers share: a ledger in memory, a small request, vendors' bodies, the sandbox's vendors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx2
import uvicorn
from pydantic import BaseModel

from dialog_assets.llm.ledger import Answer, Asked
from dialog_assets.llm.requests import LLMRequest, Subject
from dialog_assets.llm.router import LLMRouter
from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.llm import LLMServer
from dialog_assets.sandbox.world.model import World

KEYS = {"openai": "sk-openai-secret", "anthropic": "sk-ant-secret", "deepseek": "sk-deep-secret"}
SUBJECT = Subject("okna_sever", "classifications", call_id=7)
MODELS = {"openai": "gpt-6-luna", "anthropic": "claude-haiku-5-5", "deepseek": "deepseek-flash"}


@dataclass
class MemoryLedger:
    """The port in memory; `log` holds every call in order."""

    answers: dict[str, Answer] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    estimates: list[Decimal] = field(default_factory=list)

    async def find(self, key: str) -> Answer | None:
        """An answer kept so far."""
        return self.answers.get(key)

    async def ask(self, key: str, request_info: Asked) -> None:
        """A try begins."""
        self.log.append(("ask", key))
        self.estimates.append(request_info.estimate_usd)

    async def answered(self, key: str, answer: Answer) -> None:
        """An answer came."""
        self.log.append(("answered", key))
        self.answers[key] = answer

    async def failed(self, key: str, reason: str) -> None:
        """A try brought none."""
        self.log.append(("failed", key))
        self.reasons.append(reason)

    async def perhaps_paid(self, key: str, reason: str) -> None:
        """A try brought none and may be on the bill."""
        self.log.append(("perhaps_paid", key))
        self.reasons.append(reason)

    async def set_aside(self, key: str, reason: str) -> None:
        """Nobody uses the answer."""
        self.log.append(("set_aside", key))
        self.answers.pop(key, None)

    @property
    def steps(self) -> list[str]:
        """The calls without their keys."""
        return [what for what, _ in self.log]


class Number(BaseModel):
    """A small answer."""

    number: int


def question(vendor: str = "openai", **changes: Any) -> LLMRequest[Number]:
    """A request whose good answer is `{"number": n}` with n below 10."""
    values: dict[str, Any] = {
        "vendor": vendor,
        "model": MODELS[vendor],
        "max_output_tokens": 500,
        "prompt": "number",
        "prompt_version": "v1",
        "system": "Ответь в json.",
        "user": 'Назови число. Пример: {"number": 1}',
        "answer": Number,
        "check": lambda value: [] if value.number < 10 else [f"number: {value.number} больше девяти"],
    }
    return LLMRequest(**{**values, **changes})


def chat_body(text: str | None = '{"number": 1}', finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion as OpenAI and DeepSeek send it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-6-luna-2026-09-01",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}},
        ],
        "usage": {
            "prompt_tokens": 1000,
            "completion_tokens": 100,
            "total_tokens": 1100,
            "prompt_tokens_details": {"cached_tokens": 200, "cache_write_tokens": 300},
            "completion_tokens_details": {"reasoning_tokens": 40},
        },
    }


def message_body(text: str = '{"number": 1}', stop: str = "end_turn") -> dict[str, Any]:
    """A message as Anthropic sends it, thinking first."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-5-5",
        "content": [{"type": "thinking", "thinking": "…", "signature": "s"}, {"type": "text", "text": text}],
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 500,
            "cache_creation_input_tokens": 300,
            "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
            "cache_read_input_tokens": 200,
            "output_tokens": 100,
            "output_tokens_details": {"thinking_tokens": 40},
        },
    }


Reply = httpx2.Response | Exception | Callable[[httpx2.Request], httpx2.Response]


@dataclass
class Wire:
    """A scripted network: gives its replies in turn, the last one for ever, and keeps what was sent."""

    replies: list[Reply]
    sent: list[httpx2.Request] = field(default_factory=list)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """The next reply."""
        self.sent.append(request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply(request) if callable(reply) else reply

    def body(self, number: int = -1) -> dict[str, Any]:
        """The JSON of a sent request."""
        body: dict[str, Any] = json.loads(self.sent[number].content)
        return body


def ok(body: Mapping[str, Any]) -> Callable[[httpx2.Request], httpx2.Response]:
    """A fresh 200 with that JSON each time."""
    return lambda _request: httpx2.Response(200, json=dict(body), headers={"x-request-id": "req_1"})


def failing(status: int, headers: Mapping[str, str] | None = None, **error: Any) -> Reply:
    """A fresh error answer each time; its message repeats a key, as vendors do."""
    body = {"error": {"message": f"Incorrect API key provided: {KEYS['openai']}", **error}}
    return lambda _request: httpx2.Response(status, json=body, headers=dict(headers or {}))


def routed(wire: Wire, naps: list[float] | None = None, **options: Any) -> LLMRouter:
    """A router on that wire which does not really sleep."""

    async def nap(seconds: float) -> None:
        if naps is not None:
            naps.append(seconds)

    settings: dict[str, Any] = {"timeout_s": 120, "sleep": nap, "transport": httpx2.MockTransport(wire), **options}
    return LLMRouter(KEYS, {}, **settings)


@dataclass
class SandboxVendors:
    """The sandbox's three vendors, listening."""

    base_urls: dict[str, str]
    books: Books
    faults: Faults


@asynccontextmanager
async def sandbox_vendors(world: World) -> AsyncIterator[SandboxVendors]:
    """Serve the sandbox's vendors on a free port while the block runs."""
    books, faults = Books(), Faults()
    server_of_models = LLMServer(
        world,
        books,
        faults,
        openai_key=KEYS["openai"],
        anthropic_key=KEYS["anthropic"],
        deepseek_key=KEYS["deepseek"],
    )
    server = uvicorn.Server(
        uvicorn.Config(server_of_models.app, host="127.0.0.1", port=0, log_level="critical", timeout_keep_alive=75)
    )
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        root = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield SandboxVendors(
            {"openai": f"{root}/openai/v1", "anthropic": f"{root}/anthropic", "deepseek": f"{root}/deepseek"},
            books,
            faults,
        )
    finally:
        server.should_exit = True
        await serving
