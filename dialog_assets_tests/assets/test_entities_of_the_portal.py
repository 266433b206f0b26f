"""Assets entities and users against the sandbox: what changed in the CRM between two nights is kept."""

from __future__ import annotations

from datetime import date
from typing import Any

import psycopg

from dialog_assets.assets.calls import read_calls
from dialog_assets.assets.entities import read_entities, stored
from dialog_assets.assets.users import read_users
from dialog_assets_tests.assets.portal_on_a_socket import portal_site, run_step
from dialog_assets_tests.sandbox.bitrix24_portal import make_calls, make_portal

DAYS = date(2026, 3, 1), date(2026, 3, 2)


def changes(database: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        query = (
            "SELECT entity_type, entity_id, field, before, after FROM entity_changes ORDER BY 1, 2, 3, 4 NULLS LAST, 5"
        )
        return connection.execute(query).fetchall()


def test_two_nights_of_a_crm(database: str) -> None:
    """A deal that moves (its contact called, or not), a deal linked and unlinked, a contact deleted, a user dismissed."""
    calls = make_calls(20)
    for call in calls:
        call.fields.update({"CRM_ENTITY_TYPE": "CONTACT", "CRM_ENTITY_ID": "6" if call.id % 2 else "5"})
    before = make_portal(calls)
    fresh = {"STAGE_ID": "NEW", "CATEGORY_ID": "0", "DATE_MODIFY": "2026-03-02T10:00:00+05:00", "CLOSED": "N"}
    deals = {number: {**deal, **fresh} for number, deal in before.deals.items()}
    with portal_site(make_portal(calls, deals=deals)):
        for step, core in (("calls", read_calls), ("users", read_users), ("entities", read_entities)):
            run_step(database, step, core, *DAYS)
        assert changes(database) == []
        run_step(database, "entities", read_entities, *DAYS)
        assert changes(database) == []

    won = {**deals[1], "STAGE_ID": "C3:WON", "CATEGORY_ID": "3", "DATE_MODIFY": "2026-03-03T10:00:00+05:00"}
    lost = {**deals[2], "CONTACT_ID": "40", "STAGE_ID": "LOSE", "CLOSED": "Y"}
    after = make_portal(
        calls,
        deals={1: won, 2: lost, 3: {**won, "ID": "3", "CONTACT_ID": "5"}},
        contacts={number: row for number, row in before.contacts.items() if number != 6},
        users={number: {**row, "ACTIVE": False} for number, row in before.users.items()},
    )
    with portal_site(after):
        run_step(database, "users", read_users, *DAYS)
        run_step(database, "entities", read_entities, *DAYS)
    assert changes(database) == [
        ("contact", 5, "deal", "2", None),
        ("contact", 5, "deal", None, "3"),
        ("contact", 6, "found", "true", "false"),
        ("deal", 1, "category", "0", "3"),
        ("deal", 1, "stage", "NEW", "C3:WON"),
        ("deal", 2, "stage", "NEW", "LOSE"),
        ("user", 10, "active", "true", "false"),
    ]
    with psycopg.connect(database) as connection:
        told = connection.execute(
            "SELECT count(*) FROM entity_changes WHERE modified_at = '2026-03-03T10:00:00+05:00'"
        ).fetchone()
        steps = connection.execute(
            "SELECT step, state, reason, count(*) FROM call_steps WHERE step <> 'calls' GROUP BY 1, 2, 3 ORDER BY 1, 2, 4"
        ).fetchall()
    assert told == (2,)
    assert steps == [
        ("entities", "done", None, 10),
        ("entities", "skipped", "entity_not_found", 10),
        ("users", "done", None, 13),
        ("users", "skipped", "user_not_found", 7),
    ]


def test_both_families_of_rows() -> None:
    """Times and pipeline are read from classic and universal rows; what is no moment is none."""
    row = {
        "ID": "1",
        "CATEGORY_ID": "5",
        "DATE_CREATE": "2026-03-02T10:00:00+03:00",
        "DATE_MODIFY": "soon",
        "MOVED_TIME": "",
    }
    found = stored("deal", row)
    assert (found["category"], str(found["created_at"]), found["modified_at"], found["moved_at"]) == (
        "5",
        "2026-03-02 10:00:00+03:00",
        None,
        None,
    )
    universal = {
        "ID": 1,
        "categoryId": 5,
        "createdTime": "2026-03-02T10:00:00+03:00",
        "movedTime": "2026-03-03T10:00:00",
    }
    assert stored("deal", universal)["category"] == "5"
    assert stored("deal", universal)["moved_at"] is None
    assert stored("contact", row)["category"] is None
