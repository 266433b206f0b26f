"""The portal's days: cut at its midnight, whatever its clocks do."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any, cast
from zoneinfo import ZoneInfo

import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dialog_assets.assets.calls import stored
from dialog_assets.assets.steps import StepRun
from dialog_assets.bitrix24 import reading
from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.rows import call_row
from dialog_assets.portals import Portal
from dialog_assets.sandbox.world.model import Call
from dialog_assets_tests.assets.portal_on_a_socket import okna_sever
from dialog_assets_tests.bitrix24.small_portal import Freely
from dialog_assets_tests.sandbox.bitrix24_portal import make_portal, make_site, statistic_row

ZONES = (
    "Europe/Berlin",  # 02:00 to 03:00 and back
    "Africa/Cairo",  # spring begins at midnight, which then does not exist
    "Atlantic/Azores",  # autumn repeats the hour after midnight
    "America/Sao_Paulo",  # until 2019 autumn repeated the hour before midnight
    "Australia/Lord_Howe",  # by half an hour
    "Pacific/Apia",  # 2011-12-30 did not take place
    "America/Santiago",  # like Cairo, on the southern half
    "Asia/Beirut",  # spring has no midnight, autumn repeats the hour before it
    "America/Havana",  # spring has no midnight, autumn repeats the hour after it
    "Asia/Yekaterinburg",
)
SOME_CHANGES = {
    "Europe/Berlin": (2026, 3, 10),
    "America/Santiago": (2026, 4, 9),
    "Asia/Beirut": (2026, 3, 10),
    "America/Havana": (2026, 3, 11),
}
"""A year and the months of its changes of clocks."""
OKNA = okna_sever()
POOL = DAY_DONE = cast(Any, None)


def change_of_clocks(zone: str, year: int, month: int) -> datetime:
    """The instant at which the clocks change in that month."""
    low, high = datetime(year, month, 1, tzinfo=UTC), datetime(year, month + 1, 1, tzinfo=UTC)
    before = low.astimezone(ZoneInfo(zone)).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        low, high = (middle, high) if middle.astimezone(ZoneInfo(zone)).utcoffset() == before else (low, middle)
    return high.replace(microsecond=0)


def changes_of_clocks(zone: str) -> list[datetime]:
    """Both changes of the year."""
    year, *months = SOME_CHANGES[zone]
    return [change_of_clocks(zone, year, month) for month in months]


def of_zone(zone: str) -> Portal:
    return OKNA.model_copy(update={"time_zone": zone})


def window(portal: Portal, *days: date) -> tuple[datetime, datetime]:
    start, end = StepRun(portal, "calls", days, POOL, DAY_DONE).window
    return start.astimezone(UTC), end.astimezone(UTC)


def day_of(portal: Portal, moment: datetime) -> date:
    """The day under which a call of that moment is kept."""
    found: date = stored(call_row({"ID": "1", "CALL_START_DATE": moment.isoformat()}), portal)["day"]
    return found


@pytest.mark.parametrize("zone", ZONES)
@given(seconds=st.integers(0, 17 * 365 * 86400), hours=st.integers(-12, 14))
def test_every_instant_is_of_exactly_one_day(zone: str, seconds: int, hours: int) -> None:
    """Whatever offset the portal writes, a call lands on the one day whose window has its instant."""
    portal = of_zone(zone)
    instant = datetime(2010, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    day = day_of(portal, instant.astimezone(timezone(timedelta(hours=hours))))
    around = [day + timedelta(days=number) for number in range(-2, 3)]
    holding = [one for one in around for start, end in [window(portal, one)] if start <= instant < end]
    assert holding == [day]


@pytest.mark.parametrize("zone", ZONES)
@given(day=st.dates(date(2010, 1, 1), date(2027, 12, 31)), length=st.integers(1, 10))
@example(day=date(2026, 3, 28), length=3)
@example(day=date(2026, 10, 24), length=3)
@example(day=date(2011, 12, 29), length=3)
def test_days_tile_time(zone: str, day: date, length: int) -> None:
    """Where one day ends the next begins, and a range is its days put together."""
    portal = of_zone(zone)
    days = [day + timedelta(days=number) for number in range(length)]
    windows = [window(portal, one) for one in days]
    assert all(first[1] == second[0] for first, second in pairwise(windows))
    assert window(portal, *days) == (windows[0][0], windows[-1][1])
    assert all(start <= end for start, end in windows)


@pytest.mark.parametrize("zone", SOME_CHANGES)
@given(seconds=st.integers(-30 * 3600, 30 * 3600), first=st.booleans())
@example(seconds=-1, first=True)
@example(seconds=0, first=True)
@example(seconds=-1, first=False)
@example(seconds=0, first=False)
def test_every_instant_around_a_change_of_clocks_is_of_exactly_one_day(zone: str, seconds: int, *, first: bool) -> None:
    """On the days of 23 and of 25 hours, to the second of the change."""
    portal = of_zone(zone)
    instant = changes_of_clocks(zone)[0 if first else 1] + timedelta(seconds=seconds)
    day = day_of(portal, instant.astimezone(ZoneInfo(zone)))
    around = [day + timedelta(days=number) for number in range(-2, 3)]
    assert [one for one in around for start, end in [window(portal, one)] if start <= instant < end] == [day]


@pytest.mark.parametrize("zone", SOME_CHANGES)
@settings(max_examples=15)
@given(seconds=st.sets(st.integers(-30 * 3600, 30 * 3600), max_size=60))
@example(seconds={-3601, -3600, -1, 0, 1, 3599, 3600})
def test_the_portal_gives_each_call_on_exactly_one_day(zone: str, seconds: set[int]) -> None:
    """Asked for day by day around both changes, the portal's own clock in the rows: each call once, on the day it is kept under."""
    portal = of_zone(zone)
    starts = sorted(change + timedelta(seconds=some) for change in changes_of_clocks(zone) for some in seconds)
    local = [start.astimezone(ZoneInfo(zone)) for start in starts]
    calls = tuple(Call(one, start, statistic_row(one, start)) for one, start in enumerate(local, 1))
    site = make_site(make_portal(calls, time_zone=zone))
    days = {
        start.astimezone(ZoneInfo(zone)).date() + timedelta(days=number) for start in starts for number in (-1, 0, 1)
    }

    async def go() -> list[tuple[int, date]]:
        transport = httpx2.ASGITransport(app=site.server.app)
        url = "https://portal.test/rest/1/s3cret/"
        async with Bitrix24Client(url, pacer=Freely(), transport=transport) as client:
            return [
                (int(row["ID"]), day)
                for day in sorted(days)
                async for page in reading.calls(client, *StepRun(portal, "calls", (day,), POOL, DAY_DONE).window)
                for row in page
            ]

    assert sorted(asyncio.run(go())) == [(one, day_of(portal, start)) for one, start in enumerate(local, 1)]


@pytest.mark.parametrize("zone", SOME_CHANGES)
def test_the_year_has_a_short_and_a_long_day(zone: str) -> None:
    """The days of the changes have 23 and 25 hours, their neighbours 24."""
    portal = of_zone(zone)
    middles = [(change - timedelta(seconds=1)).astimezone(ZoneInfo(zone)).date() for change in changes_of_clocks(zone)]
    around = [middle + timedelta(days=number) for middle in middles for number in range(-1, 3)]
    lengths = [(end - start) // timedelta(hours=1) for start, end in (window(portal, day) for day in around)]
    assert sorted(lengths) == [23, *[24] * (len(around) - 2), 25]


def test_the_days_of_a_change_of_clocks_in_berlin() -> None:
    """23 and 25 hours, with the calls of the repeated hour on one day."""
    portal = of_zone("Europe/Berlin")
    lengths = [window(portal, day)[1] - window(portal, day)[0] for day in (date(2026, 3, 29), date(2026, 10, 25))]
    assert lengths == [timedelta(hours=23), timedelta(hours=25)]
    for text in ("2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-24T22:00:00+00:00"):
        assert day_of(portal, datetime.fromisoformat(text)) == date(2026, 10, 25)
