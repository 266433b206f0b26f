"""What the LLM vendors sell: models, which knobs each takes, and list prices, so that the sandbox can keep books.

Here: the sandbox's own table (facts/llm.md sections 0, 1, 2, 4), on purpose not shared with `dialog_assets/llm`, so that a mistake
in one of them shows as a difference. Not here: wire formats, answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

VendorName = Literal["openai", "anthropic", "deepseek"]

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

THINKING_TOKENS = {"none": 0, "minimal": 150, "low": 600, "medium": 2500, "high": 6000, "xhigh": 12000, "max": 24000}
"""What a model of the sandbox thinks at an effort; one public trace shows 2,501 tokens at `medium`."""


@dataclass(frozen=True)
class Model:
    """A model on sale; USD per million tokens. `cache_write` None: writing to the cache is not charged."""

    name: str
    vendor: VendorName
    input: Decimal
    cache_read: Decimal
    cache_write: Decimal | None
    output: Decimal
    efforts: tuple[str, ...] = ()  # values of reasoning_effort / output_config.effort it takes; empty: it cannot think
    default_effort: str = "none"  # what it does when the request says nothing
    long_prompt: tuple[int, Decimal, Decimal] | None = None  # above so many prompt tokens: factors of input and output
    cache_minimum: int = 1024
    shutdown: str | None = None


@dataclass(frozen=True)
class Tokens:
    """Tokens of one answer by kind; the three input kinds do not overlap, `output` includes `thinking`."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0
    thinking: int = 0

    @property
    def prompt(self) -> int:
        """Everything that was read."""
        return self.input + self.cache_read + self.cache_write


_WITH_NONE = ("none", "low", "medium", "high", "xhigh", "max")
_WITHOUT_NONE = ("low", "medium", "high", "xhigh", "max")
_OPENAI_LONG = (272_000, Decimal(2), Decimal("1.5"))


def _openai(
    name: str,
    prices: str,
    efforts: tuple[str, ...] = _WITH_NONE,
    default_effort: str = "medium",
    *,
    large: bool = True,
    shutdown: str | None = None,
) -> Model:
    read, cached, write, out = prices.split()
    written = None if write == "-" else Decimal(write)
    long_prompt = _OPENAI_LONG if large else None
    return Model(
        name,
        "openai",
        Decimal(read),
        Decimal(cached),
        written,
        Decimal(out),
        efforts,
        default_effort,
        long_prompt,
        shutdown=shutdown,
    )


def _anthropic(
    name: str, prices: str, default_effort: str, cache_minimum: int, *, cheap_until: int | None = None
) -> Model:
    read, cached, write, out = (Decimal(price) for price in prices.split())
    long_prompt = None if cheap_until is None else (cheap_until, Decimal(5), Decimal(5))
    return Model(
        name,
        "anthropic",
        read,
        cached,
        write,
        out,
        _WITHOUT_NONE,
        default_effort,
        long_prompt,
        cache_minimum,
    )


def _deepseek(name: str, prices: str) -> Model:
    read, cached, out = (Decimal(price) for price in prices.split())
    return Model(name, "deepseek", read, cached, None, out, ("low", "high", "max"), "high")


MODELS = {
    model.name: model
    for model in (
        _openai("gpt-6-luna", "0.10 0.01 0.125 0.50"),
        _openai("gpt-6.1-terra", "1.00 0.05 1.25 5.00"),
        _openai("gpt-6-sol", "2.00 0.20 2.50 10.00"),
        _openai("gpt-6.1-sol", "2.00 0.10 2.50 10.00", _WITHOUT_NONE),
        _openai("gpt-6.2-sol", "2.00 0.10 2.50 10.00", _WITHOUT_NONE),
        _openai("gpt-6.2-astra", "8.00 0.40 10.00 40.00", _WITHOUT_NONE),
        _openai("gpt-5.6-luna", "0.20 0.02 0.25 1.20"),
        _openai("gpt-5.4-mini", "0.75 0.075 - 4.50", large=False),
        _openai(
            "gpt-5-mini", "0.25 0.025 - 2.00", ("minimal", "low", "medium", "high"), large=False, shutdown="2026-12-11"
        ),
        _openai("gpt-4.1-mini", "0.40 0.10 - 1.60", (), "none", large=False, shutdown="2027-01-14"),
        _anthropic("claude-haiku-5-5", "0.10 0.01 0.125 0.50", "medium", 512, cheap_until=100_000),
        _anthropic("claude-haiku-4-5", "1.00 0.10 1.25 5.00", "none", 4096),
        _anthropic("claude-sonnet-5-5", "2.00 0.10 2.50 10.00", "high", 512),
        _anthropic("claude-sonnet-4-6", "3.00 0.30 3.75 15.00", "none", 1024),
        _anthropic("claude-opus-5-5", "4.00 0.20 5.00 20.00", "high", 512),
        _deepseek("deepseek-flash", "0.15 0.003 0.60"),
        _deepseek("deepseek-v4-pro", "0.66 0.022 1.98"),
    )
}

ALIASES = {"deepseek-v4-flash": "deepseek-flash"}

RETIRED = frozenset(
    {
        "deepseek-chat",
        "deepseek-reasoner",
        "gpt-4.1-nano",
        "o4-mini",
        "gpt-4-turbo",
        "gpt-3.5-turbo",
        "claude-3-5-sonnet-20241022",
        "claude-3-5-haiku-20241022",
        "claude-sonnet-4-20250514",
    }
)

_PEAK_HOURS = frozenset({1, 2, 3, 6, 7, 8, 9})


def model_named(vendor: VendorName, name: str) -> Model | None:
    """The vendor's model of that name, or None when it sells none such (any more)."""
    model = MODELS.get(ALIASES.get(name, name))
    return model if model is not None and model.vendor == vendor else None


def models_of(vendor: VendorName) -> list[Model]:
    """What the vendor has on sale, in the table's order."""
    return [model for model in MODELS.values() if model.vendor == vendor]


def cost_usd(model: Model, tokens: Tokens, at: datetime, factor: Decimal = Decimal(1)) -> Decimal:
    """The bill of one answer at moment `at` (UTC: DeepSeek's peak is twice as dear); `factor` is the service tier's."""
    read = tokens.input * model.input + tokens.cache_read * model.cache_read
    read += tokens.cache_write * (model.input if model.cache_write is None else model.cache_write)
    written = tokens.output * model.output
    if model.long_prompt is not None and tokens.prompt > model.long_prompt[0]:
        read, written = read * model.long_prompt[1], written * model.long_prompt[2]
    if model.vendor == "deepseek" and at.isoweekday() <= 5 and at.hour in _PEAK_HOURS:
        factor *= 2
    return (read + written) * factor / 1_000_000
