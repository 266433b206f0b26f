"""No value in any field of a row stops a step, or is lost: the row is stored, or its call failed, or it is kept apart."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dialog_assets.assets import calls as step
from dialog_assets.assets import entities
from dialog_assets.assets.steps import StepRun
from dialog_assets.assets.storable import storable, storable_row
from dialog_assets.assets.users import read_users
from dialog_assets.bitrix24.errors import RowError
from dialog_assets.bitrix24.rows import user_row
from dialog_assets.bitrix24.wire import id_of
from dialog_assets.store import entities as entities_table
from dialog_assets.store import users as users_table
from dialog_assets.store.pool import open_pool
from dialog_assets_tests.assets.portal_on_a_socket import okna_sever, portal_site, run_step
from dialog_assets_tests.bitrix24.json_values import NASTY, any_json
from dialog_assets_tests.bitrix24.test_rows import CALL, DEAL, ITEM, USER
from dialog_assets_tests.sandbox.bitrix24_portal import make_calls, make_portal

DAYS = date(2026, 3, 1), date(2026, 3, 2)
CALL_LINKS = {"CALL_LOG": "https://x.example/s3cr3t", "CALL_RECORD_URL": "https://x.example/s3cr3t"}
DEEP: Any = "deep"
for _ in range(900):
    DEEP = [DEEP]


def rows(database: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(query.encode()).fetchall()


def nasty_rows(row: dict[str, Any], name: str) -> list[Any]:
    """Every nasty value in every field but the id `name`, which counts up, and in place of the id, and of the row."""
    found = [{**row, field: value} for field in row if field != name for value in [*NASTY, DEEP]]
    numbered: list[Any] = [{**one, name: 1000 + number} for number, one in enumerate(found)]
    numbered += [{**row, name: value} for value in NASTY if id_of({name: value}) is None]
    return [*numbered, *(value for value in NASTY if not isinstance(value, dict))]


def test_every_nasty_value_of_a_call_reaches_the_tables(database: str) -> None:
    """In one chunk, as binary COPY takes it: as many calls and rows kept apart as came, each done or failed."""
    came = nasty_rows({**CALL, **CALL_LINKS, "CALL_START_DATE": "2026-03-02T11:00:00+03:00"}, "ID")

    async def nothing(_: date) -> None: ...

    async def run() -> step._Calls:
        async with open_pool(database, size=2) as pool:
            one = StepRun(okna_sever(), "calls", DAYS, pool, nothing)
            calls = step._Calls(one, set(), set())
            for _ in range(2):
                await step._write(one, calls.sort(came), set())
            return calls

    found = asyncio.run(run())
    states = dict(rows(database, "SELECT state, count(*) FROM call_steps WHERE step = 'calls' GROUP BY 1"))
    assert states["done"] > 300
    assert states["failed"] > 300
    assert rows(database, "SELECT count(*) FROM calls") == [(sum(states.values()),)]
    apart = rows(database, "SELECT row_id FROM unreadable_rows")
    assert len(apart) == len(found.keys)
    numbered = {one["ID"] for one in came if isinstance(one, dict) and isinstance(one.get("ID"), int)}
    known = {call for (call,) in rows(database, "SELECT call_id FROM calls")} | {call for (call,) in apart}
    assert {one for one in numbered if 1000 <= one < 10_000} == known - {None}
    wrapped = "duration_s NOT IN (0, 95) AND duration_s::text <> raw ->> 'CALL_DURATION'"
    assert rows(database, f"SELECT duration_s, raw FROM calls WHERE {wrapped}") == []
    for table in ("calls", "unreadable_rows"):
        assert "s3cr3t" not in str(rows(database, f"SELECT raw FROM {table}"))


def test_every_nasty_value_of_users_and_entities_reaches_the_tables(database: str) -> None:
    """What a reader lets pass, Postgres takes, in every column and in raw."""

    async def run() -> int:
        people, objects = [], []
        for row in nasty_rows(USER, "ID"):
            try:
                people.append(storable_row(user_row(row)))
            except RowError:
                storable(row)
        for sample, name, kind in ((DEAL, "ID", "deal"), ({**USER, **DEAL}, "ID", "contact"), (ITEM, "id", "lead")):
            dates = dict.fromkeys(("CATEGORY_ID", "DATE_CREATE", "DATE_MODIFY", "categoryId", "movedTime"))
            for row in nasty_rows({**sample, **dates}, name):
                try:
                    objects.append(entities.stored(kind, row))  # type: ignore[arg-type]
                except RowError:
                    storable(row)
        async with open_pool(database, size=1) as pool, pool.connection() as connection:
            await users_table.write(connection, "okna_sever", people)
            await entities_table.write(connection, "okna_sever", objects)
        return len(people) + len(objects)

    assert asyncio.run(run()) > 1000


def test_any_night_goes_on(database: str) -> None:
    """Three steps against the sandbox, with any JSON in any fields of calls, users, contacts and deals."""
    calls = make_calls(70)
    for call in calls[20:]:
        call.fields.update({"CRM_ENTITY_TYPE": "CONTACT", "CRM_ENTITY_ID": str(1 + call.id % 9)})
    portal = make_portal(calls)
    well = {call.id for call in calls[:20]}
    served = [
        *((call.fields, f"call {call.id}") for call in calls[20:]),
        *((row, "user") for row in portal.users.values()),
        *((portal.contacts[number], "contact") for number in range(1, 10)),
        *((row, "deal") for row in portal.deals.values()),
    ]
    originals = [dict(row) for row, _ in served]
    # A readable id or start that is another one is no unreadable row but a dropped filter, and rightly stops the step.
    value = any_json.filter(lambda one: "\\ud" not in ascii(one))

    @settings(max_examples=6, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.integers(0, len(served) - 1), st.integers(0, 30), value), min_size=20, max_size=60))
    def go(changes: list[tuple[int, int, Any]]) -> None:
        for (row, _), before in zip(served, originals, strict=True):
            row.clear()
            row.update(before)
        for place, field, new in changes:
            row = served[place][0]
            name = sorted(row)[field % len(row)]
            # The stand-in finds deals by an index of their owners, which does not see a row that is changed in place.
            if name != "CONTACT_ID" and (name != "ID" or id_of({"ID": new}) is None):
                row[name] = new
        run_step(database, "calls", step.read_calls, *DAYS)
        run_step(database, "users", read_users, *DAYS)
        run_step(database, "entities", entities.read_entities, *DAYS)
        stored = {call for (call,) in rows(database, "SELECT call_id FROM calls")}
        (apart,) = rows(
            database, "SELECT count(*), count(*) FILTER (WHERE row_id IS NULL) FROM unreadable_rows WHERE kind = 'call'"
        )
        assert well <= stored
        assert len(stored) + apart[0] >= 70
        lost = rows(database, "SELECT call_id FROM call_steps WHERE step = 'calls' AND state NOT IN ('done', 'failed')")
        assert lost == []
        bad = rows(database, "SELECT call_id FROM call_steps WHERE step = 'calls' AND state = 'failed'")
        assert well.isdisjoint(call for (call,) in bad)
        for name in ("users", "entities"):
            counted = rows(database, f"SELECT count(*) FROM call_steps WHERE step = '{name}'")
            assert counted == [(len(stored),)]

    with portal_site(portal):
        go()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), [1e999], {"a": {"b": float("nan")}}])
def test_numbers_that_json_has_no_word_for(value: Any) -> None:
    """Python reads 1e999 as infinity, and would write it as no JSON at all."""
    assert "inf" in str(storable(value)) or "nan" in str(storable(value))
    assert str(storable(value)).count("'") >= (2 if not isinstance(value, float) else 0)


def test_what_is_nested_beyond_reason_is_cut() -> None:
    """The row is stored without what lies deeper than any row of a portal."""
    kept = storable({"a": DEEP, "b": [[1]]})
    assert kept["b"] == [[1]]
    depth, inner = 0, kept["a"]
    while inner is not None:
        depth, inner = depth + 1, inner[0]
    assert depth == 100
