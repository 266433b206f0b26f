"""What the commands show on a terminal, and the same as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dialog_assets.assets import figures
from dialog_assets.assets.figures import STATES, Figures
from dialog_assets.assets.steps import UPSTREAM
from dialog_assets.portals import Portal
from dialog_assets.store import call_steps, calls, dialogs, ledger
from dialog_assets.store.pool import open_pool

Days = dict[str, dict[date, dict[str, Figures]]]
"""portal → day → step → figures."""

TITLES = {
    "calls": "calls",
    "audio_files": "archived",
    "transcripts": "recognised",
    "fixed_dialogs": "corrected",
    "classifications": "classified",
    "criteria_scores": "scored",
}
"""Columns of the table of days."""

Failed = dict[tuple[str, str, str], list[dict[str, Any]]]
"""(portal, step, reason) → calls with call_id, day and detail, the newest first."""

ROLES = {"operator": "Оператор", "client": "Клиент", "speaker": "Голос"}


def console() -> Console:
    """The terminal; wide enough for the tables where it is not one."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=140)


async def read_days(url: str, portals: Sequence[Portal], first: date | None, last: date | None) -> Days:
    """The figures of all steps on the days asked; without bounds, on the days from the first to the last call."""
    days: Days = {}
    async with open_pool(url, size=2) as pool, pool.connection() as connection:
        for portal in portals:
            known = await calls.days(connection, portal.portal)
            start, end = first or (known and known[0]), last or (known and known[1])
            days[portal.portal] = {}
            if not start or not end:
                continue
            for step in UPSTREAM:
                for day, found in (await figures.read(connection, portal.portal, step, start, end)).items():
                    days[portal.portal].setdefault(day, {})[step] = found
    return days


async def read_failed(url: str, days: Days) -> Failed:
    """The calls that failed on these days, at most twenty of a portal's step."""
    found: Failed = {}
    async with open_pool(url, size=2) as pool, pool.connection() as connection:
        for portal, by_day in days.items():
            for step in UPSTREAM:
                if any(by_step[step].states["failed"] for by_step in by_day.values()):
                    for row in await call_steps.failures(connection, portal, step, min(by_day), max(by_day)):
                        found.setdefault((portal, step, row["reason"]), []).append(row)
    return found


async def read_costs(
    url: str, portals: Sequence[Portal], first: date | None, last: date | None
) -> list[dict[str, Any]]:
    """Rows of what was bought."""
    async with open_pool(url, size=2) as pool, pool.connection() as connection:
        return await ledger.costs(connection, [portal.portal for portal in portals], first, last)


def has_calls(days: Days) -> bool:
    """Whether there is a call on any of the days."""
    return any(by_step["calls"].calls for by_day in days.values() for by_step in by_day.values())


def as_json(days: Days) -> list[dict[str, Any]]:
    """One object for each portal, day and step."""
    return [
        {
            "portal": portal,
            "day": day.isoformat(),
            "step": step,
            "calls": found.calls,
            **{state: found.states[state] for state in STATES},
            "reasons": [{"state": state, "reason": reason, "calls": n} for (state, reason), n in found.reasons.items()],
            "cost_rub": str(found.cost_rub),
        }
        for portal, by_day in days.items()
        for day, by_step in by_day.items()
        for step, found in by_step.items()
    ]


def print_days(days: Days) -> None:
    """A row per portal and day: calls done by step, entities summarised, why the rest is not, and the cost."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("portal", no_wrap=True)
    table.add_column("day", no_wrap=True)
    for title in (*TITLES.values(), "entities", "skip", "fail", "wait", "₽"):
        table.add_column(title, justify="right")
    table.add_column("why not scored")
    for portal, by_day in days.items():
        for day, by_step in by_day.items():
            end = by_step["criteria_scores"]
            failed = sum(found.states["failed"] for found in by_step.values())
            # A failed call waits at the steps after the one where it failed: here it is counted once, as failed.
            waiting = end.states["waiting"] + end.states["failed"] - failed
            table.add_row(
                portal,
                day.isoformat(),
                *(str(by_step[step].states["done"]) for step in TITLES),
                str(by_step["entity_summaries"].numbers["entities"]),
                str(end.states["skipped"]),
                f"[red]{failed}[/red]" if failed else "0",
                str(max(0, waiting)),
                f"{sum((found.cost_rub for found in by_step.values()), Decimal(0)):.2f}",
                _first_reasons(by_step),
            )
        table.add_section()
    console().print(table)


def print_reasons(days: Days, failed: Failed) -> None:
    """Why calls were skipped, failed (and which) or are waiting: the step where that happened first, and how many. And what
    is odd about recordings and dialogs that went on.
    """
    out = console()
    for portal, by_day in days.items():
        for step in UPSTREAM:
            own: Counter[tuple[str, str]] = Counter()
            for by_step in by_day.values():
                own.update(_own_reasons(by_step, step))
            for (state, reason), number in sorted(own.items()):
                out.print(f"  {portal}/{step}: {number} {state}: {reason}")
                if state != "failed":
                    continue
                named = failed.get((portal, step, reason), ())
                for row in named:
                    out.print(f"      call {row['call_id']} of {row['day']}: {row['detail'] or reason}", markup=False)
                if number > len(named):
                    out.print(f"      and {number - len(named)} more, in table call_steps")
            for told in _odd(step, by_day.values()):
                out.print(f"  {portal}/{step}: {told}", markup=False)


def _odd(step: str, days: Iterable[dict[str, Figures]]) -> list[str]:
    """The step's marks."""
    found: Counter[str] = Counter()
    for by_step in days:
        found.update({"dialogs": by_step[step].states["done"]})
        found.update(by_step[step].numbers)
    told = [
        f"{number} marked {name.removeprefix('marked_')}"
        for name, number in found.items()
        if name.startswith("marked_")
    ]
    if found["roles_disagree"]:
        told.append(
            f"{found['roles_disagree']} of {found['dialogs']} dialogs contradict `channels` of the portal's file: "
            "marked roles_disagree, look at role_check"
        )
    return told


def _first_reasons(by_step: dict[str, Figures]) -> str:
    """The calls that are not scored, by what first held them up."""
    found: Counter[str] = Counter()
    for step in TITLES:
        for (_, reason), number in sorted(_own_reasons(by_step, step).items()):
            found[reason] += number
    return ", ".join(f"{number} {reason}" for reason, number in found.items())


def _own_reasons(by_step: dict[str, Figures], step: str) -> Counter[tuple[str, str]]:
    """The step's (state, reason) counts without what the step before it left."""
    own = Counter(by_step[step].reasons)
    if UPSTREAM[step]:
        upstream = UPSTREAM[step][0]
        own -= Counter({key: n for key, n in by_step[upstream].reasons.items() if key[0] in ("skipped", "waiting")})
        own.pop(("waiting", f"{upstream}_failed"), None)
    return own


def print_costs(rows: Sequence[dict[str, Any]]) -> None:
    """A row per portal, step and model, and the sum."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_footer=True)
    total = sum((row["cost_rub"] for row in rows), Decimal(0))
    table.add_column("portal", "all")
    table.add_column("step")
    table.add_column("vendor")
    table.add_column("model")
    for title in ("requests", "tries", "tokens in", "tokens out", "audio, s"):
        table.add_column(title, justify="right")
    table.add_column("cost, RUB", f"{total:.4f}", justify="right")
    for row in rows:
        table.add_row(
            row["portal"],
            row["step"],
            row["vendor"],
            row["model"],
            *(str(row[name]) for name in ("requests", "attempts")),
            *("" if row[name] is None else f"{row[name]:.0f}" for name in ("tokens_in", "tokens_out", "audio_seconds")),
            f"{row['cost_rub']:.4f}",
        )
    console().print(table)


async def print_example(url: str, portal: str) -> None:
    """The scored call of the portal with the most criteria: dialog, categories, scores with quotes, the summary."""
    out = console()
    async with open_pool(url, size=2) as pool, pool.connection() as connection:
        call = await dialogs.example(connection, portal)
    if call is None:
        out.print("No call is scored yet.")
        return
    out.print(f"{portal} call {call['call_id']}, {call['started_at']:%Y-%m-%d %H:%M}, {call['direction']}, ", end="")
    out.print(
        f"{call['duration_s']} s, with {call['entity_title'] or 'nobody in the CRM'}; {call['cost_rub']:.4f} RUB\n"
    )
    for turn in call["turns"]:
        seconds = turn["start_ms"] // 1000
        out.print(f"  {seconds // 60}:{seconds % 60:02d}  {ROLES[turn['role']]:9} {turn['text']}", markup=False)
    out.print(f"\n  Corrected lines: {len(call['edits'])}. Categories: {', '.join(call['categories'])}.\n")
    for score in call["scores"]:
        mark = "—" if score["score"] is None else f"{score['score']}/{score['scale_max']}"
        out.print(f"  {mark:>6}  {score['title']}: {score['text']}", markup=False)
        for quote in score["quotes"][:1]:
            out.print(f"          «{quote['text']}» ({quote['line']}, {quote['start_ms'] / 1000:.0f} s)", markup=False)
    if call["summary"]:
        out.print(f"\n  Summary of {call['entity_title']}:\n  {call['summary']}", markup=False)
