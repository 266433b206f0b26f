"""Dialogs of recognised calls: built by the portal's rules, built anew when these change, and held against their words.

Here: from settings, tables and a recogniser's phrases to `speech.dialogs` and back. Not here: getting an answer from the
recogniser (`transcripts.py`), what a dialog is made of (the speech room).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from dialog_assets.assets.steps import StepRun
from dialog_assets.dialogs import Turn, turns_key
from dialog_assets.portals import Portal
from dialog_assets.speech.dialogs import Dialog, DialogRules, describe, read_dialog
from dialog_assets.speech.errors import UnexpectedAnswer
from dialog_assets.speech.port import Phrase, Recogniser
from dialog_assets.store import audio_files, call_steps, calls, transcripts
from dialog_assets.store.pool import Connection, Row

log = logging.getLogger("dialog_assets")

CHANNELS_CHECK = {
    "channels_fit_the_content": "Yellow while most calls of the last run's days that tell who the operator is contradict "
    "`channels` of the portal's file."
}
"""Name and description."""

ENOUGH_CALLS = 5
"""Calls with evidence below which the check of the channels says nothing."""


def dialog_rules(portal: Portal, line: str | None) -> DialogRules:
    """The rules for recordings of calls over `line`."""
    channels, settings = portal.channels, portal.dialogs
    return DialogRules(
        operator_channel=channels.operator if line is None else channels.by_line.get(line, channels.operator),
        pause_ms=settings.pause_ms,
        backchannel_ms=settings.backchannel_ms,
        company_names=(portal.title, *settings.company_names),
    )


async def recognised_dialog(
    run: StepRun, call_id: int, audio: Mapping[str, Any], phrases: Iterable[Phrase]
) -> tuple[Dialog, DialogRules]:
    """The dialog of a recording that has just been recognised, and the rules that it was built by."""
    async with run.pool.connection() as connection:
        direction, line = await calls.way(connection, run.portal.portal, call_id)
    rules = dialog_rules(run.portal, line)
    dialog = read_dialog(
        phrases,
        rules,
        channels=audio["channels"],
        duration_s=float(audio["duration_s"]),
        direction=direction,
        audio_marks=_marks(audio),
    )
    return dialog, rules


def dialog_columns(dialog: Dialog, rules: DialogRules, audio: Mapping[str, Any]) -> dict[str, Any]:
    """What table transcripts keeps of a recording's dialog, as arguments of its functions."""
    return {
        "turns": dialog.turns,
        "talk_metrics": dialog.talk_metrics,
        "marks": dialog.marks,
        "role_check": None if dialog.role_check is None else dialog.role_check.as_json(),
        "dialog_rules": _stream(audio) + rules.label,
    }


async def rebuild(run: StepRun, recogniser: Recogniser) -> None:
    """Bring the days' dialogs to the present rules, from the answers that are stored: nothing is recognised again.

    The steps after this one see only dialogs whose turns changed. Where the changed rules do not decide turns, the turns
    stay and only marks and figures are made anew; so they do in a dialog of before rules were kept, if its roles are
    those that the channels give now.
    """
    portal = run.portal.portal
    by_line = {line: dialog_rules(run.portal, line).label for line in run.portal.channels.by_line}
    after = (date.min, 0)
    looked_at = changed = 0
    while True:
        async with run.pool.connection() as connection:
            rows = await transcripts.built_otherwise(
                connection,
                portal,
                recogniser.name,
                run.first,
                run.last,
                rules=dialog_rules(run.portal, None).label,
                rules_by_line=by_line,
                after=after,
            )
            for row in rows:
                changed += await _rebuild_one(connection, run, recogniser, row)
        looked_at += len(rows)
        if not rows:
            break
        after = (rows[-1]["day"], rows[-1]["call_id"])
    if looked_at:
        log.info("%s/%s: %d dialogs by the present rules, %d changed", portal, run.step, looked_at, changed)


async def _rebuild_one(connection: Connection, run: StepRun, recogniser: Recogniser, row: Row) -> bool:
    """Whether the turns changed."""
    portal, call_id = run.portal.portal, row["call_id"]
    rules = dialog_rules(run.portal, row["line"])
    stored = [Turn.from_json(turn) for turn in row["turns"]]
    audio = await audio_files.get(connection, portal, call_id)
    known = {"channels": audio["channels"], "duration_s": float(audio["duration_s"]), "direction": row["direction"]}
    if _same_turns(row["dialog_rules"], stored, rules, audio):
        dialog = describe(stored, rules, **known)
    else:
        try:
            phrases = recogniser.phrases(row["raw"])
        except UnexpectedAnswer as error:
            log.warning("%s/%s: call %d keeps its dialog: %s", portal, run.step, call_id, error)
            return False
        dialog = read_dialog(phrases, rules, audio_marks=_marks(audio), **known)
    await transcripts.put_dialog(connection, portal, call_id, **dialog_columns(dialog, rules, audio))
    if dialog.turns == stored:
        return False
    keys = {"input_key": row["input_key"], "output_key": turns_key(dialog.turns)}
    await call_steps.record(connection, portal, [call_id], run.step, "done", **keys)
    return True


def _same_turns(built_by: str | None, turns: Sequence[Turn], rules: DialogRules, audio: Mapping[str, Any]) -> bool:
    """Whether the rules that decide turns are those that `turns` follow; of a dialog of before, whether its roles are."""
    if built_by is not None:
        return built_by.startswith(f"{_stream(audio)}{rules.of_turns} ")
    known = [turn for turn in turns if turn.role != "speaker"]
    return not (known and _stream(audio)) and all(
        (turn.role == "operator") == (turn.channel == rules.operator_channel) for turn in known
    )


def _stream(audio: Mapping[str, Any]) -> str:
    """How the rules of a recording begin that is one stream on two channels."""
    return transcripts.DUAL_MONO if "dual_mono" in _marks(audio) else ""


def _marks(audio: Mapping[str, Any]) -> Collection[str]:
    """What the measurements of a recording found; nothing of one that was not measured."""
    return audio["marks"] or ()


async def channels_check(portal: Portal, connection: Connection, first: date, last: date) -> dg.AssetCheckResult:
    """Whether the words of the days' calls agree with the configured channels, as a whole and line by line."""
    rows = await transcripts.role_verdicts(connection, portal.portal, first, last)
    told, disagree = sum(row["told"] for row in rows), sum(row["disagree"] for row in rows)
    lines = [row["line"] for row in rows if row["line"] is not None and _mostly(row["disagree"], row["told"])]
    wrong = _mostly(disagree, told)
    description = f"{told - disagree} of {told} calls whose words tell who the operator is agree with `channels`"
    if wrong or lines:
        where = "" if wrong else f" (those over {', '.join(lines)})"
        description = (
            f"{disagree} of {told} calls whose words tell who the operator is have it on the other channel{where}: listen "
            f"to one, set {_better(portal, rows, lines)} in the file of portal {portal.portal}, and run the days again; "
            "their dialogs are built anew from the stored answers, no recognition is bought again."
        )
    return dg.AssetCheckResult(
        check_name=next(iter(CHANNELS_CHECK)),
        passed=not wrong and not lines,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={"first_day": first.isoformat(), "last_day": last.isoformat(), "told": told, "disagree": disagree},
    )


def _mostly(disagree: int, told: int) -> bool:
    """Whether so many of the calls disagree that the setting must be wrong, and not the calls odd."""
    return told >= ENOUGH_CALLS and disagree * 2 > told


def _better(portal: Portal, rows: Sequence[Row], lines: Sequence[str]) -> str:
    """The setting that most calls ask for: of the portal if all its lines are wrong, else of the wrong lines."""
    if all(row["disagree"] * 2 > row["told"] for row in rows) and not portal.channels.by_line:
        return f"`channels.operator: {1 - portal.channels.operator}`"
    wrong = lines or [row["line"] for row in rows if row["line"] is not None and row["disagree"] * 2 > row["told"]]
    pairs = ", ".join(f'"{line}": {1 - dialog_rules(portal, line).operator_channel}' for line in wrong)
    return f"`channels.by_line: {{{pairs}}}`" if pairs else "`channels`"
