"""Values of other systems as Postgres can keep them, in text and jsonb columns."""

from __future__ import annotations

import re
from typing import Any

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(value: Any) -> Any:
    """The value, at any depth, without NUL characters and with `�` for halves of surrogate pairs; all else as it is."""
    if isinstance(value, str):
        return value if value.isascii() and "\0" not in value else _UNSTORABLE.sub(_instead, value)
    if isinstance(value, dict):
        return {storable(key): storable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [storable(inner) for inner in value]
    return value


def _instead(match: re.Match[str]) -> str:
    return "" if match.group() == "\0" else "\ufffd"
