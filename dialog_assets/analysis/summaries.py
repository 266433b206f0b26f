"""Summaries: one text on a CRM entity out of what the criteria said about its calls; averages computed here.

Here: the inputs' identity, averages, the request and its size. Not here: which criteria count
(`include_in_entity_description`, chosen by the step) and versions of a summary (store).

Size. A prompt holds the newest inputs that fit `INPUT_CHARACTERS`; older ones are left out and their number is told to
the model. The answer's limit is the portal's `summary_max_characters`: a text up to a quarter longer is cut at a
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

from dialog_assets.analysis.lines import block, clean_text
from dialog_assets.analysis.prompts import prompt
from dialog_assets.analysis.reading import Part, Words
from dialog_assets.llm.requests import LLMRequest
from dialog_assets.portals import Portal

INPUT_CHARACTERS = 60_000
ONE_INPUT_CHARACTERS = 2_000


class SummaryAnswer(Part):
    """What the model answers."""

    text: Words


@dataclass(frozen=True, slots=True)
class SummaryInput:
    """What one criterion said about one call; `score` is None when it was not applicable. The time is timezone-aware."""

    call_started_at: datetime
    call_id: int
    criterion: str
    title: str
    score: int | None
    text: str


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
    """The mean score by criterion over the inputs that have one, to two places, halves away from zero."""
    scores: dict[str, list[int]] = defaultdict(list)
    for item in inputs:
        if item.score is not None:
            scores[item.criterion].append(item.score)
    return {
        criterion: (Decimal(sum(values)) / len(values)).quantize(Decimal("0.01"), ROUND_HALF_UP)
        for criterion, values in sorted(scores.items())
    }


def summary_request(
    entity_title: str | None, inputs: Sequence[SummaryInput], portal: Portal
) -> LLMRequest[SummaryAnswer]:
    """The question that merges `inputs` (at least one) into a text on the entity."""
    text = prompt("summary")
    choice = portal.llm.summary
    limit = portal.summary_max_characters
    lines, left_out = _newest_lines(inputs, portal)

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
            entity=clean_text(entity_title or "") or "без названия",
            company=clean_text(portal.title),
            inputs=block(lines),
            left_out=f"Ещё {left_out} более ранних записей не поместились и не показаны.\n" if left_out else "",
            limit=limit,
        ),
        answer=SummaryAnswer,
        check=check,
    )


def _newest_lines(inputs: Sequence[SummaryInput], portal: Portal) -> tuple[list[str], int]:
    """The lines of the newest inputs within the budget, oldest first, and how many inputs are left out."""
    lines: list[str] = []
    used = 0
    for item in sorted(inputs, key=_order, reverse=True):
        when = item.call_started_at.astimezone(portal.zone).strftime("%d.%m.%Y %H:%M")
        score = "неприменимо" if item.score is None else f"оценка {item.score}"
        words = shorten(clean_text(item.text), ONE_INPUT_CHARACTERS)
        line = f"- {when}, звонок {item.call_id}, {clean_text(item.title)} ({score}): {words}"
        used += len(line) + 1
        if used > INPUT_CHARACTERS:
            break
        lines.append(line)
    return lines[::-1], len(inputs) - len(lines)


def _tolerated(limit: int) -> int:
    return limit + limit // 4


def read_summary(answer: SummaryAnswer, portal: Portal) -> str:
    """The checked answer's text, never longer than the portal's limit."""
    return shorten(clean_text(answer.text), portal.summary_max_characters)


def shorten(text: str, limit: int) -> str:
    """`text` if it has at most `limit` characters, else its whole sentences that fit, else its words that fit and `…`."""
    if len(text) <= limit:
        return text
    ends = [match.end() for match in re.finditer(r"[.!?…]+(?=\s)", text[: limit + 1])]
    if ends and ends[-1] <= limit:
        return text[: ends[-1]]
    head = text[: max(0, limit - 1)]
    words, border, _ = head.rpartition(" ")
    return (words if border else head).rstrip(" ,;:—-") + "…" if limit > 0 else ""
