"""Which days a night works on: yesterday and the days that trail it, in the portal's own time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import cast
from zoneinfo import ZoneInfo

import dagster as dg
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.assets.jobs import build_schedule, nightly_range, range_tags
from dialog_assets.assets.steps import StepRun
from dialog_assets.portals import Portal
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store.pool import Pool


@pytest.fixture(scope="module")
def portal(portals: list[Portal]) -> Portal:
    """A portal that starts on the 2nd of March 2026 and reads three days again."""
    return portals[1].model_copy(update={"trailing_days": 3})


@pytest.mark.parametrize(
    ("tonight", "expected"),
    [
        ("2026-02-20", None),
        ("2026-03-02", None),
        ("2026-03-03", ("2026-03-02", "2026-03-02")),
        ("2026-03-05", ("2026-03-02", "2026-03-04")),
        ("2026-03-06", ("2026-03-02", "2026-03-05")),
        ("2026-03-07", ("2026-03-03", "2026-03-06")),
        ("2027-01-02", ("2026-12-29", "2027-01-01")),
    ],
)
def test_the_nights_days(portal: Portal, tonight: str, expected: tuple[str, str] | None) -> None:
    """Nothing before the first day is over; never before the start; else yesterday and the three days before it."""
    found = nightly_range(portal, date.fromisoformat(tonight))
    assert found == (expected and tuple(map(date.fromisoformat, expected)))


@given(st.dates(date(2026, 2, 1), date(2028, 1, 1)), st.integers(0, 31))
def test_every_day_is_read_on_every_night_it_trails(portals: list[Portal], tonight: date, trailing: int) -> None:
    """No day since the start is ever left out, and none is read more than its nights."""
    portal = portals[1].model_copy(update={"trailing_days": trailing})
    day = tonight - timedelta(days=1)
    nights = [night for offset in range(-1, trailing + 3) for night in [day + timedelta(days=offset)]]
    reading = [
        night for night in nights if (found := nightly_range(portal, night)) is not None and found[0] <= day <= found[1]
    ]
    expected = [day + timedelta(days=offset) for offset in range(1, trailing + 2)] if day >= portal.start_date else []
    assert reading == expected


@pytest.fixture(autouse=True)
def _database(database: str) -> None:
    """Nights look at the tables for those that did not run."""


def fired(portal: Portal, moment: datetime) -> dg.RunRequest | dg.SkipReason:
    """What the portal's schedule answers when it fires at `moment`."""
    schedule = build_schedule(portal)
    with dg.build_schedule_context(
        scheduled_execution_time=moment, resources={"postgres": PostgresResource()}
    ) as context:
        data = schedule.evaluate_tick(context)
    if not data.run_requests:
        return dg.SkipReason(data.skip_message)
    return data.run_requests[0]


def test_a_schedule_in_summer_time(portal: Portal, database: str) -> None:
    """Over the night when the clock goes forward the schedule fires once a day, each time for the day before."""
    berlin = portal.model_copy(update={"time_zone": "Europe/Berlin", "nightly_at": "02:30"})
    zone = ZoneInfo("Europe/Berlin")
    for night in (date(2026, 3, 28), date(2026, 3, 29), date(2026, 3, 30), date(2026, 10, 25), date(2026, 10, 26)):
        request = fired(berlin, datetime(night.year, night.month, night.day, 3, 0, tzinfo=zone).astimezone(UTC))
        assert isinstance(request, dg.RunRequest)
        assert request.run_key == (night - timedelta(days=1)).isoformat()
        assert request.tags["portal"] == portal.portal
        first = night - timedelta(days=4)
        assert range_tags(first, night - timedelta(days=1)).items() <= request.tags.items()
        with psycopg.connect(database) as connection:  # as if it had run, and all nights between
            connection.execute("UPDATE portals SET nights_from = NULL")


def test_a_schedule_far_east_of_utc(portal: Portal) -> None:
    """The evening in UTC is the next day in Vladivostok: the portal's date counts."""
    east = portal.model_copy(update={"time_zone": "Asia/Vladivostok"})
    request = fired(east, datetime(2026, 3, 9, 17, 15, tzinfo=UTC))
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == "2026-03-09"


def test_a_schedule_before_the_first_day(portal: Portal) -> None:
    """Until the first day is over the schedule says why it does nothing."""
    answer = fired(portal, datetime(2026, 3, 1, 0, 15, tzinfo=UTC))
    assert isinstance(answer, dg.SkipReason)
    assert answer.skip_message == "okna_sever starts on 2026-03-02: there is no finished day yet."


def window(portal: Portal, first: date, last: date) -> tuple[datetime, datetime]:
    """The window of a step over these days, in UTC."""

    async def nothing(_: date) -> None: ...

    days = tuple(first + timedelta(days=offset) for offset in range((last - first).days + 1))
    start, end = StepRun(portal, "calls", days, cast(Pool, None), nothing).window
    return start.astimezone(UTC), end.astimezone(UTC)


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 28), 24), (date(2026, 3, 29), 23), (date(2026, 10, 25), 25)])
def test_a_days_window_is_as_long_as_the_day(portal: Portal, day: date, hours: int) -> None:
    """The day on which the clock changes has 23 or 25 hours, and all of them belong to it."""
    berlin = portal.model_copy(update={"time_zone": "Europe/Berlin"})
    start, end = window(berlin, day, day)
    assert end - start == timedelta(hours=hours)


ZONES = ["Europe/Berlin", "Asia/Yekaterinburg", "America/Sao_Paulo", "Africa/Cairo"]


@given(st.dates(date(2026, 1, 1), date(2027, 12, 31)), st.integers(0, 10), st.sampled_from(ZONES))
def test_windows_leave_no_gap(portals: list[Portal], first: date, length: int, zone: str) -> None:
    """The windows of following days meet, and a range's window is those of its days together."""
    portal = portals[1].model_copy(update={"time_zone": zone})
    days = [first + timedelta(days=offset) for offset in range(length + 1)]
    windows = [window(portal, day, day) for day in days]
    assert all(one[1] == other[0] for one, other in pairwise(windows))
    assert window(portal, days[0], days[-1]) == (windows[0][0], windows[-1][1])
