"""Where the rows of a portal come from, and how a page of them goes into an answer without being taken apart.

Here: the interface of a source of rows, the two plain sources (dicts, calls), and RowPage. Not here: changes, filters and
order (bitrix24_table.py), generated rows (crowd.py).
"""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from dialog_assets.sandbox.bitrix24_php import to_int
from dialog_assets.sandbox.world.model import Call

Row = dict[str, Any]
MULTIFIELDS = ("PHONE", "EMAIL", "WEB", "IM")


@dataclass(frozen=True)
class Select:
    """Which fields of a row are sent: `star` is every standard field, `custom` every UF_ one, and those named."""

    names: frozenset[str]
    star: bool
    custom: bool
    hidden: frozenset[str] = frozenset(MULTIFIELDS)  # not in `star`

    def takes(self, field: str) -> bool:
        """Whether `field` is sent."""
        if field in self.names or field == "ID":
            return True
        return field not in self.hidden and (self.custom if field.startswith("UF_") else self.star)

    def of(self, row: Row) -> Row:
        """The part of `row` that is sent."""
        return {field: value for field, value in row.items() if self.takes(field)}


@runtime_checkable
class Rows(Protocol):
    """A source of rows that never changes."""

    @property
    def fields(self) -> frozenset[str]:
        """Every field that some row has."""

    def ids(self) -> array[int]:
        """The rows' ids, ascending."""

    def moments(self) -> array[float]:
        """For each id a time in seconds since 1970; empty for a source without times."""

    def row(self, number: int) -> Row:
        """One row as the wire has it; KeyError if there is none."""

    def text(self, number: int, select: Select | None) -> str:
        """The selected part of one row as JSON."""

    def linked(self, field: str, value: int) -> Iterable[int]:
        """The ids of the rows whose `field` is `value`."""

    def column(self, field: str) -> Iterable[tuple[int, Any]]:
        """Id and one field of every row."""


def row_text(row: Row) -> str:
    r"""A row as PHP writes it, with `/` as `\/`."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")


class _Plain:
    """What both plain sources do alike; they give `ids` and `row`."""

    ids: Callable[[], array[int]]
    row: Callable[[int], Row]

    @cached_property
    def fields(self) -> frozenset[str]:
        """Every field that some row has."""
        return frozenset(field for number in self.ids() for field in self.row(number))

    def text(self, number: int, select: Select | None) -> str:
        """The selected part of one row as JSON."""
        row = self.row(number)
        return row_text(row if select is None else select.of(row))

    def linked(self, field: str, value: int) -> Iterable[int]:
        """The ids of the rows whose `field` is `value`."""
        return self._links[field].get(value, ())

    def column(self, field: str) -> Iterable[tuple[int, Any]]:
        """Id and one field of every row."""
        return ((number, self.row(number).get(field)) for number in self.ids())

    @cached_property
    def _links(self) -> dict[str, dict[int, list[int]]]:
        return _LinkIndex(self)


class _LinkIndex(dict[str, dict[int, list[int]]]):
    """By field, by value: the ids; made when a field is asked for the first time."""

    def __init__(self, rows: _Plain) -> None:
        super().__init__()
        self._rows = rows

    def __missing__(self, field: str) -> dict[int, list[int]]:
        index: dict[int, list[int]] = defaultdict(list)
        for number, value in self._rows.column(field):
            index[to_int(value)].append(number)
        self[field] = dict(index)
        return self[field]


class DictRows(_Plain):
    """Rows of a mapping by id."""

    def __init__(self, rows: Mapping[int, Row]) -> None:
        self._rows = rows
        self._ids = array("q", sorted(rows))
        self.ids = lambda: self._ids
        self.row = rows.__getitem__

    def moments(self) -> array[float]:
        """None: CRM rows are not found by time."""
        return array("d")


class CallRows(_Plain):
    """Rows of calls."""

    def __init__(self, calls: Sequence[Call]) -> None:
        ordered = sorted(calls, key=lambda call: call.id)
        by_id = {call.id: call for call in ordered}
        self._ids = array("q", by_id)
        self._moments = array("d", [call.start.timestamp() for call in ordered])
        self.ids = lambda: self._ids
        self.row = lambda number: by_id[number].fields

    def moments(self) -> array[float]:
        """The calls' starts."""
        return self._moments


def rows_of(data: Mapping[int, Row] | Sequence[Call]) -> Rows:
    """A source over a portal's data; generated data is one already."""
    if isinstance(data, Rows):
        return data
    return DictRows(data) if isinstance(data, Mapping) else CallRows(data)


class RowPage:
    """Rows of an answer as ready JSON; they are read only if a link of a batch asks for one."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, place: int) -> Row:
        row: Row = json.loads(self.texts[place])
        return row

    @property
    def rows(self) -> list[Row]:
        """All rows, read."""
        return [self[place] for place in range(len(self.texts))]

    @property
    def json(self) -> str:
        """The page as JSON."""
        return f"[{','.join(self.texts)}]"
