"""What a reader of the fictional world expects of a run over it: the state of every call at every step.

It knows the world's files and the portal's file, and nothing of how the steps work. The demo and the tests compare with it.
"""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

from dialog_assets.portals import Portal
from dialog_assets.sandbox.world.model import Call, SandboxPortal

_JUDGED = ("classifications", "criteria_scores", "entity_summaries")

Judged = dict[str, list[tuple[int, int]]]
"""Criterion → (call, score) of the calls that it applies to."""


def day_of(portal: SandboxPortal, call: Call) -> date:
    """The call's day where the portal is."""
    return call.start.astimezone(ZoneInfo(portal.time_zone)).date()


def entity_of(call: Call) -> tuple[str, int] | None:
    """(type, id) of the CRM entity that the statistics name."""
    kind = call.fields["CRM_ENTITY_TYPE"]
    return None if kind is None else (kind.lower(), int(call.fields["CRM_ENTITY_ID"]))


def expected_state(portal: SandboxPortal, configured: Portal, call: Call, step: str) -> tuple[str, str | None]:
    """State and reason that the call must end with at the step, when the whole week is in the past."""
    if step == "calls":
        return "done", None
    if step == "users":
        known = int(call.fields["PORTAL_USER_ID"]) in portal.users
        return ("done", None) if known else ("skipped", "user_not_found")
    entity = entity_of(call)
    if step == "entities":
        if entity is None:
            return "skipped", "no_entity"
        known = entity[1] in {"contact": portal.contacts, "lead": portal.leads, "company": portal.companies}[entity[0]]
        return ("done", None) if known else ("skipped", "entity_not_found")
    recording = call.recording
    if recording is None:
        return "skipped", "not_answered"
    if recording.content == "silence":
        return "skipped", "silent_recording"
    if recording.content == "damaged":
        return ("failed", "recording_not_audio") if step == "audio_files" else ("waiting", "audio_files_failed")
    if step not in _JUDGED:
        return "done", None
    if recording.content == "voicemail":
        return "skipped", "no_category"
    if step != "entity_summaries":
        return "done", None
    if entity is None:
        return "skipped", "no_entity"
    return ("done", None) if summarised(portal, configured)[entity] else ("skipped", "nothing_to_summarise")


def summarised(portal: SandboxPortal, configured: Portal) -> dict[tuple[str, int], Judged]:
    """Entity → what its summary is made of: the criteria of its spoken calls that go into a description."""
    described = {criterion.name for criterion in configured.criteria if criterion.include_in_entity_description}
    found: dict[tuple[str, int], Judged] = {}
    for call in portal.calls:
        entity, recording = entity_of(call), call.recording
        if entity is None or recording is None or recording.script is None or recording.content != "speech":
            continue
        judged = found.setdefault(entity, {})
        for judgement in recording.script.judgements:
            if judgement.criterion in described and judgement.score is not None:
                judged.setdefault(judgement.criterion, []).append((call.id, judgement.score))
    return found
