"""What a request is sent with: the protocol that webhook.py and oauth.py keep, and addresses as comparable texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Access:
    """Where methods are (`base` + name + `.json`; a webhook's base is a secret), and the token that goes into the body."""

    base: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    version: int = 0


class Credential(Protocol):
    """One portal's door. Its repr and its errors hold no secret."""

    @property
    def origin(self) -> str:
        """`https://host[:port]` of the portal, as it is now; no secret."""

    @property
    def is_application(self) -> bool:
        """Whether this is an OAuth application: some methods and links are theirs only."""

    async def access(self) -> Access:
        """What the next request is sent with."""

    async def renewed(self, used: Access) -> Access | None:
        """What to repeat a request with after expired_token; None where nothing expires. Many may ask, one renews."""

    def hide(self, text: str) -> str:
        """`text` without this credential's secrets."""

    def follow(self, used: Access, method: str, location: str) -> bool:
        """Take over the new domain of a renamed portal; False when `location` is something else."""


def renamed(base: str, method: str, location: str) -> str | None:
    """The base at a portal's new domain, None when the redirect is no rename.

    Only the very same path over the same scheme counts: a login page or a proxy leads elsewhere, and a webhook's path
    shows that the new place knows the secret already.
    """
    old = urlsplit(base)
    try:
        new = urlsplit(location)
        moved = origin(new.scheme, new.hostname or "", new.port)
    except ValueError:
        return None
    if (
        not new.hostname
        or new.scheme != old.scheme
        or moved == origin_of(base)
        or new.path != f"{old.path}{method}.json"
    ):
        return None
    return f"{moved}{old.path}"


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


_SHORTEST_SECRET = 6
"""What is shorter is nobody's secret, and would be found in any text."""


def without(text: str, *secrets: str) -> str:
    """`text` with `…` in the place of each secret."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "…")
    return text
