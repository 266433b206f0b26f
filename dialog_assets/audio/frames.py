"""Speech, tones and noise in a minute of telephone sound, told frame by frame.

Pure functions over arrays; a frame is 32 ms of sound, one every 16 ms. Not here: what is held over a whole recording
(measures).

How speech is told, channel by channel, in the telephone band (200 to 3500 Hz):

- a frame is *sound* if it stands out of the line's noise, which is the quiet tenth of the last two minutes, or a louder
  noise that does not move (comfort noise that comes and goes);
- it is a *tone* if nearly all its power lies at one or two frequencies that hold still: ringing, busy signal, beeps, keys;
- it is *leaked* if the channels have something in common while the other side talks, and that explains its level;
- what is left is speech, apart from clicks.

The figures below were set on the sandbox's spoken turns, samples of real voices and made ones, at levels of -32 to -14 dBFS
over noise 18 dB and more below, through MP3 of 16 and 32 kb/s, A-law and PCM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dialog_assets.audio.values import FLOOR_DBFS

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Spans = npt.NDArray[np.int64]
"""Stretches of frames, (n, 2): the first, and the one after the last; in order, apart from each other."""

RATE = 8000
"""Samples a second of what is analysed, whatever the recording's rate: telephone speech has nothing above."""
HOP = 128
WINDOW = 256
FRAME_S = HOP / RATE
_BAND = slice(7, 113)  # bins of 31.25 Hz
_HANN = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
_SCALE = np.float32(2 / (WINDOW * float((_HANN**2).sum())))

ABOVE_NOISE_DB = 6.0
STILL_ABOVE_NOISE_DB = 3.0
"""Around a frame that stands out: the weak ends of words."""
AUDIBLE_DBFS = -70.0
BELOW_LOUDEST_DB = 45.0
"""What is quieter than the loudest speech by more is not heard beside it."""
NEAR_FRAMES = 9
BELOW_NEAR_DB = 30.0
"""What is quieter than the loudest frame within 0.15 s by more is what a codec smears around it."""
QUIET_SHARE = 0.1
STEADY_FRAMES = 21
STEADY_DB = 1.3
STEADY_BELOW_DBFS = -38.0
"""A steady sound louder than this is no comfort noise; it may be a poor line's idea of speech."""

TONE_PURITY = 0.97
TONE_PITCH = (9.3, 70.0)
"""In bins: 290 to 2190 Hz. Below are the overtones of the mains."""
TONE_RUNS = ((6, 0.12), (20, 1.3))
"""Frames, and how far the frequency may wander from one to the next, in bins; two close frequencies beat."""
TONE_EDGE = 4
TONE_WHOLE = round(1.2 / FRAME_S)

BLOCK = 4096
"""Samples that are compared between channels at a time: half a second."""
LAGS = 1000
_BLOCK_BAND = slice(103, 1793)  # bins of 1.95 Hz
TALKING_SHARE = 0.3
SAME_SOUND = 0.8
"""A correlation from which both channels hold one sound. Codecs at 8 kb/s a channel leave 0.88 of it and more; speakers who
leak into each other's channel by -10 dB come to 0.6."""
SAME_LEVEL_DB = 12.0
"""Channels of one sound that are further apart are a voice and its leaking."""
LEAK_APART = 4.0
LEAK_BLOCKS = 6
LEAK_CORRELATION = 0.1
LEAK_MARGIN_DB = 6.0

PAUSE_FRAMES = {1: round(0.35 / FRAME_S), 2: round(0.45 / FRAME_S)}
"""By the number of channels: shorter pauses belong to the speech around them. With two speakers on one channel the pauses
between them do not, and are hardly longer."""
SYLLABLE_FRAMES = 8
"""What holds nothing longer is clicks."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Features of consecutive frames, each (channels, n)."""

    level: Floats
    """Mean square in the telephone band, decibels below full scale."""
    pure: Flags
    """Nearly all power at one or two frequencies."""
    pitch: Floats
    """The strongest frequency, in bins."""

    def __len__(self) -> int:
        return int(self.level.shape[1])

    def first(self, count: int) -> Frames:
        """The first `count` of them."""
        return Frames(self.level[:, :count], self.pure[:, :count], self.pitch[:, :count])


@dataclass(frozen=True, slots=True)
class Judged:
    """What frames (channels, n) are, and what is known for those that follow."""

    sound: Flags
    tone: Flags
    speech: Flags
    noise: Floats
    """Of each channel, dBFS."""
    common: Common


def judge(samples: Floats, found: Frames, before: Floats, common: Common) -> Judged:
    """Tell speech in `found`, the frames of `samples`; `before` are levels of frames before them, `common` is known from there."""
    noise = noise_level(np.concatenate([before, found.level], axis=1))
    sound = sounding(found.level, noise)
    tone = tones(found, sound)
    speech = sound & ~tone
    if len(samples) == 2:
        common = common.and_of(samples, speech)
        for source, leak in enumerate(common.leaks):
            if leak is not None:
                speech[1 - source] &= ~leaked(found.level, source, leak)
        sound &= speech | tone
    return Judged(sound, tone, speech, noise, common)


def features(samples: Floats) -> Frames:
    """Frames of samples (channels, n), full scale 1: one for each hop that has a whole window."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW, axis=1)[:, ::HOP]
    power = np.abs(np.fft.rfft(windows * _HANN, axis=2)[:, :, _BAND]) ** 2
    total = power.sum(axis=2)
    flat = power.reshape(-1, power.shape[2])
    first = flat.argmax(axis=1)
    one, near = _take_peak(flat, first)
    two, _ = _take_peak(flat, flat.argmax(axis=1))
    below, peak, above = np.log(np.maximum(near[:, 1:4], 1e-20)).T
    bend = np.minimum(below - 2 * peak + above, -1e-6)
    pitch = _BAND.start + first + np.clip((below - above) / (2 * bend), -1, 1)
    return Frames(
        level=(10 * np.log10(np.maximum(total * _SCALE, 10 ** (FLOOR_DBFS / 10)))).astype(np.float32),
        pure=(one + two).reshape(total.shape) >= TONE_PURITY * np.maximum(total, 1e-20),
        pitch=pitch.reshape(total.shape).astype(np.float32),
    )


def _take_peak(power: Floats, at: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
    """The power of each row's bins around `at`, together and one by one; they are 0 in `power` afterwards."""
    rows = np.arange(len(power))[:, None]
    around = at[:, None] + np.arange(-2, 3)
    inside = (around >= 0) & (around < power.shape[1])
    around = np.clip(around, 0, power.shape[1] - 1)
    near = power[rows, around] * inside
    power[rows, around] = 0
    return near.sum(axis=1), near


def sounding(level: Floats, noise: Floats) -> Flags:
    """Frames that stand out of their channel's noise, with the weaker ones around them."""
    heard = level[level > AUDIBLE_DBFS]
    loudest = float(np.quantile(heard, 0.98)) if len(heard) else 0.0
    audible = max(AUDIBLE_DBFS, loudest - BELOW_LOUDEST_DB)
    standing = level > np.maximum(noise + ABOVE_NOISE_DB, audible)[:, None]
    weak: Flags = level > np.maximum(noise + STILL_ABOVE_NOISE_DB, audible - 3)[:, None]
    weak &= level > _loudest_near(level, NEAR_FRAMES) - BELOW_NEAR_DB
    for channel, flags in enumerate(weak):
        for start, end in spans(flags):
            if not standing[channel, start:end].any():
                flags[start:end] = False
    return weak


def tones(found: Frames, sound: Flags) -> Flags:
    """Audible frames within a run that is pure and holds its frequency, and what a codec makes of a short one's ends."""
    low, high = TONE_PITCH
    held = found.pure & (found.pitch > low) & (found.pitch < high) & (found.level > AUDIBLE_DBFS)
    wander = np.abs(np.diff(found.pitch, axis=1))
    tone = np.zeros_like(held)
    for channel, flags in enumerate(held):
        for frames, still in TONE_RUNS:
            for start, end in spans(flags[1:] & flags[:-1] & (wander[channel] < still)):
                if end - start + 1 >= frames:
                    tone[channel, max(0, start - TONE_EDGE) : end + 1 + TONE_EDGE] = True
        for start, end in spans(sound[channel]):
            if end - start <= TONE_WHOLE and tone[channel, start:end].mean() > 0.5:
                tone[channel, start:end] = True
    return tone & (found.level > AUDIBLE_DBFS)


def noise_level(level: Floats) -> Floats:
    """The level of each line itself, from frames (channels, n) with pauses among them."""
    if level.shape[1] == 0:
        return np.full(len(level), FLOOR_DBFS, np.float32)
    noise = []
    for channel, quiet in zip(level, np.quantile(level, QUIET_SHARE, axis=1), strict=True):
        steady = channel[_steady(channel) & (channel < STEADY_BELOW_DBFS)]
        moving = FLOOR_DBFS if len(steady) < STEADY_FRAMES else float(np.quantile(steady, 0.95))
        noise.append(max(float(quiet), moving))
    return np.array(noise, np.float32)


def _steady(level: Floats) -> Flags:
    """Frames in the middle of a third of a second whose level does not move."""
    steady = np.zeros(len(level), np.bool_)
    if len(level) >= STEADY_FRAMES:
        near = np.lib.stride_tricks.sliding_window_view(level, STEADY_FRAMES)
        half = STEADY_FRAMES // 2
        steady[half : len(level) - half] = near.std(axis=1) < STEADY_DB
    return steady


def spans(flags: Flags) -> Spans:
    """Stretches of set flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2).astype(np.int64)


def joined(pieces: Spans, pause: int) -> Spans:
    """Stretches of speech from its pieces: pauses shorter than `pause` frames closed, clicks dropped."""
    if not len(pieces):
        return pieces
    apart = np.flatnonzero(pieces[1:, 0] - pieces[:-1, 1] >= pause)
    firsts = np.concatenate([[0], apart + 1])
    lasts = np.concatenate([apart, [len(pieces) - 1]])
    longest = np.maximum.reduceat(pieces[:, 1] - pieces[:, 0], firsts)
    # A frame's window is two hops long: one of them lies outside at either end, half of it on average.
    whole: Spans = np.stack([pieces[firsts, 0], pieces[lasts, 1] - 1], axis=1)[longest >= SYLLABLE_FRAMES]
    return whole


@dataclass(frozen=True, slots=True)
class Shared:
    """What two channels have in common over some half-second blocks: sums of their cross spectrum and of their powers."""

    blocks: int
    cross: npt.NDArray[np.complex128]
    powers: tuple[float, float]

    def __add__(self, other: Shared) -> Shared:
        powers = (self.powers[0] + other.powers[0], self.powers[1] + other.powers[1])
        return Shared(self.blocks + other.blocks, self.cross + other.cross, powers)

    @property
    def peak(self) -> tuple[float, int]:
        """The cross-correlation where it is greatest, whatever its sign, and by how many samples the second channel is late."""
        spectrum = np.zeros(BLOCK // 2 + 1, np.complex128)
        spectrum[_BLOCK_BAND] = self.cross
        at_lag = np.abs(np.fft.irfft(np.conj(spectrum), BLOCK)) * BLOCK / 2
        at_lag[LAGS + 1 : -LAGS] = 0
        late = int(at_lag.argmax())
        return float(at_lag[late]), late if late <= LAGS else late - BLOCK

    @property
    def correlation(self) -> float:
        """0 to 1, at the best shift."""
        power = (self.powers[0] * self.powers[1]) ** 0.5
        return min(1.0, self.peak[0] / power) if power > 0 else 0.0

    @property
    def same(self) -> bool:
        """Whether both channels hold one sound."""
        power = sorted(self.powers)
        return self.correlation >= SAME_SOUND and power[1] <= power[0] * 10 ** (SAME_LEVEL_DB / 10)


_NOTHING = Shared(0, np.zeros(_BLOCK_BAND.stop - _BLOCK_BAND.start, np.complex128), (0.0, 0.0))


@dataclass(frozen=True, slots=True)
class Leak:
    """How one channel's speech comes through in the other: how loud, relative to itself, and how many frames late."""

    decibels: float
    late: int


@dataclass(frozen=True, slots=True)
class Common:
    """What is known of two channels together: where anybody talks, and where one of them is much louder.

    The last both as it is, for the loudness of leaking, and with every block made equally loud, for whether there is any: one
    block in which both talk would drown it.
    """

    talk: Shared = _NOTHING
    alone: tuple[Shared, Shared] = (_NOTHING, _NOTHING)
    alone_even: tuple[Shared, Shared] = (_NOTHING, _NOTHING)

    def and_of(self, samples: Floats, speech: Flags) -> Common:
        """With the blocks of samples (2, n), whose frames `speech` (2, frames) seem to be speech."""
        count = samples.shape[1] // BLOCK
        whole = samples[:, : count * BLOCK].reshape(2, count, BLOCK)
        spectra = np.asarray(np.fft.rfft(whole, axis=2)[:, :, _BLOCK_BAND], dtype=np.complex64)
        power = (np.abs(spectra) ** 2).sum(axis=2)
        even = np.asarray(spectra / np.sqrt(np.maximum(power, 1e-20))[:, :, None], dtype=np.complex64)
        talking = _by_block(speech, count) > TALKING_SHARE
        alone = [talking[source] & (power[source] > LEAK_APART * power[1 - source]) for source in (0, 1)]
        return Common(
            self.talk + _shared(spectra, talking[0] | talking[1]),
            (self.alone[0] + _shared(spectra, alone[0]), self.alone[1] + _shared(spectra, alone[1])),
            (self.alone_even[0] + _shared(even, alone[0]), self.alone_even[1] + _shared(even, alone[1])),
        )

    @property
    def leaks(self) -> tuple[Leak | None, Leak | None]:
        """Of the first channel into the second, and of the second into the first; None where nothing comes through."""
        if self.talk.same:
            return None, None
        return self._leak(0), self._leak(1)

    def _leak(self, source: int) -> Leak | None:
        alone, even = self.alone[source], self.alone_even[source]
        if alone.blocks < LEAK_BLOCKS or even.correlation < LEAK_CORRELATION:
            return None
        peak, _ = alone.peak
        _, late = even.peak
        whole = peak / (1 - abs(late) / BLOCK)  # what is late by so much falls out of its block
        return Leak(float(20 * np.log10(whole / alone.powers[source])), round((late if source == 0 else -late) / HOP))


def _shared(spectra: npt.NDArray[np.complex64], chosen: Flags) -> Shared:
    """Of the chosen blocks of two channels, (2, blocks, bins)."""
    one, two = spectra[0][chosen], spectra[1][chosen]
    cross = (one * np.conj(two)).sum(axis=0, dtype=np.complex128)
    powers = [float((np.abs(each) ** 2).sum(dtype=np.float64)) for each in (one, two)]
    return Shared(int(chosen.sum()), cross, (powers[0], powers[1]))


def _by_block(flags: Flags, count: int) -> Floats:
    """The share of each block's frames that are set, (channels, blocks)."""
    each = BLOCK // HOP
    whole = np.zeros((len(flags), count * each), np.float32)
    part = flags[:, : count * each]
    whole[:, : part.shape[1]] = part
    share: Floats = whole.reshape(len(flags), count, each).mean(axis=2)
    return share


def leaked(level: Floats, source: int, leak: Leak) -> Flags:
    """Frames of the other channel that are no louder than the source's leaking makes them."""
    loudest = np.roll(_loudest_near(level[source], 2), leak.late)
    explained: Flags = level[1 - source] < loudest + leak.decibels + LEAK_MARGIN_DB
    return explained


def _loudest_near(level: Floats, frames: int) -> Floats:
    """The loudest of each frame and its neighbours, along the last axis."""
    padded = np.pad(level, [(0, 0)] * (level.ndim - 1) + [(frames, frames)], mode="edge")
    loudest: Floats = np.lib.stride_tricks.sliding_window_view(padded, 2 * frames + 1, axis=-1).max(axis=-1)
    return loudest


def union(stretches: Sequence[Spans]) -> Spans:
    """What lies in any of them."""
    return _crossed(stretches, at_least=1)


def together(stretches: Sequence[Spans]) -> Spans:
    """What lies in two or more of them."""
    return _crossed(stretches, at_least=2)


def _crossed(stretches: Sequence[Spans], at_least: int) -> Spans:
    edges = np.concatenate([np.concatenate([each[:, 0], each[:, 1]]) for each in stretches])
    steps = np.concatenate([np.repeat([1, -1], len(each)) for each in stretches])
    order = np.lexsort((-steps, edges))  # what begins where another ends goes on
    inside = np.concatenate([[False], np.cumsum(steps[order]) >= at_least])
    change = np.flatnonzero(np.diff(inside.astype(np.int8)))
    found: Spans = edges[order][change].reshape(-1, 2).astype(np.int64)
    return found[found[:, 1] > found[:, 0]]
