"""How PHP reads parameters and writes JSON: bracket names, casts, arrays that are lists and maps at once.

Here: conversions without any knowledge of Bitrix24's methods. Not here: HTTP, portals.
Source: facts/bitrix24.md 1.1 (bodies, casts) and 1.2 (shapes).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import unquote_plus

_NUMBER = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)")
_ESCAPE = re.compile(r"\\.")
_MARK = f"\0{secrets.token_hex(8)}"
_QUOTED_MARK = json.dumps(_MARK)


def parse_query(text: str) -> dict[str, Any]:
    """Read an urlencoded string with PHP brackets: `a[b][0]=c` becomes `{"a": {"b": ["c"]}}`; values stay strings."""
    tree: dict[str, Any] = {}
    for pair in filter(None, text.split("&")):
        name, _, value = pair.partition("=")
        path = _path(name)
        if path:
            _put(tree, path, _decoded(value))
    return {key: shape(value) for key, value in tree.items()}


@lru_cache(10_000)  # a client that asks for many ids sends the same names again and again
def _path(quoted: str) -> tuple[str, ...]:
    """The steps that a name leads to; none for a name that PHP drops."""
    name = _decoded(quoted)
    head, bracket, rest = name.partition("[")
    if not head:
        return ()
    if not bracket or "]" not in rest:
        return (re.sub(r"[ .\[]", "_", name),)
    return (re.sub(r"[ .\[]", "_", head), *re.findall(r"\[([^\]]*)\]", bracket + rest))


def _decoded(text: str) -> str:
    return unquote_plus(text, errors="replace") if "%" in text or "+" in text else text


def _put(node: dict[str, Any], path: Sequence[str], value: str) -> None:
    for step, key in enumerate(path):
        name = key if key or step == 0 else str(_next_index(node))
        if step == len(path) - 1:
            node[name] = value
            return
        child = node.get(name)
        if not isinstance(child, dict):
            child = node[name] = {}
        node = child


def _next_index(node: dict[str, Any]) -> int:
    return max((int(key) for key in node if key.isdigit()), default=-1) + 1


def parse_json(body: bytes) -> dict[str, Any]:
    """Parameters of a JSON body; a broken or scalar one has none (facts 1.1)."""
    try:
        data = json.loads(body)
    except ValueError:
        return {}
    return {key: shape(value) for key, value in as_map(data).items()}


def shape(value: Any) -> Any:
    """The JSON form of a PHP array: an empty map or one with keys 0..n-1 becomes a list, at every depth."""
    if isinstance(value, dict):
        items = {str(key): shape(item) for key, item in value.items()}
        return list(items.values()) if list(items) == [str(index) for index in range(len(items))] else items
    if isinstance(value, list):
        return [shape(item) for item in value]
    return value


def section(values: dict[str, Any]) -> dict[str, Any] | list[Any]:
    """The outermost level of `shape` only, for maps of rows that must stay as they are."""
    return list(values.values()) if list(values) == [str(index) for index in range(len(values))] else values


def as_map(value: Any) -> dict[str, Any]:
    """A PHP array as a map by key; anything else is empty."""
    if isinstance(value, dict):
        return value
    return {str(index): item for index, item in enumerate(value)} if isinstance(value, list) else {}


def as_list(value: Any) -> list[Any]:
    """The values of a PHP array; a scalar is a list of itself, null of nothing."""
    if isinstance(value, dict | list):
        return list(as_map(value).values())
    return [] if value is None else [value]


def to_number(value: Any) -> Decimal:
    """PHP's numeric cast: leading digits of a text, 1 for an array with something in it, else 0."""
    if isinstance(value, dict | list):
        return Decimal(bool(value))
    if isinstance(value, bool | int):
        return Decimal(int(value))
    found = _NUMBER.match(str(value))
    return Decimal(found.group(1)) if found else Decimal(0)


def to_int(value: Any) -> int:
    """PHP's `(int)`."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return int(to_number(value))


def is_on(value: Any) -> bool:
    """PHP's truth: everything but null, false, 0, "0", "" and an empty array (facts 2.3, `halt`)."""
    return value not in (None, False, 0, "0", "", [], {})


class Ready(Protocol):
    """A value that is JSON already, with its slashes escaped."""

    @property
    def json(self) -> str:
        """The JSON."""


def encode(payload: Any, *, hex_quotes: bool = False) -> bytes:
    r"""JSON as PHP writes it: UTF-8 text with `/` as `\/`, on some portals with quotes as `\u0022`.

    A value of type Ready is put in as it is: pages of rows are most of what a portal sends.
    """
    ready: list[str] = []

    def keep(value: Ready) -> str:
        ready.append(value.json)
        return _MARK

    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), default=keep).replace("/", "\\/")
    if ready:
        pieces = text.split(_QUOTED_MARK)
        text = "".join(piece for pair in zip(pieces, [*ready, ""], strict=True) for piece in pair)
    if hex_quotes:
        text = _ESCAPE.sub(lambda found: "\\u0022" if found.group(0) == '\\"' else found.group(0), text)
    return text.encode()
