"""The recogniser port: what the step `transcripts` needs from any speech service, and nothing of a particular one.

A recording is uploaded, submitted, and polled until its operation ends; the raw answer is kept and read into phrases.
Not here: gRPC, storage, how phrases become a dialog (`dialogs.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from dialog_assets.dialogs import Word

Encoding = Literal["mp3", "pcm_s16le", "pcm_alaw", "pcm_mulaw", "aac_adts"]
"""The codecs that VoiceKit takes as files; the three `pcm_` ones without a header (facts/voicekit.md section 3.3)."""

TRANSIENT_CODES = frozenset({2, 4, 8, 10, 13, 14})


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """How a recording must be decoded; a wrong rate or channel count gives silence rather than an error."""

    encoding: Encoding
    sample_rate: int
    channels: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class Phrase:
    """What one channel says between two pauses; times in milliseconds from the start of the recording."""

    channel: int
    start_ms: int
    end_ms: int
    text: str
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Pending:
    """The operation has not ended: waiting in the service's queue, or being worked on."""

    state: Literal["enqueued", "processing"]


@dataclass(frozen=True, slots=True)
class Recognised:
    """The operation has ended well. `raw` is the whole answer as plain JSON values; no speech gives no phrases."""

    raw: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The operation has ended badly, or was cancelled. `code` is a gRPC status code, `text` the service's words."""

    code: int
    text: str

    @property
    def transient(self) -> bool:
        """Whether the same recording may succeed when it is submitted again (facts/voicekit.md section 3.6)."""
        return self.code in TRANSIENT_CODES


class Recogniser(Protocol):
    """A speech service. Every method raises the errors of `speech.errors`."""

    @property
    def name(self) -> str:
        """The service's name as stored with a transcript."""
        ...

    async def upload(self, path: Path, object_name: str) -> str:
        """Put the file where the service can read it and return the URI; what is there already is not sent again."""
        ...

    async def submit(
        self, uri: str, audio: AudioFormat, *, request_id: str, group: str, vocabulary: Sequence[str]
    ) -> str:
        """Start the recognition and return its operation id. Costs money: store `request_id` before, the id after.

        `request_id` must be new for every recognition that is to be paid for; `group` should be small (a portal's day).
        """
        ...

    async def find(self, request_id: str, group: str) -> str | None:
        """The operation that a `submit` with these two started, if the service knows one."""
        ...

    async def poll(self, operation_id: str) -> Pending | Recognised | Failed:
        """The operation's present state. Raises OperationExpired if the service does not know it."""
        ...

    def phrases(self, raw: dict[str, Any]) -> list[Phrase]:
        """Read a stored answer, in the order in which the service gave its phrases."""
        ...


def poll_delays(first: float = 0.5, factor: float = 1.6, most: float = 60.0) -> Iterator[float]:
    """Seconds to wait before each poll: growing from `first` by `factor` up to `most`, without end."""
    delay = first
    while True:
        yield min(delay, most)
        delay = min(delay * factor, most)
