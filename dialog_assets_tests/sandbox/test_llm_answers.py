"""The stand-in models find the script of a dialog whatever was done to its text, and answer from it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.sandbox.llm_answers import SUMMARY_MARK, answer_text
from dialog_assets.sandbox.llm_match import ScriptBook, heard_words, tokens
from dialog_assets.sandbox.llm_prompt import Asked, dialog_lines, marked_names
from dialog_assets.sandbox.world.model import ScriptTurn
from dialog_assets_tests.sandbox.llm_support import CAR, CATEGORIES, EDITS, HEARD, SCORES, SUMMARY, TRUE, WINDOWS

BOOK = ScriptBook([WINDOWS, CAR])


def _ask(task: str, schema: dict[str, Any] | None, *, json_only: bool = True) -> dict[str, Any]:
    asked = Asked("m", "Ты редактор.", task, schema, json_only, None, 0)
    found: dict[str, Any] = json.loads(answer_text(BOOK, asked))
    return found


def _edits(task: str) -> dict[str, str]:
    return {edit["line"]: edit["text"] for edit in _ask(task, EDITS)["edits"]}


def test_finds_the_script_of_heard_true_and_mono_text() -> None:
    """Recogniser text, true text, and unmarked voices lead to the same script; another script's text does not."""
    mono = HEARD.replace("ОПЕРАТОР", "ГОЛОС").replace("КЛИЕНТ", "ГОЛОС")
    for prompt in (HEARD, TRUE, mono):
        assert BOOK.find(dialog_lines(prompt)) == WINDOWS
    car = "\n".join(f"L{n:03d} ГОЛОС: {turn.heard}" for n, turn in enumerate(CAR.turns, 1))
    assert BOOK.find(dialog_lines(car)) == CAR


def test_unrelated_dialog_has_no_script() -> None:
    """A voicemail, an unknown dialog and no dialog at all get no script, no categories, nothing applicable."""
    for lines in (
        "L001 ГОЛОС: вы позвонили в нерабочее время оставьте сообщение после сигнала",
        "L001 ОПЕРАТОР: добрый день\nL002 КЛИЕНТ: привет я по поводу вакансии бухгалтера ещё ищете",
        "нет строк",
    ):
        assert _ask(f"{lines}\n[[sale]] Продажа", CATEGORIES) == {"categories": []}
        assert [score["applicable"] for score in _ask(f"{lines}\n[[greeting]] Приветствие", SCORES)["scores"]] == [
            False
        ]
        assert _edits(lines) == {}


def test_merged_and_split_turns_get_just_their_part() -> None:
    """A line of two turns gets both, a line with part of a turn only that part, each with punctuation."""
    prompt = (
        "L001 ОПЕРАТОР: добрый день компания акна север\n"
        "L002 ОПЕРАТОР: меня зовут анна\n"
        "L003 КЛИЕНТ: здравствуйте сколько стоит трёх створчатое окно с установкой да давайте на четверг\n"
        "L004 ОПЕРАТОР: с установкой от сорока тысяч рублей запишем вас на замёр"
    )
    assert _edits(prompt) == {
        "L001": "Добрый день! Компания «Окна Север»,",
        "L002": "меня зовут Анна.",
        "L003": "Здравствуйте. Сколько стоит трёхстворчатое окно с установкой? Да, давайте на четверг,",
        "L004": "С установкой — от сорока тысяч рублей. Запишем вас на замер?",
    }


def test_true_text_needs_no_edits() -> None:
    """A dialog that is right already is left alone."""
    assert _edits(TRUE) == {}


def test_placeholders_stay() -> None:
    """Masked names and numbers keep their place and their form."""
    masked = HEARD.replace("анна", "[ИМЯ_1]").replace("плюс семь девятьсот двенадцать", "[ТЕЛЕФОН_1]")
    edits = _edits(masked)
    assert edits["L001"] == "Добрый день! Компания «Окна Север», меня зовут [ИМЯ_1]."
    assert edits["L004"] == "Да, давайте на четверг, телефон [ТЕЛЕФОН_1]."


def test_words_that_no_script_has_stay() -> None:
    """What was said beside the script is not invented away."""
    edits = _edits(HEARD.replace("L002 КЛИЕНТ: здравствуйте", "L002 КЛИЕНТ: кхм здравствуйте"))
    assert edits["L002"].startswith("кхм Здравствуйте.")


def test_voices_get_their_side() -> None:
    """Every ГОЛОС line gets a speaker by the script's truth."""
    mono = HEARD.replace("ОПЕРАТОР", "ГОЛОС").replace("КЛИЕНТ", "ГОЛОС")
    speakers = {item["line"]: item["speaker"] for item in _ask(mono, EDITS)["speakers"]}
    assert speakers == {"L001": "operator", "L002": "client", "L003": "operator", "L004": "client"}


def test_quotes_are_copied_from_the_prompt() -> None:
    """A quote names the line that holds the words, in the words of the prompt, corrected or not, shifted or not."""
    shifted = HEARD.replace("L00", "L01")
    quotes = _ask(f"{shifted}\n[[greeting]] Приветствие", SCORES)["scores"][0]["quotes"]
    assert quotes == [{"line": "L011", "text": "добрый день компания акна север"}]
    assert quotes[0]["text"] in shifted


def test_only_what_is_asked_is_answered() -> None:
    """Categories that the prompt does not offer are not given; every criterion asked gets an answer, in order."""
    assert [c["name"] for c in _ask(f"{TRUE}\n[[measuring]] Замер", CATEGORIES)["categories"]] == ["measuring"]
    scores = _ask(f"{TRUE}\n- [[new]] Новый\n- [[greeting]] Приветствие\n", SCORES)["scores"]
    assert [(s["criterion"], s["score"]) for s in scores] == [("new", None), ("greeting", 10)]


def test_examples_in_the_prompt_are_not_taken_for_the_dialog() -> None:
    """Lines shown as an example and marks inside a sentence are left out."""
    prompt = f"Например:\nL001 КЛИЕНТ: алло\nИмена даны как [[name]].\n{TRUE}\n[[sale]] Продажа"
    assert len(dialog_lines(prompt)) == 4
    assert marked_names(prompt) == ["sale"]


def test_text_mode_may_fence() -> None:
    """Without a JSON mode some answers come in a fence, with one they never do."""
    plain = [Asked("m", "", f'{{"edits": []}} {n}\n{HEARD}', None, False, None, 0) for n in range(20)]
    fenced = [answer_text(BOOK, asked).startswith("```json") for asked in plain]
    assert any(fenced)
    assert not all(fenced)
    strict = [Asked("m", "", asked.task, None, True, None, 0) for asked in plain]
    assert not any(answer_text(BOOK, asked).startswith("`") for asked in strict)


@given(
    st.lists(
        st.lists(st.text(alphabet="абв ", min_size=1, max_size=60).map(lambda t: t.strip() + "."), max_size=4),
        max_size=6,
    ),
    st.integers(min_value=len(SUMMARY_MARK), max_value=400),
)
def test_summary_keeps_its_limit_and_says_sandbox(blocks: list[list[str]], limit: int) -> None:
    """A summary never exceeds its limit, always ends with the mark, and never repeats an older mark."""
    lines = "\n".join(f"- {' '.join(block)} {SUMMARY_MARK}" for block in blocks)
    text = _ask(f"Объедини, не более {limit} символов.\n{lines}", SUMMARY)["text"]
    assert len(text) <= limit
    assert text.endswith(SUMMARY_MARK)
    assert text.count(SUMMARY_MARK) == 1


def test_summary_takes_something_of_each_block() -> None:
    """The first sentence of each block comes before the second of any."""
    blocks = "- Клиент хочет окно. Торгуется долго.\n- Замер в четверг. Адрес известен.\n- Клиент хочет окно."
    text = _ask(f"не более 65 символов\n{blocks}", SUMMARY)["text"]
    assert text == f"Клиент хочет окно. Замер в четверг. {SUMMARY_MARK}"


words = st.lists(
    st.sampled_from(["мама", "мыла", "раму", "окно", "Ёж,", "—", "да!", "12"]), min_size=1, max_size=12
).map(" ".join)


@given(words, words)
def test_heard_words_carry_the_whole_truth(heard: str, text: str) -> None:
    """However badly a turn was heard, its heard words together stand for the whole true text, in order."""
    found = heard_words(ScriptTurn("client", text, heard, 0, 1), 0)
    if found and tokens(text):
        assert " ".join(piece for word in found for piece in word.truth).split() == text.split()
