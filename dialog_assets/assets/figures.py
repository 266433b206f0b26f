"""A step's figures for one day: counts by state and reason, cost, and the readable table of a materialization."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg

from dialog_assets.said import markdown
from dialog_assets.store import call_steps, day_numbers, ledger
from dialog_assets.store.pool import Connection

STATES = ("done", "skipped", "failed", "waiting")


@dataclass
class Figures:
    """How the calls of some days stand at a step.

    `reasons` counts (state, reason); `numbers` are the step's own (store.day_numbers); `cost_rub` is what it paid.
    """

    calls: int = 0
    states: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(STATES, 0)))
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    numbers: Counter[str] = field(default_factory=Counter)
    cost_rub: Decimal = Decimal(0)

    def add(self, state: str, reason: str | None, calls: int) -> None:
        """Count some calls."""
        self.calls += calls
        self.states[state] += calls
        if reason is not None:
            self.reasons[state, reason] += calls

    @property
    def is_accounted(self) -> bool:
        """Rule 4: every call has a state of this step, set by a run of it."""
        return sum(self.states.values()) == self.calls and ("waiting", "not_run") not in self.reasons

    def sentence(self) -> str:
        """One line for a log."""
        counts = ", ".join(f"{self.states[state]} {state}" for state in STATES if self.states[state])
        return f"{self.calls} calls: {counts or 'nothing to do'}; {self.cost_rub:.4f} RUB"

    def metadata(self) -> dict[str, Any]:
        """Dagster metadata: numbers under stable names, for its plots, and a table for people."""
        return {
            "calls": self.calls,
            **{state: self.states[state] for state in STATES},
            **self.numbers,
            "cost_rub": float(self.cost_rub),
            "states": dg.MetadataValue.md(self.table()),
        }

    def table(self) -> str:
        """Markdown: state, reason, calls; then the step's numbers."""
        lines = ["| state | reason | calls |", "|---|---|---:|"]
        for state in STATES:
            reasons = sorted((reason, calls) for (known, reason), calls in self.reasons.items() if known == state)
            if state == "done" or (self.states[state] and not reasons):
                reasons = [("", self.states[state])]
            lines += [f"| {state} | {reason} | {calls} |" for reason, calls in reasons]
        lines += [f"| **all** | | **{self.calls}** |", "", "| | |", "|---|---:|"]
        lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in self.numbers.items()]
        return "\n".join([*lines, f"| cost, RUB | {self.cost_rub:.4f} |"])


async def read(connection: Connection, portal: str, step: str, first: date, last: date) -> dict[date, Figures]:
    """The step's figures for each day from `first` to `last`, days without calls included."""
    found = {first + timedelta(days=offset): Figures() for offset in range((last - first).days + 1)}
    for row in await call_steps.summary(connection, portal, step, first, last):
        found[row["day"]].add(row["state"], row["reason"], row["calls"])
    for day, numbers in (await day_numbers.read(connection, portal, step, first, last)).items():
        found[day].numbers.update(numbers)
    for day, cost in (await ledger.cost_by_day(connection, portal, step, first, last)).items():
        found[day].cost_rub = cost
    return found


def total(parts: Iterable[Figures]) -> Figures:
    """The sum of several days."""
    out = Figures()
    for part in parts:
        out.calls += part.calls
        out.states.update(part.states)
        out.reasons.update(part.reasons)
        out.numbers.update(part.numbers)
        out.cost_rub += part.cost_rub
    return out


def failure_table(rows: Sequence[dict[str, Any]]) -> dg.MarkdownMetadataValue:
    """Markdown: the failed calls with their reasons."""
    lines = ["| day | call | reason | detail | attempts |", "|---|---|---|---|---:|"]
    for row in rows:
        detail = markdown(row["detail"] or "")
        lines.append(f"| {row['day']} | {row['call_id']} | {row['reason']} | {detail} | {row['attempts']} |")
    return dg.MetadataValue.md("\n".join(lines) if rows else "none")


def list_of(sentences: Sequence[str], limit: int = 20) -> dg.MarkdownMetadataValue:
    """Markdown: the first sentences, one a line, and how many more there are."""
    lines = [f"- {markdown(sentence)}" for sentence in sentences[:limit]]
    if len(sentences) > limit:
        lines.append(f"- and {len(sentences) - limit} more")
    return dg.MetadataValue.md("\n".join(lines) if lines else "none")
