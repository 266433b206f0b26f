"""What the suites of faults share: runs as processes, and a database's results as values."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from dataclasses import dataclass
from datetime import date
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from dialog_assets.cli.world import SandboxProcess
from dialog_assets.portals import Portal
from dialog_assets_tests.faults.kills import Moment, die_at

PORTAL = "okna_sever"
MONDAY, TUESDAY, FRIDAY = date(2026, 3, 2), date(2026, 3, 3), date(2026, 3, 6)
RESULTS = (
    "users",
    "entities",
    "entity_deals",
    "calls",
    "audio_files",
    "transcripts",
    "fixed_dialogs",
    "classifications",
    "criteria_scores",
    "entity_summaries",
    "call_steps",
)
PASSING = {"first_seen_at", "updated_at", "archived_at", "created_at", "next_try", "attempts", "detail", "operation_id"}
"""Columns that tell when and in how many tries, not what."""

LLM_VENDORS = ("openai", "anthropic", "deepseek")

Snapshot = dict[str, list[dict[str, Any]]]

AT_ONCE = 4
"""Items of one step at once in the runs of `Runs`: few, so that a kill finds some done, some in flight, some not begun."""


@dataclass(frozen=True)
class Calm:
    """What an undisturbed run of PORTAL's week gives: every result, and the sandbox's books."""

    results: Snapshot
    books: dict[str, Any]


_forks = multiprocessing.get_context("forkserver")


def forks() -> ForkServerContext:
    """What makes processes that have imported everything; their environment is the one of the first use."""
    _forks.set_forkserver_preload(["dialog_assets_tests.faults.week"])
    return _forks


def narrow(portal: Portal) -> Portal:
    """The portal with AT_ONCE items of a step at once."""
    return portal.model_copy(
        update={
            "bitrix24": portal.bitrix24.model_copy(update={"downloads": AT_ONCE}),
            "speech": portal.speech.model_copy(update={"concurrency": AT_ONCE}),
            "llm": portal.llm.model_copy(update={"concurrency": AT_ONCE}),
        }
    )


@dataclass(frozen=True)
class Runs:
    """Starts runs of `portal` over the days as processes, all on one database and one folder for temporary files.

    `records`: a folder for everything that they say, and for Dagster's storage.
    """

    sandbox: SandboxProcess
    database: str
    temporary: Path
    portal: str
    first: date
    last: date
    records: Path | None = None

    def start(self, dies_at: Moment | None = None) -> Run:
        """A run that has just begun, and kills itself at a moment."""
        environment = {**self.sandbox.environment, "DATABASE_URL": self.database}
        here, there = forks().Pipe(duplex=False)
        arguments = (environment, str(self.temporary), self.portal, self.first, self.last)
        records = str(self.records) if self.records else None
        process = forks().Process(target=_run, args=(there, records, dies_at, *arguments), daemon=True)
        process.start()
        there.close()
        return Run(process, here)

    def to_its_end(self) -> tuple[str, ...]:
        """A run to its end; what stopped it, one sentence a step."""
        run = self.start()
        with run.told:
            assert run.told.poll(500), "the run does not end"
            try:
                errors: tuple[str, ...] = run.told.recv()
            except EOFError:
                raise AssertionError("the run's process ended before the run") from None
        run.process.join()
        return errors

    def complete(self) -> None:
        """A run to its end, which must be a good one."""
        errors = self.to_its_end()
        assert errors == (), errors


@dataclass(frozen=True)
class Run:
    """A run as a process; `told` gives what stopped it, when it has ended."""

    process: ForkServerProcess
    told: Connection


def _run(told: Connection, records: str | None, dies_at: Moment | None, *arguments: Any) -> None:
    from dialog_assets_tests.faults import week

    if dies_at is not None:
        die_at(dies_at)
    week.run(*arguments, records=records, told=told)


def snapshot(database: str, portal: str) -> Snapshot:
    """Every result of a portal, but for PASSING columns."""
    found: Snapshot = {}
    with psycopg.connect(database, row_factory=dict_row) as connection:
        for table in RESULTS:
            rows = connection.execute(
                sql.SQL("SELECT * FROM {} WHERE portal = %s").format(sql.Identifier(table)), [portal]
            ).fetchall()
            kept = [{k: v for k, v in row.items() if k not in PASSING} for row in rows]
            found[table] = sorted(kept, key=repr)
    return found


def differences(found: Snapshot, expected: Snapshot) -> list[str]:
    """A line for each row that is in one of the two only; columns that hold people's words are cut short."""
    lines = []
    for table, rows in expected.items():
        here, there = [repr(row) for row in found[table]], [repr(row) for row in rows]
        lines += [f"missing {table} {row[:600]}" for row in there if row not in here]
        lines += [f"surplus {table} {row[:600]}" for row in here if row not in there]
    return lines


def failures(database: str) -> list[tuple[Any, ...]]:
    """(call, step, reason, detail) of every failed call."""
    with psycopg.connect(database) as connection:
        return connection.execute(
            "SELECT call_id, step, reason, detail FROM call_steps WHERE state = 'failed' ORDER BY 1, 2"
        ).fetchall()


def ledger(database: str) -> list[dict[str, Any]]:
    """Every row of the ledger."""
    with psycopg.connect(database, row_factory=dict_row) as connection:
        return connection.execute("SELECT * FROM ledger ORDER BY id").fetchall()


def surplus(books: dict[str, Any], whole: dict[str, Any], vendor: str) -> int:
    """How many of a vendor's answers to the questions of `whole` were bought beyond those; all must be there."""
    more = Counter({key: prompts(books, vendor).get(key, 0) for key in prompts(whole, vendor)})
    more.subtract(prompts(whole, vendor))
    assert min(more.values(), default=0) >= 0, f"an answer of {vendor} is missing"
    return sum(more.values())


def recordings(books: dict[str, Any]) -> dict[str, int]:
    """How often each recording was submitted, by sha256."""
    found: dict[str, int] = books.get("voicekit", {}).get("items", {}).get("recording", {})
    return found


def prompts(books: dict[str, Any], vendor: str) -> dict[str, int]:
    """How often each prompt of a vendor was answered, by sha256."""
    found: dict[str, int] = books.get(vendor, {}).get("items", {}).get("prompt", {})
    return found
