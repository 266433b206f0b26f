"""The whole client against the sandbox's portals: an independent reading of the same facts."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.downloads import Place, download
from dialog_assets.bitrix24.errors import Bitrix24AccessError, RecordingUnavailableError
from dialog_assets.bitrix24.pacing import LeakyBucket
from dialog_assets.bitrix24.reading import Deals, calls, crm, users
from dialog_assets.bitrix24.recordings import Found, Recordings, Wanted
from dialog_assets.bitrix24.rows import CallRow, call_row, entity_row, user_row
from dialog_assets.sandbox.bitrix24 import Bitrix24Server
from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.world import load_world
from dialog_assets.sandbox.world.model import SandboxPortal
from dialog_assets_tests.bitrix24.local_server import serve
from dialog_assets_tests.bitrix24.small_portal import Naps, by_id, by_owner

WORLD = load_world()
PORTALS = sorted(WORLD.portals)


class Sandbox:
    """The sandbox's portals on a socket."""

    def __init__(self) -> None:
        self.books, self.faults, self.clock = Books(), Faults(), Clock()
        self.app = Bitrix24Server(WORLD, self.books, self.faults, self.clock).app

    @asynccontextmanager
    async def client(self, portal: SandboxPortal, secret: str | None = None) -> AsyncIterator[Bitrix24Client]:
        """A client of `portal`, paced as on the real one."""
        async with serve(self.app) as base:
            url = f"{base}/rest/{portal.webhook_user}/{secret or portal.webhook_secret}/"
            async with Bitrix24Client(url, pacer=LeakyBucket(50, 2.0), sleep=Naps()) as client:
                yield client

    def counts(self) -> dict[str, int]:
        """What the portal's books count."""
        counts: dict[str, int] = self.books.as_dict()["bitrix24"]["counts"]
        return counts


def window(portal: SandboxPortal) -> tuple[datetime, datetime]:
    zone = ZoneInfo(portal.time_zone)
    start = datetime(2026, 3, 2, tzinfo=zone)
    return start, start + timedelta(days=5)


async def history(client: Bitrix24Client, portal: SandboxPortal) -> list[CallRow]:
    return [call_row(row) async for page in calls(client, *window(portal)) for row in page]


@pytest.mark.parametrize("name", PORTALS)
def test_the_fictional_week_is_read_whole(name: str) -> None:
    """Every call of the week with its people, CRM objects, deals and recordings, without one refusal."""
    portal, sandbox = WORLD.portals[name], Sandbox()

    async def go() -> None:
        async with sandbox.client(portal) as client:
            rows = await history(client, portal)
            start, end = window(portal)
            assert [row.call_id for row in rows] == sorted(
                call.id for call in portal.calls if start <= call.start < end
            )

            people, unknown = await by_id(users(client, [row.user_id for row in rows if row.user_id] + [999_999]))
            assert 999_999 in unknown
            assert set(people) == {row.user_id for row in rows} & set(portal.users)
            assert all(user_row(row).name for row in people.values())

            tables: dict[Any, Any] = {
                "contact": portal.contacts,
                "lead": portal.leads,
                "company": portal.companies,
            }
            for kind, table in tables.items():
                found, missing = await by_id(crm(client, kind, [*table, 999_999]))
                assert (set(found), missing) == (set(table), [999_999])
                assert all(entity_row(kind, row).title for row in found.values())
                field = f"{kind.upper()}_ID"
                for entity, some in (await by_owner(Deals(client, kind, table))).items():
                    expected = {number for number, deal in portal.deals.items() if str(deal.get(field)) == str(entity)}
                    assert {entity_row("deal", row).entity_id for row in some} == expected

            recordings = {call.recording.file_id: call.recording for call in portal.calls if call.recording}
            wanted = [Wanted(number, number) for number in [*recordings, 999_999]]
            for file_id, file in (await Recordings(client).locate(wanted)).items():
                await one(client, file_id, file)
            assert "refused" not in sandbox.counts()

    async def one(client: Bitrix24Client, file_id: int, file: Found) -> None:
        recording = next((c.recording for c in portal.calls if c.recording and c.recording.file_id == file_id), None)
        if recording is None or not recording.path.is_file():
            assert isinstance(file, RecordingUnavailableError)
            assert file.reason == "gone"
            return
        assert isinstance(file, Place)
        target = io.BytesIO()
        assert (await download(client, file, target)).bytes == recording.path.stat().st_size
        assert target.getvalue() == recording.path.read_bytes()

    asyncio.run(go())


def test_the_week_survives_faults() -> None:
    """Refusals, crashes, gateway pages, resets and an error under 200 cost requests, not calls; a cut download resumes."""
    portal, sandbox = WORLD.portals[PORTALS[0]], Sandbox()
    recording = next(c.recording for c in portal.calls if c.recording and c.recording.content == "speech")

    async def go() -> tuple[list[CallRow], bytes]:
        async with sandbox.client(portal) as client:
            calm = await history(client, portal)
            kinds = ("503", "500", "502_html", "reset")
            sandbox.faults.set(
                [{"service": "bitrix24", "kind": kind, "match": "batch", "times": 1} for kind in kinds]
                + [
                    {
                        "service": "bitrix24",
                        "kind": "command_error",
                        "match": "disk.file.get",
                        "times": 1,
                        "value": "INTERNAL_SERVER_ERROR",
                    }
                ]
                + [
                    {"service": "bitrix24", "kind": kind, "match": "download", "times": 1}
                    for kind in ("truncated", "html_200")
                ]
            )
            assert await history(client, portal) == calm
            file = (await Recordings(client).locate([Wanted(1, recording.file_id)]))[1]
            assert isinstance(file, Place)
            target = io.BytesIO()
            await download(client, file, target)
            return calm, target.getvalue()

    rows, content = asyncio.run(go())
    assert rows
    assert content == recording.path.read_bytes()
    assert sandbox.counts()["faults"] >= 6


def test_a_wrong_webhook_stops_at_once() -> None:
    """One request, one clear error."""
    portal, sandbox = WORLD.portals[PORTALS[0]], Sandbox()

    async def go() -> None:
        async with sandbox.client(portal, secret="wr0ngsecret") as client:
            await history(client, portal)

    with pytest.raises(Bitrix24AccessError, match="check the webhook URL"):
        asyncio.run(go())
    assert sandbox.counts()["requests"] == 1
