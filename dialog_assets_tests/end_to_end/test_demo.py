"""The demo cannot say that all is well when it is not."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from dialog_assets.cli.demo import WrongWeek, _differences, check_week
from dialog_assets.portals import Portal
from dialog_assets_tests.end_to_end.week import DAYS, Week

pytestmark = pytest.mark.xdist_group("week")
NOTHING = {"recognitions": 0, "llm_requests": 0}


def test_a_week_as_the_world_tells_it(week: Week, portals: list[Portal]) -> None:
    """The week's runs leave no difference."""
    assert asyncio.run(_differences(week.database, portals, (DAYS[0], DAYS[-1]))) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            "UPDATE call_steps SET state = 'failed', reason = 'recording_parser_crashed' "
            "WHERE call_id = 5001 AND step = 'audio_files'",
            "okna_sever call 5001 at audio_files is failed (recording_parser_crashed), not done",
        ),
        (
            "DELETE FROM call_steps WHERE call_id = 5007 AND step = 'criteria_scores'",
            "okna_sever call 5007 at criteria_scores is not there, not done",
        ),
        (
            "UPDATE call_steps SET reason = 'no_recording' WHERE call_id = 5002 AND step = 'transcripts'",
            "okna_sever call 5002 at transcripts is skipped (no_recording), not skipped (not_answered)",
        ),
    ],
)
def test_a_difference_is_told(week_copy: str, portals: list[Portal], change: str, told: str) -> None:
    """A call in another state, without one, or with another reason is named."""
    with psycopg.connect(week_copy, autocommit=True) as connection:
        connection.execute(change.encode())
    found = asyncio.run(_differences(week_copy, portals, (DAYS[0], DAYS[-1])))
    assert found == [told]
    with pytest.raises(WrongWeek, match="call 5"):
        check_week([], found, NOTHING)


def test_a_second_purchase_is_told() -> None:
    """A complete week that buys anything again is a failure; the first run of it buys."""
    check_week(["one call differs"], [], {"recognitions": 28, "llm_requests": 109})
    check_week([], [], NOTHING)
    with pytest.raises(WrongWeek, match="1 recognitions and 0 LLM requests were bought again"):
        check_week([], [], {"recognitions": 1, "llm_requests": 0})
