"""Calls and batches over the transport: retries, partial failures, secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from typing import Any

import httpx2
import pytest

from dialog_assets.bitrix24.client import Answer, Bitrix24Client
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24Error,
    Bitrix24LimitError,
    Bitrix24RequestError,
    Bitrix24UnavailableError,
)
from dialog_assets_tests.bitrix24.small_portal import SECRET, WEBHOOK, Freely, Naps, asked, bad, client_of, good


def run(client: Bitrix24Client, method: str = "user.get", params: dict[str, Any] | None = None) -> Answer:
    async def go() -> Answer:
        async with client:
            return await client.call(method, params)

    return asyncio.run(go())


def test_a_call_posts_json_to_the_method() -> None:
    """One POST with JSON to the webhook's method; result, total and next come back."""

    def portal(request: httpx2.Request) -> httpx2.Response:
        assert request.method == "POST"
        assert str(request.url) == f"{WEBHOOK}user.get.json"
        assert request.headers["content-type"] == "application/json"
        assert asked(request) == ("user.get", {"FILTER": {"NAME": "Ёж"}})
        return good([{"ID": "1"}], total=70, next=50)

    answer = run(client_of(portal), params={"FILTER": {"NAME": "Ёж"}})
    assert (answer.result, answer.total, answer.next) == ([{"ID": "1"}], 70, 50)
    assert "ID" not in repr(answer)


@pytest.mark.parametrize(
    ("told", "count"),
    [(70, 70), ("70", 70), (70.0, 70), (0, 0), (-1, None), (10**400, None), (2**63, None), ("1_0", None), ("٧", None),
     (True, None), (None, None), ([70], None), (7.5, None), (float("inf"), None)],
    ids=lambda value: repr(value)[:12],
)  # fmt: skip
def test_counts_are_numbers_of_rows(told: object, count: int | None) -> None:
    """Whatever is no such number tells nothing: shares of it would be computed."""
    body = json.dumps({"result": [], "total": told, "next": told}).encode()
    answer = run(client_of(lambda _: httpx2.Response(200, content=body)))
    assert (answer.total, answer.next) == (count, count)


def test_passing_troubles_are_retried() -> None:
    """503, 500, HTML, an empty body, a reset and a timeout pass; each request is paced, the bucket's wait is the longest."""
    troubles = [
        bad(503, "QUERY_LIMIT_EXCEEDED"),
        bad(500, "INTERNAL_SERVER_ERROR"),
        httpx2.Response(502, html="<html>"),
    ]
    answers: list[Any] = [*troubles, httpx2.Response(200), httpx2.ReadError("x"), httpx2.ReadTimeout("x"), good(1)]

    def portal(request: httpx2.Request) -> httpx2.Response:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, httpx2.Response)
        return answer

    pacer, naps = Freely(), Naps()
    assert run(client_of(portal, attempts=7, pacer=pacer, sleep=naps)).result == 1
    assert pacer.taken == 7
    assert len(naps.lengths) == 6
    assert naps.lengths[0] >= 1.8


@pytest.mark.parametrize(
    ("answer", "kind", "requests"),
    [
        (bad(401, "INVALID_CREDENTIALS"), Bitrix24AccessError, 1),
        (bad(200, "ERROR_ARGUMENT"), Bitrix24RequestError, 1),
        (bad(503, "QUERY_LIMIT_EXCEEDED"), Bitrix24LimitError, 3),
        (httpx2.Response(502, html="<html>"), Bitrix24UnavailableError, 3),
    ],
)
def test_what_stays_wrong_is_raised(answer: httpx2.Response, kind: type[Bitrix24Error], requests: int) -> None:
    """Hopeless errors cost one request, passing ones the attempts and no more."""
    pacer = Freely()
    with pytest.raises(kind) as caught:
        run(client_of(lambda _: answer, attempts=3, pacer=pacer))
    assert type(caught.value) is kind
    assert pacer.taken == requests


def test_no_error_nor_log_holds_the_webhook(caplog: pytest.LogCaptureFixture) -> None:
    """The secret is in no text, traceback, cause, context, repr or log line, also when the portal repeats it in an error."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="httpx2")

    def reset(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError(f"cannot reach {request.url}", request=request)

    def repeating(_: httpx2.Request) -> httpx2.Response:
        return bad(400, "X", f"no method at {SECRET}-x in {WEBHOOK}")

    for portal in (reset, repeating):
        client = client_of(portal, attempts=1)
        with pytest.raises(Bitrix24Error) as caught:
            run(client)
        chain: BaseException | None = caught.value
        while chain is not None:
            assert SECRET not in f"{chain!r} {chain}"
            chain = chain.__cause__ or chain.__context__
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert SECRET not in repr(client)
    run(client_of(lambda _: good(1)))
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "url", ["", "portal.example", "https://portal.example/", "ftp://p/rest/1/x/", "https://p:x/rest/1/s3c/"]
)
def test_a_malformed_webhook_is_refused_without_repeating_it(url: str) -> None:
    """A wrong URL stops before any request, and is not shown."""
    with pytest.raises(Bitrix24AccessError) as caught:
        Bitrix24Client(url, pacer=Freely())
    assert "https://PORTAL/rest/USER/SECRET/" in str(caught.value)
    assert "s3c" not in str(caught.value)


def test_a_renamed_portal_is_followed_and_remembered() -> None:
    """302 repeats the POST at the new domain; the next call goes there at once."""
    seen: list[tuple[str, str, bytes]] = []

    def portal(request: httpx2.Request) -> httpx2.Response:
        seen.append((request.method, request.url.netloc.decode(), request.content))
        if request.url.host == "portal.example":
            return httpx2.Response(302, headers={"Location": f"https://new.example:8443{request.url.path}"})
        return good(1)

    async def go() -> str:
        async with client_of(portal) as client:
            await client.call("profile", {"a": 1})
            await client.call("profile", {"a": 1})
            return client.origin

    assert asyncio.run(go()) == "https://new.example:8443"
    assert seen == [("POST", host, b'{"a": 1}') for host in ("portal.example", "new.example:8443", "new.example:8443")]


@pytest.mark.parametrize(
    "location", ["https://evil.example/login", f"http://new.example/rest/7/{SECRET}/profile.json", ""]
)
def test_other_redirects_are_not_followed(location: str) -> None:
    """A login page or a fall to plain http gets nothing from us."""
    hosts: list[str] = []

    def portal(request: httpx2.Request) -> httpx2.Response:
        hosts.append(str(request.url.host))
        return httpx2.Response(302, headers={"Location": location})

    with pytest.raises(Bitrix24AccessError):
        run(client_of(portal), "profile")
    assert hosts == ["portal.example"]


def batch(client: Bitrix24Client, number: int) -> dict[str, Answer | Bitrix24Error]:
    async def go() -> dict[str, Answer | Bitrix24Error]:
        async with client:
            return await client.batch({f"k{n}": ("m.get", {"id": n}) for n in range(number)})

    return asyncio.run(go())


def test_a_batch_is_split_and_every_key_comes_back() -> None:
    """120 commands are three requests of at most 50, answers in the order asked."""
    sizes: list[int] = []

    def portal(request: httpx2.Request) -> httpx2.Response:
        commands = asked(request)[1]["cmd"]
        sizes.append(len(commands))
        result = {key: text.partition("=")[2] for key, text in commands.items()}
        return good({"result": result, "result_error": [], "result_total": [], "result_next": []})

    outcomes = batch(client_of(portal), 120)
    assert sizes == [50, 50, 20]
    assert [answer.result for answer in outcomes.values() if isinstance(answer, Answer)] == [str(n) for n in range(120)]


def test_only_failed_and_missing_commands_are_sent_again() -> None:
    """A passing error and a command that is in neither section are repeated, a final error is not, results are kept."""
    rounds: list[list[str]] = []

    def portal(request: httpx2.Request) -> httpx2.Response:
        keys = list(asked(request)[1]["cmd"])
        rounds.append(keys)
        first = len(rounds) == 1
        result = {key: None for key in keys if not (first and key in ("k1", "k2")) and key != "k3"}
        errors: dict[str, Any] = {"k3": {"error": "ERROR_NOT_FOUND", "error_description": "no"}} if "k3" in keys else {}
        if first:
            errors["k1"] = {"error": "OPERATION_TIME_LIMIT", "error_description": ""}
        return good({"result": result or [], "result_error": errors or []})

    naps = Naps()
    outcomes = batch(client_of(portal, sleep=naps), 5)
    assert rounds == [["k0", "k1", "k2", "k3", "k4"], ["k1", "k2"]]
    assert [type(outcome) for outcome in outcomes.values()] == [Answer, Answer, Answer, Bitrix24RequestError, Answer]
    assert naps.lengths[-1] >= 9, "an operating-time limit waits longer than a passing error"


def test_a_command_that_is_never_run_is_an_error() -> None:
    """A portal that leaves a command out for good does not lose it silently."""
    outcomes = batch(client_of(lambda _: good({"result": {"k0": 1}, "result_error": []}), attempts=2), 2)
    assert isinstance(outcomes["k0"], Answer)
    missing = outcomes["k1"]
    assert isinstance(missing, Bitrix24UnavailableError)
    assert missing.code == "not_run"


def test_list_shaped_sections_are_read_by_number() -> None:
    """PHP sends a map with keys 0..n-1 as a list."""

    async def go() -> dict[str, Answer | Bitrix24Error]:
        def portal(_: httpx2.Request) -> httpx2.Response:
            return good({"result": ["a", "b"], "result_error": [], "result_total": [7, 8], "result_next": []})

        async with client_of(portal) as client:
            return await client.batch({"0": ("m", {}), "1": ("m", {})})

    assert asyncio.run(go()) == {"0": Answer("a", 7), "1": Answer("b", 8)}


def test_a_batch_that_fails_as_a_whole_raises() -> None:
    """A refused credential on the outer batch is one error, not fifty."""
    with pytest.raises(Bitrix24AccessError):
        batch(client_of(lambda _: bad(401, "NO_AUTH_FOUND")), 3)
