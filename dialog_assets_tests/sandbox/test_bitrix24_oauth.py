"""OAuth of the stand-in portal: tokens, their end and rotation, what only applications may do, their downloads."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

from .bitrix24_portal import MIDNIGHT, Site, make_calls, make_portal, make_recording, make_site

BROWSER = {"User-Agent": "dialog-assets/1", "Accept": "*/*", "Referer": "http://portal.test/"}


def token(site: Site, **query: Any) -> httpx2.Response:
    """GET /oauth/token/ as the demo portal's application."""
    app = site.server.oauth.apps["demo"]
    given = {"client_id": app.client_id, "client_secret": app.client_secret, **query}
    return site.send("GET", "/oauth/token/", params=given)


def refresh(site: Site, refresh_token: str | None = None) -> httpx2.Response:
    first = site.server.oauth.first_tokens("demo")[1]
    return token(site, grant_type="refresh_token", refresh_token=refresh_token or first)


def test_refresh_rotates() -> None:
    """A refresh gives a new pair; the old refresh token is void at once, the new access token works at the endpoint."""
    site = make_site(make_portal())
    pair = refresh(site).json()
    assert pair["expires_in"] == 3600
    assert (pair["client_endpoint"], pair["domain"]) == ("http://portal.test:81/rest/", "portal.test:81")
    again = refresh(site)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert site.ask_app("profile", token=pair["access_token"]).json()["result"]["ID"] == "1"
    assert refresh(site, pair["refresh_token"]).status_code == 200
    assert site.counts()["refreshes"] == 2


def test_code() -> None:
    """/oauth/authorize/ sends a code that works once, and for 30 s only."""
    site = make_site(make_portal())
    client = site.server.oauth.apps["demo"].client_id
    location = site.send("GET", "/oauth/authorize/", params={"client_id": client, "state": "s"}).headers["location"]
    query = parse_qs(urlsplit(location).query)
    assert query["state"] == ["s"]
    code = query["code"][0]
    assert token(site, grant_type="authorization_code", code=code).status_code == 200
    assert token(site, grant_type="authorization_code", code=code).json()["error"] == "invalid_grant"
    site.clock.now = MIDNIGHT
    late = site.server.oauth.code("demo")
    site.clock.now += timedelta(seconds=31)
    assert token(site, grant_type="authorization_code", code=late).json()["error"] == "invalid_grant"


def test_refusals() -> None:
    """Wrong client, wrong secret, missing grant type, no token, a token never given: each by its code."""
    site = make_site(make_portal())
    assert token(site, grant_type="refresh_token", client_id="x").json()["error"] == "invalid_client"
    assert token(site, grant_type="refresh_token", client_secret="x").json()["error"] == "invalid_client"
    assert token(site).json()["error"] == "invalid_request"
    assert site.send("POST", "/rest/profile.json").json()["error"] == "NO_AUTH_FOUND"
    wrong = site.ask_app("profile", token="never-given")
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_token")


def test_access_token_expires() -> None:
    """After an hour by the clock, or by the fault, a token is expired_token until the next refresh."""
    site = make_site(make_portal())
    site.clock.now = MIDNIGHT
    site.server.reset()
    assert site.ask_app("profile").status_code == 200
    site.clock.now += timedelta(hours=1)
    late = site.ask_app("profile")
    assert (late.status_code, late.json()["error"]) == (401, "expired_token")
    fresh = refresh(site).json()["access_token"]
    assert site.ask_app("profile", token=fresh).status_code == 200
    site.faults.set([{"service": "bitrix24", "kind": "expired_token", "match": "profile", "times": 1}])
    assert site.ask("profile").status_code == 200, "a webhook does not expire"
    assert [site.ask_app("profile", token=fresh).status_code for _ in range(2)] == [401, 401]
    assert site.counts()["expired"] == 3


def test_auth_in_query_and_app_only_methods() -> None:
    """The token may come in the query; what only applications may do refuses a webhook, in a batch too."""
    site = make_site(make_portal())
    first = site.server.oauth.first_tokens("demo")[0]
    assert site.send("GET", f"/rest/profile?auth={first}").status_code == 200
    refused = site.ask("telephony.externalCall.register")
    assert (refused.status_code, refused.json()["error"]) == (403, "WRONG_AUTH_TYPE")
    assert site.batch(["event.offline.get"])["result_error"][0]["error"] == "WRONG_AUTH_TYPE"
    assert site.ask_app("batch", {"cmd": ["profile"]}).json()["result"]["result"][0]["ID"] == "1"


def test_download_of_an_application(tmp_path: Path) -> None:
    """Its DOWNLOAD_URL carries the access token, and ends with it; the webhook's form never has one."""
    path = tmp_path / "a.mp3"
    path.write_bytes(b"ID3" + bytes(1000))
    site = make_site(make_portal(make_calls(1, make_recording(path))))
    url = str(site.ask_app("disk.file.get", {"id": 501}).json()["result"]["DOWNLOAD_URL"])
    first = site.server.oauth.first_tokens("demo")[0]
    assert url.startswith(f"http://portal.test:81/rest/download.json?auth={first}&token=disk%7C")
    assert site.send("GET", url, headers=BROWSER).content == path.read_bytes()
    assert "s3cret" not in url
    site.server.oauth.expire("demo")
    assert site.send("GET", url, headers=BROWSER).json()["error"] == "expired_token"


def test_activity_files(tmp_path: Path) -> None:
    """FILES comes only when selected; its url works with an access token, a webhook's url has an empty auth."""
    path = tmp_path / "a.mp3"
    path.write_bytes(b"ID3" + bytes(1000))
    calls = make_calls(2, make_recording(path))
    calls[0].fields.update(CRM_ACTIVITY_ID="77", CRM_ENTITY_ID="5")
    site = make_site(make_portal(calls))
    ask = {"filter": {"ID": 77}, "select": ["ID", "FILES"]}
    (row,) = site.ask_app("crm.activity.list", ask).json()["result"]
    (file,) = row["FILES"]
    assert file["id"] == 501
    assert site.send("GET", file["url"], headers=BROWSER).content == path.read_bytes()
    (row,) = site.ask("crm.activity.list", ask).json()["result"]
    assert row["FILES"][0]["url"].endswith("&auth=")
    assert site.send("GET", row["FILES"][0]["url"], headers=BROWSER).status_code == 401
    whole = site.ask("crm.activity.get", {"id": 77}).json()["result"]
    assert (whole["OWNER_TYPE_ID"], whole["OWNER_ID"], whole["DIRECTION"]) == ("3", "5", "1")
    assert whole["ORIGIN_ID"] == f"VI_{calls[0].fields['CALL_ID']}"
    assert "FILES" not in whole
    assert site.ask("crm.activity.get", {"id": 78}).status_code == 400
