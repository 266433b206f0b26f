"""The proxies that the environment names, which every client of this process follows: whether they can be followed.

A proxy of a kind that a library does not know is a traceback of that library, in the middle of a night. Here: what the
variables hold, told without the password that a proxy's address may have. Not here: how a library goes through a proxy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from urllib.parse import SplitResult, urlsplit

from dialog_assets.errors import DialogAssetsError
from dialog_assets.hosts import is_loopback

_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "GRPC_PROXY")
_ADDRESSES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "VOICEKIT_ENDPOINT", "VOICEKIT_STORAGE_URL")
"""Variables with an address that may be on this machine. LLM vendors' are not among them: their clients ask it directly."""


class ProxyUnusable(DialogAssetsError):
    """A proxy that the environment names cannot be used."""


def check() -> str:
    """Which variables name a proxy, as a sentence. Raises ProxyUnusable for one that no client could follow."""
    named = dict(_proxies(os.environ))
    for variable, value in named.items():
        _split(variable, value)
    return f"by {', '.join(named)}" if named else "none"


def caught() -> list[str]:
    """The variables whose address is on this machine and would be asked for through a proxy, since NO_PROXY leaves it out."""
    if not dict(_proxies(os.environ)):
        return []
    outside = {host.strip() for host in _either(os.environ, "NO_PROXY").split(",")}
    found = []
    for variable in _ADDRESSES:
        value = os.environ.get(variable, "")
        host = _host(value if "://" in value else f"//{value}")
        if host and is_loopback(host) and not outside & {host, "*"}:
            found.append(variable)
    return found


def _proxies(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(variable, value) of each proxy; the small letters win, as in the libraries."""
    for name in _VARIABLES:
        if value := _either(environment, name):
            yield (name.lower() if environment.get(name.lower(), "").strip() else name), value


def _either(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name.lower(), "").strip() or environment.get(name, "").strip()


def _split(variable: str, value: str) -> SplitResult:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = SplitResult("", "", "", "", "")
    if parts.scheme.startswith("socks"):
        raise ProxyUnusable(
            f"{variable} names a SOCKS proxy, which S3 and VoiceKit's clients cannot use: name an http:// proxy in "
            "HTTPS_PROXY instead, or unset it."
        )
    unreadable = not value.isascii() or any(char.isspace() for char in value)
    if not host or unreadable or port == 0 or parts.scheme not in ("http", "https"):
        raise ProxyUnusable(
            f"{variable} is no address of a proxy: it is written http://host:port, with a user and password percent-encoded."
        )
    return parts


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
