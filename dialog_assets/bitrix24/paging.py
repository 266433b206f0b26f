"""Pages, batches and PHP's bracket encoding as pure functions (facts/bitrix24.md 2.3, 2.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote

T = TypeVar("T")

PAGE = 50
"""Rows in a page; fixed by the portal."""

COMMANDS = 50
"""Commands that a batch runs; fixed by the portal."""

Command = tuple[str, Mapping[str, Any]]
"""A method and its parameters."""


def php_query(params: Mapping[str, Any]) -> str:
    """Nested parameters as PHP reads them, each part percent-encoded once: `FILTER[%3EID]=5&start=0`.

    None, empty lists and empty maps have no form there and are refused: dropping them could drop a filter.
    """
    return "&".join(_pairs(params, None))


def _pairs(value: Any, name: str | None) -> Iterator[str]:
    if type(value) is int:  # ids by the hundred thousand: nothing in them needs quoting
        yield f"{name}={value}"
    elif isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
        if not value and name is not None:
            raise ValueError(f"{name}: an empty value cannot be sent in a batch command")
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in pairs:
            part = key if type(key) is int else quote(str(key), safe="")
            yield from _pairs(inner, f"{part}" if name is None else f"{name}[{part}]")
    elif value is None:
        raise ValueError(f"{name}: None cannot be sent in a batch command")
    elif isinstance(value, bool):
        yield f"{name}={int(value)}"
    else:
        yield f"{name}={quote(str(value), safe='')}"


def command_text(command: Command) -> str:
    """One command of a batch: `method?query`."""
    method, params = command
    return f"{method}?{php_query(params)}" if params else method


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`items` in lists of at most `size`, in order."""
    rest = iter(items)
    while piece := list(islice(rest, size)):
        yield piece


def php_params(query: str) -> dict[str, Any]:
    """An urlencoded form as PHP reads it: `a[b][c]=d` nests; a list's keys stay texts of numbers."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        first, *rest = name.replace("]", "").split("[")
        node = found
        path = [first, *rest]
        for step in path[:-1]:
            inner = node.get(step)
            if not isinstance(inner, dict):
                inner = node[step] = {}
            node = inner
        node[path[-1]] = value
    return found
