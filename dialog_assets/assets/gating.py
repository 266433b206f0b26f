"""The gate before recognition, at work in a step: thresholds as a key, and decisions made again when they change.

Here: which stored recordings a changed portal file decides anew, from their measures, without fetching anything. Not here:
what the verdict is (audio.gate), how it is stored (store.audio_files).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from dialog_assets.assets.steps import StepRun
from dialog_assets.audio.gate import Thresholds, gate
from dialog_assets.audio.values import AudioProbe, ChannelMeasures, Measures
from dialog_assets.store import audio_files as table

RULES = 1
"""Raise it when audio.gate decides otherwise from the same measures and thresholds: then all is decided again."""


def gate_key(thresholds: Thresholds) -> str:
    """Changes with every threshold and with RULES."""
    text = json.dumps([RULES, asdict(thresholds)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def known_probe(row: dict[str, Any]) -> AudioProbe | None:
    """What the probe found, from a row of audio_files; None if it was not measured, or not as it is measured now."""
    measures = row["measures"]
    if measures is None:
        return None
    try:
        channels = tuple(ChannelMeasures(**channel) for channel in measures["channels"])
        found = Measures(**{**measures, "channels": channels})
    except (KeyError, TypeError):
        return None
    return AudioProbe(
        container=row["container"],
        codec=row["codec"],
        sample_rate=row["sample_rate"],
        channels=row["channels"],
        bit_rate=row["bit_rate"] or 0,
        stated_duration_s=float(row["duration_s"]),
        duration_s=float(row["duration_s"]),
        bytes=row["bytes"],
        sha256=row["sha256"],
        measures=found,
    )


async def decide_again(run: StepRun) -> int:
    """Decide by the portal's present thresholds what was decided by others; returns how many calls were looked at.

    A call that is let through now is on the worklist of transcripts by itself, one that is stopped now is not any more;
    what is recognised, or at the recogniser, stays.
    """
    thresholds = run.portal.audio.thresholds
    key = gate_key(thresholds)
    after, looked_at = 0, 0
    while True:
        async with run.pool.connection() as connection:
            rows = await table.decided_otherwise(connection, run.portal.portal, run.first, run.last, key, after=after)
            decisions = []
            for row in rows:
                probe = known_probe(row)
                if probe is not None:
                    verdict = gate(probe, thresholds)
                    decisions.append((row["call_id"], verdict.skip, verdict.marks))
            await table.decide(connection, run.portal.portal, key, decisions)
        if not rows:
            return looked_at
        after = rows[-1]["call_id"]
        looked_at += len(decisions)
