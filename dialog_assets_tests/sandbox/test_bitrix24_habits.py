"""What differs between portals, what happens while a client reads, and the universal CRM family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dialog_assets.sandbox.bitrix24_events import EventError
from dialog_assets.sandbox.bitrix24_habits import HabitError
from dialog_assets.sandbox.bitrix24_provider import PRIVATE

from .bitrix24_portal import STATISTIC, make_calls, make_portal, make_recording, make_site

BY_ID = {"SORT": "ID", "ORDER": "ASC"}


def test_envelopes() -> None:
    """Operating fields, integer start, HTTP status of errors and escapes are the portal's habits."""
    site = make_site(make_portal(users={1: {"ID": "1", "ACTIVE": True, "NAME": 'ООО "А\\"'}}))
    times = site.ask("user.get").json()["time"]
    assert type(times["start"]) is int
    assert {"operating", "operating_reset_at"} <= set(times)
    site.server.set_habits(
        {"operating_shown": False, "integer_start": False, "errors_with_200": True, "hex_quotes": True}
    )
    response = site.ask("user.get")
    assert type(response.json()["time"]["start"]) is float
    assert "operating" not in response.json()["time"]
    assert rb"\u0022\u0410" not in response.content
    assert 'ООО \\u0022А\\\\\\u0022"'.encode() in response.content
    assert response.json()["result"][0]["NAME"] == 'ООО "А\\"'
    error = site.ask("crm.deal.get", {"id": 99})
    assert (error.status_code, error.json()["error"]) == (200, "")
    site.server.set_habits({"bad_webhook_status": 403})
    assert site.ask("profile", secret="wrong").status_code == 403


def test_keyset_not_honoured() -> None:
    """Where start=-1 is not honoured the answer counts and has `next`, as a client must notice."""
    site = make_site(make_portal(make_calls(70)))
    site.server.set_habits({"keyset": False})
    body = site.ask(STATISTIC, {**BY_ID, "start": -1}).json()
    assert (body["total"], body["next"]) == (70, 50)


def test_silent_subset() -> None:
    """A user who may see some employees gets their calls, whatever the filter asks."""
    site = make_site(make_portal(make_calls(9)))
    site.server.set_habits({"visible_users": [11]}, "demo")
    assert site.ids(STATISTIC, BY_ID) == [1, 4, 7]
    assert site.ids(STATISTIC, {**BY_ID, "FILTER": {"PORTAL_USER_ID": 12}}) == [1, 4, 7]


def test_renamed_and_https_required() -> None:
    """A renamed portal answers 302 for everything, until asked at its new address."""
    site = make_site(make_portal())
    site.server.set_habits({"renamed_to": "http://new.test:82/"})
    moved = site.send("POST", "/rest/1/s3cret/profile?x=1")
    assert (moved.status_code, moved.headers["location"]) == (302, "http://new.test:82/rest/1/s3cret/profile?x=1")
    there = {"host": "new.test:82"}
    assert site.send("POST", "/rest/1/s3cret/profile", headers=there).status_code == 200
    assert site.send("GET", "/rest/1/s3cret/download/?token=x").status_code == 302
    site.server.set_habits({"renamed_to": "", "https_required": True})
    refused = site.ask("profile")
    assert (refused.status_code, refused.json()["error"]) == (400, "INVALID_REQUEST")
    assert site.ask_app("profile").status_code == 200
    site.server.reset()
    assert site.ask("profile").status_code == 200


@pytest.mark.parametrize(
    "switches", [{"no_such": 1}, {"keyset": 1}, {"billing": "x"}, {"visible_users": ["1"]}, {"operating_limit": -1}]
)
def test_bad_habits(switches: dict[str, Any]) -> None:
    """A switch that does not exist, or takes no such value, is named."""
    with pytest.raises(HabitError, match=next(iter(switches))):
        make_site(make_portal()).server.set_habits(switches)


@pytest.mark.parametrize(
    ("event", "doubled", "lost"),
    [({"kind": "insert", "fields": {"ID": "0"}}, [50], []), ({"kind": "delete", "call": 7}, [], [51])],
    ids=["insert", "delete"],
)
def test_rows_move_between_pages(event: dict[str, Any], doubled: list[int], lost: list[int]) -> None:
    """A script lets a row come or go between two pages: offset pages then double or lose one, keyset pages do not."""

    def read(*, keyset: bool) -> list[int]:
        site = make_site(make_portal(make_calls(120)))
        site.server.set_events([{"portal": "demo", "match": STATISTIC, "after": 1, **event}])
        found: list[int] = []
        for page in range(3):
            after = {"FILTER": {">ID": found[-1] if found else 0}, "start": -1}
            found += site.ids(STATISTIC, {**BY_ID, **(after if keyset else {"start": page * 50})})
        return found

    whole = list(range(1, 121))
    assert read(keyset=True) == whole
    assert sorted(read(keyset=False)) == sorted([*(set(whole) - set(lost)), *doubled])


def test_new_calls_come_last() -> None:
    """By default an inserted call is the newest: greater id, later start, a CALL_ID of its own; every so many commands."""
    site = make_site(make_portal(make_calls(3)))
    site.server.set_events([{"portal": "demo", "kind": "insert", "after": 1, "every": 2, "times": 2, "count": 2}])
    totals = [site.ask(STATISTIC).json()["total"] for _ in range(6)]
    assert totals == [3, 5, 5, 7, 7, 7]
    rows = site.ask(STATISTIC, {"SORT": "CALL_START_DATE", "ORDER": "ASC"}).json()["result"]
    assert [row["ID"] for row in rows] == [str(number) for number in range(1, 8)]
    assert len({row["CALL_ID"] for row in rows}) == 7
    site.server.reset()
    assert site.ask(STATISTIC).json()["total"] == 3


def test_late_facts(tmp_path: Path) -> None:
    """A recording appears, is replaced, goes into the trash, is deleted; a vote and a CRM link come; a deal moves."""
    path = tmp_path / "a.mp3"
    path.write_bytes(b"ID3" + bytes(1000))
    site = make_site(make_portal(make_calls(3, make_recording(path))))
    happen = site.server.set_events
    happen([{"portal": "demo", "kind": "record", "call": 2, "file": 900, "size": 5000}])
    assert site.ask(STATISTIC, BY_ID).json()["result"][1]["RECORD_FILE_ID"] == 900
    before = site.ask("disk.file.get", {"id": 900}).json()["result"]
    assert 5000 <= int(before["SIZE"]) < 5300
    happen([{"portal": "demo", "kind": "replace", "file": 900, "size": 9000}])
    after = site.ask("disk.file.get", {"id": 900}).json()["result"]
    assert (before["GLOBAL_CONTENT_VERSION"], after["GLOBAL_CONTENT_VERSION"]) == ("1", "2")
    assert int(after["SIZE"]) >= 9000
    happen([{"portal": "demo", "kind": "trash_file", "file": 900}])
    assert site.ask("disk.file.get", {"id": 900}).json()["result"]["DELETED_TYPE"] == "3"
    happen([{"portal": "demo", "kind": "delete_file", "file": 501}])
    assert site.ask("disk.file.get", {"id": 501}).json()["error"] == "ERROR_NOT_FOUND"
    assert site.ask(STATISTIC, BY_ID).json()["result"][0]["RECORD_FILE_ID"] == 501
    happen([{"portal": "demo", "kind": "change", "call": 3, "fields": {"CALL_VOTE": "4", "CRM_ENTITY_ID": "9"}}])
    assert site.ids(STATISTIC, {"FILTER": {"CALL_VOTE": 4}}) == [3]
    happen([{"portal": "demo", "kind": "crm", "entity": "deal", "id": 1, "fields": {"STAGE_ID": "WON"}}])
    deal = site.ask("crm.deal.get", {"id": 1}).json()["result"]
    assert deal["STAGE_ID"] == "WON"
    assert deal["DATE_MODIFY"]
    happen([{"portal": "demo", "kind": "crm_delete", "entity": "deal", "id": 1}])
    assert site.ask("crm.deal.get", {"id": 1}).status_code == 400
    happen([{"portal": "demo", "kind": "delete", "call": 2}])
    assert site.ids(STATISTIC, BY_ID) == [1, 3]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"portal": "demo", "kind": "no"}, "unknown kind"),
        ({"portal": "x", "kind": "insert"}, "portal 'x'"),
        ({"portal": "demo", "kind": "delete", "call": 99}, "no call 99"),
        ({"portal": "demo", "kind": "insert", "count": "1"}, "count has the wrong type"),
        ({"portal": "demo", "kind": "crm", "entity": "deal"}, "an id above 0"),
        ({"kind": "insert"}, "portal and kind"),
        ({"portal": "demo", "kind": "insert", "nope": 1}, "unknown field 'nope'"),
    ],
)
def test_bad_events(rule: dict[str, Any], told: str) -> None:
    """A mistake in the script is named."""
    with pytest.raises(EventError, match=told):
        make_site(make_portal(make_calls(3))).server.set_events([rule])


def test_items() -> None:
    """crm.item has camelCase, numbers and `fm`; the same objects, OR in filters, and hard errors for unknown fields."""
    site = make_site(make_portal())

    def items(**params: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = site.ask("crm.item.list", params).json()["result"]["items"]
        return rows

    row = site.ask("crm.item.get", {"entityTypeId": 3, "id": 5}).json()["result"]["item"]
    assert (row["id"], row["name"], row["ufCrm_1"]) == (5, "Имя5", "x")
    assert row["fm"] == [{"id": 1, "typeId": "PHONE", "valueType": "WORK", "value": "+70000000005"}]
    assert [one["id"] for one in items(entityTypeId=2, filter={"@contactId": [5]})] == [1, 2]
    assert [one["id"] for one in items(entityTypeId=2, filter={"contactIds": 5}, order={"id": "DESC"})] == [2, 1]
    either = {"0": {"logic": "OR", "0": {"title": "Балкон"}, "1": {"opportunity": 9000}}}
    assert items(entityTypeId=2, filter=either, select=["id", "opportunity"]) == [
        {"id": 1, "opportunity": 9000},
        {"id": 2, "opportunity": 19000},
    ]
    page = site.ask("crm.item.list", {"entityTypeId": 3, "select": ["id"]}).json()
    assert (len(page["result"]["items"]), page["total"], page["next"]) == (50, 60, 50)
    assert [one["id"] for one in items(entityTypeId=3, filter={">ID": 58}, order={"ID": "DESC"})] == [60, 59]
    assert "UF_CRM_1" in items(entityTypeId=3, useOriginalUfNames="Y")[0]
    for params, code in (
        ({"entityTypeId": 3, "filter": {"noSuch": 1}}, "INVALID_ARG_VALUE"),
        ({"entityTypeId": 3, "filter": {"Name": 1}}, "INVALID_ARG_VALUE"),
        ({"entityTypeId": 3, "order": {"noSuch": "ASC"}}, "INVALID_ARG_VALUE"),
        ({"entityTypeId": 99}, "NOT_FOUND"),
    ):
        refused = site.ask("crm.item.list", params)
        assert (refused.status_code, refused.json()["error"]) == (400, code)
    assert site.ask("crm.item.get", {"entityTypeId": 2, "id": 9}).json()["error"] == "NOT_FOUND"
    linked = site.batch(
        {
            "p": "crm.item.list?entityTypeId=2&order[id]=ASC",
            "q": "crm.contact.get?id=$result[p][items][0][contactId]",
        }
    )
    assert linked["result"]["q"]["ID"] == "5"


def test_contacts_of_a_deal() -> None:
    """crm.deal.contact.items.get gives numbers."""
    rows = make_site(make_portal()).ask("crm.deal.contact.items.get", {"id": 1}).json()["result"]
    assert rows == [{"CONTACT_ID": 5, "SORT": 10, "ROLE_ID": 0, "IS_PRIMARY": "Y"}]


def test_provider(tmp_path: Path) -> None:
    """By the switch CALL_RECORD_URL leads to the provider's host, which serves ranges, or redirects to a private address."""
    path = tmp_path / "a.mp3"
    path.write_bytes(b"ID3" + bytes(range(250)))
    site = make_site(make_portal(make_calls(2, make_recording(path))))
    site.server.portals["demo"].provider_url = "http://provider.test"
    site.server.set_habits({"provider_urls": True, "disk_records": False})
    row = site.ask(STATISTIC, BY_ID).json()["result"][0]
    assert row["RECORD_FILE_ID"] is None
    assert row["CALL_RECORD_URL"] == "http://provider.test/records/demo/501.mp3"
    site.server.app = site.server.provider_app
    assert site.send("GET", "/records/demo/501.mp3").content == path.read_bytes()
    assert site.send("GET", "/records/demo/501.mp3", headers={"Range": "bytes=1-2"}).content == b"D3"
    assert site.send("GET", "/records/demo/9.mp3").status_code == 404
    site.faults.set([{"service": "bitrix24", "kind": "private_redirect", "times": 1}])
    redirect = site.send("GET", "/records/demo/501.mp3")
    assert (redirect.status_code, redirect.headers["location"]) == (302, PRIVATE)
