"""Readers give every row exactly once, and notice when the portal ignores what it was asked."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.downloads import Place
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24DataError,
    Bitrix24RequestError,
    Bitrix24UnavailableError,
    RecordingUnavailableError,
)
from dialog_assets.bitrix24.reading import Deals, calls, crm, users
from dialog_assets.bitrix24.recordings import Recordings, Wanted
from dialog_assets_tests.bitrix24.small_portal import (
    END,
    SECRET,
    START,
    Statistic,
    asked,
    bad,
    by_id,
    by_method,
    by_owner,
    client_of,
    good,
)


def read_rows(portal: Statistic) -> list[list[dict[str, Any]]]:
    async def go() -> list[list[dict[str, Any]]]:
        async with client_of(portal) as client:
            return [page async for page in calls(client, START, END)]

    return asyncio.run(go())


def read(client: Bitrix24Client) -> list[list[int]]:
    async def go() -> list[list[int]]:
        async with client:
            return [[int(row["ID"]) for row in page] async for page in calls(client, START, END)]

    return asyncio.run(go())


sizes = st.one_of(st.sampled_from([0, 1, 49, 50, 51, 100, 250, 251, 1300]), st.integers(0, 700))


@settings(max_examples=60)
@given(size=sizes, step=st.integers(1, 9), counts=st.booleans(), orders=st.booleans(), filters_ids=st.booleans())
def test_every_call_once_whatever_the_portal_honours(
    *, size: int, step: int, counts: bool, orders: bool, filters_ids: bool
) -> None:
    """By ranges of ids or by offset, with or without a working order, count or filter by id: all ids, each once."""
    ids = [7 + number * step for number in range(size)]
    portal = Statistic(ids, counts=counts, orders=orders, filters_ids=filters_ids)
    found = [call_id for page in read(client_of(portal)) for call_id in page]
    assert sorted(found) == ids


@settings(max_examples=60)
@given(
    ids=st.sets(st.one_of(st.integers(1, 400), st.integers(1, 30_000)), max_size=800),
    late=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 40_000)), max_size=300),
    seed=st.integers(0, 3),
)
def test_calls_that_appear_meanwhile_disturb_nothing(ids: set[int], late: list[tuple[int, int]], seed: int) -> None:
    """Any interleaving of inserts, in gaps and behind the end, and any order of answers: what was there comes once."""
    arrivals = list(late)

    def insert(portal: Statistic) -> None:
        while arrivals and arrivals[0][0] == 0:
            new = arrivals.pop(0)[1]
            if new not in portal.rows:
                portal.add(new)
        if arrivals:
            arrivals[0] = (arrivals[0][0] - 1, arrivals[0][1])

    portal = Statistic(ids, on_page=insert)
    portal.on_page = None
    order = random.Random(seed)

    async def handler(request: httpx2.Request) -> httpx2.Response:
        for _ in range(order.randrange(5)):
            await asyncio.sleep(0)
        answer = portal(request)
        for _ in range(order.randrange(5)):
            await asyncio.sleep(0)
        portal.on_page = insert
        return answer

    found = [call_id for page in read(client_of(handler)) for call_id in page]
    assert len(found) == len(set(found))
    assert ids <= set(found)


@settings(max_examples=80)
@given(
    size=sizes,
    step=st.integers(1, 9),
    nameless=st.one_of(st.sets(st.integers(0, 700)), st.integers(0, 700).map(lambda low: set(range(low, low + 120)))),
    counts=st.booleans(),
    orders=st.booleans(),
    filters_ids=st.booleans(),
)
def test_rows_without_a_readable_id_disturb_no_other(
    *, size: int, step: int, nameless: set[int], counts: bool, orders: bool, filters_ids: bool
) -> None:
    """Wherever they stand, single or as whole pages: every id comes once, and they come too, once where ids can be used."""
    ids = [7 + number * step for number in range(size)]
    hidden = {ids[place] for place in nameless if place < size}
    portal = Statistic(ids, counts=counts, orders=orders, filters_ids=filters_ids, nameless=hidden)

    found = [row for page in read_rows(portal) for row in page]
    assert sorted(int(row["ID"]) for row in found if row["ID"]) == sorted(set(ids) - hidden)
    came = [int(row["CALL_ID"]) for row in found if not row["ID"]]
    assert set(came) == hidden
    if orders and filters_ids and len(hidden) < 50:
        assert len(came) == len(hidden)


def test_a_portal_that_stops_honouring_the_order_in_mid_batch_loses_no_row() -> None:
    """What came in order before counts as read, so it is given, and the rest is read by offset."""
    ids = range(1, 3001)
    portal = Statistic(ids, counts=True, on_page=lambda portal: setattr(portal, "orders", portal.pages < 20))
    assert sorted(call_id for page in read(client_of(portal)) for call_id in page) == list(ids)


def test_a_row_without_a_readable_id_costs_no_requests() -> None:
    """20,050 calls of which three have none are read in the same ten requests."""
    portal = Statistic(range(1, 20_051), nameless={50, 5_000, 20_050})
    assert sum(map(len, read_rows(portal))) == 20_050
    assert portal.requests == 1 + 8 + 1


def test_dense_history_is_read_in_full_batches() -> None:
    """20,100 calls whose ids have no gaps: one request for both ends, then eight of fifty full pages and the tail's."""
    portal = Statistic(range(1, 20_101))
    pages = read(client_of(portal))
    assert portal.requests == 1 + 8 + 1
    assert sorted(len(page) for page in pages) == [100] + [2500] * 8


@pytest.mark.parametrize("share", [0.95, 0.7, 0.3, 0.02])
def test_scattered_history_costs_few_requests_more(share: float) -> None:
    """Where ids have gaps, ranges overflow or stay short: at most half as many requests again."""
    numbers = random.Random(1)
    ids = numbers.sample(range(1, int(20_000 / share)), 20_000)
    portal = Statistic(ids)
    found = [call_id for page in read(client_of(portal)) for call_id in page]
    assert sorted(found) == sorted(ids)
    assert portal.requests <= 1.5 * 20_000 / 2500 + 2


def test_a_crowd_after_one_stray_id_is_found_fast() -> None:
    """A back-dated import far below the day's ids does not make the day a chain of single pages."""
    portal = Statistic([5, *range(1_000_000, 1_006_000)])
    found = [call_id for page in read(client_of(portal)) for call_id in page]
    assert len(found) == len(set(found)) == 6001
    assert portal.requests <= 8


@pytest.mark.parametrize(
    ("size", "requests"), [(0, 1), (49, 1), (50, 1), (51, 1), (99, 1), (100, 1), (101, 2), (2500, 2)]
)
def test_a_small_day_costs_one_or_two_requests(size: int, requests: int) -> None:
    """One where the first page and the last one meet, else one more for what lies between and above them."""
    portal = Statistic(range(1, size + 1))
    found = [call_id for page in read(client_of(portal)) for call_id in page]
    assert sorted(found) == list(range(1, size + 1))
    assert portal.requests == requests


def test_a_last_page_that_is_none_is_not_taken_for_one() -> None:
    """Where DESC is not honoured, only the ids of that page are used: how far they go."""

    def handler(request: httpx2.Request) -> httpx2.Response:
        content = request.content.replace(b"ORDER=DESC", b"ORDER=ASC")
        return portal(httpx2.Request("POST", request.url, content=content))

    portal = Statistic(range(1, 301))
    assert sorted(call_id for page in read(client_of(handler)) for call_id in page) == list(range(1, 301))


def test_leaving_early_leaves_no_request_behind() -> None:
    """Who stops after the first list stops the requests under way too."""
    portal = Statistic(range(1, 60_001))
    tasks: list[int] = []

    async def go() -> None:
        async with client_of(portal) as client, aclosing(calls(client, START, END)) as pages:
            async for page in pages:
                if len(page) > 50:
                    break
        tasks.append(len(asyncio.all_tasks()))

    asyncio.run(go())
    assert tasks == [1]


def test_rows_that_come_while_reading_by_offset_are_neither_lost_nor_doubled() -> None:
    """Calls inserted between pages appear once."""

    def insert(portal: Statistic) -> None:
        if portal.pages % 2 == 0 and len(portal.rows) < 400:
            portal.add(1000 + len(portal.rows))

    portal = Statistic(range(1, 161), filters_ids=False, on_page=insert)
    found = [call_id for page in read(client_of(portal)) for call_id in page]
    assert len(found) == len(set(found))
    assert set(range(1, 161)) <= set(found)


def test_a_row_that_goes_away_while_reading_by_offset_hides_no_other() -> None:
    """What shifts to an earlier page is found by another pass."""

    def delete(portal: Statistic) -> None:
        if portal.pages == 4:
            portal.rows.pop(3, None)

    portal = Statistic(range(1, 161), filters_ids=False, on_page=delete)
    found = [call_id for page in read(client_of(portal)) for call_id in page]
    assert sorted(found) in ([*range(1, 161)], [number for number in range(1, 161) if number != 3])


def test_ignored_ids_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """The slow way is not taken in silence."""
    read(client_of(Statistic(range(1, 161), filters_ids=False)))
    assert "by offset" in caplog.text


def test_a_dropped_date_filter_is_noticed() -> None:
    """A call outside the window is an error that names the call, not a page."""
    portal = Statistic([1, 2], filters_dates=False)
    portal.rows[2]["CALL_START_DATE"] = (END + timedelta(seconds=1)).isoformat()
    with pytest.raises(Bitrix24DataError, match="call 2 lies outside"):
        read(client_of(portal))


def test_a_failing_page_is_read_again_alone() -> None:
    """A passing error of one command costs a request with that command, not a page."""
    portal = Statistic(range(1, 301))
    struck: list[int] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        body: Any = portal(request).json()
        struck.append(len(asked(request)[1]["cmd"]))
        if len(struck) == 2:
            del body["result"]["result"]["r2"]
            body["result"]["result_error"] = {"r2": {"error": "INTERNAL_SERVER_ERROR", "error_description": ""}}
        return httpx2.Response(200, json=body)

    assert sorted(call_id for page in read(client_of(handler)) for call_id in page) == list(range(1, 301))
    assert struck == [2, 5, 1]


def test_a_portal_that_hides_rows_is_an_error() -> None:
    """When the count says more than ever comes, the window is not taken as read."""
    portal = Statistic(range(1, 41))

    def handler(request: httpx2.Request) -> httpx2.Response:
        body: Any = portal(request).json()
        if isinstance(body["result"], dict):
            body["result"]["result_total"] = {"first": 41}
        return httpx2.Response(200, json={**body, "total": 41})

    with pytest.raises(Bitrix24DataError, match="counts 41 calls but gave 40"):
        read(client_of(handler))


def numbers(value: Any) -> list[int]:
    return [int(entry) for entry in value.values()]


def test_users_and_crm_objects_by_id() -> None:
    """Pages of 50 ids in batches; ids that the portal lacks are told, doubles are asked once."""
    asked: list[list[int]] = []

    def list_of(ids: list[int]) -> list[dict[str, str]]:
        asked.append(ids)
        return [{"ID": str(number)} for number in ids if number % 7]

    portal = by_method(
        {
            "user.get": lambda params: list_of(numbers(params["FILTER"]["ID"])),
            "crm.lead.list": lambda params: list_of(numbers(params["filter"]["@ID"])),
        }
    )

    async def go() -> tuple[Any, Any, Any]:
        async with client_of(portal) as client:
            wanted = [*range(1, 121), 1, 2]
            streams = users(client, wanted), crm(client, "lead", wanted), crm(client, "lead", [])
            people, leads, none = [await by_id(stream) for stream in streams]
            return people, leads, none

    people, leads, none = asyncio.run(go())
    for found, missing in (people, leads):
        assert set(found) == {number for number in range(1, 121) if number % 7}
        assert missing == list(range(7, 121, 7))
    assert none == ({}, [])
    assert [len(ids) for ids in asked] == [50, 50, 20] * 2


def test_rows_without_a_readable_id_may_be_anybodys() -> None:
    """Each id that was asked with them and did not come has such a row; those of other pages are missing or not as ever."""

    def list_of(params: dict[str, Any]) -> list[Any]:
        ids = numbers(params["FILTER"]["ID"])
        return [{"ID": "x" if one in (3, 60) else str(one), "NAME": str(one)} for one in ids if one not in (5, 77, 110)]

    async def go() -> dict[int, Any]:
        async with client_of(by_method({"user.get": list_of})) as client:
            return (await by_id(users(client, range(1, 121))))[0]

    found = asyncio.run(go())
    assert set(range(1, 121)) - set(found) == {110}
    assert {one: row["NAME"] for one, row in found.items() if row["ID"] == "x"} == {3: "3", 5: "3", 60: "60", 77: "60"}


def test_a_dropped_id_filter_is_noticed() -> None:
    """A row that nobody asked for is an error."""

    async def go() -> None:
        async with client_of(by_method({"crm.contact.list": lambda _: [{"ID": "99"}]})) as client:
            await by_id(crm(client, "contact", [1]))

    with pytest.raises(Bitrix24DataError, match="row 99 was not asked for"):
        asyncio.run(go())


@pytest.mark.parametrize("counts", [False, True])
def test_deals_of_all_pages_by_entity(*, counts: bool) -> None:
    """An entity with 120 deals and one with none, by id or by the portal's offsets; a contact's deal may show another contact."""

    def deal_rows(params: dict[str, Any]) -> list[dict[str, str]]:
        contact, after = int(params["filter"]["CONTACT_ID"]), int(params["filter"][">ID"])
        ids = [number for number in range(1, 121) if number > after] if contact == 5 else []
        return [{"ID": str(number), "CONTACT_ID": "77"} for number in ids]

    def portal(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("crm.deal.contact.items.get.json"):
            return good([{"CONTACT_ID": 77, "IS_PRIMARY": "Y"}, {"CONTACT_ID": 5, "IS_PRIMARY": "N"}])
        nexts: dict[str, int] = {}

        def page(params: dict[str, Any]) -> list[dict[str, str]]:
            rows, start = deal_rows(params), max(0, int(params["start"]))
            if counts and start + 50 < len(rows):
                nexts["5"] = start + 50
            return rows[start : start + 50]

        body: Any = by_method({"crm.deal.list": page})(request).json()
        body["result"]["result_next"] = nexts or []
        return httpx2.Response(200, json=body)

    async def go() -> dict[int, list[dict[str, Any]]]:
        async with client_of(portal) as client:
            return await by_owner(Deals(client, "contact", [5, 6]))

    found = asyncio.run(go())
    assert [int(row["ID"]) for row in found[5]] == list(range(1, 121))
    assert found[6] == []


def test_deals_of_another_company_are_noticed() -> None:
    """A dropped filter does not give a company somebody else's deals."""

    async def go() -> None:
        async with client_of(by_method({"crm.deal.list": lambda _: [{"ID": "1", "COMPANY_ID": "8"}]})) as client:
            await by_owner(Deals(client, "company", [7]))

    with pytest.raises(Bitrix24DataError, match="deal 1 does not fit"):
        asyncio.run(go())


def test_files_one_by_one_answer_or_reason() -> None:
    """Each id has its file or why not: missing, in the trash, not shown, unreadable; the URL is not in any repr."""
    url = f"https://portal.example/rest/7/{SECRET}/download/?token=x"
    answers: dict[str, Any] = {
        "1": {"ID": "1", "NAME": "a.mp3", "SIZE": "10", "DELETED_TYPE": "0", "DOWNLOAD_URL": url},
        "2": {"error": "ERROR_NOT_FOUND", "error_description": "Could not find entity"},
        "3": {"ID": 3, "NAME": "b.mp3", "SIZE": 10, "DELETED_TYPE": 3, "DOWNLOAD_URL": url},
        "4": {"error": "ACCESS_DENIED", "error_description": "Access denied"},
        "5": {"ID": "5", "NAME": "c.mp3", "SIZE": None, "DOWNLOAD_URL": url},
        "6": {"error": "INTERNAL_SERVER_ERROR", "error_description": ""},
        "7": {"error": "ERROR_ARGUMENT", "error_description": ""},
        "8": {"ID": "1", "NAME": "a.mp3", "SIZE": "10", "DELETED_TYPE": "0", "DOWNLOAD_URL": url},
    }

    async def go() -> dict[int, Any]:
        async with client_of(by_method({"disk.file.get": lambda params: answers[params["id"]]}), attempts=2) as client:
            return await Recordings(client).locate(Wanted(number, number) for number in range(1, 9))

    found = asyncio.run(go())
    assert found[1] == Place("disk", "1 of the Disk", url, 10)
    reasons = {number: found[number].reason for number in (2, 3, 4)}
    assert reasons == {2: "gone", 3: "gone", 4: "refused"}
    assert all(isinstance(found[number], RecordingUnavailableError) for number in (2, 3, 4))
    assert "SIZE" in str(found[5])
    assert isinstance(found[6], Bitrix24UnavailableError)
    assert isinstance(found[7], Bitrix24RequestError)
    assert isinstance(found[8], Bitrix24DataError)
    assert SECRET not in repr(found)


def test_a_missing_scope_stops_all_files() -> None:
    """Without the scope no file can come, so this is not one file's failure."""
    answer = {"error": "insufficient_scope", "error_description": ""}

    async def go() -> None:
        async with client_of(by_method({"disk.file.get": lambda _: answer})) as client:
            await Recordings(client).locate([Wanted(1, 1)])

    with pytest.raises(Bitrix24AccessError, match="scope"):
        asyncio.run(go())


def test_a_refused_reader_raises() -> None:
    """An access error of the statistics stops the reading."""
    with pytest.raises(Bitrix24AccessError, match="right"):
        read(client_of(lambda _: bad(403, "ACCESS_DENIED")))
