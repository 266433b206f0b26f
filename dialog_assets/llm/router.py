"""The one way to a paid answer: written down, sent, priced, checked, corrected.

Here: the only retry loop of this room (facts/llm.md section 7; the SDKs' own are off), and the order of the book-keeping.
Not here: wire formats (vendors/), tables (the ledger is a port), how many requests go at once (the caller).

    complete ── answer not in the ledger? ── _buy ── vendor.send      transport failures: same key, up to `attempts` tries
        │                                     └── canary              nothing accepted or answered: is it this item, or all?
        └── judge: refused, cut off, blank, invalid ── ask once more  a new key each, every answer paid and kept

Every answer of a question counts into the next one's key, so a run after a crash walks the same path through the ledger
without paying, and goes on where the first one ended. A try that brings no answer and may be on the bill stays booked at
its estimate: it is not certain that it was not paid.

The canary is a request of a few words. Where a vendor's error leaves open whether it concerns the item or the account, and
where one item is not answered in time, it decides: if the canary is answered, the others will be, too.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
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
    LLMCeilingReached,
    LLMContentRefused,
    LLMError,
    LLMItemUnanswered,
    LLMRefused,
    LLMRequestRejected,
    LLMRequestTooLarge,
    LLMTruncated,
    LLMUnavailable,
    UnknownPrice,
)
from dialog_assets.llm.ledger import Answer, Asked, Ledger, Usage
from dialog_assets.llm.prices import cost, model_price, rate
from dialog_assets.llm.requests import CORRECTIONS, LLMRequest, Subject, estimated_tokens, request_key
from dialog_assets.llm.vendors.port import Vendor, VendorAnswer, VendorFailure

T = TypeVar("T", bound=BaseModel)

log = logging.getLogger("dialog_assets")

DEFAULT_BASE_URLS: Mapping[str, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "deepseek": "https://api.deepseek.com",
}
PERHAPS_PAID_TRIES = 2
"""How often one run sends a question of which no answer comes and which may be on the bill each time."""
LONGEST_WAIT_S = 60.0
CANARY_S = 30.0
CANARY = "canary"
"""The prompt's name in the ledger."""
_CANDIDATES = 20
"""Objects of one answer that are looked at, from the last on."""
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
        return sum(1 for answer in self.answers if answer.finish == "unknown" or not answer.text.strip())


class _Sign(BaseModel):
    """The canary's answer."""

    ok: bool


@dataclass(frozen=True)
class _Flight:
    """When a canary was sent, and what came of it: None if it was answered."""

    began: float
    failure: VendorFailure | None


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
        self._written: dict[str, tuple[int, int]] = {}  # of each prompt: answers, and tokens in them
        self._canaries: dict[str, _Flight] = {}
        self._heard: dict[str, float] = {}  # of each model: when the youngest request that was answered was sent
        self._cage = asyncio.Lock()

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
        most = model_price(request.model).caps.max_output
        first = current = replace(request, max_output_tokens=min(request.max_output_tokens, most))
        bought = _Bought()
        corrections = 0
        while True:
            answer = await self._answer(current, subject, ledger, bought)
            if answer.finish == "refusal":
                raise LLMContentRefused(
                    f"{_named(request)} declines to answer prompt {request.prompt}: read the dialog, or use another model",
                    keys=bought.keys,
                    cost_usd=bought.cost_usd,
                )
            if answer.finish in ("length", "overflow"):
                room = min(2 * first.max_output_tokens, most)
                if answer.finish == "overflow" or current.max_output_tokens >= room:
                    raise _truncated(current, bought, most, whole_context=answer.finish == "overflow")
                current = replace(current, max_output_tokens=room)
                continue
            value, complaints = _judge(current, answer.text)
            if value is not None and not complaints:
                return Completion(value, bought.cost_usd, bought.usage, answer.model_returned, tuple(bought.keys))
            # DeepSeek blanks an answer that is no JSON, others break off: nothing in it to give feedback on.
            if answer.finish == "unknown" or not answer.text.strip():
                if bought.count_blank() > CORRECTIONS:
                    raise _invalid(request, bought, ["the answer is blank or breaks off"])
                continue
            if corrections == request.corrections:
                raise _invalid(request, bought, complaints)
            corrections += 1
            # From the first request's text, so that the prefix stays the same and old complaints do not pile up.
            current = replace(current, user=request.user + _FEEDBACK.format(complaints="\n".join(complaints)))

    async def _answer(self, request: LLMRequest[T], subject: Subject, ledger: Ledger, bought: _Bought) -> Answer:
        key = request_key(request, subject, attempt=len(bought.keys))
        answer = await ledger.find(key)
        if answer is None:
            try:
                answer = await self._buy(request, subject, ledger, key)
            except LLMCeilingReached as error:
                raise LLMCeilingReached(str(error), keys=bought.keys, cost_usd=bought.cost_usd) from None
        bought.keys.append(key)
        bought.answers.append(answer)
        return answer

    async def _buy(self, request: LLMRequest[T], subject: Subject, ledger: Ledger, key: str) -> Answer:
        vendor = self._vendor(request)
        asked = self._asked(request, subject)
        began = asyncio.get_running_loop().time()
        unclear = 0
        for attempt in range(1, self._attempts + 1):
            await ledger.ask(key, asked)
            answer = await self._try(vendor, request, ledger, key)
            if isinstance(answer, Answer):
                return answer
            failure = answer
            unclear += failure.perhaps_paid
            if not _passes(failure) or unclear == PERHAPS_PAID_TRIES or attempt == self._attempts:
                break
            await self._sleep(_wait_s(failure, attempt))
        others = _passes(failure) and self._heard.get(request.model, began) > began
        raise await self._error(request, subject, ledger, failure, attempt, others_are_answered=others)

    async def _try(
        self, vendor: Vendor, request: LLMRequest[Any], ledger: Ledger, key: str, timeout_s: float | None = None
    ) -> Answer | VendorFailure:
        """Send what is written down as asked, and write down what came of it, even if the step is cancelled meanwhile."""
        try:
            answer = await self._send(vendor, request, timeout_s or self._timeout_s)
        except VendorFailure as failure:
            book = ledger.perhaps_paid if failure.perhaps_paid else ledger.failed
            await _finish(book(key, failure.what))
            return failure
        except asyncio.CancelledError:
            await _finish(ledger.perhaps_paid(key, "the run was ended before the answer came"))
            raise
        await _finish(ledger.answered(key, answer))
        return answer

    async def _send(self, vendor: Vendor, request: LLMRequest[Any], timeout_s: float) -> Answer:
        sent_at = datetime.now(UTC)
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(timeout_s):
                got = await vendor.send(request)
        except TimeoutError:
            raise VendorFailure("timeout", f"no answer within {timeout_s:g} s", perhaps_paid=True) from None
        self._heard[request.model] = max(started, self._heard.get(request.model, started))
        usage, estimated = self._usage(request, got)
        try:
            cost_usd = cost(request.model, usage, sent_at)
        except UnknownPrice:
            # Tokens of a kind without a rate; the answer is bought, so they count as ordinary ones.
            cost_usd, estimated = cost(request.model, Usage(usage.prompt, output=usage.output), sent_at), True
        return Answer(
            text=got.text,
            usage=usage,
            model_returned=got.model_returned,
            vendor_request_id=got.vendor_request_id,
            finish=got.finish,
            latency_ms=round((loop.time() - started) * 1000),
            cost_usd=cost_usd,
            estimated=estimated,
        )

    def _usage(self, request: LLMRequest[Any], got: VendorAnswer) -> tuple[Usage, bool]:
        """The tokens of an answer, and whether they are reckoned from its length because the vendor does not tell them."""
        if got.usage is None:
            log.warning("%s does not tell what an answer cost: it is booked at an estimate", _named(request))
            return Usage(request.prompt_tokens, output=estimated_tokens(request.vendor, len(got.text))), True
        answers, written = self._written.get(request.prompt, (0, 0))
        self._written[request.prompt] = (answers + 1, written + got.usage.output)
        return got.usage, False

    def _asked(self, request: LLMRequest[Any], subject: Subject) -> Asked:
        """What is written down; the estimate takes the answer to be as long as those before it, or a quarter of the prompt."""
        answers, written = self._written.get(request.prompt, (0, 0))
        output = written // answers if answers else request.prompt_tokens // 4
        usage = Usage(request.prompt_tokens, output=min(output, request.max_output_tokens))
        estimate = cost(request.model, usage, datetime.now(UTC))
        return Asked(request.vendor, request.model, request.prompt, request.prompt_version, subject, estimate)

    async def _canary(self, request: LLMRequest[Any], subject: Subject, ledger: Ledger) -> VendorFailure | None:
        """Whether the model answers anything at all at this moment: None, or why not. Those who ask at once share an answer."""
        loop = asyncio.get_running_loop()
        arrived = loop.time()
        async with self._cage:
            last = self._canaries.get(request.model)
            if last is None or last.began < arrived:
                last = _Flight(loop.time(), await self._fly(request, subject, ledger))
                self._canaries[request.model] = last
        return last.failure

    async def _fly(self, request: LLMRequest[Any], subject: Subject, ledger: Ledger) -> VendorFailure | None:
        small = LLMRequest(
            vendor=request.vendor,
            model=request.model,
            max_output_tokens=min(1000, model_price(request.model).caps.max_output),
            prompt=CANARY,
            prompt_version="1",
            system='Ответь в json: {"ok": true}',
            user="Ты отвечаешь?",
            answer=_Sign,
            check=lambda _: [],
        )
        key = f"{CANARY}/{uuid.uuid4().hex}"
        await ledger.ask(key, self._asked(small, subject))
        answer = await self._try(self._vendor(small), small, ledger, key, min(CANARY_S, self._timeout_s))
        if isinstance(answer, VendorFailure):
            return answer
        await _finish(ledger.set_aside(key, CANARY))
        return None

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

    async def _error(
        self,
        request: LLMRequest[Any],
        subject: Subject,
        ledger: Ledger,
        failure: VendorFailure,
        attempts: int,
        *,
        others_are_answered: bool,
    ) -> LLMError:
        own = others_are_answered or failure.kind in ("rejected", "too_large")
        slow = _passes(failure) and (failure.status == 429 or failure.perhaps_paid)
        if not own and (slow or failure.kind == "unclear"):
            why = await self._canary(request, subject, ledger)
            own = why is None
            if why is not None and not _passes(why):
                failure = VendorFailure("refused", f"{why.what} also to a small request", status=why.status)
            elif why is not None:
                failure = VendorFailure("transient", failure.what if _passes(failure) else why.what)
        if failure.kind == "too_large":
            return LLMRequestTooLarge(
                f"{_named(request)} does not accept this request of prompt {request.prompt} ({failure.what}): it is longer "
                "than the model or the account's limit of tokens a minute allows"
            )
        if own and _passes(failure):
            return LLMItemUnanswered(
                f"{_named(request)} gave no answer to prompt {request.prompt} in {attempts} tries (last: {failure.what}), "
                "though it answers others: the next run tries again"
            )
        if own:
            return LLMRequestRejected(
                f"{_named(request)} does not accept this request of prompt {request.prompt} ({failure.what}), though it "
                "answers a small question: look at the length of the dialog and at the settings of the model"
            )
        if failure.kind == "untrusted":
            return LLMRefused(f"{_named(request)} cannot be asked: {failure.what}")
        if failure.kind == "refused":
            return LLMRefused(
                f"{_named(request)} refuses ({failure.what}): check {self._key_name(request.vendor)}, "
                "the account's balance and limits, its region, the vendor's address, and the model's name"
            )
        return LLMUnavailable(
            f"{_named(request)} gave no answer in {attempts} tries (last: {failure.what}): run the step again later"
        )


def _passes(failure: VendorFailure) -> bool:
    """Whether another try may do."""
    return failure.kind in ("transient", "timeout")


def _named(request: LLMRequest[Any]) -> str:
    return f"{request.vendor} {request.model}"


def _wait_s(failure: VendorFailure, attempt: int) -> float:
    """The vendor's wish, but at most a minute, or a growing pause with jitter, whichever is longer."""
    pause = min(8.0, 0.5 * 2.0 ** (attempt - 1)) * _jitter.uniform(0.75, 1.0)
    return max(min(failure.retry_after_s or 0.0, LONGEST_WAIT_S), pause)


def _judge(request: LLMRequest[T], text: str) -> tuple[T | None, list[str]]:
    """The value of the last object that has the answer's shape, before which there may be drafts, and what is wrong with it."""
    complaints: list[str] = []
    for found in json_objects(text)[: -_CANDIDATES - 1 : -1]:
        try:
            value = request.answer.model_validate(found)
        except ValidationError as error:
            complaints = complaints or [
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}, {str(problem['input'])[:200]!r}"
                for problem in error.errors(include_url=False)[:20]
            ]
            continue
        try:
            return value, request.check(value)[:20]
        except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError) as error:
            # What no rule foresaw about an answer is the answer's mistake: it must not stop whoever reads it next.
            return None, [f"the answer cannot be checked ({type(error).__name__})"]
    return None, complaints or ["JSON: в ответе нет целого объекта JSON"]


def _truncated(request: LLMRequest[Any], bought: _Bought, most: int, *, whole_context: bool) -> LLMTruncated:
    told = f"does not finish prompt {request.prompt} in {request.max_output_tokens} output tokens"
    if whole_context:
        told = f"does not finish prompt {request.prompt} in its whole context"
    elif request.max_output_tokens < most:
        told += ": raise max_output_tokens in the portal's file"
    else:
        told += ", the most that it can write: use another model"
    return LLMTruncated(f"{_named(request)} {told}", keys=bought.keys, cost_usd=bought.cost_usd)


def _invalid(request: LLMRequest[Any], bought: _Bought, complaints: list[str]) -> LLMAnswerInvalid:
    return LLMAnswerInvalid(
        f"{_named(request)} answered prompt {request.prompt} {len(bought.keys)} times, never by its rules "
        f"({len(complaints)} complaints about the last answer): try another model, or simplify the prompt",
        keys=bought.keys,
        cost_usd=bought.cost_usd,
        complaints=complaints,
    )


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Do `work` to its end even if the step is cancelled meanwhile: what is in hand is paid for.

    It holds as long as nobody cancels every task of the loop, as `asyncio.run` does when its own one has ended: a step
    therefore ends its items before itself (worklist).
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
