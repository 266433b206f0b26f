"""What an answer costs, and what a model can be asked: prices.json, read once.

Here: dated rates (facts/llm.md section 4) and capabilities. Not here: how a vendor reports its tokens; the adapters
turn that into `Usage`, whose kinds do not overlap, so that one formula serves all three vendors.

A rate holds from its day `from` (UTC) until the next one of that model. Rates are per `per_tokens` tokens, as strings.
`long_prompt` multiplies the whole request once its prompt exceeds the given tokens; `peak` multiplies it when it was
sent in one of the UTC windows of the weekdays (1 = Monday). A Chinese holiday, off-peak at DeepSeek, is not known here,
so that day is booked too high rather than too low. Capabilities: `json` is how an answer's shape is asked for, `limit`
the name of the output limit and `max_output` the most it can be, `effort` and `thinking` what keeps thinking lowest
("low" where the vendor's "none" is not certain), `store` and `cache_options` whether the request says "do not keep this"
and "write no cache".
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dialog_assets.llm.errors import UnknownPrice
from dialog_assets.llm.ledger import Usage


def _exact(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("expected a decimal number as a string, so that it stays exact")
    return value


Amount = Annotated[Decimal, BeforeValidator(_exact), Field(ge=0)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Caps(_Model):
    """How a model is asked."""

    json_mode: Literal["schema", "object"] = Field(alias="json")
    limit: Literal["max_completion_tokens", "max_tokens"]
    max_output: int = Field(gt=0)
    effort: Literal["none", "low"] | None
    thinking: Literal["disabled", "between_tools"] | None
    store: bool
    cache_options: bool


class LongPrompt(_Model):
    """Factors for the whole request when its prompt is longer."""

    above_prompt_tokens: int
    input_factor: Amount
    output_factor: Amount


class Peak(_Model):
    """UTC hours in which everything costs more."""

    factor: Amount
    weekdays: frozenset[int]
    windows: tuple[str, ...]

    def holds(self, at: datetime) -> bool:
        """Whether `at` (timezone-aware) lies in a window; its start is inside, its end is not."""
        moment = at.astimezone(UTC)
        if moment.isoweekday() not in self.weekdays:
            return False
        spans = (window.split("-") for window in self.windows)
        return any(time.fromisoformat(start) <= moment.time() < time.fromisoformat(end) for start, end in spans)


class Rate(_Model):
    """What a model's tokens cost from a day on; None: the vendor's price for that kind is not known."""

    since: date = Field(alias="from")
    source: str
    checked: date
    input: Amount
    cache_read: Amount | None
    cache_write: Amount | None
    cache_write_long: Amount | None
    output: Amount
    batch_factor: Amount | None
    long_prompt: LongPrompt | None
    peak: Peak | None


class ModelPrice(_Model):
    """One model of prices.json."""

    provider: Literal["openai", "anthropic", "deepseek"]
    shutdown: date | None
    caps: Caps
    rates: tuple[Rate, ...] = Field(min_length=1)


class _Prices(_Model):
    schema_version: Literal[1] = Field(alias="schema")
    currency: Literal["USD"]
    per_tokens: int
    models: dict[str, ModelPrice]


@lru_cache(maxsize=1)
def _prices() -> _Prices:
    path = Path(__file__).with_name("prices.json")
    try:
        return _Prices.model_validate_json(path.read_bytes())
    except ValidationError as error:
        places = "; ".join(".".join(map(str, problem["loc"])) for problem in error.errors(include_url=False))
        raise UnknownPrice(
            f"{path.name} cannot be read at {places}: expected the shape described in prices.py"
        ) from None


def models() -> tuple[str, ...]:
    """Every model that has a price."""
    return tuple(_prices().models)


def model_price(model: str) -> ModelPrice:
    """The model's entry. Raises UnknownPrice."""
    try:
        return _prices().models[model]
    except KeyError:
        raise UnknownPrice(
            f"model {model} has no price: add it to prices.json, or correct its name in the portal's file"
        ) from None


def rate(model: str, at: datetime) -> Rate:
    """The rate in force at `at` (timezone-aware). Raises UnknownPrice."""
    day = at.astimezone(UTC).date()
    known = [entry for entry in model_price(model).rates if entry.since <= day]
    if not known:
        raise UnknownPrice(f"model {model} has no price on {day}: add the rate of that day to prices.json")
    return max(known, key=lambda entry: entry.since)


def cost(model: str, usage: Usage, at: datetime) -> Decimal:
    """US dollars for one answer whose request was sent at `at` (timezone-aware), exact, never rounded.

    Raises UnknownPrice for an unknown model or day, and for tokens of a kind without a rate. Additive and monotone in
    the tokens as long as the prompt stays on one side of `long_prompt`.
    """
    current = rate(model, at)
    long_prompt = current.long_prompt
    if long_prompt is not None and usage.prompt > long_prompt.above_prompt_tokens:
        input_factor, output_factor = long_prompt.input_factor, long_prompt.output_factor
    else:
        input_factor = output_factor = Decimal(1)
    prompt = sum(
        (
            _priced(model, kind, tokens, price)
            for kind, tokens, price in (
                ("input", usage.input, current.input),
                ("cache_read", usage.cache_read, current.cache_read),
                ("cache_write", usage.cache_write, current.cache_write),
                ("cache_write_long", usage.cache_write_long, current.cache_write_long),
            )
        ),
        Decimal(0),
    )
    total = prompt * input_factor + usage.output * current.output * output_factor
    if current.peak is not None and current.peak.holds(at):
        total *= current.peak.factor
    return total / _prices().per_tokens


def _priced(model: str, kind: str, tokens: int, price: Decimal | None) -> Decimal:
    if tokens == 0:
        return Decimal(0)
    if price is None:
        raise UnknownPrice(f"model {model} has no {kind} rate: add it to prices.json")
    return tokens * price
