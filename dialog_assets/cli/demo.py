"""`make demo`: the sandbox's week through the real Dagster job, and what came of it on the terminal.

The week is lived through as it would be: four days are backfilled as one run, then the fifth day's night works on it and
the days before it, and finds the recording that came a day late. A second demo runs the whole week again, for nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import click

from dialog_assets.assets.jobs import nightly_range
from dialog_assets.assets.steps import UPSTREAM
from dialog_assets.cli import instance, tables
from dialog_assets.cli.running import RunResult, run_days
from dialog_assets.cli.world import PLAYED, SandboxProcess, pointed_at
from dialog_assets.definitions import build_defs
from dialog_assets.errors import DialogAssetsError
from dialog_assets.portals import Portal
from dialog_assets.sandbox.world import load_world, moving
from dialog_assets.sandbox.world.oracle import expected_state
from dialog_assets.store import call_steps, calls, rules, schema
from dialog_assets.store.pool import open_pool


class WrongWeek(DialogAssetsError):
    """What came out of the sandbox's week is not what its world says must come out."""


class NotForDemo(DialogAssetsError):
    """The portal files or the database are not the sandbox's."""


def play(portals: Sequence[Portal], sandbox: SandboxProcess, *, as_json: bool) -> int:
    """Run the demo; returns the exit code. Raises the errors of the commands."""
    started = time.monotonic()
    played = [portal for portal in portals if portal.portal in PLAYED]
    if not played:
        raise NotForDemo(f"The demo plays {' and '.join(PLAYED)}, and neither is in the folder portals.")
    url = instance.prepare()
    strangers = asyncio.run(_portals_of(url)) - set(PLAYED)
    if strangers:
        raise NotForDemo(
            f"The database has tables of {', '.join(sorted(strangers))}: the demo's fictional calls do not belong there; "
            "give the demo a place of its own, DIALOG_ASSETS_DATA=.demo and no DATABASE_URL."
        )
    schema.setup_portals(url, played)
    first, last = sandbox.week
    before = asyncio.run(_differences(url, played, sandbox.week))
    with pointed_at(sandbox):
        results = [result for portal in played for result in _week(url, portal, sandbox)]
    days = asyncio.run(tables.read_days(url, played, first, last))
    bought = purchases(sandbox.books())
    seconds = time.monotonic() - started
    if as_json:
        told = {
            "days": tables.as_json(days, tables.days_run(days)),
            "bought": bought,
            "seconds": seconds,
            "runs": [vars(r) for r in results],
        }
        click.echo(json.dumps(told))
    else:
        _tell(url, days, bought, seconds)
    for result in results:
        for error in result.errors:
            click.echo(f"Error: {error}", err=True)
    if not all(result.success for result in results):
        return 1
    check_week(before, asyncio.run(_differences(url, played, sandbox.week)), bought)
    return 0


def check_week(before: Sequence[str], after: Sequence[str], bought: dict[str, int]) -> None:
    """Hold what came out against the sandbox's world.

    `before` and `after` have a sentence for each call and step that differed from it, before this run and now; `bought` is what
    the sandbox was asked in this run. Raises WrongWeek.
    """
    if after:
        more = f", and {len(after) - 1} more differ" if len(after) > 1 else ""
        raise WrongWeek(f"The demo's week did not come out as the sandbox's world says: {after[0]}{more}.")
    if not before and any(bought.values()):
        raise WrongWeek(
            f"The week was complete before this run, and {bought['recognitions']} recognitions and "
            f"{bought['llm_requests']} LLM requests were bought again."
        )


async def _differences(url: str, portals: Sequence[Portal], week: tuple[date, date]) -> list[str]:
    """Where the database differs from what the sandbox's world says of the week, a sentence for each call and step."""
    world = moving.ending(load_world(), week[1])
    found = []
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        for portal in portals:
            stored = await call_steps.states(connection, portal.portal, *week)
            own = world.portals[portal.portal]
            wanted = {
                (call.id, step): expected_state(own, portal, call, step) for call in own.calls for step in UPSTREAM
            }
            found += [
                f"{portal.portal} call {call} at {step} is {_state(stored.get((call, step)))}, not {_state(expected)}"
                for (call, step), expected in wanted.items()
                if stored.get((call, step)) != expected
            ]
            found += [
                f"{portal.portal} call {call} is in no story of the sandbox"
                for call in sorted({call for call, _ in stored} - {call.id for call in own.calls})
            ]
    return found


def _state(state: tuple[str, str | None] | None) -> str:
    """How people read it: `done`, `failed (parser_crashed)`, `not there`."""
    if state is None:
        return "not there"
    return state[0] if state[1] is None else f"{state[0]} ({state[1]})"


def _week(url: str, portal: Portal, sandbox: SandboxProcess) -> list[RunResult]:
    """The runs of a portal's week, each on the night after its last day."""
    definitions = build_defs([portal])
    known = asyncio.run(_known_days(url, portal.portal))
    week = sandbox.week
    nights = [week]
    if known is None or known[1] < week[1]:
        nights = [(week[0], week[1] - timedelta(days=1)), nightly_range(portal, week[1] + timedelta(days=1)) or week]
    results = []
    for first, last in nights:
        night = datetime.combine(last + timedelta(days=1), datetime.min.time(), portal.zone) + timedelta(hours=3)
        sandbox.post("/clock", {"now": night.isoformat()})
        click.echo(f"{portal.portal}: the night after {last}: days {first} to {last} as one run …", err=True)
        results += run_days(definitions, portal, first, last)
    return results


async def _portals_of(url: str) -> set[str]:
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        return await rules.portals(connection)


async def _known_days(url: str, portal: str) -> tuple[date, date] | None:
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        return await calls.days(connection, portal)


def purchases(books: dict[str, Any]) -> dict[str, int]:
    """New recognitions and LLM answers by the sandbox's own books."""
    vendors = ("openai", "anthropic", "deepseek")
    return {
        "recognitions": books.get("voicekit", {}).get("counts", {}).get("submitted", 0),
        "llm_requests": sum(books.get(vendor, {}).get("counts", {}).get("answered", 0) for vendor in vendors),
    }


def _tell(url: str, days: tables.Days, bought: dict[str, int], seconds: float) -> None:
    click.echo("\nDIALOG ASSETS on the sandbox: a fictional world. Its texts show the pipeline, no model's quality.\n")
    tables.print_days(days, tables.days_run(days))
    click.echo("\nWhere calls stopped, and why:\n")
    tables.print_reasons(days, asyncio.run(tables.read_failed(url, days)))
    click.echo("\nOne call in full:\n")
    asyncio.run(tables.print_example(url, PLAYED[0]))
    click.echo(
        f"\nBought in this run, by the sandbox's books: {bought['recognitions']} recognitions, "
        f"{bought['llm_requests']} LLM requests. {seconds:.0f} s.\n\n"
        "Next:\n"
        "  make ui                             the asset graphs, partitions and metadata in Dagster\n"
        "  make demo                           again: everything is there, nothing is bought twice\n"
        "  .venv/bin/dialog-assets coverage    every day and step · costs: every rouble · --help: the rest\n"
        "  README.md                           how to connect a real portal"
    )
