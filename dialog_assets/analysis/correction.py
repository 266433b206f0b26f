"""Correction: the model names lines to change, the code changes them.

Here: the request, its rules, and the application of an answer. A patch instead of a rewritten dialog saves most of the
output, and makes every change visible (facts/llm.md section 6).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator

from dialog_assets.analysis.lines import clean_text, dialog_block, line_numbers
from dialog_assets.analysis.names import shown
from dialog_assets.analysis.prompts import prompt
from dialog_assets.dialogs import Role, Turn, line_id
from dialog_assets.llm.requests import LLMRequest
from dialog_assets.portals import Portal

_NUMBERED = re.compile(r"\s*L\d{3,}\b")


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


class LineEdit(BaseModel):
    """The new text of a whole line."""

    line: str
    text: str


class LineSpeaker(BaseModel):
    """Who says a line of a mono recording."""

    line: str
    speaker: Annotated[Literal["operator", "client"], BeforeValidator(_lower)]


class CorrectionAnswer(BaseModel):
    """What the model answers."""

    edits: list[LineEdit]
    speakers: list[LineSpeaker]


@dataclass(frozen=True, slots=True)
class Edit:
    """One line that was changed."""

    line: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Correction:
    """The corrected dialog and what was changed in it; the turns' words and times stay the recogniser's."""

    turns: list[Turn]
    edits: list[Edit]


def correction_request(turns: Sequence[Turn], portal: Portal) -> LLMRequest[CorrectionAnswer]:
    """The question that corrects `turns`, and for a mono recording tells its two sides apart."""
    text = prompt("correction")
    choice = portal.llm.correction
    unnamed = [line_id(index) for index, turn in enumerate(turns) if turn.role == "speaker"]
    speakers = (
        "Запись одноканальная: для каждой строки с пометкой ГОЛОС укажи в speakers, кто её говорит, operator или client."
        if unnamed
        else "Стороны разговора уже известны: speakers оставь пустым списком."
    )
    lines = line_numbers(turns)

    def check(answer: CorrectionAnswer) -> list[str]:
        complaints = [f"edits: нет строки {shown(edit.line)}" for edit in answer.edits if edit.line not in lines]
        complaints += [
            f"edits: текст строки {shown(edit.line)} начинается с номера строки, нужны только слова"
            for edit in answer.edits
            if _NUMBERED.match(edit.text)
        ]
        complaints += [f"edits: строка {edit.line} стала пустой" for edit in answer.edits if not clean_text(edit.text)]
        complaints += [
            f"edits: строка {line} исправлена дважды" for line in _doubles(edit.line for edit in answer.edits)
        ]
        complaints += [f"speakers: нет строки {shown(side.line)}" for side in answer.speakers if side.line not in lines]
        complaints += [f"speakers: строка {line} названа дважды" for line in _doubles(s.line for s in answer.speakers)]
        named = {side.line for side in answer.speakers}
        complaints += [f"speakers: не указано, кто говорит строку {line}" for line in unnamed if line not in named]
        return complaints

    return LLMRequest(
        vendor=choice.vendor,
        model=choice.model,
        max_output_tokens=choice.max_output_tokens,
        prompt=text.name,
        prompt_version=text.version,
        system=text.system.substitute(),
        user=text.user.substitute(
            dialog=dialog_block(turns),
            company=clean_text(portal.title),
            vocabulary=", ".join(portal.speech.vocabulary) or "нет",
            speakers=speakers,
        ),
        answer=CorrectionAnswer,
        check=check,
    )


def _doubles(lines: Iterable[str]) -> list[str]:
    return [shown(line) for line, number in Counter(lines).items() if number > 1]


def apply_correction(turns: Sequence[Turn], answer: CorrectionAnswer) -> Correction:
    """The dialog with the checked answer's edits and sides; sides that are already known stay as they are."""
    lines = line_numbers(turns)
    corrected = list(turns)
    edits: list[Edit] = []
    for edit in answer.edits:
        before = corrected[lines[edit.line]].text
        after = clean_text(edit.text)
        if after != before:
            corrected[lines[edit.line]] = replace(corrected[lines[edit.line]], text=after)
            edits.append(Edit(edit.line, before, after))
    for side in answer.speakers:
        turn = corrected[lines[side.line]]
        if turn.role == "speaker":
            role: Role = side.speaker
            corrected[lines[side.line]] = replace(turn, role=role)
    return Correction(corrected, edits)
