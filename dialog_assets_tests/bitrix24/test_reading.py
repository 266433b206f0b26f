"""Readers give every row exactly once, and notice when the portal ignores what it was asked."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24DataError,
    Bitrix24RequestError,
    Bitrix24UnavailableError,
    RecordingUnavailableError,
)
from dialog_assets.bitrix24.reading import DiskFile, calls, crm, deals, files, users
from dialog_assets_tests.bitrix24.small_portal import END, SECRET, START, Statistic, bad, by_method, client_of


def read(client: Bitrix24Client) -> list[list[int]]:
    async def go() -> list[list[int]]:
        async with client:
            return [[int(row["ID"]) for row in page] async for page in calls(client, START, END)]

    return asyncio.run(go())


sizes = st.one_of(st.sampled_from([0, 1, 49, 50, 51, 100, 250, 251, 1300]), st.integers(0, 700))


@settings(max_examples=40, deadline=None)
@given(size=sizes, step=st.integers(1, 9), counts=st.booleans(), orders=st.booleans(), links=st.booleans())
def test_every_call_once_whatever_the_portal_honours(
    *, size: int, step: int, counts: bool, orders: bool, links: bool
) -> None:
    """By id or by offset, with or without a working order, count or links: all ids, each once."""
    ids = [7 + number * step for number in range(size)]
    portal = Statistic(list(reversed(ids)), counts=counts, orders=orders, links=links)
    found = [call_id for page in read(client_of(portal)) for call_id in page]
    assert sorted(found) == ids
    if orders:
        assert found == ids


def test_full_pages_go_on_in_growing_batches() -> None:
    """5,000 calls take one page, then batches of 4, 16, 50 and 50 linked pages; pages stream out as they are read."""
    portal = Statistic(list(range(1, 5001)))
    pages = read(client_of(portal))
    assert portal.requests == 5
    assert [len(page) for page in pages] == [50] * 100


def test_a_small_day_is_one_request() -> None:
    """A page that is not full is the end."""
    portal = Statistic(list(range(1, 50)))
    read(client_of(portal))
    assert (portal.requests, portal.pages) == (1, 1)


def test_rows_that_come_while_reading_are_neither_lost_nor_doubled() -> None:
    """Calls inserted between pages appear once, by id and by offset."""
    for counts in (False, True):

        def insert(portal: Statistic) -> None:
            if portal.pages % 2 == 0 and len(portal.rows) < 400:
                portal.add(1000 + len(portal.rows))

        portal = Statistic(list(range(1, 161)), counts=counts, on_page=insert)
        found = [call_id for page in read(client_of(portal)) for call_id in page]
        assert len(found) == len(set(found))
        assert set(range(1, 161)) <= set(found)


def test_a_dropped_date_filter_is_noticed() -> None:
    """A call outside the window is an error that names the call, not a page."""
    portal = Statistic([1, 2], filters_dates=False)
    portal.rows[1]["CALL_START_DATE"] = (END + timedelta(seconds=1)).isoformat()
    with pytest.raises(Bitrix24DataError, match="call 2 lies outside"):
        read(client_of(portal))


def test_a_failing_page_of_a_chain_is_read_again() -> None:
    """A passing error inside a chain costs a request, not a page."""
    portal = Statistic(list(range(1, 301)))
    struck: list[bool] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        answer = portal(request)
        if b"batch" not in request.url.raw_path or struck:
            return answer
        struck.append(True)
        body: Any = answer.json()
        for key in ("p1", "p2", "p3"):
            del body["result"]["result"][key]
        body["result"]["result_error"] = {"p1": {"error": "INTERNAL_SERVER_ERROR", "error_description": ""}}
        return httpx2.Response(200, json=body)

    assert [call_id for page in read(client_of(handler)) for call_id in page] == list(range(1, 301))


def test_errors_after_the_last_page_do_not_count() -> None:
    """Commands behind a short page run with broken links; what they say is not looked at."""
    portal = Statistic(list(range(1, 81)))

    def handler(request: httpx2.Request) -> httpx2.Response:
        body: Any = portal(request).json()
        if b"batch" in request.url.raw_path:
            del body["result"]["result"]["p1"]
            body["result"]["result_error"] = {"p1": {"error": "ERROR_ARGUMENT", "error_description": ""}}
        return httpx2.Response(200, json=body)

    assert [len(page) for page in read(client_of(handler))] == [50, 30]


def test_a_portal_that_hides_rows_is_an_error() -> None:
    """When the count says more than ever comes, the window is not taken as read."""
    portal = Statistic(list(range(1, 41)), counts=True)

    def handler(request: httpx2.Request) -> httpx2.Response:
        body: Any = portal(request).json()
        return httpx2.Response(200, json={**body, "total": 41})

    with pytest.raises(Bitrix24DataError, match="counts 41 calls but gave 40"):
        read(client_of(handler))


def numbers(value: Any) -> list[int]:
    return [int(entry) for entry in value.values()]


def test_users_and_crm_objects_by_id() -> None:
    """Pages of 50 ids in batches; ids that the portal lacks are absent, doubles are asked once."""
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

    async def go() -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
        async with client_of(portal) as client:
            wanted = [*range(1, 121), 1, 2]
            return await users(client, wanted), await crm(client, "lead", wanted), await crm(client, "lead", [])

    people, leads, none = asyncio.run(go())
    assert set(people) == set(leads) == {number for number in range(1, 121) if number % 7}
    assert none == {}
    assert [len(ids) for ids in asked] == [50, 50, 20] * 2


def test_a_dropped_id_filter_is_noticed() -> None:
    """A row that nobody asked for is an error."""

    async def go() -> None:
        async with client_of(by_method({"crm.contact.list": lambda _: [{"ID": "99"}]})) as client:
            await crm(client, "contact", [1])

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
            return await deals(client, "contact", [5, 6])

    found = asyncio.run(go())
    assert [int(row["ID"]) for row in found[5]] == list(range(1, 121))
    assert found[6] == []


def test_deals_of_another_company_are_noticed() -> None:
    """A dropped filter does not give a company somebody else's deals."""

    async def go() -> None:
        async with client_of(by_method({"crm.deal.list": lambda _: [{"ID": "1", "COMPANY_ID": "8"}]})) as client:
            await deals(client, "company", [7])

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
            return await files(client, range(1, 9))

    found = asyncio.run(go())
    assert found[1] == DiskFile(1, "a.mp3", 10, url)
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
            await files(client, [1])

    with pytest.raises(Bitrix24AccessError, match="scope"):
        asyncio.run(go())


def test_a_refused_reader_raises() -> None:
    """An access error of the statistics stops the reading."""
    with pytest.raises(Bitrix24AccessError, match="right"):
        read(client_of(lambda _: bad(403, "ACCESS_DENIED")))
