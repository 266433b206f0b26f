"""Recordings made for tests, with the same libraries that read them: tones, silence, noise of a known level."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from pathlib import Path

import av

from dialog_assets.audio.values import AudioProbe, Form

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "audio"


def form_of(found: AudioProbe) -> Form:
    """What a conversion has to know of a recording."""
    return Form(found.container, found.codec, found.sample_rate, found.channels)


def write_audio(
    path: Path, peaks: Sequence[float], seconds: float = 2.0, *, codec: str = "mp3", rate: int = 8000
) -> Path:
    """Write a tone of 440 Hz to `path`, one channel for each of `peaks` (amplitude, 0 to 1); the suffix is the container."""
    layout = "stereo" if len(peaks) == 2 else "mono"
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        count = round(seconds * rate)
        for start in range(0, count, 1152):
            frame = av.AudioFrame(format="s16p", layout=layout, samples=min(1152, count - start))
            frame.sample_rate = rate
            frame.pts = start
            for plane, peak in zip(frame.planes, peaks, strict=True):
                tone = array(
                    "h",
                    (
                        round(32767 * peak * math.sin(2 * math.pi * 440 * (start + n) / rate))
                        for n in range(frame.samples)
                    ),
                ).tobytes()
                plane.update(tone + bytes(plane.buffer_size - len(tone)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
