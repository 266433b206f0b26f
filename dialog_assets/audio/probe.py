"""What is in a recording: read and decoded once, in process, by FFmpeg's libraries (PyAV).

Decoding the whole file, not only its header, gives the true length, tells a damaged file from a whole one, and hears
whether there is anything at all to recognise. Not here: levels and speech shares, conversion.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError

from dialog_assets.audio.errors import AudioError
from dialog_assets.audio.measures import Meter
from dialog_assets.audio.values import AudioProbe

__all__ = ["AudioProbe", "probe"]

SHORTER_S = 1.0
DAMAGED_SHARE = 0.1
"""Undecodable packets above this share mean damage; a few occur at the cut ends of good MP3 files."""

_XING_FRAME = 1500
_HEADERLESS = frozenset({"alaw", "mulaw", "s8", "u8", "s16le", "s16be", "u16le", "u16be", "s24le", "s32le", "f32le"})


@dataclass(slots=True)
class _Decoded:
    samples: int = 0
    packets: int = 0
    bad_packets: int = 0
    begins_at: int = 0
    meter: Meter | None = None


def probe(path: Path) -> AudioProbe:
    """Decode the file and measure it. It blocks: about 0.05 s a minute of telephone audio.

    `duration_s` is what the decoder gives, as players show it: padding that the encoder noted is left out, which ffprobe
    before version 7 counts (up to 0.2 s in MP3), and the estimate from the bit rate of a VBR file without header is not
    used. Raises AudioError with its reason; OSError if the file cannot be read.
    """
    size = path.stat().st_size
    if size == 0:
        raise AudioError("empty")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        head = file.read(12)
    try:
        container = av.open(path, metadata_errors="replace")
    except FFmpegError as error:
        raise AudioError("not_audio", type(error).__name__) from None
    with container:
        if container.format.name in _HEADERLESS:
            raise AudioError("not_audio", f"{container.format.name} without a header names no sample rate")
        if not container.streams.audio:
            raise AudioError("no_audio_stream", container.format.name)
        stream = container.streams.audio[0]
        promised_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        decoded = _decode(container)
        context = stream.codec_context
        if not decoded.packets:
            raise AudioError("empty", f"{container.format.name} without audio data")
        if not decoded.meter or decoded.bad_packets > DAMAGED_SHARE * decoded.packets:
            raise AudioError("damaged", f"{decoded.bad_packets} of {decoded.packets} packets are undecodable")
        duration_s = decoded.samples / context.sample_rate
        stated = _length_is_stated(container.format.name, path, decoded.begins_at)
        if (stated and _ends_early(promised_s, duration_s)) or _riff_is_cut(head, size):
            raise AudioError("truncated", f"{duration_s:.1f} s found")
        return AudioProbe(
            container=container.format.name,
            codec=context.codec.canonical_name,
            sample_rate=context.sample_rate,
            channels=context.channels,
            bit_rate=context.bit_rate or container.bit_rate or round(size * 8 / duration_s),
            stated_duration_s=round((container.duration or 0) / av.time_base, 6),
            duration_s=round(duration_s, 6),
            bytes=size,
            sha256=sha256,
            measures=decoded.meter.measures(),
            tags={key.lower(): value for key, value in {**container.metadata, **stream.metadata}.items()},
        )


def _decode(container: InputContainer) -> _Decoded:
    stream = container.streams.audio[0]
    resampler = av.AudioResampler(format="s16p")
    decoded = _Decoded()
    first_form: tuple[int, int] | None = None
    try:
        for packet in container.demux(stream):
            if packet.size and not decoded.packets:
                decoded.begins_at = packet.pos or 0
            decoded.packets += packet.size > 0
            try:
                frames = packet.decode()
            except FFmpegError:
                decoded.bad_packets += 1
                continue
            for frame in frames:
                decoded.samples += frame.samples
                form = frame.layout.nb_channels, frame.sample_rate
                first_form = first_form or form
                if form != first_form:
                    raise AudioError("damaged", "its channels or sample rate change midway")
                decoded.meter = decoded.meter or Meter(*form)
                for plain in resampler.resample(frame):
                    decoded.meter.feed(plain.to_ndarray().astype(np.int16, copy=False))
    except FFmpegError as error:
        raise AudioError("damaged", type(error).__name__) from None
    return decoded


def _ends_early(promised_s: float, found_s: float) -> bool:
    return found_s < promised_s - SHORTER_S and found_s < 0.95 * promised_s


def _length_is_stated(container: str, path: Path, begins_at: int) -> bool:
    """Whether the length comes from a header; in MP3 without an Xing header, and in ADTS, FFmpeg guesses it."""
    if container != "mp3":
        return container != "aac"
    with path.open("rb") as file:
        file.seek(max(0, begins_at - _XING_FRAME))
        before = file.read(min(begins_at, _XING_FRAME))
    return any(mark in before for mark in (b"Xing", b"Info", b"VBRI"))


def _riff_is_cut(head: bytes, size: int) -> bool:
    """A WAV file shorter than its own size field; recorders that stream leave the field 0 or all ones."""
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return False
    promised = int.from_bytes(head[4:8], "little")
    return promised not in (0, 0xFFFFFFFF) and promised + 8 > size + 1
