"""Operating time is kept by method, and only the method that used it up waits."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from dialog_assets.bitrix24.client import Answer, Bitrix24Client
from dialog_assets.bitrix24.deals import Deals
from dialog_assets.bitrix24.errors import Bitrix24Error, Bitrix24LimitError
from dialog_assets.bitrix24.operating import OperatingTime
from dialog_assets_tests.bitrix24.small_portal import WEBHOOK, Freely, asked, bad, by_owner, good


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 50.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        """Now."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.slept.append(seconds)
        self.now += seconds


def told(level: float, reset_in: float = 300.0) -> dict[str, float]:
    return {"finish": 1_700_000_000.5, "operating": level, "operating_reset_at": 1_700_000_000.5 + reset_in}


def test_calls_are_spread_from_four_fifths_on() -> None:
    """Below 80 % nothing waits; above, what is left of the limit lasts until the reset; afterwards nothing waits."""
    time = Time()
    operating = OperatingTime(480, clock=time)
    operating.note("m", told(370))
    operating.note("m", told(380))
    assert operating.wait_s({"m": 1}) == 0
    operating.note("m", told(400))
    assert operating.wait_s({"other": 1}) == 0
    first, second = operating.wait_s({"m": 1}), operating.wait_s({"m": 1})
    assert first == pytest.approx(300 * 20 / 80)
    assert second == pytest.approx(2 * first)
    time.now += 301
    assert operating.wait_s({"m": 1}) == 0


def test_answers_without_operating_tell_nothing() -> None:
    """Self-hosted portals send no such fields."""
    operating = OperatingTime(480, clock=Time())
    nothings: list[object] = [None, {}, [], {"operating": "x"}, {"operating": 500.0}]
    for nothing in nothings:
        operating.note("m", nothing)
    assert operating.wait_s({"m": 1}) == 0


def portal_client(handler: Any, time: Time, **more: Any) -> Bitrix24Client:
    return Bitrix24Client(
        WEBHOOK,
        pacer=Freely(),
        sleep=time.sleep,
        operating=OperatingTime(480, clock=time),
        transport=httpx2.MockTransport(handler),
        **more,
    )


@pytest.mark.parametrize(
    "odd",
    [10**400, -(10**400), float("nan"), float("inf"), 1e300, True, "400", [400]],
    ids=lambda value: repr(value)[:8],
)
@pytest.mark.parametrize("field", ["operating", "operating_reset_at", "finish"])
def test_numbers_that_nothing_can_be_computed_with(field: str, odd: object) -> None:
    """They tell nothing: no error, and nobody waits for them."""
    operating = OperatingTime(480, clock=Time())
    operating.note("m", {**told(470), field: odd})
    assert operating.wait_s({"m": 1}) == 0


def test_a_blocked_method_waits_for_its_reset_and_others_go_on() -> None:
    """429 on one method: it comes back after its last known reset, another method is not held up."""
    time = Time()
    first = httpx2.Response(200, json={"result": 1, "time": told(100, 120)})
    answers = {"slow": [first, bad(429, "OPERATION_TIME_LIMIT"), good(2)]}
    moments: list[tuple[str, float]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        method, _ = asked(request)
        moments.append((method, time.now - 50))
        return answers[method].pop(0) if method in answers else good(0)

    async def go() -> None:
        async with portal_client(handler, time) as client:
            await client.call("slow")
            slow = asyncio.create_task(client.call("slow"))
            await client.call("quick")
            assert (await slow).result == 2

    asyncio.run(go())
    assert [method for method, _ in moments].count("quick") == 1
    assert moments[-1][0] == "slow"
    assert moments[-1][1] == pytest.approx(120)
    assert time.slept == [pytest.approx(120)]


def test_patience_ends_with_a_limit_error() -> None:
    """A method that stays blocked longer than the patience is a limit, not an endless wait."""
    time = Time()

    async def go() -> None:
        async with portal_client(lambda _: bad(429, "OPERATION_TIME_LIMIT"), time, patience_s=35.0) as client:
            await client.call("m")

    with pytest.raises(Bitrix24LimitError, match="used up"):
        asyncio.run(go())
    assert time.slept == [10.0] * 3


@pytest.mark.parametrize("billed_to", ["batch", "commands"])
def test_both_ways_of_billing_a_batch_are_seen(billed_to: str) -> None:
    """Whether the outer batch or its commands carry the time: the next batch is slowed down."""
    time = Time()
    level = {"value": 380.0}

    def handler(request: httpx2.Request) -> httpx2.Response:
        commands = asked(request)[1]["cmd"]
        level["value"] += 20
        inner = told(level["value"] if billed_to == "commands" else 0.0)
        body = {
            "result": dict.fromkeys(commands, 1),
            "result_error": [],
            "result_time": dict.fromkeys(commands, inner),
        }
        outer = told(level["value"] if billed_to == "batch" else 0.0)
        return httpx2.Response(200, json={"result": body, "time": outer})

    async def go() -> None:
        async with portal_client(handler, time) as client:
            for _ in range(3):
                await client.batch({"a": ("m", {})})

    asyncio.run(go())
    assert len(time.slept) == 2
    assert all(seconds > 30 for seconds in time.slept)


def test_blocked_commands_of_a_batch_wait_alone() -> None:
    """Of a batch with two methods only the blocked one's commands come again, after its rest."""
    rounds: list[list[str]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        keys = list(asked(request)[1]["cmd"])
        rounds.append(keys)
        blocked = {"error": "OPERATION_TIME_LIMIT", "error_description": ""}
        if len(rounds) == 1:
            return good({"result": {"b": 1}, "result_error": {"a": blocked}})
        return good({"result": dict.fromkeys(keys, 1), "result_error": []})

    async def go() -> dict[str, Answer | Bitrix24Error]:
        async with portal_client(handler, Time()) as client:
            return await client.batch({"a": ("slow", {}), "b": ("quick", {})})

    assert all(isinstance(outcome, Answer) for outcome in asyncio.run(go()).values())
    assert rounds == [["a", "b"], ["a"]]


def test_linked_commands_wait_for_their_reset_too() -> None:
    """Pages of deals that link to each other are asked for again after the rest, as often as it takes, within the patience."""
    blocked = {"error": "OPERATION_TIME_LIMIT", "error_description": ""}

    async def go(time: Time, refusals: int) -> dict[int, list[dict[str, Any]]]:
        left = refusals

        def handler(request: httpx2.Request) -> httpx2.Response:
            nonlocal left
            keys = list(asked(request)[1]["cmd"])
            left -= 1
            if left >= 0:
                return good({"result": [], "result_error": dict.fromkeys(keys, blocked)})
            return good({"result": {key: [{"ID": "3", "LEAD_ID": "7"}] for key in keys}, "result_error": []})

        async with portal_client(handler, time, patience_s=95.0) as client:
            return await by_owner(Deals(client, "lead", [7]))

    time = Time()
    assert [row["ID"] for row in asyncio.run(go(time, 8))[7]] == ["3"]
    assert time.slept == [10.0] * 8
    with pytest.raises(Bitrix24LimitError, match="used up"):
        asyncio.run(go(Time(), 100))
