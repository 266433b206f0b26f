"""A download gives the whole recording or says why not, from a real server."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from typing import Any, BinaryIO

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.downloads import Downloaded, Place, download
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24Error,
    Bitrix24LimitError,
    Bitrix24UnavailableError,
    RecordingUnavailableError,
)
from dialog_assets_tests.bitrix24.local_server import serve
from dialog_assets_tests.bitrix24.small_portal import SECRET, Freely, Naps

AUDIO = b"ID3\x04" + bytes(number * 7 % 251 for number in range(300_000))
TOKEN = "disk%7CaWQ9MQ%3D%3D%7CImRv.c2ln%2BZQ%3D"
QUERY = f"token={TOKEN}".encode()


class Cut:
    """The file (from where it is asked for) under its full length, ended after `after` bytes."""

    def __init__(self, request: Request, after: int) -> None:
        self.first = first_byte(request)
        self.after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send and hang up."""
        headers = {"Content-Length": str(len(AUDIO) - self.first), "Content-Type": "audio/mpeg"}
        if self.first:
            headers["Content-Range"] = f"bytes {self.first}-{len(AUDIO) - 1}/{len(AUDIO)}"
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 206 if self.first else 200, "headers": raw})
        piece = AUDIO[self.first : self.first + self.after]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(0.01)
        raise ConnectionResetError("cut by the test")


Answering = Callable[[Request], Response | Cut]


def first_byte(request: Request) -> int:
    return int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))


def whole(request: Request, content: bytes = AUDIO, kind: str = "audio/mpeg") -> Response:
    """The file as the portal sends it, ranges included."""
    first = first_byte(request)
    headers = {"Content-Type": kind}
    if first:
        headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
    return Response(content[first:], 206 if first else 200, headers)


class Outcome:
    """What a download did."""

    def __init__(self) -> None:
        self.target = io.BytesIO(b"before")
        self.target.seek(0, io.SEEK_END)
        self.written: int | None = None
        self.error: Bitrix24Error | None = None
        self.requests: list[Request] = []
        self.pacer = Freely()

    @property
    def content(self) -> bytes:
        """What stands behind the caller's own bytes."""
        assert self.target.getvalue().startswith(b"before")
        return self.target.getvalue()[len(b"before") :]


def fetch(*answers: Answering, size: int | None = len(AUDIO), attempts: int = 4, **more: Any) -> Outcome:
    """Download from a server that answers one request after another; the last answer stays."""
    outcome = Outcome()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        answer = answers[min(len(outcome.requests), len(answers) - 1)]
        outcome.requests.append(request)
        await answer(request)(scope, receive, send)

    async def go() -> None:
        async with serve(app) as base:
            webhook = f"{base}/rest/7/{SECRET}/"
            async with Bitrix24Client(webhook, pacer=outcome.pacer, attempts=attempts, sleep=Naps()) as client:
                file = Place("disk", "1", f"{webhook}download/?token={TOKEN}", size)
                try:
                    outcome.written = (await download(client, file, outcome.target, **more)).bytes
                except Bitrix24Error as error:
                    outcome.error = error
                    assert SECRET not in f"{error} {error!r}"
                    assert TOKEN not in f"{error} {error!r}"
                    assert error.__context__ is None

    asyncio.run(go())
    return outcome


def reason(outcome: Outcome) -> str:
    assert isinstance(outcome.error, RecordingUnavailableError)
    return outcome.error.reason


def test_a_whole_recording() -> None:
    """The bytes stand behind the caller's, the request looks like a browser's, is paced, and the token is untouched."""
    outcome = fetch(whole)
    assert outcome.written == len(AUDIO)
    assert outcome.content == AUDIO
    assert outcome.pacer.taken == 1
    request = outcome.requests[0]
    assert request.scope["query_string"] == QUERY
    assert {"user-agent", "accept-language", "referer"} <= set(request.headers)
    assert request.headers["accept"] == "*/*"
    assert SECRET not in request.headers["referer"]


def test_a_cut_is_resumed_where_it_stopped() -> None:
    """After two cuts the rest comes by Range and the file is whole."""
    outcome = fetch(lambda r: Cut(r, 100_000), lambda r: Cut(r, 50_000), whole)
    assert outcome.content == AUDIO
    starts = [first_byte(request) for request in outcome.requests]
    assert starts[0] == 0
    assert 0 < starts[1] <= starts[2] <= 150_000


def test_a_server_that_ignores_the_range_is_read_from_the_start() -> None:
    """200 to a Range, or a range of another file, does not glue two beginnings together."""

    def deaf(_: Request) -> Response:
        return Response(AUDIO, headers={"Content-Type": "audio/mpeg"})

    def other(request: Request) -> Response:
        answer = whole(request)
        answer.headers["Content-Range"] = f"bytes 5-{len(AUDIO) - 1}/{len(AUDIO)}"
        return answer

    assert fetch(lambda r: Cut(r, 100_000), deaf).content == AUDIO
    assert fetch(lambda r: Cut(r, 100_000), other, whole).content == AUDIO


def test_a_recording_that_stays_short_is_truncated() -> None:
    """Fewer bytes than the Disk says is truncated after the attempts."""
    outcome = fetch(lambda r: Cut(r, 10), attempts=3)
    assert (reason(outcome), len(outcome.requests)) == ("truncated", 3)


def test_a_recording_of_another_length_than_said_has_changed() -> None:
    """More bytes than the Disk says, or an end before, is another recording."""
    assert reason(fetch(lambda r: whole(r, AUDIO + b"more"))) == "changed"
    ended = fetch(short)
    assert (reason(ended), len(ended.requests)) == ("changed", 2)


@pytest.mark.parametrize(
    ("size", "head", "body", "told"),
    [
        (9, b"", b"ID3\x0412345", True),
        (None, b"Content-Length: 9\r\n", b"ID3\x0412345", True),
        (None, b"Transfer-Encoding: chunked\r\n", b"9\r\nID3\x0412345\r\n0\r\n\r\n", True),
        (None, b"", b"ID3\x0412345", False),
    ],
)
def test_whether_its_length_was_told(size: int | None, head: bytes, body: bytes, *, told: bool) -> None:
    """By the Disk, by the answer's head, by its chunks; an answer that just ends may have been cut."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nConnection: close\r\n" + head + b"\r\n" + body)
        await writer.drain()
        writer.close()

    async def go() -> Downloaded:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            webhook = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/rest/7/{SECRET}/"
            async with Bitrix24Client(webhook, pacer=Freely(), sleep=Naps()) as client:
                return await download(client, Place("disk", "1", f"{webhook}download/", size), io.BytesIO())

    assert asyncio.run(go()) == Downloaded(9, told)


def short(request: Request) -> Response:
    """A file of 1,000 bytes, as any server sends it."""
    return Response(status_code=416) if first_byte(request) else whole(request, AUDIO[:1000])


BEHIND = bytes(range(256)) * 4


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + AUDIO,
        b"\xff\xfe" + AUDIO,
        bytes(700) + AUDIO,
        b"\xff" * 700 + AUDIO,
        b"\r\n" + AUDIO,
        b"<a" + BEHIND,
        b'{"' + BEHIND,
        b"[1" + BEHIND,
        b"\n\n<html" + BEHIND,
        b"\xff\xfeT\x00e\x00",
        b"damaged" * 100,
        b"P",
    ],
    ids=lambda content: content[:8].hex(),
)
def test_whatever_is_no_page_is_for_the_probe_to_judge(content: bytes) -> None:
    """What stands before the first frame, the middle of a frame, and what only begins like a page."""
    assert fetch(lambda r: whole(r, content), size=len(content)).content == content


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE html><p>Вход",
        "\n  <?xml version='1.0'?><Error/>",
        "<script>",
        "<Error><Code>NoSuchKey</Code></Error>",
        "{ }",
        '{\n"answer": 1}',
        '[{"a": 1}]',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1251", "utf-16"])
def test_a_page_is_told_in_every_encoding(text: str, encoding: str) -> None:
    """HTML, XML and JSON, under an audio's content type."""
    assert reason(fetch(lambda r: whole(r, text.encode(encoding)))) == "not_audio"


def test_a_page_that_drips_is_told_too() -> None:
    """Its first bytes come one by one."""

    async def drip() -> AsyncIterator[bytes]:
        for byte in b"  <html>being updated</html>":
            yield bytes([byte])

    assert reason(fetch(lambda _: StreamingResponse(drip(), media_type="audio/mpeg"), size=None)) == "not_audio"


@pytest.mark.parametrize("size", [0, None])
def test_an_empty_recording_comes_as_it_is(size: int | None) -> None:
    """Nothing is missing of it: it is for the probe to say that it is empty."""
    assert fetch(lambda r: whole(r, b""), size=size).content == b""


def test_a_size_of_0_is_no_promise() -> None:
    """The Disk has not measured it yet."""
    assert fetch(whole, size=0).content == AUDIO


@pytest.mark.parametrize(
    "head",
    [
        b"RIFF\x00\x00\x00\x00WAVE",
        b"ID3\x03\x00",
        b"OggS\x00\x02",
        b"\xff\xfb\x90\x64",
        b"\xff\xf3\x40\xc4",
        b"\xff\xf1\x50\x80",
    ],
)
def test_audio_formats_pass_whatever_the_content_type_says(head: bytes) -> None:
    """WAV, MP3 with and without a tag, Ogg and AAC are known by their first bytes."""
    content = head + b"\x01" * 100
    assert fetch(lambda r: whole(r, content, "text/plain"), size=len(content)).content == content


def test_pages_in_the_place_of_audio() -> None:
    """HTML is tried again, a JSON error is final also under an audio's type, a dead credential stops the step."""
    page = HTMLResponse("<html>being updated</html>")
    assert fetch(lambda _: page, whole).content == AUDIO
    assert reason(fetch(lambda _: page)) == "not_audio"
    link = {"error": "ERROR_CORE", "error_description": "Link check failed"}
    assert reason(fetch(lambda _: JSONResponse(link))) == "refused"
    assert reason(fetch(lambda _: JSONResponse(link, 403, {"Content-Type": "audio/mpeg"}))) == "refused"
    assert reason(fetch(lambda _: JSONResponse(link, 200, {"Content-Type": "audio/mpeg"}))) == "refused"
    assert reason(fetch(lambda _: HTMLResponse("<html>404</html>", 404))) == "gone"
    assert reason(fetch(lambda _: JSONResponse({"error": "ACCESS_DENIED"}, 403))) == "refused"
    dead = fetch(lambda _: JSONResponse({"error": "INVALID_CREDENTIALS"}, 401))
    assert isinstance(dead.error, Bitrix24AccessError)


def test_passing_troubles_are_retried_and_then_the_portals() -> None:
    """503 and 502 pass; when they stay, the portal is to blame and not the recording."""
    busy = JSONResponse({"error": "QUERY_LIMIT_EXCEEDED"}, 503)
    broken = HTMLResponse("<html>502</html>", 502)
    assert fetch(lambda _: busy, lambda _: broken, whole).content == AUDIO
    assert isinstance(fetch(lambda _: busy).error, Bitrix24LimitError)
    assert isinstance(fetch(lambda _: broken).error, Bitrix24UnavailableError)


def test_only_the_portals_own_redirects_are_followed() -> None:
    """The secret in the URL never reaches another host; a circle ends."""
    inside = fetch(lambda _: RedirectResponse("/storage/1"), whole)
    assert (inside.content, inside.pacer.taken) == (AUDIO, 2)
    outside = fetch(lambda _: RedirectResponse("http://localhost:9/rest/x"))
    assert (reason(outside), len(outside.requests)) == ("refused", 1)
    assert reason(fetch(lambda r: RedirectResponse(str(r.url)))) == "refused"


def test_no_request_for_what_cannot_be_taken() -> None:
    """Too large a file, or an address outside the portal, costs no request."""
    large = fetch(whole, max_bytes=1000)
    assert (reason(large), large.requests) == ("too_large", [])

    async def go(target: BinaryIO) -> None:
        async with Bitrix24Client(f"https://portal.example/rest/7/{SECRET}/", pacer=Freely()) as client:
            await download(client, Place("disk", "1", f"https://evil.example/rest/7/{SECRET}/download/", 5), target)

    with pytest.raises(RecordingUnavailableError, match="outside the portal"):
        asyncio.run(go(io.BytesIO()))
