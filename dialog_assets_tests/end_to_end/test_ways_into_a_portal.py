"""The Bitrix24 half of the graph through Dagster by every way in: an application, activities' links, the provider's copies."""

from __future__ import annotations

import logging
import os
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import psycopg
import pytest
from cryptography.fernet import Fernet

from dialog_assets.bitrix24.outside import OutsideHosts
from dialog_assets.cli.world import SandboxProcess
from dialog_assets.portals import Portal
from dialog_assets.resources.bitrix24 import Bitrix24Resource
from dialog_assets.sandbox.world.model import SandboxPortal, World
from dialog_assets.sandbox.world.oracle import day_of
from dialog_assets.store.oauth_tokens import Seal
from dialog_assets_tests.bitrix24.tls import certificate
from dialog_assets_tests.end_to_end.week import RANGES, archived, rows, run_range
from dialog_assets_tests.sandbox.bitrix24_portal import Site, make_site, served
from dialog_assets_tests.security.test_secrets import Needles, any_form, leaks, stored

NAME = "okna_sever"
HALF = ("calls", "users", "entities", "audio_files")
FIRST, LAST = RANGES[NAME]
HOST = "records.pbx.example"
DAMAGED = (5020,)
"""The call whose recording is no audio."""
ELSEWHERE = 5002
"""A call without a recording of its own, which is given a link."""
STATE = "SELECT state, reason FROM call_steps WHERE step = 'audio_files' AND call_id = %s"
LISTENABLE = ("speech", "voicemail", "silence")
OAUTH = {"client_id": "OKNA_CLIENT_ID", "client_secret": "OKNA_CLIENT_SECRET", "refresh_token": "OKNA_REFRESH_TOKEN"}


def configured(portals: Sequence[Portal], **settings: Any) -> Portal:
    """Okna_sever with other settings of Bitrix24, and with a bucket that is never full."""
    portal = next(portal for portal in portals if portal.portal == NAME)
    given = {"bucket_size": 10**6, "drain_per_second": 10**6, **settings}
    return Portal.model_validate({**portal.model_dump(), "bitrix24": given})


@pytest.fixture
def site(world: World, sandbox: SandboxProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The portal of the world as a stand-in that the test can look into; the archive is the sandbox's."""
    site = make_site(world.portals[NAME])
    app = site.server.oauth.apps[NAME]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with served(site) as base:
        monkeypatch.setenv("OKNA_SEVER_WEBHOOK", f"{base}/rest/{app.user}/{app.state.portal.webhook_secret}/")
        monkeypatch.setenv("OKNA_CLIENT_ID", app.client_id)
        monkeypatch.setenv("OKNA_CLIENT_SECRET", app.client_secret)
        monkeypatch.setenv("OKNA_REFRESH_TOKEN", site.server.oauth.first_tokens(NAME)[1])
        monkeypatch.setenv("BITRIX24_TOKEN_URL", f"{base}/oauth/token/")
        monkeypatch.setenv("DIALOG_ASSETS_SECRET_KEY", Fernet.generate_key().decode())
        yield site


def files_of(portal: SandboxPortal) -> dict[str, bytes]:
    """What the archive must hold: every recording that is one, under its call."""
    return {
        f"{NAME}/{day_of(portal, call)}/{call.id}.mp3": call.recording.path.read_bytes()
        for call in portal.calls
        if call.recording is not None and call.recording.content in LISTENABLE
    }


def call_of(key: str) -> int:
    """The call of an object of the archive."""
    return int(Path(key).stem)


def failed(database: str) -> dict[int, str]:
    """Reasons by call of recordings that did not come."""
    found = rows(database, "SELECT call_id, reason FROM call_steps WHERE step = 'audio_files' AND state = 'failed'")
    return {row["call_id"]: row["reason"] for row in found}


def in_archive() -> dict[str, bytes]:
    """What the archive holds."""
    return {key: content for key, (content, _) in archived().items()}


def sources(database: str) -> dict[str, int]:
    """How many recordings came by which way."""
    found = rows(database, "SELECT record_source, count(*) AS calls FROM audio_files GROUP BY 1")
    return {row["record_source"]: row["calls"] for row in found}


@dataclass
class Witness:
    """Notes every token that the vendor gives, and looks into the database whenever the portal sees one for the first time."""

    site: Site
    database: str
    seal: Seal
    tokens: set[str] = field(default_factory=set)
    used: list[str] = field(default_factory=list)
    unstored: list[str] = field(default_factory=list)

    def attend(self) -> None:
        """Look over the portal's shoulder from now on."""
        oauth = self.site.server.oauth
        check, issue = oauth.check, oauth._issue

        def checked(token: str) -> Any:
            if token not in self.used:
                self.used.append(token)
                if self.stored() != token:
                    self.unstored.append(token)
            return check(token)

        def issued(*arguments: Any) -> dict[str, Any]:
            answer = issue(*arguments)
            self.tokens |= {answer["access_token"], answer["refresh_token"]}
            return answer

        oauth.check, oauth._issue = checked, issued  # type: ignore[method-assign, assignment]

    def stored(self) -> str | None:
        """The access token in the database."""
        with psycopg.connect(self.database) as connection:
            found = connection.execute("SELECT sealed FROM oauth_tokens WHERE portal = %s", [NAME]).fetchone()
        return None if found is None else self.seal.open(found[0])["access_token"]


def test_an_application_end_to_end(
    database: str,
    site: Site,
    world: World,
    portals: list[Portal],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Tokens die in mid-run: one refresh each, stored before use, gone on with by the next run, and told nowhere."""
    portal = configured(portals, oauth=OAUTH)
    witness = Witness(site, database, Seal(os.environ["DIALOG_ASSETS_SECRET_KEY"]))
    witness.attend()
    dies = {"service": "bitrix24", "kind": "expired_token", "times": 1}
    site.faults.set([{**dies, "match": "batch", "after": 1}, {**dies, "match": "download", "after": 5}])
    with caplog.at_level(logging.DEBUG):
        first = run_range(portal, FIRST, LAST, HALF, log_level="DEBUG")
        second = run_range(portal, FIRST, FIRST, ("users",), log_level="DEBUG")
    assert (first.success, second.success) == (True, True)
    assert failed(database) == dict.fromkeys(DAMAGED, "recording_not_audio")
    assert in_archive() == files_of(world.portals[NAME])
    assert site.books.as_dict()["bitrix24"]["items"]["fault"] == {"expired_token": 2}
    assert site.counts()["refreshes"] == len(witness.used) == 3
    assert witness.unstored == []

    events = "\n".join(repr(event) for run in (first, second) for event in run.all_events)
    said = {"logs": caplog.text, "output": "".join(capfd.readouterr()), "events": events}
    secrets: Needles = {
        **{f"token {number}": any_form(token) for number, token in enumerate(sorted(witness.tokens))},
        **{
            name: any_form(os.environ[name])
            for name in (*OAUTH.values(), "DIALOG_ASSETS_SECRET_KEY")
            if "_ID" not in name
        },
    }
    assert len(secrets) == 6 + 3
    assert min(len(text) for text in said.values()) > 1000
    assert leaks(iter(said.items()), secrets) == []
    assert leaks(stored(database), secrets) == []


def test_an_application_without_the_disk_takes_the_activities_links(
    database: str, site: Site, world: World, portals: list[Portal]
) -> None:
    """Scope disk is missing: recordings of calls with an activity are archived by its link, the others say what they lack."""
    found = site.server.portals[NAME]
    found.scopes = [scope for scope in found.scopes if scope != "disk"]
    site.faults.set([{"service": "bitrix24", "kind": "truncated", "match": "download.activity", "times": 3}])
    run = run_range(configured(portals, oauth=OAUTH), FIRST, LAST, ("calls", "audio_files"))
    without = {call.id for call in world.portals[NAME].calls if call.recording and not call.fields["CRM_ACTIVITY_ID"]}
    expected = files_of(world.portals[NAME])
    assert run.success
    assert in_archive() == {key: expected[key] for key in expected if call_of(key) not in without}
    assert sources(database) == {"activity": len(in_archive())}
    assert failed(database) == {
        **dict.fromkeys(without, "recording_refused"),
        **dict.fromkeys(DAMAGED, "recording_not_audio"),
    }


class NearHosts(Bitrix24Resource):
    """The allowed hosts are on this machine, under a certificate of the test's; who is looked up is noted."""

    certificate: str
    asked: ClassVar[set[str]] = set()

    def outside(self, portal: Portal) -> OutsideHosts:
        """Hosts that a test can be."""

        async def resolve(host: str, _port: int) -> list[str]:
            self.asked.add(host)
            return ["127.0.0.1"]

        trusted = ssl.create_default_context(cafile=self.certificate)
        return OutsideHosts(portal.bitrix24.record_hosts, resolve=resolve, allowed=lambda _: True, verify=trusted)


def test_the_providers_copies_come_from_allowed_hosts_only(
    database: str, site: Site, world: World, portals: list[Portal], tmp_path: Path
) -> None:
    """Recordings that only CALL_RECORD_URL leads to: archived from the allowed host, cut or not; no other host is asked."""
    cert, key = certificate(tmp_path, HOST)
    with served(site, site.server.provider_app, ssl_certfile=cert, ssl_keyfile=key) as base:
        host = f"{HOST}:{urlsplit(base).port}"
        site.server.portals[NAME].provider_url = f"https://{host}"
        site.server.set_habits({"provider_urls": True, "disk_records": False}, NAME)
        elsewhere = {
            "CALL_RECORD_URL": "https://elsewhere.example/r/1.mp3",
            "CALL_DURATION": "60",
            "CALL_FAILED_CODE": "200",
        }
        site.server.set_events([{"portal": NAME, "kind": "change", "call": ELSEWHERE, "fields": elsewhere}])
        cut = {"service": "bitrix24", "match": "provider", "times": 1}
        site.faults.set([{**cut, "kind": "truncated"}, {**cut, "kind": "private_redirect", "after": 1}])
        portal = configured(portals, webhook="OKNA_SEVER_WEBHOOK", record_hosts=[host], downloads=1)
        resource = NearHosts(certificate=str(cert))
        run = run_range(portal, FIRST, LAST, ("calls", "audio_files"), resources={"bitrix24": resource})
    expected = files_of(world.portals[NAME])
    refused = {number for number, reason in failed(database).items() if reason == "recording_refused"}
    assert run.success
    assert len(refused) == 1
    assert failed(database) == dict.fromkeys(refused, "recording_refused") | dict.fromkeys(
        DAMAGED, "recording_not_audio"
    )
    assert in_archive() == {key: expected[key] for key in expected if call_of(key) not in refused}
    assert sources(database) == {"provider": len(in_archive())}
    assert rows(database, STATE, ELSEWHERE) == [{"state": "skipped", "reason": "recording_not_allowed"}]
    assert NearHosts.asked == {HOST}
    assert "downloads" not in site.counts()
