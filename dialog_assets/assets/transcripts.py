"""Asset `transcripts`: archived recordings through the recogniser into dialogs, each recording bought once (rule 2)."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from dialog_assets.assets.dialogs import CHANNELS_CHECK, channels_check, dialog_columns, rebuild, recognised_dialog
from dialog_assets.assets.outcomes import outcome_of
from dialog_assets.assets.steps import CallItem, StepRun, run_step, step_asset
from dialog_assets.assets.temporary import work_folder
from dialog_assets.dialogs import turns_key
from dialog_assets.portals import Portal
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.resources.s3 import Archive, ArchiveResource
from dialog_assets.resources.voicekit import VoiceKitResource
from dialog_assets.speech.errors import OperationExpired, RecogniserBusy, RecordingRejected, UnexpectedAnswer
from dialog_assets.speech.port import AudioFormat, Failed, Recognised, Recogniser, poll_delays
from dialog_assets.speech.prices import recognition_cost
from dialog_assets.store import audio_files, ledger
from dialog_assets.store import transcripts as table
from dialog_assets.store.pool import Connection
from dialog_assets.worklist import Outcome

KEPT_FOR = timedelta(days=5)
"""How long a finished operation's result can be had."""

VANISHED_LIMIT = 2
"""Purchases of one recording that may be lost before nothing more is spent on it."""

T = TypeVar("T")


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
                await recognise(run, archive.open(), recogniser)
            async with run.pool.connection() as connection:
                run.findings.checks.append(await channels_check(run.portal, connection, run.first, run.last))

        return run_step(context, portal, "transcripts", postgres, core)

    return transcripts


async def recognise(run: StepRun, archive: Archive, recogniser: Recogniser) -> None:
    """Recognise what has no transcript yet; what is not ready when the run's patience ends waits for the next run."""
    await run.inherit()
    await rebuild(run, recogniser)
    deadline = asyncio.get_running_loop().time() + run.portal.speech.patience_hours * 3600
    with work_folder() as folder:

        async def one(item: CallItem) -> Outcome:
            return await Recognition(run, archive, recogniser, item, folder, deadline).outcome()

        await run.work(run.items(), one, concurrency=run.portal.speech.concurrency)


class Recognition:
    """One recording on its way: asked (written down) → accepted (operation id stored) → answered and stored."""

    def __init__(
        self, run: StepRun, archive: Archive, recogniser: Recogniser, item: CallItem, folder: Path, deadline: float
    ) -> None:
        self._run = run
        self._archive = archive
        self._recogniser = recogniser
        self._item = item
        self._folder = folder
        self._deadline = deadline
        self._portal = run.portal.portal
        self._key = f"{recogniser.name}/{item.call_id}/{item.input_key}"
        self._group = f"{self._portal}-{item.day}"

    async def outcome(self) -> Outcome:
        """Take the recording up where an earlier run left it. Raises the speech room's errors, but not RecogniserBusy."""
        async with self._run.pool.connection() as connection:
            audio = await audio_files.get(connection, self._portal, self._item.call_id)
        try:
            try:
                return await self._once(audio)
            except OperationExpired:
                # Nothing of it was kept: it is bought again, but only once a run.
                return await self._once(audio)
        except OperationExpired:
            given_up = await self._given_up()
            if given_up is None:
                raise
            return given_up
        except RecogniserBusy:
            return self._waiting("recogniser_busy")

    async def _once(self, audio: dict[str, Any]) -> Outcome:
        """The outcome by one operation. Raises OperationExpired once the ledger has its price and it is out of the way."""
        operation = await self._operation(audio)
        if isinstance(operation, Outcome):
            return operation
        try:
            return await self._finish(audio, operation)
        except OperationExpired:
            async with self._run.pool.connection() as connection:
                await self._book_price(connection, audio, operation)
                await ledger.lost(connection, self._portal, self._key, KEPT_FOR)
            raise

    async def _operation(self, audio: dict[str, Any]) -> str | Outcome:
        """The id of the operation that recognises this recording: known, found at the vendor, or newly submitted.

        An outcome if there is none and none may be bought now.
        """
        async with self._run.pool.connection() as connection:
            row = await ledger.find(connection, self._portal, self._key)
        if row is not None and row["vendor_request_id"]:
            return str(row["vendor_request_id"])
        if row is not None:
            # A run ended between asking and hearing: the vendor's list tells whether it was asked.
            request_id = self._request_id(row)
            found = await self._patiently(lambda: self._recogniser.find(request_id, self._group))
            if found is not None:
                return await self._accept(audio, found)
        given_up = await self._given_up()
        if given_up is not None:
            return given_up
        if not self._has_time(0):
            # The run would not wait for it, and more than `concurrency` recordings would be at the vendor.
            return self._waiting("recognition")
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            uri, described = await self._upload(audio, Path(folder))
        return await self._accept(audio, await self._patiently(lambda: self._submit(uri, described)))

    async def _submit(self, uri: str, described: AudioFormat) -> str:
        """Buy the recognition. What was asked by a run that ended, and did not arrive, is asked under its own id."""
        async with self._run.pool.connection() as connection:
            row = await ledger.find(connection, self._portal, self._key)
        try:
            return await self._recogniser.submit(
                uri,
                described,
                request_id=self._request_id(row or await self._ask()),
                group=self._group,
                vocabulary=self._run.portal.speech.vocabulary,
            )
        except RecordingRejected as error:
            await self._fail(error.reason)
            raise
        except RecogniserBusy:
            await self._fail("busy")
            raise

    async def _finish(self, audio: dict[str, Any], operation: str) -> Outcome:
        """Wait for the operation and turn its answer into the outcome."""
        for delay in poll_delays():
            reason = "recognition"
            try:
                answer = await self._recogniser.poll(operation)
            except RecogniserBusy:
                reason = "recogniser_busy"
            else:
                if isinstance(answer, Recognised):
                    return await self._recognised(audio, operation, answer.raw)
                if isinstance(answer, Failed):
                    await self._fail(f"{answer.code}: {answer.text}"[:200])
                    return Outcome(
                        "failed",
                        reason="recognition_failed",
                        detail=f"{self._recogniser.name} code {answer.code}",
                        next_try=datetime.now(UTC) if answer.transient else None,
                    )
            if not self._has_time(delay):
                break
            await asyncio.sleep(delay)
        return self._waiting(reason)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until the recogniser is not busy. Raises RecogniserBusy when the run's patience ends."""
        delays = poll_delays()
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
        return asyncio.get_running_loop().time() + delay <= self._deadline

    @staticmethod
    def _waiting(reason: str) -> Outcome:
        return Outcome("waiting", reason=reason, next_try=datetime.now(UTC) + timedelta(seconds=1))

    async def _given_up(self) -> Outcome | None:
        """The end of a recording whose purchases the vendor keeps losing."""
        async with self._run.pool.connection() as connection:
            number = await ledger.vanished(connection, self._portal, self._key)
        if number < VANISHED_LIMIT:
            return None
        return Outcome(
            "failed",
            reason="recognition_vanished",
            detail=f"{self._recogniser.name} took the recording {number} times and then did not know the operation: "
            "nothing more is bought for it; show the vendor the operation ids in table ledger",
        )

    async def _recognised(self, audio: dict[str, Any], operation: str, raw: dict[str, Any]) -> Outcome:
        cost = self._price(audio)

        async def book(connection: Connection) -> None:
            await ledger.answered(
                connection,
                self._portal,
                self._key,
                cost=cost,
                currency="RUB",
                vendor_request_id=operation,
                audio_seconds=audio["duration_s"],
            )
            await ledger.settle(connection, self._portal, [self._key])

        try:
            phrases = self._recogniser.phrases(raw)
        except UnexpectedAnswer as error:
            # Paid all the same; asking again would give the same.
            return replace(outcome_of(error), save=book)
        dialog, rules = await recognised_dialog(self._run, self._item.call_id, audio, phrases)

        async def save(connection: Connection) -> None:
            await book(connection)
            await table.put(
                connection,
                self._portal,
                self._item.call_id,
                recogniser=self._recogniser.name,
                operation_id=operation,
                sha256=audio["sha256"],
                raw=raw,
                cost_rub=cost,
                **dialog_columns(dialog, rules, audio),
            )

        if not dialog.turns:
            return Outcome("skipped", reason="no_speech", save=save)
        return Outcome("done", output_key=turns_key(dialog.turns), save=save)

    async def _upload(self, audio: dict[str, Any], folder: Path) -> tuple[str, AudioFormat]:
        """Bring the archived recording to the recogniser's storage, in a form that it takes."""
        # PyAV takes long to import, and only this step and the one before need it.
        from dialog_assets.audio.convert import prepare
        from dialog_assets.audio.probe import probe

        path = folder / "recording"
        await self._archive.get(audio["s3_key"], path)
        found = await asyncio.to_thread(probe, path)
        prepared = await asyncio.to_thread(prepare, path, found, folder / "prepared")
        name = f"{self._portal}-{found.sha256}-{prepared.encoding}"
        uri = await self._patiently(lambda: self._recogniser.upload(prepared.path, name))
        return uri, AudioFormat(prepared.encoding, prepared.sample_rate, prepared.channels, found.duration_s)

    async def _ask(self) -> dict[str, Any]:
        async with self._run.pool.connection() as connection:
            return await ledger.ask(
                connection,
                self._portal,
                self._key,
                {
                    "vendor": self._recogniser.name,
                    "model": "deferred",
                    "step": "transcripts",
                    "day": self._item.day,
                    "call_id": self._item.call_id,
                    "rub_rate": Decimal(1),
                },
            )

    def _request_id(self, row: dict[str, Any]) -> str:
        return f"{self._portal}-{self._item.call_id}-{row['id']}-{row['attempts']}"

    async def _accept(self, audio: dict[str, Any], operation: str) -> str:
        async with self._run.pool.connection() as connection:
            await self._book_price(connection, audio, operation)
        return operation

    async def _book_price(self, connection: Connection, audio: dict[str, Any], operation: str) -> None:
        """From here on the bill shows it, whatever becomes of the result."""
        await ledger.accepted(
            connection,
            self._portal,
            self._key,
            operation,
            cost=self._price(audio),
            currency="RUB",
            audio_seconds=audio["duration_s"],
        )

    def _price(self, audio: dict[str, Any]) -> Decimal:
        return recognition_cost(float(audio["duration_s"]), self._run.portal.speech.rub_per_minute)

    async def _fail(self, reason: str) -> None:
        async with self._run.pool.connection() as connection:
            await ledger.failed(connection, self._portal, self._key, reason)
