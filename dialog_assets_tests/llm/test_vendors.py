"""What goes over the wire to each vendor, and how its answers and errors are read."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import Any

import httpx2
import pytest

from dialog_assets.llm.ledger import Usage
from dialog_assets.llm.requests import LLMRequest, json_schema
from dialog_assets.llm.vendors.anthropic_messages import AnthropicMessages
from dialog_assets.llm.vendors.openai_chat import OpenAIChat
from dialog_assets.llm.vendors.port import VendorAnswer, VendorFailure
from dialog_assets_tests.llm.support import KEYS, Number, Reply, Wire, chat_body, failing, message_body, ok, question

URLS = {"openai": "https://o.example/v1", "anthropic": "https://a.example", "deepseek": "https://d.example"}


def send(wire: Wire, request: LLMRequest[Any]) -> VendorAnswer:
    async def go() -> VendorAnswer:
        maker = AnthropicMessages if request.vendor == "anthropic" else OpenAIChat
        client = maker(KEYS[request.vendor], URLS[request.vendor], timeout_s=120, transport=httpx2.MockTransport(wire))
        try:
            return await client.send(request)
        finally:
            await client.close()

    return asyncio.run(go())


def test_openai_request() -> None:
    """OpenAI gets a strict schema, no storing, no cache writing, no thinking, no temperature."""
    wire = Wire([ok(chat_body())])
    answer = send(wire, question())
    assert str(wire.sent[0].url) == "https://o.example/v1/chat/completions"
    assert wire.body() == {
        "model": "gpt-6-luna",
        "messages": [
            {"role": "system", "content": "Ответь в json."},
            {"role": "user", "content": 'Назови число. Пример: {"number": 1}'},
        ],
        "max_completion_tokens": 500,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "number", "strict": True, "schema": json_schema(Number)},
        },
        "reasoning_effort": "none",
        "store": False,
        "prompt_cache_options": {"mode": "explicit"},
    }
    assert answer.usage == Usage(500, 200, 300, 0, 100, 40)
    assert (answer.finish, answer.model_returned, answer.vendor_request_id) == (
        "stop",
        "gpt-6-luna-2026-09-01",
        "req_1",
    )


def test_deepseek_request() -> None:
    """DeepSeek gets json_object mode, thinking off, and nothing of OpenAI's own."""
    body = chat_body()
    body["usage"] = {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_cache_hit_tokens": 200,
        "prompt_cache_miss_tokens": 800,
    }
    wire = Wire([ok(body)])
    answer = send(wire, question("deepseek"))
    assert str(wire.sent[0].url) == "https://d.example/chat/completions"
    sent = wire.body()
    assert {key: sent[key] for key in sent if key not in ("model", "messages")} == {
        "max_tokens": 500,
        "response_format": {"type": "json_object"},
        "thinking": {"type": "disabled"},
    }
    assert answer.usage == Usage(800, 200, output=100)


def test_anthropic_request() -> None:
    """Anthropic gets the schema as output format, thinking off, no sampling; its thinking block is not the answer."""
    wire = Wire([ok(message_body())])
    answer = send(wire, question("anthropic"))
    assert str(wire.sent[0].url) == "https://a.example/v1/messages"
    assert wire.body() == {
        "model": "claude-haiku-5-5",
        "system": "Ответь в json.",
        "messages": [{"role": "user", "content": 'Назови число. Пример: {"number": 1}'}],
        "max_tokens": 500,
        "output_config": {"format": {"type": "json_schema", "schema": json_schema(Number)}},
        "thinking": {"type": "disabled"},
    }
    assert answer.text == '{"number": 1}'
    assert answer.usage == Usage(500, 200, 200, 100, 100, 40)


@pytest.mark.parametrize(
    ("vendor", "body", "finish"),
    [
        ("openai", chat_body('{"num', "length"), "length"),
        ("openai", chat_body(None, "content_filter"), "refusal"),
        ("openai", chat_body(None, refusal="Не могу."), "refusal"),
        ("deepseek", chat_body("   "), "stop"),
        ("anthropic", message_body('{"num', "max_tokens"), "length"),
        ("anthropic", message_body("", "refusal"), "refusal"),
        ("anthropic", {**message_body(), "content": []}, "stop"),
        ("anthropic", message_body("", "model_context_window_exceeded"), "overflow"),
        ("deepseek", chat_body(None, "insufficient_system_resource"), "unknown"),
        ("openai", {**chat_body(), "choices": []}, "unknown"),
        ("openai", {**chat_body(), "choices": [{"message": None, "finish_reason": None}]}, "unknown"),
    ],
)
def test_endings(vendor: str, body: dict[str, Any], finish: str) -> None:
    """A cut, a refusal and a blank are answers with their usage, not errors that lose it."""
    answer = send(Wire([ok(body)]), question(vendor))
    assert answer.finish == finish
    assert answer.usage is not None
    assert answer.usage.output == 100


@pytest.mark.parametrize(
    ("vendor", "reply", "kind", "retry_after"),
    [
        ("openai", failing(401, code="invalid_api_key"), "refused", None),
        ("openai", failing(403, code="unsupported_country_region_territory"), "refused", None),
        ("openai", failing(404, code="model_not_found"), "refused", None),
        ("openai", failing(429, {"retry-after": "7"}, code="insufficient_quota"), "refused", None),
        ("openai", failing(429, {"retry-after": "7"}, code="rate_limit_exceeded"), "transient", 7.0),
        ("openai", failing(429, {"retry-after-ms": "1500", "retry-after": "7"}), "transient", 1.5),
        ("openai", failing(400, code="context_length_exceeded"), "too_large", None),
        ("openai", httpx2.ConnectError("no"), "transient", None),
        ("openai", httpx2.ReadTimeout("slow"), "timeout", None),
        ("openai", lambda _: httpx2.Response(200, text="<html>proxy</html>"), "transient", None),
        (
            "openai",
            lambda _: httpx2.Response(200, text="{", headers={"content-type": "application/json"}),
            "transient",
            None,
        ),
        ("openai", ok({"id": "1"}), "transient", None),
        ("deepseek", failing(402), "refused", None),
        ("deepseek", failing(503, {"retry-after": "soon"}), "transient", None),
        ("anthropic", failing(401, type="authentication_error"), "refused", None),
        ("anthropic", failing(529, {"retry-after": "3600"}, type="overloaded_error"), "transient", 3600.0),
        ("anthropic", failing(413, type="request_too_large"), "too_large", None),
        ("anthropic", lambda _: httpx2.Response(200, text="<html>proxy</html>"), "transient", None),
        ("anthropic", ok({"id": "1"}), "transient", None),
        ("anthropic", httpx2.ReadTimeout("slow"), "timeout", None),
    ],
)
def test_failures(vendor: str, reply: Reply, kind: str, retry_after: float | None) -> None:
    """Each way of going wrong is one VendorFailure of the right kind, sent once, without the vendor's words."""
    wire = Wire([reply])
    with pytest.raises(VendorFailure) as caught:
        send(wire, question(vendor))
    assert (caught.value.kind, caught.value.retry_after_s) == (kind, retry_after)
    assert len(wire.sent) == 1
    assert "Incorrect" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_empty_balance_at_anthropic() -> None:
    """Anthropic's empty balance, an ordinary 400 by its status, stops the step."""
    body = {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."}}
    with pytest.raises(VendorFailure) as caught:
        send(Wire([lambda _: httpx2.Response(400, json=body)]), question("anthropic"))
    assert caught.value.kind == "refused"


def test_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers, addresses and keys that the SDKs would take from the environment are not sent."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "from-environment")
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.setenv(name, "https://from-environment.example")
    for name in ("OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS"):
        monkeypatch.setenv(name, "Authorization: Bearer from-environment\nX-Team: from-environment")
    for vendor, body in (("openai", chat_body()), ("deepseek", chat_body()), ("anthropic", message_body())):
        wire = Wire([ok(body)])
        send(wire, question(vendor))
        assert "from-environment" not in str(wire.sent[0].url) + str(wire.sent[0].headers.raw)
        assert wire.sent[0].headers["authorization"] == f"Bearer {KEYS[vendor]}"


def test_prompts_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Even at DEBUG no text, key or address of a request reaches a log."""
    with caplog.at_level("DEBUG"):
        for vendor, body in (("openai", chat_body()), ("anthropic", message_body())):
            for name in ("openai", "anthropic", "httpx2"):
                logging.getLogger(name).setLevel(logging.NOTSET)
            send(Wire([ok(body)]), question(vendor, user="Тайна клиента"))
    assert "Тайна" not in caplog.text
    assert ".example" not in caplog.text


def test_sdks_are_imported_late() -> None:
    """Building requests and a router loads neither SDK."""
    code = (
        "import sys, dialog_assets.llm.router, dialog_assets.analysis.criteria, dialog_assets.analysis.summaries;"
        "print([name for name in ('openai', 'anthropic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
