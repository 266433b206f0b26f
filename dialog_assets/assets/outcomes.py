"""What the errors of the rooms mean for a step: this item's outcome, or the end of the step (rule 3)."""

from __future__ import annotations

from datetime import UTC, datetime

from dialog_assets.assets.temporary import NoRoomForRecordings
from dialog_assets.audio.errors import AudioError, WorkersUnavailable
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24Error,
    Bitrix24LimitError,
    Bitrix24UnavailableError,
    RecordingUnavailableError,
    RowError,
)
from dialog_assets.errors import DialogAssetsError
from dialog_assets.llm.errors import LLMAnswerError, LLMCeilingReached, LLMRefused, LLMUnavailable
from dialog_assets.resources.s3 import ArchivedFileMissing, ArchiveRefused, ArchiveUnavailable
from dialog_assets.speech.errors import (
    OperationExpired,
    RecogniserBusy,
    RecogniserRefused,
    RecogniserUnavailable,
    RecordingRejected,
)
from dialog_assets.store.errors import DatabaseUnreachable, LockLost
from dialog_assets.worklist import Outcome, StepStopped

STOPS = (
    Bitrix24AccessError,
    ArchiveRefused,
    RecogniserRefused,
    LLMRefused,
    NoRoomForRecordings,
    WorkersUnavailable,
    DatabaseUnreachable,
    LockLost,
)
"""One broken key, a full disk, a broken installation, a lost database: it would befall every other item too."""

OUTAGES: dict[type[DialogAssetsError], str] = {
    Bitrix24LimitError: "portal_limit",
    Bitrix24UnavailableError: "portal_unavailable",
    ArchiveUnavailable: "archive_unavailable",
    RecogniserBusy: "recogniser_busy",
    RecogniserUnavailable: "recogniser_unavailable",
    LLMUnavailable: "llm_unavailable",
}
"""The service failed, not the item: the next run tries again, and many in a row stop the step."""

PASSING = frozenset(
    {
        "recording_truncated",  # another download may mend it
        "recording_changed",
        "recording_too_slow",
        "recording_unreachable",
        "recording_elsewhere",  # as soon as a setting, the portal's or its file's, says whose host that is
        "recording_untrusted",  # as soon as its certificate is trusted
        "missing_in_storage",  # another upload
        "archived_file_missing",
        "archived_file_frozen",  # until it is called back
        "archived_file_changed",  # by a run of the step before, at this moment
        "recognition_expired",
        "llm_item_unanswered",  # the model answers others; the ceiling ends it
        "no_room_for_recording",
    }
)
"""The item failed, and the next run tries again."""


def outcome_of(error: DialogAssetsError) -> Outcome:
    """The outcome of an item whose work raised `error`. Raises StepStopped for what stops the step."""
    if isinstance(error, STOPS):
        raise StepStopped(str(error)) from error
    outage = next((reason for kind, reason in OUTAGES.items() if isinstance(error, kind)), None)
    reason = outage or _reason(error)
    passing = outage is not None or reason in PASSING or (isinstance(error, Bitrix24Error) and error.retryable)
    return Outcome(
        "failed",
        reason=reason,
        detail=str(error)[:500],
        next_try=datetime.now(UTC) if passing else None,
        paid=error.keys if isinstance(error, LLMAnswerError) else (),
        outage=outage is not None,
    )


def _reason(error: DialogAssetsError) -> str:
    if isinstance(error, RecordingUnavailableError | AudioError):
        return f"recording_{error.reason}"
    if isinstance(error, RecordingRejected):
        return error.reason
    if isinstance(error, OperationExpired):
        return "recognition_expired"
    if isinstance(error, ArchivedFileMissing):
        return "archived_file_missing"
    if isinstance(error, LLMCeilingReached):
        return "ceiling_reached"
    if isinstance(error, RowError):
        return "row_unreadable"
    if isinstance(error, Bitrix24Error):
        return "portal_refused"
    return _snake(type(error).__name__)


def _snake(name: str) -> str:
    """LLMAnswerInvalid → llm_answer_invalid."""
    out = ""
    for index, letter in enumerate(name):
        starts = letter.isupper() and index and (name[index - 1].islower() or name[index + 1 : index + 2].islower())
        out += f"_{letter.lower()}" if starts else letter.lower()
    return out
