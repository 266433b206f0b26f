"""Anthropic's messages as its API behaves under version 2026-10-21 (facts/llm.md sections 0, 2): strictness, error bodies, answers.

Here: what Anthropic alone does. Not here: answers' content, prices. Never simulated: cache reads (every prompt is paid in full),
streaming, batches, server tools.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from dialog_assets.sandbox.llm_openai import bearer
from dialog_assets.sandbox.llm_prices import THINKING_TOKENS, Model, VendorName, model_named, models_of
from dialog_assets.sandbox.llm_prompt import Asked
from dialog_assets.sandbox.llm_wire import (
    Answer,
    Passed,
    Refused,
    messages_of,
    said,
    schema_nodes,
    text_of,
    token_count,
    types_of,
    whole,
)

API_VERSION = "2026-10-21"

_KNOWN = frozenset(
    [
        "model",
        "messages",
        "max_tokens",
        "cache_control",
        "container",
        "diagnostics",
        "inference_geo",
        "metadata",
        "output_config",
        "service_tier",
        "speed",
        "stop_sequences",
        "stream",
        "system",
        "thinking",
        "tool_choice",
        "tools",
    ]
)
_LIMITS = {
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength"),
    "array": ("maxItems", "uniqueItems"),
    "object": ("minProperties", "maxProperties"),
}
_ENDINGS = {"stop": "end_turn", "length": "max_tokens", "refusal": "refusal"}
_FAILURES = {
    "402": (402, "billing_error", "Your account has a billing problem; please check your payment details."),
    "insufficient_quota": (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.",
    ),
    "500": (500, "api_error", "Internal server error"),
    "503": (503, "api_error", "Service unavailable"),
    "529": (529, "overloaded_error", "Overloaded"),
}


def _refusal(
    status: int, message: str, kind: str = "invalid_request_error", headers: Mapping[str, str] | None = None
) -> Refused:
    return Refused(status, {"type": "error", "error": {"type": kind, "message": message}}, headers)


def _forced_tool(body: dict[str, Any]) -> dict[str, Any] | None:
    """The tool that the request forces, if it does."""
    choice, tools = body.get("tool_choice"), body.get("tools")
    if not isinstance(choice, dict) or choice.get("type") not in ("tool", "any") or not isinstance(tools, list):
        return None
    named = (tool for tool in tools if isinstance(tool, dict) and choice.get("name") in (None, tool.get("name")))
    return next(named, None)


def _always_thinks(model: Model) -> bool:
    return model.default_effort == "high"


class Anthropic:
    """Anthropic, as strict as it is."""

    name: VendorName = "anthropic"
    chars_per_token = Decimal("2.0")
    request_id_header = "request-id"

    def __init__(self, key: str) -> None:
        self._key = key

    def authorise(self, headers: Mapping[str, str]) -> None:
        """401 without the right key, as a bearer (SDK 2.x) or in x-api-key; 400 without the API version."""
        key = headers.get("x-api-key") or bearer(headers)
        if not key:
            raise _refusal(401, "x-api-key header is required", "authentication_error")
        if key != self._key:
            raise self._bad_key(bearer_sent="x-api-key" not in headers)
        version = headers.get("anthropic-version")
        if version is None:
            raise _refusal(400, "anthropic-version: header is required")
        if version != API_VERSION:
            raise _refusal(
                400, f'anthropic-version: "{version[:20]}" is not a version of this sandbox, send {API_VERSION}'
            )

    def _bad_key(self, *, bearer_sent: bool) -> Refused:
        return _refusal(401, "Invalid bearer token" if bearer_sent else "invalid x-api-key", "authentication_error")

    def read(self, body: dict[str, Any]) -> Asked:
        """What is wanted."""
        name = str(body.get("model", ""))
        model = model_named("anthropic", name)
        config = body.get("output_config")
        form = config.get("format") if isinstance(config, dict) else None
        schema = form.get("schema") if isinstance(form, dict) else None
        tool = _forced_tool(body)
        if tool is not None:
            schema = tool.get("input_schema")
        return Asked(
            model=name,
            system="\n".join([text_of(body.get("system")), said(body, ("system", "assistant"))]),
            task=said(body, ("user",)),
            schema=schema if isinstance(schema, dict) else None,
            json_only=isinstance(schema, dict),
            max_output=whole(body.get("max_tokens")),
            thinking=0 if model is None or tool is not None else self._thinking(body, model),
        )

    def _thinking(self, body: dict[str, Any], model: Model) -> int:
        thinking = body.get("thinking")
        kind = thinking.get("type") if isinstance(thinking, dict) else None
        if kind in ("disabled", "between_tools") or (kind is None and model.default_effort == "none"):
            return 0
        if kind == "enabled" and isinstance(thinking, dict):
            return whole(thinking.get("budget_tokens")) or 0
        config = body.get("output_config")
        effort = config.get("effort") if isinstance(config, dict) else None
        default = model.default_effort if model.default_effort != "none" else "high"
        return THINKING_TOKENS.get(str(effort or default), 0)

    def check(self, body: dict[str, Any], asked: Asked, headers: Mapping[str, str]) -> Passed:  # noqa: ARG002
        """Raise Refused for whatever Anthropic refuses."""
        unknown = sorted(set(body) - _KNOWN)
        if unknown:
            raise _refusal(400, f"{unknown[0]}: Extra inputs are not permitted")
        model = self._model(body)
        limit = body.get("max_tokens")
        if limit is None:
            raise _refusal(400, "max_tokens: Field required")
        if whole(limit) is None or limit < 1:
            raise _refusal(400, "max_tokens: Input should be a whole number greater than or equal to 1")
        self._messages(body)
        self._check_thinking(body, model)
        self._check_tools(body, model, asked)
        self._check_form(body)
        if body.get("stream"):
            raise self.malformed("The sandbox does not stream.")
        chars = self._characters(asked)
        return Passed(model, chars, self._cached_share(body, model, chars))

    def _model(self, body: dict[str, Any]) -> Model:
        name = body.get("model")
        if not isinstance(name, str):
            raise _refusal(400, "model: Field required")
        model = model_named("anthropic", name)
        if model is None:
            raise _refusal(404, f"model: {name}", "not_found_error")
        return model

    def _messages(self, body: dict[str, Any]) -> None:
        messages = messages_of(body)
        if not messages or len(messages) != len(body["messages"]):
            raise _refusal(400, "messages: at least one message is required")
        for number, message in enumerate(messages):
            if message.get("role") not in ("user", "assistant", "system"):
                raise _refusal(400, f"messages.{number}.role: Input should be 'user' or 'assistant'")
            if not text_of(message.get("content")).strip():
                raise _refusal(400, f"messages.{number}: text content blocks must be non-empty")
        if messages[-1].get("role") == "assistant":
            raise _refusal(
                400,
                "This model does not support assistant message prefill. The conversation must end with a user message.",
            )

    def _check_thinking(self, body: dict[str, Any], model: Model) -> None:
        thinking = body.get("thinking")
        config = body.get("output_config")
        effort = config.get("effort") if isinstance(config, dict) else None
        if effort is not None and effort not in model.efforts:
            raise _refusal(400, f"output_config.effort: Input should be one of {', '.join(model.efforts)}")
        if thinking is None:
            return
        kind = thinking.get("type") if isinstance(thinking, dict) else None
        if kind not in ("adaptive", "disabled", "between_tools", "enabled"):
            raise _refusal(400, f"thinking: Input tag '{kind}' does not match any of the expected tags")
        if kind == "disabled" and _always_thinks(model):
            raise _refusal(400, f"thinking.type: 'disabled' is not supported on {model.name}")
        if kind == "disabled" and effort in ("xhigh", "max"):
            raise _refusal(400, f"thinking.type: 'disabled' is not supported with effort '{effort}'")
        budget = thinking.get("budget_tokens")
        if kind == "enabled" and (whole(budget) is None or not 1024 <= budget < body["max_tokens"]):
            raise _refusal(400, "thinking.enabled.budget_tokens: must be at least 1024 and less than max_tokens")

    def _check_tools(self, body: dict[str, Any], model: Model, asked: Asked) -> None:
        choice = body.get("tool_choice")
        if not isinstance(choice, dict) or choice.get("type") not in ("tool", "any"):
            if body.get("tools"):
                raise self.malformed("The sandbox calls a tool only when tool_choice forces it.")
            return
        if _always_thinks(model):
            raise _refusal(400, f"tool_choice: forced tool use is not supported on {model.name}")
        if isinstance(body.get("thinking"), dict) and body["thinking"].get("type") in ("adaptive", "enabled"):
            raise _refusal(400, "Thinking may not be enabled when tool_choice forces tool use.")
        if asked.schema is None:
            raise _refusal(400, "tool_choice: the named tool is not among the provided tools")

    def _check_form(self, body: dict[str, Any]) -> None:
        config = body.get("output_config")
        form = config.get("format") if isinstance(config, dict) else None
        if form is None:
            return
        if not isinstance(form, dict) or form.get("type") != "json_schema":
            raise _refusal(400, "output_config.format.type: Input should be 'json_schema'")
        problem = schema_problem(form.get("schema"))
        if problem is not None:
            raise _refusal(400, f"output_config.format.schema: {problem}")

    def _characters(self, asked: Asked) -> int:
        schema = json.dumps(asked.schema, ensure_ascii=False) if asked.schema is not None else ""
        return len(asked.system) + len(asked.task) + len(schema)

    def _cached_share(self, body: dict[str, Any], model: Model, chars: int) -> Decimal:
        """The part of the prompt up to its last cache breakpoint, if that is long enough to be cached."""
        if body.get("cache_control") is not None:
            prefix = chars
        else:
            blocks: list[Any] = []
            for content in (body.get("system"), *(message.get("content") for message in messages_of(body))):
                blocks += content if isinstance(content, list) else [{"text": text_of(content)}]
            marked = [number for number, block in enumerate(blocks) if block.get("cache_control") is not None]
            prefix = sum(len(text_of([block])) for block in blocks[: marked[-1] + 1]) if marked else 0
        if chars == 0 or token_count(prefix, self.chars_per_token) < model.cache_minimum:
            return Decimal(0)
        return Decimal(min(prefix, chars)) / chars

    def count_tokens(self, body: dict[str, Any]) -> dict[str, int]:
        """The body of POST /v1/messages/count_tokens; costs nothing."""
        asked = self.read(body)
        self._model(body)
        self._messages(body)
        return {"input_tokens": token_count(self._characters(asked), self.chars_per_token)}

    def failure(self, kind: str, value: Any, asked: Asked) -> Refused:  # noqa: ARG002 - the vendors' common signature
        """The error answer of a fault."""
        if kind == "401":
            return self._bad_key(bearer_sent=True)
        if kind == "429":
            headers = {"retry-after": str(value)} if value is not None else None
            text = "This request would exceed your organization's rate limit of 50 requests per minute."
            return _refusal(429, text, "rate_limit_error", headers)
        status, error, text = _FAILURES[kind]
        return _refusal(status, text, error)

    def malformed(self, message: str) -> Refused:
        """400 for a body that cannot be read."""
        return _refusal(400, message)

    def reply(self, answer: Answer) -> dict[str, Any]:
        """A Message."""
        used = answer.tokens
        tool = _forced_tool(answer.body)
        content: list[dict[str, Any]] = []
        if used.thinking:
            content.append({"type": "thinking", "thinking": "", "signature": "c2FuZGJveA=="})
        if tool is not None and answer.ending == "stop":
            content.append(
                {
                    "type": "tool_use",
                    "id": f"toolu_{answer.request_id}",
                    "name": tool.get("name"),
                    "input": json.loads(answer.text),
                }
            )
        elif answer.text and answer.ending != "refusal":
            content.append({"type": "text", "text": answer.text, "citations": None})
        refused = {"type": "refusal", "category": None, "explanation": None} if answer.ending == "refusal" else None
        return {
            "id": f"msg_{answer.request_id}",
            "type": "message",
            "role": "assistant",
            "model": answer.asked.model,
            "content": content,
            "stop_reason": "tool_use" if tool is not None and answer.ending == "stop" else _ENDINGS[answer.ending],
            "stop_sequence": None,
            "stop_details": refused,
            "usage": {
                "input_tokens": used.input,
                "cache_creation_input_tokens": used.cache_write,
                "cache_read_input_tokens": used.cache_read,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": used.cache_write,
                    "ephemeral_1h_input_tokens": 0,
                },
                "output_tokens": used.output,
                "output_tokens_details": {"thinking_tokens": used.thinking},
                "server_tool_use": None,
                "service_tier": "standard",
                "inference_geo": "global",
            },
        }

    def models(self) -> dict[str, Any]:
        """The body of GET /v1/models."""
        data = [
            {
                "type": "model",
                "id": model.name,
                "display_name": model.name.replace("-", " ").title(),
                "created_at": "2026-10-07T00:00:00Z",
                "lifecycle": "active",
            }
            for model in models_of("anthropic")
        ]
        return {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}


def schema_problem(schema: Any) -> str | None:
    """What Anthropic's structured output cannot do of a schema, in its words, or None."""
    if not isinstance(schema, dict):
        return "Field required"
    optional = unions = 0
    for path, node in schema_nodes(schema):
        kinds = types_of(node)
        for kind in kinds:
            limits = sorted(set(_LIMITS.get(kind, ())) & set(node))
            if limits:
                return f"For '{kind}' type, properties {', '.join(limits)} are not supported"
        if "object" in kinds and node.get("additionalProperties") is not False:
            return "For 'object' type, 'additionalProperties' must be explicitly set to false"
        ref = str(node.get("$ref", ""))
        if ref == "#" or (ref and ref.rsplit("/", 1)[-1] in path):
            return "Recursive schemas are not supported"
        optional += len(set(node.get("properties") or {}) - set(node.get("required") or []))
        unions += bool(node.get("anyOf")) or len(kinds) > 1
    if optional > 24:
        return f"Schemas contains too many optional parameters ({optional}), which would make grammar compilation inefficient."
    if unions > 16:
        return (
            f"Schemas contains too many parameters with union types ({unions}). Limit: 16 parameters with union types."
        )
    return None
