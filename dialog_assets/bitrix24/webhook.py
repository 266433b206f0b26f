"""The credential of an inbound webhook: where methods are, what must never be shown (facts/bitrix24.md 1.1)."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from dialog_assets.bitrix24.credentials import Access, renamed, without
from dialog_assets.bitrix24.errors import Bitrix24AccessError
from dialog_assets.hosts import is_loopback, origin, origin_of

_PATH = re.compile(r"^(?P<prefix>/.*)?/rest/(?P<user>\d+)/(?P<secret>[^/]+)/?$")


class Webhook:
    """An inbound webhook URL `https://{portal}/rest/{user}/{secret}/`; its repr holds no secret.

    `plain_http`: http:// is allowed to other machines too. Raises Bitrix24AccessError when the URL has another form, without
    repeating it.
    """

    is_application = False

    def __init__(self, url: str, *, plain_http: bool = False) -> None:
        try:
            parts = urlsplit(url.strip())
            place = origin(parts.scheme, parts.hostname or "", parts.port)
        except ValueError:
            parts, place = urlsplit(""), ""
        path = _PATH.match(parts.path)
        if parts.scheme not in ("https", "http") or not parts.hostname or path is None or parts.query or parts.username:
            raise Bitrix24AccessError(
                "webhook_url", advice="expected the inbound webhook's URL: https://PORTAL/rest/USER/SECRET/"
            )
        if parts.scheme == "http" and not (plain_http or is_loopback(parts.hostname)):
            raise Bitrix24AccessError(
                "plain_http",
                advice=f"the webhook URL begins with http://, so its secret would cross the network for all to read: write "
                f"https://{parts.hostname}/…, or allow it by bitrix24.plain_http in the portal file",
            )
        self._secret = path["secret"]
        self._access = Access(f"{place}{parts.path.rstrip('/')}/")

    def __repr__(self) -> str:
        return f"Webhook({self.origin})"

    @property
    def origin(self) -> str:
        """Where the portal is now."""
        return origin_of(self._access.base) or ""

    async def access(self) -> Access:
        """Always the same secret, at the portal's present domain."""
        return self._access

    async def renewed(self, used: Access) -> Access | None:  # noqa: ARG002 - the protocol's signature
        """A webhook has nothing to renew."""
        return None

    def hide(self, text: str) -> str:
        """`text` with this webhook's secret replaced."""
        return without(text, self._secret)

    def follow(self, used: Access, method: str, location: str) -> bool:
        """Take over the portal's new domain."""
        base = renamed(used.base, method, location)
        if base is None:
            return False
        self._access = Access(base)
        return True
