"""Measures against the truth: the sandbox's spoken calls, and calls made with known turns, lines, faults and codecs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog_assets.audio.gate import Verdict, gate
from dialog_assets.audio.measures import RATE, Meter
from dialog_assets.audio.probe import probe
from dialog_assets.audio.values import AudioProbe, Measures
from dialog_assets.sandbox.world.loader import load_world
from dialog_assets.sandbox.world.model import Recording
from dialog_assets_tests.audio import calls
from dialog_assets_tests.audio.calls import (
    Line,
    Sound,
    at_level,
    cadence,
    hum,
    made_clips,
    mask,
    noise,
    spoken_clips,
    voice,
    write,
)

WORLD = {
    recording.path.stem: recording
    for portal in load_world().portals.values()
    for recording in portal.recordings.values()
    if recording.content != "damaged"
}
THREE_POINTS = 0.03


def measured(*channels: Sound) -> Measures:
    """Without a file."""
    samples = np.clip(np.round(np.stack(channels) * 32768), -32768, 32767).astype(np.int16)
    meter = Meter(len(samples))
    meter.feed(samples)
    meter.hear(samples)
    return meter.measures()


def verdict(measures: Measures, seconds: float) -> Verdict:
    return gate(AudioProbe("", "", RATE, len(measures.channels), 0, seconds, seconds, 0, "", measures))


def spans(recording: Recording, channel: int) -> list[calls.Span]:
    return [
        (turn.start_ms / 1000, turn.end_ms / 1000)
        for turn in recording.turns
        if recording.operator_channel is None or (turn.speaker == "operator") == (channel == recording.operator_channel)
    ]


@pytest.mark.parametrize("name", [*sorted(WORLD)[::3], "avto_ural_3308", "avto_ural_3311", "okna_sever_7006"])
def test_shares_of_the_worlds_recordings(name: str) -> None:
    """Speech of each channel, silence and talk-over within three points of the written turns; none is skipped but silence."""
    recording = WORLD[name]
    found = probe(recording.path)
    seconds = recording.duration_ms / 1000
    talk = [mask(spans(recording, channel), seconds) for channel in range(recording.channels)]
    for channel, speaking in zip(found.measures.channels, talk, strict=True):
        assert abs(channel.speech_share - speaking.mean()) <= THREE_POINTS
    assert abs(found.measures.silence_share - (1 - np.any(talk, axis=0).mean())) <= THREE_POINTS
    if recording.channels == 2:
        assert abs(found.measures.talk_over_share - np.all(talk, axis=0).mean()) <= THREE_POINTS
    expected = {"speech": None, "voicemail": None, "silence": "silent_recording"}[recording.content]
    assert gate(found).skip == expected


def test_speech_share_through_noise_leaking_and_codecs(tmp_path: Path) -> None:
    """Sixteen calls of spoken and made voices: within three points in every channel, no false skip, no false mark."""
    for seed in range(16):
        chance = np.random.default_rng(seed)
        clips = spoken_clips() if seed % 2 else made_clips()
        levels = (float(chance.uniform(-32, -16)), float(chance.uniform(-32, -16)))
        lines = calls.dialog(chance, 25, clips, levels=levels)
        one, two = (
            line.sound
            + noise(chance, 25, float(chance.uniform(-80, min(-48, level - 22))), slope=-float(chance.integers(2)))
            for line, level in zip(lines, levels, strict=True)
        )
        if seed % 3 == 0:
            one = one + hum(25, -45)
        if seed % 4 == 0:
            two = two + 10 ** (float(chance.uniform(-35, -18)) / 20) * np.roll(one, int(chance.integers(400)))
        mp3 = seed % 5 < 2
        path = write(tmp_path / ("a.mp3" if mp3 else "a.wav"), [one, two], codec="libmp3lame" if mp3 else "pcm_alaw")
        found = probe(path)
        for channel, line in zip(found.measures.channels, lines, strict=True):
            assert abs(channel.speech_share - line.speech_share) <= THREE_POINTS, seed
        result = gate(found)
        assert result.skip is None
        assert set(result.marks) <= {"crosstalk", "clipped"}
        assert seed % 4 == 0 or "crosstalk" not in result.marks


def test_one_sound_and_dead_channels_are_never_missed(tmp_path: Path) -> None:
    """Two hundred files of five to seven seconds: a hundred of dual mono, a hundred with one side not recorded."""
    for number in range(100):
        chance = np.random.default_rng(1000 + number)
        seconds = float(chance.uniform(5, 7))
        clips = spoken_clips() if number % 2 else made_clips()
        codec, suffix = (("libmp3lame", "mp3"), ("pcm_alaw", "wav"), ("pcm_mulaw", "wav"))[number % 5 % 3]
        path = tmp_path / f"a.{suffix}"
        found = gate(
            probe(write(path, calls.one_sound(chance, seconds, clips), codec=codec, joint=bool(number % 10 < 5)))
        )
        assert (found.skip, "dual_mono" in found.marks) == (None, True), number
        alive, dead = calls.one_side(chance, seconds, clips)
        side = number % 3 % 2
        pair = [dead, alive] if side == 0 else [alive, dead]
        found = gate(probe(write(path, pair, codec=codec, joint=bool(number % 10 < 5))))
        assert (found.skip, set(found.marks) - {"crosstalk", "clipped"}) == (None, {f"dead_channel_{side}"}), number


LINES: dict[str, tuple[Sound, str]] = {
    "ringing": (cadence(20, 1, 4, -22, 425), "ringing_only"),
    "soft ringing": (cadence(20, 1, 4, -45, 425), "ringing_only"),
    "busy": (cadence(20, 0.35, 0.35, -22, 425), "ringing_only"),
    "overloaded": (cadence(20, 0.175, 0.175, -22, 425), "ringing_only"),
    "two frequencies": (cadence(20, 2, 4, -22, 440, 480), "ringing_only"),
    "dialling tone": (calls.tone(20, -20, 425), "ringing_only"),
    "fax": (cadence(20, 0.5, 3, -20, 1100), "ringing_only"),
    "comfort noise": (noise(np.random.default_rng(1), 20, -50), "no_speech"),
    "loud noise": (noise(np.random.default_rng(2), 20, -30, slope=-1), "no_speech"),
    "hum": (hum(20, -30), "no_speech"),
    "nothing": (np.zeros(20 * RATE, np.float32), "silent_recording"),
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("codec", ["libmp3lame", "pcm_alaw"])
def test_a_line_without_a_voice_is_skipped_with_its_reason(tmp_path: Path, name: str, codec: str) -> None:
    """Tones of the line, noise and silence cost nothing, on one channel or on both."""
    sound, reason = LINES[name]
    quiet = noise(np.random.default_rng(3), 20, -64)
    suffix = "mp3" if codec == "libmp3lame" else "wav"
    other = quiet if reason != "silent_recording" else quiet * 0
    assert gate(probe(write(tmp_path / f"a.{suffix}", [sound + other, other], codec=codec))).skip == reason
    assert gate(probe(write(tmp_path / f"b.{suffix}", [sound], codec=codec, bit_rate=16_000))).skip == reason


def test_a_voice_is_bought_whatever_surrounds_it() -> None:
    """A word or two after long ringing, soft, through noise, or from a machine: none of thirty is skipped."""
    for seed in range(30):
        chance = np.random.default_rng(seed)
        seconds = float(chance.uniform(5, 30))
        clip = spoken_clips()[seed * 9] if seed % 2 else made_clips()[seed][: 3 * RATE // 2]
        line = Line(seconds)
        start = float(chance.uniform(0, seconds - 2))
        line.put(0, cadence(max(0.1, start - 0.3), 1, 4, -20, 425), speech=False)
        level = float(chance.uniform(-45, -12))
        line.put(start, at_level(clip[: 3 * RATE], level))
        side = line.sound + noise(chance, seconds, level - float(chance.uniform(15, 50)))
        channels = [side] if seed % 3 == 0 else [side, noise(chance, seconds, -65)]
        assert verdict(measured(*channels), seconds).skip is None, seed


@settings(max_examples=15)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=12), st.integers(0, 3))
def test_the_size_of_blocks_does_not_matter(sizes: list[int], seed: int) -> None:
    """The same samples in other portions give the same measures."""
    sound = np.stack([line.sound for line in calls.dialog(np.random.default_rng(seed), 8, made_clips())])
    samples = np.round(sound * 32767).astype(np.int16)
    whole, parts = Meter(2), Meter(2)
    whole.feed(samples)
    whole.hear(samples)
    at = 0
    while at < samples.shape[1]:
        size = sizes[at % len(sizes)]
        parts.feed(samples[:, at : at + size])
        parts.hear(samples[:, at : at + size])
        at += size
    assert parts.measures() == whole.measures()


def test_a_long_recording_is_measured_like_a_short_one() -> None:
    """Minutes are decided one by one; the seams add and lose nothing."""
    sound = calls.read(WORLD["okna_sever_7001"].path)
    once = measured(*sound)
    often = measured(*np.tile(sound, 5))
    assert abs(often.channels[0].speech_share - once.channels[0].speech_share) < 0.002
    assert abs(often.silence_share - once.silence_share) < 0.005
    assert abs(often.channels[1].loudness_dbfs - once.channels[1].loudness_dbfs) < 0.1
    assert often.channels[0].longest_monologue_s >= once.channels[0].longest_monologue_s - 0.05


def test_levels_and_clipping() -> None:
    """Peaks are exact, loudness is that of the speech, clipping is what touches the end of the scale."""
    chance = np.random.default_rng(6)
    line, other = Line(20), Line(20)
    line.put(2, at_level(voice(chance, 4), -24))
    other.put(8, at_level(voice(chance, 4), 0))
    loud = np.clip(other.sound, -1, 1)
    found = measured(line.sound + noise(chance, 20, -60), loud)
    assert abs(found.channels[0].loudness_dbfs + 24) < 2.5
    assert abs(found.channels[0].noise_dbfs + 60) < 1.5
    assert found.channels[0].clipped_share == 0
    assert found.channels[1].peak_dbfs == 0.0
    assert abs(found.channels[1].clipped_share - float((np.abs(loud) >= 0.98).mean())) < 1e-4
    assert "clipped" in verdict(found, 20).marks


def test_pauses_and_monologues() -> None:
    """The longest pause lies between speech and speech; a monologue is broken by a second of the other side."""
    chance = np.random.default_rng(8)
    one, two = Line(40), Line(40)
    for start in (3.0, 8.0):
        one.put(start, at_level(voice(chance, 4.5), -20))
    two.put(21, at_level(voice(chance, 3), -20))
    found = measured(one.sound, two.sound)
    assert abs(found.channels[0].longest_monologue_s - 9.5) < 0.3
    assert abs(found.longest_monologue_s - 9.5) < 0.3
    assert abs(found.longest_pause_s - 8.5) < 0.3
    assert found.talk_over_share == 0


def test_nothing_and_next_to_nothing() -> None:
    """No sample and one sample have measures too."""
    for count in (0, 1, 100, 300):
        found = measured(np.zeros(count, np.float32), np.full(count, 0.1, np.float32))
        assert [channel.speech_s for channel in found.channels] == [0.0, 0.0]
        assert found.silence_share == 1.0
    assert len(measured(*np.zeros((3, 8000), np.float32)).channels) == 3


def test_measures_as_a_document() -> None:
    """Plain numbers, lists and names: what a JSON column takes."""
    found = measured(*(line.sound for line in calls.dialog(np.random.default_rng(9), 10, made_clips())))
    document = found.as_json()
    assert document["channels"][1]["speech_share"] == found.channels[1].speech_share
    assert {type(value) for value in document.values()} <= {float, list, type(None)}
    assert {type(value) for channel in document["channels"] for value in channel.values()} == {float}
