"""Criteria: each asked one answered once, within its scale, with quotes that have a place."""

from __future__ import annotations

from typing import Any

import pytest

from dialog_assets.analysis.criteria import CriteriaAnswer, Quote, criteria_requests, read_scores
from dialog_assets_tests.analysis.support import dialog, portal

GREETING = {
    "criterion": "greeting",
    "quotes": [{"line": "L003", "text": "запишем вас на замер"}],
    "text": "Хорошо.",
    "applicable": True,
    "score": 10,
}
NEEDS = {"criterion": "Needs", "quotes": [], "text": "Повода не было.", "applicable": False, "score": None}


def answer(*scores: dict[str, Any]) -> CriteriaAnswer:
    """An answer in short."""
    return CriteriaAnswer.model_validate({"scores": list(scores)})


def check(*scores: dict[str, Any]) -> list[str]:
    """The complaints about an answer to greeting and needs."""
    return read_scores(dialog(), portal().criteria[:2], answer(*scores)).complaints


def test_grouping() -> None:
    """Criteria are asked in groups of the portal's size, in order, each once; none gives no request."""
    requests = [request for _, request in criteria_requests(dialog(), portal(), portal().criteria)]
    assert ["[[greeting]]" in request.user for request in requests] == [True, False]
    assert ["[[refund]]" in request.user for request in requests] == [False, True]
    assert "\n[[needs]] Потребность (шкала 1–5): Выяснил задачу.\n" in requests[0].user
    assert criteria_requests(dialog(), portal(), []) == []


def test_groups_share_their_prefix() -> None:
    """Rules and dialog come first and are the same in every group, so that a vendor may cache them."""
    (_, first), (_, second) = criteria_requests(dialog(), portal(), portal().criteria)
    assert first.system == second.system
    border = first.user.index("\nКритерии:")
    assert first.user[:border] == second.user[:border]
    assert "КОНЕЦ ДАННЫХ" in first.user[:border]


def test_scores_are_read() -> None:
    """Results come in the asked order with their version; a quote has its line, turn and second."""
    assert check(NEEDS, GREETING) == []
    criteria = portal().criteria[:2]
    greeting, needs = read_scores(dialog(), criteria, answer(NEEDS, GREETING)).results
    assert (greeting.criterion, greeting.version, greeting.score) == ("greeting", criteria[0].version, 10)
    assert greeting.quotes == [Quote("L003", 2, 10_000, "запишем вас на замер")]
    assert (needs.criterion, needs.applicable, needs.score, needs.quotes) == ("needs", False, None, [])


@pytest.mark.parametrize(
    ("scores", "complaint"),
    [
        ([GREETING], "needs: нет ответа по критерию"),
        ([GREETING, NEEDS, {**NEEDS, "text": "Иначе."}], "needs: оценён дважды"),
        ([GREETING, NEEDS, {**NEEDS, "criterion": "refund"}], "'refund' нет среди заданных"),
        ([{**GREETING, "score": 11}, NEEDS], "greeting: оценка 11 вне шкалы 0–10"),
        ([GREETING, {**NEEDS, "applicable": True, "score": 0}], "needs: оценка 0 вне шкалы 1–5"),
        ([{**GREETING, "score": None}, NEEDS], "greeting: критерий применим, но оценки нет"),
        ([GREETING, {**NEEDS, "score": 3}], "needs: критерий неприменим, а оценка есть"),
        ([{**GREETING, "text": " "}, NEEDS], "greeting: нет пояснения"),
        ([{**GREETING, "quotes": [{"line": "L005", "text": "слова"}]}, NEEDS], "из строки 'L005', которой нет"),
        ([{**GREETING, "quotes": [{"line": "L001", "text": ""}]}, NEEDS], "пустая цитата из строки L001"),
    ],
)
def test_complaints(scores: list[dict[str, Any]], complaint: str) -> None:
    """Each broken rule is one complaint."""
    complaints = check(*scores)
    assert len(complaints) == 1
    assert complaint in complaints[0]
