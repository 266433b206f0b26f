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
from dialog_assets.store import audio_files, call_steps, calls
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
    assert settled == {2: "recording_not_allowed", 5: "no_recording", 6: "recording_not_allowed"}
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


def test_calls_without_a_recording_are_told_by_what_is_so(database: str, portals: list[Portal]) -> None:
    """Links that may not be used, by host; codes of other exchanges wait as answered calls do; codes of the telephony do not."""
    portal = portals[0]
    links = {
        1: ("https://records.one.example/a?sig=1", "host records.one.example is not in bitrix24.record_hosts of the portal file"),
        2: ("http://pbx.example/a.mp3", "host pbx.example is linked without https://, and nothing else is fetched"),
        3: ("/records/a.mp3", "the recording's link names no host: the exchange must give a whole https:// link"),
        4: ("//pbx.example/a.mp3", "host pbx.example is linked without https://, and nothing else is fetched"),
        5: ("https://записи.рф:8443/a", "host xn--80anea7an.xn--p1ai:8443 is not in bitrix24.record_hosts of the portal file"),
        6: ("records/a.mp3", "the recording's link names no host: the exchange must give a whole https:// link"),
        7: ("HTTPS://Records.ONE.example.:443/b", "host records.one.example is not in bitrix24.record_hosts of the portal file"),
        8: ("ftp://pbx.example/a", "host pbx.example is linked without https://, and nothing else is fetched"),
    }  # fmt: skip
    waits = [
        "200",
        "VI_STATUS_200",
        "vi_status_200",
        "200 OK",
        " 200 ",
        200,
        "304",
        "OTHER",
        "other",
        "",
        None,
        "MY_CODE",
        "0",
        "answered",
    ]
    ends = ["486", "VI_STATUS_486", "603-S", "603", "404", 480, "503 Service Unavailable", "603-s"]

    def call(number: int, code: Any, duration: str, url: str | None = None) -> dict[str, Any]:
        row = {
            "ID": str(number), "CALL_TYPE": "1", "CALL_DURATION": duration, "CALL_FAILED_CODE": code,
            "CALL_START_DATE": "2026-03-02T12:00:00+05:00", "CALL_RECORD_URL": url,
        }  # fmt: skip
        return stored(call_row(row), portal)

    rows = [call(number, "200", "60", link) for number, (link, _) in links.items()]
    rows += [call(100 + number, code, "120") for number, code in enumerate(waits)]
    rows += [call(200 + number, code, "12") for number, code in enumerate(ends)]
    rows += [call(300, "200", "0"), call(301, "304", "0", "https://pbx.example/x")]

    async def go() -> tuple[dict[int, tuple[str, str, str | None]], list[Row]]:
        async with open_pool(database, size=2) as pool:
            async with pool.connection() as connection:
                await calls.write(connection, portal.portal, rows)
                for _ in range(2):
                    await audio_files.settle_without_recording(
                        connection, portal.portal, DAY, DAY, patience_from=datetime(2026, 3, 1, tzinfo=UTC)
                    )
                hosts = await call_steps.details(
                    connection, portal.portal, "audio_files", "recording_not_allowed", DAY, DAY
                )
            found = await rows_of(
                pool, "SELECT call_id, state, reason, detail FROM call_steps WHERE step = 'audio_files'"
            )
            return {row["call_id"]: (row["state"], row["reason"], row["detail"]) for row in found}, hosts

    found, hosts = asyncio.run(go())
    for number, (_, detail) in links.items():
        assert found[number] == ("skipped", "recording_not_allowed", detail)
    for number, code in enumerate(waits):
        assert found[100 + number] == ("waiting", "recording_not_ready", None), code
    for number, code in enumerate(ends):
        assert found[200 + number] == ("skipped", "not_answered", None), code
    assert found[300] == found[301] == ("skipped", "not_answered", None)
    assert hosts[0]["calls"] == 3
    assert sum(row["calls"] for row in hosts) == len(links)
