"""kill -9 of a run at up to ten random moments, each followed by a re-run: nothing is lost and nothing is bought twice."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dialog_assets.cli.world import SandboxProcess
from dialog_assets_tests.faults.kills import MARKS, Books, Moment
from dialog_assets_tests.faults.support import (
    AT_ONCE,
    FRIDAY,
    LLM_VENDORS,
    MONDAY,
    PORTAL,
    TUESDAY,
    Calm,
    Runs,
    differences,
    ledger,
    prompts,
    recordings,
    snapshot,
    surplus,
)

# One worker, as what they are compared with is made once; and many runs each, on a machine that does other things too.
pytestmark = pytest.mark.xdist_group("calm_week")

SEED = 20260302
LONGEST_DELAY_S = 0.06
"""A kill comes up to this long after its mark, so that it also lands where an answer is stored, and between the two."""

KILLS = 10
FEWEST = 8
"""On a busy machine a death may come late, when all of the next mark is done; and polls are as many as there is time for."""
SLOW_ANSWERS = [{"service": vendor, "kind": "slow", "value": 0.05} for vendor in LLM_VENDORS]


@dataclass(frozen=True)
class Death:
    """A killed run: its process, and the paid requests that were asked by it and not yet answered, as (step, vendor)."""

    mark: str
    pid: int
    in_flight: Counter[tuple[str, str]]


def killed_at(runs: Runs, mark: str, goal: int, delay_s: float) -> Death | None:
    """A run that was killed `delay_s` after the books counted `goal` of `mark`; None if it had ended by then."""
    began = _now(runs.database)
    run = runs.start(Moment(mark, goal, delay_s, str(runs.sandbox._control.base_url)))
    with run.told:
        run.process.join()
        if run.process.exitcode != -signal.SIGKILL:
            assert run.told.recv() == (), "what stopped the run"
            return None
    with psycopg.connect(runs.database) as connection:
        rows = connection.execute(
            "SELECT step, vendor FROM ledger WHERE state = 'asked' AND asked_at >= %s", [began]
        ).fetchall()
    return Death(mark, run.process.pid or 0, Counter((str(step), str(vendor)) for step, vendor in rows))


def _now(database: str) -> Any:
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT now()").fetchone()
    return row[0] if row else None


def goal_of(chance: random.Random, mark: str, done: Books, whole: Books) -> int | None:
    """How much of `mark` there is when the next run is killed, so that work is left after it; None if all of it is done."""
    now, end = MARKS[mark](done), MARKS[mark](whole)
    return now + chance.randint(1, max(1, (end - now) // 2)) if now < end else None


def folders(temporary: Path) -> list[Path]:
    """The folders for recordings that runs have made and not removed."""
    return list(temporary.glob("dialog_assets-*/recordings-*"))


def test_ten_kills_lose_nothing_and_buy_nothing_twice(
    calm: Calm, database: str, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """After up to ten kills and re-runs the results equal an undisturbed run's, and only what was in flight was asked again."""
    chance = random.Random(SEED)
    whole = calm.books
    # So that there is always something in flight to be killed.
    sandbox.post("/faults", SLOW_ANSWERS)

    runs = Runs(sandbox, database, tmp_path, PORTAL, MONDAY, FRIDAY)
    marks = sorted([*MARKS, *chance.choices(list(MARKS), k=KILLS - len(MARKS))], key=list(MARKS).index)
    deaths, left_behind = [], 0
    for mark in marks:
        goal, delay_s = goal_of(chance, mark, sandbox.books(), whole), chance.uniform(0, LONGEST_DELAY_S)
        death = killed_at(runs, mark, goal, delay_s) if goal is not None else None
        if death is not None:
            deaths.append(death)
            left_behind += len(folders(tmp_path))
    assert len(deaths) >= FEWEST, f"{len(deaths)} runs were killed, the others came further than they should"
    runs.complete()
    books = sandbox.books()

    assert differences(snapshot(database, PORTAL), calm.results) == []
    assert {row["state"] for row in ledger(database)} == {"settled"}
    assert recordings(books) == recordings(whole)
    assert books["s3"]["items"]["stored"] == whole["s3"]["items"]["stored"], "a recording was archived twice"
    in_flight = Counter[str]()
    for death in deaths:
        for (step, vendor), number in death.in_flight.items():
            assert number <= AT_ONCE, f"{step} had more in flight than its concurrency: {death}"
            in_flight[vendor] += number
    assert all(set(prompts(books, vendor)) == set(prompts(whole, vendor)) for vendor in LLM_VENDORS)
    again = {vendor: surplus(books, whole, vendor) for vendor in LLM_VENDORS}
    assert all(again[vendor] <= in_flight[vendor] for vendor in LLM_VENDORS), (again, in_flight)
    assert sum(again.values()) > 0, "no kill hit an answer in flight: the moments are too tame"
    assert left_behind > 0, "no kill left a folder: the moments are too tame"
    assert folders(tmp_path) == []


def test_answers_in_hand_at_the_kill_are_not_bought_again(
    database: str, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """Killed when answers are in the ledger and no result can be stored, a run leaves them to the next one to use."""
    runs = Runs(sandbox, database, tmp_path, PORTAL, MONDAY, TUESDAY)
    with psycopg.connect(database) as blocker:
        # Only the results are held up: the step also withdraws what lost its input, before it asks for anything.
        blocker.execute(
            """
            CREATE FUNCTION held_up() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END';
            CREATE TRIGGER held_up BEFORE INSERT ON fixed_dialogs FOR EACH ROW EXECUTE FUNCTION held_up();
            """
        )
        blocker.commit()
        blocker.execute("SELECT pg_advisory_xact_lock(4711)")
        process = runs.start().process
        while process.is_alive() and _answers_in_hand(database) < AT_ONCE:
            time.sleep(0.05)
        assert process.is_alive(), "the run ended by itself"
        process.kill()
        process.join()
        assert _answers_in_hand(database) == AT_ONCE
    runs.complete()
    bought = prompts(sandbox.books(), "deepseek")
    assert len(bought) > AT_ONCE
    assert set(bought.values()) == {1}
    assert {row["state"] for row in ledger(database)} == {"settled"}


def _answers_in_hand(database: str) -> int:
    """Answers of the blocked step only: those of the steps before it are in hand for a moment and then stored."""
    return sum(row["step"] == "fixed_dialogs" and row["state"] == "answered" for row in ledger(database))
