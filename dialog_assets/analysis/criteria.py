"""Criteria: a score, a text and quotes for each criterion that applies to a dialog, several criteria in one request.

Here: grouping, the requests, their rules, and the reading of an answer. One request for a group costs a fifth of one
request for each criterion (facts/llm.md section 6). Evidence is asked for before the score, and its place is computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from dialog_assets.analysis.lines import clean_text, dialog_block, line_numbers
from dialog_assets.analysis.names import configured_name, shown
from dialog_assets.analysis.prompts import prompt
from dialog_assets.dialogs import Turn
from dialog_assets.llm.requests import LLMRequest
from dialog_assets.portals import Criterion, Portal


class QuotedLine(BaseModel):
    """Words of one line."""

    line: str
    text: str


class CriterionScore(BaseModel):
    """The model's answer to one criterion; the order of the fields is the order in which it thinks."""

    criterion: str
    quotes: list[QuotedLine]
    text: str
    applicable: bool
    score: int | None


class CriteriaAnswer(BaseModel):
    """What the model answers."""

    scores: list[CriterionScore]


@dataclass(frozen=True, slots=True)
class Quote:
    """Words of the dialog: line id, turn index from 0, where that turn begins, and the words."""

    line: str
    turn: int
    start_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """One criterion's result; `score` is None exactly when it is not applicable; `version` is the criterion's."""

    criterion: str
    version: str
    applicable: bool
    score: int | None
    text: str
    quotes: list[Quote]


def criteria_requests(
    turns: Sequence[Turn], portal: Portal, criteria: Sequence[Criterion]
) -> list[tuple[Sequence[Criterion], LLMRequest[CriteriaAnswer]]]:
    """One question for every `criteria_per_request` of the criteria, in their order, with the criteria it asks for."""
    size = portal.llm.criteria_per_request
    groups = [criteria[start : start + size] for start in range(0, len(criteria), size)]
    return [(group, _request(turns, portal, group)) for group in groups]


def _request(turns: Sequence[Turn], portal: Portal, criteria: Sequence[Criterion]) -> LLMRequest[CriteriaAnswer]:
    text = prompt("criteria")
    choice = portal.llm.criteria
    asked = {criterion.name: criterion for criterion in criteria}
    lines = line_numbers(turns)

    def check(answer: CriteriaAnswer) -> list[str]:
        given = Counter(configured_name(score.criterion) for score in answer.scores)
        complaints = [f"scores: нет ответа по критерию {name}" for name in asked if name not in given]
        complaints += [f"scores: критерий {name} оценён дважды" for name in asked if given[name] > 1]
        for score in answer.scores:
            criterion = asked.get(configured_name(score.criterion))
            if criterion is None:
                complaints.append(f"scores: критерия {shown(score.criterion)} нет среди заданных")
            else:
                complaints += [f"{criterion.name}: {problem}" for problem in _problems(score, criterion, lines)]
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
            criteria="\n".join(
                f"[[{item.name}]] {item.title} (шкала {item.scale.min}–{item.scale.max}): {item.text}"
                for item in criteria
            ),
        ),
        answer=CriteriaAnswer,
        check=check,
    )


def _problems(score: CriterionScore, criterion: Criterion, lines: dict[str, int]) -> list[str]:
    problems: list[str] = []
    scale = criterion.scale
    if score.applicable and score.score is None:
        problems.append("критерий применим, но оценки нет")
    elif score.applicable and score.score is not None and not scale.min <= score.score <= scale.max:
        problems.append(f"оценка {score.score} вне шкалы {scale.min}–{scale.max}")
    elif not score.applicable and score.score is not None:
        problems.append("критерий неприменим, а оценка есть: укажи score null")
    if not clean_text(score.text):
        problems.append("нет пояснения в text")
    for quote in score.quotes:
        if quote.line not in lines:
            problems.append(f"цитата из строки {shown(quote.line)}, которой нет")
        elif not clean_text(quote.text):
            problems.append(f"пустая цитата из строки {quote.line}")
    return problems


def read_scores(turns: Sequence[Turn], criteria: Sequence[Criterion], answer: CriteriaAnswer) -> list[ScoreResult]:
    """The checked answer to `criteria`, in their order; each quote with the place of its line."""
    lines = line_numbers(turns)
    given = {configured_name(score.criterion): score for score in answer.scores}
    results: list[ScoreResult] = []
    for criterion in criteria:
        score = given[criterion.name]
        quotes = [
            Quote(quote.line, lines[quote.line], turns[lines[quote.line]].start_ms, clean_text(quote.text))
            for quote in score.quotes
        ]
        results.append(
            ScoreResult(
                criterion=criterion.name,
                version=criterion.version,
                applicable=score.applicable,
                score=score.score,
                text=clean_text(score.text),
                quotes=quotes,
            )
        )
    return results
