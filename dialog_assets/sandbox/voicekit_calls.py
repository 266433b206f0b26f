"""Everything around a VoiceKit call: its own id, its token, the quota of open calls, and faults before and after it.

Not here: what the calls do (`voicekit`), how tokens are read (`voicekit_auth`), the faults' kinds (`voicekit_behaviour`).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.faults import Fault, Faults
from dialog_assets.sandbox.voicekit_auth import RefusedError, check_token
from dialog_assets.sandbox.voicekit_behaviour import AFTER, BEFORE, QUOTA_TEXT, Behaviour

SERVICE = "voicekit"
SILENCE_S = 86_400.0

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class Call:
    """A call that was let in: its rpc, whose it is, its client's own id, and how fault rules know it."""

    rpc: str
    api_key: str
    request_id: str
    label: str


class Gate:
    """Lets calls in and out. `secrets`: API key → secret in base64; `latency_s` delays every answer."""

    def __init__(
        self, books: Books, faults: Faults, secrets: Mapping[str, str], behaviour: Behaviour, latency_s: float
    ) -> None:
        self.behaviour = behaviour
        self._books = books
        self._faults = faults
        self._secrets = secrets
        self._latency_s = latency_s
        self._open: Counter[tuple[str, str]] = Counter()

    @asynccontextmanager
    async def call(self, context: Context, service: str, rpc: str, about: str = "") -> AsyncIterator[Call]:
        """Let a call of `service` in; a RefusedError inside becomes its status. `about` is for fault rules."""
        await context.send_initial_metadata((("x-request-id", str(uuid.uuid4())),))
        self._books.count(SERVICE, rpc)
        try:
            metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            api_key = check_token(metadata.get("authorization"), service, self._secrets, time.time())
            if metadata.get("x-api-key", api_key) != api_key:
                raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, "x-api-key differs from the token's kid")
            request_id = metadata.get("x-client-request-id", "")
            call = Call(rpc, api_key, request_id, " ".join(part for part in (rpc, request_id, about) if part))
            with self._opened(call):
                await self._before(call)
                yield call
                fault = self.strike(call, *AFTER, "silent_after")
                if fault is not None:
                    raise await _lost(fault)
        except RefusedError as refusal:
            await context.abort(refusal.code, refusal.text)

    def strike(self, call: Call, *kinds: str) -> Fault | None:
        """The fault of one of `kinds` that strikes the call, if any."""
        return self._faults.strike(SERVICE, call.label, kinds)

    def over_quota(self) -> RefusedError:
        """What a call above a quota is refused with."""
        self._books.count(SERVICE, "over_quota")
        return RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, QUOTA_TEXT)

    @contextmanager
    def _opened(self, call: Call) -> Iterator[None]:
        """Count the call as open; RefusedError (8) above the quota."""
        whose = call.api_key, call.rpc
        self._open[whose] += 1
        try:
            self._books.peak(SERVICE, "peak_open_calls", call.rpc, self._open[whose])
            if self._open[whose] > self.behaviour.max_open_calls:
                raise self.over_quota()
            yield
        finally:
            self._open[whose] -= 1

    async def _before(self, call: Call) -> None:
        slow = self.strike(call, "slow")
        delay = self._latency_s + (float(slow.value) if slow else 0)
        if delay:
            await asyncio.sleep(delay)
        fault = self.strike(call, *BEFORE, "silent_before")
        if fault is not None:
            raise await _lost(fault)


async def _lost(fault: Fault) -> RefusedError:
    """What the client gets instead of an answer; a silent fault keeps it waiting first."""
    if fault.kind.startswith("silent"):
        await asyncio.sleep(SILENCE_S if fault.value is None else float(fault.value))
    return RefusedError(*(BEFORE | AFTER).get(fault.kind, BEFORE["unavailable_before"]))
