"""What a request is sent with: the protocol that webhook.py and oauth.py keep, and how a renamed portal is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from dialog_assets.hosts import origin, origin_of


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


_SHORTEST_SECRET = 6
"""What is shorter is nobody's secret, and would be found in any text."""


def without(text: str, *secrets: str) -> str:
    """`text` with `…` in the place of each secret."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "…")
    return text
