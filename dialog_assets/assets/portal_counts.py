"""The check `as_many_as_the_portal_counts`: what was read and stored of each day beside what the portal counts for it.

Here: the comparison, as values. Not here: counting (bitrix24/history.py), reading (calls.py).

The days are counted before they are read, and a reading gives every row that was there when it began: so calls that
appear meanwhile are in no count, and cannot be missing. A day that still comes short is counted once more afterwards and
the smaller count holds: what was deleted in between is no loss. Calls that the table has and this reading did not see were
deleted at the portal earlier: they stay, are told, and are no loss either.
A row without a readable start was counted for its day by the portal, but nobody here can tell for which: such rows may
stand for as many missing calls of any of the days.

What this does not show: calls that the credential's user may not see. The portal counts them no more than it lists them
(facts/bitrix24.md 3.1); `dialog-assets doctor` tells whether that user is an administrator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg

NAME = "as_many_as_the_portal_counts"
DESCRIPTION = (
    "Calls read and stored of each day = calls that the portal counts for it, rows that cannot be read included. "
    "Calls that the credential's user may not see are neither listed nor counted by the portal."
)


@dataclass(frozen=True)
class DayCount:
    """Calls of a day: `counted` by the portal, None where it does not count; `read` in this run; `stored` by now."""

    day: date
    counted: int | None
    read: int
    stored: int

    @property
    def missing(self) -> int:
        """Calls that the portal counts and that were not read, or were read and are not in the table."""
        return max(self.read - self.stored, (self.counted or 0) - min(self.read, self.stored), 0)

    @property
    def deleted(self) -> int:
        """Calls of the table that the portal does not list any more."""
        return max(0, self.stored - self.read)


def result(days: Sequence[DayCount], unreadable: int) -> dg.AssetCheckResult:
    """The check of some days; `unreadable` rows came without a readable ID or start."""
    missing, uncounted = sum(one.missing for one in days), [one for one in days if one.counted is None]
    passed = missing <= unreadable and not uncounted
    return dg.AssetCheckResult(
        check_name=NAME,
        passed=passed,
        # A portal that does not count hides nothing as far as is known: somebody should look, and nothing is lost.
        severity=dg.AssetCheckSeverity.WARN if missing <= unreadable else dg.AssetCheckSeverity.ERROR,
        description=_sentence(days, missing, unreadable, len(uncounted)),
        metadata={
            "first_day": days[0].day.isoformat(),
            "last_day": days[-1].day.isoformat(),
            **_sums(days),
            "missing": missing,
            "unreadable": unreadable,
            "days": _table(days),
        },
    )


def _sentence(days: Sequence[DayCount], missing: int, unreadable: int, uncounted: int) -> str:
    if missing > unreadable:
        where = ", ".join(f"{one.day}: {one.missing}" for one in days if one.missing)
        return f"missing of what the portal counts: {missing} ({where}); rows that cannot be read: {unreadable}"
    if uncounted:
        return f"the portal does not count its calls on {uncounted} of {len(days)} days: nothing to compare with"
    sums = _sums(days)
    told = f"read: {sums['read']}, counted by the portal: {sums['counted']}"
    if missing:
        told += f"; rows that cannot be read make the difference: {unreadable}"
    if sums["deleted"]:
        told += f"; stored, and deleted at the portal since: {sums['deleted']}"
    return told


def _sums(days: Sequence[DayCount]) -> dict[str, int]:
    return {
        "counted": sum(one.counted or 0 for one in days),
        "read": sum(one.read for one in days),
        "stored": sum(one.stored for one in days),
        "deleted": sum(one.deleted for one in days),
    }


def _table(days: Sequence[DayCount]) -> Any:
    lines = [
        "| day | the portal counts | read | stored | missing | deleted at the portal |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for one in days:
        counted = "does not count" if one.counted is None else one.counted
        lines.append(f"| {one.day} | {counted} | {one.read} | {one.stored} | {one.missing} | {one.deleted} |")
    return dg.MetadataValue.md("\n".join(lines))
