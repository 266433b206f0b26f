"""What is asked, for whom, and the key under which its answer is bought once.

Here: values and pure functions. Not here: sending (router, vendors), prompts (analysis/).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

T = TypeVar("T", bound=BaseModel)

CORRECTIONS = 2
"""How often a question is asked again whose answer is of no use."""


CHARACTERS_PER_TOKEN = {"openai": 3.2, "anthropic": 2.0, "deepseek": 2.8}
"""Of Russian speech; Anthropic's tokenizer is not public (facts/llm.md section 5)."""


def estimated_tokens(vendor: str, characters: int) -> int:
    """About how many tokens a Russian text of so many characters is at `vendor`; never 0."""
    return max(1, round(characters / CHARACTERS_PER_TOKEN.get(vendor, 2.0)))


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a request is about: a call, or a CRM entity, of one portal's step."""

    portal: str
    step: str
    call_id: int | None = None
    entity_type: str | None = None
    entity_id: int | None = None


@dataclass(frozen=True)
class LLMRequest(Generic[T]):
    """One question to one model.

    `prompt` is the prompt's name and `prompt_version` the hash of its file; `answer` is the shape of the answer, all
    fields required; `check` gives one complaint for every rule that a well-formed answer breaks, none if it is good.
    `corrections`: how often it may be asked again with complaints; whoever asks for the rest of an answer has spent some.
    """

    vendor: str
    model: str
    max_output_tokens: int
    prompt: str
    prompt_version: str
    system: str
    user: str
    answer: type[T]
    check: Callable[[T], list[str]]
    corrections: int = CORRECTIONS

    @property
    def prompt_tokens(self) -> int:
        """About how long the prompt is."""
        return estimated_tokens(self.vendor, len(self.system) + len(self.user))


def request_key(request: LLMRequest[Any], subject: Subject, attempt: int = 0) -> str:
    """The ledger key: sha256 over everything that is asked, and over whom it is about.

    Not over who is asked and how much room the answer has: one that is paid for and not used yet serves also after
    another model or limit was set. The exact text counts: what a changed setting puts into the prompt is another question.
    Two calls with the same words have two keys, so that each result has its own paid row. `attempt` counts the answers
    already had for this item's question: asking the same text again after a useless answer is a purchase of its own.
    """
    parts = [
        subject.portal,
        subject.step,
        subject.call_id,
        subject.entity_type,
        subject.entity_id,
        request.prompt,
        request.prompt_version,
        request.system,
        request.user,
        json_schema(request.answer),
        attempt,
    ]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()


def json_schema(answer: type[BaseModel]) -> dict[str, Any]:
    """The answer's JSON schema in the form that both schema vendors accept (facts/llm.md sections 1, 2 and 9).

    Objects are closed, all fields required, titles and descriptions dropped (the prompt explains). Raises TypeError for
    what a vendor would refuse: free-form dicts, defaults, limits of numbers or lengths.
    """
    schema = _closed(answer.model_json_schema(), answer.__name__)
    if schema.get("type") != "object":
        raise TypeError(f"{answer.__name__}: the root of an answer must be an object")
    return schema


_KEPT = {"type", "enum", "const", "$ref"}
_DROPPED = {"title", "description", "required", "additionalProperties"}


def _closed(node: dict[str, Any], where: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("properties", "$defs"):
            out[key] = {name: _closed(child, f"{where}.{name}") for name, child in value.items()}
        elif key == "items":
            out[key] = _closed(value, f"{where}[]")
        elif key == "anyOf":
            out[key] = [_closed(child, where) for child in value]
        elif key in _KEPT:
            out[key] = value
        elif key not in _DROPPED:
            raise TypeError(f"{where}: {key} cannot be part of an answer's schema; check it in code instead")
    if node.get("type") == "object":
        if "properties" not in node:
            raise TypeError(f"{where}: a free-form object cannot be part of an answer's schema; use a list of pairs")
        out["required"] = list(node["properties"])
        out["additionalProperties"] = False
    return out
