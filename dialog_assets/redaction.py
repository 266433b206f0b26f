"""Credentials taken out of what a portal sent, before any of it is kept (rule 5).

File fields of CRM objects hold links with the access token or the webhook in them, people paste such links into texts, and
either may stand as JSON inside a text, or percent-encoded inside another link.
Here: what counts as a credential, by the name beside it and by its place in an address. Not here: the credential of one
portal, which its client takes out of every answer by its value (bitrix24/client.py); people's data, which rows keep.
Every expression is linear: a row is a stranger's text of any length.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from dialog_assets.hosts import origin_of

HIDDEN = "…"

_NAMES = (
    "auth|auth_?id|authorization|access_?token|refresh_?token|refresh_?id|token|app_?sid|sessid|phpsessid|jwt|bearer|"
    "secret|password|passwd|pwd|api_?key|private_?key|sign|sig|signature|x-amz-credential|awsaccesskeyid|credentials?|"
    "[a-z0-9]{1,20}[_-]?(?:token|secret|password|sessid|signature)"
)
"""Names that stand beside a credential, in queries, forms, JSON and headers; parts before `_` and `-` are passed over."""

_KEY = re.compile(rf"(?:[a-z0-9]{{1,30}}[_-]){{0,4}}(?:{_NAMES})", re.IGNORECASE)
"""Of an object: `auth`, `AUTH_ID`, `accessToken`, `UF_CRM_ACCESS_TOKEN`."""

_LINK_KEY = re.compile(r"(?:url_?machine|url_?download|download_?url|url_?file|file_?url)", re.IGNORECASE)
"""Links made for one reader: all of them but the host is that reader's."""

_ESCAPED = r"\\{0,15}"
_PERCENT = r"%(?:25){0,4}"
_QUOTE = rf"(?:{_ESCAPED}[\"']|{_ESCAPED}u002[27]|&quot;|&#0?3[49];|{_PERCENT}2[27])?"
_SEPARATOR = (
    rf"(?:\[[^\]=&\s]{{0,40}}\])?(?:=|{_PERCENT}3d|{_ESCAPED}u003d)"
    rf"|{_QUOTE}[ \t]{{0,3}}(?::|{_PERCENT}3a|=>|=)[ \t]{{0,3}}"
)
"""Between a name and its value: `=`, `":"`, and both as they look inside links and JSON that are values themselves."""

_SCHEME = r"(?:(?:bearer|basic)(?:[ +]|%20))?+"
_VALUE = (
    rf"(?:{_ESCAPED}/|(?!{_PERCENT}(?:2[026]|7d|5d|0[ad]|3b)|&)"
    r"[^&;,#\"'<>\s\\{}\[\]()])+"
)
_NAMED = re.compile(
    rf"(?:(?<![a-z0-9])|(?<=%3f)|(?<=%26)|(?<=%22)|(?<=%2[03c])|(?<=%7b)|(?<=%5b)|(?<=253f)|(?<=2526)|(?<=2522)|(?<=u0026))"
    rf"((?:{_NAMES})(?:{_SEPARATOR}){_QUOTE}{_SCHEME})(?!{HIDDEN}){_VALUE}",
    re.IGNORECASE,
)
_QUERY_KEY = re.compile(
    rf"((?:[?&]|{_PERCENT}(?:3f|26)|{_ESCAPED}u0026|(?<=&amp;))(?:key|code|hash|k|s)(?:=|{_PERCENT}3d|{_ESCAPED}u003d))"
    rf"(?!{HIDDEN}){_VALUE}",
    re.IGNORECASE,
)
_SLASH = rf"(?:{_ESCAPED}/|{_PERCENT}2f|{_ESCAPED}u002f)"
_WEBHOOK = re.compile(
    rf"(rest{_SLASH}{{1,3}}(?:api{_SLASH}{{1,3}})?[0-9]{{1,12}}{_SLASH}{{1,3}})(?!{HIDDEN})[a-z0-9_.~-]+", re.IGNORECASE
)
_USER = re.compile(rf"(:{_SLASH}{{2}})[^/\s?#\"'<>]{{1,200}}@")

_SEPARATES = re.compile(r"[=:/%\\@]")
_MARKS = (
    *("auth", "token", "sid", "sess", "jwt", "bearer", "secret", "passw", "pwd", "key", "sig", "credential", "rest"),
    *("?", "&", "@", "%3f", "%25", "%26", "u0026"),
)
"""Most texts have nothing of these, and are spared the expressions."""

_SHORTEST = 6


def without_secrets(text: str) -> str:
    """`text` with `…` in the place of each credential in it."""
    if len(text) < _SHORTEST or _SEPARATES.search(text) is None:
        return text
    lowered = text.lower()
    if not any(mark in lowered for mark in _MARKS):
        return text
    text = _WEBHOOK.sub(rf"\1{HIDDEN}", text)
    text = _NAMED.sub(rf"\1{HIDDEN}", text)
    text = _QUERY_KEY.sub(rf"\1{HIDDEN}", text)
    return _USER.sub(rf"\1{HIDDEN}@", text) if "@" in text else text


def redacted(value: Any) -> Any:
    """A decoded JSON value without the credentials in it, at any depth."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        told = {name: kept_under(name, inner) for name, inner in value.items()}
        return {
            without_secrets(name): redacted(inner) if told[name] is None else told[name]
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [redacted(inner) for inner in value]
    return value


def kept_under(name: object, value: Any) -> Any:
    """What is kept of a value that an object has under `name`; None where the name says nothing about it."""
    kind = name_kind(name) if isinstance(name, str) else ""
    if kind == "secret":
        return _hidden(value)
    return host_only(value) if kind == "link" else None


def host_only(link: Any) -> Any:
    """`https://host[:port]/…` of a link, `…` of another text, in lists and objects too; nothing stays nothing."""
    if isinstance(link, str) and link:
        found = _HOST.match(link)
        place = origin_of(f"{found[1] or 'https:'}//{found[2]}") if found else None
        if found is None or place is None:
            return HIDDEN
        return f"{place if found[1] else place.removeprefix('https:')}/{HIDDEN}"
    if isinstance(link, dict):
        return {name: host_only(value) for name, value in link.items()}
    if isinstance(link, list):
        return [host_only(value) for value in link]
    return link


_HOST = re.compile(
    r"([a-z][a-z0-9+.-]{0,20}:)?//(?:[^/\\?#@\s]{0,200}@)?(\[[0-9a-f:.]{2,60}\](?::\d{1,5})?|[^/?#@\\\s\[\]]{1,260})",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def name_kind(name: str) -> str:
    """`secret` for a name beside credentials, `link` for one of links that are credentials, `""` for all others."""
    if len(name) > 120:
        return ""
    if _LINK_KEY.fullmatch(name):
        return "link"
    return "secret" if _KEY.fullmatch(name) else ""


def _hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _hidden(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_hidden(inner) for inner in value]
    return value if value is None or value == "" or isinstance(value, bool) else HIDDEN
