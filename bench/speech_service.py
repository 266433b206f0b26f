"""VoiceKit's stand-in as one process for all runs: gRPC and storage, latencies drawn by recording, books as JSON.

Prints its addresses as one line of JSON; then each line on its input is a command: `books` prints what was asked since the
last `begin`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.inbound import InboundStorage
from dialog_assets.sandbox.voicekit import Behaviour, VoiceKitServer
from dialog_assets.sandbox.world.model import Call, Recording, SandboxPortal, Script, ScriptTurn, World

API_KEY = "bench/voicekit+key"
SECRET_KEY = "YmVuY2ggdm9pY2VraXQgc2VjcmV0LCBub3QgcmVhbGw="  # noqa: S105 - of a stand-in
LATENCY_S = (5.0, 60.0)
SEED = 20260302

_TURNS = tuple(
    ScriptTurn(
        "client" if number % 2 else "operator",
        f"Реплика {number}.",
        f"это реплика номер {number} из восьми слов подряд",
        number * 3000,
        number * 3000 + 2500,
    )
    for number in range(40)
)


def behaviour(time_scale: float, streams: int) -> Behaviour:
    """Recognition takes 5 to 60 s, scaled; more operations than streams are refused."""
    return Behaviour(recognition_s=LATENCY_S, seed=SEED, time_scale=time_scale, max_operations=streams)


def world(folder: Path) -> World:
    """One portal whose recordings are the files of a folder, all with the same dialog."""
    now = datetime(2026, 3, 2, tzinfo=UTC)
    script = Script("bench", "p", _TURNS, (), (), 120_000)
    calls = tuple(
        Call(number, now, {}, Recording(number, path, path.name, "speech", 2, 0, script, now, 120_000))
        for number, path in enumerate(sorted(folder.glob("*.mp3")), 1)
    )
    return World({"p": SandboxPortal("p", 1, "s", "UTC", {}, {}, {}, {}, {}, calls, "P_WEBHOOK")}, {"bench": script})


async def serve(arguments: argparse.Namespace) -> None:
    """Until its input ends."""
    books, faults = Books(), Faults()
    storage = InboundStorage(API_KEY, books, faults, secret_key=SECRET_KEY)
    made = behaviour(arguments.time_scale, arguments.streams)
    server = VoiceKitServer(
        world(arguments.recordings), storage, books, faults, Clock(), API_KEY, SECRET_KEY, behaviour=made
    )
    port = await server.start()
    web = uvicorn.Server(uvicorn.Config(storage.app, port=0, log_level="warning", lifespan="off", access_log=False))
    serving = asyncio.create_task(web.serve())
    while not web.started:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0.01)
    storage_port = web.servers[0].sockets[0].getsockname()[1]
    _print({"endpoint": f"127.0.0.1:{port}", "storage_url": f"http://127.0.0.1:{storage_port}"})
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.strip() == "begin":
            server.reset()
            storage.reset()
            books.reset()
        _print(books.as_dict().get("voicekit", {}))
    web.should_exit = True
    await serving
    await server.stop()


def _print(told: object) -> None:
    print(json.dumps(told), flush=True)  # noqa: T201 - the parent reads it


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--recordings", type=Path, required=True)
    parser.add_argument("--time-scale", type=float, required=True)
    parser.add_argument("--streams", type=int, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
