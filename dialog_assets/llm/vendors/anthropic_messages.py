"""Messages as Anthropic speaks them (facts/llm.md section 2).

The SDK takes two seconds and 77 MB to import, so it is imported when the first client is made. `.create()` and not
`.parse()`, which loses the usage of an answer that fails validation; never a temperature, which is HTTP 400 there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2

from dialog_assets import certificates
from dialog_assets.llm.ledger import Finish, Usage
from dialog_assets.llm.prices import model_price
from dialog_assets.llm.requests import LLMRequest, json_schema
from dialog_assets.llm.vendors.port import VendorAnswer, VendorFailure, failure_of_connection, failure_of_status, hush

if TYPE_CHECKING:
    from anthropic.types import Message

_FINISH: dict[str | None, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "refusal": "refusal",
}


class AnthropicMessages:
    """A client of one account. `base_url` is without the version, as in https://api.anthropic.com."""

    def __init__(
        self, api_key: str, base_url: str, *, timeout_s: float, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        import anthropic

        hush("anthropic", "httpx2")
        self._sdk = anthropic
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=timeout_s,
            open_telemetry=False,
            http_client=anthropic.DefaultAsyncHttpxClient(transport=transport, verify=certificates.context()),
        )
        self._client._custom_headers = {}  # what the SDK took from ANTHROPIC_CUSTOM_HEADERS

    async def send(self, request: LLMRequest[Any]) -> VendorAnswer:
        """One HTTP exchange, no retries. Raises VendorFailure."""
        failure: VendorFailure
        try:
            message: Any = await self._client.messages.create(**_parameters(request))
        except self._sdk.APIStatusError as error:
            failure = _failure(error.status_code, error)
        except self._sdk.APITimeoutError:
            failure = VendorFailure("timeout", "timeout")
        except (self._sdk.APIConnectionError, httpx2.HTTPError) as error:
            failure = failure_of_connection(error)
        except (self._sdk.APIResponseValidationError, ValueError):
            failure = VendorFailure("transient", "an answer that is no JSON")
        else:
            return self._read(message)
        # Outside the except block: the SDK's error repeats the vendor's words, and would be shown as context.
        raise failure

    async def close(self) -> None:
        """End the connections."""
        await self._client.close()

    def _read(self, message: Any) -> VendorAnswer:
        # The SDK builds answers without checking them: a proxy's page arrives as str, a gap as None.
        if not isinstance(message, self._sdk.types.Message) or not isinstance(message.content, list):
            raise VendorFailure("transient", "an answer without content")
        if message.stop_reason == "model_context_window_exceeded":
            raise VendorFailure("rejected", "the request does not fit the model's context")
        finish = _FINISH.get(message.stop_reason)
        if finish is None or message.usage is None:
            raise VendorFailure("transient", "an answer that was not finished")
        return VendorAnswer(
            # A thinking block may come first.
            text="".join(block.text for block in message.content if block.type == "text"),
            usage=_usage(message),
            model_returned=message.model,
            vendor_request_id=message._request_id or message.id or "",
            finish=finish,
        )


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


def _failure(status: int, error: Any) -> VendorFailure:
    codes: tuple[object, ...] = (error.error_code, error.type)
    # An empty balance is an ordinary invalid request here; only its sentence tells.
    if status == 400 and "credit balance" in (error.api_message or "").lower():
        codes = ("billing_error", *codes)
    return failure_of_status(status, codes, error.response.headers)


def _usage(message: Message) -> Usage:
    """`input_tokens` excludes both kinds of cache; thinking is part of `output_tokens`."""
    usage = message.usage
    written = usage.cache_creation_input_tokens or 0
    long = usage.cache_creation.ephemeral_1h_input_tokens if usage.cache_creation else 0
    details = usage.output_tokens_details
    return Usage(
        input=usage.input_tokens,
        cache_read=usage.cache_read_input_tokens or 0,
        cache_write=written - long,
        cache_write_long=long,
        output=usage.output_tokens,
        reasoning=(details.thinking_tokens if details else None) or 0,
    )
