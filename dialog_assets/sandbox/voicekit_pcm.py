"""Headerless audio of the world's WAV recordings: what a client sends that strips the header (facts/voicekit.md 3.3).

Here: finding the samples in a WAV file. Not here: what is heard. A WAV file sent with its header is known too, as the header is
but a click; audio of other containers that a client has decoded is not, since its bytes depend on the decoder.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2

# (format tag, bits a sample) → encoding; 0xFFFE keeps its tag in the extension.
_ENCODINGS = {(1, 16): stt_pb2.LINEAR16, (6, 8): stt_pb2.ALAW, (7, 8): stt_pb2.MULAW}
_EXTENSIBLE = 0xFFFE


@dataclass(frozen=True)
class Samples:
    """Where the samples are in a file, and what they are."""

    encoding: int
    sample_rate: int
    channels: int
    first: int
    length: int


def samples_of(path: Path) -> Samples | None:
    """The samples of a WAV file that VoiceKit takes headerless; None for any other file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        riff = file.read(12)
        if riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
            return None
        shape: tuple[int, int, int] | None = None
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", head)
            if name == b"fmt ":
                chunk = file.read(length + length % 2)
                tag, channels, rate, bits = struct.unpack("<HHI6xH", chunk[:16])
                if tag == _EXTENSIBLE:
                    (tag,) = struct.unpack("<H", chunk[24:26])
                shape = (_ENCODINGS.get((tag, bits), stt_pb2.ENCODING_UNSPECIFIED), rate, channels)
            elif name == b"data":
                first = file.tell()
                length = min(length, path.stat().st_size - first)
                return Samples(*shape, first, length) if shape and shape[0] else None
            else:
                file.seek(length + length % 2, 1)
    return None
