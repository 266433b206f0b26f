"""Running days again: nothing is bought twice, what came late is taken up, and a changed setting costs only itself."""

from __future__ import annotations

from datetime import date
from typing import Any

import psycopg
import pytest

from dialog_assets.assets.jobs import nightly_range
from dialog_assets.cli.world import SandboxProcess
from dialog_assets.portals import Portal
from dialog_assets.sandbox.world.model import World
from dialog_assets.sandbox.world.oracle import entity_of, summarised
from dialog_assets_tests.end_to_end.week import (
    RANGES,
    RESULTS,
    STEPS,
    Week,
    materializations,
    rows,
    run_range,
    snapshot,
)

pytestmark = pytest.mark.xdist_group("week")


def bought(sandbox: SandboxProcess) -> dict[str, int]:
    """Recordings downloaded and submitted, and LLM answers by vendor, since the books were opened."""
    books = sandbox.books()
    counts: dict[str, dict[str, int]] = {service: book["counts"] for service, book in books.items()}
    asked = {
        "downloads": counts.get("bitrix24", {}).get("downloads", 0),
        "uploads": counts.get("voicekit", {}).get("uploads", 0),
        "submitted": counts.get("voicekit", {}).get("submitted", 0),
        **{vendor: counts.get(vendor, {}).get("requests", 0) for vendor in ("openai", "anthropic", "deepseek")},
    }
    return {what: number for what, number in asked.items() if number}


@pytest.fixture
def okna(portals: list[Portal]) -> Portal:
    """The portal with the late recording."""
    return next(portal for portal in portals if portal.portal == "okna_sever")


def test_a_second_run_buys_and_writes_nothing(
    week: Week, week_copy: str, portals: list[Portal], sandbox_world: SandboxProcess
) -> None:
    """The same week once more: no download, no recognition, no LLM request, and not one result row is written again.

    The damaged recording is not fetched again either; every step says what it said before.
    """
    tables = [*RESULTS, "call_steps", "ledger"]
    before = snapshot(week_copy, tables)
    runs = {portal.portal: run_range(portal, *RANGES[portal.portal]) for portal in portals}
    assert bought(sandbox_world) == {}
    assert all(run.success for run in runs.values())
    assert snapshot(week_copy, tables) == before
    for portal, run in runs.items():
        for step in STEPS:
            assert materializations(run, portal, step) == materializations(week.runs[portal], portal, step)


@pytest.mark.parametrize(
    ("criterion", "change", "moves_summaries"),
    [
        ("agreements", {"title": "Договорённости и сроки", "text": "О чём и на когда договорились?"}, True),
        ("complaint_handling", {"text": "Как сотрудник обошёлся с жалобой?"}, False),
    ],
)
def test_a_changed_criterion_costs_only_itself(
    week_copy: str,
    world: World,
    okna: Portal,
    sandbox_world: SandboxProcess,
    criterion: str,
    change: dict[str, Any],
    *,
    moves_summaries: bool,
) -> None:
    """One request for each dialog that the criterion is for, one for each summary whose inputs it changes; no set-up."""
    played = world.portals["okna_sever"]
    changed = with_criterion(okna, criterion, change)
    (version,) = {item.version for item in changed.criteria if item.name == criterion}
    judged = {
        call.id: judgement
        for call in played.calls
        if call.recording and call.recording.script
        for judgement in call.recording.script.judgements
        if judgement.criterion == criterion
    }
    moved = {
        entity
        for call in played.calls
        if moves_summaries and call.id in judged and judged[call.id].score is not None and (entity := entity_of(call))
    }
    unmoved = {entity for entity, inputs in summarised(played, okna).items() if inputs} - moved
    before = snapshot(week_copy, [table for table in RESULTS if table not in ("classifications", "criteria_scores")])
    old_scores = snapshot(week_copy, ["criteria_scores"])["criteria_scores"]
    assert run_range(changed, *RANGES["okna_sever"]).success

    assert judged
    assert bought(sandbox_world) == {"openai": len(judged) + len(moved)}
    scores = rows(
        week_copy,
        "SELECT call_id, criterion, score, text FROM criteria_scores WHERE portal = 'okna_sever' AND version = %s",
        version,
    )
    assert {row["call_id"]: (row["criterion"], row["score"], row["text"]) for row in scores} == {
        call: (criterion, judgement.score, judgement.text) for call, judgement in judged.items()
    }
    assert set(old_scores) <= set(snapshot(week_copy, ["criteria_scores"])["criteria_scores"])
    versions = rows(
        week_copy,
        "SELECT entity_type, entity_id, max(version) AS version FROM entity_summaries WHERE portal = 'okna_sever' GROUP BY 1, 2",
    )
    assert {(row["entity_type"], row["entity_id"]): row["version"] for row in versions} == {
        **dict.fromkeys(unmoved, 1),
        **dict.fromkeys(moved, 2),
    }
    after = snapshot(week_copy, list(before))
    assert set(before.pop("entity_summaries")) <= set(after.pop("entity_summaries"))
    assert after == before


def with_criterion(portal: Portal, name: str, change: dict[str, Any]) -> Portal:
    """The portal with another wording of one criterion."""
    return portal.model_copy(
        update={
            "criteria": tuple(item.model_copy(update=change) if item.name == name else item for item in portal.criteria)
        }
    )


def latest_summaries(url: str) -> dict[int, tuple[int, str]]:
    """Entity → version and inputs' identity of its newest summary, of the two entities of Monday's new orders."""
    found = rows(
        url,
        """
        SELECT DISTINCT ON (entity_id) entity_id, version, inputs_hash FROM entity_summaries
        WHERE portal = 'okna_sever' AND entity_id IN (101, 301) ORDER BY entity_id, version DESC
        """,
    )
    return {row["entity_id"]: (row["version"], row["inputs_hash"]) for row in found}


def test_a_wording_taken_back_is_not_scored_again(week_copy: str, okna: Portal, sandbox_world: SandboxProcess) -> None:
    """A wording that was tried and taken back has its scores already; the summaries speak of the present wording again."""
    tried = with_criterion(okna, "client_need", {"title": "Чего хочет клиент"})
    monday = date(2026, 3, 2)
    before = latest_summaries(week_copy)
    for portal in (tried, okna):
        sandbox_world.post("/books/reset")
        assert run_range(portal, monday, monday, ("classifications", "criteria_scores", "entity_summaries")).success
        if portal is tried:
            assert bought(sandbox_world) == {"openai": 4}
            assert {entity: version for entity, (version, _) in latest_summaries(week_copy).items()} == {
                101: 2,
                301: 2,
            }
    assert bought(sandbox_world) == {"openai": 2}  # the two summaries, no score
    assert latest_summaries(week_copy) == {entity: (3, identity) for entity, (_, identity) in before.items()}


LATE = 5011
"""A call of Tuesday whose recording appears on Wednesday evening."""


def states(url: str, call: int) -> list[tuple[str, str, str | None]]:
    """(step, state, reason) of a call, in the order of the steps."""
    found = rows(url, "SELECT step, state, reason FROM call_steps WHERE portal = 'okna_sever' AND call_id = %s", call)
    return sorted(((row["step"], row["state"], row["reason"]) for row in found), key=lambda row: STEPS.index(row[0]))


def test_a_late_recording_goes_all_the_way(database: str, sandbox: SandboxProcess, okna: Portal) -> None:
    """Skipped while it is not there; a later night finds it among its trailing days and buys nothing else of that day."""
    tuesday = date(2026, 3, 3)
    sandbox.post("/clock", {"now": "2026-03-04T03:15:00+03:00"})
    assert run_range(okna, tuesday, tuesday).success
    reason = ("skipped", "no_recording")  # the world's March is long past, so nobody waits for it any more
    assert states(database, LATE) == [
        ("calls", "done", None),
        ("users", "done", None),
        ("entities", "done", None),
        *((step, *reason) for step in STEPS[3:]),
    ]
    assert sandbox.books()["bitrix24"]["items"]["record"] == {"7007": 1, "7008": 1, "7010": 1}
    (last,) = rows(database, "SELECT max(id) AS id FROM ledger")

    sandbox.post("/clock", {"now": "2026-03-05T03:15:00+03:00"})
    days = nightly_range(okna.model_copy(update={"trailing_days": 1}), date(2026, 3, 5))
    assert days == (tuesday, date(2026, 3, 4))
    run = run_range(okna, *days)
    assert run.success
    assert states(database, LATE) == [(step, "done", None) for step in STEPS]
    books = sandbox.books()
    assert books["bitrix24"]["items"]["record"]["7011"] == 1
    assert set(books["bitrix24"]["items"]["record"].values()) == {1}
    assert set(books["voicekit"]["items"]["recording"].values()) == {1}
    new = rows(
        database,
        "SELECT DISTINCT call_id, entity_type, entity_id FROM ledger WHERE id > %s AND day = %s ORDER BY 1",
        last["id"],
        tuesday,
    )
    assert [tuple(row.values()) for row in new] == [(LATE, None, None), (None, "lead", 303)]
    figures = materializations(run, "okna_sever", "entity_summaries")["2026-03-03"]
    assert figures["skipped"].value == 2
    assert (figures["calls"].value, figures["done"].value) == (6, 4)


def test_a_young_call_waits_for_its_recording(database: str, sandbox: SandboxProcess, okna: Portal) -> None:
    """While the portal's trailing days reach the call it waits, says for what, and is not skipped."""
    patient = okna.model_copy(update={"trailing_days": 4000})
    tuesday = date(2026, 3, 3)
    sandbox.post("/clock", {"now": "2026-03-04T03:15:00+03:00"})
    assert run_range(patient, tuesday, tuesday, ("calls", "audio_files", "transcripts")).success
    wait = ("waiting", "recording_not_ready")
    assert states(database, LATE) == [("calls", "done", None), ("audio_files", *wait), ("transcripts", *wait)]
    assert states(database, 5012)[1:] == [(step, "skipped", "not_answered") for step in ("audio_files", "transcripts")]
    sandbox.post("/clock", {"now": "2026-03-05T03:15:00+03:00"})
    assert run_range(patient, tuesday, tuesday, ("calls", "audio_files")).success
    assert states(database, LATE)[1] == ("audio_files", "done", None)


def test_an_archived_recording_that_is_gone(week_copy: str, okna: Portal) -> None:
    """An object that was lost from the archive fails its call with a sentence that names it, and is asked for again later."""
    with psycopg.connect(week_copy) as connection:
        connection.execute("DELETE FROM call_steps WHERE call_id = 5001 AND step = 'transcripts'")
    monday = date(2026, 3, 2)
    assert run_range(okna, monday, monday, ("transcripts",)).success  # the sandbox has forgotten its objects
    (row,) = rows(
        week_copy,
        "SELECT state, reason, detail, next_try FROM call_steps WHERE call_id = 5001 AND step = 'transcripts'",
    )
    assert (row["state"], row["reason"]) == ("failed", "archived_file_missing")
    assert "okna_sever/2026-03-02/5001.mp3 is not in bucket" in row["detail"]
    assert row["next_try"] is not None
