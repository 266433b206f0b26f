"""What the errors of the rooms mean for a step: this item's outcome, or the end of the step (rule 3)."""

from __future__ import annotations

from datetime import UTC, datetime

from dialog_assets.audio.errors import AudioError
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24Error,
    Bitrix24LimitError,
    Bitrix24UnavailableError,
    RecordingUnavailableError,
)
from dialog_assets.errors import DialogAssetsError
from dialog_assets.llm.errors import LLMAnswerError, LLMRefused, LLMUnavailable
from dialog_assets.resources.s3 import ArchiveRefused, ArchiveUnavailable
from dialog_assets.speech.errors import (
    OperationExpired,
    RecogniserBusy,
    RecogniserRefused,
    RecogniserUnavailable,
    RecordingRejected,
)
from dialog_assets.store import ledger
from dialog_assets.store.pool import Connection
from dialog_assets.worklist import Outcome, StepStopped

STOPS = (Bitrix24AccessError, ArchiveRefused, RecogniserRefused, LLMRefused)
"""One broken key: it would befall every other item too."""

OUTAGES: dict[type[DialogAssetsError], str] = {
    Bitrix24LimitError: "portal_limit",
    Bitrix24UnavailableError: "portal_unavailable",
    ArchiveUnavailable: "archive_unavailable",
    RecogniserBusy: "recogniser_busy",
    RecogniserUnavailable: "recogniser_unavailable",
    OperationExpired: "recognition_expired",
    LLMUnavailable: "llm_unavailable",
}
"""The service failed, not the item: the next run tries again."""

PASSING_RECORDING_REASONS = frozenset({"truncated", "changed", "too_slow", "unreachable"})
"""What another download may mend."""


def outcome_of(error: DialogAssetsError, portal: str) -> Outcome:
    """The outcome of an item whose work raised `error`. Raises StepStopped for what stops the step."""
    if isinstance(error, STOPS):
        raise StepStopped(str(error)) from error
    reason, passing = _reason(error)
    return Outcome(
        "failed",
        reason=reason,
        detail=str(error)[:500],
        next_try=datetime.now(UTC) if passing else None,
        save=_settle(error, portal) if isinstance(error, LLMAnswerError) else None,
    )


def _reason(error: DialogAssetsError) -> tuple[str, bool]:
    for kind, reason in OUTAGES.items():
        if isinstance(error, kind):
            return reason, True
    if isinstance(error, RecordingUnavailableError):
        return f"recording_{error.reason}", error.reason in PASSING_RECORDING_REASONS
    if isinstance(error, AudioError):
        return f"recording_{error.reason}", False
    if isinstance(error, RecordingRejected):
        return error.reason, False
    if isinstance(error, Bitrix24Error):
        return "portal_refused", error.retryable
    return _snake(type(error).__name__), False


def _snake(name: str) -> str:
    """LLMAnswerInvalid → llm_answer_invalid."""
    out = ""
    for index, letter in enumerate(name):
        starts = letter.isupper() and index and (name[index - 1].islower() or name[index + 1 : index + 2].islower())
        out += f"_{letter.lower()}" if starts else letter.lower()
    return out


def _settle(error: LLMAnswerError, portal: str):  # type: ignore[no-untyped-def]
    async def save(connection: Connection) -> None:
        await ledger.settle(connection, portal, error.keys)

    return save
