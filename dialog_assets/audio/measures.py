"""The sound of a recording, measured while it is decoded: speech, levels, tones, what the channels have in common.

Here: the meter. It is fed with blocks of any length and decides once a minute, so an hour costs the memory of a minute;
only where speech begins and ends is kept to the end. Not here: decoding (probe), how speech is told (frames), what the
measures mean for the bill (gate).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dialog_assets.audio.frames import (
    FRAME_S,
    HOP,
    PAUSE_FRAMES,
    RATE,
    WINDOW,
    Common,
    Floats,
    Judged,
    Spans,
    features,
    joined,
    judge,
    spans,
    together,
    union,
)
from dialog_assets.audio.values import FLOOR_DBFS, ChannelMeasures, Measures

__all__ = ["RATE", "ChannelMeasures", "Measures", "Meter"]

Samples = npt.NDArray[np.int16]

INTERRUPTION_S = 1.0
"""Speech of the other side that ends a monologue; a shorter "yes" does not."""
MONOLOGUE_PAUSE_S = 3.0

_FULL_SCALE = 32768
_CLIPPED = 32112  # 98 %: the ends of the A-law and mu-law scales too
_SEGMENT = 60 * RATE
_CUT_WITHIN = round(5 / FRAME_S)


class Meter:
    """Measures a recording: `feed` it all samples as they are, `hear` the same at 8000 Hz, then take `measures`."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self._samples = 0
        self._peaks = np.zeros(channels, np.int64)
        self._clipped = np.zeros(channels, np.int64)
        self._hearing = _Hearing(channels)

    def feed(self, samples: Samples) -> None:
        """The next samples at the recording's own rate, (channels, n)."""
        self._samples += samples.shape[1]
        high = samples.max(axis=1, initial=0).astype(np.int64)
        low = samples.min(axis=1, initial=0).astype(np.int64)
        self._peaks = np.maximum(self._peaks, np.maximum(high, -low))
        if max(high.max(), -low.min()) >= _CLIPPED:
            self._clipped += ((samples >= _CLIPPED) | (samples <= -_CLIPPED)).sum(axis=1)

    def hear(self, samples: Samples) -> None:
        """The next samples at 8000 Hz, (channels, n)."""
        self._hearing.hear(samples)

    def measures(self) -> Measures:
        """What was found in all that was fed; the meter is at its end."""
        return self._hearing.measures(
            [_db((peak / _FULL_SCALE) ** 2) for peak in self._peaks.tolist()],
            [round(clipped / max(1, self._samples), 6) for clipped in self._clipped.tolist()],
        )


class _Hearing:
    """Speech, tones and noise at 8000 Hz, decided a segment at a time."""

    def __init__(self, channels: int) -> None:
        self._waiting: list[Samples] = []
        self._waits = 0
        self._rest = np.zeros((channels, 0), np.float32)
        self._before = np.zeros((channels, 0), np.float32)
        self._common = Common()
        self._samples = 0
        self._frames = 0
        self._pieces: list[list[Spans]] = [[] for _ in range(channels)]
        self._sums = np.zeros((6, channels))
        self._tone_only = 0

    def hear(self, samples: Samples) -> None:
        self._waiting.append(samples)
        self._waits += samples.shape[1]
        if self._waits >= _SEGMENT:
            self._settle(last=False)

    def _settle(self, *, last: bool) -> None:
        """Decide about what waits; unless it is the recording's end, what follows the last quiet moment waits on."""
        fresh = [samples.astype(np.float32) / np.float32(_FULL_SCALE) for samples in self._waiting]
        sound = np.concatenate([self._rest, *fresh], axis=1)
        self._samples += self._waits
        self._waiting, self._waits = [], 0
        if last:
            sound = np.pad(sound, ((0, 0), (0, WINDOW)))
        found = features(sound)
        if not last:
            quietest = int(found.level[:, -_CUT_WITHIN:].max(axis=0).argmin())
            found = found.first(len(found) - _CUT_WITHIN + quietest)
        sound, self._rest = sound[:, : len(found) * HOP], sound[:, len(found) * HOP :]
        self._count(found.level, judge(sound, found, self._before, self._common))
        self._before = found.level

    def _count(self, level: Floats, judged: Judged) -> None:
        self._common = judged.common
        power = 10 ** (level.astype(np.float64) / 10)
        for channel, flags in enumerate(judged.speech):
            self._pieces[channel].append(spans(flags) + self._frames)
        self._sums += [
            judged.sound.sum(axis=1),
            judged.tone.sum(axis=1),
            judged.speech.sum(axis=1),
            (power * judged.speech).sum(axis=1),
            power.sum(axis=1),
            judged.noise * level.shape[1],
        ]
        self._tone_only += int((judged.tone.any(axis=0) & ~judged.speech.any(axis=0)).sum())
        self._frames += level.shape[1]

    def measures(self, peaks: list[float], clipped: list[float]) -> Measures:
        self._settle(last=True)
        pause = PAUSE_FRAMES[1 if len(peaks) == 1 else 2]
        speech = [joined(np.concatenate(pieces), pause) for pieces in self._pieces]
        anyone = union(speech)
        sound, tone, speaking, speech_power, power, noise = self._sums
        monologues = [longest_monologue(speech, channel) for channel in range(len(speech))]
        talk = self._common.talk
        leaks = [leak.decibels for leak in self._common.leaks if leak]
        return Measures(
            channels=tuple(
                ChannelMeasures(
                    speech_share=self._share(_length(speech[channel])),
                    speech_s=_seconds(_length(speech[channel])),
                    sound_share=self._share(sound[channel]),
                    tone_share=self._share(tone[channel]),
                    loudness_dbfs=_db(
                        speech_power[channel] / speaking[channel]
                        if speaking[channel]
                        else power[channel] / max(1, self._frames)
                    ),
                    noise_dbfs=round(float(noise[channel]) / max(1, self._frames), 2),
                    peak_dbfs=peaks[channel],
                    clipped_share=clipped[channel],
                    longest_monologue_s=_seconds(monologues[channel]),
                )
                for channel in range(len(speech))
            ),
            correlation=round(talk.correlation, 4) if len(speech) == 2 else None,
            crosstalk_db=round(max(leaks), 2) if leaks else None,
            talk_over_share=0.0 if talk.same else self._share(_length(together(speech))),
            silence_share=round(1 - self._share(_length(anyone)), 4),
            longest_pause_s=_seconds(int((anyone[1:, 0] - anyone[:-1, 1]).max(initial=0))),
            longest_monologue_s=_seconds(max(monologues)),
            tone_share=self._share(self._tone_only),
        )

    def _share(self, frames: float) -> float:
        return round(min(1.0, float(frames) * HOP / max(1, self._samples)), 4)


def longest_monologue(speech: list[Spans], channel: int) -> int:
    """Frames of the channel's longest talking: its stretches, as long as neither a pause nor the other side parts them."""
    own = speech[channel]
    if not len(own):
        return 0
    others = union([each for number, each in enumerate(speech) if number != channel] or [own[:0]])
    others = others[others[:, 1] - others[:, 0] >= INTERRUPTION_S / FRAME_S]
    begins, ends = own[:-1, 1], own[1:, 0]
    next_other = np.searchsorted(others[:, 1], begins, "right")
    other_begins = np.append(others[:, 0], np.iinfo(np.int64).max)[next_other]
    parted = np.flatnonzero((ends - begins >= MONOLOGUE_PAUSE_S / FRAME_S) | (other_begins < ends))
    firsts = np.concatenate([[0], parted + 1])
    lasts = np.concatenate([parted, [len(own) - 1]])
    return int((own[lasts, 1] - own[firsts, 0]).max())


def _length(stretches: Spans) -> int:
    return int((stretches[:, 1] - stretches[:, 0]).sum())


def _seconds(frames: int) -> float:
    return round(frames * FRAME_S, 3)


def _db(power: float) -> float:
    return max(FLOOR_DBFS, round(10 * math.log10(power), 2)) if power > 0 else FLOOR_DBFS
