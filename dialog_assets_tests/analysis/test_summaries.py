"""Summaries: inputs with an identity, averages in code, texts within their size."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.analysis.summaries import (
    INPUT_CHARACTERS,
    SummaryAnswer,
    SummaryInput,
    average_scores,
    inputs_hash,
    read_summary,
    shorten,
    summary_request,
)
from dialog_assets_tests.analysis.support import portal

START = datetime(2026, 3, 2, 7, 30, tzinfo=UTC)
ITEM = SummaryInput(START, 11, "greeting", "Приветствие", 7, "Поздоровался.")


def later(days: int, **changes: object) -> SummaryInput:
    """The same input of a later call."""
    values: dict[str, object] = {"call_started_at": START + timedelta(days=days), "call_id": 11 + days, **changes}
    return replace(ITEM, **values)  # type: ignore[arg-type]


def test_hash_is_of_the_inputs_only() -> None:
    """Order and time zone do not matter; any change of an input does."""
    moscow = START.astimezone(timezone(timedelta(hours=3)))
    assert inputs_hash([ITEM, later(1)]) == inputs_hash([later(1), replace(ITEM, call_started_at=moscow)])
    hashes = {
        inputs_hash(items)
        for items in (
            [ITEM],
            [ITEM, ITEM],
            [replace(ITEM, score=8)],
            [replace(ITEM, score=None)],
            [replace(ITEM, text="Иначе.")],
            [replace(ITEM, title="Иначе")],
            [replace(ITEM, call_id=12)],
            [],
        )
    }
    assert len(hashes) == 8


def test_averages() -> None:
    """Means are exact to two places, halves go up, and what was not applicable does not count."""
    items = [later(day, score=score) for day, score in enumerate([7, 8, 8, None, 7, 7, 7, 7, 7])]
    items += [later(0, criterion="needs", score=None)]
    assert average_scores(items) == {"greeting": Decimal("7.25")}
    assert average_scores([later(day, score=score) for day, score in enumerate([1] * 7 + [0])]) == {
        "greeting": Decimal("0.88")  # 0.875
    }
    assert average_scores([]) == {}


@given(st.lists(st.integers(-5, 100), min_size=1, max_size=30))
def test_average_lies_between(scores: list[int]) -> None:
    """An average is never outside its scores."""
    mean = average_scores([later(day, score=score) for day, score in enumerate(scores)])["greeting"]
    assert min(scores) <= mean <= max(scores)


def test_request() -> None:
    """Notes stand oldest first in the portal's time, and the limit is the portal's."""
    user = summary_request("Балкон", [later(1, score=None), ITEM], portal()).user
    lines = [line for line in user.split("\n") if line.startswith("- ")]
    assert lines == [
        "- 02.03.2026 10:30, звонок 11, Приветствие (оценка 7): Поздоровался.",
        "- 03.03.2026 10:30, звонок 12, Приветствие (неприменимо): Поздоровался.",
    ]
    assert "не более 300 символов" in user
    assert "Карточка: Балкон" in user
    assert "Карточка: без названия" in summary_request(None, [ITEM], portal()).user
    assert "не поместились" not in user


def test_too_many_inputs_keep_the_newest() -> None:
    """What does not fit a prompt is the oldest, and the model is told how much that is."""
    items = [later(day, text=f"{day} " + "слово " * 300) for day in range(100)]
    user = summary_request(None, items, portal()).user
    lines = [line for line in user.split("\n") if line.startswith("- ")]
    assert 0 < len(lines) < 100
    assert sum(map(len, lines)) <= INPUT_CHARACTERS
    assert "звонок 110," in lines[-1]
    assert f"Ещё {100 - len(lines)} более ранних записей" in user


def test_size_of_the_answer() -> None:
    """A little too long is cut at a sentence's end for nothing, much too long is asked for again."""
    request = summary_request(None, [ITEM], portal())
    sentence = "Ровно тридцать символов здесь. "
    assert request.check(SummaryAnswer(text=sentence * 9)) == []
    slightly = SummaryAnswer(text=sentence * 12)
    assert request.check(slightly) == []
    assert read_summary(slightly, portal()) == (sentence * 9).strip()
    assert request.check(SummaryAnswer(text=sentence * 13)) == ["text: 402 символов, а нужно не более 300 символов"]
    assert request.check(SummaryAnswer(text="\n ")) == ["text: пустая сводка"]


@pytest.mark.parametrize(
    ("text", "limit", "short"),
    [
        ("Коротко.", 8, "Коротко."),
        ("Одно. Другое. Третье.", 13, "Одно. Другое."),
        ("Одно. Другое. Третье.", 12, "Одно."),
        ("Цена 3.5 тысячи рублей", 12, "Цена 3.5…"),
        ("Неразрывноеслово", 6, "Нераз…"),
        ("Слово", 0, ""),
    ],
)
def test_shorten(text: str, limit: int, short: str) -> None:
    """Whole sentences first, then whole words, then what fits."""
    assert shorten(text, limit) == short


@given(st.text(alphabet="аб .!,…", max_size=60), st.integers(0, 60))
def test_shorten_keeps_its_limit(text: str, limit: int) -> None:
    """A shortened text never exceeds its limit, and a text that fits is untouched."""
    short = shorten(text, limit)
    assert len(short) <= limit
    assert len(text) > limit or short == text
