"""The gate: what is skipped, what is marked, and that thresholds move it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dialog_assets.audio.gate import Thresholds, Verdict, gate
from dialog_assets.audio.values import AudioProbe, ChannelMeasures, Measures

TALK = ChannelMeasures(
    speech_share=0.4,
    speech_s=24.0,
    sound_share=0.4,
    tone_share=0.0,
    loudness_dbfs=-20.0,
    noise_dbfs=-65.0,
    peak_dbfs=-3.0,
    clipped_share=0.0,
    longest_monologue_s=8.0,
)
NOISE = replace(
    TALK, speech_share=0.0, speech_s=0.0, sound_share=0.0, loudness_dbfs=-60.0, peak_dbfs=-45.0, longest_monologue_s=0.0
)
STEREO = Measures(
    channels=(TALK, TALK),
    correlation=0.02,
    crosstalk_db=None,
    talk_over_share=0.03,
    silence_share=0.2,
    longest_pause_s=2.0,
    longest_monologue_s=8.0,
    tone_share=0.0,
)


def verdict(measures: Measures, *, duration_s: float = 60.0, **thresholds: Any) -> Verdict:
    probe = AudioProbe(
        container="mp3",
        codec="mp3",
        sample_rate=8000,
        channels=len(measures.channels),
        bit_rate=32000,
        stated_duration_s=duration_s,
        duration_s=duration_s,
        bytes=1,
        sha256="",
        measures=measures,
    )
    return gate(probe, Thresholds(**thresholds))


def of(*channels: ChannelMeasures, **changes: Any) -> Measures:
    return replace(STEREO, channels=channels, **changes)


def test_a_plain_call_passes_unmarked() -> None:
    """Two who talk, each on a channel."""
    assert verdict(STEREO) == Verdict(None, ())


@pytest.mark.parametrize(
    ("measures", "duration_s", "reason"),
    [
        (of(replace(NOISE, peak_dbfs=-60.0), replace(NOISE, peak_dbfs=-120.0)), 60.0, "silent_recording"),
        (of(NOISE, NOISE), 60.0, "no_speech"),
        (of(replace(NOISE, sound_share=0.2, tone_share=0.2), NOISE, tone_share=0.2), 60.0, "ringing_only"),
        (of(replace(TALK, speech_s=0.2), NOISE), 60.0, "no_speech"),
        (of(TALK, TALK), 0.7, "too_short"),
        (of(replace(NOISE, peak_dbfs=-60.0)), 0.2, "silent_recording"),
    ],
)
def test_what_holds_no_talk_is_skipped_with_its_reason(measures: Measures, duration_s: float, reason: str) -> None:
    """Silence, noise, tones of the line, less than a word."""
    assert verdict(measures, duration_s=duration_s).skip == reason


@pytest.mark.parametrize(
    ("measures", "marks"),
    [
        (of(TALK, correlation=None), ("mono",)),
        (of(TALK, TALK, correlation=0.93), ("dual_mono",)),
        (of(TALK, replace(TALK, loudness_dbfs=-40.0), correlation=0.93, crosstalk_db=-20.0), ("crosstalk",)),
        (of(TALK, NOISE), ("dead_channel_1",)),
        (of(NOISE, TALK), ("dead_channel_0",)),
        (of(TALK, replace(NOISE, sound_share=0.2, tone_share=0.2)), ("no_speech_channel_1",)),
        (of(TALK, TALK, crosstalk_db=-18.0), ("crosstalk",)),
        (of(TALK, TALK, crosstalk_db=-38.0), ()),
        (of(TALK, replace(TALK, clipped_share=0.02)), ("clipped",)),
        (of(TALK, TALK, tone_share=0.4), ("ringing",)),
        (of(TALK, NOISE, tone_share=0.4, crosstalk_db=-20.0), ("dead_channel_1", "crosstalk", "ringing")),
    ],
)
def test_oddities_are_marked_and_pass(measures: Measures, marks: tuple[str, ...]) -> None:
    """Whoever talks is recognised, on one side only too; what is odd about it is told."""
    assert verdict(measures) == Verdict(None, marks)


def test_marks_are_told_of_skipped_recordings_too() -> None:
    """A mono recording of ringing is both."""
    ringing = replace(NOISE, sound_share=0.4, tone_share=0.4)
    assert verdict(of(ringing, correlation=None, tone_share=0.4)) == Verdict("ringing_only", ("mono", "ringing"))


def test_thresholds_move_the_gate() -> None:
    """Each portal may be stricter or laxer."""
    short = of(replace(TALK, speech_s=2.0), NOISE)
    assert verdict(short).skip is None
    assert verdict(short, min_speech_s=3.0).skip == "no_speech"
    assert verdict(STEREO, min_duration_s=90.0).skip == "too_short"
    assert verdict(of(TALK, TALK, correlation=0.93), dual_mono_correlation=0.95).marks == ()
    assert verdict(of(TALK, TALK, crosstalk_db=-38.0), crosstalk_db=-40.0).marks == ("crosstalk",)
