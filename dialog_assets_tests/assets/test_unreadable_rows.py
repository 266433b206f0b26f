"""Rows that cannot be read: the others go on, the checks say which, and a later night makes them good (rules 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg
import psycopg
import pytest

from dialog_assets.assets.calls import read_calls
from dialog_assets.assets.entities import read_entities
from dialog_assets.assets.portal_counts import NAME as COUNTS
from dialog_assets.assets.steps import Findings
from dialog_assets.assets.users import read_users
from dialog_assets.portals import Portal
from dialog_assets.sandbox.world.model import Call
from dialog_assets.store import call_steps
from dialog_assets.worklist import StepStopped
from dialog_assets_tests.assets.portal_on_a_socket import okna_sever, portal_site, run_step
from dialog_assets_tests.end_to_end.week import run_range
from dialog_assets_tests.sandbox.bitrix24_portal import make_calls, make_portal
from dialog_assets_tests.store.rows import Pool, with_pool

DAYS = date(2026, 3, 1), date(2026, 3, 2)
"""Call 1 is two hours before midnight in Moscow, and there is one every ten minutes: the first twelve are on the first day."""

SECRET = "s3cr3t-recording"


def rows(database: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(query.encode()).fetchall()


CORES = {"calls": read_calls, "users": read_users, "entities": read_entities}


def night(database: str, calls: Sequence[Call], *steps: str, **fields: Any) -> dict[str, Findings]:
    """What steps find over the days, in a portal with these calls."""
    with portal_site(make_portal(tuple(calls), **fields)):
        return {step: run_step(database, step, CORES[step], *DAYS) for step in steps or CORES}


def failed(database: str, step: str) -> dict[int, str]:
    """Call → detail of the calls failed at the step, all for the same reason."""
    found = rows(database, "SELECT call_id, step, reason, detail FROM call_steps WHERE state = 'failed' ORDER BY 1")
    assert {reason for _, _, reason, _ in found} <= {"row_unreadable"}
    return {call: detail for call, name, _, detail in found if name == step}


def apart(database: str) -> list[tuple[Any, ...]]:
    query = "SELECT kind, row_id, field, days::text FROM unreadable_rows ORDER BY kind, row_id NULLS LAST"
    return rows(database, query)


def pending(database: str, upstream: str = "calls", step: str = "audio_files") -> list[int]:
    """The calls that the archive would work on."""

    async def work(pool: Pool) -> list[int]:
        found = call_steps.pending(pool, "okna_sever", step, upstream, *DAYS)
        return [one.call_id async for one in found]

    return with_pool(database, work)


def test_two_nights(database: str) -> None:
    """What can be read of a call is stored and the call failed, the rest is kept apart; then all reads well and goes on."""
    calls, well = make_calls(60), make_calls(60)
    for some in (calls, well):
        some[4].fields["RECORD_FILE_ID"] = 77
    calls[4].fields["CALL_DURATION"] = "3000000000"
    calls[6].fields.update({"CALL_DURATION": {"s": 5}, "COST": "viel", "CRM_ENTITY_ID": "5"})
    calls[19].fields["ID"] = None
    calls[20].fields.update(
        {"CALL_START_DATE": "20000-01-01T00:00:00+03:00", "CALL_LOG": f"https://x.example/{SECRET}"}
    )
    findings = night(database, calls)

    assert failed(database, "calls") == {
        5: "CALL_DURATION is not a whole number of at most 32 bits",
        7: "CALL_DURATION is not a whole number of at most 32 bits, COST is not a number of at most 32 places",
    }
    assert rows(database, "SELECT count(*) FROM calls") == [(58,)]
    assert rows(database, "SELECT duration_s, phone, raw ->> 'CALL_DURATION' FROM calls WHERE call_id = 5") == [
        (0, "+79000000005", "3000000000")
    ]
    both = "{[2026-03-01,2026-03-03)}"
    assert apart(database) == [("call", 21, "CALL_START_DATE", both), ("call", None, "ID", both)]
    assert sorted(findings["calls"].unreadable.values()) == [
        "call 21: CALL_START_DATE is not a date and time with offset",
        "call without a readable ID: ID is not a whole number",
    ]
    (check,) = findings["calls"].checks
    assert (check.check_name, check.passed) == (COUNTS, True)
    assert check.description == ("read: 58, counted by the portal: 60; rows that cannot be read make the difference: 2")
    assert SECRET not in str(rows(database, "SELECT raw FROM unreadable_rows"))
    for step in ("users", "entities"):
        waiting = rows(database, f"SELECT call_id, reason FROM call_steps WHERE step = '{step}' AND state = 'waiting'")
        assert waiting == [(5, "calls_failed"), (7, "calls_failed")]
    assert pending(database) == []

    again = night(database, calls, "calls")
    assert again["calls"].unreadable == findings["calls"].unreadable
    assert rows(database, "SELECT attempts FROM call_steps WHERE step = 'calls' AND call_id = 5") == [(2,)]

    findings = night(database, well)
    assert failed(database, "calls") == {}
    assert rows(database, "SELECT duration_s, attempts FROM calls JOIN call_steps USING (portal, call_id) "
                          "WHERE call_id = 5 AND step = 'calls' AND reason IS NULL AND detail IS NULL") == [(35, 2)]  # fmt: skip
    assert apart(database) == []
    assert findings["calls"].unreadable == {}
    assert findings["calls"].checks[0].description == "read: 60, counted by the portal: 60"
    assert rows(database, "SELECT step, count(*) FROM call_steps WHERE state = 'waiting' GROUP BY 1") == []
    assert pending(database) == [5]


def test_a_known_call_that_cannot_be_read_any_more(database: str) -> None:
    """It keeps what was known of the fields that cannot be read, takes over the others, and stays where it is on its day."""
    calls = make_calls(20)
    calls[2].fields.update({"CRM_ENTITY_TYPE": "CONTACT", "CRM_ENTITY_ID": "6", "RECORD_FILE_ID": 77})
    night(database, calls, "calls", "entities")
    assert pending(database) == [3]
    columns = "duration_s, entity_type, entity_id, vote, record_file_id, day"
    known = f"SELECT {columns} FROM calls WHERE call_id IN (3, 4) ORDER BY call_id"
    before = rows(database, known)
    calls[2].fields.update({"CALL_DURATION": "long", "CRM_ENTITY_ID": [6], "CALL_VOTE": "4"})
    calls[3].fields["CALL_START_DATE"] = None
    night(database, calls, "calls", "entities")
    assert failed(database, "calls") == {
        3: "CRM_ENTITY_ID is not a whole number, CALL_DURATION is not a whole number of at most 32 bits",
        4: "call 4: CALL_START_DATE is not a date and time with offset",
    }
    assert rows(database, known) == [(*before[0][:3], 4, *before[0][4:]), before[1]]
    assert rows(database, "SELECT * FROM entity_changes") == []
    assert rows(database, "SELECT state FROM call_steps WHERE call_id = 3 AND step = 'entities'") == [("done",)]
    assert pending(database) == []

    night(database, make_calls(20), "calls")
    assert failed(database, "calls") == {}
    assert apart(database) == []


def test_a_day_that_reads_well_narrows_down_where_a_row_lies(database: str) -> None:
    """A row kept apart lies on a day of every reading that brought it, and on none of one that did not."""
    calls = make_calls(20)
    calls[1].fields["ID"] = "?"
    with portal_site(make_portal(calls)):
        run_step(database, "calls", read_calls, *DAYS)
        assert apart(database) == [("call", None, "ID", "{[2026-03-01,2026-03-03)}")]
        run_step(database, "calls", read_calls, DAYS[1])
        assert apart(database) == [("call", None, "ID", "{[2026-03-01,2026-03-02)}")]
        run_step(database, "calls", read_calls, *DAYS)
        assert apart(database) == [("call", None, "ID", "{[2026-03-01,2026-03-02)}")]
    with portal_site(make_portal(make_calls(20))):
        run_step(database, "calls", read_calls, DAYS[0])
    assert apart(database) == []


def test_one_unreadable_user(database: str) -> None:
    """The other users are written, what was known of this one stays, its calls are failed; then all is well again."""
    calls = make_calls(9)
    users = make_portal().users
    night(database, calls, "calls", "users")
    assert failed(database, "users") == {}
    broken = {10: {**users[10], "NAME": {"first": "Анна"}}, 11: {**users[11], "WORK_POSITION": "Мастер"}}
    findings = night(database, calls, "users", users=broken)
    assert failed(database, "users") == dict.fromkeys((3, 6, 9), "user 10: NAME is not a text")
    assert list(findings["users"].unreadable.values()) == ["user 10: NAME is not a text"]
    assert rows(database, "SELECT user_id, name, position, found FROM users ORDER BY 1") == [
        (10, "Анна Ким", None, True),
        (11, "Олег Дан", "Мастер", True),
        (12, None, None, False),
    ]
    assert rows(database, "SELECT kind, row_id, raw -> 'NAME' FROM unreadable_rows") == [
        ("user", 10, {"first": "Анна"})
    ]
    assert night(database, calls, "users")["users"].unreadable == {}
    assert failed(database, "users") == {}
    assert apart(database) == []


def test_users_without_a_readable_id(database: str) -> None:
    """Whose the row is cannot be said, so nobody who did not come is called missing."""
    calls = make_calls(9)
    users = make_portal().users
    night(database, calls, "calls", "users", users={10: users[10], 11: {**users[11], "ID": "eleven"}})
    assert failed(database, "users") == dict.fromkeys(
        (1, 2, 4, 5, 7, 8), "user 11: ID is not a whole number"
    ) | dict.fromkeys((2, 5, 8), "user 12: ID is not a whole number")
    assert rows(database, "SELECT user_id, found FROM users") == [(10, True)]
    night(database, calls, "users")
    assert failed(database, "users") == {}
    assert rows(database, "SELECT user_id, found FROM users ORDER BY 1") == [(10, True), (11, True), (12, False)]


@pytest.mark.parametrize("family", ["classic", "item"])
def test_unreadable_entities_and_deals(database: str, family: Any) -> None:
    """A contact and a deal that cannot be read fail the calls of their contacts alone; links and known values stay."""
    portal: Portal = okna_sever()
    portal = portal.model_copy(update={"bitrix24": portal.bitrix24.model_copy(update={"crm": family})})
    calls = make_calls(3)
    for call, contact in zip(calls, ("5", "6", "7"), strict=True):
        call.fields.update({"CRM_ENTITY_TYPE": "CONTACT", "CRM_ENTITY_ID": contact})
    good = make_portal(calls)

    def night(**fields: Any) -> Findings:
        with portal_site(make_portal(calls, **fields)):
            return run_step(database, "entities", read_entities, *DAYS, portal=portal)

    with portal_site(good):
        run_step(database, "calls", read_calls, *DAYS, portal=portal)
    night()
    known = "SELECT entity_type, entity_id, title, amount, found FROM entities ORDER BY 1, 2"
    links = "SELECT entity_id, deal_id FROM entity_deals ORDER BY 1, 2"
    before, linked = rows(database, known), rows(database, links)
    assert linked == [(5, 1), (5, 2)]
    contacts = {**good.contacts, 6: {**good.contacts[6], "LAST_NAME": ["x"]}}
    title = "TITLE" if family == "classic" else "title"
    deals = {**good.deals, 2: {**good.deals[2], "TITLE": {"ru": "Балкон"}}}
    findings = night(contacts=contacts, deals=deals)
    name = "LAST_NAME" if family == "classic" else "lastName"
    told = {5: f"deal 2: {title} is not a text", 6: f"contact 6: {name} is not a text"}
    assert failed(database, "entities") == {1: told[5], 2: told[6]}
    assert sorted(findings.unreadable.values()) == sorted(told.values())
    assert (rows(database, known), rows(database, links)) == (before, linked)
    assert [row[:2] for row in apart(database)] == [("contact", 6), ("deal", 2)]

    assert night().unreadable == {}
    assert failed(database, "entities") == {}
    assert apart(database) == []


def test_a_deal_without_a_readable_id(database: str) -> None:
    """It is kept as its contact's, whose call is failed and whose known deals stay."""
    calls = make_calls(2)
    for call, contact in zip(calls, ("5", "6"), strict=True):
        call.fields.update({"CRM_ENTITY_TYPE": "CONTACT", "CRM_ENTITY_ID": contact})
    deals = make_portal().deals
    night(database, calls, "calls", "entities")
    night(database, calls, "entities", deals={**deals, 2: {**deals[2], "ID": {}}})
    assert failed(database, "entities") == {1: "contact 5: the ID of one of its deals is not a whole number"}
    # Deal 2 is known and open, so it is asked for by itself too.
    assert [row[:3] for row in apart(database)] == [("contact", 5, "the ID of one of its deals"), ("deal", 2, "ID")]
    assert rows(database, "SELECT deal_id FROM entity_deals ORDER BY 1") == [(1,), (2,)]
    assert night(database, calls, "entities")["entities"].unreadable == {}
    assert failed(database, "entities") == {}
    assert apart(database) == []


@pytest.mark.parametrize("field", ["CALL_DURATION", "CALL_START_DATE", "ID"])
def test_a_portal_that_speaks_differently_stops_the_step(database: str, field: str) -> None:
    """When not one of many rows can be read, one sentence says so, and nothing is written."""
    calls = make_calls(60)
    for call in calls:
        call.fields[field] = {"value": call.fields[field]}
    with portal_site(make_portal(calls)), pytest.raises(StepStopped) as stopped:
        run_step(database, "calls", read_calls, *DAYS)
    assert str(stopped.value).startswith(f"okna_sever/calls: of 60 call rows not one can be read ({field} is not a ")
    assert rows(database, "SELECT count(*) FROM calls") == [(0,)]
    assert apart(database) == []


def test_what_dagster_shows(database: str) -> None:
    """The checks of the asset say how many and which, of what day, and how many calls the portal counts."""
    monday, tuesday = date(2026, 3, 2), date(2026, 3, 3)
    calls = make_calls(200)
    calls[30].fields["CALL_VOTE"] = "very good"
    calls[160].fields["ID"] = ""
    with portal_site(make_portal(calls)):
        result = run_range(okna_sever(), monday, tuesday, ["calls"])
        alone = run_range(okna_sever(), tuesday, tuesday, ["calls"])
    assert result.success
    (row,) = [one for one in alone.get_asset_check_evaluations() if one.check_name == "no_failed_calls"]
    assert not row.passed
    assert row.description is not None
    assert row.description.startswith("1 failed: call 31 of 2026-03-02 row_unreadable (CALL_VOTE is not a whole number")
    assert row.description.endswith("; rows that cannot be read: 1")
    checks = {one.check_name: one for one in result.get_asset_check_evaluations()}
    red = checks["no_failed_calls"]
    assert not red.passed
    assert red.severity == dg.AssetCheckSeverity.ERROR
    assert red.description == row.description
    assert "CALL_VOTE is not a whole number of at most 32 bits" in str(red.metadata["calls"].value)
    assert str(red.metadata["rows"].value) == "- call without a readable ID: ID is not a whole number"
    counts = checks[COUNTS]
    assert counts.passed
    assert str(counts.metadata["days"].value).splitlines()[2:] == [
        "| 2026-03-02 | 144 | 144 | 144 | 0 | 0 |",
        "| 2026-03-03 | 44 | 43 | 43 | 1 | 0 |",
    ]
    assert checks["every_call_accounted_for"].passed
    told = {
        event.partition: event.step_materialization_data.materialization.metadata["counted_by_the_portal"].value
        for event in result.get_asset_materialization_events()
    }
    assert told == {"2026-03-02": 144, "2026-03-03": 44}
