"""The whole outside world on loopback: every service of the sandbox in one event loop (S3 in a thread beside it).

Here: starting, stopping, addresses, the environment that points clients here, and state between two lives.
Not here: what each service answers. Books are never kept: they tell of one life.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import uvicorn

from dialog_assets.errors import DialogAssetsError
from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.control import control_app
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.inbound import InboundStorage
from dialog_assets.sandbox.s3 import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, S3Server
from dialog_assets.sandbox.state import load_objects, read_json, save_objects, write_json

if TYPE_CHECKING:
    from dialog_assets.sandbox.bitrix24 import Bitrix24Server
    from dialog_assets.sandbox.bitrix24_habits import Habits
    from dialog_assets.sandbox.bitrix24_oauth import OAuth
    from dialog_assets.sandbox.voicekit import Behaviour, VoiceKitServer
    from dialog_assets.sandbox.world.model import World

# A slash and a plus are in the real keys' alphabet, and have broken clients.
VOICEKIT_API_KEY = "sandbox/voicekit+api/key"
VOICEKIT_SECRET_KEY = "c2FuZGJveCB2b2ljZWtpdCBzZWNyZXQsIG5vdCByZWFs+/8="
OPENAI_API_KEY = "sandbox-openai-key"
ANTHROPIC_API_KEY = "sandbox-anthropic-key"
DEEPSEEK_API_KEY = "sandbox-deepseek-key"


WEEK_FILE = "week.json"
"""In a state folder: where the week of its world is."""

WeekEnd = date | Literal["yesterday"] | None

_OWN_SOCKETS = {"voicekit", "voicekit_tls", "s3"}
_SECURE = {"bitrix24_https", "inbound_https", "voicekit_tls"}


class PortInUseError(DialogAssetsError):
    """A port that the sandbox was told to use cannot be had; `port` and `service` say which."""

    def __init__(self, service: str, host: str, port: int, error: OSError) -> None:
        self.service = service
        self.port = port
        taken = error.errno == errno.EADDRINUSE
        what = "is taken" if taken else "cannot be used"
        why = "stop what listens there, or choose another port" if taken else (error.strerror or "refused")
        super().__init__(f"port {port} for {service} {what} on {host}: {why}")


class PlaintextPortError(DialogAssetsError):
    """A port for VoiceKit over TLS that clients would take for plaintext."""


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say when the sockets listen."""
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: several servers share the loop, and `serve` listens for all."""
        yield


class Sandbox:
    """All services; `async with Sandbox() as sandbox` has them up. A port of 0 means any free one.

    `world`: the fictional world, by default the package's. `week_ends`: its last day with a call, by default the one that is
    written in its files; a state folder keeps the day that it was made with, so that what was lived through stays where it was.
    `state`: a folder whose objects and operations are there at the
    start, and are saved at an orderly end. `latency_ms` delays the answers of Bitrix24, VoiceKit and the LLM vendors.
    `bitrix_https_port`, `inbound_https_port`, `voicekit_tls_port`: the portals, VoiceKit's storage and VoiceKit over TLS too,
    with a certificate made for this life; None: plaintext only. VoiceKit's must end in 443. What is served over TLS is what
    the environment then names, with the certificate to trust as DIALOG_ASSETS_CA_BUNDLE.
    `bucket_size`, `drain_per_second` and `habits` are the portals' (bitrix24.py).
    `addresses` (by service; "bitrix24_certificate" and the like are paths of the file to trust) and `environment` (names as
    clients read them; for OAuth {PORTAL}_CLIENT_ID, _CLIENT_SECRET, _ACCESS_TOKEN, _REFRESH_TOKEN, _CLIENT_ENDPOINT and
    BITRIX24_TOKEN_URL) are filled once it is up.
    Raises PortInUseError, PlaintextPortError, StateError.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        bitrix_port: int = 0,
        bitrix_https_port: int | None = None,
        provider_port: int = 0,
        voicekit_port: int = 0,
        voicekit_tls_port: int | None = None,
        inbound_port: int = 0,
        inbound_https_port: int | None = None,
        s3_port: int = 0,
        llm_port: int = 0,
        control_port: int = 0,
        state: Path | None = None,
        latency_ms: float = 0,
        world: World | None = None,
        week_ends: WeekEnd = None,
        voicekit: Behaviour | None = None,
        bucket_size: int = 50,
        drain_per_second: float = 2.0,
        habits: Habits | None = None,
    ) -> None:
        if voicekit_tls_port and voicekit_tls_port % 1000 != 443:
            raise PlaintextPortError(
                f"port {voicekit_tls_port} for voicekit over TLS does not end in 443: clients take only such ports for TLS, "
                "choose one, such as 50443"
            )
        self.books = Books()
        self.faults = Faults()
        self.clock = Clock()
        self.addresses: dict[str, str] = {}
        self.environment: dict[str, str] = {}
        self.inbound = InboundStorage(
            VOICEKIT_API_KEY, self.books, self.faults, secret_key=VOICEKIT_SECRET_KEY, clock=self.clock
        )
        self.s3 = S3Server(self.books, self.faults)
        self._host = host
        self._ports = {
            "bitrix24": bitrix_port,
            **({} if bitrix_https_port is None else {"bitrix24_https": bitrix_https_port}),
            "provider": provider_port,
            "voicekit": voicekit_port,
            **({} if voicekit_tls_port is None else {"voicekit_tls": voicekit_tls_port}),
            "inbound": inbound_port,
            **({} if inbound_https_port is None else {"inbound_https": inbound_https_port}),
            "s3": s3_port,
            "llm": llm_port,
            "control": control_port,
        }
        self._state = state
        self._latency_ms = latency_ms
        self._world = world
        self._week_ends = week_ends
        self._behaviour = voicekit
        self._bucket = (bucket_size, drain_per_second)
        self._habits = habits
        self._voicekit: VoiceKitServer | None = None
        self._bitrix24: Bitrix24Server | None = None
        self._certificate: tempfile.TemporaryDirectory[str] | None = None
        self._servers: list[tuple[_Uvicorn, asyncio.Task[None]]] = []

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            await asyncio.to_thread(self.s3.release)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()
        try:
            if self._state is not None:
                await asyncio.to_thread(self._save, self._state)
        finally:
            await asyncio.to_thread(self.s3.release)

    @property
    def world(self) -> World:
        """The world that is served; known once the sandbox is up."""
        if self._world is None:
            raise RuntimeError("the sandbox is not up yet")
        return self._world

    @property
    def week(self) -> tuple[str, str]:
        """The first and the last day with a call, YYYY-MM-DD."""
        from dialog_assets.sandbox.world.moving import week_of

        first, last = week_of(self.world)
        return first.isoformat(), last.isoformat()

    @property
    def voicekit(self) -> VoiceKitServer:
        """The VoiceKit service; known once the sandbox is up."""
        if self._voicekit is None:
            raise RuntimeError("the sandbox is not up yet")
        return self._voicekit

    @property
    def bitrix24(self) -> Bitrix24Server:
        """The Bitrix24 portals; known once the sandbox is up."""
        if self._bitrix24 is None:
            raise RuntimeError("the sandbox is not up yet")
        return self._bitrix24

    async def reset(self) -> None:
        """Bring VoiceKit's operations, inbound and archived objects back to nothing, the portals to their start."""
        self.bitrix24.reset()
        self.voicekit.reset()
        self.inbound.reset()
        await asyncio.to_thread(self.s3.reset)

    async def _start(self) -> None:
        sockets = {name: self._claim(name, port) for name, port in self._ports.items()}
        try:
            # gRPC and moto bind by themselves: what was claimed for them was only a test of the port.
            for name in _OWN_SOCKETS & sockets.keys():
                sockets.pop(name).close()
            starting = asyncio.create_task(asyncio.to_thread(self.s3.start, self._host, self._ports["s3"]))
            try:
                apps = await self._build()
            finally:
                ports = {"s3": await starting}
            if _SECURE & self._ports.keys():
                await asyncio.to_thread(self._certify)
            ports |= await self._serve_voicekit()
            if self._state is not None:
                await self._restore(self._state)
            for name in list(sockets):
                ports[name] = sockets[name].getsockname()[1]
                self._launch(apps[name], sockets.pop(name), secure=name in _SECURE)
        finally:
            for claimed in sockets.values():
                claimed.close()
        self._announce(ports)
        for server, task in self._servers:
            await asyncio.wait({task, up := asyncio.create_task(server.up.wait())}, return_when="FIRST_COMPLETED")
            up.cancel()
            if task.done():
                await task

    async def _serve_voicekit(self) -> dict[str, int]:
        """VoiceKit's ports."""
        plain, secure = self._ports["voicekit"], self._ports.get("voicekit_tls")
        certificate = None if secure is None else self._certificate_files()
        try:
            bound = await self.voicekit.start(plain, self._host, secure_port=secure, certificate=certificate)
        except OSError as error:
            raise PortInUseError("voicekit", self._host, plain or secure or 0, error) from error
        tls = self.voicekit.secure_port
        return {"voicekit": bound} | ({} if tls is None else {"voicekit_tls": tls})

    async def _build(self) -> dict[str, Any]:
        """The ASGI apps by service; imports in a thread, so that they run beside moto's."""
        names = ("world", "voicekit", "bitrix24", "llm")
        modules: dict[str, Any] = {}
        for name in names:
            modules[name] = await asyncio.to_thread(importlib.import_module, f"dialog_assets.sandbox.{name}")
        world: World = await asyncio.to_thread(modules["world"].load_world) if self._world is None else self._world
        self._world = world = self._moved(world)
        shared = (self.books, self.faults)
        self._voicekit = modules["voicekit"].VoiceKitServer(
            world,
            self.inbound,
            *shared,
            self.clock,
            VOICEKIT_API_KEY,
            VOICEKIT_SECRET_KEY,
            behaviour=self._behaviour,
            latency_ms=self._latency_ms,
        )
        self._bitrix24 = modules["bitrix24"].Bitrix24Server(
            world,
            *shared,
            self.clock,
            bucket_size=self._bucket[0],
            drain_per_second=self._bucket[1],
            latency_ms=self._latency_ms,
            habits=self._habits,
        )
        llm = modules["llm"].LLMServer(
            world,
            *shared,
            openai_key=OPENAI_API_KEY,
            anthropic_key=ANTHROPIC_API_KEY,
            deepseek_key=DEEPSEEK_API_KEY,
            latency_ms=self._latency_ms,
        )
        control = control_app(*shared, self.clock, self.addresses, self.reset, self.bitrix24, self._voicekit)
        portals = self.bitrix24.app
        return {
            "bitrix24": portals,
            "bitrix24_https": portals,
            "provider": self.bitrix24.provider_app,
            "llm": llm.app,
            "inbound": self.inbound.app,
            "inbound_https": self.inbound.app,
            "control": control,
        }

    def _moved(self, world: World) -> World:
        """The world with its week where it belongs: by the state folder, else by `week_ends`."""
        from dialog_assets.sandbox.world import moving

        last = self._week_ends
        if self._state is not None:
            kept = read_json(self._state / WEEK_FILE).get("last_day")
            if kept is not None:
                last = date.fromisoformat(kept)
            elif self._state.exists() and any(self._state.iterdir()):
                last = None  # a folder of before weeks could be moved
        if last == "yesterday":
            last = moving.yesterday(world, datetime.now(UTC))
        if last is None:
            return world
        if self._state is not None:
            write_json(self._state / WEEK_FILE, {"last_day": last.isoformat()})
        return moving.ending(world, last)

    def _certify(self) -> None:
        from dialog_assets.sandbox.certificate import write_certificate

        self._certificate = tempfile.TemporaryDirectory(prefix="dialog_assets_sandbox-")
        path, _ = write_certificate(Path(self._certificate.name), self._host)
        for name in _SECURE & self._ports.keys():
            self.addresses[f"{name.partition('_')[0]}_certificate"] = str(path)

    def _certificate_files(self) -> tuple[Path, Path]:
        if self._certificate is None:
            raise RuntimeError("no certificate was made")
        folder = Path(self._certificate.name)
        return folder / "certificate.pem", folder / "key.pem"

    def _claim(self, name: str, port: int) -> socket.socket:
        # With the protocol named, asyncio sends small packets at once; else each kept connection waits 40 ms an answer.
        claimed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            claimed.bind((self._host, port))
        except OSError as error:
            claimed.close()
            raise PortInUseError(name, self._host, port, error) from error
        return claimed

    def _launch(self, app: Any, listener: socket.socket, *, secure: bool = False) -> None:
        certificate, key = self._certificate_files() if secure else (None, None)
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            ws="none",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        server = _Uvicorn(config)
        self._servers.append((server, asyncio.create_task(server.serve(sockets=[listener]))))

    def _announce(self, ports: dict[str, int]) -> None:
        web = {name: f"http{'s' * (name in _SECURE)}://{self._host}:{port}" for name, port in ports.items()}
        grpc = {name: f"{self._host}:{ports[name]}" for name in ("voicekit", "voicekit_tls") if name in ports}
        self.addresses.update(web | grpc)
        for name, state in self.bitrix24.portals.items():
            state.provider_url = web["provider"]
            self.environment.update(_application(self.bitrix24.oauth, name, web["bitrix24"]))
        self.environment.update(
            {
                portal.webhook_env: f"{web['bitrix24']}/rest/{portal.webhook_user}/{portal.webhook_secret}/"
                for portal in self.world.portals.values()
            }
        )
        self.environment.update(
            {
                "VOICEKIT_ENDPOINT": grpc.get("voicekit_tls", grpc["voicekit"]),
                "VOICEKIT_API_KEY": VOICEKIT_API_KEY,
                "VOICEKIT_SECRET_KEY": VOICEKIT_SECRET_KEY,
                "VOICEKIT_STORAGE_URL": web.get("inbound_https", web["inbound"]),
                "AWS_ENDPOINT_URL_S3": web["s3"],
                "S3_BUCKET": self.s3.bucket,
                "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
                "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
                "AWS_DEFAULT_REGION": REGION,
                "OPENAI_API_KEY": OPENAI_API_KEY,
                "OPENAI_BASE_URL": f"{web['llm']}/openai/v1",
                "ANTHROPIC_API_KEY": ANTHROPIC_API_KEY,
                "ANTHROPIC_BASE_URL": f"{web['llm']}/anthropic",
                "DEEPSEEK_API_KEY": DEEPSEEK_API_KEY,
                "DEEPSEEK_BASE_URL": f"{web['llm']}/deepseek",
                "NO_PROXY": f"{self._host},localhost",
            }
        )

        for name in ("voicekit", "inbound", "bitrix24"):
            if f"{name}_certificate" in self.addresses:
                self.environment["DIALOG_ASSETS_CA_BUNDLE"] = self.addresses[f"{name}_certificate"]

    async def _stop(self) -> None:
        for server, _ in self._servers:
            server.should_exit = True
        halts = [task for _, task in self._servers]
        if self._voicekit is not None:
            halts.append(asyncio.create_task(self._voicekit.stop()))
        halts.append(asyncio.create_task(asyncio.to_thread(self.s3.stop)))
        self._servers = []
        await asyncio.gather(*halts)
        if self._certificate is not None:
            self._certificate.cleanup()

    async def _restore(self, folder: Path) -> None:
        self.voicekit.operations.load(read_json(folder / "voicekit.json"))
        for name, data, _ in await asyncio.to_thread(lambda: list(load_objects(folder / "inbound"))):
            self.inbound.store(name, data)
        await asyncio.to_thread(self.s3.restore, folder / "s3")

    def _save(self, folder: Path) -> None:
        write_json(folder / "voicekit.json", self.voicekit.operations.dump())
        save_objects(folder / "inbound", ((name, data, {}) for name, data in self.inbound.objects.items()))
        self.s3.save(folder / "s3")


def _application(oauth: OAuth, portal: str, url: str) -> dict[str, str]:
    """What an administrator would copy out of the portal for its application."""
    app = oauth.apps[portal]
    access, refresh = oauth.first_tokens(portal)
    name = app.state.portal.webhook_env.removesuffix("_WEBHOOK")
    return {
        f"{name}_CLIENT_ID": app.client_id,
        f"{name}_CLIENT_SECRET": app.client_secret,
        f"{name}_ACCESS_TOKEN": access,
        f"{name}_REFRESH_TOKEN": refresh,
        f"{name}_CLIENT_ENDPOINT": f"{url}/rest/",
        "BITRIX24_TOKEN_URL": f"{url}/oauth/token/",
    }


async def serve(sandbox: Sandbox, ready: Callable[[Sandbox], None]) -> None:
    """Run `sandbox` until SIGINT or SIGTERM, then stop it, within 2 s; `ready` is called once, when it is up."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    handled = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda *_: loop.call_soon_threadsafe(stop.set)) for one in handled}
    try:
        async with sandbox:
            ready(sandbox)
            await stop.wait()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
