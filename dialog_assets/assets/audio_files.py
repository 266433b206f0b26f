"""Asset `audio_files`: recordings from the portal, by the way that is open, through one reading into the S3 archive.

A recording is downloaded into a file that ends with its item, read once (hash, header, sound), uploaded, and let through
or stopped by the gate. What is stopped is archived too.
"""

import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg

from dialog_assets.assets.gating import decide_again, gate_key
from dialog_assets.assets.steps import CallItem, StepRun, run_step, step_asset
from dialog_assets.assets.temporary import Room, room_in, work_folder
from dialog_assets.audio.errors import AudioError
from dialog_assets.audio.gate import gate
from dialog_assets.audio.values import AudioProbe
from dialog_assets.audio.workers import Inspectors
from dialog_assets.bitrix24.downloads import Place
from dialog_assets.bitrix24.errors import RecordingUnavailableError
from dialog_assets.bitrix24.recordings import Fetched, Found, Recordings, Wanted
from dialog_assets.portals import Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.resources.s3 import Archive, ArchiveResource
from dialog_assets.store import audio_files as table
from dialog_assets.store.call_steps import Pending
from dialog_assets.store.pool import Connection
from dialog_assets.worklist import Outcome

FILES_PER_REQUEST = 50
CUT_LIMIT = 2
"""Downloads that ended early without anybody having told the size; after them the recording is taken as it comes."""
ARCHIVED_AS = {
    "aac": ("aac", "audio/aac"),
    "aiff": ("aiff", "audio/aiff"),
    "amr": ("amr", "audio/amr"),
    "asf": ("wma", "audio/x-ms-wma"),
    "au": ("au", "audio/basic"),
    "flac": ("flac", "audio/flac"),
    "matroska,webm": ("webm", "audio/webm"),
    "mov,mp4,m4a,3gp,3g2,mj2": ("m4a", "audio/mp4"),
    "mp3": ("mp3", "audio/mpeg"),
    "ogg": ("ogg", "audio/ogg"),
    "wav": ("wav", "audio/wav"),
}
"""FFmpeg's name of a container: extension and content type in the archive, so that a browser plays it."""

log = logging.getLogger("dialog_assets")


@dataclass(frozen=True)
class RecordingItem(CallItem):
    """A call with what it tells of its recording, where that is, the key of one archived before, and how often it came cut."""

    wanted: Wanted
    found: Found
    earlier_key: str | None
    cut_before: int


def build(portal: Portal) -> dg.AssetsDefinition:
    """The asset of one portal."""

    @step_asset(portal, "audio_files")
    def audio_files(
        context: dg.AssetExecutionContext,
        postgres: PostgresResource,
        bitrix24: Bitrix24Resource,
        archive: ArchiveResource,
    ) -> dg.MaterializeResult:
        """Recordings of the calls, downloaded once, probed, and archived in S3."""

        async def core(run: StepRun) -> None:
            await archive_recordings(run, bitrix24, archive.open())

        return run_step(context, portal, "audio_files", postgres, core)

    return audio_files


async def archive_recordings(run: StepRun, bitrix24: Bitrix24Resource, archive: Archive) -> None:
    """Archive what is not archived yet; calls without a recording are accounted for first."""
    await run.inherit()
    patience_from = datetime.now(UTC) - timedelta(days=run.portal.trailing_days)
    async with run.pool.connection() as connection:
        await table.settle_without_recording(
            connection, run.portal.portal, run.first, run.last, patience_from=patience_from
        )
    await decide_again(run)
    await archive.check()
    settings = run.portal.bitrix24
    with work_folder() as folder:
        async with (
            bitrix24.client(run.portal, run.pool) as client,
            Inspectors(workers=min(settings.downloads, os.cpu_count() or 1)) as inspectors,
        ):
            recordings = Recordings(
                client,
                bitrix24.outside(run.portal),
                max_bytes=settings.record_max_megabytes * 1024 * 1024,
                timeout_s=settings.record_timeout_s,
            )

            room = Room(folder)

            async def one(item: RecordingItem) -> Outcome:
                path = folder / str(item.call_id)
                told = item.found.size or 0 if isinstance(item.found, Place) else 0
                try:
                    async with room.of(told):
                        with room_in(folder, path):
                            return await archive_one(run, recordings, inspectors, archive, item, path)
                finally:
                    path.unlink(missing_ok=True)

            await run.work(_located(run, recordings), one, concurrency=settings.downloads)


async def _located(run: StepRun, recordings: Recordings) -> AsyncIterator[RecordingItem]:
    """The worklist with a fresh place for each recording, fifty to a request."""
    page: list[Pending] = []
    async for pending in run.pending():
        page.append(pending)
        if len(page) == FILES_PER_REQUEST:
            for item in await _locate(run, recordings, page):
                yield item
            page = []
    for item in await _locate(run, recordings, page):
        yield item


async def _locate(run: StepRun, recordings: Recordings, page: list[Pending]) -> list[RecordingItem]:
    if not page:
        return []
    async with run.pool.connection() as connection:
        rows = await table.wanted(connection, run.portal.portal, [pending.call_id for pending in page])
    wanted = {call_id: Wanted(call_id, row["record_file_id"], row["activity_id"]) for call_id, row in rows.items()}
    found = await recordings.locate(wanted.values())
    return [
        RecordingItem(
            **vars(CallItem.of(pending, run.portal.portal)),
            wanted=wanted[pending.call_id],
            found=found[pending.call_id],
            earlier_key=rows[pending.call_id]["s3_key"],
            cut_before=rows[pending.call_id]["cut_before"],
        )
        for pending in page
    ]


async def archive_one(
    run: StepRun, recordings: Recordings, inspectors: Inspectors, archive: Archive, item: RecordingItem, path: Path
) -> Outcome:
    """Download, read, upload, decide. Raises the errors of the rooms; OSError where the disk fails."""
    fetched, found = await _fetched(recordings, inspectors, item, path)
    if found is None:
        return Outcome("skipped", reason="empty_recording")
    if found.measures.missing_s and not fetched.told and item.cut_before < CUT_LIMIT:
        # Cut on the way as likely as at its source: the next run fetches it anew.
        raise RecordingUnavailableError(
            "truncated", f"of call {item.call_id}", description=f"{found.measures.missing_s:.0f} s are missing"
        )
    extension, content_type = ARCHIVED_AS.get(
        found.container, (found.container.partition(",")[0], "application/octet-stream")
    )
    key = archive.key(run.portal.portal, item.day, item.call_id, extension)
    await archive.put(path, key, sha256=found.sha256, size=found.bytes, content_type=content_type)
    if item.earlier_key not in (None, key):
        # Nothing is ever deleted from the archive: the right to do so would be worth more to a thief than to us.
        log.warning("%s came anew under another key; its earlier recording stays at %s", item.name, item.earlier_key)
    thresholds = run.portal.audio.thresholds
    verdict = gate(found, thresholds)
    row = {
        "record_source": fetched.way,
        "record_file_id": None if fetched.way == "provider" else item.wanted.file_id,
        "s3_bucket": archive.bucket,
        "s3_key": key,
        **_described(found),
        "marks": list(verdict.marks),
        "gate": gate_key(thresholds),
    }

    async def save(connection: Connection) -> None:
        await table.put(connection, run.portal.portal, item.call_id, row)

    if verdict.skip is not None:
        return Outcome("skipped", reason=verdict.skip, output_key=found.sha256, save=save)
    return Outcome("done", output_key=found.sha256, save=save)


async def _fetched(
    recordings: Recordings, inspectors: Inspectors, item: RecordingItem, path: Path
) -> tuple[Fetched, AudioProbe | None]:
    """Download the recording and read it; None for one without a sound in it."""
    with path.open("wb") as target:
        fetched = await recordings.fetch(item.wanted, item.found, target)
    try:
        return fetched, await inspectors.inspect(path)
    except AudioError as error:
        if error.reason != "empty":
            raise
        return fetched, None


def _described(found: AudioProbe) -> dict[str, Any]:
    """The columns of audio_files that tell of the recording itself. Its tags stay out: they may hold names and phones."""
    return {
        "sha256": found.sha256,
        "bytes": found.bytes,
        "container": found.container,
        "codec": found.codec,
        "sample_rate": found.sample_rate,
        "channels": found.channels,
        "bit_rate": found.bit_rate,
        "duration_s": Decimal(str(found.duration_s)),
        "peak_dbfs": list(found.peak_dbfs),
        "measures": found.measures.as_json(),
    }
