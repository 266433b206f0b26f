"""Proxies of the environment are checked before a night, and their passwords told nowhere."""

from __future__ import annotations

import asyncio
from datetime import date

import httpx2
import pytest

from dialog_assets import proxies
from dialog_assets.cli.doctor.examination import Check, examine_all
from dialog_assets.cli.doctor.network import on_the_way
from dialog_assets.portals import Portal
from dialog_assets_tests.end_to_end.week import run_range

BAD = [
    ("ALL_PROXY", "socks://user:pr0xypass@proxy:1080", "SOCKS"),
    ("all_proxy", "socks5h://user:pr0xypass@proxy:1080", "SOCKS"),
    ("HTTPS_PROXY", "ftp://user:pr0xypass@proxy:21", "http://host:port"),
    ("HTTP_PROXY", "http://user:pr0xypass@", "http://host:port"),
    ("https_proxy", "http://user:pr0xypass@proxy:port", "http://host:port"),
    ("HTTPS_PROXY", "http://user:pr0xypass@proxy:99999", "http://host:port"),
    ("HTTP_PROXY", "http://user:pr0xypass@pro xy:3128", "http://host:port"),
    ("HTTP_PROXY", "http://user:pr0xypass@[::1:3128", "http://host:port"),
    ("HTTP_PROXY", "http://user:pr0xypass@прокси:3128", "http://host:port"),
    ("GRPC_PROXY", "://pr0xypass", "http://host:port"),
]


@pytest.fixture(autouse=True)
def _none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "GRPC_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(("variable", "value", "told"), BAD)
def test_a_proxy_that_nothing_can_follow(variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the variable's name, in doctor too; never the address, which may hold a password."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(proxies.ProxyUnusable, match=told) as caught:
        proxies.check()
    assert str(caught.value).startswith(variable)
    assert "pr0xypass" not in str(caught.value)
    [finding] = asyncio.run(examine_all([Check("proxies", on_the_way)]))
    assert (finding.state, finding.sentence) == ("fail", str(caught.value))


@pytest.mark.parametrize(
    "value", ["http://proxy:3128", "proxy:3128", "https://u:p%40@proxy.example", "http://[::1]:3128"]
)
def test_a_proxy_that_clients_follow(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is let through can be used by the HTTP client."""
    monkeypatch.setenv("HTTPS_PROXY", value)
    assert proxies.check() == "by HTTPS_PROXY"
    httpx2.Client().close()


def test_addresses_on_this_machine_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local storage behind a proxy is a warning until NO_PROXY names its host; a local LLM is never asked through one."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000")
    monkeypatch.setenv("VOICEKIT_ENDPOINT", "localhost:50051")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
    assert proxies.caught() == []
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    assert proxies.caught() == ["AWS_ENDPOINT_URL_S3", "VOICEKIT_ENDPOINT"]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1, localhost")
    assert proxies.caught() == []


def test_a_run_stops_with_the_sentence(
    database: str, portals: list[Portal], monkeypatch: pytest.MonkeyPatch, sandbox: object
) -> None:
    """A step ends before any client is opened."""
    monkeypatch.setenv("ALL_PROXY", "socks://user:pr0xypass@proxy:1080")
    result = run_range(portals[0], date(2026, 3, 2), date(2026, 3, 2), ("calls",))
    [failure] = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.user_failure_data is not None
    assert "ALL_PROXY names a SOCKS proxy" in str(failure.user_failure_data.description)
