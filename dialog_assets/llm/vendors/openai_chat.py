"""Chat completions as OpenAI and DeepSeek speak them; what differs between their models comes from prices.json.

Facts: facts/llm.md sections 1 and 3. The SDK sends, and its answer is read here as JSON: it builds its values without
checking them, and what servers of this format really answer has many shapes. Never a temperature: the models that honour
it need thinking off first, the others refuse it.
"""

from __future__ import annotations

from typing import Any

import httpx2
import openai

from dialog_assets.llm.ledger import Finish, Usage
from dialog_assets.llm.prices import model_price
from dialog_assets.llm.requests import LLMRequest, json_schema
from dialog_assets.llm.vendors.http import client_options, failure_of_connection, unusable_setting
from dialog_assets.llm.vendors.port import (
    VendorAnswer,
    VendorFailure,
    failure_of_status,
    json_object,
    label,
    part,
    text_of,
    tokens,
)
from dialog_assets.quiet import hush

_FINISH: dict[Any, Finish] = {
    "stop": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "refusal",
}


class OpenAIChat:
    """A client of one account. `base_url` includes the version, as in https://api.openai.com/v1.

    Raises LLMRefused where the environment's proxy or certificates allow no client.
    """

    def __init__(
        self, api_key: str, base_url: str, *, timeout_s: float, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        hush()
        options = client_options(base_url, timeout_s=timeout_s, transport=transport)
        try:
            http_client = openai.DefaultAsyncHttpx2Client(**options)
        except (ValueError, ImportError, OSError) as error:
            raise unusable_setting(error) from None
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=options["timeout"],
            http_client=http_client,
        )
        # The SDK fills these from OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS, and would send them to
        # DeepSeek too.
        self._client.organization = None
        self._client.project = None
        self._client._custom_headers = {}

    async def send(self, request: LLMRequest[Any]) -> VendorAnswer:
        """One HTTP exchange, no retries. Raises VendorFailure."""
        failure: VendorFailure
        try:
            raw: Any = await self._client.chat.completions.with_raw_response.create(**_parameters(request))
        except openai.APIStatusError as error:
            answer = error.response
            failure = failure_of_status(answer.status_code, answer.content, answer.headers, request.prompt_tokens)
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            failure = failure_of_connection(error)
        else:
            return _read(json_object(raw.http_response.content), raw.http_response.headers, request)
        # Outside the except block: the SDK's error repeats parts of key and prompt, and would be shown as context.
        raise failure

    async def close(self) -> None:
        """End the connections."""
        await self._client.close()


def _parameters(request: LLMRequest[Any]) -> dict[str, Any]:
    caps = model_price(request.model).caps
    parameters: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": "system", "content": request.system}, {"role": "user", "content": request.user}],
        caps.limit: request.max_output_tokens,
    }
    if caps.json_mode == "schema":
        schema = {"name": request.prompt, "strict": True, "schema": json_schema(request.answer)}
        parameters["response_format"] = {"type": "json_schema", "json_schema": schema}
    else:
        parameters["response_format"] = {"type": "json_object"}
    if caps.effort is not None:
        parameters["reasoning_effort"] = caps.effort
    if caps.store:
        parameters["store"] = False
    if caps.cache_options:
        parameters["prompt_cache_options"] = {"mode": "explicit"}
    if caps.thinking is not None:
        parameters["extra_body"] = {"thinking": {"type": caps.thinking}}
    return parameters


def _read(body: dict[str, Any], headers: httpx2.Headers, request: LLMRequest[Any]) -> VendorAnswer:
    usage = _usage(body.get("usage"))
    choice = part(body, "choices", 0)
    text = _text(part(choice, "message")) or text_of(part(choice, "text"))
    reason = part(choice, "finish_reason")
    finish = _FINISH.get(reason if isinstance(reason, str) else None, "unknown")
    if not text.strip() and part(choice, "message", "refusal"):
        finish = "refusal"
    if (choice is None and usage is None) or (finish == "unknown" and not text.strip() and usage is None):
        raise VendorFailure("transient", "an answer without content", perhaps_paid=True)
    return VendorAnswer(
        text=text,
        usage=usage,
        model_returned=label(body.get("model"), request.model),
        vendor_request_id=label(headers.get("x-request-id")) or label(body.get("id")),
        finish=finish,
    )


def _text(message: Any) -> str:
    """What the model says: the content, else what it fills a tool's arguments with, else where it was put by mistake."""
    ways = (
        text_of(part(message, "content")),
        text_of(part(message, "tool_calls", 0, "function", "arguments")),
        text_of(part(message, "function_call", "arguments")),
        text_of(part(message, "reasoning_content")),
        text_of(part(message, "reasoning")),
    )
    return next((text for text in ways if text.strip()), ways[0])


def _usage(usage: Any) -> Usage | None:
    """Cached and written tokens are parts of the prompt's count; reasoning is part of the completion's."""
    prompt, output = tokens(part(usage, "prompt_tokens")), tokens(part(usage, "completion_tokens"))
    if prompt is None or output is None:
        return None
    read = tokens(part(usage, "prompt_tokens_details", "cached_tokens"))
    read = min(prompt, read or tokens(part(usage, "prompt_cache_hit_tokens")) or 0)
    written = min(prompt - read, tokens(part(usage, "prompt_tokens_details", "cache_write_tokens")) or 0)
    return Usage(
        input=prompt - read - written,
        cache_read=read,
        cache_write=written,
        output=output,
        reasoning=min(output, tokens(part(usage, "completion_tokens_details", "reasoning_tokens")) or 0),
    )
