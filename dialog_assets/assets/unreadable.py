"""Rows that cannot be read (rule 3): told, kept as they came, and no reason to stop, unless nothing else comes.

Here: what a step does with such rows. Not here: what makes a row unreadable (bitrix24/rows.py), where it is kept
(store/unreadable_rows.py), which calls suffer from it (the step's own module).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from dialog_assets.assets.steps import StepRun
from dialog_assets.assets.storable import storable_json
from dialog_assets.bitrix24.errors import RowError
from dialog_assets.store.unreadable_rows import Kind, UnreadableRow
from dialog_assets.worklist import BREAKER_LIMIT, StepStopped

NOTHING_ELSE = 2 * BREAKER_LIMIT
"""So many rows of one kind that cannot be read, and none that can: the portal speaks differently."""

T = TypeVar("T")

log = logging.getLogger("dialog_assets")


class Rows:
    """The rows of one step's run, as they are read: counts, and those to keep since the last `take`."""

    def __init__(self, run: StepRun) -> None:
        self._run = run
        self._read: Counter[Kind] = Counter()
        self._unread: Counter[Kind] = Counter()
        self._last: dict[Kind, RowError] = {}
        self._kept: dict[tuple[Kind, str], UnreadableRow] = {}

    def read(self, kind: Kind, reader: Callable[[Any], T], row: Any, row_id: int) -> T | None:
        """What `reader` makes of the row of a user or entity; None, with the row kept, where it raises RowError."""
        try:
            value = reader(row)
        except RowError as error:
            self.unread(kind, error)
            self.keep(UnreadableRow(kind, row_id, error.method, error.field, error.expected, storable_json(row)))
            return None
        self.well(kind)
        return value

    def well(self, kind: Kind, rows: int = 1) -> None:
        """So many rows have been read."""
        self._read[kind] += rows

    def unread(self, kind: Kind, error: RowError) -> None:
        """One row could not be read, or not wholly. The first ones are logged; the tables have them all."""
        self._unread[kind] += 1
        self._last[kind] = error
        if self._unread[kind] <= NOTHING_ELSE:
            log.warning("%s/%s: %s", self._run.portal.portal, self._run.step, error)

    def keep(self, row: UnreadableRow) -> None:
        """Keep a row that has no place in a table of its own; it makes `no_failed_calls` red."""
        self._kept[row.kind, row.key] = row
        self._run.findings.unreadable[row.kind, row.key] = row.detail

    def take(self) -> list[UnreadableRow]:
        """The rows kept since the last time, to be written. Raises StepStopped where nothing at all can be read."""
        for kind, rows in self._unread.items():
            if rows >= NOTHING_ELSE and not self._read[kind]:
                raise StepStopped(
                    f"{self._run.portal.portal}/{self._run.step}: of {rows} {kind} rows not one can be read "
                    f"({detail_of([self._last[kind]])}); the portal's format may have changed, nothing of them is written."
                )
        kept, self._kept = list(self._kept.values()), {}
        return kept


def detail_of(errors: Iterable[RowError]) -> str:
    """What is wrong with a row, without any of its values: `CALL_DURATION is not a whole number, COST is not …`."""
    return ", ".join(f"{error.field} is not {error.expected}" for error in errors)
