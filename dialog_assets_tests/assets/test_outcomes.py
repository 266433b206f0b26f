"""What each error of the rooms means for a step; an error class that nobody thought of makes a test fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from dialog_assets.assets import temporary
from dialog_assets.assets.outcomes import _snake, outcome_of
from dialog_assets.assets.steps import StepRun
from dialog_assets.audio import errors as audio
from dialog_assets.bitrix24 import errors as bitrix24
from dialog_assets.errors import DialogAssetsError
from dialog_assets.llm import errors as llm
from dialog_assets.portals import Portal
from dialog_assets.resources import s3_errors as s3
from dialog_assets.speech import errors as speech
from dialog_assets.store import ledger
from dialog_assets.worklist import Item, Outcome, StepStopped
from dialog_assets_tests.store.rows import MONDAY, PORTAL, Pool, all_rows, one, step, with_pool

PAID: dict[str, Any] = {"keys": ["k1", "k2"], "cost_usd": Decimal("0.1")}
STOPS, OUTAGE, AGAIN, FOR_GOOD = "stops the step", "tried again, stops in a row", "tried again", "failed for good"

MEANINGS: list[tuple[DialogAssetsError, str, str | None]] = [
    (bitrix24.Bitrix24AccessError("INVALID_CREDENTIALS"), STOPS, None),
    (bitrix24.Bitrix24LimitError("QUERY_LIMIT_EXCEEDED"), OUTAGE, "portal_limit"),
    (bitrix24.Bitrix24UnavailableError("not_json"), OUTAGE, "portal_unavailable"),
    (bitrix24.Bitrix24RequestError("ERROR_CORE"), FOR_GOOD, "portal_refused"),
    (bitrix24.Bitrix24DataError("no_rows"), FOR_GOOD, "portal_refused"),
    (bitrix24.RowError("disk.file.get", "SIZE", "a number", 5), FOR_GOOD, "row_unreadable"),
    (bitrix24.RecordingUnavailableError("gone", "1"), FOR_GOOD, "recording_gone"),
    (bitrix24.RecordingUnavailableError("refused", "1"), FOR_GOOD, "recording_refused"),
    (bitrix24.RecordingUnavailableError("not_audio", "1"), FOR_GOOD, "recording_not_audio"),
    (bitrix24.RecordingUnavailableError("too_large", "1"), FOR_GOOD, "recording_too_large"),
    (bitrix24.RecordingUnavailableError("truncated", "1"), AGAIN, "recording_truncated"),
    (bitrix24.RecordingUnavailableError("changed", "1"), AGAIN, "recording_changed"),
    (audio.AudioError("damaged"), FOR_GOOD, "recording_damaged"),
    (audio.AudioError("empty"), FOR_GOOD, "recording_empty"),
    (audio.WorkersUnavailable("no memory"), STOPS, None),
    (s3.ArchiveRefused("no bucket"), STOPS, None),
    (s3.ArchiveUnavailable("slow"), OUTAGE, "archive_unavailable"),
    (s3.ArchivedFileMissing("gone"), AGAIN, "archived_file_missing"),
    (s3.ArchivedFileChanged("other"), AGAIN, "archived_file_changed"),
    (s3.ArchivedFileFrozen("cold"), AGAIN, "archived_file_frozen"),
    (audio.WorkersUnavailable("no process"), STOPS, None),
    (temporary.NoRoomForRecordings("full"), STOPS, None),
    (temporary.NoRoomForRecording("large"), AGAIN, "no_room_for_recording"),
    (speech.RecogniserRefused("key"), STOPS, None),
    (speech.RecogniserBusy("quota"), OUTAGE, "recogniser_busy"),
    (speech.RecogniserUnavailable("down"), OUTAGE, "recogniser_unavailable"),
    (speech.OperationExpired("gone"), AGAIN, "recognition_expired"),
    (speech.RecordingRejected("unsupported_audio", "opus"), FOR_GOOD, "unsupported_audio"),
    (speech.RecordingRejected("missing_in_storage", "upload again"), AGAIN, "missing_in_storage"),
    (speech.UnexpectedAnswer("strange"), FOR_GOOD, "unexpected_answer"),
    (llm.LLMRefused("key"), STOPS, None),
    (llm.LLMItemUnanswered("slow"), AGAIN, "llm_item_unanswered"),
    (llm.LLMRequestTooLarge("long"), FOR_GOOD, "llm_request_too_large"),
    (llm.LLMCeilingReached("dear", **PAID), FOR_GOOD, "ceiling_reached"),
    (llm.UnknownPrice("model"), STOPS, None),
    (llm.LLMUnavailable("down"), OUTAGE, "llm_unavailable"),
    (llm.LLMRequestRejected("too long"), FOR_GOOD, "llm_request_rejected"),
    (llm.LLMAnswerInvalid("schema", complaints=["x"], **PAID), FOR_GOOD, "llm_answer_invalid"),
    (llm.LLMContentRefused("no", **PAID), FOR_GOOD, "llm_content_refused"),
    (llm.LLMTruncated("cut", **PAID), FOR_GOOD, "llm_truncated"),
]

ROOTS = {bitrix24.Bitrix24Error, speech.SpeechError, llm.LLMError, llm.LLMAnswerError}
"""Never raised themselves."""


@pytest.mark.parametrize(
    ("error", "meaning", "reason"), MEANINGS, ids=[f"{type(row[0]).__name__}-{row[2]}" for row in MEANINGS]
)
def test_what_an_error_means(error: DialogAssetsError, meaning: str, reason: str | None) -> None:
    """A broken key stops the step; a service that is down is tried again; the item's own fault is final until it changes."""
    if meaning == STOPS:
        with pytest.raises(StepStopped) as caught:
            outcome_of(error)
        assert str(caught.value) == str(error)
        return
    outcome = outcome_of(error)
    assert (outcome.state, outcome.reason, outcome.output_key) == ("failed", reason, None)
    assert outcome.detail == str(error)
    assert outcome.outage == (meaning == OUTAGE)
    assert (outcome.next_try is not None) == (meaning in (OUTAGE, AGAIN))
    if outcome.next_try is not None:
        assert abs(outcome.next_try - datetime.now(UTC)) < timedelta(minutes=1)


def kinds(root: type[DialogAssetsError]) -> Iterator[type[DialogAssetsError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_error_of_the_rooms_has_a_meaning() -> None:
    """Whoever adds an error class decides here what it means for a step."""
    rooms = tuple(module.__name__ for module in (audio, bitrix24, llm, s3, speech, temporary))
    found = {kind for kind in kinds(DialogAssetsError) if kind.__module__ in rooms}
    assert found - ROOTS == {type(error) for error, _, _ in MEANINGS}


def test_errors_live_in_the_modules_that_are_looked_at() -> None:
    """No room hides an error class for people outside its errors.py (or the archive's module)."""
    rooms = ("audio", "bitrix24", "llm", "speech")
    for kind in kinds(DialogAssetsError):
        parts = kind.__module__.split(".")
        if parts[0] == "dialog_assets" and parts[1] in rooms:
            assert parts[2:] == ["errors"], kind


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("LLMAnswerInvalid", "llm_answer_invalid"),
        ("UnexpectedAnswer", "unexpected_answer"),
        ("Bitrix24DataError", "bitrix24_data_error"),
        ("LLMError", "llm_error"),
        ("ReadTLS", "read_tls"),
        ("A", "a"),
        ("", ""),
    ],
)
def test_reason_codes_from_class_names(name: str, snake: str) -> None:
    """A reason is one lower-case word with underscores."""
    assert _snake(name) == snake


def test_a_long_detail_is_cut() -> None:
    """What a service says at length does not fill the table."""
    outcome = outcome_of(llm.LLMRequestRejected("x" * 2000))
    assert outcome.detail == "x" * 500


async def worked(pool: Pool, portal: Portal, errors: Sequence[DialogAssetsError | None]) -> None:
    """A run of the step in which the calls 1, 2 … raise these errors, or end well."""

    async def one(item: Item) -> Outcome:
        error = errors[item.calls[0] - 1]
        if error is not None:
            raise error
        return Outcome("done", output_key="out")

    async def items() -> AsyncIterator[Item]:
        for number in range(1, len(errors) + 1):
            yield Item(f"call {number}", (number,), MONDAY, "in")

    async def nothing(_: date) -> None: ...

    await StepRun(portal, "transcripts", (MONDAY,), pool, nothing).work(items(), one, concurrency=1)


def test_useless_answers_are_settled_with_the_failure(database: str, portals: list[Portal]) -> None:
    """Paid answers of no use are closed together with the failed state, so that the next run does not meet them again."""

    async def work(pool: Pool) -> None:
        async with pool.connection() as connection:
            intent = {"vendor": "v", "model": "m", "step": "s", "day": MONDAY, "rub_rate": Decimal(80)}
            await ledger.ask(connection, PORTAL, "k1", intent)
            await ledger.answered(
                connection, PORTAL, "k1", cost=Decimal("0.1"), currency="USD", vendor_request_id="x", answer="t"
            )
        await worked(pool, portals[1], [llm.LLMTruncated("cut", **PAID)])
        assert ((await step(pool, 1, "transcripts"))["reason"]) == "llm_truncated"
        row = await one(pool, "SELECT state, answer, cost_rub FROM ledger")
        assert row == {"state": "settled", "answer": None, "cost_rub": Decimal(8)}

    with_pool(database, work)


def test_what_was_not_paid_settles_nothing() -> None:
    """Only paid answers are settled."""
    assert outcome_of(llm.LLMTruncated("cut", **PAID)).paid == ("k1", "k2")
    assert outcome_of(llm.LLMUnavailable("down")).paid == ()


def test_files_that_the_archive_lost_stop_nothing(database: str, portals: list[Portal]) -> None:
    """Ten and more in a row: each fails with its reason and is tried again; the calls after them get their turn."""

    async def work(pool: Pool) -> None:
        lost = s3.ArchivedFileMissing("S3 object k is not in bucket b any more; restore it and run the step again.")
        await worked(pool, portals[1], [None, *[lost] * 25, None])
        found = await all_rows(
            pool,
            "SELECT state, reason, next_try IS NOT NULL AS again, count(*) AS calls FROM call_steps GROUP BY 1, 2, 3 ORDER BY 1",
        )
        assert [tuple(row.values()) for row in found] == [
            ("done", None, False, 2),
            ("failed", "archived_file_missing", True, 25),
        ]
        with pytest.raises(StepStopped, match="10 items in a row failed, the last with archive_unavailable"):
            await worked(pool, portals[1], [None, *[s3.ArchiveUnavailable("slow")] * 11])

    with_pool(database, work)


def test_a_stop_hides_nothing_behind_it() -> None:
    """StepStopped comes with its cause, for the log of whoever looks for it."""

    async def raised() -> StepStopped:
        with pytest.raises(StepStopped) as caught:
            outcome_of(speech.RecogniserRefused("key"))
        return caught.value

    assert isinstance(asyncio.run(raised()).__cause__, speech.RecogniserRefused)
