"""OpenAI's chat completions as its API behaves (facts/llm.md sections 0, 1, 4): strictness, error bodies, answers.

Here: what OpenAI alone does. Not here: answers' content, prices. Never simulated: cache reads (every prompt is paid in full),
streaming, several choices, tools, the Responses API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from dialog_assets.sandbox.llm_prices import RETIRED, THINKING_TOKENS, Model, VendorName, model_named, models_of
from dialog_assets.sandbox.llm_prompt import Asked
from dialog_assets.sandbox.llm_wire import Answer, Passed, Refused, messages_of, said, schema_nodes, types_of, whole

_KNOWN = frozenset(
    [
        "messages",
        "model",
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "modalities",
        "moderation",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    ]
)
_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs")
_UNSUPPORTED_HERE = ("tools", "functions", "audio", "prediction", "web_search_options")
_ROLES = frozenset({"developer", "system", "user", "assistant", "tool"})
_TIERS = {"flex": Decimal("0.5"), "priority": Decimal(2), "fast": Decimal(2)}
_ENDINGS = {"stop": "stop", "length": "length", "refusal": "stop"}


def refusal(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Refused:
    """An error in OpenAI's form."""
    return Refused(status, {"error": {"message": message, "type": kind, "param": param, "code": code}}, headers)


def bearer(headers: Mapping[str, str]) -> str:
    """The key of an Authorization header, or nothing."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


class OpenAI:
    """OpenAI, as strict as it is."""

    name: VendorName = "openai"
    chars_per_token = Decimal("3.2")
    request_id_header = "x-request-id"

    def __init__(self, key: str) -> None:
        self._key = key

    def authorise(self, headers: Mapping[str, str]) -> None:
        """401 without the right bearer key; the key comes back masked, as the vendor does it."""
        key = bearer(headers)
        if not key:
            raise refusal(
                401,
                "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
                "(i.e. Authorization: Bearer YOUR_KEY).",
            )
        if key != self._key:
            raise self._bad_key(key)

    def _bad_key(self, key: str) -> Refused:
        return refusal(
            401,
            f"Incorrect API key provided: {key[:3]}{'*' * 8}{key[-4:]}. You can find your API key at "
            "https://platform.openai.com/account/api-keys.",
            code="invalid_api_key",
        )

    def read(self, body: dict[str, Any]) -> Asked:
        """What is wanted."""
        name = str(body.get("model", ""))
        model = model_named("openai", name)
        form = body.get("response_format")
        form = form if isinstance(form, dict) else {}
        given = form.get("json_schema")
        schema = given.get("schema") if form.get("type") == "json_schema" and isinstance(given, dict) else None
        effort = body.get("reasoning_effort") or (model.default_effort if model is not None else "none")
        limit = body.get("max_completion_tokens")
        return Asked(
            model=name,
            system=said(body, ("system", "developer", "assistant")),
            task=said(body, ("user",)),
            schema=schema if isinstance(schema, dict) else None,
            json_only=form.get("type") in ("json_schema", "json_object"),
            max_output=whole(limit if limit is not None else body.get("max_tokens")),
            thinking=THINKING_TOKENS.get(str(effort), 0) if model is not None and model.efforts else 0,
        )

    def check(self, body: dict[str, Any], asked: Asked, headers: Mapping[str, str]) -> Passed:  # noqa: ARG002
        """Raise Refused for whatever OpenAI refuses."""
        unknown = sorted(set(body) - _KNOWN)
        if unknown:
            raise refusal(400, f"Unknown parameter: '{unknown[0]}'.", param=unknown[0], code="unknown_parameter")
        model = self._model(body)
        self._messages(body)
        self._limits(body, model)
        self._thinking(body, model)
        self._form(body, asked)
        for name in _UNSUPPORTED_HERE:
            if body.get(name):
                raise self.malformed(f"The sandbox does not do '{name}'.")
        if body.get("stream") or body.get("n") not in (None, 1):
            raise self.malformed("The sandbox neither streams nor gives several choices.")
        schema = json.dumps(asked.schema, ensure_ascii=False) if asked.schema is not None else ""
        return Passed(
            model,
            len(asked.system) + len(asked.task) + len(schema),
            Decimal(0) if self._cache_off(body) or model.cache_write is None else Decimal(1),
            _TIERS.get(str(body.get("service_tier")), Decimal(1)),
        )

    def _cache_off(self, body: dict[str, Any]) -> bool:
        options = body.get("prompt_cache_options")
        return (
            isinstance(options, dict)
            and options.get("mode") == "explicit"
            and "prompt_cache_breakpoint" not in str(body)
        )

    def _model(self, body: dict[str, Any]) -> Model:
        name = body.get("model")
        if not isinstance(name, str) or not name:
            raise refusal(400, "you must provide a model parameter")
        model = model_named("openai", name)
        if model is None:
            text = (
                f"The model `{name}` has been deprecated, learn more here: https://platform.openai.com/docs/deprecations"
                if name in RETIRED
                else f"The model `{name}` does not exist or you do not have access to it."
            )
            raise refusal(404, text, code="model_not_found")
        return model

    def _messages(self, body: dict[str, Any]) -> None:
        if "messages" not in body:
            raise refusal(
                400, "Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter"
            )
        messages = messages_of(body)
        if not messages or len(messages) != len(body["messages"]):
            raise refusal(400, "Invalid 'messages': expected a non-empty array of objects.", param="messages")
        for number, message in enumerate(messages):
            if message.get("role") not in _ROLES:
                param = f"messages[{number}].role"
                raise refusal(400, f"Invalid value: '{message.get('role')}'.", param=param, code="invalid_value")
            if not isinstance(message.get("content"), str | list):
                param = f"messages[{number}].content"
                raise refusal(400, f"Invalid type for '{param}': expected a string or an array.", param=param)

    def _limits(self, body: dict[str, Any], model: Model) -> None:
        if body.get("max_tokens") is not None and model.efforts:
            raise refusal(
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                param="max_tokens",
                code="unsupported_parameter",
            )
        limit = body.get("max_completion_tokens")
        if limit is not None and (whole(limit) is None or limit < 1):
            raise refusal(
                400,
                "Invalid 'max_completion_tokens': integer below minimum value. Expected a value >= 1.",
                param="max_completion_tokens",
                code="integer_below_min_value",
            )

    def _thinking(self, body: dict[str, Any], model: Model) -> None:
        effort = body.get("reasoning_effort")
        if effort is not None and not model.efforts:
            raise refusal(
                400,
                "Unrecognized request argument supplied: reasoning_effort",
                param="reasoning_effort",
                code="unsupported_parameter",
            )
        if effort is not None and effort not in model.efforts:
            values = ", ".join(f"'{value}'" for value in model.efforts)
            raise refusal(
                400,
                f"Unsupported value: 'reasoning_effort' does not support '{effort}' with this model. "
                f"Supported values are: {values}.",
                param="reasoning_effort",
                code="unsupported_value",
            )
        if not model.efforts or (effort or model.default_effort) == "none":
            return
        for name in _SAMPLING:
            if body.get(name) is not None and not (name in ("temperature", "top_p") and body[name] == 1):
                raise refusal(
                    400,
                    f"Unsupported value: '{name}' does not support {body[name]} with this model. "
                    "Only the default value is supported.",
                    param=name,
                    code="unsupported_value",
                )

    def _form(self, body: dict[str, Any], asked: Asked) -> None:
        form = body.get("response_format")
        if form is None:
            return
        kind = form.get("type") if isinstance(form, dict) else None
        if kind == "json_object" and "json" not in asked.prompt.lower():
            raise refusal(
                400,
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
                param="messages",
            )
        if kind not in ("text", "json_object", "json_schema"):
            raise refusal(
                400,
                f"Invalid value: '{kind}'. Supported values are: 'json_object', 'json_schema', and 'text'.",
                param="response_format.type",
                code="invalid_value",
            )
        if kind == "json_schema":
            self._schema(form.get("json_schema"))

    def _schema(self, given: Any) -> None:
        name = given.get("name") if isinstance(given, dict) else None
        if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name):
            raise refusal(
                400,
                "Missing required parameter: 'response_format.json_schema.name'.",
                param="response_format.json_schema.name",
                code="missing_required_parameter",
            )
        schema = given.get("schema")
        problem = strict_problem(schema) if given.get("strict") is True else None
        if not isinstance(schema, dict):
            problem = "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"None\"'."
        if problem is not None:
            raise refusal(400, f"Invalid schema for response_format '{name}': {problem}", param="response_format")

    def failure(self, kind: str, value: Any, asked: Asked) -> Refused:
        """The error answer of a fault."""
        if kind == "401":
            return self._bad_key(self._key)
        if kind == "429":
            return refusal(
                429,
                f"Rate limit reached for {asked.model} in organization org-sandbox on requests per min (RPM): Limit 500, Used 500, "
                f"Requested 1. Please try again in {value or 1}s.",
                kind="requests",
                code="rate_limit_exceeded",
                headers={"retry-after": str(value)} if value is not None else None,
            )
        if kind in ("insufficient_quota", "402"):
            return refusal(
                429 if kind == "insufficient_quota" else 402,
                "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
                "read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
                kind="insufficient_quota",
                code="insufficient_quota",
            )
        if kind == "500":
            return refusal(
                500, "The server had an error while processing your request. Sorry about that!", kind="server_error"
            )
        text = "The server is currently overloaded with other requests. Sorry about that! You can retry your request."
        return refusal(int(kind), text, kind="service_unavailable")

    def malformed(self, message: str) -> Refused:
        """400 for a body that cannot be read."""
        return refusal(400, message)

    def reply(self, answer: Answer) -> dict[str, Any]:
        """A ChatCompletion."""
        used = answer.tokens
        refused = answer.ending == "refusal"
        tier = answer.body.get("service_tier")
        served = {None: "default", "auto": "default", "fast": "priority"}.get(tier, tier)
        return {
            "id": f"chatcmpl-{answer.request_id}",
            "object": "chat.completion",
            "created": answer.created,
            "model": answer.asked.model,
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": None if refused else answer.text,
                        "refusal": answer.text if refused else None,
                        "annotations": [],
                    },
                    "logprobs": None,
                    "finish_reason": _ENDINGS[answer.ending],
                }
            ],
            "usage": {
                "prompt_tokens": used.prompt,
                "completion_tokens": used.output,
                "total_tokens": used.prompt + used.output,
                "prompt_tokens_details": {
                    "cached_tokens": used.cache_read,
                    "cache_write_tokens": used.cache_write,
                    "audio_tokens": 0,
                },
                "completion_tokens_details": {
                    "reasoning_tokens": used.thinking,
                    "audio_tokens": 0,
                    "accepted_prediction_tokens": 0,
                    "rejected_prediction_tokens": 0,
                },
            },
            "service_tier": served,
            "system_fingerprint": None,
        }

    def models(self) -> dict[str, Any]:
        """The body of GET /v1/models."""
        return {
            "object": "list",
            "data": [
                {"id": model.name, "object": "model", "created": 1_780_000_000, "owned_by": "system"}
                for model in models_of("openai")
            ],
        }


def strict_problem(schema: Any) -> str | None:
    """What keeps a schema from being strict, in OpenAI's words, or None."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        kind = schema.get("type") if isinstance(schema, dict) else None
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
    properties = enums = depth = 0
    for path, node in schema_nodes(schema):
        if "object" in types_of(node):
            problem = _open_object(path, node)
            if problem is not None:
                return problem
        properties += len(node.get("properties") or {})
        enums += len(node.get("enum") or [])
        depth = max(depth, sum(step in ("properties", "items") for step in path))
    if properties > 5000 or enums > 1000 or depth > 10:
        return "schema is too large: at most 5000 properties, 1000 enum values and 10 levels are allowed."
    return None


def _open_object(path: tuple[str, ...], node: dict[str, Any]) -> str | None:
    context = f"In context={path!r}"
    if node.get("additionalProperties") is not False:
        return f"{context}, 'additionalProperties' is required to be supplied and to be false."
    missing = [name for name in node.get("properties") or {} if name not in (node.get("required") or [])]
    if missing:
        return (
            f"{context}, 'required' is required to be supplied and to be an array including every key in properties. "
            f"Missing '{missing[0]}'."
        )
    return None
