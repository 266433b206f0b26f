"""Voices cross no network unencrypted, and a storage that is none is told in a sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dialog_assets.resources.voicekit import PlainAddress, addresses
from dialog_assets.speech.errors import RecogniserRefused, RecogniserUnavailable
from dialog_assets.speech.inbound import Inbound


@pytest.mark.parametrize(
    ("variable", "address", "refused"),
    [
        ("VOICEKIT_ENDPOINT", "voice.example:50051", "refused"),
        ("VOICEKIT_ENDPOINT", "10.1.2.3:80", "refused"),
        ("VOICEKIT_ENDPOINT", "[2001:db8::1]:50051", "refused"),
        ("VOICEKIT_ENDPOINT", "voice.example:443", ""),
        ("VOICEKIT_ENDPOINT", "127.0.0.1:50051", ""),
        ("VOICEKIT_ENDPOINT", "localhost:50051", ""),
        ("VOICEKIT_STORAGE_URL", "http://storage.example", "refused"),
        ("VOICEKIT_STORAGE_URL", "HTTP://storage.example/", "refused"),
        ("VOICEKIT_STORAGE_URL", "https://storage.example", ""),
        ("VOICEKIT_STORAGE_URL", "http://127.0.0.1:9000", ""),
    ],
)
def test_an_address_without_tls(monkeypatch: pytest.MonkeyPatch, variable: str, address: str, refused: str) -> None:
    """Only on this machine, or at a host that is allowed by name."""
    monkeypatch.setenv(variable, address)
    if not refused:
        assert address in addresses()
        return
    with pytest.raises(PlainAddress, match=variable):
        addresses()
    monkeypatch.setenv("VOICEKIT_PLAIN_HOSTS", "voice.example, 10.1.2.3,2001:db8::1, storage.example")
    assert address in addresses()


@contextmanager
def storage(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    """A server that answers everything alike; its address."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_storage_that_leads_elsewhere(status: int, tmp_path: Path) -> None:
    """The address is told, without its path; botocore would follow for ever."""
    path = tmp_path / "call.wav"
    path.write_bytes(b"RIFF")
    elsewhere = {"Location": "https://storage.example/inbound/x?signature=s3cret"}
    with (
        storage(status, elsewhere, b"") as url,
        pytest.raises(RecogniserRefused, match=r"leads to https://storage\.example: correct") as caught,
    ):
        asyncio.run(Inbound(url, "key", "c2VjcmV0", attempts=1).upload(path, "p/1.wav"))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("body", [b"<html><body>login</body></html>", b'{"ok": true}', b"\x00\xff"])
def test_a_storage_that_is_a_page(body: bytes, tmp_path: Path) -> None:
    """HEAD without a date or a length sends the file; what answers a PUT without being S3 is told, or taken as written."""
    path = tmp_path / "call.wav"
    path.write_bytes(b"RIFF")
    with storage(200, {}, body) as url:
        try:
            asyncio.run(Inbound(url, "key", "c2VjcmV0", attempts=1).upload(path, "p/1.wav"))
        except RecogniserUnavailable as error:
            assert "none of S3's" in str(error)
