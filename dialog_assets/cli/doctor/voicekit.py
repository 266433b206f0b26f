"""Doctor's look at the recogniser."""

from __future__ import annotations

from dialog_assets.cli.doctor.examination import Check, Context
from dialog_assets.resources.voicekit import VoiceKitResource
from dialog_assets.speech.port import Label


def checks(_: Context) -> list[Check]:
    """One check of VoiceKit."""
    return [Check("VoiceKit", keys)]


async def keys() -> str:
    """Whether VoiceKit takes the keys: its operations are listed, which is free."""
    async with VoiceKitResource().recogniser() as recogniser:
        await recogniser.find(Label("doctor", "doctor"))
    return "key and secret are accepted"
