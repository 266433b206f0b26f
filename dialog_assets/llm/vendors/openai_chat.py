"""Chat completions as OpenAI and DeepSeek speak them; what differs between their models comes from prices.json.

Facts: facts/llm.md sections 1 and 3. `.create()` and not `.parse()`, which loses the usage of an answer that fails
validation. Never a temperature: the models that honour it need thinking off first, the others refuse it.
"""

from __future__ import annotations

from typing import Any

import httpx2
import openai
from openai.types.chat import ChatCompletion

from dialog_assets import certificates
from dialog_assets.llm.ledger import Finish, Usage
from dialog_assets.llm.prices import model_price
from dialog_assets.llm.requests import LLMRequest, json_schema
from dialog_assets.llm.vendors.port import VendorAnswer, VendorFailure, failure_of_connection, failure_of_status, hush

_FINISH: dict[str | None, Finish] = {"stop": "stop", "length": "length", "content_filter": "refusal"}


class OpenAIChat:
    """A client of one account. `base_url` includes the version, as in https://api.openai.com/v1."""

    def __init__(
        self, api_key: str, base_url: str, *, timeout_s: float, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        hush("openai", "httpx2")
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=timeout_s,
            http_client=openai.DefaultAsyncHttpx2Client(transport=transport, verify=certificates.context()),
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
            completion: Any = await self._client.chat.completions.create(**_parameters(request))
        except openai.APIStatusError as error:
            failure = failure_of_status(error.status_code, (error.code, error.type), error.response.headers)
        except openai.APITimeoutError:
            failure = VendorFailure("timeout", "timeout")
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            failure = failure_of_connection(error)
        except (openai.APIResponseValidationError, ValueError):
            failure = VendorFailure("transient", "an answer that is no JSON")
        else:
            return _read(completion)
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


def _read(completion: Any) -> VendorAnswer:
    if not isinstance(completion, ChatCompletion) or not completion.choices or completion.usage is None:
        raise VendorFailure("transient", "an answer without choices or usage")
    choice = completion.choices[0]
    finish = _FINISH.get(choice.finish_reason)
    if finish is None:
        raise VendorFailure("transient", "an answer that was not finished")
    return VendorAnswer(
        text=choice.message.content or "",
        usage=_usage(completion),
        model_returned=completion.model,
        vendor_request_id=completion._request_id or completion.id or "",
        finish="refusal" if choice.message.refusal else finish,
    )


def _usage(completion: ChatCompletion) -> Usage:
    """Cached and written tokens are parts of the prompt's count; reasoning is part of the completion's."""
    usage = completion.usage
    if usage is None:
        raise VendorFailure("transient", "an answer without usage")
    details = usage.prompt_tokens_details
    read = (details.cached_tokens if details else None) or getattr(usage, "prompt_cache_hit_tokens", None) or 0
    written = (details.cache_write_tokens if details else None) or 0
    thought = usage.completion_tokens_details
    return Usage(
        input=max(0, usage.prompt_tokens - read - written),
        cache_read=read,
        cache_write=written,
        output=usage.completion_tokens,
        reasoning=(thought.reasoning_tokens if thought else None) or 0,
    )
