"""A small world with spoken recordings made on the spot, and raw gRPC calls to a VoiceKit that serves it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal

import av
import grpc
import grpc.aio
from google.protobuf.message import Message

from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.inbound import InboundStorage
from dialog_assets.sandbox.voicekit import OPERATIONS, STT, URI_PREFIX, Behaviour, VoiceKitServer
from dialog_assets.sandbox.world.model import Call, Recording, SandboxPortal, Script, ScriptTurn, World
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2 as lr
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2 as stt

API_KEY = "key/with+slash"
SECRET = base64.b64encode(b"\xfb\xff secret of the tests").decode()
OTHER_KEY = "other"
OTHER_SECRET = base64.b64encode(b"other secret").decode()
START = datetime(2026, 3, 2, 9, tzinfo=UTC)
ANSWERS: dict[str, type[Message]] = {
    "LongRunningRecognize": lr.Operation,
    "Recognize": stt.RecognizeResponse,
    "GetOperation": lr.Operation,
    "WaitOperation": lr.Operation,
    "ListOperations": lr.ListOperationsResponse,
}


@cache
def mp3(seconds: float, channels: int, seed: int, rate: int = 8000) -> bytes:
    """A quiet noise as an MP3 file."""
    out = io.BytesIO()
    noise = random.Random(seed)
    layout = "stereo" if channels == 2 else "mono"
    with av.open(out, "w", format="mp3") as container:
        stream = container.add_stream("mp3", rate=rate)
        stream.layout = layout
        stream.bit_rate = 16_000 * channels
        for place in range(int(seconds * rate) // 1152):
            frame = av.AudioFrame(format="s16p", layout=layout, samples=1152)
            for plane in frame.planes:
                plane.update(noise.randbytes(plane.buffer_size))
            frame.sample_rate = rate
            frame.pts = place * 1152
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def script(name: str, turns: int = 12) -> Script:
    """Turns of eight words, two seconds each, client and operator by turns."""
    sides: tuple[Literal["operator", "client"], ...] = ("client", "operator")
    spoken = tuple(
        ScriptTurn(
            sides[number % 2],
            f"Реплика {number}.",
            " ".join(f"слово{number}х{place}" for place in range(8)),
            number * 2000 + 500,
            number * 2000 + 2355,
        )
        for number in range(turns)
    )
    return Script(name, "p", spoken, (), (), turns * 2000 + 1000)


def small_world(folder: Path) -> World:
    """Calls 1 stereo speech, 2 mono speech, 3 silence, 4 damaged, 5 voicemail."""
    voicemail = script("voicemail", turns=1)
    rows: tuple[tuple[Any, Any, Any, Script | None, bytes], ...] = (
        ("speech", 2, 1, script("stereo"), mp3(25, 2, 1)),
        ("speech", 1, None, script("mono"), mp3(25, 1, 2)),
        ("silence", 2, 1, None, mp3(3, 2, 3)),
        ("damaged", 2, 1, None, random.Random(4).randbytes(3000)),
        ("voicemail", 2, 1, voicemail, mp3(3, 2, 5)),
    )
    calls = []
    for number, (content, channels, operator, spoken, data) in enumerate(rows, 1):
        path = folder / f"{number}.mp3"
        path.write_bytes(data)
        recording = Recording(number, path, path.name, content, channels, operator, spoken, START, lead_ms=40)
        calls.append(Call(number, START, {}, recording))
    portal = SandboxPortal("p", 1, "secret", "UTC", {}, {}, {}, {}, {}, tuple(calls), "P_WEBHOOK")
    return World({"p": portal})


def token(
    audience: str | list[str],
    *,
    key: str = API_KEY,
    secret: bytes | None = None,
    expires_in: float = 86_400,
    padded: bool = False,
    altchars: bytes = b"-_",
    **changes: Any,
) -> str:
    """A signed token, its segments in base64 with `altchars`; `changes` replace claims."""
    claims = {"aud": audience, "exp": time.time() + expires_in, "iss": "tests", "sub": "tests", **changes}
    secrets = {API_KEY: SECRET, OTHER_KEY: OTHER_SECRET}
    signing = base64.b64decode(secrets.get(key, SECRET)) if secret is None else secret
    parts = [{"alg": "HS256", "typ": "JWT", "kid": key}, claims]

    def segment(data: bytes) -> str:
        encoded = base64.b64encode(data, altchars).decode()
        return encoded if padded else encoded.rstrip("=")

    text = ".".join(segment(json.dumps(part).encode()) for part in parts)
    return f"{text}.{segment(hmac.new(signing, text.encode(), hashlib.sha256).digest())}"


class Bench:
    """A VoiceKit that serves a small world, and a channel to it."""

    def __init__(self, world: World, behaviour: Behaviour) -> None:
        self.books, self.faults, self.clock = Books(), Faults(), Clock()
        others = {OTHER_KEY: OTHER_SECRET}
        self.inbound = InboundStorage(
            API_KEY, self.books, self.faults, secret_key=SECRET, other_keys=others, clock=self.clock
        )
        self.files = {call.id: call.recording.path.read_bytes() for call in world.portals["p"].calls if call.recording}
        self.server = VoiceKitServer(
            world,
            self.inbound,
            self.books,
            self.faults,
            self.clock,
            API_KEY,
            SECRET,
            other_keys=others,
            behaviour=behaviour,
        )
        self.channel: grpc.aio.Channel
        self.address = ""
        self.secure_address = ""

    def metadata(self, service: str, key: str = API_KEY, **extra: str) -> tuple[tuple[str, str], ...]:
        """Call metadata with a token for the service's scope."""
        scope = ".".join(service.split(".")[:3])
        named = ((name.replace("_", "-"), value) for name, value in extra.items())
        return (("authorization", f"Bearer {token(scope, key=key)}"), *named)

    async def call(self, service: str, rpc: str, request: Message, **options: Any) -> Any:
        """The answer of a unary call; `key` and metadata as keywords; grpc.aio.AioRpcError on a refusal."""
        timeout = options.pop("timeout", 60)
        invoke = self.channel.unary_unary(
            f"/{service}/{rpc}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=getattr(ANSWERS.get(rpc), "FromString", None),
        )
        return await invoke(request, metadata=self.metadata(service, **options), timeout=timeout)

    async def submit(self, number: int, *, group: str = "", config: Any = None, **options: Any) -> lr.Operation:
        """Upload recording `number` and ask for its recognition by URI."""
        self.inbound.store(f"{number}.mp3", self.files[number], options.get("key"))
        return await self.submit_audio(
            stt.RecognitionAudio(uri=f"{URI_PREFIX}{number}.mp3"),
            group=group,
            config=config or configured(channels=1 if number == 2 else 2),
            **options,
        )

    async def submit_audio(
        self, audio: stt.RecognitionAudio, *, config: stt.RecognitionConfig, group: str = "", **options: Any
    ) -> lr.Operation:
        """LongRunningRecognize as asked."""
        request = stt.LongRunningRecognizeRequest(config=config, audio=audio, group=group)
        answer = await self.call(STT, "LongRunningRecognize", request, **options)
        assert isinstance(answer, lr.Operation)
        return answer

    async def get(self, operation_id: str, **options: Any) -> lr.Operation:
        """GetOperation."""
        answer = await self.call(OPERATIONS, "GetOperation", lr.GetOperationRequest(id=operation_id), **options)
        assert isinstance(answer, lr.Operation)
        return answer

    async def wait(self, operation_id: str, timeout_s: float | None = None) -> lr.Operation:
        """WaitOperation."""
        request = lr.WaitOperationRequest(id=operation_id)
        if timeout_s is not None:
            request.timeout.FromMilliseconds(round(timeout_s * 1000))
        answer = await self.call(OPERATIONS, "WaitOperation", request)
        assert isinstance(answer, lr.Operation)
        return answer

    async def finish(self, operation: lr.Operation) -> stt.RecognizeResponse:
        """The result of an operation, waited for."""
        while operation.state not in (lr.DONE, lr.FAILED):
            operation = await self.wait(operation.id, 0.2)
        response = stt.RecognizeResponse()
        assert operation.state == lr.DONE, operation.error.message
        assert operation.response.Unpack(response)
        return response

    async def listened_to(self) -> None:
        """Until somebody waits for an operation, or watches."""
        while not self.server.operations._account(API_KEY).listeners:  # noqa: ASYNC110 - the service tells nobody
            await asyncio.sleep(0.01)

    def becomes(self, operation: lr.Operation, state: lr.OperationState) -> None:
        """What a timer would do to an operation: its next state, now."""
        account = self.server.operations._account(API_KEY)
        self.server.operations._become(account, account.operations[operation.id], state)

    def counts(self) -> dict[str, int]:
        """The books' counts of VoiceKit; empty before the first call."""
        counts = self.books.as_dict().get("voicekit", {"counts": {}})["counts"]
        assert isinstance(counts, dict)
        return counts


def configured(**changes: Any) -> stt.RecognitionConfig:
    """A config that is true of the stereo recordings, but for `changes` (encoding, rate, channels, any other field)."""
    return stt.RecognitionConfig(
        encoding=changes.pop("encoding", stt.MPEG_AUDIO),
        sample_rate_hertz=changes.pop("rate", 8000),
        num_channels=changes.pop("channels", 2),
        **changes,
    )


@asynccontextmanager
async def bench(
    folder: Path, *, certificate: tuple[Path, Path] | None = None, **behaviour: Any
) -> AsyncIterator[Bench]:
    """A Bench that is up, with a certificate over TLS too; operations take 0.04 s unless told otherwise."""
    served = Bench(small_world(folder), Behaviour(**{"queued_s": 0.02, "processing_s": 0.02, **behaviour}))
    port = await served.server.start(certificate=certificate)
    served.address, served.secure_address = f"127.0.0.1:{port}", f"127.0.0.1:{served.server.secure_port}"
    try:
        async with grpc.aio.insecure_channel(
            served.address,
            options=[("grpc.max_send_message_length", 40_000_000), ("grpc.max_receive_message_length", 40_000_000)],
        ) as channel:
            served.channel = channel
            yield served
    finally:
        await served.server.stop()
