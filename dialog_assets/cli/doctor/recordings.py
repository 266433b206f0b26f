"""Doctor's look at what every recording passes through on this machine: the room that reads it, and the disk."""

from __future__ import annotations

import shutil

from dialog_assets.assets.temporary import work_folder
from dialog_assets.audio.workers import Inspectors
from dialog_assets.cli.doctor.examination import Check, Context, Finding

_MEGABYTE = 1024 * 1024


def checks(context: Context) -> list[Check]:
    """One check of the reading, one of the disk."""
    return [Check("recordings", reading), Check("temporary files", lambda: room(context))]


async def reading() -> str:
    """Whether a tiny recording is probed, measured and converted by a worker, as a night's are. Raises WorkersUnavailable."""
    async with Inspectors() as inspectors:
        await inspectors.check()
    return "a tiny one was read, measured and converted by a worker process"


async def room(context: Context) -> str | list[Finding]:
    """Whether the largest recordings allowed have room among the temporary files. Raises NoRoomForRecordings, FolderUnusable."""
    with work_folder() as folder:
        free = shutil.disk_usage(folder).free
    told = f"{folder.parent} has {free / 1e9:.1f} GB free"
    largest = max((portal.bitrix24.record_max_megabytes for portal in context.portals), default=0) * _MEGABYTE
    converted = 2 * largest  # a WAV is kept beside its conversion
    if free < converted:
        sentence = (
            f"{told}, and the largest recording allowed takes {converted / 1e9:.1f} GB with its conversion: it would be "
            "set aside; set TMPDIR to a folder on a larger disk, or lower bitrix24.record_max_megabytes."
        )
        return [Finding("temporary files", "warn", sentence)]
    at_once = max(
        (portal.bitrix24.downloads * portal.bitrix24.record_max_megabytes for portal in context.portals), default=0
    )
    if free < at_once * _MEGABYTE:
        return f"{told}: of the largest recordings allowed not all downloads fit at once, they take turns"
    return f"{told}, enough for the largest recordings allowed"
