"""The portal's sensor of unfinished recognition: it asks for a run when recordings at VoiceKit may be ready.

Deferred recognition may take a day, and a run does not wait so long; nor is it certain that a night's range still holds the
day when it is ready. Not here: what the run does (transcripts.py), which days wait (store/unfinished.py).
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import psycopg

from dialog_assets.assets.jobs import range_tags, recognition_job_name
from dialog_assets.portals import Portal
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import unfinished
from dialog_assets.store.pool import open_pool
from dialog_assets.store.unfinished import Unfinished

EVERY_S = 300
DAYS_PER_RUN = 31
AFTER_FAILURE = timedelta(hours=1)

IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def build_sensor(portal: Portal) -> dg.SensorDefinition:
    """The portal's sensor. It is on by itself: what was paid for can be had for five days only."""
    name = portal.portal

    @dg.sensor(
        name=recognition_job_name(name),
        job_name=recognition_job_name(name),
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes up recordings that were not recognised when their run ended, on any day.",
    )
    def recognition(context: dg.SensorEvaluationContext, postgres: PostgresResource) -> dg.RunRequest | dg.SkipReason:
        running = context.instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS, tags={"portal": name}), limit=1)
        if running:
            return dg.SkipReason(f"Run {running[0].run_id} of {name} is in progress; what is left after it comes next.")
        try:
            days = asyncio.run(_unfinished(postgres.url, name))
        except psycopg.errors.UndefinedTable:
            return dg.SkipReason(f"There are no tables for {name} yet: run dialog-assets setup-portals.")
        now = datetime.now(UTC)
        found = due_range(days, portal, now)
        if isinstance(found, str):
            return dg.SkipReason(found)
        last = context.instance.get_run_records(dg.RunsFilter(job_name=recognition_job_name(name)), limit=1)
        if last and last[0].dagster_run.status == dg.DagsterRunStatus.FAILURE:
            again = datetime.fromtimestamp(last[0].end_time or 0, UTC) + AFTER_FAILURE
            if now < again:
                return dg.SkipReason(
                    f"Run {last[0].dagster_run.run_id} failed; the next is asked for at {again.astimezone(portal.zone):%H:%M}."
                )
        # The days again after the last run; the same tick, evaluated twice, only once.
        key = f"{found[0]}/{found[1]}/{last[0].dagster_run.run_id if last else 'first'}"
        return dg.RunRequest(run_key=key, tags={"portal": name, **range_tags(*found)})

    return recognition


def due_range(days: Sequence[Unfinished], portal: Portal, now: datetime) -> tuple[date, date] | str:
    """First and last day of the next run, or in one sentence why there is none.

    `days` are in order. A run begins at the first day with something due and goes no further than the portal's
    `days_per_run`; what is due later comes with the run after it.
    """
    today = now.astimezone(portal.zone).date()
    days = [day for day in days if portal.start_date <= day.day < today]
    due = [day.day for day in days if day.due]
    if due:
        limit = due[0] + timedelta(days=(portal.days_per_run or DAYS_PER_RUN) - 1)
        return due[0], max(day for day in due if day <= limit)
    if not days:
        return f"No call of {portal.portal} waits for recognition."
    next_try = min(day.next_try for day in days).astimezone(portal.zone)
    waiting = sum(day.waiting for day in days)
    return (
        f"{waiting} calls of {portal.portal} wait for recognition; the next is asked for at {next_try:%Y-%m-%d %H:%M}."
    )


async def _unfinished(url: str, portal: str) -> list[Unfinished]:
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        return await unfinished.recognition(connection, portal)
