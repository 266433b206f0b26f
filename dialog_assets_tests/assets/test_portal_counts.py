"""What the portal counts beside what was read: nothing lost passes unseen, and nothing else turns the check red."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.assets.calls import read_calls
from dialog_assets.assets.portal_counts import DayCount, result
from dialog_assets.bitrix24.errors import Bitrix24DataError
from dialog_assets.bitrix24.history import counts
from dialog_assets.cli.doctor.bitrix24 import credential
from dialog_assets.store.pool import open_pool
from dialog_assets_tests.assets.portal_on_a_socket import okna_sever, portal_site, run_step
from dialog_assets_tests.bitrix24.small_portal import END, START, Statistic, client_of
from dialog_assets_tests.sandbox.bitrix24_portal import STATISTIC, Site, make_calls, make_portal

DAYS = date(2026, 3, 1), date(2026, 3, 2)
day = st.integers(0, 40)


def of(*days: tuple[int | None, int, int]) -> list[DayCount]:
    """Days with what is counted, read and stored."""
    return [DayCount(date(2026, 3, 1 + number), *one) for number, one in enumerate(days)]


@given(st.lists(st.tuples(st.none() | day, day, day), min_size=1, max_size=5), st.integers(0, 9))
def test_no_loss_passes(days: Sequence[tuple[int | None, int, int]], unreadable: int) -> None:
    """Red with more calls missing than rows that cannot be read; yellow where nothing is counted; else green."""
    found = result(of(*days), unreadable)
    lost = sum(
        max(0, read - stored) if counted is None else max(0, counted - min(read, stored), read - stored)
        for counted, read, stored in days
    )
    counts_all = all(counted is not None for counted, _, _ in days)
    assert found.metadata["missing"].value == lost
    assert found.passed == (lost <= unreadable and counts_all)
    assert (found.severity == dg.AssetCheckSeverity.ERROR) == (lost > unreadable)
    if all(counted == read == stored for counted, read, stored in days):
        assert found.passed


@pytest.mark.parametrize(
    ("days", "unreadable", "passed", "told"),
    [
        ([(5, 5, 5), (0, 0, 0)], 0, True, "read: 5, counted by the portal: 5"),
        ([(5, 5, 7)], 0, True, "read: 5, counted by the portal: 5; stored, and deleted at the portal since: 2"),
        ([(5, 6, 6)], 0, True, "read: 6, counted by the portal: 5"),
        ([(6, 5, 5)], 1, True, "read: 5, counted by the portal: 6; rows that cannot be read make the difference: 1"),
        ([(5, 5, 5), (9, 7, 7)], 1, False, "missing of what the portal counts: 2 (2026-03-02: 2); rows that cannot be read: 1"),
        ([(5, 5, 4)], 0, False, "missing of what the portal counts: 1 (2026-03-01: 1); rows that cannot be read: 0"),
        ([(5, 4, 9)], 0, False, "missing of what the portal counts: 1 (2026-03-01: 1); rows that cannot be read: 0"),
        ([(None, 5, 5), (5, 5, 5)], 0, False, "the portal does not count its calls on 1 of 2 days: nothing to compare with"),
        ([(0, 0, 0)], 0, True, "read: 0, counted by the portal: 0"),
    ],
)  # fmt: skip
def test_what_is_said(days: Any, unreadable: int, told: str, *, passed: bool) -> None:
    """One sentence, and the figures of each day; a call that the table alone has hides no other."""
    found = result(of(*days), unreadable)
    assert (found.passed, found.description) == (passed, told)
    assert len(str(found.metadata["days"].value).splitlines()) == 2 + len(days)


def test_no_count_is_not_zero() -> None:
    """A portal that answers without a total, or with 0 above rows, does not count; one without calls counts 0."""

    def ask(portal: Statistic) -> list[int | None]:
        async def go() -> list[int | None]:
            async with client_of(portal) as client:
                return await counts(client, [(START, END)] * 2)

        return asyncio.run(go())

    class Silent(Statistic):
        def page(self, params: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
            return super().page(params)[0], {}

    class Zero(Statistic):
        def page(self, params: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
            return super().page(params)[0], {"total": 0}

    assert ask(Statistic(range(1, 131))) == [130, 130]
    assert ask(Statistic([])) == ask(Zero([])) == [0, 0]
    assert ask(Silent(range(1, 131))) == ask(Silent([])) == ask(Zero([1])) == [None, None]
    stray = Statistic([1], filters_dates=False)
    stray.rows[1]["CALL_START_DATE"] = END.isoformat()
    with pytest.raises(Bitrix24DataError, match="outside the asked time window"):
        ask(stray)


def run(database: str, *events: dict[str, Any], site: Site | None = None) -> dg.AssetCheckResult:
    """The check of a night in which `events` happen after the days have been counted: two commands."""
    if site is None:
        with portal_site(make_portal(make_calls(30))) as new:
            return run(database, *events, site=new)
    site.server.set_events([{"portal": "demo", "match": STATISTIC, "after": 2, **event} for event in events])
    (check,) = run_step(database, "calls", read_calls, *DAYS).checks
    return check


def test_calls_that_come_after_the_count(database: str) -> None:
    """They are read or not, and are no loss; the next night counts them."""
    with portal_site(make_portal(make_calls(30))) as site:
        for after in (2, 3):
            new = {"ID": str(900 + after), "CALL_START_DATE": "2026-03-02T09:00:00+05:00"}
            check = run(database, {"kind": "insert", "after": after, "fields": new}, site=site)
            assert check.passed, check.description
            assert str(check.description).endswith(f"counted by the portal: {30 if after == 2 else 31}")
        assert run(database, site=site).description == "read: 32, counted by the portal: 32"


def test_calls_that_are_deleted(database: str) -> None:
    """Between counting and reading, and since an earlier night: told, and no loss."""
    with portal_site(make_portal(make_calls(30))) as site:
        assert run(database, site=site).passed
        check = run(database, {"kind": "delete", "call": 20}, site=site)
        expected = "read: 29, counted by the portal: 29; stored, and deleted at the portal since: 1"
        assert (check.passed, check.description) == (True, expected)
        assert (check.metadata["stored"].value, check.metadata["deleted"].value) == (30, 1)


def test_a_call_that_does_not_reach_the_table(database: str) -> None:
    """What is read and not stored is missing."""
    with psycopg.connect(database) as connection:
        connection.execute("CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        connection.execute(
            "CREATE TRIGGER lose BEFORE INSERT ON okna_sever_calls FOR EACH ROW WHEN (new.call_id = 20) EXECUTE FUNCTION lose()"
        )
    check = run(database)
    assert not check.passed
    assert check.description == "missing of what the portal counts: 1 (2026-03-02: 1); rows that cannot be read: 0"


def test_what_the_count_cannot_show(database: str) -> None:
    """Calls that the credential's user may not see are in no count; the doctor says who the user is."""

    async def told() -> str:
        async with open_pool(database, size=1) as pool:
            return await credential(pool, okna_sever())

    with portal_site(make_portal(make_calls(30))) as site:
        assert asyncio.run(told()).endswith("its user is an administrator; the newest 30 calls can be read")
        site.server.set_habits({"visible_users": [11]})
        assert run(database, site=site).description == "read: 10, counted by the portal: 10"
        assert "its user is NOT an administrator" in asyncio.run(told())
        site.faults.set([{"service": "bitrix24", "kind": "command_error", "match": "profile"}])
        assert asyncio.run(told()).endswith("is not known (ERROR_CORE); the newest 10 calls can be read")
