"""Reading credentials: from environment variables named in the portal files, with an error that a person can act on."""

from __future__ import annotations

import os

from dialog_assets.errors import DialogAssetsError


class MissingCredential(DialogAssetsError):
    """An environment variable that a step needs is not set."""


def required(name: str, purpose: str) -> str:
    """The value of environment variable `name`. Raises MissingCredential, which says what it is for."""
    value = os.environ.get(name, "").strip()
    if not value:
        raise MissingCredential(f"{name} is not set: it holds {purpose}; put it into .env or the environment.")
    return value
