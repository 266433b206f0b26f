"""A recording comes by the first of the three ways that is open; no way leads into our own network."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.downloads import Place
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24Error,
    Bitrix24LimitError,
    Bitrix24UnavailableError,
    RecordingUnavailableError,
    RowError,
)
from dialog_assets.bitrix24.oauth import Application, Grant, MemoryVault, OAuth
from dialog_assets.bitrix24.outside import NotAllowedError, OutsideHosts, is_public
from dialog_assets.bitrix24.recordings import Fetched, Found, Recordings, Wanted
from dialog_assets_tests.bitrix24.small_portal import SECRET, WEBHOOK, Freely, Naps, asked, bad, good
from dialog_assets_tests.bitrix24.tls import serve_tls

AUDIO = b"ID3\x04" + bytes(number * 7 % 251 for number in range(200_000))
HOST = "records.pbx.example"
TOKEN = "acc3sst0ken0000001"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("ff02::1", False),
    ],
)
def test_which_addresses_are_public(address: str, *, public: bool) -> None:
    """Private, loopback, link-local, shared, multicast and disguised ones are not."""
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("url", "found", "text"),
    [
        ("http://records.pbx.example/1.mp3", ["93.184.216.34"], "only https"),
        ("https://other.example/1.mp3", ["93.184.216.34"], "record_hosts"),
        ("https://records.pbx.example:8443/1.mp3", ["93.184.216.34"], "record_hosts"),
        ("https://records.pbx.example.evil.example/1.mp3", ["93.184.216.34"], "record_hosts"),
        ("https://user@records.pbx.example/1.mp3", ["93.184.216.34"], "user name"),
        ("https://records.pbx.example/1.mp3", ["169.254.169.254"], "private network"),
        ("https://records.pbx.example/1.mp3", ["93.184.216.34", "127.0.0.1"], "private network"),
    ],
)
def test_what_is_not_opened(url: str, found: list[str], text: str) -> None:
    """Another scheme, another host, a private answer, even one among public ones: nothing is sent."""

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return found

    async def go() -> None:
        async with OutsideHosts([HOST], resolve=resolve).stream(url, {}):
            pass

    with pytest.raises(NotAllowedError, match=text):
        asyncio.run(go())


class Provider:
    """The provider's host behind TLS, and a resolver that counts."""

    def __init__(self, answers: list[Callable[[Request], Any]]) -> None:
        self.answers = answers
        self.requests: list[Request] = []
        self.resolved = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request after another; the last answer stays."""
        request = Request(scope)
        answer = self.answers[min(len(self.requests), len(self.answers) - 1)]
        self.requests.append(request)
        await answer(request)(scope, receive, send)

    async def resolve(self, _host: str, _port: int) -> Sequence[str]:
        """Where the test's server is; anybody who asked twice would get another address."""
        self.resolved += 1
        return ["127.0.0.1"]

    def outside(self, port: int, trusted: ssl.SSLContext) -> OutsideHosts:
        """The allowed host."""
        return OutsideHosts([f"{HOST}:{port}"], resolve=self.resolve, allowed=lambda _: True, verify=trusted)


def whole(request: Request) -> Response:
    """The file with an ETag; from where it is asked for."""
    first = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    headers = {"Content-Type": "audio/mpeg", "ETag": '"1"'}
    if first:
        assert request.headers["if-range"] == '"1"'
        headers["Content-Range"] = f"bytes {first}-{len(AUDIO) - 1}/{len(AUDIO)}"
    return Response(AUDIO[first:], 206 if first else 200, headers)


class Cut:
    """Half of the file under its full length."""

    def __init__(self, request: Request) -> None:
        self.request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send and hang up."""
        headers = [(b"content-length", str(len(AUDIO)).encode()), (b"etag", b'"1"')]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": AUDIO[:100_000], "more_body": True})
        await asyncio.sleep(0.01)
        raise ConnectionResetError("cut by the test")


def fetch(
    tmp_path: Path,
    wanted: Wanted,
    methods: Mapping[str, Callable[[dict[str, Any], int], Any]],
    answers: list[Callable[[Request], Any]],
    *,
    oauth: bool = False,
    outside: bool = True,
    downloads: Callable[[httpx2.Request], httpx2.Response] | None = None,
    **limits: Any,
) -> tuple[Fetched | Bitrix24Error, bytes, Provider, list[str]]:
    """Locate and fetch one recording from a portal of `methods` (parameters and the provider's port → answer)."""
    provider = Provider(answers)
    called: list[str] = []

    async def go() -> tuple[Fetched | Bitrix24Error, bytes]:
        async with serve_tls(provider, tmp_path, HOST) as (port, trusted):

            def portal(request: httpx2.Request) -> httpx2.Response:
                if request.method == "GET":
                    assert downloads is not None
                    return downloads(request)
                method, params = asked(request)
                if method == "batch":
                    names = [text.partition("?")[0] for text in params["cmd"].values()]
                    called.extend(names)
                    found = {key: methods[name]({}, port) for key, name in zip(params["cmd"], names, strict=True)}
                    errors = {key: value for key, value in found.items() if "error" in value}
                    good_ones = {key: value for key, value in found.items() if key not in errors}
                    return good({"result": good_ones or [], "result_error": errors or []})
                called.append(method)
                answer = methods[method](params, port)
                return answer if isinstance(answer, httpx2.Response) else good(answer)

            application = Application("app.1", "s3cr3tofapp00001", "first")
            grant = Grant(TOKEN, "r3fr3sht0k3n00001", "https://portal.example/rest/", 1, application.authorisation)
            credential = OAuth(application, MemoryVault(grant), base="https://portal.example/rest/")
            async with Bitrix24Client(
                credential if oauth else WEBHOOK,
                pacer=Freely(),
                attempts=3,
                sleep=Naps(),
                transport=httpx2.MockTransport(portal),
            ) as client:
                hosts = provider.outside(port, trusted) if outside else OutsideHosts()
                recordings = Recordings(client, hosts, **limits)
                target = io.BytesIO()
                try:
                    found = (await recordings.locate([wanted]))[wanted.call_id]
                    return await recordings.fetch(wanted, found, target), target.getvalue()
                except Bitrix24Error as error:
                    assert not any(secret in f"{error} {error!r}" for secret in (SECRET, TOKEN, "sig="))
                    return error, target.getvalue()

    result, content = asyncio.run(go())
    return result, content, provider, called


def link(_: dict[str, Any], port: int) -> Any:
    return [{"ID": "7", "CALL_RECORD_URL": f"https://{HOST}:{port}/r/1.mp3?sig=s3cr3ts1g"}]


GONE = {"error": "ERROR_NOT_FOUND", "error_description": "Could not find entity"}


def test_the_providers_copy_when_there_is_no_file(tmp_path: Path) -> None:
    """A call without a Disk file: the link is read from the portal, and a cut costs the rest of the file only."""
    result, content, provider, called = fetch(tmp_path, Wanted(7), {"voximplant.statistic.get": link}, [Cut, whole])
    assert (result, content) == (Fetched("provider", len(AUDIO)), AUDIO)
    assert called == ["voximplant.statistic.get"]
    first, second = provider.requests
    assert first.headers["host"].startswith(HOST)
    assert "referer" not in first.headers
    assert int(second.headers["range"].removeprefix("bytes=").rstrip("-")) > 0
    assert provider.resolved == len(provider.requests)


def test_a_closed_way_leads_to_the_next(tmp_path: Path) -> None:
    """Gone from the Disk, and for a webhook no activity: the provider's copy."""
    methods = {"disk.file.get": lambda *_: GONE, "voximplant.statistic.get": link}
    result, content, _, called = fetch(tmp_path, Wanted(7, 9, 11), methods, [whole])
    assert (result, content) == (Fetched("provider", len(AUDIO)), AUDIO)
    assert called == ["disk.file.get", "voximplant.statistic.get"]


def test_a_download_that_is_refused_leads_to_the_next_way(tmp_path: Path) -> None:
    """The Disk names the file but does not give it: an application takes the activity's, over the portal's own scheme."""
    url = f"https://portal.example/rest/download.json?auth={TOKEN}&token=disk"
    files = [{"id": 9, "url": f"http://portal.example/bitrix/tools/crm_show_file.php?fileId=9&auth={TOKEN}"}]
    methods: dict[str, Callable[[dict[str, Any], int], Any]] = {
        "disk.file.get": lambda *_: {"ID": "9", "NAME": "a", "SIZE": len(AUDIO), "DOWNLOAD_URL": url},
        "crm.activity.list": lambda *_: [{"ID": "11", "FILES": files}],
    }
    urls: list[str] = []

    def downloads(request: httpx2.Request) -> httpx2.Response:
        urls.append(str(request.url))
        if "download.json" in urls[-1]:
            return bad(403, "ACCESS_DENIED")
        return httpx2.Response(200, content=AUDIO, headers={"Content-Type": "audio/mpeg"})

    result, content, *_ = fetch(
        tmp_path, Wanted(7, 9, 11), methods, [whole], oauth=True, outside=False, downloads=downloads
    )
    assert (result, content) == (Fetched("activity", len(AUDIO)), AUDIO)
    assert urls[1].startswith("https://portal.example/bitrix/tools/crm_show_file.php?fileId=9")


def test_an_expired_download_url_is_asked_for_again(tmp_path: Path) -> None:
    """The token in a download's URL may die while the recording waits its turn: one more disk.file.get."""
    urls = iter(["old", "new"])

    def disk(*_: Any) -> Any:
        url = f"https://portal.example/rest/download.json?auth={next(urls)}&token=disk"
        return {"ID": "9", "NAME": "a", "SIZE": len(AUDIO), "DOWNLOAD_URL": url}

    def downloads(request: httpx2.Request) -> httpx2.Response:
        if request.url.params["auth"] == "old":
            return bad(401, "expired_token")
        return httpx2.Response(200, content=AUDIO)

    result, content, *_ = fetch(
        tmp_path, Wanted(7, 9), {"disk.file.get": disk}, [whole], oauth=True, downloads=downloads
    )
    assert (result, content) == (Fetched("disk", len(AUDIO)), AUDIO)


def reason(result: Fetched | Bitrix24Error) -> str:
    assert isinstance(result, RecordingUnavailableError), result
    return result.reason


def test_hosts_that_are_not_allowed_are_not_asked(tmp_path: Path) -> None:
    """Without record_hosts the third way does not exist, and a redirect of the provider goes nowhere else."""
    closed, _, provider, called = fetch(
        tmp_path, Wanted(7, 9), {"disk.file.get": lambda *_: GONE}, [whole], outside=False
    )
    assert (reason(closed), provider.requests, called) == ("gone", [], ["disk.file.get"])
    away = [lambda _: RedirectResponse("https://169.254.169.254/latest/meta-data/")]
    redirected, _, provider, _ = fetch(tmp_path, Wanted(7), {"voximplant.statistic.get": link}, away)
    assert (reason(redirected), len(provider.requests)) == ("refused", 1)
    circle = [lambda request: RedirectResponse(f"https://{request.headers['host']}/again")]
    turning, _, provider, _ = fetch(tmp_path, Wanted(7), {"voximplant.statistic.get": link}, circle)
    assert (reason(turning), len(provider.requests)) == ("refused", 4)


def test_limits_of_one_recording(tmp_path: Path) -> None:
    """Too many bytes, told or not, and too long a time end one recording, not the step; a dead host likewise."""
    methods = {"voximplant.statistic.get": link}
    large, _, provider, _ = fetch(tmp_path, Wanted(7), methods, [whole], max_bytes=1000)
    assert (reason(large), len(provider.requests)) == ("too_large", 1)

    class Slow(Cut):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            headers = [(b"content-type", b"audio/mpeg")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for _ in range(20):
                await send({"type": "http.response.body", "body": b"ID3\x04" * 10, "more_body": True})
                await asyncio.sleep(0.05)

    late, *_ = fetch(tmp_path, Wanted(7), methods, [Slow], timeout_s=0.3)
    assert reason(late) == "too_slow"
    broken, *_ = fetch(tmp_path, Wanted(7), methods, [lambda _: Response(status_code=502)])
    assert reason(broken) == "unreachable"
    refused, *_ = fetch(tmp_path, Wanted(7), methods, [lambda _: Response(status_code=401)])
    assert reason(refused) == "refused"


def test_a_missing_right_to_the_disk_stops_only_where_no_other_way_is(tmp_path: Path) -> None:
    """Without the scope: a webhook's step stops, with allowed hosts the provider's copy comes."""
    missing = {"error": "insufficient_scope", "error_description": ""}
    methods = {"disk.file.get": lambda *_: missing, "voximplant.statistic.get": link}
    stopped, *_ = fetch(tmp_path, Wanted(7, 9), methods, [whole], outside=False)
    assert isinstance(stopped, Bitrix24AccessError)
    came, *_ = fetch(tmp_path, Wanted(7, 9), methods, [whole])
    assert came == Fetched("provider", len(AUDIO))


def test_a_way_that_fails_is_the_calls_failure(tmp_path: Path) -> None:
    """Refused by its method: that way is closed. Out of order for now: so is the call. A refused key stops the step."""

    def answered(status: int, code: str) -> Fetched | Bitrix24Error:
        methods = {
            "disk.file.get": lambda *_: GONE,
            "crm.activity.list": lambda *_: bad(status, code),
            "voximplant.statistic.get": link,
        }
        return fetch(tmp_path, Wanted(7, 9, 11), methods, [whole], oauth=True)[0]

    assert answered(403, "insufficient_scope") == Fetched("provider", len(AUDIO))
    assert answered(400, "ERROR_ARGUMENT") == Fetched("provider", len(AUDIO))
    away = answered(500, "INTERNAL_SERVER_ERROR")
    assert isinstance(away, Bitrix24UnavailableError), "not gone: the next run may find it"
    assert isinstance(answered(403, "PORTAL_DELETED"), Bitrix24AccessError)


def test_a_file_that_is_refused_closes_no_other(tmp_path: Path) -> None:
    """One answer of a batch that speaks of rights is that file's; the others have their places."""
    rights = {"error": "USER_ACCESS_ERROR", "error_description": ""}
    file = {"ID": "8", "NAME": "a", "SIZE": 5, "DOWNLOAD_URL": f"{WEBHOOK}download/?token=d"}

    def portal(request: httpx2.Request) -> httpx2.Response:
        method, params = asked(request)
        if method != "batch":
            return good([])
        first, second = params["cmd"]
        return good({"result": {second: file}, "result_error": {first: rights}})

    async def go() -> dict[int, Found]:
        async with Bitrix24Client(WEBHOOK, pacer=Freely(), transport=httpx2.MockTransport(portal)) as client:
            return await Recordings(client, OutsideHosts((HOST,))).locate([Wanted(1, 7), Wanted(2, 8)])

    found = asyncio.run(go())
    assert isinstance(found[1], RecordingUnavailableError)
    assert isinstance(found[2], Place)


def test_a_way_that_fails_while_fetching(tmp_path: Path) -> None:
    """The Disk's file does not come, and whether another way leads to it cannot be said now: not a final answer."""
    url = "https://portal.example/rest/1/s/download/?token=disk"
    methods = {
        "disk.file.get": lambda *_: {"ID": "9", "NAME": "a", "SIZE": len(AUDIO), "DOWNLOAD_URL": url},
        "voximplant.statistic.get": lambda *_: bad(503, "QUERY_LIMIT_EXCEEDED"),
    }
    result, *_ = fetch(tmp_path, Wanted(7, 9), methods, [whole], downloads=lambda _: bad(404, "ERROR_NOT_FOUND"))
    assert isinstance(result, Bitrix24LimitError)


def test_a_row_without_a_readable_id_is_nobodys_recording() -> None:
    """A call whose row did not come while such a row did has no recording that is surely its own; the others have theirs."""
    rows = [
        {"ID": "1", "CALL_RECORD_URL": f"https://{HOST}/1.mp3"},
        {"ID": [], "CALL_RECORD_URL": f"https://{HOST}/2.mp3"},
    ]

    async def go() -> dict[int, Found]:
        async with Bitrix24Client(
            WEBHOOK, pacer=Freely(), transport=httpx2.MockTransport(lambda _: good(rows))
        ) as client:
            return await Recordings(client, OutsideHosts((HOST,))).locate([Wanted(1), Wanted(2)])

    found = asyncio.run(go())
    assert found[1] == Place("provider", "of call 1", f"https://{HOST}/1.mp3")
    assert isinstance(found[2], RowError)
