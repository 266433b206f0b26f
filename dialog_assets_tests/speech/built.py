"""Turns as the step builds them, from phrases and settings."""

from __future__ import annotations

from collections.abc import Iterable

from dialog_assets.dialogs import Turn
from dialog_assets.speech.dialogs import DialogRules, build_turns, in_order
from dialog_assets.speech.port import Phrase


def build_dialog(
    phrases: Iterable[Phrase],
    *,
    channels: int,
    operator_channel: int,
    pause_ms: int = 1500,
    backchannel_ms: int = 1000,
) -> list[Turn]:
    """The turns of a recording whose channels have sounds of their own."""
    rules = DialogRules(operator_channel, pause_ms, backchannel_ms)
    return build_turns(in_order(phrases), rules, mono=channels == 1)
