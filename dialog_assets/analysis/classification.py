"""Classification: which of the portal's categories a dialog belongs to; none is an answer too.

Here: the request, its rules, and the reading of an answer. Which criteria follow from a category is `Portal.criteria_of`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from dialog_assets.analysis.lines import clean_text, dialog_block
from dialog_assets.analysis.names import configured_name, shown
from dialog_assets.analysis.prompts import prompt
from dialog_assets.dialogs import Turn
from dialog_assets.llm.requests import LLMRequest
from dialog_assets.portals import Portal


class CategoryChoice(BaseModel):
    """One category of the dialog; confidence in percent."""

    name: str
    confidence: int
    reason: str


class ClassificationAnswer(BaseModel):
    """What the model answers."""

    categories: list[CategoryChoice]


@dataclass(frozen=True, slots=True)
class CategoryResult:
    """A category that the dialog has; `confidence` 0 to 100; `version` is the category's."""

    category: str
    version: str
    confidence: int
    reason: str


def classification_request(turns: Sequence[Turn], portal: Portal) -> LLMRequest[ClassificationAnswer]:
    """The question which of the portal's categories fit `turns`."""
    text = prompt("classification")
    choice = portal.llm.classification
    known = {category.name for category in portal.categories}

    def check(answer: ClassificationAnswer) -> list[str]:
        complaints: list[str] = []
        seen: set[str] = set()
        for given in answer.categories:
            name = configured_name(given.name)
            if name not in known:
                complaints.append(f"categories: нет категории {shown(given.name)}; есть: {', '.join(sorted(known))}")
            elif name in seen:
                complaints.append(f"categories: категория {name} указана дважды")
            seen.add(name)
            if not 0 <= given.confidence <= 100:
                complaints.append(f"categories: confidence {given.confidence} вне пределов 0–100")
            if not clean_text(given.reason):
                complaints.append(f"categories: у категории {shown(given.name)} нет обоснования")
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
            categories="\n".join(f"[[{item.name}]] {item.title}: {item.description}" for item in portal.categories),
        ),
        answer=ClassificationAnswer,
        check=check,
    )


def read_categories(answer: ClassificationAnswer, portal: Portal) -> list[CategoryResult]:
    """The checked answer in the portal's own names, the surest first."""
    known = {category.name: category for category in portal.categories}
    results = [
        CategoryResult(
            category=configured_name(given.name),
            version=known[configured_name(given.name)].version,
            confidence=given.confidence,
            reason=clean_text(given.reason),
        )
        for given in answer.categories
    ]
    return sorted(results, key=lambda result: (-result.confidence, result.category))
