"""A portal's jobs and its nightly schedule, and the tags that make one run of a range of days."""

from datetime import date, timedelta
from typing import Any

import dagster as dg

from dialog_assets.portals import Portal

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


def recognition_job_name(portal: str) -> str:
    """Name of the portal's job, and sensor, for recordings that were at the recogniser when their run ended."""
    return f"{portal}_recognition"


def build_recognition_job(portal: Portal) -> Any:
    """From the transcripts on; partitioned as they are."""
    return dg.define_asset_job(
        recognition_job_name(portal.portal),
        selection=dg.AssetSelection.assets(dg.AssetKey([portal.portal, "transcripts"])).downstream(),
        description=f"{portal.title}: recordings that VoiceKit had not recognised when their run ended, to the summaries.",
        run_tags={"portal": portal.portal},
    )


def range_tags(first: date, last: date) -> dict[str, str]:
    """Run tags that select the days from `first` to `last`, both included, for one run."""
    return {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}


def nightly_range(portal: Portal, tonight: date) -> tuple[date, date] | None:
    """The days that the night of `tonight` (a date in the portal's zone) works on: yesterday and the trailing days.

    Recordings, votes, costs and CRM links appear late (facts/bitrix24.md 3.1), so the days before are read again; what
    they already have costs nothing. None before the portal's first day is over.
    """
    yesterday = tonight - timedelta(days=1)
    if yesterday < portal.start_date:
        return None
    return max(portal.start_date, yesterday - timedelta(days=portal.trailing_days)), yesterday


def build_schedule(portal: Portal) -> dg.ScheduleDefinition:
    """The portal's night, in its own time zone."""
    hour, minute = portal.nightly_at.split(":")

    @dg.schedule(
        name=f"{portal.portal}_nightly",
        job_name=job_name(portal.portal),
        cron_schedule=f"{int(minute)} {int(hour)} * * *",
        execution_timezone=portal.time_zone,
        description=f"Yesterday and the {portal.trailing_days} days before it, as one run.",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tonight = context.scheduled_execution_time.astimezone(portal.zone).date()
        days = nightly_range(portal, tonight)
        if days is None:
            return dg.SkipReason(f"{portal.portal} starts on {portal.start_date}: there is no finished day yet.")
        return dg.RunRequest(run_key=days[1].isoformat(), tags={"portal": portal.portal, **range_tags(*days)})

    return nightly
