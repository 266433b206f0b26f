"""The bytes of an answer as JSON, or what came instead of it, and whom to ask about that.

Here: how much of an answer is read and for how long, encodings, text around the JSON, pages. Not here: what the JSON says
(errors.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx2

from dialog_assets.said import said

MAX_BYTES = 128 * 1024 * 1024
"""Unpacked. The largest answers have 2,500 CRM objects: fifty thousand characters for each of them."""

MAX_S = 180.0
"""From a request to its answer's head, and from there to its end: the cloud itself ends a request after 60 s."""

_BOM = b"\xef\xbb\xbf"
_LOGIN = ('type="password"', "type='password'", "user_login", "bx-auth", 'name="password"', "single sign", "keycloak")
_SHIELD = (
    *("captcha", "captcha-", "cloudflare", "cf-ray", "ddos", "qrator", "firewall", "bot protection", "just a moment"),
    *("servicepipe", "checking your browser", "проверка браузера", "доступ ограничен"),
)
_REPAIR = ("maintenance", "is being updated", "технические работы", "техническ", "обслуживан", "обновля")
_FEW = 4
"""Bytes of UTF-8 beyond ASCII that another encoding may show by chance."""
_ADMINISTRATOR = "ask the portal's administrator"


class TooLargeError(Exception):
    """An answer that is larger than any answer of a portal."""


@dataclass(frozen=True, slots=True)
class Odd:
    """What came instead of JSON: a code of ours, what to do, and whether it may pass by itself."""

    code: str
    advice: str
    passes: bool = False
    detail: str = ""
    always: bool = False
    """Whether it tells more than any HTTP status."""


async def read(response: httpx2.Response, limit: int = MAX_BYTES) -> bytes:
    """The unpacked body. Raises TooLargeError as soon as it is larger than `limit`, httpx2.RequestError."""
    pieces, size = [], 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > limit:
            raise TooLargeError
        pieces.append(piece)
    return b"".join(pieces)


def decoded(content: bytes) -> tuple[Any, Odd | None]:
    """The JSON of an answer, or None and what came instead. Byte order marks before it are passed over."""
    while content.startswith(_BOM):
        content = content[len(_BOM) :]
    if not content.strip():
        return None, Odd(
            "empty_answer", f"the answer is empty; if it stays so, {_ADMINISTRATOR} for PHP's log", passes=True
        )
    try:
        text = content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as error:
        return None, _not_utf8(content, error)
    try:
        return json.loads(text), None
    except RecursionError:
        return None, Odd("nested_answer", f"the answer's JSON is nested without end: {_ADMINISTRATOR}")
    except ValueError as error:
        return None, _no_json(text, error)


def _not_utf8(content: bytes, error: UnicodeDecodeError) -> Odd:
    how = f"byte {error.start} of {len(content)} is none of UTF-8"
    try:
        whole = json.loads(content.decode("cp1251"))
    except (ValueError, RecursionError):
        whole = None
    if whole is None:
        page = _page(content[:20_000].decode("cp1251", "replace").lower())
        if page is not None:
            return page
        how += ", and the answer is no JSON either"
    elif len(content.decode("utf-8", "ignore").encode()) - len(content.decode("ascii", "ignore")) < _FEW:
        how += "; it reads as windows-1251"
    return Odd(
        "not_utf8",
        f"the answer is not in UTF-8: {_ADMINISTRATOR} to look at the encoding of the site and its data",
        detail=how,
    )


def _no_json(text: str, error: ValueError) -> Odd:
    begin = min((at for word in ('{"result"', '{"error"') if (at := text.find(word)) > 0), default=0)
    if begin:
        return Odd(
            "text_before_json",
            f"text stands before the answer's JSON: {_ADMINISTRATOR} to mend what PHP warns of, or to switch display_errors off",
            detail=said(text[:begin], limit=120),
        )
    page = _page(text[:20_000].lower())
    if page is not None:
        return page
    if isinstance(error, json.JSONDecodeError) and text.lstrip()[:1] in ("{", "["):
        if error.msg == "Extra data":
            told = said(text[error.pos :], limit=120)
            return Odd(
                "text_after_json",
                f"text stands behind the answer's JSON: {_ADMINISTRATOR} to mend what PHP says",
                detail=told,
            )
        if error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated"):
            return Odd(
                "cut_answer",
                f"the answer ends in the middle; if it stays so, {_ADMINISTRATOR} for PHP's log",
                passes=True,
            )
    advice = f"the answer is no JSON; if it stays so, {_ADMINISTRATOR}, or who runs the proxy before it"
    return Odd("not_json", advice, passes=True)


def _page(lowered: str) -> Odd | None:
    """What an HTML page is, by words that such pages have; None for what is no page."""
    if not lowered.lstrip().startswith("<"):
        return None
    if any(word in lowered for word in _SHIELD):
        return Odd(
            "protection_page",
            "a protection's page came instead of JSON: ask whoever runs the captcha or firewall before the portal to let this "
            "machine reach /rest/",
            always=True,
        )
    if any(word in lowered for word in _LOGIN):
        return Odd(
            "login_page",
            "a sign-in page came instead of JSON: ask whoever runs the portal, or the proxy before it, to let /rest/ through "
            "without signing in",
            always=True,
        )
    if any(word in lowered for word in _REPAIR):
        return Odd("not_json", "the portal shows a page about its maintenance; the next run tries again", passes=True)
    advice = f"an HTML page came instead of JSON; if it stays so, {_ADMINISTRATOR}, or who runs the proxy before it"
    return Odd("not_json", advice, passes=True)
