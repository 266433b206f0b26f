"""VoiceKit as others call it: by bytes written from the facts' numbers, as the vendor's own clients do, and over TLS.

Nothing here goes through the project's client, and only the vendor's way goes through generated code.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dialog_assets.sandbox.certificate import write_certificate
from dialog_assets.sandbox.voicekit import URI_PREFIX
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2 as lr
from dialog_assets.speech.tinkoff.cloud.longrunning.v1.longrunning_pb2_grpc import OperationsStub
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2 as stt
from dialog_assets.speech.tinkoff.cloud.stt.v1.stt_pb2_grpc import SpeechToTextStub
from dialog_assets_tests.sandbox.voicekit_support import API_KEY, Bench, bench, configured, token

STT = "/tinkoff.cloud.stt.v1.SpeechToText/"
OPERATIONS = "/tinkoff.cloud.longrunning.v1.Operations/"

Metadata = tuple[tuple[str, str], ...]


def signed(audience: str, **token_options: Any) -> Metadata:
    return (("authorization", f"Bearer {token(audience, **token_options)}"),)


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes | str) -> bytes:
    """A field as it goes over the wire."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[place] & 0x7F) << shift
        shift += 7
        place += 1
        if not data[place - 1] & 0x80:
            return number, place


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a message's fields."""
    place = 0
    while place < len(data):
        tag, place = read_varint(data, place)
        if tag & 7 == 0:
            value, place = read_varint(data, place)
            yield tag >> 3, value
        elif tag & 7 == 5:
            yield tag >> 3, struct.unpack("<f", data[place : place + 4])[0]
            place += 4
        else:
            length, place = read_varint(data, place)
            yield tag >> 3, data[place : place + length]
            place += length


def test_wire_by_the_numbers(tmp_path: Path) -> None:
    """Messages written and read by the field numbers of the facts alone: submitted, listed, waited for, recognised."""

    async def run() -> None:
        async with bench(tmp_path) as served:
            served.inbound.store("a.mp3", served.files[1])

            async def ask(path: str, request: bytes, audience: str, extra: Metadata = ()) -> bytes:
                invoke: Any = served.channel.unary_unary(path)
                answer = await invoke(request, metadata=(*signed(audience), *extra), timeout=60)
                assert isinstance(answer, bytes)
                return answer

            config = field(1, 12) + field(2, 8000) + field(4, 2) + field(8, 1) + field(12, 2) + field(15, 1)
            request = field(1, config) + field(2, field(2, f"{URI_PREFIX}a.mp3")) + field(3, "day")
            extra = (("x-client-request-id", "mine"),)
            made = dict(fields(await ask(STT + "LongRunningRecognize", request, "tinkoff.cloud.stt", extra)))
            assert made == {1: b"101", 2: b"day", 7: b"mine"}  # ENQUEUED is 0 and not written
            scope = "tinkoff.cloud.longrunning"
            listing = field(1, field(5, "day")) + field(2, 10)
            page = dict(fields(await ask(OPERATIONS + "ListOperations", listing, scope)))
            assert dict(fields(page[1]))[7] == b"mine"
            state = made
            while state.get(4, 0) < 2:
                waiting = field(1, "101") + field(2, field(2, 200_000_000))
                state = dict(fields(await ask(OPERATIONS + "WaitOperation", waiting, scope)))
            assert state[4] == 2
            packed = dict(fields(state[6]))
            assert packed[1] == b"type.googleapis.com/tinkoff.cloud.stt.v1.RecognizeResponse"
            results = [list(fields(result)) for number, result in fields(packed[2]) if number == 1]
            assert {dict(result).get(2, 0) for result in results} == {0, 1}
            for result in results:
                alternatives = [dict(fields(value)) for number, value in result if number == 1]
                assert 1 <= len(alternatives) <= 2
                assert alternatives[0][1].decode().startswith("Слово")
                assert isinstance(alternatives[0][2], float)
                start, end = (dict(fields(dict(result)[number])) for number in (3, 4))
                seconds = [one.get(1, 0) + one.get(2, 0) / 1e9 for one in (start, end)]
                assert 0 <= seconds[0] < seconds[1] <= 25

    asyncio.run(run())


def test_as_the_vendor_calls(tmp_path: Path) -> None:
    """Blocking stubs over TLS with tokens of every style of the vendor's clients, and the loops of its examples."""

    async def run() -> None:
        certificate = write_certificate(tmp_path)
        async with bench(tmp_path, certificate=certificate) as served:
            served.inbound.store("default_name_2026-03-02 09:00:00+1", served.files[1])
            await asyncio.to_thread(vendor_calls, served, certificate[0].read_bytes())
            assert served.counts()["LongRunningRecognize"] == 3

    asyncio.run(run())


def vendor_calls(served: Bench, roots: bytes) -> None:
    """What the examples and the Python client do, each in its own style."""
    padded = {"padded": True, "exp": int(time.time()) + 600}
    with grpc.secure_channel(served.secure_address, grpc.ssl_channel_credentials(roots)) as channel:
        stub: Any = SpeechToTextStub(channel)  # type: ignore[no-untyped-call]
        operations: Any = OperationsStub(channel)  # type: ignore[no-untyped-call]
        # The Python client: padded token, API key beside it, an object's name as it is.
        stt_metadata = (*signed("tinkoff.cloud.stt", **padded), ("x-api-key", API_KEY))
        uri = stt.RecognitionAudio(uri=f"{URI_PREFIX}default_name_2026-03-02 09:00:00+1")
        request = stt.LongRunningRecognizeRequest(config=configured(), audio=uri, group="group_name")
        operation = stub.LongRunningRecognize(request, metadata=stt_metadata)
        # The Python example: one token for all polls, a poll now and then.
        polling = signed("tinkoff.cloud.longrunning", **padded)
        while operation.state not in (lr.DONE, lr.FAILED):
            time.sleep(0.01)
            operation = operations.GetOperation(lr.GetOperationRequest(id=operation.id), metadata=polling)
        response = stt.RecognizeResponse()
        assert operation.response.Unpack(response)
        assert response.results
        # The group example: a request id for each, one watch, in Node's style of token: the time of its end as a float.
        request.group = "watched"
        for number in range(2):
            extra = (("x-client-request-id", f"{number}"),)
            stub.LongRunningRecognize(request, metadata=(*signed("tinkoff.cloud.stt"), *extra))
        watch = lr.WatchOperationsRequest(filter=lr.OperationFilter(exact_group="watched"), listen_for_updates=True)
        finished: set[str] = set()
        stream = operations.WatchOperations(watch, metadata=signed("tinkoff.cloud.longrunning"), timeout=60)
        for message in stream:
            kind = message.WhichOneof("operations")
            if kind != "init_finished":
                changed = getattr(message, kind).operations
                finished |= {one.x_client_request_id for one in changed if one.state == lr.DONE}
            if finished == {"0", "1"}:
                stream.cancel()
                break
        # Go: the service's full name as audience; the call also tells its own id.
        audio = stt.RecognitionAudio(content=served.files[1])
        answer, call = stub.Recognize.with_call(
            stt.RecognizeRequest(config=configured(), audio=audio),
            metadata=signed("tinkoff.cloud.stt.v1.SpeechToText"),
        )
        assert answer.results
        assert dict(call.initial_metadata())["x-request-id"]


TRUSTING = """
import grpc, sys
channel = grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials())
grpc.channel_ready_future(channel).result(60)
"""


def test_trusted_by_the_environment_alone(tmp_path: Path) -> None:
    """A client with default credentials trusts the certificate that its environment names, and no other does."""

    async def run() -> None:
        certificate = write_certificate(tmp_path)
        async with bench(tmp_path, certificate=certificate) as served:
            assert served.secure_address.endswith("443")
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                TRUSTING,
                served.secure_address,
                env={**os.environ, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certificate[0])},
            )
            assert await process.wait() == 0
            async with grpc.aio.secure_channel(served.secure_address, grpc.ssl_channel_credentials()) as public:
                get: Any = public.unary_unary(OPERATIONS + "GetOperation")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await get(b"", timeout=60)
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE

    asyncio.run(run())
