"""The nine assets of a portal."""

from __future__ import annotations

import dagster as dg

from dialog_assets.assets import (
    audio_files,
    calls,
    classifications,
    criteria_scores,
    entities,
    entity_summaries,
    fixed_dialogs,
    transcripts,
    users,
)
from dialog_assets.portals import Portal

MODULES = (
    calls,
    users,
    entities,
    audio_files,
    transcripts,
    fixed_dialogs,
    classifications,
    criteria_scores,
    entity_summaries,
)


def build_assets(portal: Portal) -> list[dg.AssetsDefinition]:
    """`portal/calls` … `portal/entity_summaries`, in order of the graph."""
    return [module.build(portal) for module in MODULES]
