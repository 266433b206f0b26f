"""What stands between a run and its Postgres: a pooler that gives sessions away, a network that cuts connections."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dialog_assets.cli.running import _errors
from dialog_assets.cli.world import SandboxProcess
from dialog_assets.portals import Portal
from dialog_assets.store import pool, server
from dialog_assets_tests.databases import copy_of, database_is
from dialog_assets_tests.end_to_end.week import run_range
from dialog_assets_tests.faults.cutter import Cutter, cutting
from dialog_assets_tests.faults.support import (
    LLM_VENDORS,
    MONDAY,
    PORTAL,
    Calm,
    Runs,
    differences,
    ledger,
    prompts,
    recordings,
    snapshot,
)

# One worker, as what they are compared with is made once.
pytestmark = pytest.mark.xdist_group("calm_day")

EACH = 4
"""Cuts of each kind."""
AWAY_AT = 40
"""The commit with which Postgres is gone: the day's recordings are at the recogniser by then, or on their way."""


@pytest.fixture(scope="module")
def calm_day(postgres: str, sandbox_world: SandboxProcess, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """One undisturbed run of the portal's Monday."""
    sandbox_world.post("/reset")
    with copy_of(postgres) as url:
        Runs(sandbox_world, url, tmp_path_factory.mktemp("calm"), PORTAL, MONDAY, MONDAY).complete()
        return Calm(snapshot(url, PORTAL), sandbox_world.books())


def as_calm(database: str, sandbox: SandboxProcess, calm: Calm) -> None:
    """The results are those of the undisturbed run, and so is everything that was bought."""
    books = sandbox.books()
    assert differences(snapshot(database, PORTAL), calm.results) == []
    assert {row["state"] for row in ledger(database)} == {"settled"}
    assert recordings(books) == recordings(calm.books)
    assert books["s3"]["items"]["stored"] == calm.books["s3"]["items"]["stored"]
    for vendor in LLM_VENDORS:
        assert prompts(books, vendor) == prompts(calm.books, vendor)


def test_two_runs_at_once_through_a_transaction_pooler(
    calm_day: Calm, database: str, sandbox: SandboxProcess, tmp_path: Path, pgbouncer: Callable[[str], str]
) -> None:
    """Two processes, one day, sessions that are nobody's own: both end well, and nothing is bought twice."""
    runs = Runs(sandbox, pgbouncer(database), tmp_path, PORTAL, MONDAY, MONDAY)
    both = [runs.start(), runs.start()]
    for run in both:
        with run.told:
            assert run.told.poll(500), "a run does not end"
            assert run.told.recv() == ()
        run.process.join()
    as_calm(database, sandbox, calm_day)


@pytest.mark.parametrize("seed", [1])
def test_cut_connections_change_no_result_and_buy_nothing_twice(
    seed: int, calm_day: Calm, database: str, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """Cut while answers are in flight, and on both sides of a COMMIT: each answer in flight is kept, each commit is once."""
    sandbox.post("/faults", [{"service": vendor, "kind": "slow", "value": 0.2} for vendor in LLM_VENDORS])
    cutter = Cutter(database, seed, one_of=8, each=EACH)
    with cutting(cutter) as through:
        Runs(sandbox, through, tmp_path, PORTAL, MONDAY, MONDAY).complete()
    as_calm(database, sandbox, calm_day)
    assert sum(cutter.cuts.values()) >= EACH, "hardly a cut struck: the moments are too tame"


def test_a_postgres_that_stays_away_is_one_sentence(
    calm_day: Calm,
    database: str,
    portals: list[Portal],
    sandbox: SandboxProcess,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Gone for longer than the patience: each step that needs it says what to do, and the next run loses and rebuys nothing."""
    for module in (pool, server):
        monkeypatch.setattr(module, "PATIENCE_S", 1.0)
    okna_sever = next(portal for portal in portals if portal.portal == PORTAL)
    cutter = Cutter(database, 0, one_of=1, each=0)
    cutter.goes_away_at = AWAY_AT
    with cutting(cutter) as through, database_is(through):
        errors = _errors(run_range(okna_sever, MONDAY, MONDAY))
    assert {error.partition(": ")[2] for error in errors} == {
        "Postgres does not answer: see whether it runs and can be reached."
    }
    Runs(sandbox, database, tmp_path, PORTAL, MONDAY, MONDAY).complete()
    assert differences(snapshot(database, PORTAL), calm_day.results) == []
    assert recordings(sandbox.books()) == recordings(calm_day.books)
