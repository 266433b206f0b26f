"""Recordings that are odd but can be met: what telephone systems, recorders and broken downloads make of audio files.

Made anew for each test, always with the same bytes as long as the encoders are the same.
"""

from __future__ import annotations

import random
import struct
from array import array
from pathlib import Path

import av
import numpy as np

from dialog_assets.sandbox.world.loader import AUDIO
from dialog_assets_tests.audio import calls

WORLD = AUDIO / "okna_sever_7001.mp3"
RINGING = AUDIO / "okna_sever_7006.mp3"


def make(folder: Path) -> dict[str, Path]:
    """Write all of them; returns them by name."""
    _copies(folder)
    _waves(folder)
    _encoded(folder)
    return {path.name: path for path in sorted(folder.iterdir())}


def vbr(path: Path, *, header: bool) -> None:
    """Ten seconds of near silence and ten of noise, with a variable bit rate."""
    options = {"write_xing": str(int(header)), "id3v2_version": "0", "fflags": "+bitexact"}
    with av.open(path, "w", format="mp3", options=options) as container:
        stream = container.add_stream("mp3", rate=16000, layout="mono")
        stream.options = {"compression_level": "9"}
        stream.codec_context.qscale = True
        chance = random.Random(1)
        for start in range(0, 16000 * 20, 576):
            frame = av.AudioFrame(format="s16p", layout="mono", samples=576)
            frame.sample_rate, frame.pts = 16000, start
            loud = 20000 if start > 16000 * 10 else 1
            data = array("h", (chance.randint(-loud, loud) for _ in range(576))).tobytes()
            frame.planes[0].update(data + bytes(frame.planes[0].buffer_size - len(data)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def wave(
    data: bytes,
    *,
    kind: int = 1,
    bits: int = 16,
    channels: int = 2,
    rate: int = 8000,
    promised: int | None = None,
    before: bytes = b"",
) -> bytes:
    """A WAV file by hand; `promised` instead of the true length, `before` are chunks in front of the data."""
    width = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * width, width, bits)
    size = len(data) if promised is None else promised
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + before + b"data" + struct.pack("<I", size) + data
    riff = len(body) if promised is None else promised
    return b"RIFF" + struct.pack("<I", riff) + body


def id3(**frames: str | bytes) -> bytes:
    """An ID3v2.3 tag: texts in UTF-16, or bytes as they are."""
    body = b""
    for name, content in frames.items():
        told = content if isinstance(content, bytes) else b"\x01" + content.encode("utf-16")
        body += name.encode() + struct.pack(">IH", len(told), 0) + told
    size = bytes((len(body) >> shift) & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + size + body


def _copies(folder: Path) -> None:
    data = WORLD.read_bytes()
    (folder / "mp3_without_suffix").write_bytes(data)
    (folder / "mp3_named.wav").write_bytes(data)
    (folder / "mp3_named.ogg").write_bytes(data)
    (folder / "mp3_named.txt").write_bytes(data)
    (folder / "mp3_truncated.mp3").write_bytes(data[: len(data) * 2 // 5])
    (folder / "mp3_cut_in_front.mp3").write_bytes(data[10_007:])
    (folder / "mp3_after_garbage.mp3").write_bytes(random.Random(5).randbytes(300) + data)
    (folder / "mp3_with_id3.mp3").write_bytes(id3(TIT2="Звонок", TPE1="АТС", TDRC="2025") + data)
    (folder / "mp3_with_id3v1.mp3").write_bytes(data + b"TAG" + b"call".ljust(30, b"\0") + bytes(95))
    (folder / "mp3_one_hour.mp3").write_bytes(_frames(data) * (3600 // 68 + 1))


def _frames(data: bytes) -> bytes:
    """Without the first frame, which describes the others."""
    return data[data.index(data[:2], 2) :]


def _waves(folder: Path) -> None:
    chance = random.Random(7)
    sound = array("h", (round(chance.gauss(0, 2000)) for _ in range(2 * 8000 * 3))).tobytes()
    info = b"INFOINAM" + struct.pack("<I", 6) + b"call \0" + b"IART" + struct.pack("<I", 4) + b"PBX\0"
    (folder / "wav_named.mp3").write_bytes(wave(sound))
    (folder / "wav_streamed_zero.wav").write_bytes(wave(sound, promised=0))
    (folder / "wav_streamed_ones.wav").write_bytes(wave(sound, promised=0xFFFFFFFF))
    (folder / "wav_truncated.wav").write_bytes(wave(sound)[: len(sound) // 2])
    (folder / "wav_with_info.wav").write_bytes(wave(sound, before=b"LIST" + struct.pack("<I", len(info)) + info))
    (folder / "wav_8_bit.wav").write_bytes(wave(sound, bits=8, channels=1))
    (folder / "wav_24_bit.wav").write_bytes(wave(sound, bits=24))
    (folder / "wav_alaw.wav").write_bytes(wave(sound, kind=6, bits=8))
    (folder / "wav_mulaw_mono.wav").write_bytes(wave(sound, kind=7, bits=8, channels=1))
    (folder / "wav_9000_hz.wav").write_bytes(wave(sound, rate=9000, channels=1))
    (folder / "wav_four_channels.wav").write_bytes(wave(sound, channels=4))
    (folder / "au_mulaw.au").write_bytes(b".snd" + struct.pack(">IIIII", 24, len(sound), 1, 8000, 1) + sound)


def _encoded(folder: Path) -> None:
    vbr(folder / "mp3_vbr.mp3", header=True)
    vbr(folder / "mp3_vbr_without_header.mp3", header=False)
    sound = calls.tone(2, -20, 440) + calls.noise(np.random.default_rng(1), 2, -40)
    for name, codec, rate, channels, bit_rate in (
        ("mp3_hd.mp3", "libmp3lame", 48000, 2, 192_000),
        ("mp3_11025.mp3", "libmp3lame", 11025, 1, 24_000),
        ("mp3_in_wav.wav", "libmp3lame", 8000, 1, 16_000),
        ("flac.flac", "flac", 16000, 2, 0),
        ("flac_in_ogg.ogg", "flac", 8000, 1, 0),
        ("opus.ogg", "libopus", 48000, 1, 16_000),
        ("opus.webm", "libopus", 48000, 2, 32_000),
        ("vorbis.ogg", "libvorbis", 16000, 2, 0),
        ("aac.m4a", "aac", 16000, 1, 32_000),
        ("aac.aac", "aac", 8000, 2, 24_000),
        ("aac.mkv", "aac", 16000, 1, 32_000),
        ("pcm.mov", "pcm_s16le", 8000, 2, 0),
        ("pcm.aiff", "pcm_s16be", 8000, 1, 0),
        ("adpcm.wav", "adpcm_ima_wav", 8000, 2, 0),
        ("adpcm_ms.wav", "adpcm_ms", 8000, 1, 0),
        ("amr.amr", "libopencore_amrnb", 8000, 1, 12_200),
        ("pcm.w64", "pcm_s16le", 8000, 1, 0),
        ("pcm.caf", "pcm_s16be", 8000, 2, 0),
        ("speech.tta", "tta", 8000, 1, 0),
        ("speech.wv", "wavpack", 8000, 2, 0),
    ):
        if codec in av.codecs_available:
            calls.encode(folder / name, [sound] * channels, codec, rate, bit_rate)
