"""A portal whose reading takes seconds of its own time and milliseconds of ours, and everything that is read from it.

Here: the world, the stand-in at two addresses in this process's loop, clients of both credentials, a whole reading.
Not here: what goes wrong (portal_scripts.py).
"""

from __future__ import annotations

import asyncio
import io
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

import httpx2

from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.errors import Bitrix24Error
from dialog_assets.bitrix24.families import CrmFamily
from dialog_assets.bitrix24.oauth import Application, MemoryVault, OAuth
from dialog_assets.bitrix24.operating import OperatingTime
from dialog_assets.bitrix24.reading import Deals, calls, crm, users
from dialog_assets.bitrix24.recordings import Recordings, Wanted
from dialog_assets.bitrix24.rows import CrmKind
from dialog_assets.sandbox.bitrix24 import Bitrix24Server
from dialog_assets.sandbox.bitrix24_habits import Habits
from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.crowd import crowd_portal
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.world import rows
from dialog_assets.sandbox.world.model import SandboxPortal, World
from dialog_assets_tests.bitrix24.local_server import serve

NAME = "crowd"
ZONE = ZoneInfo("Europe/Moscow")
FIRST = datetime(2026, 3, 2, tzinfo=ZONE)
DAYS = 10
END = FIRST + timedelta(days=DAYS + 1)
TRAILING = 3
CALLS = 3_000
CONTACTS = 80
OWNERS = 20
DEALS_OF_ONE = 130
RECORDINGS = 20
RECORDING_BYTES = 150_000
CONCURRENCY = 8
SPEED = 1_000.0
"""Seconds of the client's time in one of ours."""

HABITS = Habits(operating_window=10.0)
CREDENTIALS: tuple[CredentialKind, ...] = ("webhook", "oauth")
FAMILIES: tuple[CrmFamily, ...] = get_args(CrmFamily)
KINDS: tuple[CrmKind, ...] = get_args(CrmKind)
PHASES = ("calls", "users", "entities", "recordings", "last_days")

CredentialKind = Literal["webhook", "oauth"]


def portal(**options: Any) -> SandboxPortal:
    """3,000 calls in ten days, people, contacts, leads and companies with deals (one has three pages), recordings."""
    offset = "+03:00"
    given: dict[str, Any] = {
        "calls": CALLS,
        "contacts": CONTACTS,
        "recordings": RECORDINGS,
        "recording_size": RECORDING_BYTES,
        "days": DAYS,
        "first": FIRST,
        "gap": 2,
        "portal": NAME,
    }
    crowd = crowd_portal(**given | options)
    leads = {n: rows.lead({"id": n, "title": f"Лид {n}", "responsible": 1}, offset) for n in range(1, OWNERS + 1)}
    firms = {n: rows.company({"id": n, "title": f"Фирма {n}", "responsible": 1}, offset) for n in range(1, OWNERS + 1)}
    owners: list[dict[str, int]] = [
        *({"contact": n} for n in range(1, CONTACTS + 1) if n % 10 for _ in range(2)),
        *({"lead": n} for n in range(1, OWNERS + 1) if n % 2),
        *({"company": n} for n in range(2, OWNERS + 1)),
        *({"company": 1} for _ in range(DEALS_OF_ONE)),
    ]
    some = {
        number: rows.deal(
            {"id": number, "title": f"Сделка {number}", "amount": "1000.00", "responsible": 1, **owner}, offset
        )
        for number, owner in enumerate(owners, 1)
    }
    return replace(crowd, leads=leads, companies=firms, deals=some)


class FastTime:
    """The client's clock and sleep: SPEED times as fast as ours."""

    def __call__(self) -> float:
        """Seconds that only grow."""
        return time.monotonic() * SPEED

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds / SPEED)


class Counting:
    """A pacer that lets everything through and tells how much that was."""

    def __init__(self, on_take: Callable[[int], None]) -> None:
        self.taken = 0
        self._on_take = on_take

    async def take(self) -> None:
        """Count, then tell."""
        self.taken += 1
        self._on_take(self.taken)


@dataclass
class Site:
    """The stand-in at two addresses; `renamed` is where a renamed portal goes."""

    server: Bitrix24Server
    books: Books
    faults: Faults
    base: str
    renamed: str

    def reset(self) -> None:
        """Everything back to the start."""
        self.server.reset()
        self.books.reset()
        self.faults.set([])

    def counts(self) -> dict[str, int]:
        """What the portal's books count."""
        found: dict[str, int] = self.books.as_dict().get("bitrix24", {}).get("counts", {})
        return found

    def items(self, what: str) -> dict[str, int]:
        """What the portal's books count by key."""
        found: dict[str, int] = self.books.as_dict().get("bitrix24", {}).get("items", {}).get(what, {})
        return found

    @property
    def webhook(self) -> str:
        """The webhook's URL."""
        return f"{self.base}/rest/1/{NAME}-secret/"

    def credential(self, kind: CredentialKind) -> str | OAuth:
        """A webhook's URL, or an application whose first access token is yet to come."""
        if kind == "webhook":
            return self.webhook
        app = self.server.oauth.apps[NAME]
        application = Application(
            app.client_id, app.client_secret, self.server.oauth.first_tokens(NAME)[1], f"{self.base}/oauth/token/"
        )
        transport = httpx2.AsyncHTTPTransport(verify=_trusted())
        return OAuth(application, MemoryVault(), base=f"{self.base}/rest/", transport=transport, sleep=FastTime().sleep)

    def client(
        self, kind: CredentialKind, on_take: Callable[[int], None] = lambda _: None, **options: Any
    ) -> Bitrix24Client:
        """A client in fast time; `on_take` is told the number of each request that is about to leave."""
        clock = FastTime()
        given: dict[str, Any] = {
            "pacer": Counting(on_take),
            "sleep": clock.sleep,
            "operating": OperatingTime(clock=clock),
            "transport": httpx2.AsyncHTTPTransport(verify=_trusted()),
        }
        return Bitrix24Client(self.credential(kind), **given | options)

    def secrets(self) -> list[str]:
        """What no text may hold."""
        app = self.server.oauth.apps[NAME]
        return [f"{NAME}-secret", app.client_secret, *self.server.oauth._access, *self.server.oauth._refresh]


@asynccontextmanager
async def site(habits: Habits = HABITS, **options: Any) -> AsyncIterator[Site]:
    """The stand-in of `portal(**options)`, listening."""
    books, faults = Books(), Faults()
    world = World({NAME: portal(**options)})
    server = Bitrix24Server(world, books, faults, Clock(), bucket_size=1_000_000, drain_per_second=1, habits=habits)
    async with AsyncExitStack() as stack:
        base, renamed = [await stack.enter_async_context(serve(server.app)) for _ in range(2)]
        yield Site(server, books, faults, base, renamed)


@dataclass
class Read:
    """What a phase gave: rows or bytes by key, the keys that came more than once, and the error that ended it."""

    found: dict[Any, Any] = field(default_factory=dict)
    doubled: list[Any] = field(default_factory=list)
    error: Bitrix24Error | None = None

    def add(self, key: Any, value: Any) -> None:
        """One more."""
        if key in self.found:
            self.doubled.append(key)
        self.found[key] = value


async def read(phase: str, client: Bitrix24Client, family: CrmFamily) -> Read:
    """Read one phase's whole; a Bitrix24Error ends it and is kept."""
    result = Read()
    phases: dict[str, Callable[[Bitrix24Client, CrmFamily, Read], Awaitable[None]]] = {
        "calls": _calls,
        "last_days": _last_days,
        "users": _users,
        "entities": _entities,
        "recordings": _recordings,
    }
    try:
        await phases[phase](client, family, result)
    except Bitrix24Error as error:
        result.error = error
    return result


async def _calls(client: Bitrix24Client, _: CrmFamily, result: Read) -> None:
    await _days(client, 0, result)


async def _last_days(client: Bitrix24Client, _: CrmFamily, result: Read) -> None:
    await _days(client, DAYS - TRAILING, result)


async def _days(client: Bitrix24Client, first: int, result: Read) -> None:
    async for page in calls(client, FIRST + timedelta(days=first), END):
        for row in page:
            result.add(int(row["ID"]), row)


async def _users(client: Bitrix24Client, _: CrmFamily, result: Read) -> None:
    async for chunk in users(client, range(1, 120)):
        for number, row in chunk.rows.items():
            result.add(number, row)


async def _entities(client: Bitrix24Client, family: CrmFamily, result: Read) -> None:
    for kind in KINDS:
        ids = range(1, CONTACTS + 3)
        async for chunk in crm(client, kind, ids, family=family):
            for number, row in chunk.rows.items():
                result.add((kind, number), row)
        deals = Deals(client, kind, ids, family=family)
        async for page in deals.pages():
            for row in page:
                result.add((kind, "deal", int(row.get("ID") or row["id"])), row)
        for owner, some in deals.by_owner.items():
            for deal in some:
                result.add((kind, owner, deal), True)


async def _recordings(client: Bitrix24Client, _: CrmFamily, result: Read) -> None:
    """As the archive does: located together, fetched side by side; what one recording fails with is its result."""
    wanted = [wanted_of(number) for number in range(RECORDINGS)]
    recordings = Recordings(client)
    slots = asyncio.Semaphore(CONCURRENCY)
    found = await recordings.locate(wanted)

    async def one(call: Wanted) -> None:
        target = io.BytesIO()
        async with slots:
            try:
                await recordings.fetch(call, found[call.call_id], target)
            except Bitrix24Error as error:
                result.add(call.file_id, error)
            else:
                result.add(call.file_id, target.getvalue())

    async with asyncio.TaskGroup() as group:
        for call in wanted:
            group.create_task(one(call))


@cache
def _trusted() -> ssl.SSLContext:
    """Loading certificates takes as long as reading a thousand calls; these clients need none."""
    return ssl.create_default_context()


@cache
def _recorded() -> tuple[Wanted, ...]:
    return tuple(
        Wanted(call.id, int(call.fields["RECORD_FILE_ID"]), int(call.fields["CRM_ACTIVITY_ID"] or 0) or None)
        for call in portal().calls
        if call.fields["RECORD_FILE_ID"] is not None
    )


def wanted_of(number: int) -> Wanted:
    """The recording number `number` (from 0)."""
    return _recorded()[number]
