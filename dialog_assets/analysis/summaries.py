"""Summaries: one text on a CRM entity out of what the criteria said about its calls; averages computed here.

Here: the inputs' identity, averages, the request and its size. Not here: which criteria count
(`include_in_entity_description`, chosen by the step) and versions of a summary (store).

Size. A prompt holds the newest inputs that fit `INPUT_CHARACTERS`; older ones are left out, and their number is told to
the model and to the caller. The answer's limit is the portal's `summary_max_characters`: a text up to a quarter longer is cut at a
sentence's end by `read_summary` (models count characters badly, and asking again costs more than the last sentence is
worth), a longer one is asked for again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

from dialog_assets.analysis.lines import block, clean_text, strangers_text
from dialog_assets.analysis.prompts import prompt
from dialog_assets.analysis.reading import Part, Words
from dialog_assets.llm.requests import LLMRequest
from dialog_assets.portals import Portal

INPUT_CHARACTERS = 60_000
ONE_INPUT_CHARACTERS = 2_000
TITLE_CHARACTERS = 200


class SummaryAnswer(Part):
    """What the model answers."""

    text: Words


@dataclass(frozen=True, slots=True)
class SummaryInput:
    """What one criterion said about one call; `score` is None when it was not applicable. The time is timezone-aware.

    `scale` is that of the criterion's wording by which the score was given: lowest and highest.
    """

    call_started_at: datetime
    call_id: int
    criterion: str
    title: str
    score: int | None
    text: str
    scale: tuple[int, int] = (0, 10)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The inputs that a summary's prompt shows, oldest first, and those older ones that it has no room for."""

    shown: list[SummaryInput]
    left_out: list[SummaryInput]


def _order(item: SummaryInput) -> tuple[datetime, int, str]:
    return item.call_started_at.astimezone(UTC), item.call_id, item.criterion


def inputs_hash(inputs: Iterable[SummaryInput]) -> str:
    """The identity of a summary's inputs, whatever their order or time zone: the same hash needs no new summary."""
    rows = [
        [
            item.call_started_at.astimezone(UTC).isoformat(),
            item.call_id,
            item.criterion,
            item.title,
            item.score,
            item.text,
        ]
        for item in sorted(inputs, key=_order)
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def average_scores(inputs: Iterable[SummaryInput]) -> dict[str, Decimal]:
    """The mean score by criterion over the inputs that have one, to two places, halves away from zero.

    Where the criterion's scale has changed, it is the mean of the shares of the scales, on the scale of the newest input.
    """
    return {
        criterion: _rounded(low + share * (high - low)) for criterion, (share, (low, high)) in _shares(inputs).items()
    }


def average_percent(inputs: Iterable[SummaryInput]) -> dict[str, Decimal]:
    """The mean score by criterion in percent of the scale by which each was given: comparable whatever the scales are."""
    return {criterion: _rounded(share * 100) for criterion, (share, _) in _shares(inputs).items()}


def _shares(inputs: Iterable[SummaryInput]) -> dict[str, tuple[Fraction, tuple[int, int]]]:
    """Criterion → the mean share of the scale, exactly, and the scale of its newest input."""
    given: dict[str, list[SummaryInput]] = defaultdict(list)
    for item in sorted(inputs, key=_order):
        if item.score is not None:
            given[item.criterion].append(item)
    return {
        criterion: (
            sum(
                (Fraction((item.score or 0) - item.scale[0], item.scale[1] - item.scale[0]) for item in items),
                Fraction(),
            )
            / len(items),
            items[-1].scale,
        )
        for criterion, items in sorted(given.items())
    }


def _rounded(value: Fraction) -> Decimal:
    return (Decimal(value.numerator) / value.denominator).quantize(Decimal("0.01"), ROUND_HALF_UP)


def summary_request(
    entity_title: str | None, inputs: Sequence[SummaryInput], portal: Portal
) -> LLMRequest[SummaryAnswer]:
    """The question that merges `inputs` (at least one) into a text on the entity."""
    text = prompt("summary")
    choice = portal.llm.summary
    limit = portal.summary_max_characters
    chosen = choose(inputs, portal)
    left_out = len(chosen.left_out)
    title = strangers_text(entity_title or "", TITLE_CHARACTERS) or "без названия"
    mixed = _of_several_scales(inputs)
    lines = [f"Карточка: {title}", *(_line(item, portal, mixed) for item in chosen.shown)]

    def check(answer: SummaryAnswer) -> list[str]:
        length = len(clean_text(answer.text))
        if length == 0:
            return ["text: пустая сводка"]
        if length > _tolerated(limit):
            return [f"text: {length} символов, а нужно не более {limit} символов"]
        return []

    return LLMRequest(
        vendor=choice.vendor,
        model=choice.model,
        max_output_tokens=choice.max_output_tokens,
        prompt=text.name,
        prompt_version=text.version,
        system=text.system.substitute(),
        user=text.user.substitute(
            company=clean_text(portal.title),
            inputs=block(lines),
            left_out=f"Ещё {left_out} более ранних записей не поместились и не показаны.\n" if left_out else "",
            limit=limit,
        ),
        answer=SummaryAnswer,
        check=check,
    )


def choose(inputs: Sequence[SummaryInput], portal: Portal) -> Chosen:
    """The newest inputs whose lines fit a prompt."""
    newest_first = sorted(inputs, key=_order, reverse=True)
    mixed = _of_several_scales(inputs)
    used = 0
    for number, item in enumerate(newest_first):
        used += len(_line(item, portal, mixed)) + 1
        if used > INPUT_CHARACTERS:
            return Chosen(newest_first[:number][::-1], newest_first[number:][::-1])
    return Chosen(newest_first[::-1], [])


def _line(item: SummaryInput, portal: Portal, mixed: frozenset[str]) -> str:
    when = item.call_started_at.astimezone(portal.zone).strftime("%d.%m.%Y %H:%M")
    score = "неприменимо" if item.score is None else f"оценка {item.score}"
    if item.score is not None and item.criterion in mixed:
        score += f" по шкале {item.scale[0]}–{item.scale[1]}"
    words = shorten(clean_text(item.text), ONE_INPUT_CHARACTERS)
    return f"- {when}, звонок {item.call_id}, {clean_text(item.title)} ({score}): {words}"


def _of_several_scales(inputs: Iterable[SummaryInput]) -> frozenset[str]:
    """The criteria whose scale has changed between the inputs."""
    scales: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for item in inputs:
        scales[item.criterion].add(item.scale)
    return frozenset(criterion for criterion, found in scales.items() if len(found) > 1)


def _tolerated(limit: int) -> int:
    return limit + limit // 4


def read_summary(answer: SummaryAnswer, portal: Portal) -> str:
    """The checked answer's text, never longer than the portal's limit."""
    return shorten(clean_text(answer.text), portal.summary_max_characters)


def shorten(text: str, limit: int) -> str:
    """`text` if it has at most `limit` characters, else its whole sentences that fit, else its words that fit and `…`."""
    if len(text) <= limit:
        return text
    ends = [match.end() for match in re.finditer(r"[.!?…]++(?=\s)", text[: limit + 1])]
    if ends and ends[-1] <= limit:
        return text[: ends[-1]]
    head = text[: max(0, limit - 1)]
    words, border, _ = head.rpartition(" ")
    return (words if border else head).rstrip(" ,;:—-") + "…" if limit > 0 else ""
