"""The stand-in portal as one process for all clients: http and https over one state, a strict bucket, a price a command.

`big_world` is the only place that knows how a large world is made. Prints its addresses as one line of JSON; `/bench/reset`
empties bucket and books and undoes what happened, `/bench/books` tells what was asked since, and how many bytes were sent;
`/bench/faults` and `/bench/events` take scripts (dialog_assets/sandbox).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bench.clients.measured import fingerprint
from dialog_assets.bitrix24.paging import PAGE, chunks
from dialog_assets.sandbox.bitrix24 import Bitrix24Server
from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.certificate import write_certificate
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.crowd import crowd_world
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.world.model import World


def big_world(calls: int, contacts: int, users: int, recordings: int) -> World:
    """One portal of that size."""
    return crowd_world(calls, contacts=contacts, users=users, recordings=recordings)


class Portal:
    """The portal's app with the harness' own paths beside it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._books, self._faults = Books(), Faults()
        world = big_world(arguments.calls, arguments.contacts, arguments.users, arguments.recordings)
        self.server = Bitrix24Server(
            world,
            self._books,
            self._faults,
            Clock(),
            bucket_size=arguments.bucket_size,
            drain_per_second=arguments.drain_per_second,
            latency_ms=arguments.latency_ms,
        )
        if arguments.free:
            self.server.count_ms_per_1000 = self.server.offset_ms_per_1000 = 0.0
        if arguments.request_ms:
            self._faults.set([{"service": "bitrix24", "kind": "slow", "value": arguments.request_ms / 1000}])
        self._sent = 0
        (self._portal,) = world.portals.values()
        self._app: ASGIApp = self.server.app

    def describe(self) -> dict[str, Any]:
        """What a client needs to know, and what it must find."""
        portal = self._portal
        ids = [call.id for call in portal.calls] if len(portal.calls) <= 1000 else portal.calls.ids()  # type: ignore[attr-defined]
        return {
            "webhook": f"{portal.webhook_user}/{portal.webhook_secret}",
            "start": "2025-01-01T00:00:00+03:00",
            "end": "2027-01-01T00:00:00+03:00",
            "calls": len(portal.calls),
            "calls_fingerprint": fingerprint(ids),
            "contacts": sorted(portal.contacts),
            "deals": len(portal.deals),
            "deal_pages": [(some[0] - 1, some[-1]) for some in chunks(sorted(portal.deals), PAGE)],
            "users": sorted(portal.users),
            "recordings": sorted(portal.calls.recordings),  # type: ignore[attr-defined]
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The harness' paths, else the portal."""
        if scope["type"] == "http" and scope["path"].startswith("/bench/"):
            await (await self._control(Request(scope, receive)))(scope, receive, send)
        elif scope["type"] == "http":

            async def counted(message: Message) -> None:
                self._sent += len(message.get("body", b""))
                await send(message)

            await self._app(scope, receive, counted)

    async def _control(self, request: Request) -> Response:
        name = request.url.path.removeprefix("/bench/")
        if name == "reset":
            self.server.reset()
            self._books.reset()
            self._sent = 0
        elif name == "faults":
            self._faults.set(await request.json())
        elif name == "events":
            self.server.set_events(await request.json())
        counts = self._books.as_dict().get("bitrix24", {"counts": {}})["counts"]
        return JSONResponse({"counts": {**counts, "bytes": self._sent}})


async def _serve(arguments: argparse.Namespace) -> None:
    app = Portal(arguments)
    with tempfile.TemporaryDirectory(prefix="dialog_assets_bench-") as folder:
        certificate, key = write_certificate(Path(folder))
        plain = _server(app)
        secure = _server(app, ssl_certfile=str(certificate), ssl_keyfile=str(key))

        def stop() -> None:
            plain.should_exit = secure.should_exit = True

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        tasks = [asyncio.create_task(server.serve()) for server in (plain, secure)]
        await asyncio.gather(plain.up.wait(), secure.up.wait())
        ports = [server.servers[0].sockets[0].getsockname()[1] for server in (plain, secure)]
        addresses = {"http": f"http://127.0.0.1:{ports[0]}", "https": f"https://127.0.0.1:{ports[1]}"}
        print(json.dumps({**app.describe(), **addresses, "certificate": str(certificate)}), flush=True)  # noqa: T201
        await asyncio.gather(*tasks)


class _Server(uvicorn.Server):
    """Says when it listens, and leaves signals alone: uvicorn's way ends the process before its folder is removed."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets)
        self.up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing."""
        yield


def _server(app: ASGIApp, **options: Any) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            port=0,
            lifespan="off",
            log_level="error",
            access_log=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            **options,
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name, kind in (("calls", int), ("contacts", int), ("users", int), ("recordings", int), ("bucket-size", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    for name in ("drain-per-second", "latency-ms", "request-ms"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--free", action="store_true", help="counting rows and passing over rows are free")
    asyncio.run(_serve(parser.parse_args()))
