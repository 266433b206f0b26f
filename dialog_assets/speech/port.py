"""The recogniser port: what the step `transcripts` needs from any speech service, and nothing of a particular one.

upload → submit → poll → fetch: a recording is put where the service reads it, submitted, polled until its operation ends,
and its raw answer is fetched, kept, and read into phrases. Beside that, for short recordings, one call that answers at once.
Not here: gRPC, storage, the quota of the account (the caller's), how phrases become a dialog (`dialogs.py`).

How other services fit (facts/voicekit.md section 9): Yandex SpeechKit's `upload` puts the file into the customer's bucket,
`Done` holds the operation's id and `fetch` reads GetRecognition; Salute's `upload` returns `request_file_id` and `fetch`
downloads the result's file. A service without listings answers every `find` with None, so that what it may have taken is
sent again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from dialog_assets.dialogs import Word

Encoding = Literal["mp3", "pcm_s16le", "pcm_alaw", "pcm_mulaw", "aac_adts"]
"""The codecs that VoiceKit takes as files; the three `pcm_` ones without a header (facts/voicekit.md section 3.3)."""

Reference = str | Path
"""A recording as `submit` takes it: where the service reads it, or a local file that travels with the submission."""

TRANSIENT_CODES = frozenset({2, 4, 5, 8, 10, 13, 14})


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """How a recording must be decoded; a wrong rate or channel count gives silence rather than an error."""

    encoding: Encoding
    sample_rate: int
    channels: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class Options:
    """How to listen: words to expect, whether to hide obscene ones, and where a phrase ends (None: as the service does)."""

    vocabulary: tuple[str, ...] = ()
    profanity_filter: bool = False
    phrase_pause_s: float | None = None
    silence_probability: float | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """What tells a submission from all others at the service, in our own words.

    `request_id` is new for every recognition that is to be paid for; `group` should be small (a portal's day).
    """

    request_id: str
    group: str


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
class Done:
    """The operation has ended well. `result` is the service's own: what `fetch` needs to give the answer."""

    result: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The operation has ended badly, or was cancelled. `code` is a gRPC status code, `text` the service's words."""

    code: int
    text: str

    @property
    def transient(self) -> bool:
        """Whether the same recording may succeed when it is uploaded and submitted again (facts/voicekit.md 3.6)."""
        return self.code in TRANSIENT_CODES


class Recogniser(Protocol):
    """A speech service. Every method raises the errors of `speech.errors`."""

    @property
    def name(self) -> str:
        """The service's name as stored with a transcript."""
        ...

    @property
    def account(self) -> str:
        """Names the account whose quota is shared, without its secrets; the same in every process that uses it."""
        ...

    async def upload(self, path: Path, object_name: str, *, in_message: bool = False) -> Reference:
        """Put the file where the service can read it; what is there already is not sent again.

        Returns `path` itself where it is small enough to travel with the submission and `in_message` asks for that, or
        the service's storage is down.
        """
        ...

    async def submit(self, recording: Reference, audio: AudioFormat, options: Options, label: Label) -> str:
        """Start the recognition and return its operation id. Costs money: store the label before, the id after."""
        ...

    async def find(self, label: Label) -> str | None:
        """The operation that a `submit` with this label started, if the service knows one."""
        ...

    async def poll(self, operation_id: str, label: Label | None) -> Pending | Done | Failed:
        """The operation's present state. Raises OperationExpired if the service does not know it, or it is another's.

        `label` None: anyone's, for who only wants to know whether it has ended.
        """
        ...

    async def fetch(self, done: Done) -> dict[str, Any]:
        """The whole answer of an operation that has ended well, as plain JSON values; no speech gives no phrases."""
        ...

    async def cancel(self, operation_id: str) -> None:
        """Let the service stop working on it; one that has ended, or is not known, stays as it is."""
        ...

    def takes_at_once(self, size: int, duration_s: float) -> bool:
        """Whether a recording of so many bytes and seconds may be given to `recognise_at_once`."""
        ...

    async def recognise_at_once(self, path: Path, audio: AudioFormat, options: Options, label: Label) -> dict[str, Any]:
        """Recognise in one call and return the answer, as `fetch` does.

        Costs money, and leaves nothing that could be looked up: after RecogniserUnavailable it may have been paid for.
        """
        ...

    def advice(self, vocabulary: Sequence[str]) -> str | None:
        """What the service advises against in a vocabulary, in one sentence."""
        ...

    def phrases(self, raw: dict[str, Any]) -> list[Phrase]:
        """Read a stored answer, in the order in which the service gave its phrases."""
        ...


def poll_delays(first: float = 1.0, share: float = 0.04, most: float = 60.0, *, waited: float = 0.0) -> Iterator[float]:
    """Seconds to wait before each poll: a `share` of the time waited so far, between `first` and `most`, without end.

    So the end of an operation is seen at most that share of its time late, and an hour-long one is asked for once a minute.
    """
    while True:
        delay = min(max(first, waited * share), most)
        yield delay
        waited += delay
