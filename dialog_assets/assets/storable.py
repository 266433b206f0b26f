"""Values of other systems as Postgres can keep them, in text and jsonb columns; those of a portal without credentials."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any

from dialog_assets.redaction import kept_under, name_kind, without_secrets

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


_DEEPEST = 100


def storable(value: Any, depth: int = 0) -> Any:
    """The value as text and jsonb can hold it, at any depth: NUL characters left out, `�` for halves of surrogate pairs,
    numbers that JSON has no word for as texts, None for what is nested deeper than any row of a portal.
    """
    if isinstance(value, str):
        return value if value.isascii() and "\0" not in value else _UNSTORABLE.sub(_instead, value)
    if value is None:
        return None
    if isinstance(value, dict):
        deeper = depth + 1
        return None if depth > _DEEPEST else {storable(key): storable(inner, deeper) for key, inner in value.items()}
    if isinstance(value, list):
        deeper = depth + 1
        return None if depth > _DEEPEST else [storable(inner, deeper) for inner in value]
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    return value


def storable_json(value: Any, depth: int = 0) -> Any:
    """What a portal sent, storable, and without the credentials in it: in texts, and under names that tell of one."""
    if value is None:
        return None
    if isinstance(value, str):
        return without_secrets(storable(value))
    if isinstance(value, dict):
        if depth > _DEEPEST:
            return None
        kept = {}
        for key, inner in value.items():
            name = _name(key) if isinstance(key, str) else key
            if inner is not None and isinstance(key, str) and name_kind(key):
                kept[name] = storable(kept_under(key, inner), depth + 1)
            else:
                kept[name] = None if inner is None else storable_json(inner, depth + 1)
        return kept
    if isinstance(value, list):
        return None if depth > _DEEPEST else [storable_json(inner, depth + 1) for inner in value]
    return storable(value)


@lru_cache(maxsize=4096)
def _name(key: str) -> str:
    return without_secrets(storable(key))


def storable_row(row: DataclassInstance) -> dict[str, Any]:
    """The fields of a row of a portal (bitrix24/rows.py) as Postgres can hold them, without the credentials in them."""
    return {one.name: storable_json(getattr(row, one.name)) for one in fields(row)}


def _instead(match: re.Match[str]) -> str:
    return "" if match.group() == "\0" else "\ufffd"
