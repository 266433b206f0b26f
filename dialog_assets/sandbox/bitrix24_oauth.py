"""OAuth of the stand-in: one application per portal, its codes and tokens (facts/bitrix24.md 1.4).

Here: who gets which token, how long it lives, the answers of /oauth/token/ and /oauth/authorize/. Not here: what a
token may do. Tokens live by the sandbox's clock where it is set, else by the machine's.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from dialog_assets.sandbox.bitrix24_calling import MethodError, PortalState
from dialog_assets.sandbox.clock import Clock

ACCESS_SECONDS = 3600
REFRESH_SECONDS = 180 * 24 * 3600
CODE_SECONDS = 30


@dataclass(frozen=True)
class App:
    """A local application, installed on one portal by the webhook's user. The credentials are the sandbox's own."""

    state: PortalState
    client_id: str
    client_secret: str
    member_id: str

    @property
    def user(self) -> int:
        """Who installed it."""
        return self.state.portal.webhook_user


@dataclass(frozen=True)
class Grant:
    """What a code or token stands for; `expires` is unix time."""

    app: App
    expires: float


class OAuth:
    """All applications, codes and tokens."""

    def __init__(self, portals: Mapping[str, PortalState], clock: Clock) -> None:
        self._clock = clock
        self.apps = {
            name: App(state, f"local.sandbox.{name}", f"sandbox-{name}-client-secret", f"{name}-member".ljust(32, "0"))
            for name, state in portals.items()
        }
        self._by_client = {app.client_id: app for app in self.apps.values()}
        self.reset()

    def reset(self) -> None:
        """Back to the first tokens, as `first_tokens` tells them."""
        self._access: dict[str, Grant] = {}
        self._refresh: dict[str, Grant] = {}
        self._codes: dict[str, Grant] = {}
        for name, app in self.apps.items():
            access, refresh = self.first_tokens(name)
            self._access[access] = Grant(app, self._now() + ACCESS_SECONDS)
            self._refresh[refresh] = Grant(app, self._now() + REFRESH_SECONDS)

    @staticmethod
    def first_tokens(portal: str) -> tuple[str, str]:
        """Access and refresh token of a portal's application at the start."""
        return f"sandbox-{portal}-first-access-token", f"sandbox-{portal}-first-refresh-token"

    def who(self, token: str) -> App:
        """The application behind an access token, expired or not. Raises MethodError for one never given."""
        grant = self._access.get(token)
        if grant is None:
            raise MethodError("invalid_token", "Unable to get application by token", 401)
        return grant.app

    def check(self, token: str) -> App:
        """The application behind a good access token. Raises MethodError."""
        app = self.who(token)
        if self._access[token].expires <= self._now():
            raise expired()
        return app

    def expire(self, portal: str) -> None:
        """End the life of every access token of a portal."""
        for token, grant in self._access.items():
            if grant.app.state.portal.portal == portal:
                self._access[token] = Grant(grant.app, self._now())

    def code(self, portal: str) -> str:
        """What an administrator's consent gives: a code for 30 s, for one use."""
        code = secrets.token_hex(16)
        self._codes[code] = Grant(self.apps[portal], self._now() + CODE_SECONDS)
        return code

    def authorize(self, params: Mapping[str, Any], base_url: str) -> str:
        """Where /oauth/authorize/ sends the browser. Raises MethodError."""
        app = self._by_client.get(str(params.get("client_id")))
        if app is None:
            raise MethodError("invalid_client", "Unknown client_id")
        query = {
            "code": self.code(app.state.portal.portal),
            "state": str(params.get("state", "")),
            "domain": _domain(app, base_url),
            "member_id": app.member_id,
            "scope": ",".join(app.state.scopes),
            "server_domain": base_url.partition("://")[2],
        }
        return f"{params.get('redirect_uri') or 'http://127.0.0.1/'}?{urlencode(query)}"

    def token(self, params: Mapping[str, Any], base_url: str) -> dict[str, Any]:
        """The answer of /oauth/token/: a new pair of tokens; the refresh token that was used is void. Raises MethodError."""
        kind = params.get("grant_type")
        given = {"refresh_token": ("refresh_token", self._refresh), "authorization_code": ("code", self._codes)}
        if kind not in given:
            raise MethodError("invalid_request", "Wrong or missing grant_type")
        app = self._by_client.get(str(params.get("client_id")))
        if app is None or params.get("client_secret") != app.client_secret:
            raise MethodError("invalid_client", "Wrong client_id or client_secret")
        name, grants = given[kind]
        grant = grants.get(str(params.get(name)))
        if grant is None or grant.app is not app or grant.expires <= self._now():
            raise MethodError("invalid_grant", "The token or code is void")
        del grants[str(params[name])]
        return self._issue(app, base_url)

    def _issue(self, app: App, base_url: str) -> dict[str, Any]:
        access, refresh = secrets.token_hex(35), secrets.token_hex(35)
        now = self._now()
        self._access[access] = Grant(app, now + ACCESS_SECONDS)
        self._refresh[refresh] = Grant(app, now + REFRESH_SECONDS)
        portal_url = app.state.habits.renamed_to or base_url
        return {
            "access_token": access,
            "refresh_token": refresh,
            "expires": int(now) + ACCESS_SECONDS,
            "expires_in": ACCESS_SECONDS,
            "client_endpoint": f"{portal_url}/rest/",
            "server_endpoint": f"{base_url}/rest/",
            "domain": _domain(app, base_url),
            "member_id": app.member_id,
            "scope": ",".join(app.state.scopes),
            "status": "L",
            "user_id": app.user,
        }

    def _now(self) -> float:
        now: datetime | None = self._clock.now
        return time.time() if now is None else now.timestamp()


def expired() -> MethodError:
    """The refusal of an access token that was good."""
    return MethodError("expired_token", "The access token provided has expired.", 401)


def _domain(app: App, base_url: str) -> str:
    return (app.state.habits.renamed_to or base_url).partition("://")[2]
