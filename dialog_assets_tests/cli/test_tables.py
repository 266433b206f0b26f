"""What the commands print fits a terminal and a pipe, and hides nothing."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest

from dialog_assets.assets.figures import Figures
from dialog_assets.assets.steps import UPSTREAM
from dialog_assets.cli import tables

FIRST = date(2026, 11, 20)


def day_of_calls(calls: int, reason: str | None = None) -> dict[str, Figures]:
    """A day on which every call was done at every step, or skipped for a reason."""
    found = {}
    for step in UPSTREAM:
        figures = Figures(cost_rub=Decimal(calls) / 9)
        figures.add("skipped" if reason else "done", reason, calls)
        figures.numbers["entities"] = calls
        found[step] = figures
    return found


def shown(days: tables.Days, ran: set[tuple[str, date]], capsys: pytest.CaptureFixture[str]) -> list[str]:
    tables.print_days(days, ran)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("calls", [1, 9999])
def test_days_fit_eighty_columns(calls: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers of four digits stand whole; the reason stands in full below its day."""
    long = "skipped_for_a_reason_of_many_words"
    days = {"a_portal_of_a_long_name": {FIRST: day_of_calls(calls), FIRST + timedelta(1): day_of_calls(calls, long)}}
    ran = {("a_portal_of_a_long_name", day) for day in days["a_portal_of_a_long_name"]}
    lines = shown(days, ran, capsys)
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("2026-11-20") and f"{Decimal(calls):.2f}" in line for line in lines)
    assert any(line.strip() == f"not scored: {calls} {long}" for line in lines)
    assert all(line == line.rstrip() or line.startswith(" " * 10) for line in lines)


def test_a_day_that_was_never_run_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """It does not look like a day without calls; days in a row are one line."""
    days = {"acme": {FIRST + timedelta(number): day_of_calls(0) for number in range(6)}}
    ran = {("acme", FIRST + timedelta(2)), ("acme", FIRST + timedelta(3))}
    lines = shown(days, ran, capsys)
    assert "2026-11-20 to 2026-11-21  not run" in lines
    assert "2026-11-24 to 2026-11-25  not run" in lines
    assert [line[:10] for line in lines if line.endswith("0.00")] == ["2026-11-22", "2026-11-23"]
    told = tables.as_json(days, ran)
    assert [entry["day"] for entry in told if not entry["run"]] == [
        "2026-11-20",
        "2026-11-21",
        "2026-11-24",
        "2026-11-25",
    ]
    assert sum(entry["run"] for entry in told) == 2 * len(UPSTREAM)


def test_costs_fit_a_hundred_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """A long model name folds; numbers stand whole."""
    row = {
        "portal": "acme",
        "step": "entity_summaries",
        "vendor": "anthropic",
        "model": "claude-of-a-very-long-name-20261021-with-a-suffix-and-more",
        "requests": 123456,
        "attempts": 123457,
        "tokens_in": 1234567890,
        "tokens_out": 123456789,
        "audio_seconds": None,
        "cost_rub": Decimal("1234567.8901"),
        "estimated_rub": Decimal(0),
        "fruitless_rub": Decimal(0),
    }
    tables.print_costs(
        [row, {**row, "portal": "other", "audio_seconds": Decimal(1234567)}], FIRST, None, by_purchase=False
    )
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert sum("1234567.8901" in line for line in lines) == 4
    assert lines[0] == "Bought for the calls from 2026-11-20"
    assert lines[-1] == "all: 2469135.7802 RUB"


def test_costs_tell_what_is_estimated_and_what_was_in_vain(capsys: pytest.CaptureFixture[str]) -> None:
    """A model's name is no markup; only what there is is told."""
    row = {
        "portal": "acme",
        "step": "fixed_dialogs",
        "vendor": "openai",
        "model": "[/b]x",
        "requests": 2,
        "attempts": 3,
        "tokens_in": 10,
        "tokens_out": None,
        "audio_seconds": None,
        "cost_rub": Decimal(3),
        "estimated_rub": Decimal(0),
        "fruitless_rub": Decimal(0),
    }
    tables.print_costs([row], FIRST, None, by_purchase=False)
    told = capsys.readouterr().out
    assert "openai [/b]x" in told
    assert told.splitlines()[-1] == "all: 3.0000 RUB"
    tables.print_costs(
        [row, {**row, "estimated_rub": Decimal(1), "fruitless_rub": Decimal("0.5")}], FIRST, None, by_purchase=False
    )
    assert capsys.readouterr().out.splitlines()[-1] == "all: 6.0000 RUB, of it 1.0000 estimated, 0.5000 paid in vain"


def test_reasons_add_up_to_the_calls_that_are_not_scored(capsys: pytest.CaptureFixture[str]) -> None:
    """Where a run was cut short, a call is told once: by what held it up first."""
    steps = {step: Figures() for step in UPSTREAM}
    steps["calls"].add("done", None, 6)
    steps["audio_files"].add("done", None, 3)
    steps["audio_files"].add("skipped", "not_answered", 1)
    steps["audio_files"].add("waiting", "not_run", 2)
    for step in ("transcripts", "fixed_dialogs", "classifications", "criteria_scores"):
        steps[step].add("waiting", "not_run", 6)
    lines = shown({"acme": {FIRST: steps}}, {("acme", FIRST)}, capsys)
    assert any(line.strip() == "not scored: 1 not_answered, 5 not_run" for line in lines)
