"""What models write into fields: read where it is certain, refused where it is not, and never one thing for another."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.analysis.classification import ClassificationAnswer, read_categories
from dialog_assets.analysis.correction import CorrectionAnswer, apply_correction
from dialog_assets.analysis.criteria import CriteriaAnswer, read_scores
from dialog_assets.analysis.lines import line_index
from dialog_assets.analysis.names import Names
from dialog_assets.analysis.reading import percent, plain, score
from dialog_assets_tests.analysis.support import dialog, portal


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (7, 7),
        (7.0, 7),
        ("7", 7),
        (" 7\n", 7),
        ("7,0", 7),
        ("7.00", 7),
        ("７", 7),
        ("**7**", 7),
        ("+7", 7),
        ("-1", -1),
        ("8/10", 8),
        ("8 из 10", 8),
        ("8\u00a0/ 10", 8),
        (None, None),
        ("null", None),
        ("N/A", None),
        ("н/п", None),
        ("—", None),
        ("", None),
    ],
)
def test_scores_that_are_certain(given: object, value: int | None) -> None:
    """Digits are digits however they are dressed, and words for nothing are nothing."""
    assert score(given) == value


@pytest.mark.parametrize(
    "given",
    [
        *(
            True,
            False,
            7.5,
            "7,5",
            "8.5",
            "80%",
            "1_0",
            "1e1",
            "1e999",
            float("inf"),
            float("nan"),
            "0x7",
            "семь",
            "7-8",
        ),
        *(
            "~7",
            "> 7",
            "7 7",
            "8²",
            "1⁄2",
            "8½",
            "8²/10",
            "①0",
            "VII",
            "7/",
            [7],
            {"score": 7},
            [],
            {},
            "7" * 5000,
            "9" * 100_000 + "/1",
            b"7",
        ),
    ],
)
def test_scores_that_are_not(given: object) -> None:
    """A truth value, a fraction, a share, a guess or a list is no score."""
    with pytest.raises(ValueError):
        score(given)


@pytest.mark.parametrize(
    ("given", "value"), [(85, 85), ("85", 85), ("85%", 85), ("85 %", 85), ("85,0 %", 85), ("85 процентов", 85), (1, 1)]
)
def test_percents(given: object, value: int) -> None:
    """Percent have their sign or not; a share is refused, for 0.85 and 1.0 would not be told apart from percent."""
    assert percent(given) == value
    for other in (True, 0.85, "0,85", 1.0, "1.0", "1,00", "8²", "8²%", "85/100", None, "", "высокая", [85], "85%%"):
        with pytest.raises(ValueError):
            percent(other)


@pytest.mark.parametrize(
    "given",
    [
        *(
            "L001",
            "l001",
            "L1",
            "L0001",
            "[L001]",
            "`L001`",
            "«L001»",
            "**L001**",
            "L001:",
            "L 001",
            "Л001",
            "Ｌ００１",
        ),
        *("L\u200b001", " L001\r\n", "L001 ОПЕРАТОР", "L001 Клиент:", "(l1)", '"L001"'),
    ],
)
def test_lines_that_are_certain(given: str) -> None:
    """A line is known by its letter and number."""
    assert line_index(given, 4) == 0


@pytest.mark.parametrize(
    "given",
    [
        *(
            "",
            "1",
            "001",
            "L",
            "L0",
            "L000",
            "L005",
            "L-1",
            "L001-L003",
            "L001, L002",
            "L1.5",
            "LL001",
            "Линия",
            "L001x",
        ),
        *("строка 1", "L" + "9" * 400, "X001", "L٠٠١x", "L001 и дальше"),
    ],
)
def test_lines_that_are_not(given: str) -> None:
    """A bare number may be counted from nought, two lines are not one, and what is not there is not there."""
    assert line_index(given, 4) is None


def test_names() -> None:
    """Brackets, case, hidden characters, letters that look alike, titles; never a name that may be another."""
    names = Names({"new_order": "Заявка", "complaint": "Отзыв: жалоба", "ac": "Ёлка"})
    for said in (
        *("new_order", "[[New_Order]]", "`new_order`", "«new order»", "new-order", "nеw_оrdеr", "new\u200b_order"),
        *("\ufeffnew_order\r", "Заявка", "заявка.", "ЗАЯВКА", "**new_order**", "ｎｅｗ＿ｏｒｄｅｒ"),
    ):
        assert names.find(said) == "new_order", said
    assert (names.find("отзыв: жалоба"), names.find("елка"), names.find("ас")) == ("complaint", "ac", "ac")
    for said in ("", "order", "new_order2", "new_order, complaint", "заявки", "[[]]", "new__order"):
        assert names.find(said) is None, said
    # Two that look alike are told apart by their own letters, and refused where those do not decide.
    alike = Names({"a_c": "Одно", "a-c": "Другое"})
    assert (alike.find("a_c"), alike.find("a-c"), alike.find("а c")) == ("a_c", "a-c", None)


def scores(*items: Any) -> CriteriaAnswer:
    """An answer as it comes from JSON."""
    return CriteriaAnswer.model_validate({"Scores": list(items)})


def _odd(*values: Any) -> tuple[Any, ...]:
    return values


GOOD = {"criterion": "greeting", "quotes": [], "text": "Хорошо.", "applicable": True, "score": 9}


def test_one_bad_element_spoils_no_other() -> None:
    """Of five criteria what is right is kept; each of the others is named with what is wrong about it."""
    home = portal()
    criteria = home.criteria
    found = read_scores(
        dialog(), criteria, scores(GOOD, {**GOOD, "criterion": "needs", "score": True}, "refund", 7, None, {"score": 3})
    )
    assert [result.criterion for result in found.results] == ["greeting"]
    assert set(found.missing) == {"needs", "refund"}
    assert "score" in found.missing["needs"][0]
    assert len(found.astray) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"score": "9"},
        {"score": "9/10"},
        {"SCORE": "9,0", "score": "9,0"},
        {"quotes": None},
        {"quotes": {"line": "l1", "text": "меня зовут анна"}},
        {"applicable": "да"},
        {"applicable": "True"},
        {"criterion": "[[grееting]]"},
        {"criterion": "Приветствие"},
        {"text": "Хо\u200bро\nшо"},
        {"Лишнее": 1},
        {"quotes": [{"line": "[L001]", "text": "Меня зовут… Анна"}]},
        {"quotes": [{"line": "L2", "text": "мне нужен стекло пакет на балкон. Запишем вас на замер"}]},
    ],
)
def test_score_in_another_dress(changes: dict[str, Any]) -> None:
    """What can only mean one thing is read so."""
    found = read_scores(dialog(), portal().criteria[:1], scores({**GOOD, **changes}))
    assert found.complaints == []
    (result,) = found.results
    assert (result.criterion, result.applicable, result.score) == ("greeting", True, 9)
    assert all(quote.verbatim for quote in result.quotes)


@pytest.mark.parametrize(
    "changes",
    [
        *({"score": value} for value in _odd(True, None, "N/A", 11, -1, 9.5, "90%", "9/5", [9], {"a": 9}, "", 10**400)),
        *({"applicable": value} for value in _odd(None, 1, 0, 1.0, "может быть", [], {}, "N/A")),
        *({"text": value} for value in _odd(None, 5, True, "", " \u200b", ["Хорошо."], {"a": "b"})),
        *({"quotes": value} for value in _odd("L001", [1], [None], ["слова"], [{"line": "L001"}], [[{}]], True)),
        *({"quotes": [{"line": line, "text": "меня зовут"}]} for line in ("L009", 1, None, "", "L001-L002", True)),
        *({"quotes": [{"line": "L001", "text": text}]} for text in (None, "", "…", 5, ["а"])),
        {"applicable": False},
        {"applicable": False, "score": 0},
        {"Score": 3},
    ],
)
def test_score_that_is_refused(changes: dict[str, Any]) -> None:
    """What may mean another thing, or nothing, is a complaint, and never a result."""
    found = read_scores(dialog(), portal().criteria[:1], scores({**GOOD, **changes}))
    assert found.results == []
    assert set(found.missing) == {"greeting"}


def test_a_score_out_of_another_scale_is_refused() -> None:
    """`4/5` is a score of a scale that ends at 5, and `4/10` is none of it."""
    needs = portal().criteria[1:2]
    good = {**GOOD, "criterion": "needs"}
    assert [r.score for r in read_scores(dialog(), needs, scores({**good, "score": "4/5"})).results] == [4]
    assert "из 10" in read_scores(dialog(), needs, scores({**good, "score": "4/10"})).missing["needs"][0]


def test_said_twice() -> None:
    """The same answer twice is one; two answers to one criterion are none; one that was not asked for changes nothing."""
    criteria = portal().criteria[:1]
    assert len(read_scores(dialog(), criteria, scores(GOOD, GOOD)).results) == 1
    assert read_scores(dialog(), criteria, scores(GOOD, {**GOOD, "score": 1})).results == []
    assert len(read_scores(dialog(), criteria, scores({**GOOD, "criterion": "spam"}, GOOD)).results) == 1


def test_quotes_over_lines_and_none_of_the_dialog() -> None:
    """A quote that runs over lines becomes one a line; words that the line does not say are marked."""
    said = [{"line": "L002", "text": "на балкон Запишем вас"}, {"line": "L001", "text": "мы вам перезвоним"}]
    (result,) = read_scores(dialog(), portal().criteria[:1], scores({**GOOD, "quotes": said})).results
    assert [(quote.line, quote.text, quote.verbatim) for quote in result.quotes] == [
        ("L002", "на балкон", True),
        ("L003", "запишем вас", True),
        ("L001", "мы вам перезвоним", False),
    ]


@pytest.mark.parametrize("value", [True, 0.9, "90/100", None, [90], "уверен", 101, -1, "1_0", 1e999])
def test_confidence_that_is_refused(value: object) -> None:
    """A truth value is not one percent, and a share no percent; the other category stays."""
    good = {"name": "complaint", "confidence": "80 %", "reason": "Недоволен."}
    answer = ClassificationAnswer.model_validate(
        {"categories": [good, {**good, "name": "new_order", "confidence": value}]}
    )
    found = read_categories(answer, portal().categories)
    assert [(result.category, result.confidence) for result in found.results] == [("complaint", 80)]
    assert [category.name for category in found.to_ask_again(portal().categories)] == ["new_order"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(["line", "text", "name", "score", "quotes", "Line"]) | st.text(), children)
    ),
    max_leaves=8,
)


@given(JSON, JSON, JSON, JSON)
def test_any_json_is_read_or_refused(first: Any, second: Any, third: Any, fourth: Any) -> None:
    """No value of a field, however odd, is more than a complaint; what comes out can be stored."""
    turns, home = dialog("speaker"), portal()
    entry = {"criterion": "greeting", "quotes": first, "text": second, "applicable": third, "score": fourth}
    for result in read_scores(turns, home.criteria, scores(entry, first)).results:
        assert result.score is None or 0 <= result.score <= 10
        json.dumps([quote.text for quote in result.quotes])
    choice = {"name": first, "confidence": second, "reason": third}
    category = ClassificationAnswer.model_validate({"categories": [choice, fourth, {**choice, "name": "complaint"}]})
    assert all(0 <= result.confidence <= 100 for result in read_categories(category, home.categories).results)
    edit = {"line": "L001", "text": first}
    answer = CorrectionAnswer.model_validate(
        {"edits": [edit, second], "speakers": [{"line": third, "speaker": fourth}]}
    )
    assert len(apply_correction(turns, answer).turns) == len(turns)


def test_plain_words_of_nothing_are_short_work() -> None:
    """A field of a million characters is looked at once."""
    for text in ("8" * 1_000_000, "/" * 1_000_000, "[" * 1_000_000, "а " * 500_000):
        with pytest.raises(ValueError):
            score(text)
        assert line_index(text, 5) is None
        assert Names({"a": "b"}).find(text) is None
    assert plain("«`8`»") == "8"
