"""Phrases of a recogniser become the dialog of a call, and the dialog's own figures. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from dialog_assets.dialogs import Role, Turn
from dialog_assets.speech.port import Phrase


def build_dialog(
    phrases: Iterable[Phrase], *, channels: int, operator_channel: int | None, pause_ms: int = 1500
) -> list[Turn]:
    """The dialog in order of time, whatever the order of `phrases` (facts/voicekit.md section 4 documents none).

    Stereo: consecutive phrases of one channel are one turn unless a pause longer than `pause_ms` parts them; the role
    comes from the channel, `speaker` if `operator_channel` is unknown. Mono: every phrase is a turn of role `speaker`,
    so that a later correction can say who speaks. Blank phrases are dropped, words are kept, a phrase that ends before
    it starts ends where it starts.
    """
    turns: list[Turn] = []
    for phrase in sorted((phrase for phrase in phrases if phrase.text.strip()), key=_order):
        turn = Turn(
            role=_role(phrase.channel, channels, operator_channel),
            channel=phrase.channel,
            start_ms=phrase.start_ms,
            end_ms=max(phrase.start_ms, phrase.end_ms),
            text=phrase.text.strip(),
            words=phrase.words,
        )
        last = turns[-1] if turns else None
        if channels > 1 and last and last.channel == turn.channel and turn.start_ms - last.end_ms <= pause_ms:
            turns[-1] = replace(
                last,
                end_ms=max(last.end_ms, turn.end_ms),
                text=f"{last.text} {turn.text}",
                words=(*last.words, *turn.words),
            )
        else:
            turns.append(turn)
    return turns


def _order(phrase: Phrase) -> tuple[Any, ...]:
    """Time, then channel; the rest only makes the order of equals the same every time."""
    words = tuple((word.start_ms, word.end_ms, word.text) for word in phrase.words)
    return phrase.start_ms, phrase.channel, phrase.end_ms, phrase.text, words


def _role(channel: int, channels: int, operator_channel: int | None) -> Role:
    if channels < 2 or operator_channel is None:
        return "speaker"
    return "operator" if channel == operator_channel else "client"


def talk_metrics(turns: Sequence[Turn], duration_s: float) -> dict[str, float | int]:
    """Figures of a dialog, from the times of its turns; short pauses inside a turn count as talking.

    For each role (operator and client always, speaker if there is one): `talk_ratio_<role>`, its share of all talking,
    0 to 1; `words_per_minute_<role>` of its own talking; `interruptions_<role>`, how often it began to speak while a
    turn of another role that began earlier was still going on. Then `silence_share`, the part of `duration_s` in which
    nobody talks, and `longest_monologue_s`, the longest turn. Fractions are rounded to 3 places, the rest to 1.
    """
    roles: list[Role] = ["operator", "client"]
    if any(turn.role == "speaker" for turn in turns):
        roles.append("speaker")
    talk = {role: _union_ms([turn for turn in turns if turn.role == role]) for role in roles}
    total = sum(talk.values())
    metrics: dict[str, float | int] = {}
    for role in roles:
        own = [turn for turn in turns if turn.role == role]
        words = sum(len(turn.words) or len(turn.text.split()) for turn in own)
        metrics[f"talk_ratio_{role}"] = round(talk[role] / total, 3) if total else 0.0
        metrics[f"words_per_minute_{role}"] = round(words * 60_000 / talk[role], 1) if talk[role] else 0.0
        metrics[f"interruptions_{role}"] = _interruptions(turns, role)
    silence = 1 - _union_ms(turns) / (duration_s * 1000) if duration_s > 0 else 0.0
    metrics["silence_share"] = round(min(1.0, max(0.0, silence)), 3)
    metrics["longest_monologue_s"] = round(max((turn.end_ms - turn.start_ms for turn in turns), default=0) / 1000, 1)
    return metrics


def _union_ms(turns: Sequence[Turn]) -> int:
    """Milliseconds in which at least one of `turns` goes on."""
    covered = 0
    reached: int | None = None
    for turn in sorted(turns, key=lambda turn: turn.start_ms):
        start = turn.start_ms if reached is None else max(turn.start_ms, reached)
        if turn.end_ms > start:
            covered += turn.end_ms - start
            reached = turn.end_ms
    return covered


def _interruptions(turns: Sequence[Turn], role: Role) -> int:
    count = 0
    others_end = 0
    for turn in sorted(turns, key=lambda turn: (turn.start_ms, turn.role != role)):
        if turn.role != role:
            others_end = max(others_end, turn.end_ms)
        elif turn.start_ms < others_end:
            count += 1
    return count
