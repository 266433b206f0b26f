"""What the runs of a portal share through Postgres: one request bucket, one set of tokens."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import psycopg
import pytest
from cryptography.fernet import Fernet

from dialog_assets.bitrix24 import reading
from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.oauth import Application, OAuth
from dialog_assets.errors import DialogAssetsError
from dialog_assets.portals import Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource, PostgresVault
from dialog_assets.resources.environment import MissingCredential
from dialog_assets.sandbox.crowd import crowd_portal
from dialog_assets.store import request_buckets
from dialog_assets.store.oauth_tokens import Seal, UnusableKey
from dialog_assets.store.pool import open_pool
from dialog_assets_tests.bitrix24.local_server import serve
from dialog_assets_tests.bitrix24.small_portal import by_id, by_owner
from dialog_assets_tests.faults.support import forks
from dialog_assets_tests.sandbox.bitrix24_portal import make_site

SIZE, DRAIN = 24, 12.0
START = datetime(2026, 3, 1, tzinfo=UTC)
CONTACTS = range(1, 451)


def configured(portals: list[Portal]) -> Portal:
    """A portal with an application and a small bucket."""
    oauth = {"client_id": "P_CLIENT_ID", "client_secret": "P_CLIENT_SECRET", "refresh_token": "P_REFRESH_TOKEN"}
    settings = {"oauth": oauth, "bucket_size": SIZE, "drain_per_second": DRAIN}
    return Portal.model_validate({**portals[0].model_dump(), "bitrix24": settings})


def read_much(environment: dict[str, str], portal: Portal, begin: Any, told: Any) -> None:
    """One process: the portal's history, people and CRM as fast as the shared bucket lets it; tells what it found."""
    os.environ.update(environment)

    async def go() -> list[list[int]]:
        async with (
            open_pool(environment["DATABASE_URL"], size=4) as pool,
            Bitrix24Resource().client(portal, pool) as client,
        ):
            await asyncio.to_thread(begin.wait, 600)
            history, people, contacts, related = await asyncio.gather(
                all_calls(client),
                by_id(reading.users(client, range(1, 60))),
                by_id(reading.crm(client, "contact", CONTACTS)),
                by_owner(reading.Deals(client, "contact", CONTACTS)),
            )
            return [
                history,
                sorted(people[0]),
                sorted(contacts[0]),
                [int(row["ID"]) for some in related.values() for row in some],
            ]

    async def all_calls(client: Bitrix24Client) -> list[int]:
        pages = reading.calls(client, START, START + timedelta(days=40))
        return sorted([int(row["ID"]) async for page in pages for row in page])

    try:
        told.put(asyncio.run(go()))
    except DialogAssetsError as error:
        told.put(repr(error))


def test_four_processes_read_one_portal_under_one_bucket_with_one_token(database: str, portals: list[Portal]) -> None:
    """Four processes at once, a strict bucket, a token that dies on the way: all whole, nothing refused, one refresh each time."""
    crowd = crowd_portal(3000, contacts=len(CONTACTS), recordings=0, days=30, first=START, gap=2, portal="demo")
    # Room for what a machine that stalls lets go at once; four buckets that nobody shares would need more.
    strict = make_site(crowd, bucket_size=2 * SIZE, drain_per_second=DRAIN)
    strict.faults.set([{"service": "bitrix24", "kind": "expired_token", "after": 20, "times": 1}])

    async def go() -> list[list[list[int]]]:
        async with serve(strict.server.app) as base:
            app = strict.server.oauth.apps["demo"]
            environment = {
                "DATABASE_URL": database,
                "DIALOG_ASSETS_SECRET_KEY": Fernet.generate_key().decode(),
                "P_CLIENT_ID": app.client_id,
                "P_CLIENT_SECRET": app.client_secret,
                "P_REFRESH_TOKEN": strict.server.oauth.first_tokens("demo")[1],
                "BITRIX24_TOKEN_URL": f"{base}/oauth/token/",
            }
            begin, told = forks().Barrier(4), forks().Queue()
            arguments = (environment, configured(portals), begin, told)
            workers = [forks().Process(target=read_much, args=arguments, daemon=True) for _ in range(4)]
            for worker in workers:
                worker.start()
            return [await asyncio.to_thread(told.get, timeout=600) for _ in workers]

    calls, users, contacts, deals = ([*rows] for rows in (crowd.calls.ids(), crowd.users, crowd.contacts, crowd.deals))  # type: ignore[attr-defined]
    assert asyncio.run(go()) == [[calls, users, contacts, deals]] * 4
    counts = strict.counts()
    assert counts["requests"] > 50
    assert "refused" not in counts
    assert counts["refreshes"] == 2


def test_the_bucket_queues_in_order_and_survives_a_clock_set_back(database: str) -> None:
    """A full bucket gives each request a later turn; a stored moment in the future neither empties nor blocks it."""

    async def go() -> None:
        async with open_pool(database, size=2) as pool, pool.connection() as connection:
            waits = [await request_buckets.reserve(connection, "p", 3.0, 0.02) for _ in range(6)]
            assert waits[:3] == [0, 0, 0]
            assert waits[3:] == pytest.approx([50, 100, 150], abs=30)
            await connection.execute("UPDATE request_buckets SET counted_at = now() + interval '1 hour'")
            assert await request_buckets.reserve(connection, "p", 3.0, 0.02) == pytest.approx(200, abs=30)
            assert await request_buckets.reserve(connection, "p", 3.0, 0.02) == pytest.approx(250, abs=30)

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
