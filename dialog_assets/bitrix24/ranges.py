"""Which ids are left to read, as pure bookkeeping: ranges of about a page each, and what follows from each page that came.

Here: how a span of ids is cut, and whether a page is what its range promises. Not here: requests (history.py).
Each id lies in exactly one range, so no row can come twice, and rows that appear meanwhile shift nothing
(facts/bitrix24.md 2.4, "id ranges"). A row whose ID cannot be read lies in the range it came with.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from math import sqrt
from typing import NamedTuple

from dialog_assets.bitrix24.paging import PAGE

TELLING = 10
"""Readable ids of a full page from which their order tells something: in a shuffled page, one of 3,628,800 looks sorted."""


class NotHonouredError(Exception):
    """A page contradicts its range: the portal ignores the filter by id, or the order."""


class IdRange(NamedTuple):
    """Ids with `low` < id <= `high`; without `high` all above `low`."""

    low: int
    high: int | None


def split(low: int, high: int, rows: float) -> Iterator[IdRange]:
    """(low, high] in ranges of which few hold more than a page when about `rows` rows lie evenly in it.

    Where every id is a row, a range of fifty ids is a full page. The thinner the rows, the more they scatter, so the
    mark is two standard deviations below a page; a range of no more than fifty ids can never overflow.
    """
    width = high - low
    density = min(1.0, rows / width) if width > 0 else 1.0
    span = width if density <= 0 else max(PAGE, int((PAGE - 2 * sqrt(PAGE * (1 - density))) / density))
    for start in range(low, high, max(1, span)):
        yield IdRange(start, min(high, start + span))


class Ranges:
    """The ranges of one reading. `expected` rows lie in it, so far as the portal counts."""

    def __init__(self, ranges: Iterator[IdRange], expected: int | None) -> None:
        self._first: deque[IdRange] = deque()
        self._ranges = ranges
        self._expected = expected
        self._read: list[tuple[int, int]] = []
        self.rows = 0

    def take(self, number: int) -> list[IdRange]:
        """At most `number` ranges to ask for next; remainders of overflown ones come first."""
        found = [self._first.popleft() for _ in range(min(number, len(self._first)))]
        return [*found, *islice(self._ranges, number - len(found))]

    def give_back(self, ranges: Sequence[IdRange]) -> None:
        """Ranges that were taken and not asked for."""
        self._first.extendleft(reversed(ranges))

    def note(self, asked: IdRange, page: Sequence[int | None]) -> int:
        """The ids of a page of `asked` came, None for a row without a readable one; gives how many of its rows count.

        Of a full page those behind its last readable id do not: they come again with what follows that id. Raises
        NotHonouredError, before anything is noted, when this is no page of that range, or so few ids are readable that their
        order may be chance.
        """
        low, high = asked
        ids = [one for one in page if one is not None]
        if any(one <= low or (high is not None and one > high) for one in ids) or len(set(ids)) < len(ids):
            raise NotHonouredError
        if len(page) < PAGE:
            self.rows += len(page)
            if ids or high is not None:
                self._read.append((low, max(ids) if high is None else high))
            return len(page)
        if len(ids) < TELLING or any(one >= other for one, other in pairwise(ids)):
            raise NotHonouredError
        count = page.index(ids[-1]) + 1
        self.rows += count
        self._read.append((low, ids[-1]))
        if high is None:
            self._first.append(IdRange(ids[-1], None))
        elif ids[-1] < high:
            self._first.extend(self._remainder(ids, high))
        return count

    def has(self, one: int) -> bool:
        """Whether the row of this id has been read, if it was there then."""
        self._read.sort()
        place = bisect_left(self._read, (one, 0)) - 1
        return place >= 0 and self._read[place][0] < one <= self._read[place][1]

    def _remainder(self, ids: Sequence[int], high: int) -> Iterator[IdRange]:
        # Rows crowd where a range overflows: there the page's own density tells more than the whole span's.
        rows = (high - ids[-1]) * (len(ids) - 1) / (ids[-1] - ids[0] or 1)
        if self._expected is not None:
            rows = min(rows, self._expected - self.rows)
        return split(ids[-1], high, rows)
