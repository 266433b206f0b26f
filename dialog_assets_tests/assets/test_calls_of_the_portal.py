"""Asset calls against the sandbox: what a portal shows later reaches the tables, nothing is lost of a row."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from typing import Any

import psycopg
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from dialog_assets.assets.calls import gathered, read_calls, stored
from dialog_assets.bitrix24.errors import Bitrix24UnavailableError
from dialog_assets.bitrix24.rows import call_row
from dialog_assets.sandbox.crowd import crowd_portal
from dialog_assets_tests.assets.portal_on_a_socket import okna_sever, portal_site, run_step, site_served
from dialog_assets_tests.sandbox.bitrix24_portal import MIDNIGHT, make_calls, make_portal, make_site

DOCUMENTED = [
    "ID",
    "CALL_ID",
    "EXTERNAL_CALL_ID",
    "CALL_CATEGORY",
    "PORTAL_USER_ID",
    "PORTAL_NUMBER",
    "PHONE_NUMBER",
    "CALL_TYPE",
    "CALL_DURATION",
    "CALL_START_DATE",
    "CALL_LOG",
    "CALL_RECORD_URL",
    "CALL_VOTE",
    "COST",
    "COST_CURRENCY",
    "CALL_FAILED_CODE",
    "CALL_FAILED_REASON",
    "CRM_ENTITY_TYPE",
    "CRM_ENTITY_ID",
    "CRM_ACTIVITY_ID",
    "REST_APP_ID",
    "REST_APP_NAME",
    "TRANSCRIPT_ID",
    "TRANSCRIPT_PENDING",
    "SESSION_ID",
    "REDIAL_ATTEMPT",
    "COMMENT",
    "RECORD_DURATION",
    "RECORD_FILE_ID",
]
"""facts/bitrix24.md 3.2."""

SAMPLE = {
    **dict.fromkeys(DOCUMENTED),
    "ID": "7",
    "CALL_START_DATE": "2026-03-02T11:19:38+03:00",
    "CALL_RECORD_URL": "https://records.example/a?token=SECRET",
    "CALL_LOG": "https://log.example/x?sessionid=SECRET",
    "COMMENT": "и \0 \ud83d далее",
    "REST_APP_NAME": "Приложение 🙂",
    "PHONE_NUMBER": "+7900\x000",
    "FIELD_OF_2030": {"a\0": ["\udc00", 1.5, None]},
}


def test_every_documented_field_is_kept() -> None:
    """All fields of the documentation and unknown ones are in raw; links lose all but their host; what no text can hold goes."""
    row = stored(call_row(SAMPLE), okna_sever())
    assert set(DOCUMENTED) <= set(row["raw"])
    assert row["raw"]["CALL_RECORD_URL"] == "https://records.example/…"
    assert row["raw"]["COMMENT"] == "и  � далее"
    assert row["raw"]["FIELD_OF_2030"] == {"a": ["�", 1.5, None]}
    assert row["raw"]["REST_APP_NAME"] == "Приложение 🙂"
    assert row["phone"] == "+79000"
    assert "SECRET" not in json.dumps({name: str(value) for name, value in row.items()})


def calls_of(database: str) -> dict[int, tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        found = connection.execute(
            "SELECT call_id, vote, cost::text, entity_type, entity_id, record_file_id FROM calls"
        ).fetchall()
    return {row[0]: row[1:] for row in found}


def test_late_facts_reach_known_calls(database: str) -> None:
    """Reading trailing days again brings votes, costs, CRM links and recordings that came after the first reading."""
    day = date(2026, 3, 1), date(2026, 3, 2)
    with portal_site(make_portal(make_calls(120))):
        run_step(database, "calls", read_calls, *day)
    before = calls_of(database)
    calls = make_calls(120)
    late = {"CALL_VOTE": "4", "COST": "1.2600", "CRM_ENTITY_TYPE": "LEAD", "CRM_ENTITY_ID": "9", "RECORD_FILE_ID": 77}
    calls[99].fields.update(late)
    with portal_site(make_portal(calls)):
        run_step(database, "calls", read_calls, *day)
    after = calls_of(database)
    assert len(before) == 120
    assert before[100] == (None, "0", None, None, None)
    assert after == before | {100: (4, "1.2600", "lead", 9, 77)}


class HeldBack:
    """A portal's app that answers the requests after `first` only when `rows` calls are in the table; gives up after a minute."""

    def __init__(self, app: ASGIApp, database: str, *, first: int, rows: int) -> None:
        self.app, self.database, self.first, self.rows = app, database, first, rows
        self.requests = 0
        self.seen: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait if it must, then answer."""
        if scope["type"] == "http":
            self.requests += 1
            if self.requests > self.first:
                self.seen.append(await asyncio.to_thread(self.wait))
        await self.app(scope, receive, send)

    def wait(self) -> int:
        """How many calls there are, once there are enough of them."""
        found = 0
        with psycopg.connect(self.database, autocommit=True) as connection:
            for _ in range(1200):
                found = connection.execute("SELECT count(*) FROM calls").fetchall()[0][0]
                if found >= self.rows:
                    break
                time.sleep(0.05)
        return found


def test_calls_reach_the_table_while_the_next_ones_are_read(database: str) -> None:
    """The portal holds the fourth and later answers back until the first ones' calls can be seen in Postgres."""
    crowd = crowd_portal(5200, contacts=10, recordings=0, days=2, first=MIDNIGHT, portal="demo")
    site = make_site(replace(crowd, webhook_secret="s3cret"))
    held = HeldBack(site.server.app, database, first=3, rows=2500)
    site.server.app = held  # type: ignore[assignment]
    with site_served(site):
        run_step(database, "calls", read_calls, *(date(2026, 3, day) for day in range(1, 6)))
    assert len(held.seen) >= 2
    assert min(held.seen) >= 2500
    assert len(calls_of(database)) == 5200


def test_what_came_before_an_error_is_kept() -> None:
    """Rows read before the portal failed are handed on, then the error comes."""

    async def pages() -> AsyncIterator[list[dict[str, Any]]]:
        for number in range(5):
            yield [{"ID": number}] * 50
        raise Bitrix24UnavailableError("connection")

    async def read() -> list[int]:
        sizes = []
        with pytest.raises(Bitrix24UnavailableError):
            async for rows in gathered(pages(), 100):
                sizes.append(len(rows))  # noqa: PERF401 -- they must survive the error
        return sizes

    assert asyncio.run(read()) == [100, 100, 50]
