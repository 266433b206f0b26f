"""Services that fail at random, calls that cannot be done, keys that are refused: what a run makes of each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dialog_assets.cli.world import SandboxProcess
from dialog_assets_tests.faults.scripts import script
from dialog_assets_tests.faults.support import (
    AT_ONCE,
    FRIDAY,
    LLM_VENDORS,
    MONDAY,
    PORTAL,
    TUESDAY,
    Calm,
    Runs,
    Snapshot,
    differences,
    failures,
    ledger,
    recordings,
    snapshot,
)

# One worker, as what they are compared with is made once; and many runs each, on a machine that does other things too.
pytestmark = pytest.mark.xdist_group("calm_week")

DAMAGED = (5020, "audio_files", "recording_not_audio")
"""The one call of the week that cannot be done: its recording is no audio."""

IN_PASSING = frozenset({"cost_rub", "version", "refused"})
"""A result costs more when answers of no use came before it, and may say what of them; a summary may have had versions before."""


def answered(books: dict[str, Any], vendor: str) -> int:
    """How many answers a vendor charged for."""
    return int(books.get(vendor, {}).get("counts", {}).get("answered", 0))


def struck(books: dict[str, Any], vendor: str, *kinds: str) -> int:
    """How often faults of these kinds struck an LLM vendor."""
    counts = books.get(vendor, {}).get("counts", {})
    return sum(counts.get(f"fault:{kind}", 0) for kind in kinds)


def states(database: str, step: str) -> Counter[tuple[str, str | None]]:
    """How many calls stand how at a step."""
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT state, reason FROM call_steps WHERE portal = %s AND step = %s", [PORTAL, step]
        ).fetchall()
    return Counter((str(state), reason) for state, reason in rows)


@pytest.mark.parametrize("seed", [1, 2])
def test_random_faults_change_no_result_and_buy_nothing_that_was_had(
    seed: int, calm: Calm, database: str, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """A run among faults of every service, then one without: the results of a faultless run, and nothing bought needlessly."""
    runs = Runs(sandbox, database, tmp_path, PORTAL, MONDAY, FRIDAY)
    rules = script(seed)
    sandbox.post("/faults", rules)
    for _ in range(3):
        stopped = runs.to_its_end()
        if not stopped:
            break
    sandbox.post("/faults", [])
    runs.complete()
    books = sandbox.books()

    assert [failure[:3] for failure in failures(database)] == [DAMAGED], failures(database)
    found = snapshot(database, PORTAL)
    assert differences(newest(found), newest(calm.results)) == []
    assert {row["state"] for row in ledger(database)} == {"settled"}
    versions = len(found["entity_summaries"]) - len(calm.results["entity_summaries"])
    for vendor in LLM_VENDORS:
        wasted = struck(books, vendor, "reset_after", "invalid_json", "blank", "length")
        # Deepseek corrects: an edit of a line that is not there is left out, and nothing is asked again.
        wasted += struck(books, vendor, "wrong_shape") if vendor != "deepseek" else 0
        rewritten = versions if vendor == "openai" else 0
        assert answered(books, vendor) == answered(calm.books, vendor) + wasted + rewritten
    more = Counter(recordings(books))
    more.subtract(recordings(calm.books))
    assert min(more.values()) >= 0
    assert more.total() <= sum(rule["times"] for rule in rules if rule["kind"] in ("failed", "expired"))


def newest(results: Snapshot) -> Snapshot:
    """The results as they stand: of each entity's summaries the newest, and nothing about costs.

    A summary that was written while a call was missing gets another version when the call has come.
    """
    latest: dict[tuple[str, int], dict[str, Any]] = {}
    for row in sorted(results["entity_summaries"], key=lambda row: row["version"]):
        latest[row["entity_type"], row["entity_id"]] = row
    standing = {**results, "entity_summaries": list(latest.values())}
    return {
        table: sorted(({k: v for k, v in row.items() if k not in IN_PASSING} for row in rows), key=repr)
        for table, rows in standing.items()
    }


def test_what_is_broken_for_all_stops_the_step_and_is_made_good_later(
    calm: Calm, database: str, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """A vendor that fails in a row, a refused key, an empty balance: one sentence each, nothing marked or bought in vain."""
    runs = Runs(sandbox, database, tmp_path, PORTAL, MONDAY, FRIDAY)

    sandbox.post("/faults", [{"service": "deepseek", "kind": "500"}])
    (sentence,) = runs.to_its_end()
    assert "10 items in a row failed" in sentence
    heard = states(database, "transcripts")["done", None]
    after_breaker = states(database, "fixed_dialogs")
    assert 10 <= after_breaker["failed", "llm_unavailable"] < 10 + AT_ONCE < heard

    for vendor, kind, step, key in (
        ("deepseek", "401", "fixed_dialogs", "DEEPSEEK_API_KEY"),
        ("openai", "402", "classifications", "OPENAI_API_KEY"),
    ):
        sandbox.post("/faults", [{"service": vendor, "kind": kind}])
        before = sandbox.books().get(vendor, {}).get("counts", {}).get("requests", 0)
        marked = states(database, step)
        (sentence,) = runs.to_its_end()
        assert key in sentence
        assert "\n" not in sentence
        assert 1 <= sandbox.books()[vendor]["counts"]["requests"] - before <= AT_ONCE
        assert {cell: number for cell, number in states(database, step).items() if cell[0] in ("done", "failed")} == {
            cell: number for cell, number in marked.items() if cell[0] in ("done", "failed")
        }
        assert answered(sandbox.books(), vendor) == 0

    sandbox.post("/faults", [])
    runs.complete()
    assert differences(snapshot(database, PORTAL), calm.results) == []
    assert {row["state"] for row in ledger(database)} == {"settled"}
    assert recordings(sandbox.books()) == recordings(calm.books)
    assert [answered(sandbox.books(), vendor) for vendor in LLM_VENDORS] == [
        answered(calm.books, vendor) for vendor in LLM_VENDORS
    ]


def test_one_bad_call_fails_alone(database: str, sandbox: SandboxProcess, tmp_path: Path) -> None:
    """A dialog that the model declines is failed with its reason; the other calls go through every step."""
    runs = Runs(sandbox, database, tmp_path, PORTAL, MONDAY, TUESDAY)
    sandbox.post("/faults", [{"service": "deepseek", "kind": "refusal", "times": 1, "after": 2}])
    runs.complete()
    heard = states(database, "transcripts")["done", None]
    corrected = states(database, "fixed_dialogs")
    assert corrected["failed", "llm_content_refused"] == 1
    assert corrected["done", None] == heard - 1 > 0
    for step in ("classifications", "criteria_scores", "entity_summaries"):
        standing = states(database, step)
        assert standing["waiting", "fixed_dialogs_failed"] == 1
        assert standing.total() == corrected.total()
        assert {state for state, _ in standing} <= {"done", "skipped", "waiting"}
    assert {row["state"] for row in ledger(database)} == {"settled"}
