"""Correction: the model names lines to change, the code changes them.

Here: the parts that a dialog is corrected in, the request for a part, its rules, and the application of an answer. A patch
instead of a rewritten dialog saves most of the output, and makes every change visible (facts/llm.md section 6).
Not here: in which order parts are asked for, and how often (the step).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import PlainValidator

from dialog_assets.analysis.lines import clean_text, dialog_block, is_cut, line_index
from dialog_assets.analysis.names import shown
from dialog_assets.analysis.prompts import asked_again, prompt
from dialog_assets.analysis.reading import Part, Unreadable, Words, each, plain
from dialog_assets.dialogs import Role, Turn, line_id
from dialog_assets.llm.requests import CORRECTIONS, LLMRequest
from dialog_assets.portals import Portal

CHARACTERS_A_TOKEN = 2
"""Of Russian text in the tightest vendor's tokens (facts/llm.md section 5)."""

CONTEXT_LINES = 6
"""Corrected lines shown before a part, so that the model knows what the talk is about and who says what."""

SHORTEST_ROOM = 2_000
_SPEAKER_CHARACTERS = 45
_EDIT_CHARACTERS = 30
_NUMBERED = re.compile(r"\s*+\[?[LlЛл]\d{3,}+\b")
_SIDES: dict[str, Literal["operator", "client"]] = {
    "operator": "operator",
    "оператор": "operator",
    "client": "client",
    "клиент": "client",
}


def _side(value: object) -> Literal["operator", "client"]:
    side = _SIDES.get(plain(value).lower()) if isinstance(value, str) else None
    if side is None:
        raise ValueError("нужно operator или client")
    return side


class LineEdit(Part):
    """The new text of a whole line."""

    line: Words
    text: Words


class LineSpeaker(Part):
    """Who says a line of a mono recording."""

    line: Words
    speaker: Annotated[
        Literal["operator", "client"], PlainValidator(_side, json_schema_input_type=Literal["operator", "client"])
    ]


class CorrectionAnswer(Part):
    """What the model answers."""

    may_lack = ("speakers",)

    edits: Annotated[list[LineEdit | Unreadable], each(LineEdit, "line")]
    speakers: Annotated[list[LineSpeaker | Unreadable], each(LineSpeaker, "line")]


@dataclass(frozen=True, slots=True)
class Edit:
    """One line that was changed."""

    line: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Correction:
    """The corrected dialog and what was changed in it; the turns' words and times stay the recogniser's.

    `refused` says what of the answers could not be used.
    """

    turns: list[Turn]
    edits: list[Edit]
    refused: list[str]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some lines of a dialog that are asked about in one request.

    The lines from `start` to before `stop`, or only those `lines` of them that an earlier answer left open, with what was
    wrong about them; `tries` counts the earlier answers.
    """

    start: int
    stop: int
    lines: frozenset[int] | None = None
    complaints: tuple[str, ...] = ()
    tries: int = 0

    def asks_for(self, index: int) -> bool:
        """Whether the line is one of those asked about."""
        return index in self.lines if self.lines is not None else self.start <= index < self.stop

    def halves(self) -> tuple[Stretch, ...]:
        """Two stretches of half the length; none of a single line."""
        middle = (self.start + self.stop) // 2
        parts = (Stretch(self.start, middle), Stretch(middle, self.stop))
        return parts if self.start < middle < self.stop else ()


@dataclass
class Draft:
    """A dialog that is being corrected: its turns as they are by now, and what came of the answers so far."""

    turns: list[Turn]
    edits: dict[int, Edit] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def correction(self) -> Correction:
        """What has come of it."""
        return Correction(self.turns, [self.edits[index] for index in sorted(self.edits)], self.refused)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What an answer says of a stretch: new texts and sides by line, and what cannot be used, by line where that is known."""

    texts: dict[int, str]
    sides: dict[int, Role]
    open_lines: dict[int, str]
    refused: list[str]

    @property
    def complaints(self) -> list[str]:
        return [*self.refused, *self.open_lines.values()]


def stretches(turns: Sequence[Turn], portal: Portal) -> list[Stretch]:
    """The parts that a dialog is corrected in: an ordinary one is one part.

    An answer that changes half of a part's lines fits the model's limit of output, one that changes all of them twice it,
    which the router allows.
    """
    room = max(SHORTEST_ROOM, 2 * CHARACTERS_A_TOKEN * portal.llm.correction.max_output_tokens)
    parts: list[Stretch] = []
    start, used = 0, 0
    for index, turn in enumerate(turns):
        need = _EDIT_CHARACTERS + len(turn.text) + (2 * _SPEAKER_CHARACTERS if turn.role == "speaker" else 0)
        if used + need > room and index > start:
            parts.append(Stretch(start, index))
            start, used = index, 0
        used += need
    return [*parts, Stretch(start, len(turns))]


def correction_request(
    turns: Sequence[Turn], portal: Portal, stretch: Stretch | None = None
) -> LLMRequest[CorrectionAnswer]:
    """The question that corrects `turns`, or a stretch of them, and for a mono recording tells its two sides apart."""
    text = prompt("correction")
    choice = portal.llm.correction
    part = stretch or Stretch(0, len(turns))
    unnamed = [index for index, turn in enumerate(turns) if turn.role == "speaker" and part.asks_for(index)]
    speakers = (
        "Запись одноканальная: для каждой строки с пометкой ГОЛОС укажи в speakers, кто её говорит, operator или client."
        if unnamed
        else "Стороны разговора уже известны: speakers оставь пустым списком."
    )
    shown_from = max(0, part.start - CONTEXT_LINES)

    def check(answer: CorrectionAnswer) -> list[str]:
        reading = _read(turns, part, answer)
        return [] if reading.texts or reading.sides else reading.complaints

    return LLMRequest(
        vendor=choice.vendor,
        model=choice.model,
        max_output_tokens=choice.max_output_tokens,
        prompt=text.name,
        prompt_version=text.version,
        system=text.system.substitute(),
        user=text.user.substitute(
            dialog=dialog_block(turns, shown_from, part.stop),
            company=clean_text(portal.title),
            vocabulary=", ".join(portal.speech.vocabulary) or "нет",
            speakers=speakers + _of_a_part(part, len(turns)),
        )
        + asked_again(part.complaints),
        answer=CorrectionAnswer,
        check=check,
        corrections=max(0, CORRECTIONS - part.tries),
    )


def _of_a_part(part: Stretch, turns: int) -> str:
    """What a request says that does not ask for a whole dialog."""
    if part.lines is not None:
        return (
            f" Нужны только строки {', '.join(line_id(index) for index in sorted(part.lines))}; остальные уже готовы."
        )
    if part.start > 0:
        return f" Это часть длинного разговора: строки по {line_id(part.start - 1)} уже готовы и показаны только для понимания."
    return " Это начало длинного разговора." if part.stop < turns else ""


def take(draft: Draft, part: Stretch, answer: CorrectionAnswer, tries: int) -> Stretch | None:
    """Put what is right of the answer into the draft; returns what to ask again, or None.

    `tries`: the answers that this stretch has cost by now, the earlier ones included. Once they are used up, what is still
    open stays as it was recognised, and the draft says so.
    """
    reading = _read(draft.turns, part, answer)
    for index, after in reading.texts.items():
        before = draft.turns[index].text
        if after != before:
            draft.turns[index] = replace(draft.turns[index], text=after)
            draft.edits[index] = Edit(line_id(index), before, after)
    for index, side in reading.sides.items():
        draft.turns[index] = replace(draft.turns[index], role=side)
    draft.refused += reading.refused
    if not reading.open_lines:
        return None
    if tries > CORRECTIONS:
        draft.refused += reading.open_lines.values()
        return None
    lines = frozenset(reading.open_lines)
    return Stretch(
        min(lines),
        min(max(lines) + 2, part.stop),
        lines,
        tuple(reading.open_lines.values())[:20],
        tries,
    )


def apply_correction(turns: Sequence[Turn], answer: CorrectionAnswer) -> Correction:
    """The dialog with the answer's good edits and sides; sides that are already known stay as they are."""
    draft = Draft(list(turns))
    take(draft, Stretch(0, len(turns)), answer, CORRECTIONS + 1)
    return draft.correction()


def _read(turns: Sequence[Turn], part: Stretch, answer: CorrectionAnswer) -> _Reading:
    reading = _Reading({}, {}, {}, [])
    texts: dict[int, list[str]] = defaultdict(list)
    for edit in answer.edits:
        index = _line(edit, "edits", turns, part, reading)
        if index is None:
            continue
        problem = edit.complaint if isinstance(edit, Unreadable) else _text_problem(turns[index], edit.text)
        if problem is not None:
            reading.open_lines[index] = f"edits: строка {line_id(index)}: {problem}"
        elif isinstance(edit, LineEdit):
            texts[index].append(clean_text(edit.text))
    for index, given in texts.items():
        if len(set(given)) > 1:
            reading.open_lines[index] = f"edits: строка {line_id(index)} исправлена дважды"
        elif index not in reading.open_lines:
            reading.texts[index] = given[0]
    _read_sides(turns, part, answer.speakers, reading)
    return reading


def _read_sides(
    turns: Sequence[Turn], part: Stretch, given: Iterable[LineSpeaker | Unreadable], reading: _Reading
) -> None:
    sides: dict[int, set[Role]] = defaultdict(set)
    for one in given:
        index = _line(one, "speakers", turns, part, reading)
        if index is not None and isinstance(one, LineSpeaker):
            sides[index].add(one.speaker)
    for index, turn in enumerate(turns):
        if turn.role != "speaker" or not part.asks_for(index):
            continue
        if len(sides[index]) == 1:
            reading.sides[index] = next(iter(sides[index]))
        else:
            doubt = "названа дважды" if sides[index] else "не указано, кто её говорит"
            reading.open_lines.setdefault(index, f"speakers: строка {line_id(index)}: {doubt}")


def _line(
    one: LineEdit | LineSpeaker | Unreadable, where: str, turns: Sequence[Turn], part: Stretch, reading: _Reading
) -> int | None:
    """The line that an element is about, if that line was asked about; there is no line of that name: refused."""
    said = one.about if isinstance(one, Unreadable) else one.line
    index = line_index(said, len(turns))
    if index is None:
        problem = f": {one.complaint}" if isinstance(one, Unreadable) else ""
        reading.refused.append(f"{where}: нет строки {shown(said)}{problem}")
    return index if index is not None and part.asks_for(index) else None


def _text_problem(turn: Turn, text: str) -> str | None:
    if _NUMBERED.match(text):
        return "текст начинается с номера строки, нужны только слова"
    if not clean_text(text):
        return "текст стал пустым"
    return "показана не целиком, исправить её нельзя" if is_cut(turn) else None
