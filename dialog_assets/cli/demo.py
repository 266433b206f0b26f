"""`make demo`: the sandbox's week through the real Dagster job, and what came of it on the terminal.

The week is lived through as it would be: four days are backfilled as one run, then the fifth day's night works on it and
the days before it, and finds the recording that came a day late.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import click

from dialog_assets.cli import instance, tables
from dialog_assets.cli.running import RunResult, run_days
from dialog_assets.cli.world import SandboxProcess, pointed_at, sandbox_process
from dialog_assets.errors import DialogAssetsError
from dialog_assets.portals import Portal
from dialog_assets.store import schema, server

FIRST = date(2026, 3, 2)
LAST = date(2026, 3, 6)
"""The sandbox's week."""


class NoSandboxPortal(DialogAssetsError):
    """The portal files are not those that the sandbox plays."""


def play(portals: Sequence[Portal], *, as_json: bool) -> int:
    """Run the demo; returns the exit code. Raises the errors of the commands."""
    started = time.monotonic()
    played = [portal for portal in portals if portal.portal in ("okna_sever", "avto_ural")]
    if not played:
        raise NoSandboxPortal("The demo plays okna_sever and avto_ural, and neither is among the portal files.")
    with sandbox_process(state=server.data_folder() / "sandbox") as sandbox:
        url = instance.prepare()
        schema.setup_portals(url, played)
        with pointed_at(sandbox):
            results = [result for portal in played for result in _week(portal, sandbox)]
        books = sandbox.books()
    days = asyncio.run(tables.read_days(url, played, FIRST, LAST))
    bought = purchases(books)
    seconds = time.monotonic() - started
    if as_json:
        told = {"days": tables.as_json(days), "bought": bought, "seconds": seconds, "runs": [vars(r) for r in results]}
        click.echo(json.dumps(told))
    else:
        _tell(url, days, bought, seconds)
    for result in results:
        for error in result.errors:
            click.echo(f"Error: {error}", err=True)
    return 0 if all(result.success for result in results) else 1


def _week(portal: Portal, sandbox: SandboxProcess) -> list[RunResult]:
    # Dagster's own import takes a second, which the sandbox's start has just covered.
    from dialog_assets.definitions import build_defs

    definitions = build_defs([portal])
    results = []
    eve = LAST - timedelta(days=1)
    for first, last in ((FIRST, eve), (max(FIRST, LAST - timedelta(days=portal.trailing_days)), LAST)):
        night = datetime.combine(last + timedelta(days=1), datetime.min.time(), portal.zone) + timedelta(hours=3)
        sandbox.post("/clock", {"now": night.isoformat()})
        click.echo(f"{portal.portal}: the night after {last}, days {first} to {last} …", err=True)
        results += run_days(definitions, portal, first, last)
    return results


def purchases(books: dict[str, Any]) -> dict[str, int]:
    """New recognitions and LLM answers by the sandbox's own books."""
    vendors = ("openai", "anthropic", "deepseek")
    return {
        "recognitions": books.get("voicekit", {}).get("counts", {}).get("submitted", 0),
        "llm_requests": sum(books.get(vendor, {}).get("counts", {}).get("answered", 0) for vendor in vendors),
    }


def _tell(url: str, days: tables.Days, bought: dict[str, int], seconds: float) -> None:
    click.echo(
        "\nDIALOG ASSETS on the sandbox: a fictional world; its texts show the pipeline, never a model's quality.\n"
    )
    tables.print_days(days)
    click.echo("Why not every call is done:\n")
    tables.print_reasons(days)
    click.echo("\nOne call in full:\n")
    asyncio.run(tables.print_example(url, "okna_sever"))
    click.echo(
        f"\nBought in this run, by the sandbox's books: {bought['recognitions']} recognitions, "
        f"{bought['llm_requests']} LLM requests. {seconds:.0f} s.\n\n"
        "Next:\n"
        "  make ui                             the asset graphs, partitions and metadata in Dagster\n"
        "  make demo                           again: everything is there, nothing is bought twice\n"
        "  .venv/bin/dialog-assets coverage    every day and step · costs: every rouble · --help: the rest\n"
        "  README.md                           how to connect a real portal"
    )
