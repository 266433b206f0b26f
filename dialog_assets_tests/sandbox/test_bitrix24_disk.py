"""Recordings of the stand-in portal over a real socket: Disk files, downloads, and everything that can go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from .bitrix24_portal import MIDNIGHT, Site, make_calls, make_portal, make_recording, make_site, served

CONTENT = bytes(range(256)) * 1000
BROWSER = {"User-Agent": "dialog-assets/1", "Accept": "*/*", "Referer": "http://portal.test/"}


@dataclass
class Disk:
    """A portal with one recording on a real socket."""

    site: Site
    client: httpx2.Client
    path: Path

    def file(self) -> dict[str, Any]:
        """A fresh disk.file.get."""
        row: dict[str, Any] = self.client.post("/rest/1/s3cret/disk.file.get.json", json={"id": 501}).json()["result"]
        return row

    def download(self, url: str | None = None, **headers: str) -> httpx2.Response:
        """The bytes behind a DOWNLOAD_URL, asked as a browser does."""
        return self.client.get(url or str(self.file()["DOWNLOAD_URL"]), headers={**BROWSER, **headers})

    def fault(self, kind: str, match: str = "download", value: Any = None) -> None:
        """One fault, once."""
        self.site.faults.set([{"service": "bitrix24", "kind": kind, "match": match, "times": 1, "value": value}])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    path = tmp_path_factory.mktemp("disk") / "a.mp3"
    site = make_site(make_portal(make_calls(2, make_recording(path))))
    with served(site) as url, httpx2.Client(base_url=url, timeout=60) as client:
        yield Disk(site, client, path)


@pytest.fixture
def disk(running: Disk) -> Disk:
    running.path.write_bytes(CONTENT)
    running.site.books.reset()
    running.site.faults.set([])
    running.site.clock.now = None
    return running


def test_file_row(disk: Disk) -> None:
    """disk.file.get gives strings, the size, and each time another link at the address that the client uses."""
    row = disk.file()
    assert (row["ID"], row["TYPE"], row["SIZE"], row["NAME"]) == ("501", "file", "256000", "Звонок 1.mp3")
    assert row["DOWNLOAD_URL"].startswith(
        f"{str(disk.client.base_url).rstrip('/')}/rest/1/s3cret/download/?token=disk%7C"
    )
    assert disk.file()["DOWNLOAD_URL"] != row["DOWNLOAD_URL"]


def test_download(disk: Disk) -> None:
    """The file comes with its type, size and name, and the books name it."""
    response = disk.download()
    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["content-type"] == "audio/mpeg"
    assert response.headers["content-length"] == "256000"
    assert "filename*=utf-8''%D0%97" in response.headers["content-disposition"]
    assert disk.site.counts()["downloads"] == 1
    assert disk.site.books.as_dict()["bitrix24"]["items"]["record"] == {"501": 1}


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=100-199", 100, 199), ("bytes=255000-", 255000, 255999), ("bytes=-5", 255995, 255999)],
)
def test_range(disk: Disk, asked: str, first: int, last: int) -> None:
    """A range is answered by 206 with exactly these bytes."""
    response = disk.download(Range=asked)
    assert response.status_code == 206
    assert response.content == CONTENT[first : last + 1]
    assert response.headers["content-range"] == f"bytes {first}-{last}/256000"


def test_range_outside(disk: Disk) -> None:
    """A range behind the end is 416."""
    assert disk.download(Range="bytes=256000-").status_code == 416


@pytest.mark.parametrize("missing", list(BROWSER))
def test_nginx_wants_a_browser(disk: Disk, missing: str) -> None:
    """Without one of the wanted headers nginx says 404 in HTML."""
    response = disk.download(**{missing: ""})
    assert response.status_code == 404
    assert "<center>nginx</center>" in response.text


def test_bad_tokens(disk: Disk) -> None:
    """A changed token, one encoded twice, and none at all give a JSON error."""
    url = str(disk.file()["DOWNLOAD_URL"])
    for bad in (
        url[:-6] + "AAA%3D",
        url.replace("%", "%25"),
        url.partition("?")[0],
        url.partition("=")[0] + "=%D1%8F.",
    ):
        response = disk.download(bad)
        assert (response.status_code, response.json()["error_description"]) == (400, "Link check failed")


def test_file_errors(disk: Disk) -> None:
    """No id, a wrong id, a recording not ready yet, and a deleted file are errors; so is the link of a deleted one."""
    ask = disk.site.ask
    assert ask("disk.file.get").json()["error"] == "ERROR_ARGUMENT"
    assert ask("disk.file.get", {"id": 7}).json()["error"] == "ERROR_NOT_FOUND"
    disk.site.clock.now = MIDNIGHT + timedelta(minutes=4)
    assert ask("disk.file.get", {"id": 501}).status_code == 400
    disk.site.clock.now = None
    url = str(disk.file()["DOWNLOAD_URL"])
    disk.path.unlink()
    assert ask("disk.file.get", {"id": 501}).json()["error"] == "ERROR_NOT_FOUND"
    assert disk.download(url).json()["error"] == "ERROR_NOT_FOUND"


def test_token_of_another_portal(tmp_path: Path) -> None:
    """A link opens nothing under another portal's webhook."""
    path = tmp_path / "a.mp3"
    path.write_bytes(CONTENT)
    first = make_portal(make_calls(1, make_recording(path)))
    site = make_site(first, replace(first, portal="other", webhook_user=7, webhook_secret="0ther"))
    url = site.ask("disk.file.get", {"id": 501}).json()["result"]["DOWNLOAD_URL"]
    stolen = url.replace("/1/s3cret/", "/7/0ther/")
    assert site.send("GET", stolen, headers=BROWSER).status_code == 400


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("503", 503, '"QUERY_LIMIT_EXCEEDED"'),
        ("500", 500, '"INTERNAL_SERVER_ERROR"'),
        ("502_html", 502, "<h1>502 Bad Gateway</h1>"),
        ("200_error", 200, '"INTERNAL_SERVER_ERROR"'),
        ("json_200", 200, "Link check failed"),
        ("html_200", 200, "<!DOCTYPE html>"),
        ("401", 401, '"INVALID_CREDENTIALS"'),
    ],
)
def test_faulty_answers(disk: Disk, kind: str, status: int, body: str) -> None:
    """Each kind looks as named, on methods and on downloads, as often as the script says."""
    disk.fault(kind, "profile")
    response = disk.client.post("/rest/1/s3cret/Profile.json")
    assert response.status_code == status
    assert body in response.text
    assert disk.client.post("/rest/1/s3cret/Profile.json").json()["result"]["ID"] == "1"
    disk.fault(kind)
    response = disk.download()
    assert response.status_code == status
    assert body in response.text
    assert disk.download().content == CONTENT
    assert disk.site.counts()["faults"] == 2
    assert "refused" not in disk.site.counts()


def test_reset(disk: Disk) -> None:
    """The connection ends without an answer; the next request is served."""
    asks: dict[str, Callable[[], httpx2.Response]] = {
        "profile": lambda: disk.client.post("/rest/1/s3cret/profile"),
        "download": disk.download,
    }
    for match, ask in asks.items():
        disk.fault("reset", match)
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            ask()
        assert ask().status_code == 200


def test_truncated(disk: Disk) -> None:
    """Half of the promised bytes arrive, then the connection ends; a range then brings the rest. The books tell what left."""
    disk.fault("truncated")
    got = b""
    with (
        pytest.raises(httpx2.RemoteProtocolError),
        disk.client.stream("GET", str(disk.file()["DOWNLOAD_URL"]), headers=BROWSER) as response,
    ):
        assert response.headers["content-length"] == "256000"
        for chunk in response.iter_bytes():
            got += chunk
    assert got == CONTENT[:128000]
    assert disk.site.books.as_dict()["bitrix24"]["items"]["bytes"] == {"501": 128000}
    assert got + disk.download(Range="bytes=128000-").content == CONTENT
    items = disk.site.books.as_dict()["bitrix24"]["items"]
    assert (items["bytes"], items["fault"]) == ({"501": 256000}, {"truncated": 1})


@pytest.mark.parametrize(("kind", "arrived"), [("truncated", 128000), ("reset", 0)])
def test_faults_under_slow_headers(disk: Disk, kind: str, arrived: int) -> None:
    """An answer may be slow and then fail in its own way."""
    url = str(disk.file()["DOWNLOAD_URL"])
    slow = {"service": "bitrix24", "kind": "slow_headers", "match": "download", "times": 1, "value": 0.01}
    disk.site.faults.set([slow, {"service": "bitrix24", "kind": kind, "match": "download", "times": 1}])
    got = b""
    with pytest.raises(httpx2.TransportError), disk.client.stream("GET", url, headers=BROWSER) as response:
        for chunk in response.iter_bytes():
            got += chunk
    assert len(got) == arrived


def test_wrong_type_slow_and_redirect(disk: Disk) -> None:
    """The right bytes under a wrong type; the right answer late; a way to another host."""
    disk.fault("wrong_type", value="text/html")
    response = disk.download()
    assert (response.headers["content-type"], response.content) == ("text/html", CONTENT)
    disk.fault("slow", "profile", 0.15)
    assert disk.client.post("/rest/1/s3cret/profile").elapsed >= timedelta(seconds=0.15)
    elsewhere = str(disk.client.base_url).replace("127.0.0.1", "localhost").rstrip("/")
    disk.fault("redirect", value=elsewhere)
    response = disk.download()
    assert response.status_code == 302
    location = response.headers["location"]
    assert location.startswith(elsewhere)
    assert disk.download(location.replace("localhost", "127.0.0.1")).content == CONTENT
