"""Who asks for what: from a request's path, query and body to portal, method and credential (facts/bitrix24.md 1.1, 1.4).

Here: both URL forms, downloads, the activity's file, reading parameters. Not here: limits, what a method does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

from dialog_assets.sandbox.bitrix24_batch import method_name
from dialog_assets.sandbox.bitrix24_calling import Access, MethodError, PortalState
from dialog_assets.sandbox.bitrix24_faults import bad_webhook
from dialog_assets.sandbox.bitrix24_oauth import OAuth
from dialog_assets.sandbox.bitrix24_php import parse_json, parse_query

DOWNLOAD, ACTIVITY_FILE = "download", "download.activity"
_WEBHOOK_PATH = re.compile(r"/rest/(\d+)/([^/]+)/([^/]+)/?")
_OAUTH_PATH = re.compile(r"/rest/([^/]+)/?")
_ACTIVITY_PATH = "/bitrix/tools/crm_show_file.php"
_APP_ONLY = ("event.bind", "event.offline.", "placement.bind", "telephony.externalline.")
_APP_ONLY_CALLS = ("telephony.externalcall.register", "telephony.externalcall.finish")


@dataclass(frozen=True)
class Visit:
    """A request to a portal; its token, if any, was given once but may have expired."""

    state: PortalState
    method: str
    access: Access
    params: dict[str, Any]


class Door:
    """Finds the portal behind a credential."""

    def __init__(self, portals: Mapping[str, PortalState], oauth: OAuth) -> None:
        self._oauth = oauth
        self._portals = portals
        self._by_webhook = {
            (state.portal.webhook_user, state.portal.webhook_secret): state for state in portals.values()
        }

    async def visit(self, request: Request) -> Visit:
        """Whose request this is. Raises MethodError for a credential that was never given."""
        path = request.url.path
        webhook = _WEBHOOK_PATH.fullmatch(path)
        if webhook is not None:
            user, secret, name = webhook.groups()
            state = self._by_webhook.get((int(user), secret))
            if state is None:
                raise bad_webhook(self._refused_status(int(user)))
            return Visit(state, method_name(name), Access(f"webhook {user}", int(user)), await read_params(request))
        application = _OAUTH_PATH.fullmatch(path)
        if application is None and path != _ACTIVITY_PATH:
            raise _no_auth()
        params = await read_params(request)
        token = params.pop("auth", None)
        if not isinstance(token, str) or not token:
            raise _no_auth()
        app = self._oauth.who(token)
        method = ACTIVITY_FILE if application is None else method_name(application.group(1))
        return Visit(app.state, method, Access(f"app {app.client_id}", app.user, token), params)

    def _refused_status(self, user: int) -> int:
        """The portal is not known by a wrong secret: the first one with this webhook user lends its habit."""
        states = (state for state in self._portals.values() if state.portal.webhook_user == user)
        return next((state.habits.bad_webhook_status for state in states), 401)


def _no_auth() -> MethodError:
    return MethodError("NO_AUTH_FOUND", "Wrong authorization data", 401)


def check_auth_type(method: str, access: Access) -> None:
    """Refuse a webhook what only applications may do. Raises MethodError."""
    if access.token is None and (method.startswith(_APP_ONLY) or method in _APP_ONLY_CALLS):
        raise MethodError("WRONG_AUTH_TYPE", "Current authorization type is denied for this method", 403)


async def read_params(request: Request) -> dict[str, Any]:
    """Parameters of query and body, the body's over the query's; a broken JSON body has none (facts 1.1)."""
    params = parse_query(request.url.query)
    if request.method != "POST":
        return params
    content_type = request.headers.get("content-type", "").lower().partition(";")[0].strip()
    if content_type == "multipart/form-data":
        async with request.form() as form:
            return {**params, **parse_query(urlencode([(k, v) for k, v in form.multi_items() if isinstance(v, str)]))}
    body = await request.body()
    readers: dict[str, Callable[[bytes], dict[str, Any]]] = {
        "application/json": parse_json,
        "application/x-www-form-urlencoded": lambda data: parse_query(data.decode(errors="replace")),
    }
    reader = readers.get(content_type)
    return {**params, **reader(body)} if reader is not None else params
