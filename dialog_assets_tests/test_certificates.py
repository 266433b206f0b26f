"""Whom every client trusts: one variable for all of them, over real TLS, and one sentence for what is wrong."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.responses import JSONResponse, Response

from dialog_assets import certificates
from dialog_assets.bitrix24.client import Bitrix24Client
from dialog_assets.bitrix24.errors import Bitrix24AccessError, Bitrix24Error
from dialog_assets.bitrix24.outside import OutsideHosts
from dialog_assets.certificates import VARIABLE, CertificatesUnusable
from dialog_assets.errors import DialogAssetsError
from dialog_assets.llm.errors import LLMRefused
from dialog_assets.llm.router import LLMRouter
from dialog_assets.resources.s3 import ArchiveRefused, ArchiveResource
from dialog_assets.speech.errors import RecogniserRefused
from dialog_assets.speech.port import Label
from dialog_assets.speech.voicekit import VoiceKit
from dialog_assets_tests.llm.support import MODELS, SUBJECT, MemoryLedger, question
from dialog_assets_tests.speech.account import API_KEY, SECRET_KEY

NAMES = {"ours": "localhost", "another host's": "elsewhere.example", "expired": "localhost"}


def certified(folder: Path, kind: str) -> tuple[Path, Path]:
    """A self-signed certificate, as small companies make them, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAMES[kind])])
    now = dt.datetime.now(dt.UTC)
    ends = now + dt.timedelta(days=-1 if kind == "expired" else 1)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=2))
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAMES[kind])]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{kind}.pem", folder / f"{kind}.key"
    paths[0].write_bytes(built.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@asynccontextmanager
async def serving(cert: Path | None, key: Path | None) -> AsyncIterator[tuple[int, list[str]]]:
    """An HTTP service that answers everything with an error of its own; the paths that it was asked for."""
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        answer: Response = JSONResponse({"error": "ERROR_METHOD_NOT_FOUND"}, status_code=400)
        await answer(scope, receive, send)

    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off", ssl_certfile=cert, ssl_keyfile=key)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 -- uvicorn offers no event
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1], asked
    finally:
        server.should_exit = True
        await running


class NoPacer:
    """Takes no time."""

    async def take(self) -> None:
        """Nothing to wait for."""

    async def pause(self, seconds: float) -> None:
        """Nothing to wait for."""


async def portal(port: int) -> None:
    """A portal with a certificate of its company."""
    async with Bitrix24Client(f"https://localhost:{port}/rest/1/secret/", pacer=NoPacer()) as client:
        await client.call("scope")


async def model(port: int, vendor: str) -> None:
    """A vendor behind a company's gateway."""
    async with LLMRouter({vendor: "key"}, {vendor: f"https://localhost:{port}"}, timeout_s=20) as router:
        await router.complete(question(vendor, model=MODELS[vendor]), SUBJECT, MemoryLedger())


async def archive(port: int) -> None:
    """A MinIO of the company's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", f"https://localhost:{port}")
        await ArchiveResource(attempts=2).open().check()


async def storage(port: int) -> None:
    """VoiceKit's storage."""
    async with VoiceKit("localhost:1", API_KEY, SECRET_KEY, f"https://localhost:{port}", attempts=2) as client:
        await client._inbound.upload(Path(__file__), "file")


async def outside(port: int) -> None:
    """A recording's host outside the portal."""
    hosts = OutsideHosts([f"localhost:{port}"], allowed=lambda _: True)
    async with hosts.stream(f"https://localhost:{port}/record.mp3", {}) as response:
        assert response.status_code == 400


CLIENTS: dict[str, tuple[Callable[[int], Awaitable[None]], type[DialogAssetsError] | None]] = {
    "portal": (portal, Bitrix24AccessError),
    "openai": (lambda port: model(port, "openai"), LLMRefused),
    "anthropic": (lambda port: model(port, "anthropic"), LLMRefused),
    "archive": (archive, ArchiveRefused),
    "storage": (storage, RecogniserRefused),
    "outside": (outside, None),
}


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive's settings."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "S3_BUCKET": "recordings",
    }.items():
        monkeypatch.setenv(name, value)


TOLD = {
    "ours": rf"its certificate is not trusted \(self[- ]signed certificate\): set {VARIABLE} to a PEM file",
    "another host's": "its certificate is for another host: correct the address",
    "expired": "its certificate is out of date",
    "no TLS": "it does not speak TLS at this address",
}


@pytest.mark.parametrize("kind", list(TOLD))
@pytest.mark.parametrize("who", list(CLIENTS))
def test_a_certificate_that_is_not_trusted(
    who: str, kind: str, tmp_path: Path, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every client tells it in one sentence, at once; nothing is asked, and nothing is tried again."""
    client, kind_of_error = CLIENTS[who]
    pair = (None, None) if kind == "no TLS" else certified(tmp_path, kind)
    if pair[0] is not None and kind != "ours":
        monkeypatch.setenv(VARIABLE, str(pair[0]))

    async def run() -> None:
        async with serving(*pair) as (port, asked):
            with pytest.raises(kind_of_error or Exception) as caught:
                await client(port)
            assert asked == []
            text = str(caught.value) if kind_of_error else certificates.fault(caught.value) or ""
            assert "\n" not in text
            assert _matches(TOLD[kind], text), text

    asyncio.run(run())


@pytest.mark.parametrize("who", list(CLIENTS))
def test_a_certificate_of_the_bundle(who: str, tmp_path: Path, keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One variable makes every client trust it, beside the usual ones; the file may hold other text and a key."""
    cert, key = certified(tmp_path, "ours")
    bundle = tmp_path / "all of them.pem"
    bundle.write_bytes("Корневой сертификат\n".encode() + cert.read_bytes() + key.read_bytes())
    monkeypatch.setenv(VARIABLE, str(bundle))
    client, kind_of_error = CLIENTS[who]

    async def run() -> None:
        async with serving(cert, key) as (port, asked):
            try:
                await client(port)
            except (Bitrix24Error, DialogAssetsError) as error:
                assert kind_of_error is not None
                assert "certificate" not in str(error)
            assert asked

    asyncio.run(run())
    assert len(certificates.context().get_ca_certs()) > 1
    path = certificates.bundle()
    assert path is not None
    assert b"PRIVATE" not in Path(path).read_bytes()


@pytest.mark.parametrize("kind", ["trusted", *TOLD])
def test_the_recogniser(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VoiceKit over gRPC: the same variable, the same sentences."""
    cert, key = certified(tmp_path, "ours" if kind in ("trusted", "no TLS") else kind)
    if kind != "ours":
        monkeypatch.setenv(VARIABLE, str(cert))

    async def run() -> None:
        # Another test's server would be let onto the same port.
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
        port = 0
        for port in range(20443, 65000, 1000):
            try:
                add = server.add_insecure_port if kind == "no TLS" else server.add_secure_port
                add(f"localhost:{port}", *(() if kind == "no TLS" else (credentials,)))
            except RuntimeError:
                continue
            break
        await server.start()
        try:
            async with VoiceKit(f"localhost:{port}", API_KEY, SECRET_KEY, backoff_s=0.01) as client:
                with pytest.raises(RecogniserRefused) as caught:
                    await client.find(Label("doctor", "doctor"))
        finally:
            await server.stop(None)
        expected = "UNIMPLEMENTED" if kind == "trusted" else TOLD[kind].replace(r" \(self[- ]signed certificate\)", "")
        assert _matches(expected, str(caught.value)), caught.value

    asyncio.run(run())


WRONG: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "is not there; correct or unset it"),
    "empty": (b"", "holds no certificate in PEM form"),
    "DER": (bytes.fromhex("3082010a0282010100"), "holds no certificate in PEM form"),
    "UTF-16": ("-----BEGIN CERTIFICATE-----".encode("utf-16"), "holds no certificate in PEM form"),
    "damaged": (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "holds a damaged certificate"),
}


@pytest.mark.parametrize("variable", [VARIABLE, "SSL_CERT_FILE", "AWS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"])
@pytest.mark.parametrize("how", [*WRONG, "a folder"])
def test_a_variable_that_leads_to_nothing(
    variable: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours and the libraries' own: one sentence with the variable's name, before any connection."""
    path = tmp_path / "список.pem"
    content, told = WRONG.get(how, (None, "is a folder and not a file"))
    if how == "a folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(variable, str(path))
    for use in (certificates.check, certificates.context, certificates.bundle, certificates.roots):
        with pytest.raises(CertificatesUnusable, match=f"{variable} names .*{told}"):
            use()


def test_what_is_trusted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctor's sentence; and a folder of certificates that is not there."""
    assert certificates.check() == "the usual certificates"
    cert, _ = certified(tmp_path, "ours")
    monkeypatch.setenv(VARIABLE, str(cert))
    assert certificates.check() == f"the usual certificates, and 1 of {VARIABLE}"
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    with pytest.raises(CertificatesUnusable, match="SSL_CERT_DIR"):
        certificates.context()


def test_other_errors_are_no_certificate_s() -> None:
    """Errors that only go round in circles end the search."""
    error = OSError("away")
    error.__cause__ = ssl.SSLError("EOF occurred")
    error.__cause__.__context__ = error
    assert certificates.fault(error) is None
    assert certificates.fault("Socket closed") is None


def _matches(pattern: str, text: str) -> bool:
    return re.search(pattern, text) is not None
