"""VoiceKit and its storage over TLS beside plaintext: one state, trusted as a client trusts the real service."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dialog_assets.sandbox.server import PlaintextPortError, Sandbox
from dialog_assets.sandbox.voicekit import OPERATIONS
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2 as lr
from dialog_assets.speech.voicekit import VoiceKit
from dialog_assets_tests.sandbox.voicekit_support import small_world

CLIENT = """
import asyncio, json, os, sys
from pathlib import Path
from typing import Any
from dialog_assets.speech.port import AudioFormat
from dialog_assets.speech.voicekit import VoiceKit

async def run():
    names = ("ENDPOINT", "API_KEY", "SECRET_KEY", "STORAGE_URL")
    async with VoiceKit(*(os.environ[f"VOICEKIT_{name}"] for name in names), attempts=1) as client:
        uri = await client.upload(Path(sys.argv[1]), "a.mp3")
        audio = AudioFormat("mp3", 8000, 2, 25.0)
        print(json.dumps(await client.submit(uri, audio, request_id="tls", group="g", vocabulary=())))

asyncio.run(run())
"""
"""A process of its own, as gRPC reads the certificates to trust once in a process."""


def test_one_state_over_both(tmp_path: Path) -> None:
    """The project's client, told nothing but the environment, goes TLS to VoiceKit and its storage; plaintext sees its work."""

    async def run() -> None:
        async with Sandbox(world=small_world(tmp_path), voicekit_tls_port=0, inbound_https_port=0) as sandbox:
            environment, addresses = sandbox.environment, sandbox.addresses
            assert environment["VOICEKIT_ENDPOINT"] == addresses["voicekit_tls"]
            assert addresses["voicekit_tls"].endswith("443")
            assert not addresses["voicekit"].endswith("443")
            assert environment["VOICEKIT_STORAGE_URL"].startswith("https://")
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                CLIENT,
                str(tmp_path / "1.mp3"),
                env={**os.environ, **environment},
                stdout=asyncio.subprocess.PIPE,
            )
            said, _ = await process.communicate()
            assert process.returncode == 0
            keys = environment["VOICEKIT_API_KEY"], environment["VOICEKIT_SECRET_KEY"]
            async with VoiceKit(addresses["voicekit"], *keys, addresses["inbound"]) as plain:
                assert await plain.find("tls", "g") == json.loads(said)
            async with grpc.aio.secure_channel(addresses["voicekit_tls"], grpc.ssl_channel_credentials()) as public:
                get: Any = public.unary_unary(
                    f"/{OPERATIONS}/GetOperation", request_serializer=lr.GetOperationRequest.SerializeToString
                )
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await get(lr.GetOperationRequest(id="101"), timeout=5)
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE

    asyncio.run(run())


def test_port_for_tls() -> None:
    """A port that clients would take for plaintext is refused in one sentence."""
    with pytest.raises(PlaintextPortError, match="443"):
        Sandbox(voicekit_tls_port=50051)
