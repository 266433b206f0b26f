"""A portal's links to its own files, brought to the address at which it really is reached.

A portal behind a proxy often does not know its own scheme and port, or believes to be another host. A link of it holds the
credential, so it goes to the portal's origin and nowhere else: the host in it only tells whether it is the portal's at all.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urljoin, urlsplit, urlunsplit

from dialog_assets.hosts import host_of

_UNSAFE = re.compile(r"[\s\\\x00-\x1f\x7f]")


class ForeignLinkError(Exception):
    """A link to a host that is not known to be the portal's; `host` is that host."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(host)


def own_link(link: str, origin: str, hosts: Collection[str] = ()) -> str:
    """`link` at the portal's `origin`. `hosts` are further names that the portal believes to have.

    Raises ForeignLinkError for another host, ValueError for what is no link to open.
    """
    text = link.strip()
    if not text or _UNSAFE.search(text):
        raise ValueError("no address")
    parts, own = urlsplit(urljoin(f"{origin}/", text)), urlsplit(origin)
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or not parts.hostname:
        raise ValueError("no address")
    _ = parts.port  # raises ValueError where it is none
    host = host_of(parts.hostname)
    known = {_bare(own.hostname or ""), *(_bare(one.partition(":")[0]) for one in hosts)}
    if _bare(host) not in known:
        raise ForeignLinkError(host)
    return urlunsplit((own.scheme, own.netloc, parts.path, parts.query, ""))


def _bare(host: str) -> str:
    return host_of(host).removeprefix("www.")
