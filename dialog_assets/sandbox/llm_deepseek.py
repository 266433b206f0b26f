"""DeepSeek's chat completions as its API behaves (facts/llm.md section 3): strictness, error bodies, answers.

Here: what DeepSeek alone does; unknown parameters are ignored, as it does. Not here: answers' content, prices. Never simulated:
cache hits (every prompt is paid in full), streaming, tools, `/beta`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from dialog_assets.sandbox.llm_openai import bearer
from dialog_assets.sandbox.llm_prices import ALIASES, THINKING_TOKENS, Model, VendorName, model_named, models_of
from dialog_assets.sandbox.llm_prompt import Asked
from dialog_assets.sandbox.llm_wire import Answer, Passed, Refused, messages_of, said, whole

_ENDINGS = {"stop": "stop", "length": "length", "refusal": "content_filter"}
_FAILURES = {
    "402": (402, "Insufficient Balance", "unknown_error", "invalid_request_error"),
    "insufficient_quota": (402, "Insufficient Balance", "unknown_error", "invalid_request_error"),
    "500": (500, "Internal Server Error", "server_error", "internal_error"),
    "503": (503, "Service is too busy. We advise users to temporarily switch to alternative LLM API service providers.",
            "service_unavailable_error", "service_unavailable_error"),
    "529": (503, "Service is too busy.", "service_unavailable_error", "service_unavailable_error"),
}  # fmt: skip


def _refusal(
    status: int,
    message: str,
    kind: str = "invalid_request_error",
    code: str = "invalid_request_error",
    headers: Mapping[str, str] | None = None,
) -> Refused:
    return Refused(status, {"error": {"message": message, "type": kind, "param": None, "code": code}}, headers)


class DeepSeek:
    """DeepSeek, as strict as it is."""

    name: VendorName = "deepseek"
    chars_per_token = Decimal("2.8")
    request_id_header = "x-ds-trace-id"

    def __init__(self, key: str) -> None:
        self._key = key

    def authorise(self, headers: Mapping[str, str]) -> None:
        """401 without the right bearer key."""
        key = bearer(headers)
        if not key:
            raise _refusal(
                401, "Authentication Fails (auth header format should be Bearer sk-...)", "authentication_error"
            )
        if key != self._key:
            raise self._bad_key(key)

    def _bad_key(self, key: str) -> Refused:
        return _refusal(401, f"Authentication Fails, Your api key: ****{key[-4:]} is invalid", "authentication_error")

    def read(self, body: dict[str, Any]) -> Asked:
        """What is wanted."""
        name = str(body.get("model", ""))
        model = model_named("deepseek", name)
        form = body.get("response_format")
        return Asked(
            model=ALIASES.get(name, name),
            system=said(body, ("system", "assistant")),
            task=said(body, ("user",)),
            schema=None,
            json_only=isinstance(form, dict) and form.get("type") == "json_object",
            max_output=whole(body.get("max_tokens")),
            thinking=self._thinking(body, model),
        )

    def _thinking(self, body: dict[str, Any], model: Model | None) -> int:
        thinking = body.get("thinking")
        if model is None or (isinstance(thinking, dict) and thinking.get("type") == "disabled"):
            return 0
        return THINKING_TOKENS.get(str(body.get("reasoning_effort") or model.default_effort), 0)

    def check(self, body: dict[str, Any], asked: Asked, headers: Mapping[str, str]) -> Passed:  # noqa: ARG002
        """Raise Refused for whatever DeepSeek refuses."""
        name = body.get("model")
        model = model_named("deepseek", name) if isinstance(name, str) else None
        if model is None:
            raise _refusal(400, "Model Not Exist")
        messages = messages_of(body)
        if not messages or len(messages) != len(body["messages"]):
            raise _refusal(422, "Failed to deserialize the JSON body into the target type: messages: invalid value")
        for number, message in enumerate(messages):
            if message.get("role") not in ("system", "user", "assistant", "tool"):
                raise _refusal(
                    422,
                    f"Failed to deserialize the JSON body into the target type: messages[{number}].role: unknown variant "
                    f"`{message.get('role')}`, expected one of `system`, `user`, `assistant`, `tool`",
                )
        self._form(body, asked)
        limit = body.get("max_tokens")
        if limit is not None and (whole(limit) is None or not 1 <= limit <= 393_216):
            raise _refusal(400, "Invalid max_tokens value, the valid range of max_tokens is [1, 393216]")
        thinking = body.get("thinking")
        if thinking is not None and (
            not isinstance(thinking, dict) or thinking.get("type") not in ("enabled", "disabled")
        ):
            raise _refusal(422, "Failed to deserialize the JSON body into the target type: thinking: unknown variant")
        effort = body.get("reasoning_effort")
        if effort is not None and effort not in model.efforts:
            raise _refusal(400, f"Invalid reasoning_effort value, expected one of {', '.join(model.efforts)}")
        if body.get("stream") or body.get("tools"):
            raise self.malformed("The sandbox neither streams nor calls tools.")
        return Passed(model, len(asked.system) + len(asked.task))

    def _form(self, body: dict[str, Any], asked: Asked) -> None:
        form = body.get("response_format")
        if form is None:
            return
        kind = form.get("type") if isinstance(form, dict) else None
        if kind not in ("text", "json_object"):
            raise _refusal(400, "This response_format type is unavailable now")
        if kind == "json_object" and "json" not in asked.prompt.lower():
            raise _refusal(
                400, "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'."
            )

    def failure(self, kind: str, value: Any, asked: Asked) -> Refused:  # noqa: ARG002 - the vendors' common signature
        """The error answer of a fault."""
        if kind == "401":
            return self._bad_key(self._key)
        if kind == "429":
            headers = {"retry-after": str(value)} if value is not None else None
            return _refusal(429, "Rate limit reached", "rate_limit_error", "rate_limit_exceeded", headers)
        return _refusal(*_FAILURES[kind])

    def malformed(self, message: str) -> Refused:
        """400 for a body that cannot be read."""
        return _refusal(400, message)

    def reply(self, answer: Answer) -> dict[str, Any]:
        """A ChatCompletion with DeepSeek's own usage fields."""
        used = answer.tokens
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if used.thinking:
            message["reasoning_content"] = "Песочница делает вид, что думает."
        return {
            "id": answer.request_id,
            "object": "chat.completion",
            "created": answer.created,
            "model": answer.asked.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _ENDINGS[answer.ending]}],
            "usage": {
                "prompt_tokens": used.prompt,
                "completion_tokens": used.output,
                "total_tokens": used.prompt + used.output,
                "prompt_tokens_details": {"cached_tokens": used.cache_read},
                "completion_tokens_details": {"reasoning_tokens": used.thinking},
                "prompt_cache_hit_tokens": used.cache_read,
                "prompt_cache_miss_tokens": used.input,
            },
            "system_fingerprint": "fp_sandbox",
        }

    def models(self) -> dict[str, Any]:
        """The body of GET /models."""
        return {
            "object": "list",
            "data": [{"id": model.name, "object": "model", "owned_by": "deepseek"} for model in models_of("deepseek")],
        }

    def balance(self) -> dict[str, Any]:
        """The body of GET /user/balance."""
        return {
            "is_available": True,
            "balance_infos": [
                {
                    "currency": "USD",
                    "total_balance": "110.00",
                    "granted_balance": "10.00",
                    "topped_up_balance": "100.00",
                }
            ],
        }
