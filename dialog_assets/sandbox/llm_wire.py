"""What the three vendors' wire formats have in common: refusals, an answer before it is dressed, what a vendor must be able to do.

Here: small values and the schema rules two vendors share. Not here: any vendor's own texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Protocol

from dialog_assets.sandbox.llm_prices import Model, Tokens, VendorName
from dialog_assets.sandbox.llm_prompt import Asked

Ending = Literal["stop", "length", "refusal"]

ERROR_KINDS = ("429", "500", "503", "529", "401", "402", "insufficient_quota")


class Refused(Exception):
    """The request gets an error answer: its status, JSON body and extra headers."""

    def __init__(self, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body = body
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class Answer:
    """What the model produced, before a vendor's wire format is put around it."""

    asked: Asked
    body: dict[str, Any]
    text: str
    ending: Ending
    tokens: Tokens
    request_id: str
    created: int


@dataclass(frozen=True)
class Passed:
    """A request that the vendor accepts: the model, and what decides the bill beside the number of tokens."""

    model: Model
    chars_read: int
    cache_write_share: Decimal = field(default=Decimal(0))  # part of the prompt that is written to the cache
    tier_factor: Decimal = field(default=Decimal(1))


class Vendor(Protocol):
    """One vendor's strictness and wire format."""

    name: VendorName
    chars_per_token: Decimal
    request_id_header: str

    def authorise(self, headers: Mapping[str, str]) -> None:
        """Raise Refused unless the key is right."""

    def read(self, body: dict[str, Any]) -> Asked:
        """What is wanted, tolerant of mistakes, which `check` finds."""

    def check(self, body: dict[str, Any], asked: Asked, headers: Mapping[str, str]) -> Passed:
        """Raise Refused for whatever the vendor refuses."""

    def failure(self, kind: str, value: Any, asked: Asked) -> Refused:
        """The error answer of a fault of ERROR_KINDS."""

    def malformed(self, message: str) -> Refused:
        """The error answer to a body that is no JSON object, or to what only the sandbox cannot do."""

    def reply(self, answer: Answer) -> dict[str, Any]:
        """The body of a 200."""


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or a list of blocks with `text`."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def messages_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of a body that may be wrong in any way."""
    messages = body.get("messages")
    return [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []


def said(body: dict[str, Any], roles: tuple[str, ...]) -> str:
    """What the messages of these roles say."""
    return "\n".join(text_of(message.get("content")) for message in messages_of(body) if message.get("role") in roles)


def whole(value: Any) -> int | None:
    """`value` if it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def token_count(characters: int, chars_per_token: Decimal) -> int:
    """Characters as tokens, rounded up."""
    return math.ceil(characters / chars_per_token)


def schema_nodes(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every subschema with its path, the root first."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for key in ("properties", "$defs", "definitions"):
        for name, part in (schema.get(key) or {}).items():
            yield from schema_nodes(part, (*path, key, name))
    yield from schema_nodes(schema.get("items"), (*path, "items"))
    for key in ("anyOf", "allOf", "oneOf"):
        for number, part in enumerate(schema.get(key) or []):
            yield from schema_nodes(part, (*path, key, str(number)))


def types_of(node: dict[str, Any]) -> list[str]:
    """The node's types as a list."""
    kind = node.get("type")
    return kind if isinstance(kind, list) else [kind] if isinstance(kind, str) else []
