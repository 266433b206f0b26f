"""A recording in a form that a recogniser takes: headerless PCM, MP3 or AAC in ADTS (facts/voicekit.md section 3.3).

Here: copying a codec's packets out of a container, and transcoding what no recogniser takes. The archive keeps the
original; what is made here is for one upload.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import av
from av.error import FFmpegError

from dialog_assets.audio.probe import decoded, open_recording, refusal
from dialog_assets.audio.values import Encoding, Form, Prepared

__all__ = ["Encoding", "Prepared", "prepare"]

_WITHOUT_CONTAINER: dict[Encoding, str] = {
    "mp3": "mp3",
    "pcm_s16le": "s16le",
    "pcm_alaw": "alaw",
    "pcm_mulaw": "mulaw",
    "aac_adts": "adts",
}
"""FFmpeg's names of the formats."""

_DISK = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})


def prepare(path: Path, form: Form, target: Path) -> Prepared:
    """Give the recording in a form that a recogniser takes, writing `target` only if it has to differ. It blocks.

    MP3 and ADTS files go as they are; a known codec in another container is copied out of it without loss; anything else
    (Opus, FLAC, an odd sample rate, more than two channels) becomes 16-bit PCM of 16 kHz at most, whose size
    `form.prepared_bytes` tells beforehand. Raises AudioError; OSError where
    the target cannot be written.
    """
    if form.taken_as_it_is:
        return Prepared(path, form.taken_as_it_is, form.sample_rate, form.channels)
    copied = form.copied
    try:
        if copied:
            _copy(path, target, _WITHOUT_CONTAINER[copied])
            return Prepared(target, copied, form.sample_rate, form.channels)
        rate, channels = form.decoded_rate, form.decoded_channels
        _transcode(path, target, rate, channels)
        return Prepared(target, "pcm_s16le", rate, channels)
    except FFmpegError as error:
        if error.errno in _DISK:
            raise OSError(error.errno, os.strerror(error.errno)) from None
        raise refusal(error, "damaged") from None


def _copy(source: Path, target: Path, form: str) -> None:
    with open_recording(source) as reading, av.open(target, "w", format=form) as writing:
        stream = reading.streams.audio[0]
        copy = writing.add_stream_from_template(stream)
        for packet in reading.demux(stream):
            if packet.size:
                packet.stream = copy
                writing.mux(packet)


def _transcode(source: Path, target: Path, rate: int, channels: int) -> None:
    resampler = av.AudioResampler("s16", "stereo" if channels == 2 else "mono", rate)
    with open_recording(source) as reading, target.open("wb") as writing:

        def write(frame: av.AudioFrame | None) -> None:
            for plain in resampler.resample(frame):
                writing.write(bytes(plain.planes[0])[: plain.samples * 2 * channels])

        for _, frames in decoded(reading):
            for frame in frames or ():
                write(frame)
        write(None)
