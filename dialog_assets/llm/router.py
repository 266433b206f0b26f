"""The one way to a paid answer: written down, sent, priced, checked, corrected.

Here: the only retry loop of this room (facts/llm.md section 7; the SDKs' own are off), and the order of the book-keeping.
Not here: wire formats (vendors/), tables (the ledger is a port), how many requests go at once (the caller).

    complete ── answer not in the ledger? ── _buy ── vendor.send      transport failures: same key, up to `attempts` tries
        │
        └── judge: refused, cut off, blank, invalid ── ask once more  a new key each, every answer paid and kept

Every answer of a question counts into the next one's key, so a run after a crash walks the same path through the ledger
without paying, and goes on where the first one ended.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from dialog_assets.llm.cleaning import json_objects
from dialog_assets.llm.errors import (
    LLMAnswerInvalid,
    LLMContentRefused,
    LLMError,
    LLMRefused,
    LLMRequestRejected,
    LLMTruncated,
    LLMUnavailable,
)
from dialog_assets.llm.ledger import Answer, Asked, Ledger, Usage
from dialog_assets.llm.prices import cost, rate
from dialog_assets.llm.requests import CORRECTIONS, LLMRequest, Subject, request_key
from dialog_assets.llm.vendors.port import Vendor, VendorFailure

T = TypeVar("T", bound=BaseModel)

DEFAULT_BASE_URLS: Mapping[str, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "deepseek": "https://api.deepseek.com",
}
TIMEOUT_TRIES = 2
LONGEST_WAIT_S = 60.0
_jitter = random.SystemRandom()

_FEEDBACK = """

Предыдущий ответ на этот запрос не принят. Ошибки:
{complaints}
Ответь заново, целиком и в том же формате JSON, исправив эти ошибки."""


@dataclass(frozen=True)
class Completion(Generic[T]):
    """An accepted answer; `cost_usd` and `usage` also count the answers that were not accepted on the way.

    `keys` are the ledger rows behind it: settle them in the transaction that stores the result.
    """

    value: T
    cost_usd: Decimal
    usage: Usage
    model_returned: str
    keys: tuple[str, ...]


@dataclass
class _Bought:
    """The answers to one question so far, in order."""

    keys: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @property
    def cost_usd(self) -> Decimal:
        return sum((answer.cost_usd for answer in self.answers), Decimal(0))

    @property
    def usage(self) -> Usage:
        return sum((answer.usage for answer in self.answers), Usage(0))

    def count_blank(self) -> int:
        return sum(1 for answer in self.answers if not answer.text.strip())


class LLMRouter:
    """Clients of the vendors for which there is a key; an async context manager, one per event loop.

    `keys`: vendor to API key. `base_urls`: vendor to address, for the vendors not at their usual one. `key_names`: vendor
    to the name under which a person set the key, for error texts. `timeout_s` bounds a whole request, since the SDKs'
    timeouts start anew with every byte. `transport` replaces the network in tests.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        base_urls: Mapping[str, str],
        *,
        timeout_s: float,
        attempts: int = 4,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        key_names: Mapping[str, str] | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._keys = dict(keys)
        self._base_urls = {**DEFAULT_BASE_URLS, **base_urls}
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._sleep = sleep
        self._key_names = dict(key_names or {})
        self._transport = transport
        self._vendors: dict[str, Vendor] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        vendors, self._vendors = list(self._vendors.values()), {}
        for vendor in vendors:
            await vendor.close()

    async def complete(self, request: LLMRequest[T], subject: Subject, ledger: Ledger) -> Completion[T]:
        """A checked answer to `request`, from the ledger as far as it has been paid for already.

        Raises LLMRefused (UnknownPrice) when the step should stop, LLMUnavailable and LLMRequestRejected when this item
        has no answer, and an LLMAnswerError when its answers are of no use.
        """
        rate(request.model, datetime.now(UTC))  # before anything is paid
        bought = _Bought()
        current = request
        corrections = 0
        while True:
            answer = await self._answer(current, subject, ledger, bought)
            if answer.finish == "refusal":
                raise LLMContentRefused(
                    f"{_named(request)} declines to answer prompt {request.prompt}: read the dialog, or use another model",
                    keys=bought.keys,
                    cost_usd=bought.cost_usd,
                )
            if answer.finish == "length":
                if current.max_output_tokens > request.max_output_tokens:
                    raise LLMTruncated(
                        f"{_named(request)} does not finish prompt {request.prompt} in {current.max_output_tokens} output "
                        "tokens: raise max_output_tokens in the portal's file",
                        keys=bought.keys,
                        cost_usd=bought.cost_usd,
                    )
                current = replace(current, max_output_tokens=2 * request.max_output_tokens)
                continue
            # DeepSeek blanks an answer that is no JSON: nothing in it to give feedback on (facts section 3).
            if not answer.text.strip():
                if bought.count_blank() > CORRECTIONS:
                    raise _invalid(request, bought, ["the answer is blank"])
                continue
            value, complaints = _judge(current, answer.text)
            if value is not None and not complaints:
                return Completion(value, bought.cost_usd, bought.usage, answer.model_returned, tuple(bought.keys))
            if corrections == request.corrections:
                raise _invalid(request, bought, complaints)
            corrections += 1
            # From the first request's text, so that the prefix stays the same and old complaints do not pile up.
            current = replace(current, user=request.user + _FEEDBACK.format(complaints="\n".join(complaints)))

    async def _answer(self, request: LLMRequest[T], subject: Subject, ledger: Ledger, bought: _Bought) -> Answer:
        key = request_key(request, subject, attempt=len(bought.keys))
        answer = await ledger.find(key)
        if answer is None:
            answer = await self._buy(request, subject, ledger, key)
        bought.keys.append(key)
        bought.answers.append(answer)
        return answer

    async def _buy(self, request: LLMRequest[T], subject: Subject, ledger: Ledger, key: str) -> Answer:
        vendor = self._vendor(request)
        asked = Asked(request.vendor, request.model, request.prompt, request.prompt_version, subject)
        timeouts = 0
        for attempt in range(1, self._attempts + 1):
            await ledger.ask(key, asked)
            try:
                answer = await self._send(vendor, request)
            except VendorFailure as error:
                failure = error
            else:
                await _finish(ledger.answered(key, answer))
                return answer
            await ledger.failed(key, failure.what)
            timeouts += failure.kind == "timeout"
            if (
                failure.kind in ("refused", "rejected", "untrusted")
                or timeouts == TIMEOUT_TRIES
                or attempt == self._attempts
            ):
                break
            await self._sleep(_wait_s(failure, attempt))
        raise self._error(request, failure, attempt)

    async def _send(self, vendor: Vendor, request: LLMRequest[T]) -> Answer:
        sent_at = datetime.now(UTC)
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(self._timeout_s):
                got = await vendor.send(request)
        except TimeoutError:
            raise VendorFailure("timeout", f"no answer within {self._timeout_s:g} s") from None
        return Answer(
            text=got.text,
            usage=got.usage,
            model_returned=got.model_returned,
            vendor_request_id=got.vendor_request_id,
            finish=got.finish,
            latency_ms=round((loop.time() - started) * 1000),
            cost_usd=cost(request.model, got.usage, sent_at),
        )

    def _vendor(self, request: LLMRequest[Any]) -> Vendor:
        name = request.vendor
        if name not in self._vendors:
            if name not in DEFAULT_BASE_URLS:
                raise LLMRefused(f"vendor {name} is unknown: use one of {', '.join(DEFAULT_BASE_URLS)}")
            if not self._keys.get(name):
                raise LLMRefused(f"no API key for {name}: set {self._key_name(name)}")
            self._vendors[name] = self._connect(name)
        return self._vendors[name]

    def _connect(self, name: str) -> Vendor:
        # The SDKs are slow to import: a step pays for the one that it uses.
        if name == "anthropic":
            from dialog_assets.llm.vendors.anthropic_messages import AnthropicMessages as Client
        else:
            from dialog_assets.llm.vendors.openai_chat import OpenAIChat as Client  # type: ignore[assignment]
        return Client(self._keys[name], self._base_urls[name], timeout_s=self._timeout_s, transport=self._transport)

    def _key_name(self, vendor: str) -> str:
        return self._key_names.get(vendor, f"the API key of {vendor}")

    def _error(self, request: LLMRequest[Any], failure: VendorFailure, attempts: int) -> LLMError:
        if failure.kind == "refused":
            return LLMRefused(
                f"{_named(request)} refuses ({failure.what}): check {self._key_name(request.vendor)}, "
                "the account's balance and region, and the model's name"
            )
        if failure.kind == "untrusted":
            return LLMRefused(f"{_named(request)} cannot be asked: {failure.what}")
        if failure.kind == "rejected":
            return LLMRequestRejected(
                f"{_named(request)} does not accept this request of prompt {request.prompt} ({failure.what}): "
                "look at the length of the dialog and at the settings of the model"
            )
        return LLMUnavailable(
            f"{_named(request)} gave no answer in {attempts} tries (last: {failure.what}): run the step again later"
        )


def _named(request: LLMRequest[Any]) -> str:
    return f"{request.vendor} {request.model}"


def _wait_s(failure: VendorFailure, attempt: int) -> float:
    """The vendor's wish, but at most a minute, or a growing pause with jitter, whichever is longer."""
    pause = min(8.0, 0.5 * 2.0 ** (attempt - 1)) * _jitter.uniform(0.75, 1.0)
    return max(min(failure.retry_after_s or 0.0, LONGEST_WAIT_S), pause)


def _judge(request: LLMRequest[T], text: str) -> tuple[T | None, list[str]]:
    """The value of the last object that has the answer's shape, before which there may be drafts, and what is wrong with it."""
    complaints: list[str] = []
    for found in reversed(json_objects(text)):
        try:
            value = request.answer.model_validate(found)
        except ValidationError as error:
            complaints = complaints or [
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}, {str(problem['input'])[:200]!r}"
                for problem in error.errors(include_url=False)[:20]
            ]
        else:
            return value, request.check(value)[:20]
    return None, complaints or ["JSON: в ответе нет целого объекта JSON"]


def _invalid(request: LLMRequest[Any], bought: _Bought, complaints: list[str]) -> LLMAnswerInvalid:
    return LLMAnswerInvalid(
        f"{_named(request)} answered prompt {request.prompt} {len(bought.keys)} times, never by its rules "
        f"({len(complaints)} complaints about the last answer): try another model, or simplify the prompt",
        keys=bought.keys,
        cost_usd=bought.cost_usd,
        complaints=complaints,
    )


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Do `work` to its end even if the step is cancelled meanwhile: the answer in hand is paid for."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
