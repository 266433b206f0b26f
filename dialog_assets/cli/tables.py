"""What the commands show on a terminal, and the same as JSON."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dialog_assets.assets import figures
from dialog_assets.assets.figures import STATES, Figures
from dialog_assets.assets.steps import UPSTREAM
from dialog_assets.portals import Portal
from dialog_assets.said import printable
from dialog_assets.store import call_steps, dialogs, ledger
from dialog_assets.store.pool import open_pool

Days = dict[str, dict[date, dict[str, Figures]]]
"""portal → day → step → figures."""

TITLES = {
    "calls": "calls",
    "audio_files": "ar-\nchived",
    "transcripts": "recog-\nnised",
    "fixed_dialogs": "cor-\nrected",
    "classifications": "clas-\nsified",
    "criteria_scores": "scored",
}
"""Columns of the table of days, which fits 80 characters."""

PIPE_WIDTH = 100
"""Characters of a line where the output is no terminal."""

Failed = dict[tuple[str, str, str], list[dict[str, Any]]]
"""(portal, step, reason) → calls with call_id, day and detail, the newest first; of CLOSED, how many calls have a detail."""

CLOSED = "recording_not_allowed"
"""The reason of calls whose recording lies at a host that may not be asked: its detail is that host."""

ROLES = {"operator": "Оператор", "client": "Клиент", "speaker": "Голос"}


class _Terminal(Console):
    """Shows strangers' words (titles, dialogs, reasons) without what a terminal would obey."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print `objects`; texts are cleaned."""
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)


def console(*, stderr: bool = False) -> Console:
    """The terminal. Where there is none, lines are as wide as tables need and text is not wrapped."""
    out = _Terminal(highlight=False, stderr=stderr)
    return out if out.is_terminal else _Terminal(highlight=False, stderr=stderr, width=PIPE_WIDTH, soft_wrap=True)


async def read_days(url: str, portals: Sequence[Portal], first: date | None, last: date | None) -> Days:
    """The figures of all steps on the days asked; without bounds, from the portal's start to yesterday."""
    days: Days = {}
    async with open_pool(url, size=2) as pool, pool.connection() as connection:
        for portal in portals:
            start = first or portal.start_date
            end = last or datetime.now(portal.zone).date() - timedelta(days=1)
            days[portal.portal] = {}
            for step in UPSTREAM if start <= end else ():
                for day, found in (await figures.read(connection, portal.portal, step, start, end)).items():
                    days[portal.portal].setdefault(day, {})[step] = found
    return days


def days_run(days: Days) -> set[tuple[str, date]]:
    """The (portal, day) that a run has read: those with calls, and those that Dagster's instance holds as materialized."""
    import dagster as dg

    found = {(portal, day) for portal, by_day in days.items() for day, steps in by_day.items() if steps["calls"].calls}
    with dg.DagsterInstance.get() as instance:
        for portal in days:
            keys = instance.get_materialized_partitions(dg.AssetKey([portal, "calls"]))
            found |= {(portal, date.fromisoformat(key)) for key in keys}
    return found


async def read_failed(url: str, days: Days) -> Failed:
    """The calls that failed on these days, at most twenty of a portal's step."""
    found: Failed = {}
    async with open_pool(url, size=2) as pool, pool.connection() as connection:
        for portal, by_day in days.items():
            for step in UPSTREAM:
                if any(by_step[step].states["failed"] for by_step in by_day.values()):
                    for row in await call_steps.failures(connection, portal, step, min(by_day), max(by_day)):
                        found.setdefault((portal, step, row["reason"]), []).append(row)
            if by_day:
                closed = await call_steps.details(connection, portal, "audio_files", CLOSED, min(by_day), max(by_day))
                found[portal, "audio_files", CLOSED] = closed
    return found


async def read_costs(
    url: str, portals: Sequence[str], first: date | None, last: date | None, *, by_purchase: bool
) -> list[dict[str, Any]]:
    """Rows of what was bought for the calls of the days, or on the days."""
    async with open_pool(url, size=2) as pool, pool.connection() as connection:
        return await ledger.costs(connection, portals, first, last, by_purchase=by_purchase)


def has_calls(days: Days) -> bool:
    """Whether there is a call on any of the days."""
    return any(by_step["calls"].calls for by_day in days.values() for by_step in by_day.values())


def as_json(days: Days, ran: set[tuple[str, date]]) -> list[dict[str, Any]]:
    """One object for each portal, day and step of the days that were run, and one for each day that was not."""
    out: list[dict[str, Any]] = []
    for portal, by_day in days.items():
        for day, by_step in by_day.items():
            place = {"portal": portal, "day": day.isoformat(), "run": (portal, day) in ran}
            out += (
                [place | {"step": step} | _json(found) for step, found in by_step.items()] if place["run"] else [place]
            )
    return out


def _json(found: Figures) -> dict[str, Any]:
    return {
        "calls": found.calls,
        **{state: found.states[state] for state in STATES},
        "reasons": [{"state": state, "reason": reason, "calls": n} for (state, reason), n in found.reasons.items()],
        "cost_rub": str(found.cost_rub),
    }


def print_days(days: Days, ran: set[tuple[str, date]]) -> None:
    """A block a portal with a row a day: calls done by step, entities summarised, the cost, and below why the rest is not."""
    out = console()
    for portal, by_day in days.items():
        out.print(f"\n{portal}", style="bold")
        heads = ["day", *TITLES.values(), "enti-\nties", "skip", "fail", "wait", "₽"]
        rows: list[tuple[list[str], str]] = []
        own = {day for name, day in ran if name == portal}
        for was_run, group in itertools.groupby(by_day.items(), _within(own)):
            if not was_run:
                missing = [day.isoformat() for day, _ in group]
                rows.append(([" to ".join(dict.fromkeys((missing[0], missing[-1]))) + "  not run"], ""))
            else:
                rows += [(_row(day, by_step), _first_reasons(by_step)) for day, by_step in group]
        widths = [
            max(*(len(part) for part in head.split("\n")), *(len(row[at]) for row, _ in rows if len(row) > 1), 0)
            for at, head in enumerate(heads)
        ]
        for line in (0, 1):
            parts = [(head.split("\n") if "\n" in head else ["", head])[line] for head in heads]
            out.print(_line(parts, widths), style="dim")
        for row, reasons in rows:
            failed = len(row) > 1 and row[-3] != "0"
            out.print(_line(row, widths), style="red" if failed else None)
            if reasons:
                out.print(Padding(f"not scored: {reasons}", (0, 0, 0, 12), expand=False), style="dim")


def _within(own: set[date]) -> Callable[[tuple[date, Any]], bool]:
    return lambda item: item[0] in own


def _row(day: date, by_step: dict[str, Figures]) -> list[str]:
    end = by_step["criteria_scores"]
    failed = sum(found.states["failed"] for found in by_step.values())
    # A failed call waits at the steps after the one where it failed: here it is counted once, as failed.
    waiting = end.states["waiting"] + end.states["failed"] - failed
    return [
        day.isoformat(),
        *(str(by_step[step].states["done"]) for step in TITLES),
        str(by_step["entity_summaries"].numbers["entities"]),
        str(end.states["skipped"]),
        str(failed),
        str(max(0, waiting)),
        f"{sum((found.cost_rub for found in by_step.values()), Decimal(0)):.2f}",
    ]


def _line(parts: Sequence[str], widths: Sequence[int]) -> str:
    if len(parts) == 1:
        return parts[0]
    return " ".join(
        [parts[0].ljust(widths[0]), *(part.rjust(width) for part, width in zip(parts[1:], widths[1:], strict=True))]
    )


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
                if reason == CLOSED:
                    for row in failed.get((portal, step, reason), ()):
                        out.print(f"      {row['calls']}: {row['detail']}", markup=False)
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
        # What the step before it did not hand on could not begin here.
        handed_on = by_step[upstream].states["done"]
        own["waiting", "not_run"] = min(own["waiting", "not_run"], handed_on)
    return +own


def print_costs(rows: Sequence[dict[str, Any]], first: date | None, last: date | None, *, by_purchase: bool) -> None:
    """What the days are, a block a portal with a row for each step and model and its sum, and the sum of all."""
    out = console()
    days = " ".join([*([f"from {first}"] if first else []), *([f"to {last}"] if last else [])]) or "of all days"
    out.print(f"{'Bought' if by_purchase else 'Bought for the calls'} {days}\n")
    for portal, rows_of in itertools.groupby(rows, lambda row: row["portal"]):
        group = list(rows_of)
        table = Table(box=None, pad_edge=False, title=str(portal), title_justify="left", title_style="bold")
        table.add_column("step", no_wrap=True)
        table.add_column("vendor and model", overflow="fold")
        for title in ("requests", "tries", "tokens in", "out", "audio, s", "RUB"):
            table.add_column(title, justify="right", no_wrap=True)
        for row in group:
            table.add_row(
                row["step"],
                Text(printable(f"{row['vendor']} {row['model']}")),
                *(str(row[name]) for name in ("requests", "attempts")),
                *(
                    "" if row[name] is None else f"{row[name]:.0f}"
                    for name in ("tokens_in", "tokens_out", "audio_seconds")
                ),
                f"{row['cost_rub']:.4f}",
            )
        out.print(table)
        out.print(f"{portal}: {_sum(group, 'cost_rub'):.4f} RUB\n", markup=False)
    told = f"all: {_sum(rows, 'cost_rub'):.4f} RUB"
    if (estimated := _sum(rows, "estimated_rub")) > 0:
        told += f", of it {estimated:.4f} estimated"
    if (fruitless := _sum(rows, "fruitless_rub")) > 0:
        told += f", {fruitless:.4f} paid in vain"
    out.print(told)


def _sum(rows: Sequence[dict[str, Any]], column: str) -> Decimal:
    return sum((row[column] for row in rows), Decimal(0))


def print_bought(bought: dict[str, Any]) -> None:
    """What a run has bought."""
    console().print(
        f"\nBought in this run: {bought['recognitions']} recognitions, {bought['requests']} LLM requests, "
        f"{bought['cost_rub']:.4f} RUB."
    )


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
        f"{call['duration_s']} s, with {call['entity_title'] or 'nobody in the CRM'}; {call['cost_rub']:.4f} RUB\n",
        markup=False,
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
