"""Wire rows become typed values; the vendor's own samples go through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dialog_assets.bitrix24.client import Answer
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24DataError,
    Bitrix24Error,
    RecordingUnavailableError,
    RowError,
    classify,
)
from dialog_assets.bitrix24.events import call_end, event_of
from dialog_assets.bitrix24.paging import php_query
from dialog_assets.bitrix24.rows import (
    CallRow,
    activity_files,
    call_row,
    disk_file,
    entity_row,
    readable_part,
    user_row,
)
from dialog_assets.bitrix24.wire import id_of, moment_of, rows_of
from dialog_assets_tests.bitrix24.json_values import NASTY, any_json, garbled
from dialog_assets_tests.bitrix24.small_portal import client_of

SAMPLES = Path(__file__).parents[2].parent / "shared" / "data" / "bitrix24"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the folder of official samples is not here")

CALL: dict[str, Any] = {
    "ID": "7",
    "CALL_ID": "externalCall.716f.177",
    "PORTAL_USER_ID": "12",
    "PORTAL_NUMBER": "3",
    "PHONE_NUMBER": "79990000001",
    "CALL_TYPE": "2",
    "CALL_DURATION": "95",
    "CALL_START_DATE": "2026-03-10T11:19:38+03:00",
    "CALL_RECORD_URL": None,
    "CALL_VOTE": "5",
    "COST": "1.2500",
    "COST_CURRENCY": "RUR",
    "CALL_FAILED_CODE": "200",
    "CRM_ENTITY_TYPE": "CONTACT",
    "CRM_ENTITY_ID": "797",
    "CRM_ACTIVITY_ID": "7943",
    "RECORD_DURATION": None,
    "RECORD_FILE_ID": 9079,
    "SOMETHING_NEW": {"x": 1},
}


def sample(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text(encoding="utf-8"))


def test_a_call_as_the_portal_sends_it() -> None:
    """Texts become numbers, the moment keeps its offset, unknown fields stay in raw."""
    assert call_row(CALL) == CallRow(
        call_id=7,
        vendor_call_id="externalCall.716f.177",
        started_at=datetime(2026, 3, 10, 11, 19, 38, tzinfo=timezone(timedelta(hours=3))),
        duration_s=95,
        direction="incoming",
        user_id=12,
        phone="79990000001",
        line="3",
        failed_code="200",
        entity_type="contact",
        entity_id=797,
        activity_id=7943,
        record_file_id=9079,
        record_url=None,
        record_duration_s=None,
        vote=5,
        cost=Decimal("1.25"),
        cost_currency="RUR",
        raw=CALL,
    )


@pytest.mark.parametrize("nothing", [None, "", [], {}, " "])
def test_every_way_to_say_nothing(nothing: Any) -> None:
    """null, blanks and PHP's empty shapes mean None, or zero for a duration and a cost."""
    kept = {"ID": CALL["ID"], "CALL_START_DATE": CALL["CALL_START_DATE"]}
    row = call_row({**dict.fromkeys(CALL, nothing), **kept})
    assert (row.duration_s, row.cost, row.direction) == (0, Decimal(0), "unknown")
    assert (row.user_id, row.entity_type, row.entity_id, row.record_file_id, row.vote, row.phone) == (None,) * 6
    assert call_row(kept).cost_currency is None


def test_numbers_of_either_type() -> None:
    """Numbers may come as numbers; zero as an id or a vote means nothing; half a link is no link."""
    row = call_row({**CALL, "ID": 7, "CALL_VOTE": 0, "COST": 1.25, "CRM_ENTITY_ID": "0", "RECORD_FILE_ID": "9079"})
    assert (row.call_id, row.vote, row.cost, row.record_file_id) == (7, None, Decimal("1.25"), 9079)
    assert (row.entity_type, row.entity_id) == (None, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ID", "seven"),
        ("ID", None),
        ("CALL_START_DATE", {}),
        ("CALL_START_DATE", "2026-03-10T11:19:38"),
        ("CALL_START_DATE", "yesterday"),
        ("CALL_DURATION", "1.5"),
        ("CALL_DURATION", "1e99"),
        ("COST", "NaN"),
        ("COST", "+79990000009"[:1]),
        ("PORTAL_USER_ID", True),
        ("PHONE_NUMBER", ["+79990000009"]),
    ],
)
def test_an_unreadable_field_is_named_without_its_value(field: str, value: Any) -> None:
    """The error says method, row and field, and repeats nothing of the row."""
    with pytest.raises(RowError) as caught:
        call_row({**CALL, field: value})
    assert caught.value.field == field
    assert "voximplant.statistic.get" in str(caught.value)
    assert "7999" not in str(caught.value)
    with pytest.raises(RowError):
        call_row([])  # type: ignore[arg-type]


USER: dict[str, Any] = {
    "ID": "1",
    "ACTIVE": True,
    "NAME": "Анна",
    "LAST_NAME": "Ким",
    "EMAIL": "a@example.com",
    "WORK_PHONE": "79990000001",
    "UF_DEPARTMENT": [1],
    "WORK_POSITION": "Мастер",
}
DEAL: dict[str, Any] = {
    "ID": "3",
    "TITLE": "Окна",
    "STAGE_ID": "NEW",
    "OPPORTUNITY": "19999.99",
    "CURRENCY_ID": "RUB",
    "ASSIGNED_BY_ID": "6",
    "PHONE": [{"VALUE": "79990000001"}],
}
ITEM: dict[str, Any] = {
    "id": 5,
    "title": "Окна",
    "stageId": "NEW",
    "opportunity": 5,
    "currencyId": "RUB",
    "assignedById": 6,
    "fm": [{"value": "79990000001", "typeId": "PHONE"}],
}
FILE: dict[str, Any] = {"ID": "9", "NAME": "a.mp3", "SIZE": "10", "DELETED_TYPE": "0", "DOWNLOAD_URL": "https://x/"}
ACTIVITY: dict[str, Any] = {"ID": "9", "FILES": [{"id": 1, "url": "https://x/"}]}

READERS: dict[str, tuple[Callable[[Any], object], dict[str, Any]]] = {
    "call": (call_row, CALL),
    "part": (readable_part, CALL),
    "user": (user_row, USER),
    "deal": (lambda row: entity_row("deal", row), DEAL),
    "contact": (lambda row: entity_row("contact", row), {**USER, **DEAL}),
    "item": (lambda row: entity_row("lead", row), ITEM),
    "file": (disk_file, FILE),
    "activity": (activity_files, ACTIVITY),
}


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60)
@given(data=st.data())
def test_any_value_in_any_field_is_read_or_told(name: str, data: st.DataObject) -> None:
    """Whatever a portal sends, a reader gives a value or raises RowError (the file in the trash its own error)."""
    reader, row = READERS[name]
    with suppress(RowError, RecordingUnavailableError):
        reader(data.draw(garbled(row)))


@pytest.mark.parametrize("name", READERS)
def test_every_nasty_value_in_every_field_is_read_or_told(name: str) -> None:
    """Those that once broke something, each in each field, and in place of the row."""
    reader, row = READERS[name]
    for value in NASTY:
        for field in row:
            with suppress(RowError, RecordingUnavailableError):
                reader({**row, field: value})
        if name != "activity":
            with suppress(RowError):
                reader(value)


def test_ids_and_moments_of_anything() -> None:
    """An id fits into 64 bits, a moment can be told in every time zone, and all else is none."""

    @given(any_json)
    def check(value: Any) -> None:
        one = id_of({"ID": value})
        assert one is None or -(2**63) <= one < 2**63
        moment = moment_of(value)
        if moment is not None:
            for hours in (-23, 23):
                moment.astimezone(timezone(timedelta(hours=hours)))

    for value in NASTY:
        check = example(value)(check)
    check()


def test_what_can_be_read_of_a_call() -> None:
    """Fields that cannot be read count as empty and are told, the others and the whole row stay; without a place, none."""
    row = {**CALL, "CALL_DURATION": "3000000000", "CRM_ENTITY_ID": [797], "COST": "1e999"}
    part, errors = readable_part(row)
    assert part == replace(call_row(CALL), duration_s=0, entity_type=None, entity_id=None, cost=Decimal(0), raw=row)
    assert [(error.field, error.row_id) for error in errors] == [
        ("CRM_ENTITY_ID", 7),
        ("CALL_DURATION", 7),
        ("COST", 7),
    ]
    assert readable_part(CALL) == (call_row(CALL), [])
    for field in ("ID", "CALL_START_DATE"):
        with pytest.raises(RowError) as caught:
            readable_part({**row, field: "?"})
        assert caught.value.field == field


def test_numbers_that_no_column_holds() -> None:
    """A duration of more than 32 bits would be wrapped by a binary COPY; amounts of a thousand digits would fill memory."""
    for field in ("CALL_DURATION", "RECORD_DURATION", "CALL_VOTE"):
        assert call_row({**CALL, field: str(2**31 - 1)})
        with pytest.raises(RowError, match="32 bits"):
            call_row({**CALL, field: 2**31})
    assert call_row({**CALL, "PORTAL_USER_ID": str(2**63 - 1)}).user_id == 2**63 - 1
    for field, value in (("PORTAL_USER_ID", 2**63), ("COST", "1e999999999"), ("CRM_ENTITY_TYPE", "X" * 101)):
        with pytest.raises(RowError):
            call_row({**CALL, field: value})


def test_reprs_hide_people() -> None:
    """A row in a log or a traceback shows neither phone nor name."""
    user = {"ID": "1", "NAME": "Анна", "EMAIL": "a@example.com", "WORK_PHONE": "79990000001"}
    shown = f"{call_row(CALL)} {user_row(user)} {entity_row('contact', {**user, 'PHONE': [{'VALUE': '79990000001'}]})}"
    assert not any(word in shown for word in ("7999", "Анна", "example"))


@pytest.mark.parametrize(
    ("active", "departments", "expected"),
    [
        (True, [1, "2"], (True, [1, 2])),
        ("N", {"0": "5"}, (False, [5])),
        ("1", False, (True, [])),
        (None, {}, (True, [])),
    ],
)
def test_users_in_all_shapes(active: Any, departments: Any, expected: tuple[bool, list[int]]) -> None:
    """ACTIVE as bool or text, departments as list, map or nothing."""
    row = user_row({"ID": "1", "ACTIVE": active, "UF_DEPARTMENT": departments, "TIMESTAMP_X": {}})
    assert (row.active, row.departments) == expected


def test_a_deal_and_its_money() -> None:
    """Amounts are exact decimals; stage and currency stay the portal's words."""
    row = entity_row(
        "deal", {"ID": "3", "TITLE": "Окна", "STAGE_ID": "C1:NEW", "OPPORTUNITY": "19999.99", "CURRENCY_ID": "RUB"}
    )
    assert (row.stage, row.amount, row.currency) == ("C1:NEW", Decimal("19999.99"), "RUB")


@needs_samples
def test_official_calls_and_files() -> None:
    """The documentation's calls and Disk file."""
    first, second = (call_row(row) for row in sample("voximplant.statistic.get.json")["result"])
    assert (first.failed_code, first.record_file_id, first.entity_id, first.direction) == (
        "603-S",
        None,
        275,
        "outgoing",
    )
    assert (second.record_file_id, second.duration_s, second.vote, second.cost_currency) == (9079, 95, 5, None)
    file = disk_file(sample("disk.file.get.json")["result"])
    assert (file.id, file.size) == (9043, 21668)
    assert "auth" not in repr(file)


@needs_samples
def test_official_people_and_crm_objects() -> None:
    """The documentation's users, contact, lead, company and deals."""
    users = [user_row(row) for row in sample("user.get.json")["result"]]
    assert [(user.user_id, user.departments, user.active) for user in users] == [(1, [1], True), (3, [1], True)]
    contact = entity_row("contact", sample("crm.contact.get.json")["result"])
    assert (contact.title, len(contact.phones), contact.amount) == ("Иван Иванович Иванов", 2, None)
    lead = entity_row("lead", sample("crm.lead.get.json")["result"])
    assert (lead.stage, lead.amount, len(lead.phones)) == ("IN_PROCESS", Decimal(0), 1)
    company = entity_row("company", sample("crm.company.get.json")["result"])
    assert (company.entity_id, company.stage, company.responsible_id) == (2909, None, 139)
    deals = [entity_row("deal", row) for row in sample("crm.deal.list.json")["result"]]
    assert sum((deal.amount or Decimal(0) for deal in deals), Decimal(0)) == Decimal("95999.99")


@needs_samples
def test_official_envelopes() -> None:
    """Every sample answer is a success to the transport; the failed batch gives an error by command."""
    for path in sorted(SAMPLES.glob("*.json")):
        body = json.loads(path.read_text(encoding="utf-8"))
        if "event" not in body:
            assert classify(200, body) is None, path.name

    async def batch(name: str) -> dict[str, Answer | Bitrix24Error]:
        body = (SAMPLES / name).read_bytes()
        async with client_of(lambda _: httpx2.Response(200, content=body)) as client:
            return await client.batch({"get_user": ("user.get", {}), "get_department": ("department.get", {})})

    good = asyncio.run(batch("batch.success.json"))
    assert [answer.total for answer in good.values() if isinstance(answer, Answer)] == [None, 1]
    failed = asyncio.run(batch("batch.error.halt0.json"))
    assert [type(outcome) for outcome in failed.values()] == [Bitrix24AccessError] * 2


@needs_samples
def test_official_items_activities_and_event() -> None:
    """The documentation's items of the universal family, an activity's file, and an event as it comes over the wire."""
    leads = [entity_row("lead", item) for item in rows_of("crm.item.list", sample("crm.item.list.json")["result"])]
    assert [(lead.entity_id, lead.stage, lead.amount) for lead in leads][:2] == [
        (253, "NEW", Decimal(19000)),
        (255, "NEW", Decimal(19600)),
    ]
    (activity,) = rows_of("crm.activity.list", sample("crm.activity.list.files.json")["result"])
    assert [file.id for file in activity_files(activity)] == [3101820]
    assert "auth" not in repr(activity_files(activity))
    payload = sample("onvoximplantcallend.event.json")
    event = event_of(php_query(payload))
    assert (event.name, event.data) == ("ONVOXIMPLANTCALLEND", payload["data"])
    assert event.is_from(payload["auth"]["application_token"])
    assert not event.is_from("")
    assert call_end(event).activity_id == 7953


def test_items_of_the_universal_family() -> None:
    """camelCase, numbers as numbers, multi-fields in fm: the same row as the classic family's."""
    fm = [
        {"id": 1, "valueType": "WORK", "value": "79990000001", "typeId": "PHONE"},
        {"id": 2, "valueType": "WORK", "value": "a@example.com", "typeId": "EMAIL"},
    ]
    item = {"id": 5, "name": "Анна", "lastName": "Котова", "assignedById": 6, "fm": fm}
    classic = {
        "ID": "5",
        "NAME": "Анна",
        "LAST_NAME": "Котова",
        "ASSIGNED_BY_ID": "6",
        "PHONE": [{"VALUE": "79990000001"}],
    }
    one, other = entity_row("contact", item), entity_row("contact", classic)
    assert replace(one, raw={}) == replace(other, raw={})
    deal = entity_row(
        "deal", {"id": 3, "title": "Окна", "stageId": "C1:NEW", "opportunity": 19999.99, "currencyId": "RUB"}
    )
    assert (deal.stage, deal.amount, deal.currency) == ("C1:NEW", Decimal("19999.99"), "RUB")


@pytest.mark.parametrize("body", ["", "event[a]=b", "event=ONX&data=1"])
def test_what_is_no_event(body: str) -> None:
    """A form of another shape is an error, not a guess."""
    with pytest.raises(Bitrix24DataError):
        event_of(body)
