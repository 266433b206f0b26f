"""What is seen while a run works."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import psycopg
import pytest

from dialog_assets.cli.progress import Watch
from dialog_assets_tests.end_to_end.week import DAYS

pytestmark = pytest.mark.xdist_group("week")


def test_a_run_is_followed_in_the_database(week_copy: str) -> None:
    """The line names the step that was worked on last, its calls, and the money of this run only."""
    watch = Watch(week_copy, "okna_sever", DAYS[0], DAYS[-1])
    asyncio.run(watch.begin())
    assert asyncio.run(watch.look()) == "okna_sever: 0.00 RUB"
    with psycopg.connect(week_copy, autocommit=True) as connection:
        connection.execute(
            "UPDATE call_steps SET state = 'waiting', reason = 'recognition', updated_at = now() "
            "WHERE portal = 'okna_sever' AND step = 'transcripts' AND call_id IN (5001, 5003)"
        )
        connection.execute(
            "UPDATE ledger SET asked_at = now() WHERE portal = 'okna_sever' AND step = 'transcripts' AND call_id = 5001"
        )
    line = asyncio.run(watch.look())
    assert line.startswith("okna_sever/transcripts: 18 of 21 calls, 3 waiting; 0.")
    assert watch.bought["recognitions"] == 1
    assert watch.bought["cost_rub"] > Decimal(0)
