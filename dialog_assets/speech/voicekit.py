"""T-Bank (Tinkoff) VoiceKit behind the recogniser port: deferred recognition by URI over gRPC.

Here: which answers are repeated, which are errors and of what type, and how VoiceKit's messages become the port's values.
Not here: when to poll and for how long (the caller's), tokens (`auth.py`), the storage (`inbound.py`).
Source: facts/voicekit.md; the section is named where it decides something.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf import json_format

from dialog_assets.dialogs import Word
from dialog_assets.speech import auth
from dialog_assets.speech.errors import (
    OperationExpired,
    RecogniserBusy,
    RecogniserRefused,
    RecogniserUnavailable,
    RecordingRejected,
    SpeechError,
    UnexpectedAnswer,
)
from dialog_assets.speech.inbound import Inbound
from dialog_assets.speech.port import AudioFormat, Encoding, Failed, Pending, Phrase, Recognised
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2, longrunning_pb2_grpc
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2, stt_pb2_grpc

log = logging.getLogger(__name__)

MESSAGE_LIMIT = 32 * 1024 * 1024
PAGE_SIZE = 25
"""Operations a page: an hour's answer is near 1 MB and a listing may carry answers, so this stays below the limit."""

SAMPLE_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000})
ENCODINGS: dict[Encoding, stt_pb2.AudioEncoding] = {
    "mp3": stt_pb2.MPEG_AUDIO,
    "pcm_s16le": stt_pb2.LINEAR16,
    "pcm_alaw": stt_pb2.ALAW,
    "pcm_mulaw": stt_pb2.MULAW,
    "aac_adts": stt_pb2.ADTS_AAC,
}

_Code = grpc.StatusCode
_QUOTA = frozenset({_Code.RESOURCE_EXHAUSTED})
_FAULTS = frozenset(
    {_Code.UNKNOWN, _Code.DEADLINE_EXCEEDED, _Code.ABORTED, _Code.INTERNAL, _Code.UNAVAILABLE, _Code.CANCELLED}
)
_SETUP = {
    _Code.UNAUTHENTICATED: "check VOICEKIT_API_KEY and VOICEKIT_SECRET_KEY",
    _Code.PERMISSION_DENIED: "the key lacks the right: ask the vendor to add speech recognition to it",
    _Code.UNIMPLEMENTED: "the address offers no such service: check VOICEKIT_ENDPOINT",
}

_ENDPOINT = re.compile(r"([^\s/:\[\]]+|\[[0-9a-fA-F:.]+\]):\d+")

_Request = TypeVar("_Request", contravariant=True)
_Answer = TypeVar("_Answer", covariant=True)


class _Method(Protocol[_Request, _Answer]):
    """A unary method of a generated stub, which comes without types."""

    def __call__(
        self, request: _Request, *, timeout: float, metadata: Sequence[tuple[str, str]]
    ) -> Awaitable[_Answer]: ...


class VoiceKit:
    """One account's recogniser; an async context manager that implements `port.Recogniser`.

    endpoint: host:port, TLS if the port ends in 443, else plaintext (section 2).
    storage_url: base URL of the storage that holds the bucket `inbound`.
    deadline_s: seconds that one request may take.
    attempts: tries of one request that is safe to repeat; waits between them start at `backoff_s` and double.
    now: gives Unix seconds for the tokens' end.
    """

    name = "voicekit"

    def __init__(
        self,
        endpoint: str,
        api_key: str,
        secret_key: str,
        storage_url: str = "https://s3.api.tinkoff.ai",
        *,
        deadline_s: float = 30.0,
        attempts: int = 5,
        backoff_s: float = 0.5,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not _ENDPOINT.fullmatch(endpoint):
            raise RecogniserRefused(
                "VoiceKit's address is not host:port, such as api.tinkoff.ai:443: set VOICEKIT_ENDPOINT"
            )
        self._endpoint = endpoint
        self._tokens = auth.Tokens(api_key, secret_key, now=now)
        self._secret_key = secret_key.strip()
        self._inbound = Inbound(storage_url, api_key, secret_key, attempts=attempts)
        self._deadline_s = deadline_s
        self._attempts = attempts
        self._backoff_s = backoff_s

    def __repr__(self) -> str:
        return f"VoiceKit({self._endpoint})"

    async def __aenter__(self) -> Self:
        options = [
            ("grpc.max_send_message_length", MESSAGE_LIMIT),
            ("grpc.max_receive_message_length", MESSAGE_LIMIT),
        ]
        if self._endpoint.endswith("443"):
            self._channel = grpc.aio.secure_channel(self._endpoint, grpc.ssl_channel_credentials(), options)
        else:
            self._channel = grpc.aio.insecure_channel(self._endpoint, options)
        stt: Any = stt_pb2_grpc.SpeechToTextStub(self._channel)  # type: ignore[no-untyped-call]
        operations: Any = longrunning_pb2_grpc.OperationsStub(self._channel)  # type: ignore[no-untyped-call]
        self._submit: _Method[stt_pb2.LongRunningRecognizeRequest, longrunning_pb2.Operation]
        self._submit = stt.LongRunningRecognize
        self._get: _Method[longrunning_pb2.GetOperationRequest, longrunning_pb2.Operation] = operations.GetOperation
        self._list: _Method[longrunning_pb2.ListOperationsRequest, longrunning_pb2.ListOperationsResponse]
        self._list = operations.ListOperations
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._channel.close()
        await self._inbound.close()

    async def upload(self, path: Path, object_name: str) -> str:
        """See `Inbound.upload`."""
        return await self._inbound.upload(path, object_name)

    async def submit(
        self, uri: str, audio: AudioFormat, *, request_id: str, group: str, vocabulary: Sequence[str]
    ) -> str:
        """Start a deferred recognition; returns the operation id.

        A full quota is waited out: such a request was not taken. After an unclear outcome the operation is looked for,
        and sent again only if the service does not list it (section 3.6: submitting twice is paid twice). If that
        cannot be found out, RecogniserUnavailable with `unclear` is raised.
        """
        request = stt_pb2.LongRunningRecognizeRequest(
            config=_config(audio, vocabulary), audio=stt_pb2.RecognitionAudio(uri=uri), group=group
        )
        metadata = [("x-client-request-id", request_id)]
        for attempt in range(self._attempts):
            try:
                operation = await self._call(
                    self._submit, request, auth.STT, "submitting a recording", repeat=_QUOTA, metadata=metadata
                )
            except RecogniserUnavailable as error:
                unclear = error
            else:
                return operation.id
            await self._pause(attempt)
            try:
                found = await self.find(request_id, group)
            except SpeechError as error:
                raise RecogniserUnavailable(f"{unclear}; {error}", unclear=True) from None
            if found is not None:
                return found
        raise RecogniserUnavailable(str(unclear), unclear=True)

    async def find(self, request_id: str, group: str) -> str | None:
        """Look through all pages of `group` for the operation of `request_id`; one that has not failed comes first."""
        failed: str | None = None
        token = ""
        while True:
            request = longrunning_pb2.ListOperationsRequest(
                filter=longrunning_pb2.OperationFilter(exact_group=group), page_size=PAGE_SIZE, page_token=token
            )
            page = await self._call(
                self._list, request, auth.LONGRUNNING, "listing operations", repeat=_QUOTA | _FAULTS
            )
            for operation in page.operations:
                if operation.x_client_request_id != request_id:
                    continue
                if operation.state != longrunning_pb2.FAILED:
                    return operation.id
                failed = operation.id
            if not page.next_page_token:
                return failed
            if page.next_page_token == token:
                raise UnexpectedAnswer("VoiceKit's list of operations does not end: it names the same page again")
            token = page.next_page_token

    async def poll(self, operation_id: str) -> Pending | Recognised | Failed:
        """The operation's state now. A server fault or a full quota is retried, being free of side effects."""
        request = longrunning_pb2.GetOperationRequest(id=operation_id)
        operation = await self._call(
            self._get, request, auth.LONGRUNNING, "asking for an operation", repeat=_QUOTA | _FAULTS
        )
        if operation.state == longrunning_pb2.ENQUEUED:
            return Pending("enqueued")
        if operation.state == longrunning_pb2.PROCESSING:
            return Pending("processing")
        if operation.state == longrunning_pb2.FAILED:
            return Failed(operation.error.code, self._hide(operation.error.message))
        answer = stt_pb2.RecognizeResponse()
        if operation.state != longrunning_pb2.DONE or not operation.response.Unpack(answer):
            raise UnexpectedAnswer(
                f"VoiceKit's operation {operation_id} has state {operation.state} "
                f"and an answer of type {operation.response.TypeName() or 'none'}"
            )
        return Recognised(
            json_format.MessageToDict(
                answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        )

    def phrases(self, raw: dict[str, Any]) -> list[Phrase]:
        """The first alternative of every result; the others are rivals, not more text (section 4)."""
        phrases = []
        for result in raw.get("results", ()):
            best = next(iter(result.get("alternatives", ())), None)
            if best is None:
                continue
            words = tuple(
                Word(word["word"], _milliseconds(word.get("start_time")), _milliseconds(word.get("end_time")))
                for word in best.get("words", ())
            )
            start, end = _milliseconds(result.get("start_time")), _milliseconds(result.get("end_time"))
            phrases.append(Phrase(int(result.get("channel", 0)), start, end, best.get("transcript", ""), words))
        return phrases

    async def _call(
        self,
        method: _Method[_Request, _Answer],
        request: _Request,
        audience: str,
        doing: str,
        *,
        repeat: frozenset[grpc.StatusCode],
        metadata: Sequence[tuple[str, str]] = (),
    ) -> _Answer:
        """One request, tried again after the codes of `repeat`, and once with a new token after UNAUTHENTICATED."""
        renewed = False
        attempt = 0
        while True:
            head = [("authorization", f"Bearer {self._tokens.token(audience)}"), *metadata]
            try:
                return await method(request, timeout=self._deadline_s, metadata=head)
            except grpc.aio.AioRpcError as error:
                code, details = error.code(), error.details() or ""
                service_id = dict(error.initial_metadata() or ()).get("x-request-id", "")
            if code is _Code.UNAUTHENTICATED and not renewed:
                renewed = True
                self._tokens.forget(audience)
                continue
            attempt += 1
            if code not in repeat or attempt >= self._attempts or _too_large(code, details):
                raise self._translated(code, details, str(service_id), audience, doing)
            log.info("VoiceKit answered %s while %s; trying again", code.name, doing)
            await self._pause(attempt - 1)

    async def _pause(self, attempt: int) -> None:
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards nothing
        await asyncio.sleep(jitter * min(self._backoff_s * 2**attempt, 30.0))

    def _hide(self, text: str) -> str:
        """The service's words, short and without credentials: they go into error texts and the database."""
        return self._tokens.hide(text).replace(self._secret_key, "***")[:500]

    def _translated(
        self, code: grpc.StatusCode, details: str, service_id: str, audience: str, doing: str
    ) -> SpeechError:
        said = self._hide(details) or "no words"
        where = f"{doing}: {code.name} ({said}{f'; x-request-id {self._hide(service_id)}' if service_id else ''})"
        if code in _SETUP:
            return RecogniserRefused(f"VoiceKit refused {where}; {_SETUP[code]}")
        if _too_large(code, details):
            return RecordingRejected("answer_too_large", f"VoiceKit's message is above 32 MB while {where}")
        if code is _Code.RESOURCE_EXHAUSTED:
            return RecogniserBusy(f"VoiceKit's quota of concurrent work is full while {where}; try again later")
        if code is _Code.NOT_FOUND and audience == auth.LONGRUNNING:
            return OperationExpired(f"VoiceKit does not know what was asked for while {where}")
        if code is _Code.NOT_FOUND:
            return RecordingRejected(
                "missing_in_storage", f"VoiceKit did not find the recording: upload it again; {where}"
            )
        if code in _FAULTS:
            return RecogniserUnavailable(f"VoiceKit gave no usable answer while {where}; try again later")
        return RecordingRejected("refused_by_recogniser", f"VoiceKit refused {where}")


def _too_large(code: grpc.StatusCode, details: str) -> bool:
    """gRPC's own limit has the quota's code but not its meaning: asking again gives the same (section 3.6)."""
    return code is _Code.RESOURCE_EXHAUSTED and "larger than max" in details.lower()


def _config(audio: AudioFormat, vocabulary: Sequence[str]) -> stt_pb2.RecognitionConfig:
    """What VoiceKit is told about the recording; refuses what section 1.4 says it refuses, before money is asked for."""
    if audio.channels not in (1, 2) or audio.sample_rate not in SAMPLE_RATES:
        raise RecordingRejected(
            "unsupported_audio",
            f"VoiceKit takes 1 or 2 channels at one of its sample rates, the recording has {audio.channels} "
            f"at {audio.sample_rate} Hz: convert it",
        )
    config = stt_pb2.RecognitionConfig(
        encoding=ENCODINGS[audio.encoding],
        sample_rate_hertz=audio.sample_rate,
        num_channels=audio.channels,
        language_code="ru-RU",
        max_alternatives=1,
        enable_automatic_punctuation=True,
        enable_denormalization=True,
    )
    if vocabulary:
        phrases = [stt_pb2.SpeechContextPhrase(text=text.lower(), score=1.0) for text in vocabulary]
        config.speech_contexts.append(stt_pb2.SpeechContext(phrases=phrases))
    return config


def _milliseconds(duration: str | None) -> int:
    """A proto3 JSON duration such as "0.840s"; an unset one is the start."""
    return int((Decimal(duration.removesuffix("s")) * 1000).to_integral_value()) if duration else 0
