"""Recordings that nobody spoke: valid MP3 of any length, each with bytes of its own, made when they are read.

Here: the bytes. Who has such a recording, crowd.py and bitrix24_events.py say.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from dialog_assets.sandbox.world.model import Recording

FRAME_BYTES = 288
FRAME_MS = 72
# MPEG-2.5, layer III, no CRC, 32 kbit/s, 8 kHz, stereo, as own lines record (facts/bitrix24.md 4.4). All zeros in the
# side information is silence; decoders skip what follows, so it can tell one place of one file from all others.
_HEADER = bytes((0xFF, 0xE3, 0x48, 0x00)) + bytes(17)
_NOISE = FRAME_BYTES - len(_HEADER)


@dataclass(frozen=True)
class MadeRecording(Recording):
    """A generated recording of `frames` frames; another `version` of a file has other bytes."""

    frames: int = 1
    version: int = 1

    @classmethod
    def of(cls, file_id: int, size: int, ready_at: datetime, version: int = 1) -> MadeRecording:
        """The shortest one of at least `size` bytes."""
        frames = max(1, -(-size // FRAME_BYTES))
        return cls(
            file_id=file_id,
            path=Path(f"generated_{file_id}_{version}.mp3"),
            name=f"generated_{file_id}.mp3",
            content="silence",
            channels=2,
            operator_channel=0,
            script=None,
            ready_at=ready_at,
            duration_ms=frames * FRAME_MS,
            frames=frames,
            version=version,
        )

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.frames * FRAME_BYTES

    def read(self, first: int, length: int) -> bytes:
        """Up to `length` bytes of the file from byte `first`."""
        return _content(self.file_id, self.version, self.frames)[first : first + length]


@lru_cache(maxsize=32)
def _content(file_id: int, version: int, frames: int) -> bytes:
    noise = random.Random(f"{file_id} {version}").randbytes(frames * _NOISE)
    return b"".join(_HEADER + noise[at : at + _NOISE] for at in range(0, len(noise), _NOISE))
