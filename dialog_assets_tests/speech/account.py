"""A VoiceKit account at the sandbox: gRPC and storage on local ports, one recording in the world, and a client for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn

from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.inbound import InboundStorage
from dialog_assets.sandbox.voicekit import Behaviour, VoiceKitServer
from dialog_assets.sandbox.world.model import Call, Recording, SandboxPortal, Script, ScriptTurn, World
from dialog_assets.speech.port import AudioFormat, Done, Failed, poll_delays
from dialog_assets.speech.voicekit import VoiceKit

API_KEY = "key/with+odd="
SECRET_KEY = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA=="
AUDIO = AudioFormat("mp3", 8000, 2, 6.0)

TURNS = (
    ScriptTurn("operator", "Окна Север.", "окна север добрый день", 300, 1500),
    ScriptTurn("client", "Здравствуйте!", "здравствуйте хочу узнать цену на окно", 1800, 3400),
    ScriptTurn("operator", "Слушаю.", "слушаю вас", 3600, 4300),
)


@dataclass
class Account:
    """The sandbox services of one test."""

    books: Books
    faults: Faults
    storage: InboundStorage
    server: VoiceKitServer
    endpoint: str
    storage_url: str

    def client(self, **changes: Any) -> VoiceKit:
        """A client of this account; `changes` replace its arguments."""
        arguments = {
            "endpoint": self.endpoint,
            "api_key": API_KEY,
            "secret_key": SECRET_KEY,
            "storage_url": self.storage_url,
            "backoff_s": 0.01,
        }
        return VoiceKit(**{**arguments, **changes})

    def counts(self) -> dict[str, int]:
        """What the service was asked, by kind."""
        counts: dict[str, int] = self.books.as_dict().get("voicekit", {}).get("counts", {})
        return counts


@asynccontextmanager
async def account(
    recordings: list[Path] | None = None, *, behaviour: Behaviour | None = None
) -> AsyncIterator[Account]:
    """Serve an account whose world holds `recordings`, all with the dialog TURNS and the operator on channel 0."""
    books, faults = Books(), Faults()
    storage = InboundStorage(API_KEY, books, faults, secret_key=SECRET_KEY)
    quick = behaviour or Behaviour(queued_s=0.02, processing_s=0.02)
    server = VoiceKitServer(
        _world(recordings or []), storage, books, faults, Clock(), API_KEY, SECRET_KEY, behaviour=quick
    )
    port = await server.start()
    web = uvicorn.Server(
        uvicorn.Config(storage.app, port=0, log_level="warning", lifespan="off", timeout_keep_alive=75)
    )
    serving = asyncio.create_task(web.serve())
    while not web.started:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0.01)
    storage_port = web.servers[0].sockets[0].getsockname()[1]
    try:
        yield Account(books, faults, storage, server, f"127.0.0.1:{port}", f"http://127.0.0.1:{storage_port}")
    finally:
        web.should_exit = True
        await serving
        await server.stop()


async def end(client: VoiceKit, operation_id: str) -> Done | Failed:
    """Poll until the operation has ended."""
    for delay in poll_delays(first=0.01, most=0.1):
        answer = await client.poll(operation_id, None)
        if isinstance(answer, Done | Failed):
            return answer
        await asyncio.sleep(delay)
    raise AssertionError("poll_delays has ended")


def _world(recordings: list[Path]) -> World:
    now = datetime(2026, 3, 2, tzinfo=UTC)
    script = Script("test", "okna_sever", TURNS, (), (), 6000)
    calls = tuple(
        Call(number, now, {}, Recording(number, path, path.name, "speech", 2, 0, script, now, 6000))
        for number, path in enumerate(recordings, 1)
    )
    portal = SandboxPortal("okna_sever", 1, "s", "Europe/Moscow", {}, {}, {}, {}, {}, calls, "OKNA_SEVER_WEBHOOK")
    return World({portal.portal: portal}, {script.name: script})
