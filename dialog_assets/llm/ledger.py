"""The port to the book of paid requests: what the router needs of it, implemented by the store.

Here: the protocol and the values that cross it. Not here: tables, SQL, settling (the caller settles a result's keys).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

from dialog_assets.llm.requests import Subject


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer, each counted once; `reasoning` is the part of `output` spent on thinking.

    `input` is what was neither read from a cache nor written to one; `cache_write_long` went to the longer-lived cache.
    """

    input: int
    cache_read: int = 0
    cache_write: int = 0
    cache_write_long: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def prompt(self) -> int:
        """All tokens of the prompt."""
        return self.input + self.cache_read + self.cache_write + self.cache_write_long

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input + other.input,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.cache_write_long + other.cache_write_long,
            self.output + other.output,
            self.reasoning + other.reasoning,
        )


Finish = Literal["stop", "length", "overflow", "refusal", "unknown"]
"""How an answer ended: `overflow` in the end of the model's context, `unknown` without the vendor saying how."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a ledger row says before there is an answer. `estimate_usd`: what the answer will cost, about."""

    vendor: str
    model: str
    prompt: str
    prompt_version: str
    subject: Subject
    estimate_usd: Decimal


@dataclass(frozen=True, slots=True)
class Answer:
    """One paid answer, as the model wrote it. `estimated`: the vendor did not tell its tokens, they and the cost are reckoned."""

    text: str
    usage: Usage
    model_returned: str
    vendor_request_id: str
    finish: Finish
    latency_ms: int
    cost_usd: Decimal
    estimated: bool = False


class Ledger(Protocol):
    """Where a request is written down before it is sent, and its answer kept until the result is stored."""

    async def find(self, key: str) -> Answer | None:
        """An answer already paid for and not settled yet. One that cannot be read is set aside with its price."""
        ...

    async def ask(self, key: str, request_info: Asked) -> None:
        """Commit, before sending, that `key` is being asked, at its estimate; called once for every try.

        An earlier try of the key that was never heard of again stays on the bill at its estimate. Raises LLMCeilingReached.
        """
        ...

    async def answered(self, key: str, answer: Answer) -> None:
        """Commit the answer, before it is used."""
        ...

    async def failed(self, key: str, reason: str) -> None:
        """Commit that the last try of `key` was not taken: it costs nothing, and counts as no attempt."""
        ...

    async def perhaps_paid(self, key: str, reason: str) -> None:
        """Commit that the last try of `key` brought no answer and may be on the bill: it stays booked at its estimate."""
        ...

    async def set_aside(self, key: str, reason: str) -> None:
        """Commit that nobody will use the answer of `key`: it is forgotten, and its price stays."""
        ...
