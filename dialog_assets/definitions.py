"""The code location: everything is wired here. Loading it needs the portal files; no network, no database, no secret."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dialog_assets.assets.factory import build_assets
from dialog_assets.assets.jobs import build_job, build_schedule
from dialog_assets.portals import Portal, load_portals, portals_folder
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.llm import LLMResource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.resources.s3 import ArchiveResource
from dialog_assets.resources.voicekit import VoiceKitResource


def build_defs(portals: Sequence[Portal], resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Assets, a job and a schedule for each portal, and the resources they share."""
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
    return dg.Definitions(
        assets=assets,
        jobs=[build_job(portal) for portal in portals],
        schedules=[build_schedule(portal) for portal in portals],
        resources={**resources, **(resource_overrides or {})},
        # A process per step costs more than the step, and its waiting is concurrent inside (facts/dagster.md §3).
        executor=dg.in_process_executor,
    )


defs = build_defs(load_portals(portals_folder()))
