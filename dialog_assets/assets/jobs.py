"""A portal's jobs and its nightly schedule, and the tags that make one run of a range of days."""

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg
import psycopg

from dialog_assets.portals import Portal
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.store import nights
from dialog_assets.store.pool import Connection, open_pool

RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"


def job_name(portal: str) -> str:
    """Name of the portal's job."""
    return f"{portal}_daily"


def build_job(portal: Portal) -> Any:  # Dagster does not export the type of an asset job
    """All nine assets of the portal; partitioned as they are."""
    return dg.define_asset_job(
        job_name(portal.portal),
        selection=dg.AssetSelection.groups(portal.portal),
        description=f"{portal.title}: the day's calls from the portal to the summaries.",
        run_tags={"portal": portal.portal},
    )


def unfinished_job_name(portal: str) -> str:
    """Name of the portal's job, and sensor, for what runs have left."""
    return f"{portal}_unfinished"


def build_unfinished_job(portal: Portal) -> Any:
    """All but the calls; the sensor asks for the steps that have something left, and those after them."""
    return dg.define_asset_job(
        unfinished_job_name(portal.portal),
        selection=dg.AssetSelection.groups(portal.portal)
        - dg.AssetSelection.assets(dg.AssetKey([portal.portal, "calls"])),
        description=f"{portal.title}: what runs of any day have left, from the step that left it to the summaries.",
        run_tags={"portal": portal.portal},
    )


def range_tags(first: date, last: date) -> dict[str, str]:
    """Run tags that select the days from `first` to `last`, both included, for one run."""
    return {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}


def nightly_range(portal: Portal, tonight: date, missed: Sequence[date] = ()) -> tuple[date, date] | None:
    """The days that the night of `tonight` (a date in the portal's zone) works on: yesterday, the trailing days, the missed.

    Recordings, votes, costs and CRM links appear late (facts/bitrix24.md 3.1), so the days before are read again; what
    they already have costs nothing. None before the portal's first day is over.
    """
    yesterday = tonight - timedelta(days=1)
    if yesterday < portal.start_date:
        return None
    return min([max(portal.start_date, yesterday - timedelta(days=portal.trailing_days)), *missed]), yesterday


async def missed_days(connection: Connection, portal: Portal, tonight: date) -> list[date]:
    """The days that nights should have read and did not, as far back as `catch_up_days`; none before the first night."""
    begun = await nights.begun(connection, portal.portal)
    last = tonight - timedelta(days=1)
    if begun is None:
        return []
    first = max(begun, portal.start_date, last - timedelta(days=portal.catch_up_days))
    return await nights.unread(connection, portal.portal, first, last)


def build_schedule(portal: Portal) -> dg.ScheduleDefinition:
    """The portal's night, in its own time zone."""
    hour, minute = portal.nightly_at.split(":")

    @dg.schedule(
        name=f"{portal.portal}_nightly",
        job_name=job_name(portal.portal),
        cron_schedule=f"{int(minute)} {int(hour)} * * *",
        execution_timezone=portal.time_zone,
        description=f"Yesterday and the {portal.trailing_days} days before it, with the nights that did not run, as one run.",
    )
    def nightly(context: dg.ScheduleEvaluationContext, postgres: PostgresResource) -> dg.RunRequest | dg.SkipReason:
        tonight = context.scheduled_execution_time.astimezone(portal.zone).date()
        usual = nightly_range(portal, tonight)
        if usual is None:
            return dg.SkipReason(f"{portal.portal} starts on {portal.start_date}: there is no finished day yet.")
        try:
            missed = asyncio.run(_begin_night(postgres.url, portal, tonight, usual[0]))
        except psycopg.errors.UndefinedTable:
            return dg.SkipReason(f"There are no tables for {portal.portal} yet: run dialog-assets setup-portals.")
        days = nightly_range(portal, tonight, missed) or usual
        late = [day for day in missed if day < usual[0]]
        if late:
            context.log.warning(
                "%s: %d nights did not run, the first for %s: this one takes up %s to %s",
                *(portal.portal, len(late), late[0], *days),
            )
        return dg.RunRequest(run_key=days[1].isoformat(), tags={"portal": portal.portal, **range_tags(*days)})

    return nightly


async def _begin_night(url: str, portal: Portal, tonight: date, first: date) -> list[date]:
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        await nights.begin(connection, portal.portal, first)
        return await missed_days(connection, portal, tonight)
