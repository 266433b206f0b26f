"""Asset `audio_files`: recordings from the portal's Disk through a probe into the S3 archive."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import dagster as dg

from dialog_assets.assets.steps import CallItem, StepRun, run_step, step_asset
from dialog_assets.assets.temporary import work_folder
from dialog_assets.bitrix24 import downloads, reading
from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.errors import Bitrix24Error
from dialog_assets.bitrix24.rows import DiskFile
from dialog_assets.portals import Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.postgres import PostgresResource
from dialog_assets.resources.s3 import Archive, ArchiveResource
from dialog_assets.store import audio_files as table
from dialog_assets.store.call_steps import Pending
from dialog_assets.store.pool import Connection
from dialog_assets.worklist import Outcome

FILES_PER_REQUEST = 50
CONTENT_TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav", "ogg": "audio/ogg", "aac": "audio/aac"}


@dataclass(frozen=True)
class RecordingItem(CallItem):
    """A call with its recording's place on the Disk, or the reason why that is not known."""

    file: DiskFile | Bitrix24Error


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
    patience_from = datetime.now(UTC) - timedelta(days=run.portal.trailing_days + 1)
    async with run.pool.connection() as connection:
        await table.settle_without_recording(
            connection, run.portal.portal, run.first, run.last, patience_from=patience_from
        )
    with work_folder() as folder:
        async with bitrix24.client(run.portal, run.pool) as client:

            async def one(item: RecordingItem) -> Outcome:
                path = folder / str(item.call_id)
                try:
                    return await archive_one(run, client, archive, item, path)
                finally:
                    path.unlink(missing_ok=True)

            await run.work(_located(run, client), one, concurrency=run.portal.bitrix24.downloads)


async def _located(run: StepRun, client: Bitrix24Client) -> AsyncIterator[RecordingItem]:
    """The worklist with a fresh place on the Disk for each recording, fifty to a request."""
    page: list[Pending] = []
    async for pending in run.pending():
        page.append(pending)
        if len(page) == FILES_PER_REQUEST:
            for item in await _locate(run, client, page):
                yield item
            page = []
    for item in await _locate(run, client, page):
        yield item


async def _locate(run: StepRun, client: Bitrix24Client, page: list[Pending]) -> list[RecordingItem]:
    async with run.pool.connection() as connection:
        ids = await table.record_files(connection, run.portal.portal, [pending.call_id for pending in page])
    found = await reading.files(client, ids.values())
    return [
        RecordingItem(**vars(CallItem.of(pending, run.portal.portal)), file=found[ids[pending.call_id]])
        for pending in page
    ]


async def archive_one(
    run: StepRun, client: Bitrix24Client, archive: Archive, item: RecordingItem, path: Path
) -> Outcome:
    """Download, probe, upload. Raises the errors of the rooms."""
    if isinstance(item.file, Bitrix24Error):
        raise item.file
    with path.open("wb") as target:
        await downloads.download(client, item.file, target)
    # PyAV takes long to import, and only this step and the next need it.
    from dialog_assets.audio.probe import probe

    found = await asyncio.to_thread(probe, path)
    key = f"{run.portal.portal}/{item.day}/{item.call_id}.{found.container.partition(',')[0]}"
    content_type = CONTENT_TYPES.get(found.container, "application/octet-stream")
    await archive.put(path, key, sha256=found.sha256, content_type=content_type)
    row = {
        "record_file_id": item.file.id,
        "s3_bucket": archive.bucket,
        "s3_key": key,
        "sha256": found.sha256,
        "bytes": found.bytes,
        "container": found.container,
        "codec": found.codec,
        "sample_rate": found.sample_rate,
        "channels": found.channels,
        "bit_rate": found.bit_rate,
        "duration_s": Decimal(str(found.duration_s)),
        "peak_dbfs": list(found.peak_dbfs),
    }

    async def save(connection: Connection) -> None:
        await table.put(connection, run.portal.portal, item.call_id, row)

    if found.is_silent():
        return Outcome("skipped", reason="silent_recording", output_key=found.sha256, save=save)
    return Outcome("done", output_key=found.sha256, save=save)
