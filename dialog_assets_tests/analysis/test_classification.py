"""Classification: only the portal's categories, and none is an answer."""

from __future__ import annotations

import pytest

from dialog_assets.analysis.classification import ClassificationAnswer, classification_request, read_categories
from dialog_assets_tests.analysis.support import dialog, portal


def answer(*categories: tuple[str, int, str]) -> ClassificationAnswer:
    """An answer in short."""
    return ClassificationAnswer.model_validate(
        {"categories": [{"name": name, "confidence": sure, "reason": why} for name, sure, why in categories]}
    )


def test_request_lists_the_categories() -> None:
    """Every category stands in the request by name, title and description."""
    user = classification_request(dialog(), portal()).user
    assert "\n[[new_order]] Заявка: Хочет заказать.\n[[complaint]] Рекламация: Недоволен.\n" in user


def test_names_come_back_as_configured() -> None:
    """Case and copied brackets do not matter; the surest category is first; the version is the category's."""
    given = answer(("COMPLAINT", 40, "недоволен"), ("[[New_Order]]", 90, " просит\nрасчёт "))
    assert classification_request(dialog(), portal()).check(given) == []
    results = read_categories(given, portal().categories).results
    assert [(item.category, item.confidence) for item in results] == [("new_order", 90), ("complaint", 40)]
    assert results[0].reason == "просит расчёт"
    assert results[0].version == portal().categories[0].version


def test_no_category_is_an_answer() -> None:
    """An empty list is accepted: the dialog has no category."""
    assert classification_request(dialog(), portal()).check(answer()) == []
    assert read_categories(answer(), portal().categories).results == []


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (answer(("spam", 90, "да")), "нет категории 'spam'; есть: complaint, new_order"),
        (answer(("complaint", 90, "да"), ("Complaint", 80, "да")), "указана дважды"),
        (answer(("complaint", 101, "да")), "101 вне пределов"),
        (answer(("complaint", -1, "да")), "-1 вне пределов"),
        (answer(("complaint", 50, " ")), "нет обоснования"),
    ],
)
def test_complaints(given: ClassificationAnswer, complaint: str) -> None:
    """Each broken rule is one complaint."""
    complaints = classification_request(dialog(), portal()).check(given)
    assert len(complaints) == 1
    assert complaint in complaints[0]
