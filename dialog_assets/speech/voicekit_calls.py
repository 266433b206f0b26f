"""One call of VoiceKit: its token, its repetitions, and what its refusals mean (facts/voicekit.md 2 and 3.6).

Not here: which calls there are, and what their answers hold (`voicekit.py`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar

import grpc
import grpc.aio

from dialog_assets import certificates
from dialog_assets.said import LONGEST, said
from dialog_assets.speech import auth
from dialog_assets.speech.errors import (
    OperationExpired,
    RecogniserBusy,
    RecogniserRefused,
    RecogniserUnavailable,
    RecordingRejected,
    SpeechError,
)

log = logging.getLogger(__name__)

MESSAGE_LIMIT = 32_000_000
"""Bytes of one message, both ways: what the vendor's own client sets."""

_Code = grpc.StatusCode
QUOTA = frozenset({_Code.RESOURCE_EXHAUSTED})
FAULTS = frozenset(
    {_Code.UNKNOWN, _Code.DEADLINE_EXCEEDED, _Code.ABORTED, _Code.INTERNAL, _Code.UNAVAILABLE, _Code.CANCELLED}
)
_SETUP = {
    _Code.UNAUTHENTICATED: "check VOICEKIT_API_KEY, VOICEKIT_SECRET_KEY and this machine's clock",
    _Code.PERMISSION_DENIED: "the key lacks the right: ask the vendor to add speech recognition to it",
    _Code.UNIMPLEMENTED: "the address offers no such service: check VOICEKIT_ENDPOINT",
}
_NO_SCOPE = re.compile(r"scope.*not supported", re.IGNORECASE)
_TOO_LARGE = re.compile(r"larger than max|message (is )?too (big|large)", re.IGNORECASE)

_Request = TypeVar("_Request", contravariant=True)
_Answer = TypeVar("_Answer", covariant=True)


class Method(Protocol[_Request, _Answer]):
    """A unary method of a generated stub, which comes without types."""

    def __call__(self, request: _Request, *, timeout: float, metadata: Sequence[tuple[str, str]]) -> Awaitable[_Answer]:
        """Send the request."""
        ...


class Calls:
    """Sends requests with `tokens`; `attempts`, `backoff_s` and `deadline_s` as of the client. `secret` is kept out of texts."""

    def __init__(self, tokens: auth.Tokens, secret: str, *, attempts: int, backoff_s: float, deadline_s: float) -> None:
        self._tokens = tokens
        self._secret = secret
        self._attempts = attempts
        self._backoff_s = backoff_s
        self._deadline_s = deadline_s

    async def send(
        self,
        method: Method[_Request, _Answer],
        request: _Request,
        audience: str,
        doing: str,
        *,
        repeat: frozenset[grpc.StatusCode],
        metadata: Sequence[tuple[str, str]] = (),
        deadline_s: float | None = None,
    ) -> _Answer:
        """One request, tried again after the codes of `repeat`, and once with a new token after UNAUTHENTICATED."""
        renewed = False
        attempt = 0
        while True:
            head = [("authorization", f"Bearer {self._tokens.token(audience)}"), *metadata]
            try:
                return await method(request, timeout=deadline_s or self._deadline_s, metadata=head)
            except grpc.aio.AioRpcError as error:
                code, details = error.code(), error.details() or ""
                service_id = dict(error.initial_metadata() or ()).get("x-request-id", "")
            if code is _Code.UNAUTHENTICATED and not renewed:
                renewed = True
                self._tokens.forget(audience)
                continue
            attempt += 1
            fault = certificates.fault(details) if code is _Code.UNAVAILABLE else None
            if fault is not None:
                raise RecogniserRefused(f"VoiceKit (VOICEKIT_ENDPOINT): {fault}")
            if code not in repeat or attempt >= self._attempts or _too_large(code, details):
                raise self._translated(code, details, str(service_id), audience, doing)
            log.info("VoiceKit answered %s while %s; trying again", code.name, doing)
            await self.pause(attempt - 1)

    async def pause(self, attempt: int) -> None:
        """Wait before the next try: longer each time, and not all clients alike."""
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards nothing
        await asyncio.sleep(jitter * min(self._backoff_s * 2**attempt, 30.0))

    def hide(self, text: str) -> str:
        """The service's words, short and without credentials: they go into error texts and the database."""
        return said(self._tokens.hide(text[:LONGEST]).replace(self._secret, "***"), limit=500)

    def _translated(
        self, code: grpc.StatusCode, details: str, service_id: str, audience: str, doing: str
    ) -> SpeechError:
        said = self.hide(details) or "no words"
        where = f"{doing}: {code.name} ({said}{f'; x-request-id {self.hide(service_id)}' if service_id else ''})"
        if _NO_SCOPE.search(details):
            code = _Code.PERMISSION_DENIED  # which code comes with this text is not known
        if code in _SETUP:
            return RecogniserRefused(f"VoiceKit refused {where}; {_SETUP[code]}")
        if _too_large(code, details):
            return RecordingRejected("message_too_large", f"a message is above VoiceKit's 32 MB while {where}")
        if code is _Code.RESOURCE_EXHAUSTED:
            return RecogniserBusy(f"VoiceKit's quota of concurrent work is full while {where}; try again later")
        if code is _Code.NOT_FOUND and audience == auth.LONGRUNNING:
            return OperationExpired(f"VoiceKit does not know what was asked for while {where}")
        if code is _Code.NOT_FOUND:
            return RecordingRejected(
                "missing_in_storage", f"VoiceKit did not find the recording: upload it again; {where}"
            )
        if code in FAULTS:
            return RecogniserUnavailable(f"VoiceKit gave no usable answer while {where}; try again later")
        return RecordingRejected("refused_by_recogniser", f"VoiceKit refused {where}")


def _too_large(code: grpc.StatusCode, details: str) -> bool:
    """The limit of a message has the quota's code but not its meaning: asking again gives the same (section 3.6)."""
    return code is _Code.RESOURCE_EXHAUSTED and _TOO_LARGE.search(details) is not None
