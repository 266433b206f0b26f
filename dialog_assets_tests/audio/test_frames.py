"""Stretches of frames: joining, crossing, monologues; and how tones, noise and leaking are told."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dialog_assets.audio import frames
from dialog_assets.audio.frames import (
    FRAME_S,
    Common,
    Spans,
    features,
    joined,
    noise_level,
    sounding,
    spans,
    together,
    tones,
    union,
)
from dialog_assets.audio.measures import longest_monologue
from dialog_assets_tests.audio import calls

flags = st.lists(st.booleans(), max_size=80).map(lambda bits: np.array(bits, np.bool_))
PAUSE = 5


def filled(stretches: Spans, count: int) -> list[bool]:
    inside = [False] * count
    for start, end in stretches.tolist():
        inside[start:end] = [True] * (end - start)
    return inside


@given(flags)
def test_spans_are_the_set_frames(bits: frames.Flags) -> None:
    """In order, apart, and nothing else."""
    found = spans(bits)
    assert filled(found, len(bits)) == bits.tolist()
    assert (found[1:, 0] > found[:-1, 1]).all()


@given(st.lists(flags, min_size=1, max_size=3))
def test_union_and_together_count_who_speaks(channels: list[frames.Flags]) -> None:
    """At each frame: somebody; two or more."""
    count = max(len(bits) for bits in channels)
    speaking = sum(np.pad(bits, (0, count - len(bits))).astype(int) for bits in channels)
    each = [spans(bits) for bits in channels]
    assert filled(union(each), count) == (np.asarray(speaking) >= 1).tolist()
    assert filled(together(each), count) == (np.asarray(speaking) >= 2).tolist()


@given(flags)
def test_joining_closes_pauses_and_drops_clicks(bits: frames.Flags) -> None:
    """No stretch without a syllable, no two within a pause; all syllables are inside."""
    pieces = spans(bits)
    whole = joined(pieces, PAUSE)
    assert (whole[1:, 0] - whole[:-1, 1] >= PAUSE).all()
    syllables = [(start, end) for start, end in pieces.tolist() if end - start >= frames.SYLLABLE_FRAMES]
    for start, end in syllables:
        assert any(first <= start and end - 1 <= last for first, last in whole.tolist())
    assert len(whole) <= len(syllables)


def test_a_monologue_survives_a_yes_and_ends_with_a_question() -> None:
    """Half a second of the other side within a pause does not part it, a second does, and so do three without a word."""

    def stretches(*seconds: tuple[float, float]) -> Spans:
        return np.array([[round(start / FRAME_S), round(end / FRAME_S)] for start, end in seconds]).reshape(-1, 2)

    own = stretches((0, 5), (6, 12))
    whole = round(12 / FRAME_S)
    assert longest_monologue([own, stretches((5.2, 5.7))], 0) == whole
    assert longest_monologue([own, stretches((4.8, 6.1))], 0) == round(6 / FRAME_S)
    assert longest_monologue([own, stretches((2, 4))], 0) == whole
    assert longest_monologue([stretches((0, 5), (8.1, 12)), stretches()], 0) == round(5 / FRAME_S)
    assert longest_monologue([own, stretches((4.8, 6.1))], 1) == round(6.1 / FRAME_S) - round(4.8 / FRAME_S)
    assert longest_monologue([stretches(), own], 0) == 0


def test_noise_is_the_quiet_tenth_or_what_does_not_move() -> None:
    """Steady noise that comes and goes with digital silence is noise; a voice over it is none."""
    chance = np.random.default_rng(2)
    line = calls.Line(20)
    for start in range(0, 20, 4):
        line.put(start, calls.noise(chance, 1.5, -50), speech=False)
    level = features(line.sound[None]).level
    assert abs(noise_level(level)[0] + 50) < 3
    line.put(6, calls.at_level(calls.voice(chance, 5), -25))
    level = features(line.sound[None]).level
    noise = noise_level(level)
    assert abs(noise[0] + 50) < 3
    assert abs(sounding(level, noise).mean() - 0.25) < 0.08


def test_a_voice_is_no_tone_and_ringing_is() -> None:
    """In ringing nearly every audible frame is a tone; in a hundred seconds of voices hardly one."""
    chance = np.random.default_rng(3)
    ringing = features(calls.cadence(20, 1, 4, -25, 425)[None])
    loud = ringing.level > -60
    assert tones(ringing, loud)[loud].mean() > 0.95
    voices = features(np.concatenate(calls.spoken_clips()[:25])[None])
    loud = voices.level > -60
    assert tones(voices, loud)[loud].mean() < 0.02
    assert tones(features(calls.voice(chance, 20)[None]), np.ones((1, 1249), np.bool_)).mean() < 0.01


def test_leaking_is_told_by_what_both_channels_have_in_common() -> None:
    """Loudness within a decibel and delay within a frame; two who only talk at once leak nothing."""
    one, two = calls.dialog(np.random.default_rng(4), 40, calls.spoken_clips())
    clean = np.stack([one.sound, two.sound])
    assert common(clean).leaks == (None, None)
    echo = np.stack([one.sound, two.sound + 0.05 * np.roll(one.sound, 400)])
    forth, back = common(echo).leaks
    assert forth is not None
    assert abs(forth.decibels - 20 * np.log10(0.05)) < 1
    assert abs(forth.late - 400 / frames.HOP) <= 1
    assert back is None


def common(sound: frames.Floats) -> Common:
    level = features(sound).level
    return Common().and_of(sound, sounding(level, noise_level(level)))


def test_one_sound_on_both_channels_leaks_nothing() -> None:
    """Dual mono, softer on one side or upside down, is one sound."""
    one, two = calls.dialog(np.random.default_rng(5), 30, calls.made_clips())
    mixed = one.sound + two.sound
    for other in (mixed, 0.5 * mixed, -mixed, np.roll(mixed, 80)):
        assert common(np.stack([mixed, other])).talk.same
        assert common(np.stack([mixed, other])).leaks == (None, None)
    assert not common(np.stack([mixed, 0.1 * mixed])).talk.same
