"""Asset `transcripts`: archived recordings through the recogniser into dialogs, each recording bought once (rule 2)."""

import asyncio
import json
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from dialog_assets.assets.dialogs import CHANNELS_CHECK, channels_check, dialog_columns, rebuild, recognised_dialog
from dialog_assets.assets.outcomes import outcome_of
from dialog_assets.assets.recognition_purchase import UNCLEAR_ANSWER, WAYS, Purchase, Way
from dialog_assets.assets.steps import CallItem, StepRun, run_step, step_asset
from dialog_assets.assets.storable import storable
from dialog_assets.assets.temporary import Room, room_in, work_folder
from dialog_assets.audio.values import Form, Prepared
from dialog_assets.audio.workers import Inspectors
from dialog_assets.dialogs import turns_key
from dialog_assets.errors import first_of
from dialog_assets.portals import Portal
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.resources.s3 import Archive, ArchivedFileChanged, ArchivedFileMissing, ArchiveResource
from dialog_assets.resources.voicekit import VoiceKitResource
from dialog_assets.speech.errors import (
    OperationExpired,
    RecogniserBusy,
    RecogniserRefused,
    RecogniserUnavailable,
    RecordingRejected,
    SpeechError,
    UnexpectedAnswer,
)
from dialog_assets.speech.port import (
    AudioFormat,
    Done,
    Failed,
    Label,
    Options,
    Pending,
    Recogniser,
    Reference,
    poll_delays,
)
from dialog_assets.store import audio_files, call_steps, ledger
from dialog_assets.store import transcripts as table
from dialog_assets.store.pool import Connection, Row
from dialog_assets.store.recogniser_slots import Slots
from dialog_assets.worklist import Outcome

log = logging.getLogger("dialog_assets")

AHEAD = 8
"""Recordings that are fetched, prepared and uploaded while others have the slots."""

LOST_LIMIT = 2
"""Purchases of one recording that may be lost before nothing more is spent on it."""

FAILED_LIMIT = 5
"""Recognitions of one recording that may fail for passing reasons."""

IMMEDIATE_LIMIT = 2
"""Calls of Recognize for one recording that may stay without an answer; then it goes the deferred way."""

OUTAGE_POLLS = 5
"""Polls in a row that may fail, each after its own retries, before the item counts as one that the service failed."""

LISTED_WITHIN_S = 30.0
"""How far the vendor's list of operations may be behind."""

SEEN_EVERY_S = 60.0
SOON, LATEST = timedelta(minutes=1), timedelta(hours=1)
"""What waits for the vendor is asked for again after a quarter of the time that it has waited, within these."""

T = TypeVar("T")
Delays = Callable[..., Iterator[float]]


def build(portal: Portal) -> dg.AssetsDefinition:
    """The asset of one portal."""

    @step_asset(portal, "transcripts", checks=CHANNELS_CHECK)
    def transcripts(
        context: dg.AssetExecutionContext,
        postgres: PostgresResource,
        archive: ArchiveResource,
        voicekit: VoiceKitResource,
    ) -> dg.MaterializeResult:
        """Dialogs as VoiceKit hears them: turns with role, channel and times, and the raw answer beside them."""

        async def core(run: StepRun) -> None:
            async with voicekit.recogniser() as recogniser:
                await recognise(run, archive.open(), recogniser, streams=voicekit.streams())
            async with run.pool.connection() as connection:
                run.findings.checks.append(await channels_check(run.portal, connection, run.first, run.last))

        return run_step(context, portal, "transcripts", postgres, core)

    return transcripts


@dataclass(frozen=True)
class Desk:
    """What the recordings of one run share."""

    run: StepRun
    archive: Archive
    recogniser: Recogniser
    slots: dict[Way, Slots]
    inspectors: Inspectors
    folder: Path
    room: Room
    deadline: float
    delays: Delays
    listed_within_s: float
    preparing: asyncio.Semaphore
    at_vendor: asyncio.Semaphore

    async def find(self, label: Label, row: Row) -> str | None:
        """The operation of a submission of which nothing was heard; one of a moment ago may not be listed yet."""
        delays = self.delays()
        while (found := await self.recogniser.find(label)) is None:
            if _age(row).total_seconds() > self.listed_within_s:
                return None
            await asyncio.sleep(next(delays))
        return found


async def recognise(
    run: StepRun,
    archive: Archive,
    recogniser: Recogniser,
    *,
    streams: int,
    delays: Delays = poll_delays,
    listed_within_s: float = LISTED_WITHIN_S,
) -> None:
    """Recognise what has no transcript yet; what is not ready when the run's patience ends waits for the next run.

    streams: how many the account has; all runs together keep to it. delays: as `poll_delays`. listed_within_s: see
    LISTED_WITHIN_S.
    """
    await run.inherit()
    await rebuild(run, recogniser)
    speech = run.portal.speech
    if advice := recogniser.advice(speech.vocabulary):
        log.warning("%s: %s", run.portal.portal, advice)

    async def has_ended(operation: str) -> bool:
        try:
            return not isinstance(await recogniser.poll(operation, None), Pending)
        except OperationExpired:
            return True
        except SpeechError:
            return False

    async with AsyncExitStack() as stack:
        slots: dict[Way, Slots] = {
            way: await stack.enter_async_context(
                Slots(
                    run.pool,
                    f"{recogniser.account}/{way}",
                    run.portal.portal,
                    streams,
                    has_ended=has_ended,
                    life=timedelta(hours=speech.give_up_hours),
                )
            )
            for way in WAYS
        }
        desk = Desk(
            run,
            archive,
            recogniser,
            slots,
            await stack.enter_async_context(Inspectors(workers=min(AHEAD, os.cpu_count() or 1))),
            folder := stack.enter_context(work_folder()),
            Room(folder),
            asyncio.get_running_loop().time() + speech.patience_hours * 3600,
            delays,
            listed_within_s,
            asyncio.Semaphore(AHEAD),
            asyncio.Semaphore(speech.concurrency),
        )

        await _take_stock(desk)

        async def one(item: CallItem) -> Outcome:
            async with run.pool.connection() as connection:
                audio = await audio_files.get(connection, run.portal.portal, item.call_id)
            try:
                return await Recognition(desk, item, audio).outcome()
            except (ArchivedFileMissing, ArchivedFileChanged) as error:
                return _fetched_again(run, item, audio, outcome_of(error))

        await run.work(run.items(), one, concurrency=speech.concurrency + AHEAD)


async def _take_stock(desk: Desk) -> None:
    """Find out what became of submissions of which earlier runs did not hear, so that no stream is held for nothing.

    What cannot be found out now is left to each recording's turn.
    """
    portal = desk.run.portal.portal
    async with desk.run.pool.connection() as connection:
        unheard = await ledger.unheard(connection, portal, "transcripts")

    async def look(row: Row) -> None:
        recogniser, _, input_key = row["request_key"].split("/", 2)
        purchase = Purchase(
            desk.run,
            recogniser,
            desk.slots["deferred"],
            "deferred",
            call_id=row["call_id"],
            day=row["day"],
            input_key=input_key,
            # Of the recording that was submitted: by now another may be in its place.
            duration_s=row["audio_seconds"],
        )
        async with desk.preparing:
            try:
                found = await desk.find(purchase.label(row), row)
            except SpeechError as error:
                log.warning(
                    "%s call %s: what became of its submission is not known yet: %s", portal, row["call_id"], error
                )
                return
        await (purchase.free_slot() if found is None else purchase.accepted(found))

    try:
        async with asyncio.TaskGroup() as looks:
            for row in unheard:
                if row["model"] == "deferred":
                    looks.create_task(look(row))
    except BaseExceptionGroup as errors:
        error = first_of(errors)
        raise error from error.__cause__
    for slots in desk.slots.values():
        await slots.drop_unasked()


class Recognition:
    """One recording on its way: asked (written down) → accepted (operation id stored) → answered and stored."""

    def __init__(self, desk: Desk, item: CallItem, audio: Row) -> None:
        self._desk = desk
        self._run = desk.run
        self._recogniser = desk.recogniser
        self._item = item
        self._audio = audio
        self._portal = desk.run.portal.portal
        self._form = Form(audio["container"], audio["codec"], audio["sample_rate"], audio["channels"])
        self._deferred, self._immediate = (
            Purchase(
                desk.run,
                desk.recogniser.name,
                desk.slots[way],
                way,
                call_id=item.call_id,
                day=item.day,
                input_key=item.input_key,
                duration_s=audio["duration_s"],
            )
            for way in WAYS
        )
        speech = desk.run.portal.speech
        self._options = Options(
            speech.vocabulary, speech.profanity_filter, speech.phrase_pause_s, speech.silence_probability
        )

    async def outcome(self) -> Outcome:
        """Take the recording up where an earlier run left it. Raises the speech room's errors, but not RecogniserBusy."""
        try:
            try:
                return await self._once()
            except OperationExpired as error:
                # Nothing of it was kept: it is bought again, but only once a run.
                log.warning("%s: %s; the recording is bought again", self._item.name, error)
                return await self._once()
        except OperationExpired:
            given_up = await self._given_up()
            if given_up is None:
                raise
            return given_up
        except RecogniserBusy:
            return self._waiting("recogniser_busy")

    async def _once(self) -> Outcome:
        """The outcome by one purchase: an earlier run's, or a new one. Raises OperationExpired once it is out of the way."""
        row = await self._deferred.open()
        if row is not None:
            (self._immediate if row["model"] == self._immediate.way else self._deferred).take_over(row)
        if row is not None and row["model"] == self._immediate.way:
            if row["answer"] is not None:
                return await self._recognised(self._immediate, row["vendor_request_id"], json.loads(row["answer"]))
            # Nothing tells what became of it: it counts as paid for.
            await self._immediate.close(UNCLEAR_ANSWER)
            row = None
        if row is not None:
            operation = await self._known(row)
            if operation is not None:
                return await self._finish(row, operation)
        given_up = await self._given_up()
        if given_up is not None:
            return given_up
        if not self._has_time(0):
            # The run would not wait for it.
            return self._waiting("recognition")
        return await self._new()

    async def _known(self, row: Row) -> str | None:
        """The operation of an earlier run, by its id or from the vendor's list; None: it has not arrived."""
        operation = row["vendor_request_id"]
        if operation is not None:
            await self._deferred.resumed(operation)
            return str(operation)
        found = await self._patiently(lambda: self._desk.find(self._deferred.label(row), row))
        if found is not None:
            await self._deferred.accepted(found)
        return found

    async def _new(self) -> Outcome:
        """Buy the recognition, at once where that is wanted and possible, and wait for it."""
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._desk.room.of(self._passing_bytes()))
            with room_in(self._desk.folder):
                folder = Path(held.enter_context(tempfile.TemporaryDirectory(dir=self._desk.folder)))
            async with self._desk.preparing:
                with room_in(self._desk.folder, folder):
                    path, name, described = await self._prepare(folder)
            if self._goes_at_once(path, described):
                outcome = await self._at_once(path, described)
                if outcome is not None:
                    return outcome
            recording = await self._patiently(lambda: self._upload(path, name))
            if isinstance(recording, str):
                await held.aclose()
            async with self._desk.at_vendor:
                row, operation = await self._buy(recording, described)
                await held.aclose()
                return await self._finish(row, operation)

    def _passing_bytes(self) -> int:
        """What the recording takes on the disk until it is sent: as it is archived, and converted."""
        size: int = self._audio["bytes"]
        return size + self._form.prepared_bytes(size, float(self._audio["duration_s"]))

    async def _prepare(self, folder: Path) -> tuple[Path, str, AudioFormat]:
        """The archived recording in a form that the recogniser takes: file, name in the recogniser's storage, description."""
        path = folder / "recording"
        audio, form = self._audio, self._form
        await self._desk.archive.get(
            audio["s3_key"], path, sha256=audio["sha256"], size=audio["bytes"], bucket=audio["s3_bucket"]
        )
        if form.taken_as_it_is:
            # What most recordings are: no process is needed for them.
            prepared = Prepared(path, form.taken_as_it_is, form.sample_rate, form.channels)
        else:
            prepared = await self._desk.inspectors.prepare(path, form, folder / "prepared")
        name = f"{self._portal}-{audio['sha256']}-{prepared.encoding}"
        described = AudioFormat(prepared.encoding, prepared.sample_rate, prepared.channels, float(audio["duration_s"]))
        return prepared.path, name, described

    async def _upload(self, path: Path, name: str) -> Reference:
        # Only the try itself takes a place: others that need no storage go on while it is busy.
        async with self._desk.preparing:
            in_message = self._run.portal.speech.upload == "message"
            return await self._recogniser.upload(path, name, in_message=in_message)

    def _goes_at_once(self, path: Path, described: AudioFormat) -> bool:
        below_s = self._run.portal.speech.immediate_below_s
        size = path.stat().st_size
        return described.duration_s < below_s and self._recogniser.takes_at_once(size, described.duration_s)

    async def _at_once(self, path: Path, described: AudioFormat) -> Outcome | None:
        """The outcome by Recognize; None when it has been left without an answer too often.

        A call without an answer counts as paid for, since nothing can be looked up, and is an outage.
        """
        purchase = self._immediate
        if await purchase.unclear_before() >= IMMEDIATE_LIMIT:
            return None

        async def ask() -> tuple[Label, dict[str, Any]]:
            label = purchase.label(await purchase.ask())
            try:
                return label, await self._recogniser.recognise_at_once(path, described, self._options, label)
            except SpeechError as error:
                await self._note(purchase, error)
                raise

        await self._take_slot(purchase)
        try:
            label, raw = await self._patiently(ask)
        except RecogniserUnavailable:
            await purchase.close(UNCLEAR_ANSWER)
            raise
        except SpeechError:
            await purchase.free_slot()
            raise
        raw = storable(raw)
        await purchase.answered(label.request_id, json.dumps(raw))
        return await self._recognised(purchase, label.request_id, raw)

    async def _buy(self, recording: str | Path, described: AudioFormat) -> tuple[Row, str]:
        """Submit it within the quota, once: the purchase's row and the operation."""
        purchase = self._deferred

        async def submit() -> tuple[Row, str]:
            row = await purchase.open()
            # What a run that ended had asked, and what did not arrive, is asked under its own id.
            row = await purchase.ask() if row is None else await purchase.ask_again(row)
            try:
                return row, await self._recogniser.submit(recording, described, self._options, purchase.label(row))
            except SpeechError as error:
                await self._note(purchase, error)
                raise

        await self._take_slot(purchase)
        try:
            row, operation = await self._patiently(submit)
        except RecogniserUnavailable:
            await purchase.hold_unclear()
            raise
        except SpeechError:
            await purchase.free_slot()
            raise
        await purchase.accepted(operation)
        return row, operation

    async def _take_slot(self, purchase: Purchase) -> None:
        """Raises RecogniserBusy when the run's patience ends before one of the account's streams is free."""
        if not await purchase.take_slot(self._desk.deadline):
            raise RecogniserBusy("all streams of the account are in use")

    @staticmethod
    async def _note(purchase: Purchase, error: SpeechError) -> None:
        """Write down what a refusal means for the ledger: without an entry the next run looks for it at the vendor."""
        if isinstance(error, RecordingRejected):
            await purchase.failed(error.reason)
        elif isinstance(error, RecogniserBusy | RecogniserRefused):
            await purchase.not_taken("busy" if isinstance(error, RecogniserBusy) else "refused")
            await purchase.keep_slot()

    async def _finish(self, row: Row, operation: str) -> Outcome:
        """Wait for the operation and turn its answer into the outcome."""
        label, loop = self._deferred.label(row), asyncio.get_running_loop()
        seen, outages, reason = loop.time(), 0, "recognition"
        for delay in self._desk.delays(waited=_age(row).total_seconds()):
            answer: Pending | Failed | dict[str, Any] = Pending("processing")
            try:
                answer = await self._look(operation, label)
                outages, reason = 0, "recognition"
            except RecogniserBusy:
                reason = "recogniser_busy"
            except RecogniserUnavailable:
                outages += 1
                if outages == OUTAGE_POLLS:
                    raise
            if isinstance(answer, Failed):
                return await self._failed(row, answer)
            if not isinstance(answer, Pending):
                await self._deferred.answered(operation)
                return await self._recognised(self._deferred, operation, answer)
            if _age(row) > timedelta(hours=self._run.portal.speech.give_up_hours):
                return await self._timed_out(operation)
            if not self._has_time(delay):
                break
            if loop.time() - seen >= SEEN_EVERY_S:
                await self._deferred.keep_slot()
                seen = loop.time()
            await asyncio.sleep(delay)
        return self._waiting(reason, _age(row))

    async def _look(self, operation: str, label: Label) -> Pending | Failed | dict[str, Any]:
        """The operation's state, or its answer; what cannot be had any more is closed in the ledger with its price."""
        try:
            state = await self._recogniser.poll(operation, label)
            return storable(await self._recogniser.fetch(state)) if isinstance(state, Done) else state
        except OperationExpired:
            await self._deferred.lose(operation)
            raise
        except RecordingRejected as error:
            await self._deferred.close(error.reason)
            raise
        except UnexpectedAnswer:
            await self._deferred.close("unexpected_answer")
            raise

    async def _failed(self, row: Row, answer: Failed) -> Outcome:
        await self._deferred.failed(f"{answer.code}: {answer.text}")
        tries = row["attempts"]
        again = answer.transient and tries < FAILED_LIMIT
        return Outcome(
            "failed",
            reason="recognition_failed",
            detail=f"{self._recogniser.name} code {answer.code}"
            + (f", try {tries} of {FAILED_LIMIT}" if tries > 1 else ""),
            next_try=datetime.now(UTC) + timedelta(minutes=15) * (tries - 1) if again else None,
        )

    async def _timed_out(self, operation: str) -> Outcome:
        """The end of an operation that does not end by itself."""
        hours = self._run.portal.speech.give_up_hours
        try:
            await self._recogniser.cancel(operation)
        except SpeechError as error:
            log.warning("%s: its operation %s could not be cancelled: %s", self._item.name, operation, error)
        await self._deferred.close("timed_out", at_vendor=True)
        again = await self._given_up() is None
        return Outcome(
            "failed",
            reason="recognition_timed_out",
            detail=f"{self._recogniser.name} operation {operation} had not ended after {hours:g} hours and was cancelled",
            next_try=datetime.now(UTC) if again else None,
        )

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until the recogniser is not busy. Raises RecogniserBusy when the run's patience ends."""
        delays = self._desk.delays()
        while True:
            try:
                return await ask()
            except RecogniserBusy:
                delay = next(delays)
                if not self._has_time(delay):
                    raise
            await asyncio.sleep(delay)

    def _has_time(self, delay: float) -> bool:
        """Whether the run's patience lasts for another `delay` seconds."""
        return asyncio.get_running_loop().time() + delay <= self._desk.deadline

    @staticmethod
    def _waiting(reason: str, waited: timedelta = timedelta(0)) -> Outcome:
        return Outcome("waiting", reason=reason, next_try=datetime.now(UTC) + min(max(SOON, waited / 4), LATEST))

    async def _given_up(self) -> Outcome | None:
        """The end of a recording whose purchases the vendor keeps losing."""
        number = await self._deferred.lost_before()
        if number < LOST_LIMIT:
            return None
        return Outcome(
            "failed",
            reason="recognition_vanished",
            detail=f"{self._recogniser.name} took the recording {number} times and then did not know the operation, or did "
            "not end it: nothing more is bought for it; show the vendor the operation ids in table ledger",
        )

    async def _recognised(self, purchase: Purchase, operation: str, raw: dict[str, Any]) -> Outcome:
        audio, paid = self._audio, (purchase.key,)
        try:
            phrases = self._recogniser.phrases(raw)
        except UnexpectedAnswer as error:
            # Paid all the same; asking again would give the same.
            return replace(outcome_of(error), paid=paid)
        dialog, rules = await recognised_dialog(self._run, self._item.call_id, audio, phrases)

        async def save(connection: Connection) -> None:
            await table.put(
                connection,
                self._portal,
                self._item.call_id,
                recogniser=self._recogniser.name,
                operation_id=operation,
                sha256=audio["sha256"],
                raw=raw,
                cost_rub=purchase.cost_rub,
                **dialog_columns(dialog, rules, audio),
            )

        if not dialog.turns:
            return Outcome("skipped", reason="no_speech", save=save, paid=paid)
        return Outcome("done", output_key=turns_key(dialog.turns), save=save, paid=paid)


def _fetched_again(run: StepRun, item: CallItem, audio: Row, outcome: Outcome) -> Outcome:
    """The outcome of a recording that the archive has lost: the step before fetches it again."""

    async def save(connection: Connection) -> None:
        await call_steps.take_up_again(
            connection, run.portal.portal, item.call_id, "audio_files", audio["sha256"], outcome.reason or ""
        )

    return replace(outcome, save=save)


def _age(row: Row) -> timedelta:
    """How long ago the vendor was asked."""
    asked_at: datetime = row["asked_at"]
    return datetime.now(UTC) - asked_at
