"""Correction: only named lines change, and everything else stays the recogniser's."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from dialog_assets.analysis.correction import (
    CONTEXT_LINES,
    CorrectionAnswer,
    Draft,
    Edit,
    Stretch,
    apply_correction,
    correction_request,
    stretches,
    take,
)
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
        (answer([("L001", "\u200b ")]), "стал пустым"),
        (answer([("L001", "а"), ("L001", "б")]), "исправлена дважды"),
        (answer([("L001", "L001 ОПЕРАТОР: добрый день")]), "начинается с номера"),
        (answer([], [("L009", "client")]), "speakers: нет строки"),
        (answer([("L001-L003", "а")]), "нет строки"),
        (answer([("1", "а")]), "нет строки"),
    ],
)
def test_complaints(given: CorrectionAnswer, complaint: str) -> None:
    """An answer that cannot be applied as it stands is sent back."""
    assert [text for text in correction_request(dialog(), portal()).check(given) if complaint in text]


def test_mono_is_asked_again_for_what_is_missing() -> None:
    """What is right of an answer is kept; a mono line without a side is asked for again, and nothing else."""
    portal_, draft = portal(), Draft(dialog("speaker"))
    first = answer([("L002", "Новое.")], [("L001", "operator"), ("l2", "клиент"), ("[L003]", "OPERATOR")])
    assert correction_request(draft.turns, portal_).check(first) == []
    rest = take(draft, Stretch(0, 4), first, 1)
    assert rest is not None
    assert (rest.lines, draft.turns[1].role, draft.turns[1].text) == (frozenset({3}), "client", "Новое.")
    again = correction_request(draft.turns, portal_, rest)
    assert "Нужны только строки L004" in again.user
    assert "строка L004: не указано, кто её говорит" in again.user
    assert again.corrections == 1
    assert take(draft, rest, answer([("L001", "Нельзя.")], [("L004", "client")]), 2) is None
    assert [turn.role for turn in draft.turns] == ["operator", "client", "operator", "client"]
    assert [edit.line for edit in draft.edits.values()] == ["L002"]
    assert correction_request(dialog(), portal()).check(answer([])) == []


def test_what_stays_open_is_told() -> None:
    """When the tries are used up, an open line stays as it was recognised, and the draft says so."""
    draft = Draft(dialog("speaker"))
    given = answer([("L009", "а"), ("L003", " ")], [(f"L00{n}", "client") for n in (1, 2, 3)])
    assert take(draft, Stretch(0, 4), given, 3) is None
    assert [turn.role for turn in draft.turns] == ["client", "client", "client", "speaker"]
    assert len(draft.correction().refused) == 3


def test_long_dialogs_are_corrected_in_parts() -> None:
    """Parts cover every line once, an ordinary dialog is one, and a mono dialog has more of them than a stereo one."""
    assert stretches(dialog(), portal()) == [Stretch(0, 4)]
    long = [replace(dialog()[index % 4], start_ms=index) for index in range(1500)]
    for turns in (long, [replace(turn, role="speaker") for turn in long[:600]]):
        parts = stretches(turns, portal())
        assert [index for part in parts for index in range(part.start, part.stop)] == list(range(len(turns)))
        assert 5 < len(parts) < 20
        user = correction_request(turns, portal(), parts[1]).user
        shown = re.findall(r"^L(\d+) ", user, re.MULTILINE)
        assert [int(line) - 1 for line in shown] == list(range(parts[1].start - CONTEXT_LINES, parts[1].stop))
        assert f"строки по L{parts[1].start:03d} уже готовы" in user


def test_one_endless_line_is_shown_in_part() -> None:
    """A turn beyond every measure is cut in the prompt, and then cannot be edited."""
    turns = [replace(dialog()[0], text="слово " * 20_000), *dialog()[1:]]
    user = correction_request(turns, portal()).user
    assert len(user) < 10_000
    assert apply_correction(turns, answer([("L001", "Коротко.")])).turns[0].text == turns[0].text
