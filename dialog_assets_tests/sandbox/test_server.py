"""The whole sandbox: up on loopback, one environment for all clients, control, state between two lives, signals."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import grpc
import grpc.aio
import httpx2
import pytest

from dialog_assets.sandbox.s3 import S3Server
from dialog_assets.sandbox.server import (
    VOICEKIT_API_KEY,
    VOICEKIT_SECRET_KEY,
    PlaintextPortError,
    PortInUseError,
    Sandbox,
    serve,
)
from dialog_assets.sandbox.state import StateError
from dialog_assets.sandbox.voicekit import OPERATIONS, STT
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2 as lr
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2 as stt
from dialog_assets_tests.sandbox.voicekit_support import configured, small_world, token


def archive(sandbox: Sandbox) -> Any:
    """An S3 client from nothing but the environment that the sandbox gives."""
    environment = sandbox.environment
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )


async def ask(sandbox: Sandbox, service: str, rpc: str, request: Any, answer: Any) -> Any:
    """One VoiceKit call with the sandbox's credentials."""
    scope = ".".join(service.split(".")[:3])
    signed = token(scope, key=VOICEKIT_API_KEY, secret=base64.b64decode(VOICEKIT_SECRET_KEY))
    async with grpc.aio.insecure_channel(sandbox.addresses["voicekit"]) as channel:
        call = channel.unary_unary(
            f"/{service}/{rpc}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return await call(request, metadata=(("authorization", f"Bearer {signed}"),), timeout=60)


async def submit(sandbox: Sandbox, data: bytes) -> lr.Operation:
    """Recognition of `data`."""
    request = stt.LongRunningRecognizeRequest(config=configured(), audio=stt.RecognitionAudio(content=data), group="g")
    operation = await ask(sandbox, STT, "LongRunningRecognize", request, lr.Operation)
    assert isinstance(operation, lr.Operation)
    return operation


def test_everything_is_up(tmp_path: Path) -> None:
    """Each service answers at the address and with the credentials of the environment."""

    async def run() -> None:
        async with Sandbox(world=small_world(tmp_path)) as sandbox:
            environment = sandbox.environment
            assert set(environment) == {
                "P_WEBHOOK",
                *(f"P_CLIENT_{what}" for what in ("ID", "SECRET", "ENDPOINT")),
                "P_ACCESS_TOKEN",
                "P_REFRESH_TOKEN",
                "BITRIX24_TOKEN_URL",
                "VOICEKIT_ENDPOINT",
                "VOICEKIT_API_KEY",
                "VOICEKIT_SECRET_KEY",
                "VOICEKIT_STORAGE_URL",
                "AWS_ENDPOINT_URL_S3",
                "S3_BUCKET",
                "AWS_ACCESS_KEY_ID",
                "AWS_SECRET_ACCESS_KEY",
                "AWS_DEFAULT_REGION",
                "NO_PROXY",
                *(
                    f"{vendor}_{what}"
                    for vendor in ("OPENAI", "ANTHROPIC", "DEEPSEEK")
                    for what in ("API_KEY", "BASE_URL")
                ),
            }
            bucket = environment["S3_BUCKET"]
            client = archive(sandbox)
            await asyncio.to_thread(client.put_object, Bucket=bucket, Key="k", Body=b"x")
            assert (await submit(sandbox, (tmp_path / "1.mp3").read_bytes())).id == "101"
            async with httpx2.AsyncClient(timeout=60) as http:
                profile = await http.get(f"{environment['P_WEBHOOK']}profile")
                assert "result" in profile.json()
                assert (await http.get(f"{environment['VOICEKIT_STORAGE_URL']}/inbound/a")).status_code == 403
                for vendor in ("OPENAI", "ANTHROPIC", "DEEPSEEK"):
                    answer = await http.post(environment[f"{vendor}_BASE_URL"] + "/nothing", json={})
                    assert answer.status_code in (401, 404, 405)
                assert (await http.get(f"{sandbox.addresses['control']}/addresses")).json() == sandbox.addresses

    asyncio.run(run())


async def over_tls(sandbox: Sandbox) -> None:
    """VoiceKit and its storage answer over TLS where the environment says, to who trusts the certificate that it names."""
    environment, addresses = sandbox.environment, sandbox.addresses
    certificate = environment["DIALOG_ASSETS_CA_BUNDLE"]
    assert certificate == addresses["voicekit_certificate"]
    assert environment["VOICEKIT_ENDPOINT"] == addresses["voicekit_tls"]
    assert addresses["voicekit_tls"].endswith("443")
    assert not addresses["voicekit"].endswith("443")
    roots = await asyncio.to_thread(Path(certificate).read_bytes)
    credentials = grpc.ssl_channel_credentials(roots)
    async with grpc.aio.secure_channel(addresses["voicekit_tls"], credentials) as channel:
        await asyncio.wait_for(channel.channel_ready(), 10)
    async with httpx2.AsyncClient(verify=ssl.create_default_context(cafile=certificate), timeout=60) as http:
        assert environment["VOICEKIT_STORAGE_URL"].startswith("https://")
        for url in (environment["VOICEKIT_STORAGE_URL"], addresses["inbound"]):
            assert (await http.get(f"{url}/inbound/a")).status_code == 403


def test_port_for_tls() -> None:
    """A port that clients would take for plaintext is refused in one sentence."""
    with pytest.raises(PlaintextPortError, match="443"):
        Sandbox(voicekit_tls_port=50051)


def test_control(tmp_path: Path) -> None:
    """Books, faults and clock can be read and set over HTTP, and a reset brings everything back to the start."""

    async def run() -> None:
        async with (
            Sandbox(world=small_world(tmp_path), voicekit_tls_port=0, inbound_https_port=0) as sandbox,
            httpx2.AsyncClient(base_url=sandbox.addresses["control"], timeout=60) as http,
        ):
            assert (await http.get("/health")).json() == {"ok": True}
            await over_tls(sandbox)
            await submit(sandbox, (tmp_path / "1.mp3").read_bytes())
            assert (await http.get("/books")).json()["voicekit"]["counts"]["submitted"] == 1
            rule = {"service": "voicekit", "kind": "internal", "times": 1}
            assert (await http.post("/faults", json=[rule])).json()["rules"] == 1
            with pytest.raises(grpc.aio.AioRpcError):
                await submit(sandbox, b"x")
            now = await http.post("/clock", json={"now": "2026-03-02T12:00:00+03:00"})
            assert now.status_code == 200
            assert sandbox.clock.has_come(datetime(2026, 3, 2, 9, tzinfo=UTC))
            assert not sandbox.clock.has_come(datetime(2026, 3, 2, 9, 0, 1, tzinfo=UTC))
            assert (
                await http.post("/voicekit", json={"max_operations": 0, "recognition_s": [1, 2]})
            ).status_code == 200
            assert (await http.get("/voicekit")).json()["recognition_s"] == [1, 2]
            with pytest.raises(grpc.aio.AioRpcError, match="limit exceeded"):
                await submit(sandbox, (tmp_path / "1.mp3").read_bytes())
            sandbox.inbound.store("a", b"x")
            bucket = sandbox.environment["S3_BUCKET"]
            client = archive(sandbox)
            await asyncio.to_thread(client.put_object, Bucket=bucket, Key="k", Body=b"x")
            await http.post("/books/reset")
            assert (await http.get("/books")).json() == {}
            assert (await http.post("/reset")).status_code == 200
            assert sandbox.clock.now is None
            assert not sandbox.inbound.objects
            assert "Contents" not in await asyncio.to_thread(client.list_objects_v2, Bucket=bucket)
            assert (await submit(sandbox, (tmp_path / "1.mp3").read_bytes())).id == "101"

    asyncio.run(run())


BAD = [
    ("/faults", "{"),
    ("/faults", "{}"),
    ("/faults", "[1]"),
    ("/faults", '[{"service": "voicekit"}]'),
    ("/faults", '[{"service": "voicekit", "kind": "x", "colour": 1}]'),
    ("/faults", '[{"service": "nobody", "kind": "x"}]'),
    ("/faults", '[{"service": "voicekit", "kind": "x", "times": "many"}]'),
    ("/faults", '[{"service": "voicekit", "kind": "x", "probability": 2}]'),
    ("/faults", '[{"service": "voicekit", "kind": "x", "times": true}]'),
    ("/voicekit", "[]"),
    ("/voicekit", '{"speed": 1}'),
    ("/voicekit", '{"order": "best"}'),
    ("/clock", "null"),
    ("/clock", '{"now": 5}'),
    ("/clock", '{"now": "today"}'),
    ("/clock", '{"now": "2026-03-02T12:00:00"}'),
]


def test_control_refuses(tmp_path: Path) -> None:
    """Bad input is answered with 400 and one sentence, and changes nothing."""

    async def run() -> None:
        async with (
            Sandbox(world=small_world(tmp_path)) as sandbox,
            httpx2.AsyncClient(base_url=sandbox.addresses["control"], timeout=60) as http,
        ):
            for path, body in BAD:
                answer = await http.post(path, content=body)
                assert answer.status_code == 400, (path, body)
                assert answer.json()["error"]
            assert (await http.get("/nothing")).status_code == 404
            assert sandbox.clock.now is None

    asyncio.run(run())


@pytest.mark.parametrize("service", ["bitrix", "voicekit", "inbound", "s3", "llm", "control"])
def test_port_taken(tmp_path: Path, service: str) -> None:
    """A port that someone else listens on is one typed error that names it; nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports: dict[str, Any] = {f"{service}_port": port}

        async def run() -> None:
            async with Sandbox(world=small_world(tmp_path), **ports):
                raise AssertionError("it started")

        with pytest.raises(PortInUseError, match=f"port {port} for {service}.* is taken on 127.0.0.1"):
            asyncio.run(run())


def test_state_survives(tmp_path: Path) -> None:
    """Archived and inbound objects and operations are there in the next life of the same state folder; books are not."""
    world = small_world(tmp_path)
    state = tmp_path / "state"

    async def first() -> str:
        async with Sandbox(world=world, state=state) as sandbox:
            where = {"Bucket": sandbox.environment["S3_BUCKET"], "Key": "день/1.mp3"}
            client = archive(sandbox)
            await asyncio.to_thread(
                client.put_object, **where, Body=b"gone", ContentType="audio/mpeg", Metadata={"sha256": "0"}
            )
            await asyncio.to_thread(
                client.put_object, **where, Body=b"audio", ContentType="audio/mpeg", Metadata={"sha256": "1"}
            )
            sandbox.inbound.store("in.mp3", b"inbound")
            return (await submit(sandbox, (tmp_path / "1.mp3").read_bytes())).id

    async def second(operation_id: str) -> None:
        async with Sandbox(world=world, state=state) as sandbox:
            client = archive(sandbox)
            got = await asyncio.to_thread(client.get_object, Bucket=sandbox.environment["S3_BUCKET"], Key="день/1.mp3")
            assert got["Body"].read() == b"audio"
            assert (got["ContentType"], got["Metadata"]) == ("audio/mpeg", {"sha256": "1"})
            assert sandbox.inbound.objects == {"in.mp3": b"inbound"}
            assert set(sandbox.books.as_dict()) == {"s3"}, "books tell of this life only"
            request = lr.GetOperationRequest(id=operation_id)
            found = await ask(sandbox, OPERATIONS, "GetOperation", request, lr.Operation)
            assert found.group == "g"

    operation_id = asyncio.run(first())
    assert len(list((state / "s3" / "objects").iterdir())) == 1
    asyncio.run(second(operation_id))


def test_state_broken(tmp_path: Path) -> None:
    """A state folder that cannot be read is one typed error that says what to do, and is left as it is."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "voicekit.json").write_text("{")

    async def run() -> None:
        async with Sandbox(world=small_world(tmp_path), state=state):
            raise AssertionError("it started")

    with pytest.raises(StateError, match="start afresh"):
        asyncio.run(run())
    assert [path.name for path in state.iterdir()] == ["voicekit.json"]


def test_buckets_are_apart() -> None:
    """Two S3 servers of one process do not share a bucket, and a stopped one leaves none."""
    one, other = S3Server(), S3Server()
    one.start("127.0.0.1", 0)
    other.start("127.0.0.1", 0)
    assert one.bucket != other.bucket
    for server in (one, other):
        server.stop()
        server.release()
    again = S3Server()
    again.start("127.0.0.1", 0)
    assert again.bucket == one.bucket
    again.stop()
    again.release()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_stops_on_signal(tmp_path: Path, number: signal.Signals) -> None:
    """A signal stops the sandbox though a request hangs; ready was called once; the signal's handler is back."""
    before = signal.getsignal(number)
    up: list[dict[str, str]] = []
    moment: list[float] = []

    async def run() -> None:
        sandbox = Sandbox(world=small_world(tmp_path))
        sandbox.faults.set([{"service": "voicekit", "kind": "slow", "value": 120}])
        hanging: list[asyncio.Task[Any]] = []

        async def strike() -> None:
            while not sandbox.books.as_dict().get("voicekit"):  # noqa: ASYNC110 - the books tell nobody
                await asyncio.sleep(0.01)
            moment.append(time.monotonic())
            os.kill(os.getpid(), number)

        def ready(served: Sandbox) -> None:
            up.append(served.environment)
            hanging.append(asyncio.create_task(submit(served, b"x")))
            hanging.append(asyncio.create_task(strike()))

        await serve(sandbox, ready)
        await asyncio.gather(*hanging, return_exceptions=True)

    asyncio.run(run())
    assert time.monotonic() - moment[0] < 50, "the request hangs for 60 s"
    assert len(up) == 1
    assert json.dumps(up[0])
    assert signal.getsignal(number) is before
