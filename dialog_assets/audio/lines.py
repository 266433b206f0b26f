"""What a run and the processes that read its recordings say to each other: JSON, one line each.

Not pickles: a parser that hostile bytes have taken over could turn those against the run.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from dialog_assets.audio.errors import Reason
from dialog_assets.audio.values import AudioProbe, Form, Prepared


class Request(BaseModel):
    """Probe `path`; with `form` and `target`, convert it."""

    model_config = ConfigDict(extra="forbid")

    path: Path
    form: Form | None = None
    target: Path | None = None


class Answer(BaseModel):
    """One of: what was found, what was prepared, why the file was refused, the number of a system error."""

    model_config = ConfigDict(extra="forbid")

    found: AudioProbe | None = None
    prepared: Prepared | None = None
    refused: tuple[Reason, str] | None = None
    errno: int | None = None
