"""The dialog of a call as a value: turns with role, channel, times and text. Pure data, shared by speech, analysis and store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["operator", "client", "speaker"]
"""Who speaks; `speaker` is a mono recording's stream whose side is not known yet."""


@dataclass(frozen=True, slots=True)
class Word:
    """One recognised word; times in milliseconds from the start of the recording."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says without the other taking over; times in milliseconds from the start of the recording."""

    role: Role
    channel: int
    start_ms: int
    end_ms: int
    text: str
    words: tuple[Word, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain dicts and lists for a JSON column."""
        # By name: `dataclasses.asdict` takes ten times as long, and a call has thousands of words.
        return {
            "role": self.role,
            "channel": self.channel,
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
            "text": self.text,
            "words": [{"text": word.text, "start_ms": word.start_ms, "end_ms": word.end_ms} for word in self.words],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Turn:
        """The turn that `as_json` wrote."""
        return cls(**{**data, "words": tuple(Word(**word) for word in data.get("words", ()))})


def line_id(index: int) -> str:
    """The address of turn `index` (from 0) in a prompt and in a quote: L001, L002 …"""
    return f"L{index + 1:03d}"


def turns_key(turns: Sequence[Turn]) -> str:
    """The identity of a dialog: the same words of the same sides at the same times have the same key."""
    return hashlib.sha256(json.dumps([turn.as_json() for turn in turns]).encode()).hexdigest()
