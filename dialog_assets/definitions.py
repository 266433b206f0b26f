"""The code location: everything is wired here. Loading it needs the portal files; no network, no database, no secret."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dialog_assets.assets.factory import build_assets
from dialog_assets.assets.jobs import build_job, build_schedule, build_unfinished_job
from dialog_assets.assets.sensors import build_sensor
from dialog_assets.portals import Portal, portals_folder, readable_portals
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.llm import LLMResource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.resources.s3 import ArchiveResource
from dialog_assets.resources.voicekit import VoiceKitResource

log = logging.getLogger("dialog_assets")

BROKEN_FILES = "broken_portal_files"
BROKEN_FILES_JOB = "tell_broken_portal_files"
BROKEN_FILES_CRON = "0 6 * * *"


def build_defs(
    portals: Sequence[Portal], resource_overrides: Mapping[str, Any] | None = None, *, mistakes: Sequence[str] = ()
) -> dg.Definitions:
    """Assets, jobs, a schedule and a sensor for each portal, and the resources they share.

    `mistakes` in other portal files become an asset that fails every morning until they are mended.
    """
    with warnings.catch_warnings():
        # backfill_policy is beta; what it does here is proved by a test through a real daemon.
        warnings.simplefilter("ignore", dg.BetaWarning)
        assets = [asset for portal in portals for asset in build_assets(portal)]
    resources: dict[str, Any] = {
        "postgres": PostgresResource(),
        "bitrix24": Bitrix24Resource(),
        "archive": ArchiveResource(),
        "voicekit": VoiceKitResource(),
        "llm": LLMResource(),
    }
    definitions = dg.Definitions(
        assets=assets,
        jobs=[build(portal) for portal in portals for build in (build_job, build_unfinished_job)],
        schedules=[build_schedule(portal) for portal in portals],
        sensors=[build_sensor(portal) for portal in portals],
        resources={**resources, **(resource_overrides or {})},
        # A process per step costs more than the step, and its waiting is concurrent inside (facts/dagster.md §3).
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(definitions, _broken_files(mistakes)) if mistakes else definitions


def _broken_files(mistakes: Sequence[str]) -> dg.Definitions:
    """What makes broken portal files visible: red runs in the UI, of a schedule that is on by itself."""
    told = "\n".join(f"- {mistake}" for mistake in mistakes)

    @dg.asset(
        name=BROKEN_FILES, group_name=BROKEN_FILES, description=f"The portals of these files do not run.\n\n{told}"
    )
    def broken_files() -> None:
        raise dg.Failure(description=f"The portals of these files do not run:\n{told}", allow_retries=False)

    job = dg.define_asset_job(BROKEN_FILES_JOB, selection=dg.AssetSelection.groups(BROKEN_FILES))
    schedule = dg.ScheduleDefinition(
        name=BROKEN_FILES_JOB,
        job=job,
        cron_schedule=BROKEN_FILES_CRON,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Fails every morning until the files are mended and the code location is reloaded.",
    )
    return dg.Definitions(assets=[broken_files], jobs=[job], schedules=[schedule])


def _load() -> dg.Definitions:
    """The definitions of the portal files that can be used: one broken file does not stop the other portals' nights."""
    portals, mistakes = readable_portals(portals_folder())
    for mistake in mistakes:
        log.error("portal file left out: %s", mistake)
    return build_defs(portals, mistakes=mistakes)


defs = _load()
