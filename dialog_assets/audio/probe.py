"""What is in a recording: read and decoded once, in process, by FFmpeg's libraries (PyAV).

Decoding the whole file, not only its header, gives the true length, tells a damaged file from a whole one, and lets its
sound be measured on the way. Not here: the measuring (measures), conversion, limits on hostile files (workers).
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.error import FFmpegError

from dialog_assets.audio.errors import AudioError, Reason
from dialog_assets.audio.measures import RATE, Meter
from dialog_assets.audio.values import AudioProbe, Header

__all__ = ["AudioProbe", "decoded", "open_recording", "probe", "probe_header"]

SHORTER_S = 1.0
DAMAGED_SHARE = 0.1
"""Undecodable packets above this share mean damage; a few occur at the cut ends of good MP3 files."""

CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,asf,au,avi,caf,eac3,flac,flv,loas,matroska,mov,mp3,mp4,mpeg,mpegts,ogg,tta,voc,"
    "w64,wav,webm,wv"
)
"""FFmpeg's formats that are read. Not among them: playlists, devices and image sequences, by which a file could make FFmpeg
open other files; and formats without a header, which name no sample rate."""

DECODERS = (
    "aac,aac_latm,ac3,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,adpcm_yamaha,alac,amrnb,amrwb,eac3,flac,g722,"
    "g723_1,g726,g726le,g729,gsm,gsm_ms,ilbc,mp1float,mp2float,mp3float,nellymoser,opus,pcm_alaw,pcm_f32be,pcm_f32le,"
    "pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,pcm_s8,pcm_u8,speex,"
    "truespeech,tta,vorbis,wavpack,wmalossless,wmapro,wmav1,wmav2,wmavoice"
)
"""What is let loose on foreign bytes: the codecs of telephony and recorders, none of pictures."""

_OPTIONS = {"format_whitelist": CONTAINERS, "codec_whitelist": DECODERS}
_DECODERS = frozenset(DECODERS.split(","))
_STATED_FOR_THE_WHOLE = frozenset({"asf", "flv", "matroska,webm"})
"""Formats that state a length, and not of each stream."""
_CHANNELS = 8
_RATES = (2000, 384_000)
_BELIEVED_BYTES = 500_000_000
_BELIEVED_S = 24 * 3600
"""A promise of more is what a writer puts in that does not know the size: no recording of a call has it."""
_BEGINNINGS = (
    *(b"RIFF", b"RF64", b"riff", b"OggS", b"fLaC", b"#!AMR", b"FORM", b".snd", b"caff", b"\x1aE\xdf\xa3", b"0&\xb2u"),
)
"""WAV and its longer kinds, Ogg, FLAC, AMR, AIFF, AU, CAF; Matroska and WebM; WMA."""
_ID3_HEADER, _ID3V1 = 10, 128
_TAG_LENGTH = 1000
_TAGS = 100
_XING_FRAME = 1500
_BIT_RATE = 200_000_000
"""Above what any recording has: 8 channels of 64 bits at 384 kHz."""


@dataclass(slots=True)
class _Decoded:
    samples: int = 0
    packets: int = 0
    bad_packets: int = 0
    begins_at: int = 0
    meter: Meter | None = None


def probe(path: Path) -> AudioProbe:
    """Decode the file and measure it. It blocks: about 0.3 s for a minute of stereo.

    `duration_s` is what the decoder gives, as players show it: padding that the encoder noted is left out, and the estimate
    from the bit rate of a VBR file without header is not used. Raises AudioError with its reason; OSError if the file cannot
    be read.
    """
    size = _size(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        head = file.read(12)
    with open_recording(path) as container:
        header = _header(container, size)
        stream = container.streams.audio[0]
        promised_s = _promised_s(container)
        found = _decode(container)
        if not found.packets:
            raise AudioError("empty", f"{header.container} without audio data")
        if not found.meter or found.bad_packets > DAMAGED_SHARE * found.packets:
            raise AudioError("damaged", f"{found.bad_packets} of {found.packets} packets are undecodable")
        rate = stream.codec_context.sample_rate
        _check_form(found.meter.channels, rate)
        duration_s = found.samples / rate
        if not _length_is_stated(header.container, path, found.begins_at):
            promised_s = 0.0
        if not _believed(promised_s, duration_s, size):
            promised_s = 0.0
        in_riff_s = duration_s * _riff_promises(head) / size
        if _believed(in_riff_s, duration_s, size):
            promised_s = max(promised_s, in_riff_s)
        missing_s = promised_s - duration_s if _ends_early(promised_s, duration_s) else 0.0
        return AudioProbe(
            container=header.container,
            codec=header.codec,
            sample_rate=header.sample_rate,
            channels=header.channels,
            bit_rate=_bit_rate(header.bit_rate, size * 8 / duration_s),
            stated_duration_s=header.stated_duration_s,
            duration_s=round(duration_s, 6),
            bytes=size,
            sha256=sha256,
            measures=replace(found.meter.measures(), missing_s=round(missing_s, 3)),
            tags=header.tags,
        )


def probe_header(path: Path) -> Header:
    """What `ffprobe` tells of the file, without decoding it: about a millisecond. Raises AudioError, OSError."""
    size = _size(path)
    with open_recording(path) as container:
        return _header(container, size)


@contextmanager
def open_recording(path: Path) -> Iterator[InputContainer]:
    """The file as FFmpeg reads it, whatever its name ends in; it has an audio stream with a known codec. Raises AudioError."""
    with _File(io.FileIO(path)) as file:
        try:
            container = av.open(file, "r", metadata_errors="replace", container_options=_OPTIONS)
        except FFmpegError as error:
            raise refusal(error, _unreadable(file)) from None
        with container:
            if not container.streams.audio:
                raise AudioError("no_audio_stream", container.format.name)
            context: av.AudioCodecContext | None = container.streams.audio[0].codec_context
            if context is None:
                raise AudioError("not_audio", "an unknown codec")
            if context.codec.name not in _DECODERS:
                raise AudioError("not_audio", f"codec {context.codec.canonical_name} is not read")
            _check_form(context.channels, context.sample_rate)
            yield container


class _File(io.BufferedReader):
    """A place before the file's beginning, to which a wrong size sends FFmpeg, is its error and not the system's."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return -1


def _unreadable(file: BinaryIO) -> Reason:
    """What a file is that FFmpeg does not open: a known format that is broken, a tag with nothing behind it, or no audio."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head.startswith(b"ID3"):
        tag = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
        return "empty" if size <= _ID3_HEADER + tag + _ID3V1 else "damaged"
    return "damaged" if head.startswith(_BEGINNINGS) or head[4:8] == b"ftyp" else "not_audio"


def _check_form(channels: int, rate: int) -> None:
    """Refuse what no recording of a call has, and the libraries cannot hold. 0 is what a header does not say."""
    if channels > _CHANNELS:
        raise AudioError("too_many_channels", f"{channels}, at most {_CHANNELS} are read")
    if rate and not _RATES[0] <= rate <= _RATES[1]:
        raise AudioError("impossible_rate", f"{rate} Hz")


def refusal(error: FFmpegError, reason: Reason) -> AudioError:
    """FFmpeg's error as one of this file: the reason given, unless memory ended."""
    return (
        AudioError("too_large", "out of memory")
        if isinstance(error, MemoryError)
        else AudioError(reason, type(error).__name__)
    )


def _size(path: Path) -> int:
    size = path.stat().st_size
    if size == 0:
        raise AudioError("empty")
    return size


def _header(container: InputContainer, size: int) -> Header:
    stream = container.streams.audio[0]
    context = stream.codec_context
    tags = {key.lower(): value[:_TAG_LENGTH] for key, value in {**container.metadata, **stream.metadata}.items()}
    return Header(
        container=container.format.name,
        codec=context.codec.canonical_name,
        sample_rate=context.sample_rate,
        channels=context.channels,
        bit_rate=context.bit_rate or container.bit_rate or 0,
        stated_duration_s=round((container.duration or 0) / av.time_base, 6),
        bytes=size,
        tags=dict(list(tags.items())[:_TAGS]),
    )


def decoded(container: InputContainer) -> Iterator[tuple[av.Packet[av.AudioStream], list[av.AudioFrame] | None]]:
    """Packets of the sound with their frames; None where one is undecodable, which a few are in good recordings."""
    for packet in container.demux(container.streams.audio[0]):
        frames: list[av.AudioFrame] | None = None
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except FFmpegError:
            pass
        yield packet, frames


def _decode(container: InputContainer) -> _Decoded:
    plainly = av.AudioResampler(format="s16")
    at_telephone_rate = av.AudioResampler(format="s16", rate=RATE)
    found = _Decoded()
    first_form: tuple[int, int] | None = None
    try:
        for packet, frames in decoded(container):
            if packet.size and not found.packets:
                found.begins_at = packet.pos or 0
            found.packets += packet.size > 0
            found.bad_packets += frames is None
            for frame in frames or ():
                found.samples += frame.samples
                form = frame.layout.nb_channels, frame.sample_rate
                _check_form(*form)
                first_form = first_form or form
                if form != first_form:
                    raise AudioError("damaged", "its channels or sample rate change midway")
                found.meter = found.meter or Meter(form[0])
                for plain in plainly.resample(frame):
                    samples = _samples(plain)
                    found.meter.feed(samples)
                    if form[1] == RATE:
                        found.meter.hear(samples)
                if form[1] != RATE:
                    for telephone in at_telephone_rate.resample(frame):
                        found.meter.hear(_samples(telephone))
    except FFmpegError as error:
        raise refusal(error, "damaged") from None
    return found


def _samples(frame: av.AudioFrame) -> npt.NDArray[np.int16]:
    """Samples (channels, n) of a packed frame: PyAV falls over the planes of eight channels and more."""
    packed = np.asarray(frame.to_ndarray(), np.int16)
    return np.ascontiguousarray(packed.reshape(-1, frame.layout.nb_channels).T)


def _bit_rate(stated: int, found: float) -> int:
    """The header's bit rate, unless it is none or cannot be true."""
    return stated if 0 < stated <= _BIT_RATE else min(round(found), _BIT_RATE)


def _believed(promised_s: float, found_s: float, size: int) -> bool:
    """Whether a header's length may be true: else it is no promise, whatever the writer has put in its place."""
    return promised_s <= _BELIEVED_S and promised_s / found_s * size <= _BELIEVED_BYTES


def _promised_s(container: InputContainer) -> float:
    stream = container.streams.audio[0]
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base if container.format.name in _STATED_FOR_THE_WHOLE else 0.0


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


def _riff_promises(head: bytes) -> int:
    """Bytes that a WAV file's own size field promises; recorders that stream leave the field 0 or all ones."""
    promised = int.from_bytes(head[4:8], "little")
    is_wave = head[:4] == b"RIFF" and head[8:] == b"WAVE"
    return promised + 8 if is_wave and promised not in (0, 0xFFFFFFFF) else 0
