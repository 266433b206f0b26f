"""Messages as Anthropic speaks them (facts/llm.md section 2).

The SDK takes two seconds and 77 MB to import, so it is imported when the first client is made. It sends, and its answer
is read here as JSON: it builds its values without checking them. Never a temperature, which is HTTP 400 there.
"""

from __future__ import annotations

import json
from typing import Any

import httpx2

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
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",
    "max_tokens": "length",
    "refusal": "refusal",
    "model_context_window_exceeded": "overflow",
}


class AnthropicMessages:
    """A client of one account. `base_url` is without the version, as in https://api.anthropic.com.

    Raises LLMRefused where the environment's proxy or certificates allow no client.
    """

    def __init__(
        self, api_key: str, base_url: str, *, timeout_s: float, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        import anthropic

        hush()
        self._sdk = anthropic
        options = client_options(base_url, timeout_s=timeout_s, transport=transport)
        try:
            http_client = anthropic.DefaultAsyncHttpxClient(**options)
        except (ValueError, ImportError, OSError) as error:
            raise unusable_setting(error) from None
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=options["timeout"],
            open_telemetry=False,
            http_client=http_client,
        )
        self._client._custom_headers = {}  # what the SDK took from ANTHROPIC_CUSTOM_HEADERS

    async def send(self, request: LLMRequest[Any]) -> VendorAnswer:
        """One HTTP exchange, no retries. Raises VendorFailure."""
        failure: VendorFailure
        try:
            raw: Any = await self._client.messages.with_raw_response.create(**_parameters(request))
        except self._sdk.APIStatusError as error:
            answer = error.response
            failure = failure_of_status(answer.status_code, answer.content, answer.headers, request.prompt_tokens)
        except (self._sdk.APIConnectionError, httpx2.HTTPError) as error:
            failure = failure_of_connection(error)
        else:
            return _read(json_object(raw.http_response.content), raw.http_response.headers, request)
        # Outside the except block: the SDK's error repeats the vendor's words, and would be shown as context.
        raise failure

    async def close(self) -> None:
        """End the connections."""
        await self._client.close()


def _parameters(request: LLMRequest[Any]) -> dict[str, Any]:
    caps = model_price(request.model).caps
    output: dict[str, Any] = {"format": {"type": "json_schema", "schema": json_schema(request.answer)}}
    if caps.effort is not None:
        output["effort"] = caps.effort
    parameters: dict[str, Any] = {
        "model": request.model,
        "system": request.system,
        "messages": [{"role": "user", "content": request.user}],
        "output_config": output,
        caps.limit: request.max_output_tokens,
    }
    if caps.thinking is not None:
        parameters["thinking"] = {"type": caps.thinking}
    return parameters


def _read(body: dict[str, Any], headers: httpx2.Headers, request: LLMRequest[Any]) -> VendorAnswer:
    usage = _usage(body.get("usage"))
    text = _text(body.get("content"))
    reason = body.get("stop_reason")
    finish = _FINISH.get(reason if isinstance(reason, str) else None, "unknown")
    if finish == "unknown" and not text.strip() and usage is None:
        raise VendorFailure("transient", "an answer without content", perhaps_paid=True)
    return VendorAnswer(
        text=text,
        usage=usage,
        model_returned=label(body.get("model"), request.model),
        vendor_request_id=label(headers.get("request-id"))
        or label(headers.get("x-request-id"))
        or label(body.get("id")),
        finish=finish,
    )


def _text(content: Any) -> str:
    """The text blocks, else what the model fills a tool's input with. A thinking block may come first."""
    said = text_of(content)
    if said.strip() or not isinstance(content, list):
        return said
    inputs = (part(block, "input") for block in content if part(block, "type") == "tool_use")
    return next((json.dumps(one, ensure_ascii=False) for one in inputs if isinstance(one, dict)), said)


def _usage(usage: Any) -> Usage | None:
    """`input_tokens` excludes both kinds of cache; thinking is part of `output_tokens`."""
    prompt, output = tokens(part(usage, "input_tokens")), tokens(part(usage, "output_tokens"))
    if prompt is None or output is None:
        return None
    long = tokens(part(usage, "cache_creation", "ephemeral_1h_input_tokens")) or 0
    written = max(long, tokens(part(usage, "cache_creation_input_tokens")) or 0)
    return Usage(
        input=prompt,
        cache_read=tokens(part(usage, "cache_read_input_tokens")) or 0,
        cache_write=written - long,
        cache_write_long=long,
        output=output,
        reasoning=min(output, tokens(part(usage, "output_tokens_details", "thinking_tokens")) or 0),
    )
