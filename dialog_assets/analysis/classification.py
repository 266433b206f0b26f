"""Classification: which of the portal's categories a dialog belongs to; none is an answer too.

Here: the request, its rules, and the reading of an answer. Which criteria follow from a category is `Portal.criteria_of`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from dialog_assets.analysis.lines import clean_text, dialog_block
from dialog_assets.analysis.names import Names, shown
from dialog_assets.analysis.prompts import asked_again, prompt
from dialog_assets.analysis.reading import Part, Percent, Unreadable, Words, each
from dialog_assets.dialogs import Turn
from dialog_assets.llm.requests import CORRECTIONS, LLMRequest
from dialog_assets.portals import Category, Portal


class CategoryChoice(Part):
    """One category of the dialog; confidence in percent."""

    name: Words
    confidence: Percent
    reason: Words


class ClassificationAnswer(Part):
    """What the model answers."""

    categories: Annotated[list[CategoryChoice | Unreadable], each(CategoryChoice, "name")]


@dataclass(frozen=True, slots=True)
class CategoryResult:
    """A category that the dialog has; `confidence` 0 to 100; `version` is the category's."""

    category: str
    version: str
    confidence: int
    reason: str


@dataclass(frozen=True, slots=True)
class Categories:
    """What of an answer can be used, the surest first; what is wrong with the others, by category and of none of them."""

    results: list[CategoryResult]
    doubtful: dict[str, str]
    astray: list[str]

    @property
    def complaints(self) -> list[str]:
        """All that is wrong."""
        return [*self.doubtful.values(), *self.astray]

    def to_ask_again(self, asked: Sequence[Category]) -> list[Category]:
        """The categories that are still open: the doubtful ones, and where a name means none of them, all but the certain."""
        certain = {result.category for result in self.results}
        open_ones = set(self.doubtful) if not self.astray else {one.name for one in asked} - certain
        return [category for category in asked if category.name in open_ones]


def classification_request(
    turns: Sequence[Turn],
    portal: Portal,
    categories: Sequence[Category] | None = None,
    complaints: Sequence[str] = (),
    tries: int = 0,
) -> LLMRequest[ClassificationAnswer]:
    """The question which of the portal's categories fit `turns`: of all, or of those that an earlier answer left open.

    `complaints` are about that answer, `tries` says how many answers there were before. An answer of which anything can
    be used is a good one: see `read_categories`.
    """
    text = prompt("classification")
    choice = portal.llm.classification
    asked = portal.categories if categories is None else categories

    def check(answer: ClassificationAnswer) -> list[str]:
        found = read_categories(answer, asked)
        return [] if found.results else found.complaints

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
            categories="\n".join(f"[[{item.name}]] {item.title}: {item.description}" for item in asked),
        )
        + asked_again(complaints[:20]),
        answer=ClassificationAnswer,
        check=check,
        corrections=max(0, CORRECTIONS - tries),
    )


def read_categories(answer: ClassificationAnswer, asked: Sequence[Category]) -> Categories:
    """The answer in the names of the categories that were asked about."""
    names = Names({category.name: category.title for category in asked})
    known = {category.name: category for category in asked}
    given: dict[str, list[CategoryChoice | Unreadable]] = {}
    found = Categories([], {}, [])
    for choice in answer.categories:
        said = choice.about if isinstance(choice, Unreadable) else choice.name
        name = names.find(said)
        if name is None:
            problem = f"; {choice.complaint}" if isinstance(choice, Unreadable) else ""
            there_are = ", ".join(sorted(known))
            found.astray.append(f"categories: нет категории {shown(said)}; есть: {there_are}{problem}")
        else:
            given.setdefault(name, []).append(choice)
    for name, choices in given.items():
        result = _result(known[name], choices)
        if isinstance(result, str):
            found.doubtful[name] = result
        else:
            found.results.append(result)
    found.results.sort(key=lambda result: (-result.confidence, result.category))
    return found


def _result(category: Category, choices: Sequence[CategoryChoice | Unreadable]) -> CategoryResult | str:
    """The category, or what is wrong with what is said of it."""
    choice = choices[0]
    if any(other != choice for other in choices[1:]):
        return f"categories: категория {category.name} указана дважды"
    if isinstance(choice, Unreadable):
        return f"categories: категория {category.name}: {choice.complaint}"
    if not 0 <= choice.confidence <= 100:
        return f"categories: confidence {choice.confidence} вне пределов 0–100 у категории {category.name}"
    reason = clean_text(choice.reason)
    if not reason:
        return f"categories: у категории {category.name} нет обоснования"
    return CategoryResult(category.name, category.version, choice.confidence, reason)
