"""Correction: only named lines change, and everything else stays the recogniser's."""

from __future__ import annotations

from typing import Any

import pytest

from dialog_assets.analysis.correction import CorrectionAnswer, Edit, apply_correction, correction_request
from dialog_assets_tests.analysis.support import dialog, portal


def answer(edits: list[tuple[str, str]], speakers: list[tuple[str, str]] | None = None) -> CorrectionAnswer:
    """An answer in short."""
    return CorrectionAnswer.model_validate(
        {
            "edits": [{"line": line, "text": text} for line, text in edits],
            "speakers": [{"line": line, "speaker": speaker} for line, speaker in speakers or []],
        }
    )


def test_request_knows_the_portal() -> None:
    """The request uses the portal's model for this step and tells its vocabulary."""
    request = correction_request(dialog(), portal("deepseek", "deepseek-flash"))
    assert (request.vendor, request.model, request.max_output_tokens) == ("deepseek", "deepseek-flash", 4000)
    assert "стеклопакет, замер" in request.user


def test_edits_are_applied() -> None:
    """An edited line has the new text; its words and times, and all other lines, are untouched."""
    turns = dialog()
    done = apply_correction(turns, answer([("L002", " Мне нужен\nстеклопакет. "), ("L003", turns[2].text)]))
    assert done.edits == [Edit("L002", turns[1].text, "Мне нужен стеклопакет.")]
    assert done.turns[1].text == "Мне нужен стеклопакет."
    assert (done.turns[1].words, done.turns[1].start_ms) == (turns[1].words, turns[1].start_ms)
    assert [done.turns[index] for index in (0, 2, 3)] == [turns[index] for index in (0, 2, 3)]


def test_mono_gets_its_sides() -> None:
    """In a mono recording the answer says who speaks; known sides are never changed."""
    sides = [("L001", "Operator"), ("L002", "client"), ("L003", "operator"), ("L004", "client")]
    done = apply_correction(dialog("speaker"), answer([], sides))
    assert [turn.role for turn in done.turns] == ["operator", "client", "operator", "client"]
    assert "ГОЛОС" in correction_request(dialog("speaker"), portal()).user
    known = apply_correction(dialog(), answer([], [("L001", "client")]))
    assert known.turns[0].role == "operator"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (answer([("L009", "текст")]), "нет строки 'L009'"),
        (answer([("L001", "\u200b ")]), "стала пустой"),
        (answer([("L001", "а"), ("L001", "б")]), "исправлена дважды"),
        (answer([("L001", "L001 ОПЕРАТОР: добрый день")]), "начинается с номера"),
        (answer([], [("L009", "client")]), "speakers: нет строки"),
    ],
)
def test_complaints(given: CorrectionAnswer, complaint: str) -> None:
    """An answer that cannot be applied as it stands is sent back."""
    assert [text for text in correction_request(dialog(), portal()).check(given) if complaint in text]


def test_mono_must_be_told_apart_completely() -> None:
    """A mono line without a side is a complaint; a stereo dialog needs none."""
    request: Any = correction_request(dialog("speaker"), portal())
    assert request.check(answer([], [("L001", "operator"), ("L002", "client"), ("L003", "operator")])) == [
        "speakers: не указано, кто говорит строку L004"
    ]
    assert correction_request(dialog(), portal()).check(answer([])) == []
