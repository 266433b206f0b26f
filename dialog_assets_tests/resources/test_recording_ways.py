"""From a call's row to the archive: which calls count as having a recording, and by which way it came."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from typing import Any

from dialog_assets.assets.audio_files import archive_recordings
from dialog_assets.assets.calls import read_calls, stored
from dialog_assets.assets.steps import StepRun
from dialog_assets.bitrix24.rows import call_row
from dialog_assets.cli.world import SandboxProcess
from dialog_assets.portals import Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.resources.s3 import ArchiveResource
from dialog_assets.store import audio_files, calls
from dialog_assets.store.pool import Pool, Row, open_pool

DAY = date(2026, 3, 2)


async def rows_of(pool: Pool, statement: str) -> list[Row]:
    async with pool.connection() as connection:
        return await (await connection.execute(statement.encode())).fetchall()


async def ignore(_: date) -> None:
    """Nobody listens."""


def test_recordings_of_the_disk_are_archived(database: str, sandbox: SandboxProcess, portals: list[Portal]) -> None:
    """The sandbox's day: every call is settled, and the archived ones came from the Disk."""
    portal = portals[0]

    async def go() -> tuple[list[Row], list[Row], list[Row]]:
        async with open_pool(database, size=4) as pool:
            resource = Bitrix24Resource()
            await read_calls(StepRun(portal, "calls", (DAY,), pool, ignore), resource)
            run = StepRun(portal, "audio_files", (DAY,), pool, ignore)
            await archive_recordings(run, resource, ArchiveResource().open())
            return (
                await rows_of(pool, "SELECT call_id FROM calls"),
                await rows_of(pool, "SELECT state FROM call_steps WHERE step = 'audio_files'"),
                await rows_of(pool, "SELECT record_source, record_file_id FROM audio_files"),
            )

    found, states, archived = asyncio.run(go())
    assert len(found) == len(states) > 0
    assert archived
    assert all(row["record_source"] == "disk" and row["record_file_id"] for row in archived)


def test_a_link_of_an_allowed_host_counts_as_a_recording(database: str, portals: list[Portal]) -> None:
    """It is on the archive's worklist under its host; another host's is not; the link itself is nowhere in the database."""
    portal = portals[0]

    def call(number: int, url: str | None, file_id: int | None = None) -> dict[str, Any]:
        row = {
            "ID": str(number),
            "CALL_TYPE": "1",
            "CALL_DURATION": "60",
            "CALL_FAILED_CODE": "200",
            "CALL_START_DATE": "2026-03-02T12:00:00+05:00",
            "CALL_RECORD_URL": url,
            "RECORD_FILE_ID": file_id,
        }
        return stored(call_row(row), portal)

    rows = [
        call(1, "https://pbx.example/r/1.mp3?sig=s3cr3ts1g"),
        call(2, "https://other.example/r/2.mp3?sig=s3cr3ts1g"),
        call(3, "https://pbx.example:8443/r/3.mp3"),
        call(4, "https://pbx.example/r/4.mp3", 77),
        call(5, None),
        call(6, "http://pbx.example/r/6.mp3"),
    ]

    async def go() -> tuple[dict[int, str], dict[int, str], list[Row]]:
        async with open_pool(database, size=2) as pool:
            async with pool.connection() as connection:
                await calls.write(connection, portal.portal, rows, record_hosts=["PBX.example", "pbx.example:8443"])
                await audio_files.settle_without_recording(
                    connection, portal.portal, DAY, DAY, patience_from=datetime(2026, 3, 3, tzinfo=UTC)
                )
                await audio_files.put(connection, portal.portal, 1, ARCHIVED)
            keys = await rows_of(pool, "SELECT call_id, output_key FROM call_steps WHERE step = 'calls'")
            settled = await rows_of(pool, "SELECT call_id, reason FROM call_steps WHERE step = 'audio_files'")
            kept = await rows_of(pool, "SELECT raw::text AS raw FROM calls")
            return (
                {row["call_id"]: row["output_key"] for row in keys},
                {row["call_id"]: row["reason"] for row in settled},
                kept,
            )

    keys, settled, kept = asyncio.run(go())
    assert keys == {1: "link:pbx.example", 2: "none", 3: "link:pbx.example:8443", 4: "disk:77", 5: "none", 6: "none"}
    assert settled == dict.fromkeys((2, 5, 6), "no_recording")
    assert not any("sig" in row["raw"] or ".mp3" in row["raw"] for row in kept)


ARCHIVED: Row = {
    "record_source": "provider",
    "record_file_id": None,
    "s3_bucket": "b",
    "s3_key": "k",
    "sha256": "0",
    "bytes": 1,
    "container": "mp3",
    "codec": "mp3",
    "sample_rate": 8000,
    "channels": 2,
    "bit_rate": None,
    "duration_s": 1,
    "peak_dbfs": [0.0, 0.0],
}
