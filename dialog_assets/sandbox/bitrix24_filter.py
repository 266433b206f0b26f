"""Filters with operator prefixes, as classic Bitrix24 lists understand them.

Here: reading a filter into conditions and testing rows. Which operators and fields a method knows is the method's
business. Fields and operators that it does not know are dropped silently, as the portal does (facts/bitrix24.md 3.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal, Protocol

from dialog_assets.sandbox.bitrix24_php import as_list, as_map, to_number

Kind = Literal["number", "date", "text", "bool", "multifield"]

STATISTIC_OPERATORS = ("!><", "><", ">=", "<=", "!=", "!%", "=", "!", ">", "<", "%", "?")
CRM_OPERATORS = ("!@", "=%", "%=", ">=", "<=", "!=", "=", "!", ">", "<", "@", "%")

_LISTS = {"@": "=", "!@": "!"}
_RANGES = ("><", "!><")


class RowTest(Protocol):
    """Something that a row passes or not."""

    def holds(self, row: dict[str, Any]) -> bool:
        """Whether the row passes."""


@dataclass(frozen=True)
class Condition:
    """`field operator values`; several values are alternatives, for a negated operator all of them are excluded."""

    field: str
    operator: str
    values: tuple[Any, ...]
    kind: Kind
    zone: tzinfo

    def holds(self, row: dict[str, Any]) -> bool:
        """Whether the row passes."""
        cell = row.get(self.field)
        cells = cell if isinstance(cell, list) else [cell]
        if self.kind == "multifield":
            cells = [entry.get("VALUE") for entry in cell or []]
        positive = self.operator.lstrip("!") or "="
        found = any(self._matches(positive, one, value) for one in cells or [None] for value in self.values)
        return found != self.operator.startswith("!")

    def _matches(self, operator: str, cell: Any, value: Any) -> bool:
        if operator == "=" and value in (None, ""):
            return cell in (None, "")
        left = cast(cell, self.kind, self.zone)
        if left is None:
            return False
        if operator == "><":
            low, high = value
            return bool(low <= left <= high)
        if operator in ("%", "?"):
            return str(value).casefold() in str(left)
        if operator in ("=%", "%="):
            return _like(str(value), str(left))
        return bool(_COMPARISONS[operator](left, value))


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: left == right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
}


def _like(pattern: str, text: str) -> bool:
    regex = "".join({"%": ".*", "_": "."}.get(sign, re.escape(sign)) for sign in pattern.casefold())
    return re.fullmatch(regex, text, re.DOTALL) is not None


def cast(value: Any, kind: Kind, zone: tzinfo) -> Any:
    """A cell or a filter value as something comparable; None for an absent cell and for an unreadable date.

    A date or time without an offset is local to `zone`.
    """
    if kind == "bool":
        return value in (True, 1) or str(value).casefold() in ("1", "y", "true")
    if value is None or (value == "" and kind != "text"):
        return None
    if kind == "number":
        return to_number(value)
    if kind == "date":
        return _moment(value, zone)
    return str(value).casefold()


def _moment(value: Any, zone: tzinfo) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def read_filter(
    filter_: Any, operators: Sequence[str], kind_of: Callable[[str], Kind | None], zone: tzinfo
) -> list[Condition]:
    """The conditions of a filter, without those whose field `kind_of` does not know, or whose value cannot be read."""
    found = []
    for key, value in as_map(filter_).items():
        prefix = next((operator for operator in operators if key.startswith(operator)), "")
        field = key[len(prefix) :]
        kind = kind_of(field)
        if kind is None:
            continue
        values = _values(prefix, value, kind, zone)
        if values is None:
            continue
        operator = {"": "=", "!=": "!", **_LISTS}.get(prefix, prefix)
        found.append(Condition(field, operator, values, kind, zone))
    return found


def _values(prefix: str, value: Any, kind: Kind, zone: tzinfo) -> tuple[Any, ...] | None:
    """Comparable values, or None where the condition is to be dropped."""
    values = as_list(value) if value is not None else [None]
    if prefix.lstrip("!") in ("", "=", "@"):
        ready = [one if one in (None, "") and kind != "bool" else cast(one, kind, zone) for one in values]
        unreadable = kind == "date" and any(
            one is None and raw not in (None, "") for one, raw in zip(ready, values, strict=True)
        )
    else:
        ready = [cast(one, kind, zone) for one in values]
        unreadable = any(one is None for one in ready)
    if unreadable:
        return None
    if prefix in _RANGES:
        return ((ready[0], ready[1]),) if len(ready) == 2 else None
    return tuple(ready)


def sort_key(row: dict[str, Any], field: str, kind: Kind, zone: tzinfo = UTC) -> tuple[Any, ...]:
    """What one field sorts a row by: absent values are the smallest, as in MySQL."""
    value = cast(row.get(field), kind, zone)
    return (False,) if value is None else (True, value)
