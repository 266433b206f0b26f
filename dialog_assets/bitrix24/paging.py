"""Pages and batches as pure functions: keyset parameters, linked commands, PHP's bracket encoding (facts/bitrix24.md 2.3, 2.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote

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
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in _flat(params, None))


def _flat(value: Any, name: str | None) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
        if not value and name is not None:
            raise ValueError(f"{name}: an empty value cannot be sent in a batch command")
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in pairs:
            part = quote(str(key), safe="")
            yield from _flat(inner, part if name is None else f"{name}[{part}]")
    elif value is None:
        raise ValueError(f"{name}: None cannot be sent in a batch command")
    elif isinstance(value, bool):
        yield name or "", "1" if value else "0"
    else:
        yield name or "", str(value)


def command_text(command: Command) -> str:
    """One command of a batch: `method?query`."""
    method, params = command
    return f"{method}?{php_query(params)}" if params else method


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`items` in lists of at most `size`, in order."""
    rest = iter(items)
    while piece := list(islice(rest, size)):
        yield piece


def keyset(params: Mapping[str, Any], after: int | str) -> dict[str, Any]:
    """Parameters of the page of `params` that follows id `after`, for methods with FILTER, SORT and ORDER as texts.

    `start=-1` asks for no count and no offset. `after` may be a link to an earlier command of the same batch.
    """
    return {
        **params,
        "FILTER": {**params.get("FILTER", {}), ">ID": after},
        "SORT": "ID",
        "ORDER": "ASC",
        "start": -1,
    }


def chain(method: str, params: Mapping[str, Any], after: int, length: int) -> dict[str, Command]:
    """`length` keyset pages as linked commands p0, p1 …: each begins after the last row of the full page before it."""
    return {
        f"p{number}": (method, keyset(params, after if number == 0 else f"$result[p{number - 1}][{PAGE - 1}][ID]"))
        for number in range(length)
    }
