"""The stand-in LLM vendors refuse what the real ones refuse, with their statuses and bodies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from dialog_assets.sandbox.llm_anthropic import schema_problem
from dialog_assets.sandbox.llm_openai import strict_problem
from dialog_assets_tests.sandbox.llm_support import (
    ANTHROPIC_KEY,
    DEEPSEEK_KEY,
    EDITS,
    OPENAI_KEY,
    SCORES,
    Running,
    closed,
    running,
)

MESSAGES = [{"role": "user", "content": "L001 КЛИЕНТ: алло"}]
VERSION = {"anthropic-version": "2026-10-21"}
OLD_MODEL = {"model": "gpt-4.1-mini"}
TOOL: dict[str, Any] = {"tools": [{"name": "t", "input_schema": EDITS}], "tool_choice": {"type": "tool", "name": "t"}}


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "edits", "strict": True, "schema": schema}}
    return {"response_format": form}


def _format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """One server for this file."""
    with running() as found:
        yield found


def _post(server: Running, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    body = {key: value for key, value in body.items() if value is not None}
    response = httpx2.post(server.url + path, json=body, headers=headers, timeout=60)
    return response.status_code, response.json()


def _openai(server: Running, **changes: Any) -> tuple[int, dict[str, Any]]:
    body = {"model": "gpt-6-luna", "messages": MESSAGES, "reasoning_effort": "none"} | changes
    return _post(server, "/openai/v1/chat/completions", body, {"authorization": f"Bearer {OPENAI_KEY}"})


def _anthropic(server: Running, **changes: Any) -> tuple[int, dict[str, Any]]:
    body = {"model": "claude-haiku-5-5", "messages": MESSAGES, "max_tokens": 3000} | changes
    return _post(server, "/anthropic/v1/messages", body, {"x-api-key": ANTHROPIC_KEY, **VERSION})


def _deepseek(server: Running, **changes: Any) -> tuple[int, dict[str, Any]]:
    body = {"model": "deepseek-flash", "messages": MESSAGES, "thinking": {"type": "disabled"}} | changes
    return _post(server, "/deepseek/chat/completions", body, {"authorization": f"Bearer {DEEPSEEK_KEY}"})


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"model": "gpt-7"}, 404, "model_not_found", None),
        ({"model": "gpt-4-turbo"}, 404, "model_not_found", None),
        ({"model": "deepseek-flash"}, 404, "model_not_found", None),
        ({"max_tokens": 100}, 400, "unsupported_parameter", "max_tokens"),
        ({"reasoning_effort": "low", "temperature": 0}, 400, "unsupported_value", "temperature"),
        ({"reasoning_effort": None, "top_p": 0.5}, 400, "unsupported_value", "top_p"),
        ({"model": "gpt-6.2-sol", "reasoning_effort": "none"}, 400, "unsupported_value", "reasoning_effort"),
        ({"thinking": {"type": "disabled"}}, 400, "unknown_parameter", "thinking"),
        ({"messages": None}, 400, "missing_required_parameter", "messages"),
        ({"max_completion_tokens": 0}, 400, "integer_below_min_value", "max_completion_tokens"),
        ({"response_format": {"type": "json_object"}}, 400, None, "messages"),
        (_strict({"type": "array"}), 400, None, "response_format"),
        (_strict(EDITS | {"required": []}), 400, None, "response_format"),
        ({**OLD_MODEL, "reasoning_effort": "low"}, 400, "unsupported_parameter", "reasoning_effort"),
        ({"stream": True}, 400, None, None),
    ],
)  # fmt: skip
def test_openai_refuses(
    server: Running, changes: dict[str, Any], status: int, code: str | None, param: str | None
) -> None:
    """OpenAI's rules on models, limits, sampling and strict schemas, with code and param."""
    got, body = _openai(server, **changes)
    assert got == status, body
    assert (body["error"]["code"], body["error"]["param"]) == (code, param)
    assert body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0, "top_p": 0.9},
        {"reasoning_effort": "low", "temperature": 1},
        _strict(EDITS),
        {**OLD_MODEL, "reasoning_effort": None, "max_tokens": 50, "temperature": 0},
        {
            "service_tier": "flex",
            "prompt_cache_options": {"mode": "explicit"},
            "verbosity": "low",
            "safety_identifier": "x",
        },
    ],
)
def test_openai_accepts(server: Running, changes: dict[str, Any]) -> None:
    """What OpenAI allows is allowed."""
    status, body = _openai(server, **changes)
    assert status == 200, body


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"model": "claude-3-5-sonnet-20241022"}, 404, "model: claude"),
        ({"temperature": 1.0}, 400, "temperature: Extra inputs"),
        ({"top_p": 1}, 400, "top_p"),
        ({"top_k": 5}, 400, "top_k"),
        ({"max_tokens": None}, 400, "max_tokens: Field required"),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": "{"}]}, 400, "prefill"),
        ({"messages": []}, 400, "at least one message"),
        ({"output_config": {"effort": "none"}}, 400, "effort"),
        ({"output_config": {"effort": "max"}, "thinking": {"type": "disabled"}}, 400, "disabled"),
        ({"model": "claude-sonnet-5-5", "thinking": {"type": "disabled"}}, 400, "disabled"),
        ({"model": "claude-sonnet-5-5", **TOOL}, 400, "forced"),
        ({**TOOL, "thinking": {"type": "adaptive"}}, 400, "Thinking"),
        (_format(closed({"n": {"type": "integer", "minimum": 0}})), 400, "minimum"),
        (_format(EDITS | {"additionalProperties": True}), 400, "additionalProperties"),
    ],
)  # fmt: skip
def test_anthropic_refuses(server: Running, changes: dict[str, Any], status: int, words: str) -> None:
    """Anthropic's rules of version 2026-10-21."""
    got, body = _anthropic(server, **changes)
    assert got == status, body
    assert body["type"] == "error"
    assert words in body["error"]["message"]
    assert body["request_id"].startswith("req_")


def test_anthropic_forced_tool_on_haiku(server: Running) -> None:
    """Haiku 5.5 still lets itself be forced to a tool, and then does not think."""
    status, body = _anthropic(server, **TOOL)
    assert status == 200
    assert body["stop_reason"] == "tool_use"
    assert body["content"][0]["input"] == {"edits": [], "speakers": []}
    assert body["usage"]["output_tokens_details"]["thinking_tokens"] == 0


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"model": "deepseek-chat"}, 400, "Model Not Exist"),
        ({"response_format": {"type": "json_object"}}, 400, "'json'"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, 400, "unavailable"),
        ({"thinking": {"type": "off"}}, 422, "thinking"),
        ({"reasoning_effort": "none"}, 400, "reasoning_effort"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"messages": [{"role": "developer", "content": "x"}]}, 422, "developer"),
        ({"messages": None}, 422, "messages"),
    ],
)
def test_deepseek_refuses(server: Running, changes: dict[str, Any], status: int, words: str) -> None:
    """DeepSeek's rules on models, JSON mode, thinking and limits."""
    got, body = _deepseek(server, **changes)
    assert got == status, body
    assert words in body["error"]["message"]


def test_deepseek_ignores_what_it_does_not_know(server: Running) -> None:
    """Unknown parameters pass unnoticed, `max_completion_tokens` among them: its limit does not hold."""
    status, body = _deepseek(server, max_completion_tokens=1, foo=1)
    assert status == 200
    assert body["choices"][0]["finish_reason"] == "stop"
    assert _deepseek(server, model="deepseek-v4-flash")[1]["model"] == "deepseek-flash"


@pytest.mark.parametrize(
    ("path", "headers", "kind"),
    [
        ("/openai/v1/chat/completions", {"authorization": "Bearer sk-wrong-key-9999"}, "invalid_request_error"),
        ("/openai/v1/chat/completions", {}, "invalid_request_error"),
        ("/anthropic/v1/messages", {"authorization": "Bearer wrong", **VERSION}, "authentication_error"),
        ("/anthropic/v1/messages", {"x-api-key": "wrong", **VERSION}, "authentication_error"),
        ("/anthropic/v1/messages", VERSION, "authentication_error"),
        ("/deepseek/chat/completions", {"authorization": "Bearer wrong"}, "authentication_error"),
        ("/deepseek/chat/completions", {}, "authentication_error"),
    ],
)
def test_wrong_keys(server: Running, path: str, headers: dict[str, str], kind: str) -> None:
    """401 in each vendor's words, and never the whole key back."""
    response = httpx2.post(server.url + path, headers=headers, json={}, timeout=60)
    assert response.status_code == 401
    assert response.json()["error"]["type"] == kind
    assert "sk-wrong-key-9999" not in response.text


def test_anthropic_needs_its_version_and_takes_both_key_headers(server: Running) -> None:
    """No version or another one: 400; the key is accepted as a bearer and in x-api-key."""
    url = f"{server.url}/anthropic/v1/models"
    assert httpx2.get(url, headers={"x-api-key": ANTHROPIC_KEY}, timeout=60).status_code == 400
    assert (
        httpx2.get(url, headers={"x-api-key": ANTHROPIC_KEY, "anthropic-version": "2023-06-01"}, timeout=60).status_code
        == 400
    )
    assert httpx2.get(url, headers={"x-api-key": ANTHROPIC_KEY, **VERSION}, timeout=60).status_code == 200
    assert (
        httpx2.get(url, headers={"authorization": f"Bearer {ANTHROPIC_KEY}", **VERSION}, timeout=60).status_code == 200
    )


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_bodies_that_are_no_json_object(server: Running, content: bytes) -> None:
    """400, never 500, for a body that cannot be read."""
    for path, headers in (
        ("/openai/v1/chat/completions", {"authorization": f"Bearer {OPENAI_KEY}"}),
        ("/anthropic/v1/messages", {"x-api-key": ANTHROPIC_KEY, **VERSION}),
        ("/deepseek/chat/completions", {"authorization": f"Bearer {DEEPSEEK_KEY}"}),
    ):
        assert httpx2.post(server.url + path, headers=headers, content=content, timeout=60).status_code == 400


def test_cache_writes_are_billed_unless_refused(server: Running) -> None:
    """OpenAI charges for writing a long prompt to its cache unless caching is explicit; Anthropic only at a breakpoint."""
    long = [{"role": "user", "content": "слово " * 1000}]
    usage = _openai(server, messages=long)[1]["usage"]
    assert usage["prompt_tokens_details"]["cache_write_tokens"] == usage["prompt_tokens"] > 1024
    usage = _openai(server, messages=long, prompt_cache_options={"mode": "explicit"})[1]["usage"]
    assert usage["prompt_tokens_details"]["cache_write_tokens"] == 0
    assert _openai(server)[1]["usage"]["prompt_tokens_details"]["cache_write_tokens"] == 0
    block = {"type": "text", "text": "слово " * 1000, "cache_control": {"type": "ephemeral"}}
    usage = _anthropic(server, system=[block])[1]["usage"]
    assert usage["cache_creation_input_tokens"] == usage["cache_creation"]["ephemeral_5m_input_tokens"] == 3000
    assert 0 < usage["input_tokens"] < 100
    assert _anthropic(server, system="слово " * 1000)[1]["usage"]["cache_creation_input_tokens"] == 0


def test_balance_and_models(server: Running) -> None:
    """The free look-ups a doctor command makes; none is counted as a request."""
    before = dict(server.books.as_dict())
    key = {"authorization": f"Bearer {DEEPSEEK_KEY}"}
    balance = httpx2.get(f"{server.url}/deepseek/user/balance", headers=key, timeout=60).json()
    assert balance["is_available"] is True
    models = httpx2.get(f"{server.url}/deepseek/models", headers=key, timeout=60).json()["data"]
    assert [model["id"] for model in models] == ["deepseek-flash", "deepseek-v4-pro"]
    assert httpx2.get(f"{server.url}/deepseek/models", timeout=60).status_code == 401
    assert server.books.as_dict() == before


def test_schema_rules_reach_every_depth() -> None:
    """A mistake deep in a schema is found; a good one passes both vendors."""
    assert strict_problem(SCORES) is None
    assert schema_problem(SCORES) is None
    deep = closed({"a": {"type": "array", "items": {"anyOf": [closed({"b": {"type": "object", "properties": {}}})]}}})
    assert "additionalProperties" in (strict_problem(deep) or "")
    many = closed({f"p{number}": {"type": ["string", "null"]} for number in range(17)})
    assert "union" in (schema_problem(many) or "")
    optional = closed({f"p{number}": {"type": "string"} for number in range(25)}) | {"required": []}
    assert "optional" in (schema_problem(optional) or "")
    loop = closed({"a": {"$ref": "#/$defs/A"}}) | {"$defs": {"A": closed({"a": {"$ref": "#/$defs/A"}})}}
    assert "Recursive" in (schema_problem(loop) or "")
