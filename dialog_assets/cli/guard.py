"""The guard in front of Dagster's webserver, which itself takes a mutation from any page that a browser has open.

Here: which requests pass. They must name a host that the UI is known by (a name that an attacker has pointed at loopback is
none), must not come from another site's page, and ask GraphQL by POST. Not here: who may sign in; that is a proxy's work.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
SAFE = ("GET", "HEAD")
POLICY_VIOLATION = 1008


class Guard:
    """ASGI middleware: passes on what may reach `app`, answers the rest with one sentence.

    `hosts` are the names, without port, that the UI is known by beside loopback's own: those of a proxy in front.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = {*LOOPBACK, *(host.strip().lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or WebSocket."""
        refused = self._refused(scope) if scope["type"] in ("http", "websocket") else None
        if refused is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            # Before it is accepted; the server answers 403.
            await receive()
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refused[1][:100]})
        else:
            await PlainTextResponse(f"{refused[1]}\n", refused[0])(scope, receive, send)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence for a request that may not pass."""
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or _name(hosts[0]) not in self._hosts:
            return 421, "This address is not the UI's own; a proxy's name in front is set with DIALOG_ASSETS_UI_HOSTS."
        if any(not self._is_own(origin, hosts[0]) for origin in origins):
            return 403, "The request comes from another site's page."
        if scope["type"] == "websocket":
            return None
        method = scope["method"]
        # Browsers say so where they leave Origin out; a link from another page may open the UI, and no more.
        foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        opens_page = method in SAFE and headers.get("sec-fetch-mode") == "navigate"
        if foreign and not opens_page:
            return 403, "The request comes from another site's page."
        if _asks_graphql(scope["path"]) and method != "POST" and (method != "GET" or scope.get("query_string")):
            return 405, "GraphQL is asked by POST here."
        return None

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether the page is the UI's own: of the very host and port that is asked, or of a proxy's name."""
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            return False
        return parts.netloc.lower() == host.lower() or _name(parts.netloc) in self._hosts - set(LOOPBACK)


def _name(host: str) -> str | None:
    """The host without its port, in lower case; None for what is none."""
    host = host.lower()
    name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not colon:
        return host if not host.endswith("]") else name
    return name if port.isdigit() else None


def _asks_graphql(path: str) -> bool:
    return path.rstrip("/").rpartition("/")[2].lower() == "graphql"
