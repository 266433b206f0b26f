"""Faults that need a real connection or last a while, and the portal over http and https at once."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import httpx2
import pytest

from dialog_assets.sandbox.crowd import crowd_world
from dialog_assets.sandbox.server import Sandbox

from .bitrix24_portal import make_portal, make_site, served


def test_slow_headers() -> None:
    """Headers come in pieces; the answer is whole, and a client that does not wait for them gives up."""
    site = make_site(make_portal())
    rule = {"service": "bitrix24", "kind": "slow_headers", "match": "profile", "value": 0.3}
    with served(site) as url, httpx2.Client(base_url=url, timeout=60) as client:
        site.faults.set([rule])
        started = time.monotonic()
        assert client.post("/rest/1/s3cret/profile").json()["result"]["ID"] == "1"
        assert time.monotonic() - started >= 0.3
        site.faults.set([{**rule, "value": 5}])
        with pytest.raises(httpx2.ReadTimeout):
            client.post("/rest/1/s3cret/profile", timeout=httpx2.Timeout(0.2))
        site.faults.set([])
        assert client.post("/rest/1/s3cret/profile").status_code == 200


def test_503_burst() -> None:
    """For a while every request to the portal is refused, then none."""
    site = make_site(make_portal())
    site.faults.set([{"service": "bitrix24", "kind": "503_burst", "match": "profile", "times": 1, "value": 3600}])
    assert [site.ask(method).status_code for method in ("scope", "profile", "scope")] == [200, 503, 503]
    site.server.portals["demo"].busy_until = time.monotonic()
    assert site.ask("scope").status_code == 200


def test_bucket_by_source() -> None:
    """Each source address has a bucket of its own."""
    site = make_site(make_portal(), bucket_size=1, drain_per_second=0.001)
    with served(site) as url:
        for source in ("127.0.0.2", "127.0.0.3"):
            with httpx2.Client(
                base_url=url, timeout=60, transport=httpx2.HTTPTransport(local_address=source)
            ) as client:
                assert [client.post("/rest/1/s3cret/scope").status_code for _ in range(2)] == [200, 503]


def test_http_and_https_over_one_state() -> None:
    """Both listeners serve one portal; the certificate is told, trusted for 127.0.0.1, and gone at the end."""

    async def run() -> Path:
        async with Sandbox(world=crowd_world(120, contacts=3, recordings=2), bitrix_https_port=0) as sandbox:
            certificate = Path(sandbox.addresses["bitrix24_certificate"])
            context = ssl.create_default_context(cafile=str(certificate))
            plain, secure = sandbox.addresses["bitrix24"], sandbox.addresses["bitrix24_https"]
            async with httpx2.AsyncClient(verify=context, timeout=60) as http:
                control = sandbox.addresses["control"]
                event = {"portal": "crowd", "kind": "insert"}
                assert (await http.post(f"{control}/events", json=[event])).json() == {"ok": True, "events": 1}
                for base in (plain, secure):
                    answer = await http.post(f"{base}/rest/1/crowd-secret/voximplant.statistic.get")
                    assert answer.json()["total"] == 121
                file = await http.post(f"{secure}/rest/1/crowd-secret/disk.file.get", json={"id": 1_000_000})
                assert file.json()["result"]["DOWNLOAD_URL"].startswith(secure)
                answer = await http.post(f"{control}/habits", json={"portal": "crowd", "renamed_to": secure})
                assert answer.status_code == 200
                moved = await http.post(f"{plain}/rest/1/crowd-secret/scope")
                assert moved.headers["location"] == f"{secure}/rest/1/crowd-secret/scope"
                assert (await http.get(f"{control}/habits")).json()["crowd"]["renamed_to"] == secure
                for path, body in (("habits", {"nope": 1}), ("habits", {"portal": "x"}), ("events", {})):
                    refused = await http.post(f"{control}/{path}", json=body)
                    assert refused.status_code == 400
                    assert refused.json()["error"]
                await http.post(f"{control}/reset")
                assert (await http.post(f"{plain}/rest/1/crowd-secret/scope")).status_code == 200
                environment = sandbox.environment
                query = {
                    "grant_type": "refresh_token",
                    "client_id": environment["CROWD_CLIENT_ID"],
                    "client_secret": environment["CROWD_CLIENT_SECRET"],
                    "refresh_token": environment["CROWD_REFRESH_TOKEN"],
                }
                pair = (await http.get(environment["BITRIX24_TOKEN_URL"], params=query)).json()
                scope = await http.post(f"{pair['client_endpoint']}scope", json={"auth": pair["access_token"]})
                assert scope.json()["result"] == ["crm", "disk", "telephony", "user"]
                record = await http.get(f"{sandbox.addresses['provider']}/records/crowd/1000001.mp3")
                assert record.status_code == 200
            return certificate

    assert not asyncio.run(run()).exists()
