"""The row that is stored of a call: every field kept, no link that is a credential."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from dialog_assets.assets.calls import stored
from dialog_assets.bitrix24.rows import call_row, readable_part
from dialog_assets.portals import Portal
from dialog_assets.redaction import host_only
from dialog_assets.store import calls as table
from dialog_assets_tests.store.rows import PORTAL, Pool, one, put_calls, with_pool

ROW: dict[str, Any] = {
    "ID": "17",
    "CALL_ID": "abc.1",
    "CALL_START_DATE": "2026-03-02T23:30:00+03:00",
    "CALL_DURATION": "61",
    "CALL_TYPE": "2",
    "PORTAL_USER_ID": "7",
    "PHONE_NUMBER": "+79120000000",
    "CALL_FAILED_CODE": "200",
    "CRM_ENTITY_TYPE": "CONTACT",
    "CRM_ENTITY_ID": "5",
    "COST": "1.20",
    "RECORD_FILE_ID": "99",
    "CALL_RECORD_URL": "https://user:pw@pbx.example:8443/rec/secret-token.mp3?key=s3cr3t",
    "CALL_LOG": "https://log.example/rest/1/s3cr3t/",
    "COMMENT": "Комментарий",
    "NEW_FIELD": {"a": [1, None]},
}


def test_a_call_is_stored_with_its_day_in_the_portals_zone(portals: list[Portal]) -> None:
    """Half past eleven in Moscow is the next day in Yekaterinburg: a day is the portal's own."""
    ural, moscow = (stored(call_row(ROW), portal) for portal in portals)
    assert (ural["day"], moscow["day"]) == (date(2026, 3, 3), date(2026, 3, 2))
    assert tuple(sorted(moscow)) == tuple(sorted(table.COLUMNS))
    assert (moscow["entity_type"], moscow["entity_id"], moscow["cost"]) == ("contact", 5, Decimal("1.20"))


def test_links_to_recordings_are_not_stored(portals: list[Portal]) -> None:
    """Of a link that opens without a login only the host is kept; every other field stays as it came."""
    row = stored(call_row(ROW), portals[1])
    assert row["raw"]["CALL_RECORD_URL"] == "https://pbx.example:8443/…"
    assert row["raw"]["CALL_LOG"] == "https://log.example/…"
    assert {name: row["raw"][name] for name in ("COMMENT", "NEW_FIELD", "ID")} == {
        name: ROW[name] for name in ("COMMENT", "NEW_FIELD", "ID")
    }
    text = json.dumps(row, default=str)
    assert "s3cr3t" not in text
    assert "secret-token" not in text
    assert ROW["CALL_LOG"].endswith("s3cr3t/"), "the row that came is not changed"


@pytest.mark.parametrize(
    ("link", "kept"),
    [
        ("https://a.example/x?token=1", "https://a.example/…"),
        ("http://a.example", "http://a.example/…"),
        ("https://токен@a.example/", "https://a.example/…"),
        ("https:///no-host", "…"),
        ("https://[torn/x?token=1", "…"),
        ("//a.example/x?token=1", "//a.example/…"),
        ("/rest/1/token/", "…"),
        ("token", "…"),
        ("", ""),
        (None, None),
        ([], []),
        (5, 5),
        (["https://a.example/x", {"url": "token", "n": 1}], ["https://a.example/…", {"url": "…", "n": 1}]),
    ],
)
def test_host_only(link: object, kept: object) -> None:
    """A link keeps its host, nothing stays nothing, and whatever other text stands there is not kept, at any depth."""
    assert host_only(link) == kept


def test_links_that_came_as_something_else_are_not_stored(portals: list[Portal]) -> None:
    """A field of links that cannot be read is still a field of credentials."""
    told = {"CALL_RECORD_URL": [{"url": ROW["CALL_RECORD_URL"]}], "CALL_LOG": {"0": ROW["CALL_LOG"]}}
    call, errors = readable_part({**ROW, **told})
    assert [error.field for error in errors] == ["CALL_RECORD_URL"]
    text = json.dumps(stored(call, portals[1]), default=str, ensure_ascii=False)
    assert "s3cr3t" not in text
    assert "pbx.example:8443/…" in text


def test_text_that_postgres_refuses_does_not_stop_the_day(database: str, portals: list[Portal]) -> None:
    """A NUL character, which MySQL takes and Postgres does not, is left out wherever it stands."""
    row = {**ROW, "COMMENT": "a\0b", "CALL_ID": "x\0y", "NEW_FIELD": {"k\0": ["v\0w"]}}

    async def work(pool: Pool) -> None:
        await put_calls(pool, stored(call_row(row), portals[1]), portal=PORTAL)
        found = await one(pool, "SELECT vendor_call_id, raw FROM calls")
        assert found["vendor_call_id"] == "xy"
        assert (found["raw"]["COMMENT"], found["raw"]["NEW_FIELD"]) == ("ab", {"k": ["vw"]})

    with_pool(database, work)
