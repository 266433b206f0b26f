"""A small portal for the tests of the stand-in Bitrix24, and ways to speak to it: in process and over a socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import httpx2
import uvicorn
from starlette.types import ASGIApp

from dialog_assets.sandbox.bitrix24 import Bitrix24Server
from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.world.model import Call, Recording, SandboxPortal, World

ZONE = ZoneInfo("Asia/Yekaterinburg")
MIDNIGHT = datetime(2026, 3, 2, tzinfo=ZONE)
STATISTIC = "voximplant.statistic.get"


def statistic_row(number: int, start: datetime, **fields: Any) -> dict[str, Any]:
    """A row with the fields that the tests look at."""
    return {
        "ID": str(number),
        "CALL_ID": f"externalCall.{number:032x}.1",
        "PORTAL_USER_ID": str(10 + number % 3),
        "PHONE_NUMBER": f"+7900000{number:04d}",
        "CALL_TYPE": "2",
        "CALL_DURATION": str(number * 7),
        "CALL_START_DATE": start.isoformat(timespec="seconds"),
        "CALL_FAILED_CODE": "304" if number % 10 == 0 else "200",
        "CRM_ENTITY_TYPE": None if number % 4 == 0 else "CONTACT",
        "RECORD_DURATION": None,
        "RECORD_FILE_ID": None,
        **fields,
    }


def make_calls(count: int, recording: Recording | None = None) -> tuple[Call, ...]:
    """Calls 1..count, ten minutes apart from midnight; call 1 has the recording, ready 5 minutes after its start."""
    calls = []
    for number in range(1, count + 1):
        start = MIDNIGHT + timedelta(minutes=10 * (number - 1))
        record = recording if number == 1 else None
        extra = {"RECORD_FILE_ID": record.file_id, "RECORD_DURATION": "7"} if record is not None else {}
        calls.append(Call(number, start, statistic_row(number, start, **extra), record))
    return tuple(calls)


def make_recording(path: Path, name: str = "Звонок 1.mp3") -> Recording:
    """A file on the Disk with id 501."""
    return Recording(501, path, name, "speech", 2, 0, None, MIDNIGHT + timedelta(minutes=5))


def make_portal(calls: tuple[Call, ...] = (), **fields: Any) -> SandboxPortal:
    """A portal with two users, 60 contacts and two deals."""
    contacts = {
        number: {
            "ID": str(number),
            "NAME": f"Имя{number}",
            "COMPANY_ID": None,
            "DATE_CREATE": (MIDNIGHT + timedelta(days=number)).isoformat(),
            "UF_CRM_1": "x",
            "PHONE": [{"ID": "1", "VALUE_TYPE": "WORK", "VALUE": f"+7{number:010d}", "TYPE_ID": "PHONE"}],
            "EMAIL": [],
        }
        for number in range(1, 61)
    }
    deals = {
        1: {"ID": "1", "TITLE": "Окна на дачу", "CONTACT_ID": "5", "OPPORTUNITY": "9000.00"},
        2: {"ID": "2", "TITLE": "Балкон", "CONTACT_ID": "5", "OPPORTUNITY": "19000.00"},
    }
    users = {
        10: {"ID": "10", "ACTIVE": True, "NAME": "Анна", "LAST_NAME": "Ким", "UF_DEPARTMENT": [1], "TIMESTAMP_X": {}},
        11: {"ID": "11", "ACTIVE": False, "NAME": "Олег", "LAST_NAME": "Дан", "UF_DEPARTMENT": [1], "TIMESTAMP_X": {}},
    }
    given: dict[str, Any] = {
        "portal": "demo",
        "webhook_user": 1,
        "webhook_secret": "s3cret",
        "time_zone": "Asia/Yekaterinburg",
        "users": users,
        "contacts": contacts,
        "leads": {},
        "companies": {},
        "deals": deals,
        "calls": calls,
        "webhook_env": "DEMO_WEBHOOK",
    }
    return SandboxPortal(**{**given, **fields})


@dataclass
class Site:
    """A server with its books, faults and clock, asked in process."""

    server: Bitrix24Server
    books: Books
    faults: Faults
    clock: Clock
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, params: dict[str, Any] | None = None, secret: str = "s3cret") -> httpx2.Response:
        """POST with a JSON body through the demo portal's webhook."""
        return self.send("POST", f"/rest/1/{secret}/{method}", json=params or {})

    def ask_app(self, method: str, params: dict[str, Any] | None = None, token: str | None = None) -> httpx2.Response:
        """POST with a JSON body as the demo portal's application; by default with its first access token."""
        auth = token or self.server.oauth.first_tokens("demo")[0]
        return self.send("POST", f"/rest/{method}.json", json={"auth": auth, **(params or {})})

    def send(self, verb: str, path: str, **arguments: Any) -> httpx2.Response:
        """Any request."""

        async def run() -> httpx2.Response:
            transport = httpx2.ASGITransport(app=self.server.app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://portal.test:81") as client:
                return await client.request(verb, path, **arguments)

        return asyncio.run(run())

    def batch(self, commands: Any, halt: Any = 0) -> dict[str, Any]:
        """The `result` of a batch; commands are strings or (method, flat parameters)."""
        response = self.ask("batch", {"halt": halt, "cmd": commands})
        assert response.status_code == 200
        result: dict[str, Any] = response.json()["result"]
        return result

    def ids(self, method: str, params: dict[str, Any]) -> list[int]:
        """The ids of one page, as numbers."""
        return [int(row["ID"]) for row in self.ask(method, params).json()["result"]]

    def counts(self) -> dict[str, int]:
        """The service's counts."""
        found: dict[str, int] = self.books.as_dict()["bitrix24"]["counts"]
        return found


def make_site(*portals: SandboxPortal, **options: Any) -> Site:
    """A server over the portals; its bucket is never full unless `bucket_size` is given."""
    books, faults, clock = Books(), Faults(), Clock()
    world = World({portal.portal: portal for portal in portals})
    server = Bitrix24Server(world, books, faults, clock, **{"bucket_size": 10_000, **options})
    return Site(server, books, faults, clock)


def command(method: str, **params: Any) -> str:
    """A batch command; parameter names are written with their brackets by `**{"FILTER[>ID]": 1}`."""
    return f"{method}?{urlencode(params)}"


@contextmanager
def served(site: Site, app: ASGIApp | None = None, **options: Any) -> Iterator[str]:
    """The site, or another app of it, on a real socket; gives its base URL. `options` are uvicorn's."""
    config = uvicorn.Config(
        app or site.server.app, port=0, log_level="error", access_log=False, timeout_keep_alive=75, **options
    )
    server = uvicorn.Server(config)
    ready = threading.Event()
    original = server.startup

    async def startup(*arguments: Any, **options: Any) -> None:
        await original(*arguments, **options)
        ready.set()

    server.startup = startup  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert ready.wait(60)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http{'s' * config.is_ssl}://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)
