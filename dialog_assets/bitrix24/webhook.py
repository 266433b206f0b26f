"""The credential of an inbound webhook: where methods are, what must never be shown. Other credentials belong beside it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from dialog_assets.bitrix24.errors import Bitrix24AccessError

_PATH = re.compile(r"^(?P<prefix>/.*)?/rest/(?P<user>\d+)/(?P<secret>[^/]+)/?$")


class Webhook:
    """An inbound webhook URL `https://{portal}/rest/{user}/{secret}/`; its repr holds no secret.

    Raises Bitrix24AccessError when the URL has another form, without repeating it.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        path = _PATH.match(parts.path)
        if parts.scheme not in ("https", "http") or not parts.hostname or path is None or parts.query or parts.username:
            raise Bitrix24AccessError(
                "webhook_url", advice="expected the inbound webhook's URL: https://PORTAL/rest/USER/SECRET/"
            )
        self.origin = origin(parts.scheme, parts.hostname, port)
        self._secret = path["secret"]
        self._path = parts.path.rstrip("/") + "/"

    def __repr__(self) -> str:
        return f"Webhook({self.origin})"

    def endpoint(self, method: str) -> str:
        """The URL of a method; a secret."""
        return f"{self.origin}{self._path}{method}.json"

    def hide(self, text: str) -> str:
        """`text` with this webhook's secret replaced."""
        return text.replace(self._secret, "…")

    def follow(self, method: str, location: str) -> bool:
        """Take over the new domain of a renamed portal; False when `location` is something else.

        Only the very same path over the same scheme counts as a rename: it shows that the new place knows the secret
        already, which a login page or a proxy does not.
        """
        parts = urlsplit(location)
        try:
            moved = origin(parts.scheme, parts.hostname or "", parts.port)
        except ValueError:
            return False
        if f"{parts.scheme}:" != self.origin.partition("//")[0] or not parts.hostname or moved == self.origin:
            return False
        if parts.path != f"{self._path}{method}.json":
            return False
        self.origin = moved
        return True


def origin(scheme: str, host: str, port: int | None) -> str:
    """`scheme://host[:port]`, lower-case, without a scheme's default port, so that equal places are equal texts."""
    shown = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}.get(scheme.lower())
    return f"{scheme}://{shown}".lower() + (f":{port}" if port not in (None, default) else "")


def origin_of(url: str) -> str | None:
    """The origin of a URL, None when it has none."""
    try:
        parts = urlsplit(url)
        return origin(parts.scheme, parts.hostname, parts.port) if parts.scheme and parts.hostname else None
    except ValueError:
        return None
