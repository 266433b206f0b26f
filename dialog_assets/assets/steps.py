"""What all nine steps share: their names and order, the run of one step over its days, and what it tells Dagster.

Here: from an asset's context to the step's async core and back to a materialization with figures and checks.
Not here: what a step does (its own module), which items it has (store), how they are worked on (worklist).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

import dagster as dg
import psycopg

from dialog_assets import certificates, interruption, proxies
from dialog_assets.analysis.prompts import prompt
from dialog_assets.assets import figures, standing
from dialog_assets.assets.outcomes import outcome_of
from dialog_assets.errors import DialogAssetsError
from dialog_assets.portals import Portal
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import call_steps, ledger, nights, rules, schema, unfinished, withdrawn_results
from dialog_assets.store.call_steps import Pending
from dialog_assets.store.faults import sentence
from dialog_assets.store.leases import step_lock
from dialog_assets.store.pool import Connection, Patience, Pool, open_pool
from dialog_assets.worklist import INTERRUPTION_GRACE_S, Item, Outcome, Work

UPSTREAM: dict[str, tuple[str, ...]] = {
    "calls": (),
    "users": ("calls",),
    "entities": ("calls",),
    "audio_files": ("calls",),
    "transcripts": ("audio_files",),
    "fixed_dialogs": ("transcripts",),
    "classifications": ("fixed_dialogs",),
    "criteria_scores": ("classifications",),
    "entity_summaries": ("criteria_scores", "entities"),
}
"""The nine steps in order; the first name of each is the step whose output key it works from."""

WORKS_FROM = {step: names[0] for step, names in UPSTREAM.items() if names}
"""Step → the step whose output key it works from."""

KINDS: dict[str, set[str]] = {
    "calls": {"postgres"},
    "users": {"postgres"},
    "entities": {"postgres"},
    "audio_files": {"s3", "postgres"},
    "transcripts": {"voicekit", "postgres"},
    "fixed_dialogs": {"llm", "postgres"},
    "classifications": {"llm", "postgres"},
    "criteria_scores": {"llm", "postgres"},
    "entity_summaries": {"llm", "postgres"},
}

log = logging.getLogger("dialog_assets")

ANSWERS_KEPT_FOR = timedelta(days=14)
"""How long an answer waits in the ledger for the run that takes it up; it repeats people's words."""

I = TypeVar("I", bound=Item)  # noqa: E741 - the usual name of an item's type


class NoTables(DialogAssetsError):
    """The portal's partitions are not made yet."""


@dataclass(frozen=True)
class CallItem(Item):
    """One call on a step's worklist."""

    day: date
    input_key: str
    call_id: int

    @classmethod
    def of(cls, pending: Pending, portal: str, rules: Sequence[str] | None = None) -> CallItem:
        """The item of a pending call."""
        return cls(
            name=f"{portal} call {pending.call_id}",
            calls=(pending.call_id,),
            day=pending.day,
            input_key=pending.input_key,
            call_id=pending.call_id,
            rules=None if rules is None else tuple(rules),
        )


@dataclass
class Findings:
    """What a step found that no call's state tells.

    `numbers` of each day go into its metadata; `unreadable`: rows that are kept apart, kind and key → what is wrong;
    `checks` are the results of the step's own checks.
    """

    numbers: dict[date, dict[str, int]] = field(default_factory=dict)
    unreadable: dict[tuple[str, str], str] = field(default_factory=dict)
    checks: list[dg.AssetCheckResult] = field(default_factory=list)


@dataclass(frozen=True)
class StepRun:
    """One step of one portal over `days` (in the portal's time zone), with a pool of connections."""

    portal: Portal
    step: str
    days: tuple[date, ...]
    pool: Pool
    day_done: Callable[[date], Awaitable[None]]
    findings: Findings = field(default_factory=Findings)

    @property
    def first(self) -> date:
        """The first day."""
        return self.days[0]

    @property
    def last(self) -> date:
        """The last day."""
        return self.days[-1]

    @property
    def window(self) -> tuple[datetime, datetime]:
        """From midnight of the first day to midnight after the last, in the portal's time zone."""
        return self.window_of(self.first)[0], self.window_of(self.last)[1]

    def window_of(self, day: date) -> tuple[datetime, datetime]:
        """From midnight to midnight; a day on which clocks change is 23 or 25 hours."""
        zone = self.portal.zone
        return (
            datetime.combine(day, datetime.min.time(), zone),
            datetime.combine(day + timedelta(days=1), datetime.min.time(), zone),
        )

    async def inherit(self) -> None:
        """Account for calls that the upstream step did not finish; results of any step whose input went are withdrawn."""

        async def account(connection: Connection) -> None:
            await withdrawn_results.withdraw(connection, self.portal.portal, self.first, self.last)
            await call_steps.inherit(
                connection, self.portal.portal, self.step, UPSTREAM[self.step][0], self.first, self.last
            )

        await self.pool.transact(account)

    def pending(self, rules: Sequence[str] | None = None) -> AsyncIterator[Pending]:
        """The calls that lack this step's result, oldest first; with `rules` also those that were not asked about them all."""
        return call_steps.pending(
            self.pool, self.portal.portal, self.step, UPSTREAM[self.step][0], self.first, self.last, rules=rules
        )

    async def items(self, rules: Sequence[str] | None = None) -> AsyncIterator[CallItem]:
        """`pending` as items; their states will have these `rules`."""
        async for pending in self.pending(rules):
            yield CallItem.of(pending, self.portal.portal, rules)

    async def work(self, items: AsyncIterator[I], one: Callable[[I], Awaitable[Outcome]], *, concurrency: int) -> None:
        """Work on `items` until none is left. `one` may raise the errors of the rooms. Raises StepStopped."""

        async def handle(item: I) -> Outcome:
            try:
                return await one(item)
            except DialogAssetsError as error:
                return outcome_of(error)

        await Work(
            pool=self.pool,
            portal=self.portal.portal,
            step=self.step,
            days=self.days,
            items=items,
            handle=handle,
            concurrency=concurrency,
            day_done=self.day_done,
            # Only here an answer in flight is lost with its price: elsewhere what was begun can be asked for again.
            interruption_grace_s=INTERRUPTION_GRACE_S if "llm" in KINDS[self.step] else 0,
        ).run()


Core = Callable[[StepRun], Awaitable[None]]

PROMPTS = {
    "fixed_dialogs": "correction",
    "classifications": "classification",
    "criteria_scores": "criteria",
    "entity_summaries": "summary",
}


def rules_version(portal: Portal, step: str) -> str | None:
    """By which prompt, categories and criteria a step works now; None for a step without such rules.

    Dagster marks days that were done by others. Only what the results depend on counts: the order of a file's lists does not.
    """
    if step not in PROMPTS:
        return None
    rules = {
        "classifications": [category.label for category in portal.categories],
        "criteria_scores": [criterion.label for criterion in portal.criteria],
        "entity_summaries": [one.label for one in portal.criteria if one.include_in_entity_description],
    }
    text = "\n".join([prompt(PROMPTS[step]).version, *sorted(rules.get(step, []))])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def step_asset(
    portal: Portal, step: str, *, checks: Mapping[str, str] | None = None
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Decorator: the asset `portal/step`; its description is the function's docstring.

    `checks`: name → description of those that only this step has, and whose results its core leaves in its findings.
    """
    key = dg.AssetKey([portal.portal, step])
    return dg.asset(
        key=key,
        group_name=portal.portal,
        deps=[dg.AssetKey([portal.portal, name]) for name in UPSTREAM[step]],
        partitions_def=partitions(portal),
        backfill_policy=(
            dg.BackfillPolicy.multi_run(portal.days_per_run) if portal.days_per_run else dg.BackfillPolicy.single_run()
        ),
        kinds=KINDS[step],
        tags={"portal": portal.portal},
        metadata={"dagster/table_name": f"{portal.portal}_{step}"},
        code_version=rules_version(portal, step),
        check_specs=[
            *(
                dg.AssetCheckSpec(name=name, asset=key, description=standing.DESCRIPTIONS[name])
                for name in standing.names(step)
            ),
            dg.AssetCheckSpec(
                name="every_call_accounted_for",
                asset=key,
                description="Calls in the statistics = done + skipped + failed + waiting, to the last call.",
            ),
            *(dg.AssetCheckSpec(name=name, asset=key, description=says) for name, says in (checks or {}).items()),
        ],
    )


def partitions(portal: Portal) -> dg.DailyPartitionsDefinition:
    """Days of the portal's time zone from its start date on."""
    return dg.DailyPartitionsDefinition(start_date=portal.start_date.isoformat(), timezone=portal.time_zone)


def run_step(
    context: dg.AssetExecutionContext,
    portal: Portal,
    step: str,
    postgres: PostgresResource,
    core: Core,
) -> dg.MaterializeResult:
    """Run a step's async core over the partitions of this run.

    A range run records each day as it is complete, so that a crash on the last day does not undo the others.
    Raises dg.Failure, not to be retried, with one sentence for what stops a step.
    """
    days = tuple(sorted(date.fromisoformat(key) for key in context.partition_keys))

    def tell_day(day: date, found: figures.Figures) -> None:
        context.log_event(
            dg.AssetMaterialization(context.asset_key, partition=day.isoformat(), metadata=found.metadata())
        )

    try:
        # A library of a client that meets such a setting ends in a traceback of its own.
        certificates.check()
        proxies.check()
        final, checks, findings = interruption.run(
            _through_faults(context.run.run_id, portal, step, days, postgres, core, tell_day)
        )
    except DialogAssetsError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
    except psycopg.Error as error:
        # Postgres' own text quotes rows, and rows have people's data.
        raise dg.Failure(description=f"{portal.portal}/{step}: {sentence(error)}.", allow_retries=False) from None
    for day, numbers in findings.numbers.items():
        final[day].numbers.update(numbers)
    if len(days) > 1:
        for day in days:
            context.add_asset_metadata(
                final[day].metadata(), asset_key=context.asset_key, partition_key=day.isoformat()
            )
    total = figures.total(final.values())
    range_of_days = {"first_day": days[0].isoformat(), "last_day": days[-1].isoformat()}
    context.log.info("%s/%s: %s", portal.portal, step, total.sentence())
    return dg.MaterializeResult(
        metadata=final[days[0]].metadata() if len(days) == 1 else None,
        check_results=[
            *checks,
            dg.AssetCheckResult(
                check_name="every_call_accounted_for",
                passed=total.is_accounted,
                description=total.sentence(),
                metadata={**range_of_days, "calls": total.calls, **total.states},
            ),
            *findings.checks,
        ],
    )


_Found = tuple[dict[date, figures.Figures], list[dg.AssetCheckResult], Findings]


async def _through_faults(run_id: str, *arguments: Any) -> _Found:
    """The step, from its beginning where a passing fault of Postgres struck between its items: what is done stays done."""
    patience = Patience()
    while True:
        try:
            return await _work(run_id, *arguments)
        except psycopg.Error as error:
            await patience.wait(error)


async def _work(
    run_id: str,
    portal: Portal,
    step: str,
    days: tuple[date, ...],
    postgres: PostgresResource,
    core: Core,
    tell_day: Callable[[date, figures.Figures], None],
) -> _Found:
    """The step's core under its lease; how its days stand then, day by day, and what it found."""
    findings = Findings()
    async with open_pool(postgres.url, size=postgres.pool_size) as pool:
        await pool.transact(schema.check)
        if portal.portal not in await pool.transact(rules.portals):
            raise NoTables(f"There are no tables for {portal.portal}: run dialog-assets setup-portals.")

        async def day_done(day: date) -> None:
            if len(days) > 1:
                found = await pool.transact(lambda connection: figures.read(connection, portal.portal, step, day, day))
                tell_day(day, found[day])

        async def read(connection: Connection) -> _Found:
            if step == "calls":
                await nights.mark_read(connection, portal.portal, days)
            final = await figures.read(connection, portal.portal, step, days[0], days[-1])
            return final, await standing_checks(connection, portal, step), findings

        async with step_lock(postgres.url, portal.portal, step, run_id) as lease:
            pool.lease = lease
            if "llm" in KINDS[step]:
                await pool.transact(lambda connection: _take_stock(connection, portal.portal, step))
            await core(StepRun(portal, step, days, pool, day_done, findings))
            return await pool.transact(read)


async def _take_stock(connection: Connection, portal: str, step: str) -> None:
    """Close in the ledger what earlier runs of the step, which have ended, asked for and left open."""
    unheard = await ledger.close_left_behind(connection, portal, step, ANSWERS_KEPT_FOR)
    if unheard:
        log.warning(
            "%s/%s: %d requests of a run that ended are booked at an estimate, as no answer to them came",
            portal,
            step,
            unheard,
        )


async def standing_checks(connection: Connection, portal: Portal, step: str) -> list[dg.AssetCheckResult]:
    """The results of the step's standing checks, over all days."""
    now = datetime.now(UTC)
    failed = await standing.no_failed_calls(connection, portal, step)
    if step == "calls":
        return [failed, await standing.every_night_ran(connection, portal, now)]
    left = await unfinished.read(connection, portal.portal, {step: WORKS_FROM[step]})
    return [failed, standing.nothing_overdue(portal, step, left, now)]
