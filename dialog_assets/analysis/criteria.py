"""Criteria: a score, a text and quotes for each criterion that applies to a dialog, several criteria in one request.

Here: grouping, the requests, their rules, and the reading of an answer. One request for a group costs a fifth of one
request for each criterion (facts/llm.md section 6). Evidence is asked for before the score, and its place is computed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from dialog_assets.analysis.lines import clean_text, dialog_block, line_index
from dialog_assets.analysis.names import Names, shown
from dialog_assets.analysis.prompts import asked_again, prompt
from dialog_assets.analysis.reading import Flag, OutOf, Part, Score, Unreadable, Words, each
from dialog_assets.dialogs import Turn, line_id
from dialog_assets.llm.requests import CORRECTIONS, LLMRequest
from dialog_assets.portals import Criterion, Portal

SPANNED_LINES = 4
"""Lines in a row that one quote may run over."""

_WORD = re.compile(r"\w+")
_LEFT_OUT = re.compile(r"…|\.{3}")


class QuotedLine(Part):
    """Words of one line."""

    line: Words
    text: Words


class CriterionScore(Part):
    """The model's answer to one criterion; the order of the fields is the order in which it thinks."""

    may_lack = ("quotes",)

    criterion: Words
    quotes: Annotated[list[QuotedLine | Unreadable], each(QuotedLine, "line")]
    text: Words
    applicable: Flag
    score: Score


class CriteriaAnswer(Part):
    """What the model answers."""

    scores: Annotated[list[CriterionScore | Unreadable], each(CriterionScore, "criterion")]


@dataclass(frozen=True, slots=True)
class Quote:
    """Words of the dialog: line id, turn index from 0, where that turn begins, and the words.

    `verbatim`: whether these words, one after another, are what the line says.
    """

    line: str
    turn: int
    start_ms: int
    text: str
    verbatim: bool = True


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """One criterion's result; `score` is None exactly when it is not applicable; `version` is the criterion's."""

    criterion: str
    version: str
    applicable: bool
    score: int | None
    text: str
    quotes: list[Quote]


@dataclass(frozen=True, slots=True)
class Scores:
    """What of an answer can be used, in the order of the criteria, and for each criterion that cannot be what is wrong.

    `astray` is wrong with what the answer says of no criterion that was asked about.
    """

    results: list[ScoreResult]
    missing: dict[str, list[str]]
    astray: list[str]

    @property
    def complaints(self) -> list[str]:
        """All that is wrong."""
        return [
            *(f"{name}: {problem}" for name, problems in self.missing.items() for problem in problems),
            *self.astray,
        ]


def criteria_requests(
    turns: Sequence[Turn], portal: Portal, criteria: Sequence[Criterion]
) -> list[tuple[Sequence[Criterion], LLMRequest[CriteriaAnswer]]]:
    """One question for every `criteria_per_request` of the criteria, in their order, with the criteria it asks for."""
    size = portal.llm.criteria_per_request
    groups = [criteria[start : start + size] for start in range(0, len(criteria), size)]
    return [(group, criteria_request(turns, portal, group)) for group in groups]


def criteria_request(
    turns: Sequence[Turn], portal: Portal, criteria: Sequence[Criterion], complaints: Sequence[str] = (), tries: int = 0
) -> LLMRequest[CriteriaAnswer]:
    """The question for scores by `criteria`: of what an earlier answer left open with the complaints about it.

    `tries`: how many answers there were before. An answer of which anything can be used is a good one: see `read_scores`.
    """
    text = prompt("criteria")
    choice = portal.llm.criteria

    def check(answer: CriteriaAnswer) -> list[str]:
        scores = read_scores(turns, criteria, answer)
        return [] if scores.results else scores.complaints

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
        )
        + asked_again(complaints[:20]),
        answer=CriteriaAnswer,
        check=check,
        corrections=max(0, CORRECTIONS - tries),
    )


def read_scores(turns: Sequence[Turn], criteria: Sequence[Criterion], answer: CriteriaAnswer) -> Scores:
    """What the answer says to each of `criteria`; each quote with the place of its line."""
    names = Names({criterion.name: criterion.title for criterion in criteria})
    given: dict[str, list[CriterionScore | Unreadable]] = {criterion.name: [] for criterion in criteria}
    found = Scores([], {}, [])
    for score in answer.scores:
        said = score.about if isinstance(score, Unreadable) else score.criterion
        name = names.find(said)
        if name is None:
            problem = f": {score.complaint}" if isinstance(score, Unreadable) else ""
            found.astray.append(f"scores: критерия {shown(said)} нет среди заданных{problem}")
        else:
            given[name].append(score)
    for criterion in criteria:
        said_of_it = given[criterion.name]
        if not said_of_it:
            found.missing[criterion.name] = ["нет ответа по критерию"]
        elif any(score != said_of_it[0] for score in said_of_it[1:]):
            found.missing[criterion.name] = ["оценён дважды"]
        else:
            result, problems = _result(said_of_it[0], criterion, turns)
            if result is None:
                found.missing[criterion.name] = problems
            else:
                found.results.append(result)
    return found


def _result(
    score: CriterionScore | Unreadable, criterion: Criterion, turns: Sequence[Turn]
) -> tuple[ScoreResult | None, list[str]]:
    if isinstance(score, Unreadable):
        return None, [score.complaint]
    problems = _problems(score, criterion)
    quotes: list[Quote] = []
    for quote in score.quotes:
        found = _quotes(quote, turns)
        if isinstance(found, str):
            problems.append(found)
        else:
            quotes += found
    if problems:
        return None, problems
    value = None if score.score is None else int(score.score)
    text = clean_text(score.text)
    return ScoreResult(criterion.name, criterion.version, score.applicable, value, text, quotes), []


def _problems(score: CriterionScore, criterion: Criterion) -> list[str]:
    problems: list[str] = []
    scale = criterion.scale
    if score.applicable and score.score is None:
        problems.append("критерий применим, но оценки нет")
    elif score.applicable and score.score is not None and not scale.min <= score.score <= scale.max:
        problems.append(f"оценка {score.score:d} вне шкалы {scale.min}–{scale.max}")
    elif isinstance(score.score, OutOf) and score.score.of != scale.max:
        problems.append(f"оценка из {score.score.of}, а шкала {scale.min}–{scale.max}")
    elif not score.applicable and score.score is not None:
        problems.append("критерий неприменим, а оценка есть: укажи score null")
    if not clean_text(score.text):
        problems.append("нет пояснения в text")
    return problems


def _quotes(quote: QuotedLine | Unreadable, turns: Sequence[Turn]) -> list[Quote] | str:
    """The quote, cut where it runs over several lines; or what is wrong with it."""
    if isinstance(quote, Unreadable):
        return f"цитата: {quote.complaint}"
    index = line_index(quote.line, len(turns))
    if index is None:
        return f"цитата из строки {shown(quote.line)}, которой нет"
    text = clean_text(quote.text)
    wanted = _words(text)
    if not wanted:
        return f"пустая цитата из строки {line_id(index)}"
    spoken = _words(turns[index].text)
    if _stands_in(text, spoken):
        return [_quote(turns, index, text)]
    return _over_lines(wanted, index, turns) or [_quote(turns, index, text, verbatim=False)]


def _quote(turns: Sequence[Turn], index: int, text: str, *, verbatim: bool = True) -> Quote:
    return Quote(line_id(index), index, turns[index].start_ms, text, verbatim)


def _stands_in(text: str, spoken: Sequence[str]) -> bool:
    """Whether the words stand in what was spoken one after another, but where the quote itself leaves some out."""
    line = f" {' '.join(spoken)} "
    place = 0
    for piece in _LEFT_OUT.split(text):
        words = f" {' '.join(_words(piece))} "
        if words.strip():
            place = line.find(words, place)
            if place < 0:
                return False
    return True


def _over_lines(wanted: Sequence[str], index: int, turns: Sequence[Turn]) -> list[Quote]:
    """A quote that begins in line `index` and runs on into the next ones, as one quote a line; empty if it does not."""
    lines = [_words(turn.text) for turn in turns[index : index + SPANNED_LINES]]
    first = lines[0]
    for start in range(len(first)):
        rest = list(wanted)
        found: list[Quote] = []
        for offset, spoken in enumerate([first[start:], *lines[1:]]):
            common = min(len(rest), len(spoken))
            if not rest or spoken[:common] != rest[:common]:
                break
            found.append(_quote(turns, index + offset, " ".join(spoken[:common])))
            rest = rest[common:]
        if not rest and len(found) > 1:
            return found
    return []


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower().replace("ё", "е"))
