"""What strangers say, made fit for a log, an error, a table of the UI and a terminal: the one place that cleans it.

A stranger is a portal, a recogniser, a storage, an LLM vendor, and whoever typed a title into the CRM. Here: characters that
nobody sees, secrets (those that `redaction` knows, and whatever looks like one), phones and addresses. Not here: what a step
stores of a row on purpose, and what an LLM is shown.
"""

from __future__ import annotations

import re
import unicodedata

from dialog_assets.redaction import without_secrets

LONGEST = 2_000
"""Characters of a stranger's text that are looked at: what follows costs time and tells nobody anything."""

# Marks without a width that are no format characters in Unicode's book: joiners, fillers, variation selectors.
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0" + "".join(map(chr, range(0xFE00, 0xFE10))))

_MARKUP = re.compile(r"<[^<>]{0,200}>")
_URL = re.compile(r"\b[a-z][a-z0-9+.-]{0,20}://\S+|(?:/rest|%2frest)\S+", re.IGNORECASE)
_EMAIL = re.compile(r"\S{1,64}@\S+")
_JWT = re.compile(r"eyJ[\w-]+=*\.[\w-]+=*(?:\.[\w-]*=*)?")
_NAMED = re.compile(
    r"\b[\w-]{0,30}(?:token|key|secret|password|auth|sessid|signature)[\w-]{0,10}\s?=\s?\S+", re.IGNORECASE
)
_VENDORS_KEY = re.compile(r"\bsk-[\w*-]{4,}")
_TOKEN = re.compile(r"(?=\w*\d)(?=\w*[A-Za-z])\w{12,}")
_PHONE = re.compile(r"\+?\d(?:[\s().·•_/\u2010-\u2015\u2212\ufe58\ufe63\uff0d-]{0,3}\d){6,}")
_SECRETS = (_URL, _JWT, _NAMED, _EMAIL, _VENDORS_KEY, _TOKEN, _PHONE)
_NOT_CODE = re.compile(r"[^\w.:-]+")
_MARKDOWN = re.compile(r"([\\`*\[\]<>|~])")


def visible(text: str) -> str:
    """One line of visible text: no control, zero-width or direction characters, single spaces."""
    return " ".join("".join(map(_visible, text)).split())


def printable(text: str) -> str:
    """`text` with its line breaks, without characters that a terminal or a page would obey."""
    return "".join(char if char in "\n\t" else _visible(char) for char in text)


def said(words: object, *, limit: int = 200) -> str:
    """A stranger's words in one visible line of at most `limit` characters, without URLs, e-mails, credentials and phones."""
    text = str(words)
    if len(text) > LONGEST:
        # A word that is cut in half would be known by no pattern.
        text = re.sub(r"\S+\Z", "…", text[:LONGEST])
    text = without_secrets(visible(_MARKUP.sub(" ", visible(text))))
    for pattern in _SECRETS:
        text = pattern.sub("…", text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def said_code(code: object) -> str:
    """A stranger's error code as one word of at most 80 characters; "…" for what looks like a phone or a credential."""
    word = _NOT_CODE.sub("", str(code)[:LONGEST])[:80]
    # Vendors write long codes in capitals with underscores; keys have small letters, or no breaks.
    is_name = "_" in word and word == word.upper()
    is_key = len(word) >= 16 and _TOKEN.search(word) and not is_name
    return "…" if is_key or _PHONE.search(word) or _JWT.search(word) else word


def markdown(text: str) -> str:
    """`text` as plain words within Markdown: nothing of it becomes a link, a picture, a table's border or a tag."""
    return _MARKDOWN.sub(r"\\\1", visible(text))


def _visible(char: str) -> str:
    if char.isascii():
        return char if char.isprintable() else " "
    if char in _BLANKS or 0xE0100 <= ord(char) <= 0xE01EF:
        return ""
    category = unicodedata.category(char)
    if category in ("Cf", "Cs", "Co"):
        return ""
    return " " if category in ("Cc", "Zl", "Zp") else char
