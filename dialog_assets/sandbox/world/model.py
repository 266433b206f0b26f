"""The fictional portals as values: people, CRM, calls, recordings, and for each spoken call the truth about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class ScriptTurn:
    """One turn of a written dialog. `heard` is what an imperfect recogniser makes of `text` (lower-case, no punctuation)."""

    speaker: Literal["operator", "client"]
    text: str
    heard: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class Judgement:
    """What a careful reviewer says to one criterion. `quotes` are (turn index, words copied from that turn's `text`)."""

    criterion: str
    score: int | None  # None: not applicable
    text: str
    quotes: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Script:
    """A written dialog, how its recording sounds, and what a careful reviewer concludes.

    Times count from the start of a recording without lead (see `Recording.turns`). A voicemail's script is its
    announcement on the client's side; it has neither categories nor judgements.
    """

    name: str
    portal: str
    turns: tuple[ScriptTurn, ...]
    categories: tuple[tuple[str, int, str], ...]  # (category name, confidence 0-100, reason)
    judgements: tuple[Judgement, ...]
    duration_ms: int


@dataclass(frozen=True)
class Recording:
    """A file on the portal's Disk. `content` says what is in it."""

    file_id: int  # Disk object id = RECORD_FILE_ID
    path: Path
    name: str  # NAME on the Disk
    content: Literal["speech", "voicemail", "silence", "damaged"]
    channels: Literal[1, 2]
    operator_channel: int | None  # None for mono
    script: Script | None  # None for silence and damaged
    ready_at: datetime  # when RECORD_FILE_ID appears in the statistics
    duration_ms: int = 0  # of the audio, lead included; 0 for damaged
    lead_ms: int = 0  # silence before the script begins: keeps several recordings of one script apart

    @property
    def size(self) -> int | None:
        """Bytes of the file; None if it is gone."""
        return self.path.stat().st_size if self.path.is_file() else None

    def read(self, first: int, length: int) -> bytes:
        """Up to `length` bytes of the file from byte `first`."""
        with self.path.open("rb") as file:
            file.seek(first)
            return file.read(length)

    @property
    def turns(self) -> tuple[ScriptTurn, ...]:
        """The script's turns with the times of this recording."""
        if self.script is None:
            return ()
        return tuple(
            replace(turn, start_ms=turn.start_ms + self.lead_ms, end_ms=turn.end_ms + self.lead_ms)
            for turn in self.script.turns
        )


@dataclass(frozen=True)
class Call:
    """A row of voximplant.statistic.get: `fields` is its JSON as the service sends it, RECORD_FILE_ID included."""

    id: int
    start: datetime
    fields: dict[str, Any]
    recording: Recording | None = None


@dataclass(frozen=True)
class SandboxPortal:
    """One fictional portal; the rows are dicts as the REST methods send them, keyed by integer id."""

    portal: str
    webhook_user: int
    webhook_secret: str
    time_zone: str
    users: Mapping[int, dict[str, Any]]
    contacts: Mapping[int, dict[str, Any]]
    leads: Mapping[int, dict[str, Any]]
    companies: Mapping[int, dict[str, Any]]
    deals: Mapping[int, dict[str, Any]]
    calls: Sequence[Call]
    webhook_env: str  # the environment variable that the portal's file names

    @property
    def recordings(self) -> Mapping[int, Recording]:
        """The recordings by Disk object id; a generated world knows them without going through its calls."""
        known: Mapping[int, Recording] | None = getattr(self.calls, "recordings", None)
        if known is not None:
            return known
        return {call.recording.file_id: call.recording for call in self.calls if call.recording is not None}


@dataclass(frozen=True)
class World:
    """Everything outside, by portal id, and every script by name."""

    portals: dict[str, SandboxPortal]
    scripts: dict[str, Script] = field(default_factory=dict)
