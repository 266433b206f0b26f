"""What the runs of a portal share through Postgres: one request bucket, one set of tokens."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from urllib.parse import parse_qs, urlsplit

import httpx2
import psycopg
import pytest
from cryptography.fernet import Fernet
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.oauth import Application, OAuth
from dialog_assets.bitrix24.pacing import room
from dialog_assets.portals import Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource, PostgresPacer, PostgresVault
from dialog_assets.resources.environment import MissingCredential
from dialog_assets.store import request_buckets
from dialog_assets.store.oauth_tokens import Seal, UnusableKey
from dialog_assets.store.pool import open_pool
from dialog_assets_tests.bitrix24.local_server import serve

SIZE, DRAIN = 30, 4.0


class StrictPortal:
    """Counts arrivals in a leaky bucket and refuses what overflows it."""

    def __init__(self) -> None:
        self.level, self.at = 0.0, time.monotonic()
        self.arrivals = self.refused = 0
        self.begun = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count and answer."""
        now = time.monotonic()
        self.level = max(0.0, self.level - (now - self.at) * DRAIN) + 1
        self.at = now
        self.arrivals += 1
        self.begun.set()
        await Request(scope, receive).body()
        if self.level > SIZE:
            self.refused += 1
            await JSONResponse({"error": "QUERY_LIMIT_EXCEEDED"}, 503)(scope, receive, send)
        else:
            await JSONResponse({"result": 1, "time": {}})(scope, receive, send)


def read_much(url: str, base: str, number: int) -> None:
    """One process: `number` calls as fast as the shared bucket lets them."""

    async def go() -> None:
        async with open_pool(url, size=4) as pool:
            pacer = PostgresPacer(pool, "okna_sever", SIZE, DRAIN)
            async with Bitrix24Client(f"{base}/rest/1/s3cr3tc0de99/", pacer=pacer, attempts=1) as client:
                await asyncio.gather(*(client.call("profile") for _ in range(number)))

    asyncio.run(go())


def test_four_processes_stay_under_one_bucket(database: str) -> None:
    """Four processes reading one strict portal at once: every call answered, none refused, the drain used to the full."""
    portal = StrictPortal()

    async def go() -> tuple[list[int | None], float]:
        async with serve(portal) as base:
            spawn = multiprocessing.get_context("spawn")
            workers = [spawn.Process(target=read_much, args=(database, base, 10)) for _ in range(4)]
            for worker in workers:
                worker.start()
            await asyncio.wait_for(portal.begun.wait(), 60)
            begun = time.monotonic()
            for worker in workers:
                await asyncio.to_thread(worker.join, 60)
            return [worker.exitcode for worker in workers], time.monotonic() - begun

    codes, lasted = asyncio.run(go())
    assert codes == [0] * 4
    assert (portal.arrivals, portal.refused) == (40, 0)
    assert lasted < (40 - room(SIZE, DRAIN)) / DRAIN + 6


def test_the_bucket_queues_in_order_and_survives_a_clock_set_back(database: str) -> None:
    """A full bucket gives each request a later turn; a stored moment in the future neither empties nor blocks it."""

    async def go() -> None:
        async with open_pool(database, size=2) as pool, pool.connection() as connection:
            waits = [await request_buckets.reserve(connection, "p", 3.0, 2.0) for _ in range(6)]
            assert waits[:3] == [0, 0, 0]
            assert waits[3:] == pytest.approx([0.5, 1.0, 1.5], abs=0.2)
            await connection.execute("UPDATE request_buckets SET counted_at = now() + interval '1 hour'")
            assert await request_buckets.reserve(connection, "p", 3.0, 2.0) == pytest.approx(2.0, abs=0.2)
            assert await request_buckets.reserve(connection, "p", 3.0, 2.0) == pytest.approx(2.5, abs=0.2)

    asyncio.run(go())


def vendor(counted: list[str]) -> httpx2.MockTransport:
    """A token endpoint that takes each refresh token once."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        token = parse_qs(urlsplit(str(request.url)).query)["refresh_token"][0]
        if token in counted:
            return httpx2.Response(400, json={"error": "invalid_grant"})
        counted.append(token)
        name = f"t0ken{len(counted):012}"
        return httpx2.Response(200, json={"access_token": f"a{name}", "refresh_token": f"r{name}"})

    return httpx2.MockTransport(answer)


def test_processes_share_tokens_that_the_database_does_not_show(database: str) -> None:
    """Two pools renew at once: one refresh, both go on with it, and no token can be read in the table."""
    counted: list[str] = []
    seal = Seal(Fernet.generate_key().decode())
    application = Application("a", "b", "f1rstt0ken000")

    async def go() -> None:
        async with open_pool(database, size=2) as one, open_pool(database, size=2) as other:
            doors = [
                OAuth(
                    application,
                    PostgresVault(pool, "p", seal),
                    base="https://p.example/rest/",
                    transport=vendor(counted),
                )
                for pool in (one, other)
            ]
            first = await asyncio.gather(*(door.access() for door in doors for _ in range(5)))
            assert len({access.token for access in first}) == len(counted) == 1
            second = await asyncio.gather(*(door.renewed(first[0]) for door in doors for _ in range(5)))
            assert len({access.token for access in second}) == 1
            assert len(counted) == 2

    asyncio.run(go())
    with psycopg.connect(database) as connection:
        version, sealed = connection.execute("SELECT version, sealed FROM oauth_tokens").fetchall()[0]
    assert version == 2
    assert b"t0ken" not in sealed
    assert json.dumps(seal.open(sealed)).count("t0ken") == 2


def test_keys_that_cannot_open_say_so() -> None:
    """A malformed key and another key are sentences for a person."""
    with pytest.raises(UnusableKey, match=r"make one with python -c .*Fernet"):
        Seal("short")
    sealed = Seal(Fernet.generate_key().decode()).close({"a": "b"})
    with pytest.raises(UnusableKey, match="not the key"):
        Seal(Fernet.generate_key().decode()).open(sealed)


def test_missing_variables_of_an_application_are_named(portals: list[Portal], database: str) -> None:
    """Which variable, and what it is for."""
    oauth = {"client_id": "P_ID", "client_secret": "P_SECRET", "refresh_token": "P_REFRESH"}
    data = portals[0].model_dump()
    portal = Portal.model_validate({**data, "bitrix24": {"oauth": oauth, "record_hosts": ["pbx.example"]}})

    async def go() -> None:
        async with open_pool(database, size=1) as pool, Bitrix24Resource().client(portal, pool):
            pass

    with pytest.raises(MissingCredential, match="P_ID is not set: it holds the client id of portal avto_ural's OAuth"):
        asyncio.run(go())
    assert Bitrix24Resource().outside(portal).names("https://pbx.example/1.mp3")


@pytest.mark.parametrize(
    "given", [{}, {"webhook": "P", "oauth": {"client_id": "A", "client_secret": "B", "refresh_token": "C"}}]
)
def test_exactly_one_credential(portals: list[Portal], given: dict[str, object]) -> None:
    """Neither or both is a mistake of the file."""
    with pytest.raises(ValueError, match="exactly one of `webhook`"):
        Portal.model_validate({**portals[0].model_dump(), "bitrix24": given})
