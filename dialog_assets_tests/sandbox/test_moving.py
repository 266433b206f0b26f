"""The sandbox's week ends yesterday, and stays where it was lived through."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.sandbox.server import WEEK_FILE, Sandbox, WeekEnd
from dialog_assets.sandbox.world import load_world
from dialog_assets.sandbox.world.moving import ending, week_of, yesterday
from dialog_assets.sandbox.world.oracle import day_of

WRITTEN = date(2026, 3, 6)


@given(st.dates(date(2024, 1, 1), date(2040, 1, 1)))
def test_every_date_moves_by_as_many_days(last: date) -> None:
    """Calls, recordings and their rows keep their clock times; each call is on the day that its row says."""
    world, moved = load_world(), ending(load_world(), last)
    shift = last - WRITTEN
    assert week_of(moved) == (last - timedelta(4), last)
    for name, portal in moved.portals.items():
        for call, old in zip(portal.calls, world.portals[name].calls, strict=True):
            assert call.start - old.start == shift
            assert call.start == datetime.fromisoformat(call.fields["CALL_START_DATE"])
            if call.recording is not None and old.recording is not None:
                assert call.recording.ready_at - old.recording.ready_at == shift
                assert call.recording.name.startswith(str(day_of(portal, call)))
        for number, deal in portal.deals.items():
            old_deal = world.portals[name].deals[number]
            assert datetime.fromisoformat(deal["BEGINDATE"]) - datetime.fromisoformat(old_deal["BEGINDATE"]) == shift
            assert {key for key in deal if deal[key] != old_deal[key]} <= {
                key for key in deal if "DATE" in key or "TIME" in key
            }


def test_yesterday_is_over_in_every_portal() -> None:
    """Yekaterinburg's day ends two hours before Moscow's."""
    world = load_world()
    assert yesterday(world, datetime(2026, 12, 1, 20, 30, tzinfo=UTC)) == date(2026, 11, 30)
    assert yesterday(world, datetime(2026, 12, 1, 21, 30, tzinfo=UTC)) == date(2026, 12, 1)


@pytest.mark.parametrize(
    ("kept", "asked", "last"),
    [
        ({}, None, WRITTEN),
        ({}, date(2026, 11, 30), date(2026, 11, 30)),
        ({WEEK_FILE: json.dumps({"last_day": "2026-11-02"})}, "yesterday", date(2026, 11, 2)),
        # A folder that was made before the week could be moved: the database beside it holds the written days.
        ({"voicekit.json": "{}"}, "yesterday", WRITTEN),
    ],
)
def test_a_state_folder_keeps_its_week(tmp_path: Path, kept: dict[str, str], asked: WeekEnd, last: date) -> None:
    """What was lived through stays on its days, however often the sandbox begins anew."""
    for name, text in kept.items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    async def week() -> tuple[str, str]:
        async with Sandbox(state=tmp_path, week_ends=asked) as sandbox:
            return sandbox.week

    assert asyncio.run(week()) == (str(last - timedelta(4)), str(last))
    assert asyncio.run(week()) == (str(last - timedelta(4)), str(last))
