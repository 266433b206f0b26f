"""Hosts and origins as comparable texts: an international name is known by both its spellings (IDNA), case and dots aside.

Here: spelling. Not here: which host may be asked for what (bitrix24/outside.py, bitrix24/own_links.py).
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import idna


def host_of(name: str) -> str:
    """A host name in the form in which it is sent: `портал.рф.` is xn--80aswg… Raises ValueError for what is no host."""
    host = name.strip().lower()
    if ":" in host or (host.startswith("[") and host.endswith("]")):
        return ipaddress.IPv6Address(host.strip("[]").partition("%")[0]).compressed
    if not host.isascii():
        host = idna.encode(host, uts46=True).decode("ascii")
    return host.removesuffix(".")


def origin(scheme: str, host: str, port: int | None) -> str:
    """`scheme://host[:port]` without a scheme's default port, so that equal places are equal texts. Raises ValueError."""
    name = host_of(host)
    shown = f"[{name}]" if ":" in name else name
    default = {"http": 80, "https": 443}.get(scheme.lower())
    return f"{scheme.lower()}://{shown}" + (f":{port}" if port not in (None, default) else "")


def origin_of(url: str) -> str | None:
    """The origin of a URL, None when it has none."""
    try:
        parts = urlsplit(url)
        return origin(parts.scheme, parts.hostname, parts.port) if parts.scheme and parts.hostname else None
    except ValueError:
        return None


def place_of(name: str) -> str:
    """`host` or `host:port` of a portal file, as `origin_of` spells it for https. Raises ValueError."""
    found = origin_of(f"https://{name}")
    if found is None:
        raise ValueError(f"{name!r} is no host")
    return found.removeprefix("https://")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by name or address."""
    try:
        name = host_of(host)
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
