"""Lists of the stand-in portal: the call statistics with its silences, users, CRM."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .bitrix24_portal import MIDNIGHT, STATISTIC, make_calls, make_portal, make_recording, make_site

BY_ID = {"SORT": "ID", "ORDER": "ASC"}


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ({"ID": 3}, [3]),
        ({"=ID": ["3", 5, 99]}, [3, 5]),
        ({"!ID": [1, 2, 3]}, [4, 5, 6, 7, 8]),
        ({"!=PORTAL_USER_ID": "11"}, [2, 3, 5, 6, 8]),
        ({">ID": "6"}, [7, 8]),
        ({">=ID": 3, "<ID": 5}, [3, 4]),
        ({"><CALL_DURATION": [14, "28"]}, [2, 3, 4]),
        ({"!><CALL_DURATION": ["14", "50"]}, [1, 8]),
        ({"%PHONE_NUMBER": "0003"}, [3]),
        ({"!%PHONE_NUMBER": "0000"}, []),
        ({"?CALL_ID": "EXTERNALcall"}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"CRM_ENTITY_TYPE": ""}, [4, 8]),
        ({"!CRM_ENTITY_TYPE": "contact"}, [4, 8]),
        ({">=CALL_START_DATE": "2026-03-01T22:00:00+03:00", "<CALL_START_DATE": "2026-03-02T00:20:00+05:00"}, [1, 2]),
        ({"<=CALL_START_DATE": "2026-03-02"}, [1]),
        ({">CALL_START_DATE": "2026-03-02T01:00:00"}, [8]),
    ],
)
def test_statistic_filter(filter_: dict[str, Any], expected: list[int]) -> None:
    """Each operator of FILTER does what the facts say; dates without an offset are the portal's."""
    site = make_site(make_portal(make_calls(8)))
    assert site.ids(STATISTIC, {"FILTER": filter_, **BY_ID}) == expected


@pytest.mark.parametrize(
    "params",
    [
        {"FILTER": {"CALL_STRAT_DATE": "2026-03-02"}},
        {"FILTER": {"RECORD_FILE_ID": 501}},
        {"FILTER": {"@ID": [1, 2]}},
        {"FILTER": {"=%PHONE_NUMBER": "x"}},
        {"FILTER": {">=CALL_START_DATE": "yesterday"}},
        {"FILTER": "ID=1"},
        {"filter": {"ID": 1}},
    ],
    ids=str,
)
def test_statistic_drops_in_silence(params: dict[str, Any]) -> None:
    """A slip in the filter returns the whole portal, without a word."""
    response = make_site(make_portal(make_calls(8))).ask(STATISTIC, params)
    assert (response.status_code, response.json()["total"]) == (200, 8)


def test_statistic_order() -> None:
    """SORT and ORDER work together, as exact strings, for filterable fields; otherwise rows come in no order."""
    site = make_site(make_portal(make_calls(40)))
    up = list(range(1, 41))
    assert site.ids(STATISTIC, BY_ID) == up
    assert site.ids(STATISTIC, {"SORT": "CALL_START_DATE", "ORDER": "DESC"}) == up[::-1]
    for ignored in (
        {},
        {"SORT": "ID"},
        {"ORDER": "ASC"},
        {"SORT": "ID", "ORDER": "asc"},
        {"SORT": "RECORD_FILE_ID", "ORDER": "ASC"},
        {"SORT": "CALL_TYPE", "ORDER": "ASC"},
        {"order": {"ID": "ASC"}},
        {"SORT": {"ID": "ASC"}, "ORDER": "ASC"},
    ):
        found = site.ids(STATISTIC, ignored)
        assert found != up
        assert sorted(found) == up
        assert found == site.ids(STATISTIC, {})


def test_statistic_paging() -> None:
    """Fifty rows a page; `next` only when more follow; start=-1 gives neither count nor next."""
    site = make_site(make_portal(make_calls(120)))
    pages = [site.ask(STATISTIC, {**BY_ID, "start": start}).json() for start in (0, "50", 100, 150)]
    assert [len(page["result"]) for page in pages] == [50, 50, 20, 0]
    assert [page.get("next") for page in pages] == [50, 100, None, None]
    assert {page["total"] for page in pages} == {120}
    keyset = site.ask(STATISTIC, {**BY_ID, "FILTER": {">ID": 60}, "start": -1}).json()
    assert [int(row["ID"]) for row in keyset["result"]] == list(range(61, 111))
    assert keyset["total"] == 0
    assert "next" not in keyset


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(count=st.integers(0, 170), style=st.sampled_from(["offset", "keyset"]))
def test_every_row_once(count: int, style: str) -> None:
    """Following `next`, or ids with start=-1, gives every row exactly once, in order."""
    site = make_site(make_portal(make_calls(count)))
    found: list[int] = []
    keyset = style == "keyset"
    start: int | None = -1 if keyset else 0
    while start is not None:
        filter_ = {">ID": found[-1]} if keyset and found else {}
        page = site.ask(STATISTIC, {**BY_ID, "FILTER": filter_, "start": start}).json()
        found += [int(row["ID"]) for row in page["result"]]
        start = page.get("next") if not keyset else (-1 if len(page["result"]) == 50 else None)
    assert found == list(range(1, count + 1))


def test_statistic_lives_by_the_clock(tmp_path: Path) -> None:
    """A call is absent before its start; its record id and duration come when the recording is ready."""
    site = make_site(make_portal(make_calls(3, make_recording(tmp_path / "a.mp3"))))
    site.clock.now = MIDNIGHT - timedelta(seconds=1)
    assert site.ids(STATISTIC, BY_ID) == []
    site.clock.now = MIDNIGHT + timedelta(minutes=4)
    (row,) = site.ask(STATISTIC, BY_ID).json()["result"]
    assert (row["ID"], row["RECORD_FILE_ID"], row["RECORD_DURATION"]) == ("1", None, None)
    assert site.ids(STATISTIC, {**BY_ID, "FILTER": {">RECORD_DURATION": 0}}) == []
    site.clock.now = MIDNIGHT + timedelta(minutes=10)
    rows = site.ask(STATISTIC, BY_ID).json()["result"]
    assert [row["RECORD_FILE_ID"] for row in rows] == [501, None]
    assert rows[0]["RECORD_DURATION"] == "7"
    site.clock.now = None
    assert site.ids(STATISTIC, BY_ID) == [1, 2, 3]


def test_users() -> None:
    """user.get filters by ids and ACTIVE and leaves missing users out; its parameters' case does not matter."""
    site = make_site(make_portal())
    assert site.ids("user.get", {"FILTER": {"ID": ["11", 10, 99]}}) == [10, 11]
    assert site.ids("user.get", {"filter": {"@ID": [11, 99]}}) == [11]
    assert site.ids("user.get", {"FILTER": {"ACTIVE": True}}) == [10]
    assert site.ids("user.get", {"FILTER": {"ACTIVE": False}}) == [11]
    assert site.ids("user.get", {"FILTER": {"UF_DEPARTMENT": 1}}) == [10, 11]
    assert site.ids("user.get", {"FILTER": {"UF_DEPARTMENT": [2]}}) == []
    assert site.ids("user.get", {"sort": "ID", "order": "DESC"}) == [11, 10]
    row = site.ask("user.get", {"FILTER": {"ID": 10}}).json()["result"][0]
    assert row["ACTIVE"] is True
    assert row["TIMESTAMP_X"] == {}


def test_profile_and_scope() -> None:
    """A doctor can ask who the webhook is and what it may do."""
    site = make_site(make_portal(webhook_user=1))
    profile = site.ask("profile").json()["result"]
    assert (profile["ID"], profile["TIME_ZONE_OFFSET"]) == ("1", 18000)
    assert site.ask("scope").json()["result"] == ["crm", "disk", "telephony", "user"]


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ({"@ID": [7, "3", 99]}, [3, 7]),
        ({"ID": ["3", "7"]}, [3, 7]),
        ({">ID": 58}, [59, 60]),
        ({"!@ID": list(range(3, 61))}, [1, 2]),
        ({"PHONE": "+70000000009"}, [9]),
        ({"PHONE": "0000000009"}, []),
        ({"%NAME": "имя1", "<ID": 12}, [1, 10, 11]),
        ({"=%NAME": "Имя2%", "<=ID": "20"}, [2, 20]),
        ({"<DATE_CREATE": "2026-03-04"}, [1]),
        ({"@ID": []}, []),
    ],
)
def test_crm_filter(filter_: dict[str, Any], expected: list[int]) -> None:
    """The classic lists know the prefix operators, IN by @ID, and exact phones."""
    site = make_site(make_portal())
    assert site.ids("crm.contact.list", {"filter": filter_, "start": -1}) == expected


def test_crm_select_order_and_pages() -> None:
    """`*` and `UF_*` are separate, PHONE comes only when named; order and pages work as in every list."""
    site = make_site(make_portal())

    def fields(select: list[str] | None) -> set[str]:
        params = {"filter": {"ID": 1}, **({"select": select} if select is not None else {})}
        return set(site.ask("crm.contact.list", params).json()["result"][0])

    standard = {"ID", "NAME", "COMPANY_ID", "DATE_CREATE"}
    assert fields(None) == fields(["*"]) == standard
    assert fields(["*", "UF_*"]) == {*standard, "UF_CRM_1"}
    assert fields(["NAME", "PHONE", "NO_SUCH"]) == {"ID", "NAME", "PHONE"}
    page = site.ask("crm.contact.list", {"order": {"ID": "desc"}, "select": ["ID"]}).json()
    assert (page["total"], page["next"], page["result"][0]) == (60, 50, {"ID": "60"})
    assert site.ids("crm.deal.list", {"filter": {"LEAD_ID": 5}}) == [], "a field that no row has is known all the same"
    assert site.ids("crm.deal.list", {"filter": {"NO_SUCH": 5}}) == [1, 2]
    assert site.ids("crm.deal.list", {"filter": {"CONTACT_ID": 5}, "order": {"OPPORTUNITY": "DESC"}}) == [2, 1]


def test_crm_get() -> None:
    """The .get methods give the row with its phones, or the classic errors with an empty code."""
    site = make_site(make_portal())
    row = site.ask("crm.contact.get", {"id": 5}).json()["result"]
    assert row["PHONE"][0]["VALUE"] == "+70000000005"
    assert "EMAIL" not in row
    for params, text in (({"id": 999}, "Not found"), ({}, "ID is not defined or invalid.")):
        response = site.ask("crm.contact.get", params)
        assert response.status_code == 400
        assert response.json() == {"error": "", "error_description": text}
