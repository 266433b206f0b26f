"""VoiceKit over gRPC: SpeechToText and Operations, plaintext and TLS, as strict as facts/voicekit.md section 5.

Here: what the calls do, and their books. Beside it: `voicekit_calls` (who is let in, faults), `voicekit_auth` (tokens),
`voicekit_operations` (life cycle), `voicekit_recognition` and `voicekit_pcm` (what is heard), `voicekit_manner` (how an answer
is spoilt), `voicekit_behaviour` (switches), `voicekit_ports`. Not here: the `inbound` storage, which is HTTP (`inbound.py`).

Fault kinds of service "voicekit". A rule's `match` is looked for in the label, which is the rpc's name, and behind it the
x-client-request-id of a recognition and its object's name (or the audio's sha256), or the id of the operation asked for:
"LongRunningRecognize call-7 acme/7.mp3", "GetOperation 104". So a rule may strike one recording.

  nothing was done: unavailable_before (14) · deadline_before (4) · internal (13) · aborted (10) · unknown (2) · exhausted (8) ·
    unauthenticated (16) · permission_denied (7) · silent_before (no answer until the client leaves, or `value` s, then 14)
  carried out, the answer is lost: unavailable_after · deadline_after · internal_after · aborted_after · unknown_after ·
    silent_after
  slow (`value` seconds before the answer)
  on recognition, of the result: empty (no results) · blank (adds results without alternatives and without text) · garbage ·
    no_words · channels_swapped · dual_mono (each phrase on both channels) · negative_confidence ·
    order (`value`: time, channel or shuffled)
  on LongRunningRecognize, of the operation: failed (`value`: gRPC code of its error, 13 by default) · slow_operation (`value`
    more seconds of processing) · stuck (never ends; `value` "enqueued": never begins) · late_listing (`value` seconds until
    it is in listings; none: never)
  on GetOperation and WaitOperation: expired (the operation is forgotten, then 5)
  on WatchOperations: watch_cut (13 after `value` seconds of listening, section 6)

Books, service "voicekit": counts by rpc, "submitted", "audio_seconds" (started seconds), "over_quota" (refusals by either
quota), "planned_ms" (time that accepted operations take, scaled; the bound of N slots is its Nth part);
items at each accepted submission: "recording" (by sha256 of the audio), "request_id", "submission" (request id, space,
recording), "config" ("MPEG_AUDIO 8000 2"); items "peak_operations" (most in progress at once, by API key) and
"peak_open_calls" (most of one key at once, refused ones too, by rpc); cost in RUB.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.inbound import BUCKET, InboundStorage
from dialog_assets.sandbox.voicekit_auth import RefusedError
from dialog_assets.sandbox.voicekit_behaviour import MANNERS, QUOTA_TEXT, Behaviour, failure
from dialog_assets.sandbox.voicekit_calls import SERVICE, Call, Context, Gate
from dialog_assets.sandbox.voicekit_manner import CHANGES, garbage, ordered
from dialog_assets.sandbox.voicekit_operations import Operations, Outcome, check_filter, exact_id, matches
from dialog_assets.sandbox.voicekit_ports import MESSAGE_LIMIT, add_tls, plaintext_server
from dialog_assets.sandbox.voicekit_recognition import Audio, Content, Recogniser, Sound, check_config
from dialog_assets.sandbox.world.model import World
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2

__all__ = ["OPERATIONS", "QUOTA_TEXT", "STT", "URI_PREFIX", "Behaviour", "VoiceKitServer"]

STT = "tinkoff.cloud.stt.v1.SpeechToText"
OPERATIONS = "tinkoff.cloud.longrunning.v1.Operations"
URI_PREFIX = f"storage://s3.api.tinkoff.ai/{BUCKET}/"
WATCH_CHUNK = 100
WATCH_CUT_TEXT = "Received RST_STREAM with error code 0"
# Roubles a second: 0.18 a minute deferred, 0.48 at once, 0.72 streamed (facts/voicekit.md 3.4).
RUB_PER_SECOND = {
    "LongRunningRecognize": Decimal("0.003"),
    "Recognize": Decimal("0.008"),
    "StreamingUnaryRecognize": Decimal("0.008"),
    "StreamingRecognize": Decimal("0.012"),
}


class VoiceKitServer:
    """The gRPC service. `other_keys` are further accounts (API key → secret in base64), isolated from the first.

    `behaviour` may be replaced while it serves; what was accepted before keeps its times.
    """

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
        self._first_behaviour = behaviour or Behaviour()
        secrets = {api_key: secret_key, **(other_keys or {})}
        self._gate = Gate(books, faults, secrets, self._first_behaviour, latency_ms / 1000)
        self._recogniser = Recogniser(world)
        self._inbound = inbound
        self._books = books
        self._submissions: Counter[str] = Counter()
        self.secure_port: int | None = None
        self._server: grpc.aio.Server | None = None

    @property
    def behaviour(self) -> Behaviour:
        """The switches in force."""
        return self._gate.behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self._gate.behaviour = behaviour

    async def start(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        secure_port: int | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> int:
        """Serve on `host`, plaintext, on a free port if `port` is 0; returns the port. OSError if the port is taken.

        With `certificate` (PEM files of it and its key) the same is served over TLS on `secure_port`; 0 is any free one that
        ends in 443, as clients take such a port, and only such, for TLS (section 2). `self.secure_port` tells which it is.
        """
        handlers = (self._speech_to_text(), self._operations_service())
        server, bound = plaintext_server(handlers, host, port)
        if certificate is not None:
            self.secure_port = add_tls(server, certificate, host, secure_port or 0)
        self._server = server
        await server.start()
        return bound

    def reset(self) -> None:
        """Forget every operation, behave as at the start; ids and submissions count anew."""
        self.behaviour = self._first_behaviour
        self.operations.reset()
        self._submissions.clear()

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

    async def _recognize(self, request: stt_pb2.RecognizeRequest, context: Context) -> stt_pb2.RecognizeResponse:
        async with self._gate.call(context, STT, "Recognize") as call:
            check_config(request.config)
            if request.audio.WhichOneof("audio_source") == "uri":
                raise _invalid("audio.uri is supported by LongRunningRecognize only")
            return await self._at_once(call, request.config, request.audio.content)

    async def _long_running_recognize(
        self, request: stt_pb2.LongRunningRecognizeRequest, context: Context
    ) -> longrunning_pb2.Operation:
        about = request.audio.uri.removeprefix(URI_PREFIX)
        async with self._gate.call(context, STT, "LongRunningRecognize", about) as call:
            check_config(request.config)
            self._check_quota(call)
            data = self._audio(call, request.audio)
            audio: Audio | None = None
            outcome: Outcome
            if isinstance(data, RefusedError):
                outcome = self._verdict(data)
            else:
                audio = await self._recogniser.examine(request.config, data)
                problem = self._problem(audio)
                outcome = self._verdict(problem) if problem else self._hear(call, request.config, audio)
            failed = self._gate.strike(call, "failed")
            if failed is not None:
                outcome = failure(failed)
            # Again, as others were let in meanwhile; from here to the end nothing is awaited.
            self._check_quota(call)
            return self._accept(call, request, audio, outcome)

    def _check_quota(self, call: Call) -> None:
        limit = self.behaviour.max_operations
        if limit is not None and self.operations.in_progress(call.api_key) >= limit:
            raise self._gate.over_quota()

    def _accept(
        self, call: Call, request: stt_pb2.LongRunningRecognizeRequest, audio: Audio | None, outcome: Outcome
    ) -> longrunning_pb2.Operation:
        recording = audio.sha256 if audio else call.label
        self._submissions[recording] += 1
        times = self.behaviour.times(recording, self._submissions[recording], audio.seconds if audio else 0.0)
        queued_s, processing_s = self._slowed(call, *times)
        late = self._gate.strike(call, "late_listing")
        listing_delay_s = self.behaviour.listing_delay_s
        if late is not None:
            listing_delay_s = math.inf if late.value is None else float(late.value)
        self._write_down(call, request.config, audio)
        if queued_s + processing_s < math.inf:
            self._books.count(SERVICE, "planned_ms", round((queued_s + processing_s) * 1000))
        operation = self.operations.submit(
            call.api_key,
            group=request.group,
            request_id=call.request_id,
            outcome=outcome,
            queued_s=queued_s,
            processing_s=processing_s,
            listing_delay_s=listing_delay_s,
        )
        in_progress = self.operations.in_progress(call.api_key)
        self._books.peak(SERVICE, "peak_operations", call.api_key, in_progress)
        return operation

    def _slowed(self, call: Call, queued_s: float, processing_s: float) -> tuple[float, float]:
        slow = self._gate.strike(call, "slow_operation")
        stuck = self._gate.strike(call, "stuck")
        if stuck is not None:
            return (math.inf, processing_s) if stuck.value == "enqueued" else (queued_s, math.inf)
        return queued_s, processing_s + (float(slow.value) if slow else 0)

    async def _streaming_unary_recognize(
        self, requests: AsyncIterator[stt_pb2.StreamingUnaryRecognizeRequest], context: Context
    ) -> stt_pb2.RecognizeResponse:
        async with self._gate.call(context, STT, "StreamingUnaryRecognize") as call:
            first, data = await _collect(requests)
            if first is None or first.WhichOneof("streaming_unary_request") != "config":
                raise _invalid("the first message must hold config")
            check_config(first.config, streaming=True)
            return await self._at_once(call, first.config, data)

    async def _streaming_recognize(
        self, requests: AsyncIterator[stt_pb2.StreamingRecognizeRequest], context: Context
    ) -> AsyncIterator[stt_pb2.StreamingRecognizeResponse]:
        async with self._gate.call(context, STT, "StreamingRecognize") as call:
            first, data = await _collect(requests)
            if first is None or first.WhichOneof("streaming_request") != "streaming_config":
                raise _invalid("the first message must hold streaming_config")
            config = first.streaming_config.config
            check_config(config, streaming=True)
            results = (await self._at_once(call, config, data)).results
            for result in results[:1] if first.streaming_config.single_utterance else results:
                final = stt_pb2.StreamingRecognitionResult(recognition_result=result, is_final=True)
                yield stt_pb2.StreamingRecognizeResponse(results=[final])

    async def _get_operation(
        self, request: longrunning_pb2.GetOperationRequest, context: Context
    ) -> longrunning_pb2.Operation:
        async with self._gate.call(context, OPERATIONS, "GetOperation", request.id) as call:
            self._maybe_expire(call, request.id)
            return self.operations.get(call.api_key, request.id)

    async def _wait_operation(
        self, request: longrunning_pb2.WaitOperationRequest, context: Context
    ) -> longrunning_pb2.Operation:
        async with self._gate.call(context, OPERATIONS, "WaitOperation", request.id) as call:
            self._maybe_expire(call, request.id)
            with self.operations.changes(call.api_key) as changes:
                self.operations.get(call.api_key, request.id)
                limit_s = request.timeout.ToNanoseconds() / 1e9 if request.HasField("timeout") else None
                try:
                    async with asyncio.timeout(limit_s):
                        while (await changes.get())[0] != request.id:
                            continue
                except TimeoutError:
                    pass
            return self.operations.get(call.api_key, request.id)

    async def _list_operations(
        self, request: longrunning_pb2.ListOperationsRequest, context: Context
    ) -> longrunning_pb2.ListOperationsResponse:
        async with self._gate.call(context, OPERATIONS, "ListOperations", request.filter.exact_group) as call:
            return self.operations.page(call.api_key, request)

    async def _watch_operations(
        self, request: longrunning_pb2.WatchOperationsRequest, context: Context
    ) -> AsyncIterator[longrunning_pb2.WatchOperationsResponse]:
        async with self._gate.call(context, OPERATIONS, "WatchOperations", request.filter.exact_group) as call:
            check_filter(request.filter)
            with self.operations.changes(call.api_key) as changes:
                for part in _parted(self.operations.select(call.api_key, request.filter)):
                    chunk = longrunning_pb2.OperationsInitialState(operations=part)
                    yield longrunning_pb2.WatchOperationsResponse(initial_state=chunk)
                yield longrunning_pb2.WatchOperationsResponse(init_finished=Empty())
                cut = self._gate.strike(call, "watch_cut")
                ends_at = asyncio.get_running_loop().time() + float(cut.value or 0) if cut else None
                while request.listen_for_updates:
                    try:
                        async with asyncio.timeout_at(ends_at):
                            await asyncio.sleep(0)  # a change that is there already must not outrun the cut
                            _, operation = await changes.get()
                    except TimeoutError:
                        raise RefusedError(grpc.StatusCode.INTERNAL, WATCH_CUT_TEXT) from None
                    if operation is not None and matches(request.filter, operation.id, operation.group):
                        update = longrunning_pb2.OperationsUpdate(operations=[operation])
                        yield longrunning_pb2.WatchOperationsResponse(update=update)

    async def _delete_operation(self, request: longrunning_pb2.DeleteOperationRequest, context: Context) -> Empty:
        async with self._gate.call(context, OPERATIONS, "DeleteOperation", request.filter.exact_id) as call:
            self.operations.forget(call.api_key, exact_id(request.filter))
            return Empty()

    async def _cancel_operation(self, request: longrunning_pb2.CancelOperationRequest, context: Context) -> Empty:
        async with self._gate.call(context, OPERATIONS, "CancelOperation", request.filter.exact_id) as call:
            self.operations.cancel(call.api_key, exact_id(request.filter))
            return Empty()

    def _audio(self, call: Call, audio: stt_pb2.RecognitionAudio) -> Sound | RefusedError:
        """The audio, or why an object cannot be had; RefusedError (3) is raised for a malformed request."""
        source = audio.WhichOneof("audio_source")
        if source == "content" and audio.content:
            return Content(audio.content)
        if source != "uri" or not audio.uri.strip():
            raise _invalid("audio has neither content nor uri")
        name = audio.uri.removeprefix(URI_PREFIX)
        if not name or name == audio.uri:
            raise _invalid(f"audio.uri does not begin with {URI_PREFIX}")
        stored = self._inbound.objects_of(call.api_key).stored(name)
        if stored is not None:
            return stored
        return RefusedError(grpc.StatusCode[self.behaviour.missing_object], "audio.uri: no such object")

    def _verdict(self, problem: RefusedError) -> longrunning_pb2.Status:
        if self.behaviour.bad_audio == "refused":
            raise problem
        return longrunning_pb2.Status(code=problem.code.value[0], message=problem.text)

    def _problem(self, audio: Audio) -> RefusedError | None:
        if audio.untrue is not None and self.behaviour.untrue_config != "told":
            return None
        return _invalid(audio.problem) if audio.problem else None

    async def _at_once(self, call: Call, config: stt_pb2.RecognitionConfig, data: bytes) -> stt_pb2.RecognizeResponse:
        if not data:
            raise _invalid("audio has no content")
        audio = await self._recogniser.examine(config, Content(data))
        problem = self._problem(audio)
        if problem is not None:
            raise problem
        self._write_down(call, config, audio)
        return self._hear(call, config, audio)

    def _hear(self, call: Call, config: stt_pb2.RecognitionConfig, audio: Audio) -> stt_pb2.RecognizeResponse:
        named = replace(call, label=f"{call.label} {audio.sha256}")
        if audio.untrue is not None and self.behaviour.untrue_config == "silence":
            return stt_pb2.RecognizeResponse()
        response = self._recogniser.recognise(config, audio, self.behaviour.order)
        if audio.untrue is not None:
            return garbage(response, pace=audio.untrue, channels=config.num_channels)
        for kind in MANNERS:
            fault = self._gate.strike(named, kind)
            if fault is not None and kind == "order":
                response = ordered(response, str(fault.value), random.Random(audio.sha256))
            elif fault is not None:
                response = CHANGES[kind](response)
        return response

    def _write_down(self, call: Call, config: stt_pb2.RecognitionConfig, audio: Audio | None) -> None:
        self._books.count(SERVICE, "submitted")
        encoding = stt_pb2.AudioEncoding.Name(config.encoding)
        self._books.item(SERVICE, "config", f"{encoding} {config.sample_rate_hertz} {config.num_channels}")
        if call.request_id:
            self._books.item(SERVICE, "request_id", call.request_id)
        self._books.item(SERVICE, "submission", f"{call.request_id} {audio.sha256 if audio else ''}")
        if audio is not None:
            seconds = math.ceil(audio.seconds)
            self._books.item(SERVICE, "recording", audio.sha256)
            self._books.count(SERVICE, "audio_seconds", seconds)
            self._books.cost(SERVICE, "RUB", RUB_PER_SECOND[call.rpc] * seconds)

    def _maybe_expire(self, call: Call, operation_id: str) -> None:
        if self._gate.strike(call, "expired"):
            self.operations.forget(call.api_key, operation_id)


def _parted(operations: Sequence[longrunning_pb2.Operation]) -> Iterator[list[longrunning_pb2.Operation]]:
    """All operations in lists of a bounded number and size; one empty list if there are none."""
    part: list[longrunning_pb2.Operation] = []
    size = 0
    for operation in operations:
        if part and (len(part) == WATCH_CHUNK or size + operation.ByteSize() > MESSAGE_LIMIT // 2):
            yield part
            part, size = [], 0
        part.append(operation)
        size += operation.ByteSize()
    yield part


def _unary(behaviour: Callable[..., Any], request: type[Message]) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(behaviour, request.FromString, _bytes)


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


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
