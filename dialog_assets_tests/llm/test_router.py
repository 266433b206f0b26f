"""Paid once, tried as often as it makes sense, checked before it is used."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from dialog_assets.llm.errors import (
    LLMAnswerInvalid,
    LLMContentRefused,
    LLMError,
    LLMRefused,
    LLMRequestRejected,
    LLMTruncated,
    LLMUnavailable,
    UnknownPrice,
)
from dialog_assets.llm.ledger import Answer, Usage
from dialog_assets.llm.requests import LLMRequest, request_key
from dialog_assets.llm.router import Completion, LLMRouter
from dialog_assets_tests.llm.support import (
    KEYS,
    SUBJECT,
    MemoryLedger,
    Number,
    Wire,
    chat_body,
    failing,
    ok,
    question,
    routed,
)

ONE_ANSWER = Decimal("0.0001395")  # chat_body's tokens at gpt-6-luna


def complete(router: LLMRouter, ledger: MemoryLedger, request: LLMRequest[Number] | None = None) -> Completion[Number]:
    async def go() -> Completion[Number]:
        async with router:
            return await router.complete(request or question(), SUBJECT, ledger)

    return asyncio.run(go())


def test_good_answer() -> None:
    """An answer is written down before it is sent for and before it is used, and says what it cost."""
    ledger = MemoryLedger()
    done = complete(routed(Wire([ok(chat_body('```json\n{"number": 3}\n```'))])), ledger)
    key = request_key(question(), SUBJECT)
    assert ledger.log == [("ask", key), ("answered", key)]
    assert (done.value.number, done.cost_usd, done.keys) == (3, ONE_ANSWER, (key,))
    assert done.usage == Usage(500, 200, 300, 0, 100, 40)
    assert done.model_returned == "gpt-6-luna-2026-09-01"


def test_paid_answer_is_not_bought_again() -> None:
    """A second run takes the first one's answer from the ledger, with no request and the same cost."""
    ledger = MemoryLedger()
    first = complete(routed(Wire([ok(chat_body())])), ledger)
    wire = Wire([failing(500)])
    again = complete(routed(wire), ledger)
    assert again == first
    assert wire.sent == []


def test_transport_failures_keep_the_key() -> None:
    """Failed tries are counted under one key, wait what the vendor wishes but at most a minute, and then succeed."""
    naps: list[float] = []
    ledger = MemoryLedger()
    replies = [failing(429, {"retry-after": "7"}), failing(529, {"retry-after": "3600"}), httpx2.ConnectError("x")]
    done = complete(routed(Wire([*replies, ok(chat_body())]), naps), ledger)
    assert ledger.steps == ["ask", "failed"] * 3 + ["ask", "answered"]
    assert {key for _, key in ledger.log} == set(done.keys)
    assert naps[:2] == [7.0, 60.0]
    assert 1.5 <= naps[2] <= 2.0
    assert done.cost_usd == ONE_ANSWER


def test_tries_end() -> None:
    """After its tries the router gives up on the item with one sentence, and does not wait in vain."""
    naps: list[float] = []
    wire = Wire([failing(503)])
    with pytest.raises(LLMUnavailable, match=r"openai gpt-6-luna gave no answer in 4 tries \(last: HTTP 503\)"):
        complete(routed(wire, naps), MemoryLedger())
    assert (len(wire.sent), len(naps)) == (4, 3)


def test_timeout_is_total_and_tried_once_more() -> None:
    """A request that dawdles is cut off by the total time, and tried only once more, for each may be billed."""

    async def dawdle(_request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(600)
        raise AssertionError

    ledger = MemoryLedger()
    router = routed(Wire([]), timeout_s=0.05, transport=httpx2.MockTransport(dawdle))
    with pytest.raises(LLMUnavailable, match="2 tries"):
        complete(router, ledger)
    # What is asked is counted, not what reaches the wire: the SDK's first request may take longer than that to leave.
    # The third is the canary, which is not answered either.
    assert ledger.steps == ["ask", "perhaps_paid"] * 3
    assert ledger.reasons == ["no answer within 0.05 s"] * 3
    assert len({key for _, key in ledger.log}) == 2


@pytest.mark.parametrize("status", [401, 402, 403])
def test_refused_key_stops_at_once(status: int) -> None:
    """A refused key is asked once; the error names vendor and variable, never the key or the vendor's words."""
    wire = Wire([failing(status)])
    ledger = MemoryLedger()
    with pytest.raises(LLMRefused, match=f"openai gpt-6-luna refuses .HTTP {status}.*OKNA_OPENAI_KEY") as caught:
        complete(routed(wire, key_names={"openai": "OKNA_OPENAI_KEY"}), ledger)
    assert len(wire.sent) == 1
    assert ledger.steps == ["ask", "failed"]
    assert KEYS["openai"] not in str(caught.value) + repr(caught.value)


def test_exhausted_quota_stops_at_once() -> None:
    """OpenAI's 429 for an empty balance is no rate limit."""
    wire = Wire([failing(429, {"retry-after": "1"}, code="insufficient_quota")])
    with pytest.raises(LLMRefused, match="insufficient_quota"):
        complete(routed(wire), MemoryLedger())
    assert len(wire.sent) == 1


def test_rejected_request_fails_its_item_only() -> None:
    """A request that the vendor cannot take fails without a second try, and does not look like a broken key."""
    wire = Wire([failing(400, code="context_length_exceeded")])
    with pytest.raises(LLMRequestRejected, match="context_length_exceeded") as caught:
        complete(routed(wire), MemoryLedger())
    assert len(wire.sent) == 1
    assert not isinstance(caught.value, LLMRefused)


def test_missing_key_and_unknown_price_come_before_the_ledger() -> None:
    """Without a key or a price nothing is sent and nothing is written down."""
    for request, error in ((question(vendor="deepseek"), LLMRefused), (question(model="gpt-9"), UnknownPrice)):
        ledger = MemoryLedger()
        with pytest.raises(error):
            complete(LLMRouter({"openai": "k"}, {}, timeout_s=1), ledger, request)
        assert ledger.log == []


def test_feedback_is_a_fresh_request_with_the_same_prefix() -> None:
    """An answer against the rules is asked for again with its mistakes named; every answer is paid, kept and counted."""
    wire = Wire([ok(chat_body('{"number": "много"}')), ok(chat_body('{"number": 12}')), ok(chat_body('{"number": 2}'))])
    ledger = MemoryLedger()
    done = complete(routed(wire), ledger)
    assert done.value.number == 2
    assert done.cost_usd == 3 * ONE_ANSWER
    assert len(set(done.keys)) == 3
    assert set(done.keys) == set(ledger.answers)
    users = [wire.body(number)["messages"][1]["content"] for number in range(3)]
    assert all(user.startswith(users[0]) for user in users)
    assert "number" in users[1]
    assert "'много'" in users[1]
    assert "12 больше девяти" in users[2]
    assert "много'" not in users[2]
    assert [len(wire.body(number)["messages"]) for number in range(3)] == [2, 2, 2]


def test_same_mistake_twice_is_still_two_purchases() -> None:
    """A repeated mistake leads to another request, not to the ledger's own wrong answer; then the item fails."""
    wire = Wire([ok(chat_body('{"number": 12}'))])
    ledger = MemoryLedger()
    with pytest.raises(LLMAnswerInvalid, match="3 times") as caught:
        complete(routed(wire), ledger)
    assert len(wire.sent) == 3
    assert caught.value.complaints == ("number: 12 больше девяти",)
    assert caught.value.cost_usd == 3 * ONE_ANSWER
    assert set(caught.value.keys) == set(ledger.answers)
    assert "12" not in str(caught.value)


def test_cut_answer_gets_twice_the_room_once() -> None:
    """A cut answer is never parsed; it is asked for once more with twice the limit."""
    wire = Wire([ok(chat_body('{"number": 1}', "length")), ok(chat_body('{"number": 2}'))])
    done = complete(routed(wire), MemoryLedger())
    assert done.value.number == 2
    assert [wire.body(number)["max_completion_tokens"] for number in range(2)] == [500, 1000]
    wire = Wire([ok(chat_body('{"number": 1}', "length"))])
    with pytest.raises(LLMTruncated, match="1000 output tokens") as caught:
        complete(routed(wire), MemoryLedger())
    assert len(wire.sent) == 2
    assert caught.value.cost_usd == 2 * ONE_ANSWER


def test_blank_answer_is_asked_again_unchanged() -> None:
    """A blank is tried again with the same words, up to two times more."""
    wire = Wire([ok(chat_body("  \n")), ok(chat_body())])
    done = complete(routed(wire), MemoryLedger())
    assert wire.body(0) == wire.body(1)
    assert len(set(done.keys)) == 2
    wire = Wire([ok(chat_body(" "))])
    with pytest.raises(LLMAnswerInvalid):
        complete(routed(wire), MemoryLedger())
    assert len(wire.sent) == 3


def test_refusal_is_final() -> None:
    """A model that declines is not asked again."""
    wire = Wire([ok(chat_body(None, refusal="Не могу."))])
    with pytest.raises(LLMContentRefused) as caught:
        complete(routed(wire), MemoryLedger())
    assert len(wire.sent) == 1
    assert len(caught.value.keys) == 1


def test_killed_between_answers_goes_on_where_it_was() -> None:
    """A run after a crash walks through the paid answers of the first one and buys only the next."""
    ledger = MemoryLedger()
    with pytest.raises(LLMUnavailable):
        complete(routed(Wire([ok(chat_body('{"number": 12}')), failing(500)])), ledger)
    assert len(ledger.answers) == 1
    wire = Wire([ok(chat_body('{"number": 2}'))])
    done = complete(routed(wire), ledger)
    assert len(wire.sent) == 1
    assert "12 больше девяти" in wire.body()["messages"][1]["content"]
    assert done.cost_usd == 2 * ONE_ANSWER


def test_cancelled_while_booking_keeps_the_answer() -> None:
    """SIGTERM while a paid answer is being written down does not lose it."""

    class SlowLedger(MemoryLedger):
        async def answered(self, key: str, answer: Answer) -> None:
            writing.set()
            await asyncio.sleep(0.05)
            await super().answered(key, answer)

    async def go() -> None:
        async with routed(Wire([ok(chat_body())])) as router:
            task = asyncio.create_task(router.complete(question(), SUBJECT, ledger))
            await writing.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    ledger = SlowLedger()
    writing = asyncio.Event()
    asyncio.run(go())
    assert len(ledger.answers) == 1


def test_all_errors_have_one_root() -> None:
    """A caller may catch LLMError for all of them."""
    kinds: list[type[Any]] = [LLMAnswerInvalid, LLMContentRefused, LLMRefused, LLMRequestRejected, LLMTruncated]
    assert all(issubclass(kind, LLMError) for kind in [*kinds, LLMUnavailable, UnknownPrice])
