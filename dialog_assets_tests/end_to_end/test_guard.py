"""What reaches Dagster's webserver in `make ui`: nothing that another site's page can send, nor one of another name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dialog_assets.cli.guard import Guard

MINE = "127.0.0.1:3000"
Header = tuple[str, str]


def answer(guard_hosts: tuple[str, ...], scope: dict[str, Any], headers: list[Header]) -> int:
    """The status that comes back; 200 is the app's, 403 also a WebSocket that is not accepted."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    asyncio.run(Guard(app, guard_hosts)({"query_string": b"", **scope, "headers": raw}, receive, send))
    if sent[0]["type"] == "websocket.close":
        return 403
    return int(sent[0]["status"])


def http(
    method: str = "GET", path: str = "/", query: bytes = b"", host: str | None = MINE, **headers: str
) -> tuple[dict[str, Any], list[Header]]:
    """A request; header names with _ for -."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": query}
    return scope, [("host", host), *named] if host is not None else named


def socket(host: str = MINE, **headers: str) -> tuple[dict[str, Any], list[Header]]:
    """A WebSocket's opening."""
    scope, named = http("GET", "/graphql", b"", host, **headers)
    return {**scope, "type": "websocket"}, named


@pytest.mark.parametrize(
    "request_",
    [
        http(),
        http(host="localhost:3000"),
        http(host="LOCALHOST"),
        http(host="[::1]:3000"),
        http(path="/graphql"),
        http("POST", "/graphql", Origin=f"http://{MINE}", Sec_Fetch_Site="same-origin"),
        http("POST", "/graphql"),
        http("GET", "/locations", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate"),
        http("GET", "/runs", b"q=1", Sec_Fetch_Site="none"),
        socket(Origin=f"http://{MINE}"),
        socket(),
    ],
)
def test_the_uis_own_requests_pass(request_: tuple[dict[str, Any], list[Header]]) -> None:
    """Pages of the UI, programs on this machine, and a link that leads to it."""
    assert answer((), *request_) == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        # another name that leads here
        (http(host="evil.example"), 421),
        (http(host="evil.example:3000"), 421),
        (http(host="127.0.0.1.evil.example"), 421),
        (http(host="127.0.0.1@evil.example"), 421),
        (http(host="localhost."), 421),
        (http(host=""), 421),
        (http(host=None), 421),
        (http(host=MINE, Host="evil.example"), 421),
        # another site's page
        (http("POST", "/graphql", Origin="https://evil.example"), 403),
        (http("POST", "/graphql", Origin="null"), 403),
        (http("POST", "/graphql", Origin=f"http://{MINE}.evil.example"), 403),
        (http("POST", "/graphql", Origin="http://127.0.0.1:8080"), 403),
        (http("POST", "/graphql", Origin="file://"), 403),
        (http("POST", "/report_asset_materialization/a/calls", Origin="https://evil.example"), 403),
        (http("GET", "/graphql", b"query=mutation", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors"), 403),
        (http("GET", "/logs/x", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors"), 403),
        (http("POST", "/graphql", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate"), 403),
        (http("POST", "/graphql", Sec_Fetch_Site="same-site"), 403),
        # GraphQL by anything but POST
        (http("GET", "/graphql", b"query=mutation%7BstartSchedule"), 405),
        (http("GET", "/graphql/", b"query=x"), 405),
        (http("GET", "/GraphQL", b"query=x"), 405),
        (http("HEAD", "/graphql", b"query=x"), 405),
        (http("GET", "/graphql", b"query=x", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate"), 405),
        (http("PUT", "/graphql"), 405),
        # WebSockets
        (socket(Origin="https://evil.example"), 403),
        (socket(Origin="null"), 403),
        (socket(host="evil.example:3000", Origin="http://evil.example:3000"), 403),
    ],
)
def test_what_does_not_pass(request_: tuple[dict[str, Any], list[Header]], status: int) -> None:
    """A name that an attacker has pointed at loopback, another site's page, a mutation in an address."""
    assert answer((), *request_) == status


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("dagster.acme.example", "https://dagster.acme.example", 200),
        ("Dagster.Acme.example:443", "https://dagster.acme.example", 200),
        (MINE, "https://dagster.acme.example", 200),
        ("dagster.acme.example", "https://acme.example", 403),
        ("other.acme.example", "https://dagster.acme.example", 421),
    ],
)
def test_a_proxy_in_front(host: str, origin: str, status: int) -> None:
    """A proxy's name that is set passes, with its own pages, and no other."""
    assert answer((" Dagster.acme.example",), *http("POST", "/graphql", host=host, Origin=origin)) == status
