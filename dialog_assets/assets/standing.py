"""The standing checks: what stays undone is seen of whatever day it is, and of a night that did not run at all.

Every run evaluates those of its steps; between runs the portal's sensor does, so that they turn by themselves.
Here: from what the tables say to check results. Not here: the queries (store), who does what is left (jobs, sensors).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta

import dagster as dg

from dialog_assets.assets import figures
from dialog_assets.portals import Portal
from dialog_assets.store import call_steps, nights, unreadable_rows
from dialog_assets.store.pool import Connection
from dialog_assets.store.unfinished import Unfinished
from dialog_assets.store.unreadable_rows import Kind

NO_FAILED = "no_failed_calls"
NOTHING_OVERDUE = "nothing_overdue"
EVERY_NIGHT = "every_night_ran"

DESCRIPTIONS = {
    NO_FAILED: "Red while a call of any day is failed at this step, or a row cannot be read.",
    NOTHING_OVERDUE: "Yellow while calls of any day are left at this step though their time has come, red from a day on.",
    EVERY_NIGHT: "Red while a day since the portal's first night has not been read.",
}

KINDS_READ: dict[str, tuple[Kind, ...]] = {
    "calls": ("call",),
    "users": ("user",),
    "entities": ("contact", "lead", "company", "deal"),
}
"""Step → the kinds of rows that it reads."""

NIGHT_ENDS_AFTER = timedelta(hours=3)
"""Until so long after it was to begin a night is not missed, only late."""
OVERDUE_AFTER = timedelta(hours=2)
"""The sensor looks every few minutes: what is due for longer is not being taken up."""
LATE_AFTER = timedelta(days=1)
SHOWN = 3


def names(step: str) -> tuple[str, ...]:
    """The standing checks of a step."""
    return (NO_FAILED, EVERY_NIGHT if step == "calls" else NOTHING_OVERDUE)


async def no_failed_calls(connection: Connection, portal: Portal, step: str) -> dg.AssetCheckResult:
    """Of all days: calls that are failed at the step, and rows that it could not read."""
    unreadable = await unreadable_rows.details(connection, portal.portal, KINDS_READ.get(step, ()))
    failed, first, last = await call_steps.failed_days(connection, portal.portal, step)
    rows = await call_steps.failures(connection, portal.portal, step, first, last) if first and last else []
    told = [f"{failed} failed"]
    if failed:
        told[0] += f", the oldest of {first}: " if failed > 1 else ": "
        told[0] += "; ".join(_failure(row) for row in rows[:SHOWN]) + (" …" if failed > SHOWN else "")
        # A row that cannot be read is made good by the night that reads it well, and `calls` tries nothing again.
        again = "" if step == "calls" else f" --step {step} --retry-failed"
        told.append(f"to try again: {_backfill(portal, first, last)}{again}")
    if unreadable:
        told.append(f"rows that cannot be read: {len(unreadable)}")
    return dg.AssetCheckResult(
        check_name=NO_FAILED,
        asset_key=dg.AssetKey([portal.portal, step]),
        passed=not failed and not unreadable,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(told),
        metadata={
            "failed": failed,
            "calls": figures.failure_table(rows),
            "unreadable": len(unreadable),
            "rows": figures.list_of(unreadable),
        },
    )


def nothing_overdue(portal: Portal, step: str, left: Sequence[Unfinished], now: datetime) -> dg.AssetCheckResult:
    """Of all days. `left`: what the portal's steps have left, oldest day first."""
    late = [one for one in left if one.step == step and one.next_try < now - OVERDUE_AFTER]
    calls = sum(one.due for one in late)
    description = "nothing is left whose time has come"
    if late:
        since = min(one.next_try for one in late)
        sample = ", ".join(f"call {call} of {one.day}" for one in late[:SHOWN] for call in one.calls[:1])
        description = (
            f"{calls} calls are left though their time has come, the oldest since {since.astimezone(portal.zone):%Y-%m-%d %H:%M} "
            f"({sample}{' …' if calls > SHOWN else ''}): the sensor {portal.portal}_unfinished takes them up while the daemon "
            f"runs; or now: {_backfill(portal, late[0].day, late[-1].day)} --step {step}"
        )
    is_old = bool(late) and min(one.next_try for one in late) < now - LATE_AFTER
    return dg.AssetCheckResult(
        check_name=NOTHING_OVERDUE,
        asset_key=dg.AssetKey([portal.portal, step]),
        passed=not late,
        severity=dg.AssetCheckSeverity.ERROR if is_old else dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={"overdue": calls},
    )


async def every_night_ran(connection: Connection, portal: Portal, now: datetime) -> dg.AssetCheckResult:
    """Whether every day since the portal's first night has been read, but the one whose night is still going on."""
    last = last_night(portal, now)
    begun = await nights.begun(connection, portal.portal)
    first = max(begun, portal.start_date) if begun else None
    missed = await nights.unread(connection, portal.portal, first, last) if first and first <= last else []
    description = f"every day from {first} to {last} has been read" if first else "the portal has had no night yet"
    if missed:
        sample = ", ".join(str(day) for day in missed[:SHOWN]) + (" …" if len(missed) > SHOWN else "")
        description = (
            f"{len(missed)} nights did not run, the first for {missed[0]} ({sample}): the next night takes up what is no more "
            f"than {portal.catch_up_days} days old (catch_up_days); or now: {_backfill(portal, missed[0], missed[-1])}"
        )
    return dg.AssetCheckResult(
        check_name=EVERY_NIGHT,
        asset_key=dg.AssetKey([portal.portal, "calls"]),
        passed=not missed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=description,
        metadata={"missed": len(missed)},
    )


def last_night(portal: Portal, now: datetime) -> date:
    """The day whose night must be over by `now`."""
    here = now.astimezone(portal.zone)
    begins = datetime.combine(here.date(), time.fromisoformat(portal.nightly_at), portal.zone)
    return here.date() - timedelta(days=1 if here >= begins + NIGHT_ENDS_AFTER else 2)


def _failure(row: dict[str, object]) -> str:
    detail = " ".join(str(row["detail"] or "").split())
    return f"call {row['call_id']} of {row['day']} {row['reason']}" + (f" ({detail[:100]})" if detail else "")


def _backfill(portal: Portal, first: date | None, last: date | None) -> str:
    return f"dialog-assets backfill --portal {portal.portal} --from {first} --to {last}"
