"""A table of a portal: rows of a source, what was changed since, and pages found by index.

Here: ids and times in order, changes, and which rows a filter and an order give. Not here: what a filter means (one
condition tests itself, bitrix24_filter.py), the parameters of methods, JSON of answers.

Found in O(log n + page): a page by id with ids or times in the filter, a window of times, ids in a list, rows by a link
field. Any other filter or order goes through the rows; what it found is kept until the table changes.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from decimal import Decimal
from itertools import pairwise
from typing import Any, TypeVar

from dialog_assets.sandbox.bitrix24_filter import Condition, Kind, RowTest, sort_key
from dialog_assets.sandbox.bitrix24_php import to_int
from dialog_assets.sandbox.bitrix24_rows import Row, Rows, Select, row_text

PAGE_SIZE = 50
_KEPT = 24
_COMPARED = ("=", ">", ">=", "<", "<=", "><")
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Sort:
    """One field of an order."""

    field: str
    kind: Kind
    zone: tzinfo
    descending: bool


@dataclass(frozen=True)
class Found:
    """The ids of a page; `counted` and `skipped` are the rows that a database had to count and to pass over."""

    ids: Sequence[int]
    total: int
    next: int | None = None
    counted: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class _Candidates:
    """Ids in ascending order, of which those from `low` to before `high` passed the indexes; `rest` tests the others.

    `times`: the same rows are this stretch of the index by time; None where ids narrowed them further.
    """

    ids: Sequence[int]
    low: int
    high: int
    rest: tuple[RowTest, ...]
    times: tuple[int, int] | None

    def __len__(self) -> int:
        return max(0, self.high - self.low)


class Table:
    """Rows by id. `moment` names the field that `rows.moments` holds; `links` are fields found by index.

    `version` rises with each change. `seed` fixes the order of rows that nobody asked to sort.
    """

    def __init__(self, rows: Rows, *, moment: str | None = None, links: Sequence[str] = (), seed: int = 0) -> None:
        self.version = 0
        self.ids = array("q", rows.ids())
        self._rows = rows
        self._moment = moment
        self._links = links
        self._seed = seed * 0x5851F42D4C957F2D + 1
        self._own: dict[int, Row] = {}
        self._times, self._by_time = _by_time(rows.moments(), self.ids)
        self._scattered: array[int] | None = None
        self._kept: OrderedDict[Hashable, Sequence[int]] = OrderedDict()

    @property
    def fields(self) -> frozenset[str]:
        """Every field that some row has."""
        return self._rows.fields.union(*self._own.values()) if self._own else self._rows.fields

    def __contains__(self, number: int) -> bool:
        place = bisect_left(self.ids, number)
        return place < len(self.ids) and self.ids[place] == number

    def row(self, number: int) -> Row | None:
        """One row, or None."""
        if number in self._own:
            return self._own[number]
        return self._rows.row(number) if number in self else None

    def text(self, number: int, select: Select | None = None) -> str:
        """The selected part of one row as JSON."""
        own = self._own.get(number)
        if own is None:
            return self._rows.text(number, select)
        return row_text(own if select is None else select.of(own))

    def linked(self, field: str, value: int) -> list[int]:
        """The ids of the rows whose `field` is `value`, ascending."""
        found = {number for number in self._rows.linked(field, value) if number not in self._own and number in self}
        found.update(number for number, row in self._own.items() if to_int(row.get(field)) == value)
        return sorted(found)

    def column(self, field: str) -> Iterator[tuple[int, Any]]:
        """Id and one field of every row, in no particular order."""
        for number, value in self._rows.column(field):
            if not self.version or (number not in self._own and number in self):
                yield number, value
        for number, row in self._own.items():
            yield number, row.get(field)

    def put(self, number: int, row: Row) -> None:
        """Insert a row, or replace the one with its id."""
        before = self.row(number)
        if before is not None:
            self._forget(number, before)
        self._own[number] = row
        self.ids.insert(bisect_left(self.ids, number), number)
        if self._moment is not None:
            moment = _seconds(row, self._moment)
            place = bisect_right(self._times, moment)
            self._times.insert(place, moment)
            self._by_time.insert(place, number)
        if self._scattered is not None:
            self._scattered.insert(bisect_left(self._scattered, self._rank(number), key=self._rank), number)
        self._changed()

    def remove(self, number: int) -> None:
        """Delete a row; KeyError if there is none."""
        before = self.row(number)
        if before is None:
            raise KeyError(number)
        self._forget(number, before)
        self._own.pop(number, None)
        self._changed()

    def _forget(self, number: int, row: Row) -> None:
        self.ids.pop(bisect_left(self.ids, number))
        if self._moment is not None:
            place = bisect_left(self._times, _seconds(row, self._moment))
            while self._by_time[place] != number:
                place += 1
            self._times.pop(place)
            self._by_time.pop(place)
        if self._scattered is not None:
            self._scattered.pop(bisect_left(self._scattered, self._rank(number), key=self._rank))

    def _changed(self) -> None:
        self.version += 1
        self._kept.clear()

    def find(
        self,
        tests: Sequence[RowTest],
        order: Sequence[Sort] | None,
        start: int | None,
        *,
        until: datetime | None = None,
        seen: Callable[[int], Row] | None = None,
        state: Hashable = None,
    ) -> Found:
        """One page of the rows that pass `tests`, those later than `until` left out.

        `order` None: in no order. A negative `start` is answered without count and without `next` (facts 2.4).
        `seen` gives a row as a client sees it, where that differs; `state` stands for what `seen` depends on.
        """
        found = self._narrow(tests, until)
        by_id = order is not None and (not order or order[0].field == "ID")
        if by_id and start is not None and start < 0 and found.rest:
            return Found(self._first(found, seen or self._sure, descending=_descends(order)), 0)
        key = (tuple(tests), tuple(order) if order is not None else None, until, state)
        ids = self._ordered(found, order, seen or self._sure, key)
        if start is not None and start < 0:
            return Found(ids[:PAGE_SIZE], 0)
        offset = start or 0
        some = ids[offset : offset + PAGE_SIZE]
        following = offset + len(some)
        more = bool(some) and following < len(ids)
        return Found(some, len(ids), following if more else None, len(ids), min(offset, len(ids)))

    def _sure(self, number: int) -> Row:
        return self._own[number] if number in self._own else self._rows.row(number)

    def _first(self, found: _Candidates, seen: Callable[[int], Row], *, descending: bool) -> list[int]:
        some: list[int] = []
        places = range(found.low, found.high)
        for place in reversed(places) if descending else places:
            number = found.ids[place]
            row = seen(number)
            if all(test.holds(row) for test in found.rest):
                some.append(number)
                if len(some) == PAGE_SIZE:
                    break
        return some

    def _narrow(self, tests: Sequence[RowTest], until: datetime | None) -> _Candidates:
        """What the indexes make of a filter."""
        low_id, high_id = -math.inf, math.inf
        low_time, high_time = 0, len(self._times)
        chosen: Sequence[int] | None = None
        rest: list[RowTest] = []
        if self._moment is not None and until is not None:
            high_time = bisect_right(self._times, until.timestamp())
        for test in tests:
            if isinstance(test, Condition) and test.operator in _COMPARED and not {None, ""} & set(test.values):
                if test.field == "ID" and len(test.values) == 1 and test.operator != "=":
                    bounds = _id_bounds(test)
                    low_id, high_id = max(low_id, bounds[0]), min(high_id, bounds[1])
                    continue
                if test.field == self._moment and len(test.values) == 1:
                    first, last = self._time_bounds(test)
                    low_time, high_time = max(low_time, first), min(high_time, last)
                    continue
                some = self._chosen(test)
                if some is not None:
                    chosen = some if chosen is None else sorted(set(chosen).intersection(some))
                    continue
            rest.append(test)
        windowed = self._moment is not None and (low_time > 0 or high_time < len(self._times))
        ids: Sequence[int] = self.ids if not windowed else self._window(low_time, high_time)
        if chosen is not None:
            ids = [number for number in chosen if _has(ids, number)] if windowed else chosen
        low = 0 if low_id == -math.inf else bisect_left(ids, low_id)
        high = len(ids) if high_id == math.inf else bisect_right(ids, high_id)
        narrowed = chosen is not None or low > 0 or high < len(ids) or self._moment is None
        return _Candidates(ids, low, high, tuple(rest), None if narrowed else (low_time, high_time))

    def _time_bounds(self, test: Condition) -> tuple[int, int]:
        first, last = test.values[0] if test.operator == "><" else (test.values[0], test.values[0])
        before_first, after_last = (
            bisect_left(self._times, first.timestamp()),
            bisect_right(self._times, last.timestamp()),
        )
        if test.operator in ("=", "><"):
            return before_first, after_last
        if test.operator in (">", ">="):
            return (after_last if test.operator == ">" else before_first), len(self._times)
        return 0, before_first if test.operator == "<" else after_last

    def _chosen(self, test: Condition) -> Sequence[int] | None:
        """The ids of rows that an `=` names, directly or by a link field, ascending; None where no index helps."""
        if test.operator != "=" or test.kind != "number":
            return None
        if test.field == "ID":
            return sorted(number for number in {int(one) for one in test.values if one == int(one)} if number in self)
        if test.field not in self._links or Decimal(0) in test.values:
            return None
        whole = [int(value) for value in test.values if value == int(value)]
        return self._keep(
            ("linked", test), lambda: sorted({number for value in whole for number in self.linked(test.field, value)})
        )

    def _window(self, low: int, high: int) -> Sequence[int]:
        return self._keep(("window", low, high), lambda: array("q", sorted(self._by_time[low : max(low, high)])))

    def _ordered(
        self, found: _Candidates, order: Sequence[Sort] | None, seen: Callable[[int], Row], key: Hashable
    ) -> Sequence[int]:
        if not found.rest:
            if order is None and len(found) == len(self.ids):
                return self._scatter()
            if order is not None and (not order or order[0].field == "ID"):
                return _Slice(found.ids, found.low, found.high, backwards=_descends(order))
            if order is not None and len(order) == 1 and order[0].field == self._moment and found.times is not None:
                return _Slice(self._by_time, *found.times, backwards=order[0].descending)
        return self._keep(key, lambda: array("q", self._arrange(found, order, seen)))

    def _arrange(self, found: _Candidates, order: Sequence[Sort] | None, seen: Callable[[int], Row]) -> Iterable[int]:
        ids = list(found.ids[found.low : max(found.low, found.high)])
        if found.rest:
            ids = [number for number in ids if all(test.holds(row) for row in [seen(number)] for test in found.rest)]
        if order is None:
            return sorted(ids, key=self._rank)
        for sort in reversed(order):
            ids.sort(key=_key(seen, sort), reverse=sort.descending)
        return ids

    def _scatter(self) -> array[int]:
        if self._scattered is None:
            self._scattered = array("q", sorted(self.ids, key=self._rank))
        return self._scattered

    def _rank(self, number: int) -> int:
        """A place that has nothing to do with the id, but is the same each time."""
        mixed = ((number ^ self._seed) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        return ((mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF

    def _keep(self, key: _Key, make: Callable[[], Sequence[int]]) -> Sequence[int]:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = self._kept[key] = make()
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found


class _Slice(Sequence[int]):
    """A stretch of a long sequence, perhaps backwards, without a copy of it."""

    def __init__(self, ids: Sequence[int], low: int, high: int, *, backwards: bool) -> None:
        self._ids = ids
        self._places = range(low, max(low, high))[:: -1 if backwards else 1]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self._ids[one] for one in self._places[place]]
        return self._ids[self._places[place]]


def _descends(order: Sequence[Sort] | None) -> bool:
    return order is not None and bool(order) and order[0].descending


def _key(seen: Callable[[int], Row], sort: Sort) -> Callable[[int], tuple[Any, ...]]:
    return lambda number: sort_key(seen(number), sort.field, sort.kind, sort.zone)


def _has(ids: Sequence[int], number: int) -> bool:
    place = bisect_left(ids, number)
    return place < len(ids) and ids[place] == number


def _id_bounds(test: Condition) -> tuple[float, float]:
    """First and last id that pass."""
    if test.operator == "><":
        low, high = test.values[0]
        return math.ceil(low), math.floor(high)
    value = test.values[0]
    return {
        ">": (math.floor(value) + 1, math.inf),
        ">=": (math.ceil(value), math.inf),
        "<": (-math.inf, math.ceil(value) - 1),
        "<=": (-math.inf, math.floor(value)),
    }[test.operator]


def _by_time(moments: array[float], ids: array[int]) -> tuple[array[float], array[int]]:
    if all(before <= after for before, after in pairwise(moments)):
        return array("d", moments), array("q", ids[: len(moments)])
    order = sorted(range(len(moments)), key=moments.__getitem__)
    return array("d", [moments[place] for place in order]), array("q", [ids[place] for place in order])


def _seconds(row: Row, field: str) -> float:
    return datetime.fromisoformat(str(row[field])).timestamp()
