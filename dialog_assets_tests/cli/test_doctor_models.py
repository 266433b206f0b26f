"""Doctor tells before a night what it would stop at: keys, addresses and models of the LLM vendors, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from dialog_assets.cli.doctor import models
from dialog_assets.cli.doctor.examination import Check, examine_all
from dialog_assets.llm import prices
from dialog_assets.portals import Portal
from dialog_assets_tests.analysis.support import portal

KEY = "sk-people-know-this"
LIST = json.dumps({"data": [{"id": "gpt-6-luna"}, {"id": "gpt-6.1-terra-2026-10-01"}]}).encode()


@contextmanager
def vendor(
    status: int = 200, body: bytes = LIST, headers: dict[str, str] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """A vendor that answers everything so: its address, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def findings(one: Portal) -> list[tuple[str, str]]:
    """What doctor finds about the portal's only vendor, every sentence once: (state, sentence)."""
    choice = one.llm.correction
    uses = [(one, use, choice) for use in ("correction", "classification", "criteria", "summary")]
    found: list[tuple[str, str]] = [(each.state, each.sentence) for each in asyncio.run(models.examine(uses))]
    assert not any(KEY in sentence for _, sentence in found)
    return found


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_models_that_the_account_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, or by the name of a dated version of it."""
    for model in ("gpt-6-luna", "gpt-6.1-terra"):
        with vendor() as (url, asked):
            monkeypatch.setenv("OPENAI_BASE_URL", url)
            assert findings(portal(model=model)) == [("ok", "key in OPENAI_API_KEY is accepted")]
        assert asked == ["/v1/models"]


def test_a_model_that_the_account_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a price, but this account may not ask it."""
    with vendor() as (url, _):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        found = findings(portal(model="gpt-6-sol"))
    assert found[0] == ("ok", "key in OPENAI_API_KEY is accepted")
    ((state, told),) = found[1:]
    assert state == "fail"
    assert "the account has no model gpt-6-sol (llm.summary of okna_sever)" in told


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("gpt-5-unheard-of", "llm.criteria of okna_sever: model gpt-5-unheard-of has no price"),
        ("GPT-6-luna", "llm.criteria of okna_sever: model GPT-6-luna has no price"),
        (
            "deepseek-flash",
            "llm.criteria of okna_sever: model deepseek-flash belongs to deepseek, not to openai.",
        ),
    ],
)
def test_a_model_that_is_unknown_or_another_vendors(model: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each use that names it is told, also when the vendor lists it."""
    with vendor(body=json.dumps({"data": [{"id": model}]}).encode()) as (url, _):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        found = findings(portal(model=model))
    assert [state for state, _ in found] == ["ok", *["fail"] * 4]
    assert any(sentence.startswith(told) for _, sentence in found)


@pytest.mark.parametrize(
    ("days", "state", "told"),
    [
        (-1, "fail", "was switched off"),
        (0, "fail", "was switched off"),
        (29, "warn", "will be switched off"),
        (31, None, ""),
    ],
)
def test_a_model_that_ends(days: int, state: str | None, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its end a night cannot use it; a month before, it is told."""
    end = datetime.now(UTC).date() + timedelta(days=days)
    ending = prices.model_price("gpt-6-luna").model_copy(update={"shutdown": end})
    monkeypatch.setattr(models, "model_price", lambda _: ending)
    with vendor() as (url, _):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        found = findings(portal())
    assert [each for each, _ in found] == ["ok", *([state] * 4 if state else [])]
    assert all(f"model gpt-6-luna {told} on {end}: name another." in sentence for _, sentence in found[1:])


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (301, "OPENAI_BASE_URL leads elsewhere (HTTP 301)"),
        (302, "OPENAI_BASE_URL leads elsewhere (HTTP 302)"),
        (307, "OPENAI_BASE_URL leads elsewhere (HTTP 307)"),
        (308, "OPENAI_BASE_URL leads elsewhere (HTTP 308)"),
        (401, "openai refuses the key in OPENAI_API_KEY (HTTP 401)"),
        (403, "openai refuses the key in OPENAI_API_KEY (HTTP 403)"),
        (402, "openai answers HTTP 402 to the list of models: check the account"),
        (429, "openai answers HTTP 429 to the list of models: try again later"),
        (503, "openai answers HTTP 503 to the list of models: try again later"),
    ],
)
def test_a_vendor_that_does_not_take_the_key(status: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect is not followed: the key would go there too."""
    with vendor() as (other, elsewhere), vendor(status, b"", {"Location": f"{other}/models"}) as (url, asked):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        ((state, sentence),) = findings(portal())
    assert state == "fail"
    assert sentence.startswith(told)
    assert (len(asked), elsewhere) == (1, [])


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"not found"),
        (200, b""),
        (200, b"<html>login</html>"),
        (200, b"null"),
        (200, b'"data"'),
        (200, b'{"data": null}'),
        (200, b'{"data": {"id": 1}}'),
        (200, b'{"data": [null, 1, {"id": null}, {"id": ["x"]}]}'),
        pytest.param(200, b"[" * 100_000, id="deep"),
        (200, b"\xff\xfe\x00"),
    ],
)
def test_a_service_without_a_list(status: int, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which models there are is then not known, and nothing is said against them."""
    with vendor(status, body) as (url, _):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        assert findings(portal()) == [("ok", "key in OPENAI_API_KEY is accepted")]


@pytest.mark.parametrize("key", ["sk-secrеt", "«sk-secret»", "sk\u200b-secret", "sk-sec\nret", "sk sec ret"])
def test_a_key_of_a_form_that_none_has_is_told_and_not_sent(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The finding names the variable and the letter's place; the vendor is not asked."""
    one = portal()
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with vendor() as (url, asked):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        look = lambda: models.examine([(one, "correction", one.llm.correction)])  # noqa: E731
        (found,) = asyncio.run(examine_all([Check("LLM openai", look)]))
    assert found.state == "fail"
    assert found.sentence.startswith("OPENAI_API_KEY cannot hold the API key of openai: its character")
    assert "sec" not in found.sentence
    assert asked == []
