"""VoiceKit over gRPC: SpeechToText and Operations on one plaintext port, as strict as facts/voicekit.md section 5.

Here: the calls, their checks, faults and books. Beside it: `voicekit_auth` (tokens), `voicekit_operations` (life cycle),
`voicekit_recognition` (what is heard). Not here: the `inbound` storage, which is HTTP (`inbound.py`).

Fault kinds of service "voicekit"; the label is the rpc's name, such as LongRunningRecognize:
  unavailable_before (14, nothing was accepted) · unavailable_after (14 although the call was carried out) · exhausted (8) ·
  internal (13) · aborted (10) · unauthenticated (16) · slow (`value` seconds before the answer) ·
  on recognition: empty (no results) · blank (adds results without alternatives and without text) ·
  on LongRunningRecognize: failed (the operation ends FAILED) · slow_operation (`value` more seconds of processing) ·
  on GetOperation and WaitOperation: expired (the operation is forgotten, then 5).

Books, service "voicekit": counts by rpc, "submitted", "audio_seconds" (started seconds); items "recording" by sha256 of the
audio and "request_id" at each accepted submission; cost in RUB.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.inbound import BUCKET, InboundStorage
from dialog_assets.sandbox.voicekit_auth import RefusedError, check_token
from dialog_assets.sandbox.voicekit_operations import Operations, Outcome, check_filter, exact_id, matches
from dialog_assets.sandbox.voicekit_recognition import Audio, Order, Recogniser, check_config
from dialog_assets.sandbox.world.model import World
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2

SERVICE = "voicekit"
STT = "tinkoff.cloud.stt.v1.SpeechToText"
OPERATIONS = "tinkoff.cloud.longrunning.v1.Operations"
URI_PREFIX = f"storage://s3.api.tinkoff.ai/{BUCKET}/"
MESSAGE_LIMIT = 32_000_000
QUOTA_TEXT = "Max open connection limit exceeded, please retry later"
WATCH_CHUNK = 100
# Roubles a second: 0.18 a minute deferred, 0.48 at once, 0.72 streamed (facts/voicekit.md 3.4).
RUB_PER_SECOND = {
    "LongRunningRecognize": Decimal("0.003"),
    "Recognize": Decimal("0.008"),
    "StreamingUnaryRecognize": Decimal("0.008"),
    "StreamingRecognize": Decimal("0.012"),
}
CALL_FAULTS = {
    "unavailable_before": (grpc.StatusCode.UNAVAILABLE, "service is temporarily unavailable"),
    "exhausted": (grpc.StatusCode.RESOURCE_EXHAUSTED, QUOTA_TEXT),
    "internal": (grpc.StatusCode.INTERNAL, "internal error"),
    "aborted": (grpc.StatusCode.ABORTED, "call was cut by a service release"),
    "unauthenticated": (grpc.StatusCode.UNAUTHENTICATED, "signature validation failed"),
}

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class Behaviour:
    """What is unknown or variable about the real service; seconds are of the real clock.

    `bad_audio`: whether a missing object, undecodable audio or a config that is not true of it is refused at submission,
    or makes the operation FAILED (facts/voicekit.md 3.6: unknown). `max_open_calls` is counted per rpc.
    """

    queued_s: float = 0.2
    processing_s: float = 0.3
    processing_per_audio_second_s: float = 0.0
    max_open_calls: int = 50
    bad_audio: Literal["refused", "failed"] = "refused"
    order: Order = "varied"


class VoiceKitServer:
    """The gRPC service. `other_keys` are further accounts (API key → secret in base64), isolated from the first."""

    def __init__(
        self,
        world: World,
        inbound: InboundStorage,
        books: Books,
        faults: Faults,
        clock: Clock,
        api_key: str,
        secret_key: str,
        *,
        other_keys: Mapping[str, str] | None = None,
        behaviour: Behaviour | None = None,
        latency_ms: float = 0,
    ) -> None:
        self.operations = Operations(clock)
        self._behaviour = behaviour or Behaviour()
        self._recogniser = Recogniser(world, self._behaviour.order)
        self._inbound = inbound
        self._books = books
        self._faults = faults
        self._secrets = {api_key: secret_key, **(other_keys or {})}
        self._latency_s = latency_ms / 1000
        self._open: Counter[str] = Counter()
        self._server: grpc.aio.Server | None = None

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> int:
        """Serve on `host`, on a free port if `port` is 0; returns the port. OSError if the port is taken."""
        options = [("grpc.max_receive_message_length", MESSAGE_LIMIT), ("grpc.so_reuseport", 0)]
        bound = 443
        # Clients take a port that ends in 443 for TLS (facts/voicekit.md section 2).
        while str(bound).endswith("443"):
            server = grpc.aio.server(options=options)
            server.add_generic_rpc_handlers((self._speech_to_text(), self._operations_service()))
            try:
                bound = server.add_insecure_port(f"{host}:{port}")
            except RuntimeError as error:
                raise OSError(str(error)) from error
            if port:
                break
        self._server = server
        await server.start()
        return bound

    async def stop(self) -> None:
        """Cut what is open and stop; operations are kept for `operations.dump`."""
        self.operations.stop()
        if self._server is not None:
            await self._server.stop(grace=0.1)
            self._server = None

    def _speech_to_text(self) -> grpc.GenericRpcHandler:
        handlers = {
            "Recognize": _unary(self._recognize, stt_pb2.RecognizeRequest),
            "LongRunningRecognize": _unary(self._long_running_recognize, stt_pb2.LongRunningRecognizeRequest),
            "StreamingUnaryRecognize": grpc.stream_unary_rpc_method_handler(
                self._streaming_unary_recognize, stt_pb2.StreamingUnaryRecognizeRequest.FromString, _bytes
            ),
            "StreamingRecognize": grpc.stream_stream_rpc_method_handler(
                self._streaming_recognize, stt_pb2.StreamingRecognizeRequest.FromString, _bytes
            ),
        }
        return grpc.method_handlers_generic_handler(STT, handlers)

    def _operations_service(self) -> grpc.GenericRpcHandler:
        handlers = {
            "GetOperation": _unary(self._get_operation, longrunning_pb2.GetOperationRequest),
            "WaitOperation": _unary(self._wait_operation, longrunning_pb2.WaitOperationRequest),
            "ListOperations": _unary(self._list_operations, longrunning_pb2.ListOperationsRequest),
            "DeleteOperation": _unary(self._delete_operation, longrunning_pb2.DeleteOperationRequest),
            "CancelOperation": _unary(self._cancel_operation, longrunning_pb2.CancelOperationRequest),
            "WatchOperations": grpc.unary_stream_rpc_method_handler(
                self._watch_operations, longrunning_pb2.WatchOperationsRequest.FromString, _bytes
            ),
        }
        return grpc.method_handlers_generic_handler(OPERATIONS, handlers)

    @asynccontextmanager
    async def _call(self, context: Context, service: str, rpc: str) -> AsyncIterator[str]:
        """Everything around a call; gives the caller's API key. A RefusedError inside becomes the call's status."""
        await context.send_initial_metadata((("x-request-id", str(uuid.uuid4())),))
        self._books.count(SERVICE, rpc)
        self._open[rpc] += 1
        try:
            api_key = await self._admit(context, service, rpc)
            yield api_key
            if self._faults.strike(SERVICE, rpc, ["unavailable_after"]):
                raise RefusedError(*CALL_FAULTS["unavailable_before"])
        except RefusedError as refusal:
            await context.abort(refusal.code, refusal.text)
        finally:
            self._open[rpc] -= 1

    async def _admit(self, context: Context, service: str, rpc: str) -> str:
        slow = self._faults.strike(SERVICE, rpc, ["slow"])
        delay = self._latency_s + (float(slow.value) if slow else 0)
        if delay:
            await asyncio.sleep(delay)
        metadata = _metadata(context)
        api_key = check_token(metadata.get("authorization"), service, self._secrets, time.time())
        if metadata.get("x-api-key", api_key) != api_key:
            raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, "x-api-key differs from the token's kid")
        if self._open[rpc] > self._behaviour.max_open_calls:
            self._books.count(SERVICE, "over_quota")
            raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, QUOTA_TEXT)
        fault = self._faults.strike(SERVICE, rpc, list(CALL_FAULTS))
        if fault is not None:
            raise RefusedError(*CALL_FAULTS[fault.kind])
        return api_key

    async def _recognize(self, request: stt_pb2.RecognizeRequest, context: Context) -> stt_pb2.RecognizeResponse:
        async with self._call(context, STT, "Recognize"):
            check_config(request.config)
            if request.audio.WhichOneof("audio_source") == "uri":
                raise _invalid("audio.uri is supported by LongRunningRecognize only")
            return await self._at_once("Recognize", request.config, request.audio.content)

    async def _long_running_recognize(
        self, request: stt_pb2.LongRunningRecognizeRequest, context: Context
    ) -> longrunning_pb2.Operation:
        rpc = "LongRunningRecognize"
        async with self._call(context, STT, rpc) as api_key:
            check_config(request.config)
            data = self._audio(request.audio)
            audio: Audio | None
            outcome: Outcome
            if isinstance(data, RefusedError):
                audio = None
                outcome = self._verdict(data)
            else:
                audio = await self._recogniser.examine(request.config, data)
                problem = _invalid(audio.problem) if audio.problem else None
                outcome = self._verdict(problem) if problem else self._hear(rpc, request.config, audio)
            if self._faults.strike(SERVICE, rpc, ["failed"]):
                outcome = longrunning_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message="recognition failed")
            slow = self._faults.strike(SERVICE, rpc, ["slow_operation"])
            request_id = _metadata(context).get("x-client-request-id", "")
            self._write_down(rpc, audio, request_id)
            behaviour, seconds = self._behaviour, audio.seconds if audio else 0.0
            return self.operations.submit(
                api_key,
                group=request.group,
                request_id=request_id,
                outcome=outcome,
                queued_s=behaviour.queued_s,
                processing_s=behaviour.processing_s
                + behaviour.processing_per_audio_second_s * seconds
                + (float(slow.value) if slow else 0),
            )

    async def _streaming_unary_recognize(
        self, requests: AsyncIterator[stt_pb2.StreamingUnaryRecognizeRequest], context: Context
    ) -> stt_pb2.RecognizeResponse:
        rpc = "StreamingUnaryRecognize"
        async with self._call(context, STT, rpc):
            first, data = await _collect(requests)
            if first is None or first.WhichOneof("streaming_unary_request") != "config":
                raise _invalid("the first message must hold config")
            check_config(first.config, streaming=True)
            return await self._at_once(rpc, first.config, data)

    async def _streaming_recognize(
        self, requests: AsyncIterator[stt_pb2.StreamingRecognizeRequest], context: Context
    ) -> AsyncIterator[stt_pb2.StreamingRecognizeResponse]:
        rpc = "StreamingRecognize"
        async with self._call(context, STT, rpc):
            first, data = await _collect(requests)
            if first is None or first.WhichOneof("streaming_request") != "streaming_config":
                raise _invalid("the first message must hold streaming_config")
            config = first.streaming_config.config
            check_config(config, streaming=True)
            results = (await self._at_once(rpc, config, data)).results
            for result in results[:1] if first.streaming_config.single_utterance else results:
                final = stt_pb2.StreamingRecognitionResult(recognition_result=result, is_final=True)
                yield stt_pb2.StreamingRecognizeResponse(results=[final])

    async def _get_operation(
        self, request: longrunning_pb2.GetOperationRequest, context: Context
    ) -> longrunning_pb2.Operation:
        async with self._call(context, OPERATIONS, "GetOperation") as api_key:
            self._maybe_expire("GetOperation", api_key, request.id)
            return self.operations.get(api_key, request.id)

    async def _wait_operation(
        self, request: longrunning_pb2.WaitOperationRequest, context: Context
    ) -> longrunning_pb2.Operation:
        async with self._call(context, OPERATIONS, "WaitOperation") as api_key:
            self._maybe_expire("WaitOperation", api_key, request.id)
            with self.operations.changes(api_key) as changes:
                self.operations.get(api_key, request.id)
                limit_s = request.timeout.ToNanoseconds() / 1e9 if request.HasField("timeout") else None
                try:
                    async with asyncio.timeout(limit_s):
                        while (await changes.get())[0] != request.id:
                            continue
                except TimeoutError:
                    pass
            return self.operations.get(api_key, request.id)

    async def _list_operations(
        self, request: longrunning_pb2.ListOperationsRequest, context: Context
    ) -> longrunning_pb2.ListOperationsResponse:
        async with self._call(context, OPERATIONS, "ListOperations") as api_key:
            return self.operations.page(api_key, request)

    async def _watch_operations(
        self, request: longrunning_pb2.WatchOperationsRequest, context: Context
    ) -> AsyncIterator[longrunning_pb2.WatchOperationsResponse]:
        async with self._call(context, OPERATIONS, "WatchOperations") as api_key:
            check_filter(request.filter)
            with self.operations.changes(api_key) as changes:
                present = self.operations.select(api_key, request.filter)
                for start in range(0, max(len(present), 1), WATCH_CHUNK):
                    chunk = longrunning_pb2.OperationsInitialState(operations=present[start : start + WATCH_CHUNK])
                    yield longrunning_pb2.WatchOperationsResponse(initial_state=chunk)
                yield longrunning_pb2.WatchOperationsResponse(init_finished=Empty())
                while request.listen_for_updates:
                    _, operation = await changes.get()
                    if operation is not None and matches(request.filter, operation.id, operation.group):
                        update = longrunning_pb2.OperationsUpdate(operations=[operation])
                        yield longrunning_pb2.WatchOperationsResponse(update=update)

    async def _delete_operation(self, request: longrunning_pb2.DeleteOperationRequest, context: Context) -> Empty:
        async with self._call(context, OPERATIONS, "DeleteOperation") as api_key:
            self.operations.forget(api_key, exact_id(request.filter))
            return Empty()

    async def _cancel_operation(self, request: longrunning_pb2.CancelOperationRequest, context: Context) -> Empty:
        async with self._call(context, OPERATIONS, "CancelOperation") as api_key:
            self.operations.cancel(api_key, exact_id(request.filter))
            return Empty()

    def _audio(self, audio: stt_pb2.RecognitionAudio) -> bytes | RefusedError:
        """The audio's bytes, or why an object cannot be had; RefusedError (3) is raised for a malformed request."""
        source = audio.WhichOneof("audio_source")
        if source == "content" and audio.content:
            return audio.content
        if source != "uri" or not audio.uri.strip():
            raise _invalid("audio has neither content nor uri")
        name = audio.uri.removeprefix(URI_PREFIX)
        if not name or name == audio.uri:
            raise _invalid(f"audio.uri does not begin with {URI_PREFIX}")
        data = self._inbound.objects.get(name)
        return RefusedError(grpc.StatusCode.NOT_FOUND, "audio.uri: no such object") if data is None else data

    def _verdict(self, problem: RefusedError) -> longrunning_pb2.Status:
        if self._behaviour.bad_audio == "refused":
            raise problem
        return longrunning_pb2.Status(code=problem.code.value[0], message=problem.text)

    async def _at_once(self, rpc: str, config: stt_pb2.RecognitionConfig, data: bytes) -> stt_pb2.RecognizeResponse:
        if not data:
            raise _invalid("audio has no content")
        audio = await self._recogniser.examine(config, data)
        if audio.problem:
            raise _invalid(audio.problem)
        self._write_down(rpc, audio, "")
        return self._hear(rpc, config, audio)

    def _hear(self, rpc: str, config: stt_pb2.RecognitionConfig, audio: Audio) -> stt_pb2.RecognizeResponse:
        if self._faults.strike(SERVICE, rpc, ["empty"]):
            return stt_pb2.RecognizeResponse()
        response = self._recogniser.recognise(config, audio)
        if self._faults.strike(SERVICE, rpc, ["blank"]):
            response.results.add()
            response.results.add().alternatives.add(transcript=" ", confidence=-1.0)
        return response

    def _write_down(self, rpc: str, audio: Audio | None, request_id: str) -> None:
        self._books.count(SERVICE, "submitted")
        if request_id:
            self._books.item(SERVICE, "request_id", request_id)
        if audio is not None:
            seconds = math.ceil(audio.seconds)
            self._books.item(SERVICE, "recording", audio.sha256)
            self._books.count(SERVICE, "audio_seconds", seconds)
            self._books.cost(SERVICE, "RUB", RUB_PER_SECOND[rpc] * seconds)

    def _maybe_expire(self, rpc: str, api_key: str, operation_id: str) -> None:
        if self._faults.strike(SERVICE, rpc, ["expired"]):
            self.operations.forget(api_key, operation_id)


def _unary(behaviour: Callable[..., Any], request: type[Message]) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(behaviour, request.FromString, _bytes)


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


def _metadata(context: Context) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


async def _collect(requests: AsyncIterator[Any]) -> tuple[Any, bytes]:
    """The first message of a stream, and the audio of all later ones."""
    first: Any = None
    parts: list[bytes] = []
    async for request in requests:
        if first is None:
            first = request
        else:
            parts.append(request.audio_content)
    return first, b"".join(parts)


def _invalid(text: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)
