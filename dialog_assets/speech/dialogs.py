"""Phrases of a recogniser become the dialog of a call. Pure functions.

Here: turns, the marks of a call, and all that is told of a dialog together. Not here: its figures (`metrics.py`), whether
the roles fit (`roles.py`), what words tell (`wording.py`), where the answer comes from (`port.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from dialog_assets.dialogs import Role, Turn, Word
from dialog_assets.speech.metrics import FIGURES, Metrics, talk_metrics
from dialog_assets.speech.port import Phrase
from dialog_assets.speech.roles import RoleCheck, check_roles
from dialog_assets.speech.wording import is_announcement, is_listening, profanity_count, tokens

Mark = Literal["mono", "dual_mono", "one_sided", "voicemail", "roles_disagree", "profanity"]
"""What is to be known of a dialog before its words are trusted or read.

mono: one stream for both sides, to be told apart by the correction. dual_mono: both channels carry the same speech, kept
once. one_sided: only one side speaks. voicemail: all that is said is a machine's. roles_disagree: the words say that the
sides are the other way round. profanity: see `wording.profanity_count`.
"""

SAME_SPEECH_WORDS = 5
SAME_SPEECH_MS = 300


@dataclass(frozen=True, slots=True)
class DialogRules:
    """How phrases become turns.

    operator_channel: the operator's in stereo, the other one is the client's. pause_ms: the longest pause inside a turn.
    backchannel_ms: the longest interjection that does not end the other's turn, 0 for none. company_names: as people say
    them, for the check of the roles.
    """

    operator_channel: int
    pause_ms: int = 1500
    backchannel_ms: int = 1000
    company_names: tuple[str, ...] = ()

    @property
    def of_turns(self) -> str:
        """The rules that decide the turns, as text."""
        return f"operator={self.operator_channel} pause_ms={self.pause_ms} backchannel_ms={self.backchannel_ms}"

    @property
    def label(self) -> str:
        """All rules as a line of text, kept with each dialog: those of the turns, then those of figures and marks."""
        return f"{self.of_turns} figures={FIGURES} names={'|'.join(self.company_names)}"


@dataclass(frozen=True, slots=True)
class Dialog:
    """A call's dialog and what is told of it; `role_check` is None where no channel tells a role."""

    turns: list[Turn]
    marks: list[Mark]
    talk_metrics: Metrics
    role_check: RoleCheck | None


def read_dialog(
    phrases: Iterable[Phrase],
    rules: DialogRules,
    *,
    channels: int,
    duration_s: float,
    direction: str,
    audio_marks: Collection[str] = (),
) -> Dialog:
    """All that is known of a call from a recogniser's phrases.

    channels, duration_s: of the recording. direction: as table calls has it. audio_marks: what the measurements of the
    audio found; `dual_mono` counts here. (The same words twice at the same time are dual mono without it too.)
    """
    heard = in_order(phrases)
    dual_mono = channels > 1 and ("dual_mono" in audio_marks or _same_speech_twice(heard))
    turns = build_turns(_one_stream(heard) if dual_mono else heard, rules, mono=dual_mono or channels == 1)
    return describe(turns, rules, channels=channels, duration_s=duration_s, direction=direction)


def describe(turns: list[Turn], rules: DialogRules, *, channels: int, duration_s: float, direction: str) -> Dialog:
    """What is told of turns that are there already: marks, figures, and the check of their roles."""
    marks: list[Mark] = []
    check: RoleCheck | None = None
    roles = {turn.role for turn in turns}
    machine = is_announcement(turns)
    if "speaker" in roles:
        marks += ["dual_mono", "mono"] if channels > 1 else ["mono"]
    elif turns and not machine:
        check = check_roles(turns, direction, rules.company_names)
    if len(roles) == 1 and "speaker" not in roles:
        marks.append("one_sided")
    if machine:
        marks.append("voicemail")
    if check is not None and check.verdict == "disagrees":
        marks.append("roles_disagree")
    if any(profanity_count(turn.text) for turn in turns):
        marks.append("profanity")
    return Dialog(turns, marks, talk_metrics(turns, duration_s, backchannel_ms=rules.backchannel_ms), check)


def in_order(phrases: Iterable[Phrase]) -> list[Turn]:
    """What was heard, by its time, whatever the order of `phrases` (facts/voicekit.md section 4 documents none).

    Blank phrases are dropped. A phrase that does not end after it starts has its words' times, or no length; words that lie
    outside their phrase are moved to its edge. A phrase without words gives none.
    """
    return sorted((_heard(phrase) for phrase in phrases if phrase.text.strip()), key=_order)


def build_turns(heard: Sequence[Turn], rules: DialogRules, *, mono: bool) -> list[Turn]:
    """The turns of what was heard, in order of time.

    Stereo: the role comes from the channel. A phrase joins its channel's last turn if the pause between them is at most
    `pause_ms` and the other side has not taken over since. A listener's interjection (`wording.is_listening`) that lies
    inside one phrase of the other side does not take over: it is a turn of its own, and the other turn goes on around
    it. An interjection into a pause does take over, since it may answer a question. A phrase that begins before its
    channel's last turn has ended always joins it, so that the turns of a channel never overlap. Mono: every phrase is a
    turn of role `speaker`, so that a later correction can say who speaks.
    """
    turns: list[Turn] = []
    latest: dict[int, int] = {}
    floor = previous = -1
    for phrase in heard:
        place = latest.get(phrase.channel, -1)
        pause = phrase.start_ms - turns[place].end_ms if place >= 0 else None
        goes_on = phrase.channel in (floor, previous)
        if not mono and pause is not None and (pause < 0 or (goes_on and pause <= rules.pause_ms)):
            turns[place] = _joined(turns[place], phrase)
        else:
            latest[phrase.channel] = len(turns)
            turns.append(phrase if mono else replace(phrase, role=_role(phrase.channel, rules)))
        # Phrases come by their start, so a turn that reaches over this one's end has a phrase that does.
        inside = any(
            turns[index].end_ms >= phrase.end_ms for channel, index in latest.items() if channel != phrase.channel
        )
        if not (inside and is_listening(phrase, rules.backchannel_ms)):
            floor = phrase.channel
        previous = phrase.channel
    return turns


def _heard(phrase: Phrase) -> Turn:
    """A phrase with its times put right, as a turn whose role is still open."""
    start, end = phrase.start_ms, phrase.end_ms
    if end <= start and phrase.words:
        start = min(word.start_ms for word in phrase.words)
        end = max(word.end_ms for word in phrase.words)
    end = max(start, end)

    def inside(moment: int) -> int:
        return min(max(moment, start), end)

    words = tuple(
        Word(word.text, inside(word.start_ms), inside(max(word.start_ms, word.end_ms))) for word in phrase.words
    )
    return Turn("speaker", phrase.channel, start, end, phrase.text.strip(), words)


def _joined(first: Turn, second: Turn) -> Turn:
    return replace(
        first,
        end_ms=max(first.end_ms, second.end_ms),
        text=f"{first.text} {second.text}",
        words=(*first.words, *second.words),
    )


def _order(heard: Turn) -> tuple[Any, ...]:
    """Time, then channel; the rest only makes the order of equals the same every time."""
    words = tuple((word.start_ms, word.end_ms, word.text) for word in heard.words)
    return heard.start_ms, heard.channel, heard.end_ms, heard.text, words


def _role(channel: int, rules: DialogRules) -> Role:
    return "operator" if channel == rules.operator_channel else "client"


def _same_speech_twice(heard: Sequence[Turn]) -> bool:
    """Whether the two channels say the same, phrase by phrase at the same time, and more than an `алло` each."""
    by_channel = _by_channel(heard)
    if len(by_channel) != 2:
        return False
    first, second = by_channel.values()
    if len(first) != len(second) or sum(len(tokens(one.text)) for one in first) < SAME_SPEECH_WORDS:
        return False
    return all(
        tokens(one.text) == tokens(other.text) and abs(one.start_ms - other.start_ms) <= SAME_SPEECH_MS
        for one, other in zip(first, second, strict=True)
    )


def _one_stream(heard: Sequence[Turn]) -> list[Turn]:
    """The speech of two channels that carry the same, once, as channel 0.

    The channel in which more words were heard, and of the other one what was heard where that one has nothing.
    """
    words = Counter(dict.fromkeys(sorted(_by_channel(heard)), 0))
    for one in heard:
        words[one.channel] += len(tokens(one.text))
    main = max(words, key=lambda channel: (words[channel], -channel), default=0)
    kept = [one for one in heard if one.channel == main]
    kept += [one for one in heard if one.channel != main and not any(_at_once(one, known) for known in kept)]
    return sorted((replace(one, channel=0) for one in kept), key=_order)


def _by_channel(heard: Sequence[Turn]) -> dict[int, list[Turn]]:
    by_channel: dict[int, list[Turn]] = {}
    for one in heard:
        by_channel.setdefault(one.channel, []).append(one)
    return by_channel


def _at_once(one: Turn, other: Turn) -> bool:
    return one.start_ms == other.start_ms or (one.start_ms < other.end_ms and other.start_ms < one.end_ms)
