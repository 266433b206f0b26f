"""What makes a file unusable as a recording."""

from __future__ import annotations

from typing import Literal

from dialog_assets.errors import DialogAssetsError

Reason = Literal[
    "empty",
    "not_audio",
    "no_audio_stream",
    "too_many_channels",
    "impossible_rate",
    "damaged",
    "too_slow",
    "too_large",
    "parser_crashed",
]

_TEXTS: dict[Reason, str] = {
    "empty": "the recording is empty",
    "not_audio": "the recording is no audio file that can be recognised by its content",
    "no_audio_stream": "the recording is a media file without an audio stream",
    "too_many_channels": "the recording has more channels than a recording of a call can have",
    "impossible_rate": "the recording's header states a sample rate that no recording has",
    "damaged": "the recording's audio cannot be decoded",
    "too_slow": "the recording takes longer to read than a recording may",
    "too_large": "the recording takes more memory to read than a recording may",
    "parser_crashed": "the recording's bytes bring down the library that reads them",
}


class AudioError(DialogAssetsError):
    """One file that cannot be used; `reason` is a code for `call_steps`. The text names no file: names hold phones."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(_TEXTS[reason] + (f" ({detail})" if detail else "") + ": download it again or listen to it")
        self.reason = reason
        self.detail = detail


class WorkersUnavailable(DialogAssetsError):
    """The processes that read recordings do not start."""
