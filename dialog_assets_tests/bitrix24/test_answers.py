"""Answers that are no clean JSON: understood, or told by what came and whom to ask; and none without an end."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest

from dialog_assets.bitrix24 import client as client_module
from dialog_assets.bitrix24.answers import read
from dialog_assets.bitrix24.errors import Bitrix24AccessError, Bitrix24Error, Bitrix24UnavailableError
from dialog_assets.bitrix24.oauth import Application, MemoryVault, OAuth
from dialog_assets_tests.bitrix24.small_portal import SECRET, Naps, client_of

GOOD = json.dumps({"result": {"имя": "Ольга"}, "time": {}}, ensure_ascii=False).encode()
WARNING = b"<br />\n<b>Warning</b>:  Undefined array key 5 in <b>/home/bitrix/www/x.php</b> on line <b>7</b><br />\n"


def asked(answer: Callable[[httpx2.Request], httpx2.Response]) -> tuple[object, int]:
    """What `profile` comes to, and how often it was asked for."""
    requests = 0

    def handler(request: httpx2.Request) -> httpx2.Response:
        nonlocal requests
        requests += 1
        return answer(request)

    async def go() -> object:
        async with client_of(handler, attempts=2) as client:
            try:
                return (await client.call("profile")).result
            except Bitrix24Error as error:
                return error

    return asyncio.run(go()), requests


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + GOOD,
        b"\xef\xbb\xbf" * 3 + GOOD,
        b"\n\n \t" + GOOD + b"\n\n",
        GOOD.decode().encode("utf-16"),
        GOOD.decode().encode("utf-16-le"),
        GOOD.decode().encode("utf-32"),
        GOOD.replace(b'"time": {}', b'"time": {}, "x": NaN, "y": -Infinity, "time": {"operating": NaN}'),
        GOOD.replace(b'{"result"', b'{"result": 1, "result"'),
    ],
)
def test_what_can_be_understood_is(content: bytes) -> None:
    """Marks of the byte order, blank lines, wide encodings, names that come twice, numbers that are none."""
    assert asked(lambda _: httpx2.Response(200, content=content)) == ({"имя": "Ольга"}, 1)


LOGIN = b'<!DOCTYPE html><html><form name="form_auth"><input name="USER_LOGIN"><input type="password"></form></html>'
SHIELD = "<html><head><title>DDoS-Guard</title></head><body>Проверка браузера</body></html>".encode()


@pytest.mark.parametrize(
    ("status", "content", "code", "told", "passes"),
    [
        (200, WARNING + GOOD, "text_before_json", "administrator", False),
        (200, b"Notice: Undefined variable\n" + GOOD, "text_before_json", "PHP", False),
        (200, b"Deprecated: x" + b'{"error": "X"}', "text_before_json", "PHP", False),
        (200, GOOD + WARNING, "text_after_json", "administrator", False),
        (200, GOOD.replace("ь".encode(), b"\xd1"), "not_utf8", "UTF-8", False),
        (200, b'{"result": "\xff"}', "not_utf8", "UTF-8", False),
        (200, GOOD.decode().encode("cp1251"), "not_utf8", "windows-1251", False),
        (200, b"", "empty_answer", "empty", True),
        (200, b" \n\t ", "empty_answer", "empty", True),
        (200, b"\xef\xbb\xbf", "empty_answer", "empty", True),
        (200, GOOD[:-3], "cut_answer", "in the middle", True),
        (200, GOOD[:12], "cut_answer", "in the middle", True),
        (200, LOGIN, "login_page", "signing in", False),
        (401, LOGIN, "login_page", "signing in", False),
        (403, SHIELD, "protection_page", "firewall", False),
        (503, SHIELD, "protection_page", "firewall", False),
        (200, "<html>Технические работы</html>".encode("cp1251"), "not_json", "maintenance", True),
        (200, b"<html>Service is being updated</html>", "not_json", "maintenance", True),
        (200, b"<?xml version='1.0'?><result/>", "not_json", "HTML page", True),
        (200, b"OK", "not_json", "no JSON", True),
        (200, b"[1, 2]", "no_result", "no answer of Bitrix24", True),
        (200, b'"text"', "no_result", "no answer of Bitrix24", True),
        (200, b"5", "no_result", "no answer of Bitrix24", True),
        (200, b'{"message": "upstream"}', "no_result", "no answer of Bitrix24", True),
        (200, b'{"result": ' + b"1" * 5000 + b"}", "not_json", "no JSON", True),
        (200, b'{"result": ' + b"[" * 100_000, "nested_answer", "administrator", False),
        (502, b"<html>502</html>", "http_502", "trouble", True),
    ],
)
def test_what_came_instead_is_told(*, status: int, content: bytes, code: str, told: str, passes: bool) -> None:
    """By its kind, with whom to ask; only what may pass by itself is asked for again."""
    error, requests = asked(lambda _: httpx2.Response(status, content=content))
    assert isinstance(error, Bitrix24Error)
    assert (error.code, error.retryable, requests) == (code, passes, 2 if passes else 1)
    assert isinstance(error, Bitrix24UnavailableError if passes else Bitrix24AccessError)
    assert told in str(error)
    assert passes or "next run tries again" not in str(error)
    assert len(str(error)) < 400
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://portal.example/auth/?backurl=%2Frest", "another page of the same portal"),
        ("/login/", "another page of the same portal"),
        (f"https://sso.example/login?back={SECRET}", "https://sso.example"),
        ("http://portal.example/x", "http://portal.example"),
        ("https://[torn", "no address"),
    ],
)
def test_a_redirect_is_told_by_where_it_leads(location: str, told: str) -> None:
    """By the place alone; what follows it may be secret."""
    error, requests = asked(lambda _: httpx2.Response(302, headers={"location": location}))
    assert isinstance(error, Bitrix24AccessError)
    assert requests == 1
    assert told in str(error)
    assert SECRET not in str(error)


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(
        [packer.compress(b'{"result": "'), *(packer.compress(bytes(1_000_000)) for _ in range(size)), packer.flush()]
    )


@pytest.mark.parametrize("twice", [False, True])
def test_an_answer_that_unpacks_without_end_is_left(monkeypatch: pytest.MonkeyPatch, *, twice: bool) -> None:
    """It is read to the bound and told, once; packed twice, too."""
    monkeypatch.setattr(client_module, "read", lambda response: read(response, 2_000_000))
    content = gzip.compress(bomb(50)) if twice else bomb(50)
    headers = {"content-encoding": "gzip, gzip" if twice else "gzip"}
    error, requests = asked(lambda _: httpx2.Response(200, stream=Pieces([content]), headers=headers))
    assert isinstance(error, Bitrix24AccessError)
    assert (error.code, requests) == ("answer_too_large", 1)


class Pieces(httpx2.AsyncByteStream):
    """A body of pieces, or one that never ends."""

    def __init__(self, pieces: list[bytes] | None = None) -> None:
        self.pieces = pieces
        self.given = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces or ():
            yield piece
        while self.pieces is None:
            await asyncio.sleep(0.001)
            self.given += 1
            yield b" "


def test_an_answer_of_a_byte_now_and_then_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the whole never does: it is given up and asked for again, and then told."""
    monkeypatch.setattr(client_module, "MAX_S", 0.05)
    error, requests = asked(lambda _: httpx2.Response(200, stream=Pieces()))
    assert isinstance(error, Bitrix24UnavailableError)
    assert (error.code, requests) == ("timeout", 2)


@pytest.mark.parametrize(
    "content", [bytes(300_000), b'{"access_token": {}, "refresh_token": []}', b"\xef\xbb\xbf[]", WARNING]
)
def test_an_odd_answer_of_the_token_endpoint_is_no_token(content: bytes) -> None:
    """Too large, of other types, no JSON: told as trouble of the authorisation server."""
    oauth = OAuth(
        Application("id", "client-secret", "refresh-token", "https://oauth.example/oauth/token/"),
        MemoryVault(),
        base="https://portal.example/rest/",
        transport=httpx2.MockTransport(lambda _: httpx2.Response(200, content=content)),
        sleep=Naps(),
    )
    with pytest.raises(Bitrix24UnavailableError, match="authorisation server"):
        asyncio.run(oauth.access())
