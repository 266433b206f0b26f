"""Reading credentials: from environment variables named in the portal files, with an error that a person can act on."""

from __future__ import annotations

import os
import unicodedata

from dialog_assets.errors import DialogAssetsError


class MissingCredential(DialogAssetsError):
    """An environment variable that a step needs is not set."""


def required(name: str, purpose: str) -> str:
    """The value of environment variable `name`. Raises MissingCredential, which says what it is for."""
    value = os.environ.get(name, "").strip()
    if not value:
        raise MissingCredential(f"{name} is not set: it holds {purpose}; put it into .env or the environment.")
    return value


class UnusableCredential(DialogAssetsError):
    """An environment variable holds what cannot be what a step needs."""


def api_key(name: str, purpose: str) -> str:
    """The key in environment variable `name`. Raises MissingCredential, and UnusableCredential for one of a form that none has."""
    value = required(name, purpose)
    check_key(name, value, purpose)
    return value


def check_key(name: str, value: str, purpose: str) -> None:
    """Raises UnusableCredential for a key of a form that none has; the key itself is not told.

    Keys are letters, digits and signs of ASCII. What comes along when one is copied from a page or a letter (quotes, a
    space, a line's end, a letter that only looks like one) would fail in the middle of a library, with the key in its words.
    """
    for place, letter in enumerate(value, 1):
        if "!" <= letter <= "~" and letter not in "\"'`<>":
            continue
        told = f"U+{ord(letter):04X} {unicodedata.name(letter, 'a control character')}"
        raise UnusableCredential(
            f"{name} cannot hold {purpose}: its character {place} of {len(value)} is {told}, which no key has; copy the key "
            "again, without quotes and spaces, in one line."
        )
