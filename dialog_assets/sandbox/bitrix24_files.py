"""The Disk of a portal: which files there are, in which version, and what became of them since the world began."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from dialog_assets.sandbox.world.model import Recording

LIVE, TRASHED = 0, 3


@dataclass(frozen=True)
class StoredFile:
    """A file in its newest version; `updated` None: never replaced. `deleted_type` as the Disk tells it (facts 4.2)."""

    recording: Recording
    version: int = 1
    updated: datetime | None = None
    deleted_type: int = LIVE


class Files:
    """Files by Disk object id, over the recordings of the world."""

    def __init__(self, recordings: Mapping[int, Recording]) -> None:
        self._given = recordings
        self._own: dict[int, StoredFile | None] = {}

    def get(self, file_id: int) -> StoredFile | None:
        """A file, or None if there is none or it was deleted for good."""
        if file_id in self._own:
            return self._own[file_id]
        recording = self._given.get(file_id)
        return None if recording is None else StoredFile(recording)

    def put(self, recording: Recording, moment: datetime) -> None:
        """Add a file, or replace the content of the one with its id by a new version."""
        before = self.get(recording.file_id)
        self._own[recording.file_id] = (
            StoredFile(recording)
            if before is None
            else StoredFile(replace(recording, ready_at=before.recording.ready_at), before.version + 1, moment)
        )

    def trash(self, file_id: int) -> None:
        """Put a file into the trash."""
        before = self.get(file_id)
        if before is not None:
            self._own[file_id] = replace(before, deleted_type=TRASHED)

    def delete(self, file_id: int) -> None:
        """Delete a file for good."""
        self._own[file_id] = None
