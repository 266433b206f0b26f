"""Money: exact, dated, never guessed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.llm.errors import LLMRefused, UnknownPrice
from dialog_assets.llm.ledger import Usage
from dialog_assets.llm.prices import cost, model_price, models, rate

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)  # a Wednesday

TOKENS = st.integers(0, 16_000)  # so that two prompts together stay below the border of a long one
USAGES = st.builds(Usage, input=TOKENS, cache_read=TOKENS, cache_write=TOKENS, output=TOKENS)


@pytest.mark.parametrize(
    ("model", "usage", "dollars"),
    [
        # 500 × 0.10 + 200 × 0.01 + 300 × 0.125 + 100 × 0.50, by hand
        ("gpt-6-luna", Usage(500, 200, 300, output=100, reasoning=40), "0.0001395"),
        # 500 × 0.10 + 200 × 0.01 + 200 × 0.125 + 100 × 0.20 + 100 × 0.50
        ("claude-haiku-5-5", Usage(500, 200, 200, 100, 100, 40), "0.000147"),
        # 800 × 0.15 + 200 × 0.003 + 100 × 0.60
        ("deepseek-flash", Usage(800, 200, output=100), "0.0001806"),
        ("claude-sonnet-5-5", Usage(1_000_000, output=1_000_000), "12.00"),
    ],
)
def test_hand_computed(model: str, usage: Usage, dollars: str) -> None:
    """An answer costs what its tokens cost by the table, thinking inside the output."""
    assert cost(model, usage, NOON) == Decimal(dollars)


@pytest.mark.parametrize(
    ("at", "factor"),
    [
        (datetime(2026, 11, 25, 0, 59, 59, tzinfo=UTC), 1),
        (datetime(2026, 11, 25, 1, 0, tzinfo=UTC), 2),
        (datetime(2026, 11, 25, 3, 59, 59, tzinfo=UTC), 2),
        (datetime(2026, 11, 25, 4, 0, tzinfo=UTC), 1),
        (datetime(2026, 11, 25, 9, 59, tzinfo=UTC), 2),
        (datetime(2026, 11, 25, 10, 0, tzinfo=UTC), 1),
        (datetime(2026, 11, 28, 2, 0, tzinfo=UTC), 1),  # Saturday
        (datetime(2026, 11, 25, 11, 0, tzinfo=timezone(timedelta(hours=3))), 2),  # 08:00 UTC
        # Sunday 23:30 in UTC, already Monday in Moscow
        (datetime(2026, 11, 23, 2, 30, tzinfo=timezone(timedelta(hours=3))), 1),
    ],
)
def test_deepseek_peak(at: datetime, factor: int) -> None:
    """DeepSeek costs twice as much in its peak hours, which are UTC hours of UTC working days."""
    assert cost("deepseek-flash", Usage(1_000_000, output=1_000_000), at) == Decimal("0.75") * factor


def test_long_prompt_is_dearer_as_a_whole() -> None:
    """Above the border every token of the request is multiplied; at the border none is."""
    assert cost("claude-haiku-5-5", Usage(99_000, 1_000, output=10), NOON) == Decimal("0.009915")
    assert cost("claude-haiku-5-5", Usage(99_001, 1_000, output=10), NOON) == Decimal("0.0495755")
    assert cost("gpt-6-luna", Usage(272_001, output=1000), NOON) == Decimal("0.0551502")


def test_unknown_is_an_error() -> None:
    """A model, a day or a kind of tokens without a price is refused, never free, and stops the step."""
    with pytest.raises(UnknownPrice, match=r"gpt-9.*prices\.json"):
        cost("gpt-9", Usage(1), NOON)
    with pytest.raises(UnknownPrice, match="2020-01-01"):
        cost("gpt-6-luna", Usage(1), datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(UnknownPrice, match="cache_write_long"):
        cost("gpt-6.2-sol", Usage(1, cache_write_long=1), NOON)
    assert issubclass(UnknownPrice, LLMRefused)


def test_every_model_of_the_file_can_be_priced() -> None:
    """All models of the table have a rate today, and their capabilities fit their vendor."""
    assert len(models()) == 28
    for model in models():
        assert cost(model, Usage(1, 1, output=1), NOON) > 0
        price = model_price(model)
        assert (price.caps.json_mode == "object") == (price.provider == "deepseek")
        assert rate(model, NOON).since <= NOON.date()


@given(st.sampled_from(models()), USAGES, USAGES)
def test_additive_monotone_never_negative(model: str, one: Usage, other: Usage) -> None:
    """Two answers cost the sum of their costs, more tokens never cost less, nothing costs less than nothing."""
    together = cost(model, one + other, NOON)
    assert together == cost(model, one, NOON) + cost(model, other, NOON)
    assert together >= cost(model, one, NOON) >= 0
