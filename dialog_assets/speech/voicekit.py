"""T-Bank (Tinkoff) VoiceKit behind the recogniser port: deferred recognition over gRPC, and Recognize for short recordings.

Here: the calls, and how VoiceKit's messages become the port's values. Beside it: what is told about a recording
(`voicekit_config.py`), what is repeated and what refusals mean (`voicekit_calls.py`), tokens (`auth.py`), the storage
(`inbound.py`). Not here: when to poll and for how long, the account's quota, what is paid for (the caller's).
Source: facts/voicekit.md; the section is named where it decides something.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from google.protobuf import json_format

from dialog_assets import certificates
from dialog_assets.dialogs import Word
from dialog_assets.speech import auth
from dialog_assets.speech.errors import (
    OperationExpired,
    RecogniserBusy,
    RecogniserRefused,
    RecogniserUnavailable,
    SpeechError,
    UnexpectedAnswer,
)
from dialog_assets.speech.inbound import Inbound
from dialog_assets.speech.port import AudioFormat, Done, Failed, Label, Options, Pending, Phrase, Reference
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2, longrunning_pb2_grpc
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2, stt_pb2_grpc
from dialog_assets.speech.voicekit_calls import FAULTS, MESSAGE_LIMIT, QUOTA, Calls, Method
from dialog_assets.speech.voicekit_config import ADVISED_LENGTH, doubtful, recognition_config

log = logging.getLogger(__name__)

CONTENT_LIMIT = MESSAGE_LIMIT - 256 * 1024
"""Bytes of a recording inside a message, which holds the vocabulary too."""

AT_ONCE_LIMIT_S = 205.0
"""Calls of Recognize below 3 min 25 s are not cut by the service's releases (section 3.4), and recognition is no slower
than speech."""

LOOKS = 6
"""How often an operation is looked for after an unclear answer: a listing may be behind."""

STORAGE_PAUSE_S = 60.0
"""How long a storage that failed is passed over where the recording can go without it."""

PAGE_SIZE = 25
"""Operations a page: an hour's answer is near 1 MB and a listing may carry answers, so this stays below the limit."""

_ENDPOINT = re.compile(r"([^\s/:\[\]]+|\[[0-9a-fA-F:.]+\]):\d+")


class VoiceKit:
    """One account's recogniser; an async context manager that implements `port.Recogniser`.

    endpoint: host:port, TLS if the port ends in 443, else plaintext (section 2).
    storage_url: base URL of the storage that holds the bucket `inbound`.
    deadline_s: seconds that one request may take; `at_once_deadline_s`: those of Recognize.
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
        at_once_deadline_s: float = 240.0,
        attempts: int = 5,
        backoff_s: float = 0.5,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not _ENDPOINT.fullmatch(endpoint):
            raise RecogniserRefused(
                "VoiceKit's address is not host:port, such as api.tinkoff.ai:443: set VOICEKIT_ENDPOINT"
            )
        self._endpoint = endpoint
        self._calls = Calls(
            auth.Tokens(api_key, secret_key, now=now),
            secret_key.strip(),
            attempts=attempts,
            backoff_s=backoff_s,
            deadline_s=deadline_s,
        )
        self._inbound = Inbound(storage_url, api_key, secret_key, attempts=attempts)
        self._at_once_deadline_s = at_once_deadline_s
        self._attempts = attempts
        self._account = f"voicekit-{hashlib.sha256(api_key.strip().encode()).hexdigest()[:16]}"
        self._memory = _Memory(MESSAGE_LIMIT)
        self._storage_failed_at: float | None = None

    def __repr__(self) -> str:
        return f"VoiceKit({self._endpoint})"

    @property
    def account(self) -> str:
        """The API key's hash: ids, listings and quotas of VoiceKit are per key."""
        return self._account

    async def __aenter__(self) -> Self:
        options = [
            ("grpc.max_send_message_length", MESSAGE_LIMIT),
            ("grpc.max_receive_message_length", MESSAGE_LIMIT),
        ]
        if self._endpoint.endswith("443"):
            self._channel = grpc.aio.secure_channel(
                self._endpoint, grpc.ssl_channel_credentials(certificates.roots()), options
            )
        else:
            self._channel = grpc.aio.insecure_channel(self._endpoint, options)
        stt: Any = stt_pb2_grpc.SpeechToTextStub(self._channel)  # type: ignore[no-untyped-call]
        operations: Any = longrunning_pb2_grpc.OperationsStub(self._channel)  # type: ignore[no-untyped-call]
        self._submit: Method[stt_pb2.LongRunningRecognizeRequest, longrunning_pb2.Operation]
        self._submit = stt.LongRunningRecognize
        self._recognize: Method[stt_pb2.RecognizeRequest, stt_pb2.RecognizeResponse] = stt.Recognize
        self._get: Method[longrunning_pb2.GetOperationRequest, longrunning_pb2.Operation] = operations.GetOperation
        self._list: Method[longrunning_pb2.ListOperationsRequest, longrunning_pb2.ListOperationsResponse]
        self._list = operations.ListOperations
        self._cancel: Method[longrunning_pb2.CancelOperationRequest, Any] = operations.CancelOperation
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._channel.close()
        await self._inbound.close()

    async def upload(self, path: Path, object_name: str, *, in_message: bool = False) -> Reference:
        """See `Inbound.upload`; a file of at most 32 MB goes without the storage where that is wanted, or is down."""
        small = _fits(path)
        if small and (in_message or self._storage_is_down()):
            return path
        try:
            return await self._inbound.upload(path, object_name)
        except (RecogniserUnavailable, RecogniserBusy) as error:
            self._storage_failed_at = time.monotonic()
            if not small:
                raise
            log.warning("%s; recordings of at most 32 MB are sent without it", error)
            return path

    def _storage_is_down(self) -> bool:
        return self._storage_failed_at is not None and time.monotonic() - self._storage_failed_at < STORAGE_PAUSE_S

    async def submit(self, recording: Reference, audio: AudioFormat, options: Options, label: Label) -> str:
        """Start a deferred recognition; returns the operation id.

        A full quota is waited out: such a request was not taken. After an unclear outcome the operation is looked for,
        and sent again only if the service does not list it (section 3.6: submitting twice is paid twice). As long as it is
        unclear what became of a try, no other error than RecogniserUnavailable is raised.
        """
        config = recognition_config(audio, options)
        metadata = [("x-client-request-id", label.request_id)]
        async with self._audio(recording) as source:
            request = stt_pb2.LongRunningRecognizeRequest(config=config, audio=source, group=label.group)
            unclear: RecogniserUnavailable | None = None
            for _ in range(self._attempts):
                try:
                    operation = await self._calls.send(
                        self._submit, request, auth.STT, "submitting a recording", repeat=QUOTA, metadata=metadata
                    )
                except RecogniserUnavailable as error:
                    unclear = error
                except SpeechError as error:
                    if unclear is None:
                        raise
                    raise RecogniserUnavailable(f"{unclear}; {error}") from None
                else:
                    return operation.id
                try:
                    found = await self._look(label)
                except SpeechError as error:
                    raise RecogniserUnavailable(f"{unclear}; {error}") from None
                if found is not None:
                    return found
        raise unclear or RecogniserUnavailable("VoiceKit was not asked")

    @asynccontextmanager
    async def _audio(self, recording: Reference) -> AsyncIterator[stt_pb2.RecognitionAudio]:
        """The message's part; recordings inside of messages are in memory one after another, or a few small ones."""
        if isinstance(recording, str):
            yield stt_pb2.RecognitionAudio(uri=recording)
            return
        async with self._memory.room(recording.stat().st_size):
            yield stt_pb2.RecognitionAudio(content=await asyncio.to_thread(recording.read_bytes))

    async def _look(self, label: Label) -> str | None:
        for attempt in range(LOOKS):
            await self._calls.pause(attempt)
            found = await self.find(label)
            if found is not None:
                return found
        return None

    async def find(self, label: Label) -> str | None:
        """Look through all pages of the group for the request's operation; one that has not failed comes first."""
        failed: str | None = None
        token = ""
        while True:
            request = longrunning_pb2.ListOperationsRequest(
                filter=longrunning_pb2.OperationFilter(exact_group=label.group), page_size=PAGE_SIZE, page_token=token
            )
            page = await self._calls.send(
                self._list, request, auth.LONGRUNNING, "listing operations", repeat=QUOTA | FAULTS
            )
            for operation in page.operations:
                if operation.x_client_request_id != label.request_id:
                    continue
                if operation.state != longrunning_pb2.FAILED:
                    return operation.id
                failed = operation.id
            if not page.next_page_token:
                return failed
            if page.next_page_token == token:
                raise UnexpectedAnswer("VoiceKit's list of operations does not end: it names the same page again")
            token = page.next_page_token

    async def poll(self, operation_id: str, label: Label | None) -> Pending | Done | Failed:
        """The operation's state now. A server fault or a full quota is retried, being free of side effects."""
        request = longrunning_pb2.GetOperationRequest(id=operation_id)
        operation = await self._calls.send(
            self._get, request, auth.LONGRUNNING, "asking for an operation", repeat=QUOTA | FAULTS
        )
        if label is not None and not _is_of(operation, label):
            # Ids are short numbers, counted for each API key (section 1.6).
            raise OperationExpired(
                f"VoiceKit's operation {operation_id} is not the one that was submitted: VOICEKIT_API_KEY was changed"
            )
        if operation.state == longrunning_pb2.ENQUEUED:
            return Pending("enqueued")
        if operation.state == longrunning_pb2.PROCESSING:
            return Pending("processing")
        if operation.state == longrunning_pb2.FAILED:
            return Failed(operation.error.code, self._calls.hide(operation.error.message))
        answer = stt_pb2.RecognizeResponse()
        if operation.state != longrunning_pb2.DONE or not operation.response.Unpack(answer):
            raise UnexpectedAnswer(
                f"VoiceKit's operation {operation_id} has state {operation.state} "
                f"and an answer of type {operation.response.TypeName() or 'none'}"
            )
        return Done(answer)

    async def fetch(self, done: Done) -> dict[str, Any]:
        """The answer, which came with the operation."""
        return _plain(done.result)

    async def cancel(self, operation_id: str) -> None:
        """Ask for the end of an operation; it comes a little later (section 3.5)."""
        request = longrunning_pb2.CancelOperationRequest(filter=longrunning_pb2.OperationFilter(exact_id=operation_id))
        try:
            await self._calls.send(
                self._cancel, request, auth.LONGRUNNING, "cancelling an operation", repeat=QUOTA | FAULTS
            )
        except OperationExpired:
            return

    def takes_at_once(self, size: int, duration_s: float) -> bool:
        """Whether it fits into a message, and into a call that no release of the service cuts (section 3.4)."""
        return size <= CONTENT_LIMIT and duration_s < AT_ONCE_LIMIT_S

    async def recognise_at_once(self, path: Path, audio: AudioFormat, options: Options, label: Label) -> dict[str, Any]:
        """Recognize: sent again only over a full quota, as nothing tells what became of a call that was cut."""
        config = recognition_config(audio, options)
        async with self._audio(path) as source:
            answer = await self._calls.send(
                self._recognize,
                stt_pb2.RecognizeRequest(config=config, audio=source),
                auth.STT,
                "recognising a recording",
                repeat=QUOTA,
                metadata=[("x-client-request-id", label.request_id)],
                deadline_s=self._at_once_deadline_s,
            )
        return _plain(answer)

    def advice(self, vocabulary: Sequence[str]) -> str | None:
        """Phrases that the vendor advises against (section 1.4)."""
        words = ", ".join(doubtful(vocabulary))
        advised = f"vocabulary: VoiceKit advises lower-case Russian phrases of at least {ADVISED_LENGTH} characters"
        return f"{advised}; remove or spell out: {words}" if words else None

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


class _Memory:
    """At most `bytes` of recordings in memory at once; a larger one goes when it is alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Wait until `size` bytes fit, and keep them during the body."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._used or self._used + size <= self._size)
            self._used += size
        try:
            yield
        finally:
            self._used -= size
            async with self._changed:
                self._changed.notify_all()


def _fits(path: Path) -> bool:
    return path.stat().st_size <= CONTENT_LIMIT


def _is_of(operation: longrunning_pb2.Operation, label: Label) -> bool:
    """Whether the operation is ours: by our id, or, where the service keeps none, at least by our group."""
    if operation.x_client_request_id:
        return operation.x_client_request_id == label.request_id
    return operation.group == label.group


def _plain(answer: stt_pb2.RecognizeResponse) -> dict[str, Any]:
    return json_format.MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _milliseconds(duration: str | None) -> int:
    """A proto3 JSON duration such as "0.840s"; an unset one is the start."""
    return int((Decimal(duration.removesuffix("s")) * 1000).to_integral_value()) if duration else 0
