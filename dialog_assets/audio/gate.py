"""Whether a recording is worth paying for, decided from its measures before money is spent.

Pure: measures and thresholds in, a verdict with its reason out. Conservative: a call in which somebody speaks is never
skipped, whatever else is odd about it; oddities become marks. Not here: the measures, and what a step does with a verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dialog_assets.audio.values import SILENCE_DBFS, AudioProbe, Measures

Skip = Literal["silent_recording", "too_short", "ringing_only", "no_speech"]
"""Why nothing is bought: no channel is ever audible; shorter than a word; tones of the line and nobody speaks;
something is audible and nobody speaks."""

Mark = str
"""`mono`: one channel, the speakers cannot be told apart by it. `dual_mono`: two channels with the same sound; the dialog
is that of a mono recording. `dead_channel_0`, `dead_channel_1`: this side was not recorded (line noise at most), the
other speaks. `no_speech_channel_0`, `…_1`: this side is audible and never speaks. `crosstalk`: a side's speech comes
through in the other. `clipped`: recorded too loud, words suffer. `ringing`: much of the recording is tones of the line.
`truncated`: it ends before the length that its header states; what there is counts."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where the gate closes and what it marks; a portal may set each."""

    min_duration_s: float = 1.0
    min_speech_s: float = 0.3
    """Speech of the channel that speaks most; less is no speech."""
    silence_dbfs: float = SILENCE_DBFS
    """A recording (skipped) or channel (dead) whose peak is below this is silent."""
    dual_mono_correlation: float = 0.8
    dual_mono_level_db: float = 12.0
    """How far apart the loudness of the two channels of one sound may be; further is a voice and its leaking."""
    dead_sound_share: float = 0.05
    crosstalk_db: float = -30.0
    clipped_share: float = 0.001
    ringing_share: float = 0.1
    """Ringing sounds a fifth of its time: at a tenth, half of the recording is ringing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`skip`: why the recording is not to be recognised, None if it is. `marks`: what is odd about it, either way."""

    skip: Skip | None = None
    marks: tuple[Mark, ...] = ()


def gate(probe: AudioProbe, thresholds: Thresholds | None = None) -> Verdict:
    """The verdict on a recording."""
    limits = thresholds or Thresholds()
    return Verdict(_skip(probe, limits), tuple(_marks(probe.measures, limits)))


def _skip(probe: AudioProbe, limits: Thresholds) -> Skip | None:
    if probe.is_silent(limits.silence_dbfs):
        return "silent_recording"
    if probe.duration_s < limits.min_duration_s:
        return "too_short"
    if probe.measures.speech_s >= limits.min_speech_s:
        return None
    return "ringing_only" if probe.measures.tone_share > 0 else "no_speech"


def _marks(found: Measures, limits: Thresholds) -> list[Mark]:
    marks = []
    if len(found.channels) == 1:
        marks.append("mono")
    elif _one_sound(found, limits):
        marks.append("dual_mono")
    elif found.speech_s >= limits.min_speech_s:
        for number, channel in enumerate(found.channels):
            if channel.speech_s < limits.min_speech_s:
                dead = channel.sound_share < limits.dead_sound_share
                marks.append(f"dead_channel_{number}" if dead else f"no_speech_channel_{number}")
        if found.crosstalk_db is not None and found.crosstalk_db >= limits.crosstalk_db:
            marks.append("crosstalk")
    if any(channel.clipped_share >= limits.clipped_share for channel in found.channels):
        marks.append("clipped")
    if found.tone_share >= limits.ringing_share:
        marks.append("ringing")
    if found.missing_s > 0:
        marks.append("truncated")
    return marks


def _one_sound(found: Measures, limits: Thresholds) -> bool:
    if found.correlation is None or found.correlation < limits.dual_mono_correlation:
        return False
    one, two = found.channels[:2]
    return abs(one.loudness_dbfs - two.loudness_dbfs) <= limits.dual_mono_level_db
