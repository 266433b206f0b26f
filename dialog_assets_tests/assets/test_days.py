"""The portal's days: cut at its midnight, whatever its clocks do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dialog_assets.assets.calls import stored
from dialog_assets.assets.steps import StepRun
from dialog_assets.bitrix24.rows import call_row
from dialog_assets.portals import Portal
from dialog_assets_tests.assets.portal_on_a_socket import okna_sever

ZONES = (
    "Europe/Berlin",  # 02:00 to 03:00 and back
    "Africa/Cairo",  # spring begins at midnight, which then does not exist
    "Atlantic/Azores",  # autumn repeats the hour after midnight
    "America/Sao_Paulo",  # until 2019 autumn repeated the hour before midnight
    "Australia/Lord_Howe",  # by half an hour
    "Pacific/Apia",  # 2011-12-30 did not take place
    "Asia/Yekaterinburg",
)
OKNA = okna_sever()


def of_zone(zone: str) -> Portal:
    return OKNA.model_copy(update={"time_zone": zone})


def window(portal: Portal, *days: date) -> tuple[datetime, datetime]:
    start, end = StepRun(portal, "calls", days, cast(Any, None), cast(Any, None)).window
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


def test_the_days_of_a_change_of_clocks_in_berlin() -> None:
    """23 and 25 hours, with the calls of the repeated hour on one day."""
    portal = of_zone("Europe/Berlin")
    lengths = [window(portal, day)[1] - window(portal, day)[0] for day in (date(2026, 3, 29), date(2026, 10, 25))]
    assert lengths == [timedelta(hours=23), timedelta(hours=25)]
    for text in ("2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-24T22:00:00+00:00"):
        assert day_of(portal, datetime.fromisoformat(text)) == date(2026, 10, 25)
