"""The figures of a dialog: who talks how much, how fast, and how the two take turns. Pure functions of turns and times.

Names end in the role that they are of, units come before it (`_s` seconds). A figure that a dialog cannot have is null:
all of operator and client in mono, the pace of who says nothing, a reaction where nobody answered. Shares are rounded to 3
places, the rest to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from dialog_assets.dialogs import Role, Turn
from dialog_assets.speech.wording import is_listening, profanity_count

Metrics = dict[str, float | int | None]

FIGURES = 2
"""Raise it when a figure of the same turns changes: stored dialogs then get theirs anew. 2: no pace without a word."""


def talk_metrics(turns: Sequence[Turn], duration_s: float, *, backchannel_ms: int = 1000) -> Metrics:
    """Figures of a dialog; turns in order of time, `duration_s` the recording's length.

    Of the whole:
    - `silence_share`: the part of the recording in which no turn goes on; short pauses inside a turn count as talking
    - `longest_monologue_s`: the longest turn; in mono a turn is one phrase
    - `longest_pause_s`: the longest time without a word, after the first and before the last; by the words' times where
      there are words

    For operator and client (in mono for speaker those without a side to compare with, up to `profanity`):
    - `talk_ratio_<role>`: its share of all talking, 0 to 1
    - `words_per_minute_<role>`: of its own talking
    - `turns_<role>`, `words_<role>`: how many
    - `profanity_<role>`: words, see `wording.profanity_count`
    - `interruptions_<role>`: how often it began to speak while a turn of the other that began earlier was still going on;
      a listener's interjection (`wording.is_listening`, at most `backchannel_ms`) neither interrupts nor is interrupted
    - `backchannels_<role>`: such interjections inside a turn of the other
    - `longest_monologue_s_<role>`: its longest turn
    - `reaction_median_s_<role>`, `reaction_max_s_<role>`: from the end of the other's turn to its answer, where the other
      spoke last and had finished; by the words' times where there are words

    Questions are not counted: a recognised text has no question marks.
    """
    mono = any(turn.role == "speaker" for turn in turns)
    metrics: Metrics = {}
    talk = {role: _union_ms([_span(turn) for turn in turns if turn.role == role]) for role in _ROLES}
    total = sum(talk.values())
    listening = _listening(turns, backchannel_ms)
    said = [turn for place, turn in enumerate(turns) if place not in listening]
    for role in _ROLES if mono else _ROLES[:2]:
        own = [turn for turn in turns if turn.role == role]
        words = sum(_word_count(turn) for turn in own)
        absent = mono and role != "speaker"
        metrics |= {
            f"talk_ratio_{role}": None if absent else round(talk[role] / total, 3) if total else 0.0,
            f"words_per_minute_{role}": round(words * 60_000 / talk[role], 1) if talk[role] else None,
            f"turns_{role}": None if absent else len(own),
            f"words_{role}": None if absent else words,
            f"profanity_{role}": None if absent else sum(profanity_count(turn.text) for turn in own),
        }
    for role in _ROLES[:2]:
        own = [turn for turn in turns if turn.role == role]
        reactions = _reactions_ms(said, role)
        metrics |= {
            f"interruptions_{role}": None if mono else _interruptions(said, role),
            f"backchannels_{role}": None if mono else sum(turns[place].role == role for place in listening),
            f"longest_monologue_s_{role}": None if mono else _seconds(_longest_ms(own)),
            f"reaction_median_s_{role}": _seconds(median(reactions)) if reactions else None,
            f"reaction_max_s_{role}": _seconds(max(reactions)) if reactions else None,
        }
    silence = 1 - _union_ms([_span(turn) for turn in turns]) / (duration_s * 1000) if duration_s > 0 else 0.0
    metrics["silence_share"] = round(min(1.0, max(0.0, silence)), 3)
    metrics["longest_monologue_s"] = _seconds(_longest_ms(turns))
    metrics["longest_pause_s"] = _seconds(_longest_pause_ms(turns))
    return metrics


_ROLES: tuple[Role, Role, Role] = ("operator", "client", "speaker")
_Interval = tuple[int, int]


def _span(turn: Turn) -> _Interval:
    return turn.start_ms, turn.end_ms


def _spoken(turn: Turn) -> _Interval:
    """From the first word to the last, which is closer than the phrase's own times."""
    if not turn.words:
        return _span(turn)
    return min(word.start_ms for word in turn.words), max(word.end_ms for word in turn.words)


def _intervals(turn: Turn) -> list[_Interval]:
    return [(word.start_ms, word.end_ms) for word in turn.words] or [_span(turn)]


def _word_count(turn: Turn) -> int:
    return len(turn.words) or len(turn.text.split())


def _seconds(ms: float) -> float:
    return round(ms / 1000, 1)


def _longest_ms(turns: Sequence[Turn]) -> int:
    return max((turn.end_ms - turn.start_ms for turn in turns), default=0)


def _union_ms(intervals: Sequence[_Interval]) -> int:
    """Milliseconds that at least one of `intervals` covers."""
    covered = 0
    reached: int | None = None
    for start, end in sorted(intervals):
        begin = start if reached is None else max(start, reached)
        if end > begin:
            covered += end - begin
            reached = end
    return covered


def _longest_pause_ms(turns: Sequence[Turn]) -> int:
    longest = 0
    reached: int | None = None
    for start, end in sorted(interval for turn in turns for interval in _intervals(turn)):
        if reached is not None:
            longest = max(longest, start - reached)
        reached = end if reached is None else max(reached, end)
    return longest


def _listening(turns: Sequence[Turn], backchannel_ms: int) -> set[int]:
    """Places of the turns that are an interjection inside a turn of the other side."""
    return {
        place
        for place, turn in enumerate(turns)
        if is_listening(turn, backchannel_ms)
        and any(
            other.role != turn.role
            and other.start_ms <= turn.start_ms
            and turn.end_ms <= other.end_ms
            and _span(other) != _span(turn)
            for other in turns
        )
    }


def _interruptions(turns: Sequence[Turn], role: Role) -> int:
    count = 0
    others_end = 0
    for turn in sorted(turns, key=lambda turn: (turn.start_ms, turn.role != role)):
        if turn.role != role:
            others_end = max(others_end, turn.end_ms)
        elif turn.start_ms < others_end:
            count += 1
    return count


def _reactions_ms(turns: Sequence[Turn], role: Role) -> list[int]:
    """How long `role` took to answer, each time that it answered a turn of the other that had ended."""
    reactions: list[int] = []
    own_end = others_end = -1
    for turn in sorted(turns, key=_spoken):
        start, end = _spoken(turn)
        if turn.role != role:
            others_end = max(others_end, end)
            continue
        if own_end < others_end <= start:
            reactions.append(start - others_end)
        own_end = max(own_end, end)
    return reactions
