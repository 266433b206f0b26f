"""VoiceKit's operations: ids per API key, their life cycle by the clock, filters and paging (facts/voicekit.md 1.6, 3.5).

Not here: gRPC calls and recognition; an operation is given its outcome when it is made and shows it once it has finished.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.voicekit_auth import RefusedError
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2

SERVICE_ID = "stt"
RETENTION = timedelta(days=5)
CANCEL_S = 0.1
PAGE_SIZE = 50
PAGE_SIZE_LIMIT = 1000

_FINISHED = (longrunning_pb2.DONE, longrunning_pb2.FAILED)

Outcome = stt_pb2.RecognizeResponse | longrunning_pb2.Status
Change = tuple[str, longrunning_pb2.Operation | None]
"""An operation's id and how it looks now; None: it is gone."""


@dataclass
class _Operation:
    id: str
    group: str
    request_id: str
    outcome: Outcome
    queued_s: float
    processing_s: float
    state: longrunning_pb2.OperationState = longrunning_pb2.ENQUEUED
    finished_at: datetime | None = None
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)
    listed_at: float = 0.0  # the event loop's time from which listings show it
    shown: longrunning_pb2.Operation | None = field(default=None, repr=False)

    def message(self) -> longrunning_pb2.Operation:
        """How clients see it; made anew only when the state has changed, as answers are large and asked for often."""
        if self.shown is None or self.shown.state != self.state:
            self.shown = self._made()
        return self.shown

    def _made(self) -> longrunning_pb2.Operation:
        shown = longrunning_pb2.Operation(
            id=self.id, group=self.group, state=self.state, x_client_request_id=self.request_id
        )
        if self.state in _FINISHED:
            if isinstance(self.outcome, longrunning_pb2.Status):
                shown.error.CopyFrom(self.outcome)
            else:
                shown.response.Pack(self.outcome)
        return shown


@dataclass
class _Account:
    """What one API key owns."""

    last_id: int = 100
    in_progress: int = 0
    operations: dict[str, _Operation] = field(default_factory=dict)
    listeners: list[asyncio.Queue[Change]] = field(default_factory=list)


class Operations:
    """All operations; used from one event loop. `clock` decides when results of the fictional week are too old (5 days)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def submit(
        self,
        api_key: str,
        *,
        group: str,
        request_id: str,
        outcome: Outcome,
        queued_s: float,
        processing_s: float,
        listing_delay_s: float = 0.0,
    ) -> longrunning_pb2.Operation:
        """A new operation, ENQUEUED, that reaches `outcome` after both times (seconds; infinite: never).

        Listings do not show it before `listing_delay_s` is over.
        """
        account = self._account(api_key)
        account.last_id += 1
        operation = _Operation(str(account.last_id), group, request_id, outcome, queued_s, processing_s)
        operation.listed_at = asyncio.get_running_loop().time() + listing_delay_s
        account.operations[operation.id] = operation
        account.in_progress += 1
        self._start(account, operation)
        self._tell(account, (operation.id, operation.message()))
        return operation.message()

    def in_progress(self, api_key: str) -> int:
        """How many of the key's operations are ENQUEUED or PROCESSING."""
        return self._account(api_key).in_progress

    def get(self, api_key: str, operation_id: str) -> longrunning_pb2.Operation:
        """The operation as it is now; RefusedError (5) if the key has none of that id."""
        return self._find(api_key, operation_id).message()

    def select(self, api_key: str, wanted: longrunning_pb2.OperationFilter) -> list[longrunning_pb2.Operation]:
        """The key's operations that the filter names, oldest first; RefusedError (3) for an invalid filter."""
        check_filter(wanted)
        account = self._account(api_key)
        self._drop_expired(account)
        return [one.message() for one in self._selected(account, wanted)]

    def page(
        self, api_key: str, request: longrunning_pb2.ListOperationsRequest
    ) -> longrunning_pb2.ListOperationsResponse:
        """One page; a page token carries filter, size and place, so other fields are ignored with it."""
        wanted, size, after = request.filter, request.page_size, 0
        if request.page_token:
            wanted, size, after = _read_token(request.page_token)
        if size < 0:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "page_size is negative")
        size = min(size or PAGE_SIZE, PAGE_SIZE_LIMIT)
        check_filter(wanted)
        account = self._account(api_key)
        self._drop_expired(account)
        rest = [one for one in self._selected(account, wanted) if int(one.id) > after]
        token = _page_token(wanted, size, int(rest[size - 1].id)) if len(rest) > size else ""
        shown = [one.message() for one in rest[:size]]
        return longrunning_pb2.ListOperationsResponse(operations=shown, next_page_token=token)

    def cancel(self, api_key: str, operation_id: str) -> None:
        """Make an unfinished operation FAILED a moment later; a finished one stays as it is."""
        operation = self._find(api_key, operation_id)
        if operation.state in _FINISHED:
            return
        operation.outcome = longrunning_pb2.Status(
            code=grpc.StatusCode.CANCELLED.value[0], message="operation was cancelled"
        )
        self._later(CANCEL_S, self._account(api_key), operation, longrunning_pb2.FAILED)

    def forget(self, api_key: str, operation_id: str) -> None:
        """Make it as if the operation had never been (deleted or expired)."""
        self._drop(self._account(api_key), self._find(api_key, operation_id))

    def _selected(self, account: _Account, wanted: longrunning_pb2.OperationFilter) -> list[_Operation]:
        now = asyncio.get_running_loop().time()
        return [
            one for one in account.operations.values() if one.listed_at <= now and matches(wanted, one.id, one.group)
        ]

    @contextmanager
    def changes(self, api_key: str) -> Iterator[asyncio.Queue[Change]]:
        """A queue of every change of the key's operations from now on."""
        queue: asyncio.Queue[Change] = asyncio.Queue()
        listeners = self._account(api_key).listeners
        listeners.append(queue)
        try:
            yield queue
        finally:
            listeners.remove(queue)

    def reset(self) -> None:
        """Forget every operation; ids start anew."""
        for account in self._accounts.values():
            for operation in list(account.operations.values()):
                self._drop(account, operation)
            account.last_id = _Account().last_id

    def stop(self) -> None:
        """Let no timer fire any more."""
        for account in self._accounts.values():
            for operation in account.operations.values():
                _cancel_timer(operation)

    def dump(self) -> dict[str, Any]:
        """Every account as JSON values, for `load`."""
        return {
            api_key: {"last_id": account.last_id, "operations": [_dumped(one) for one in account.operations.values()]}
            for api_key, account in self._accounts.items()
        }

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `dump` gave; unfinished operations begin their waiting anew."""
        for api_key, saved in data.items():
            account = self._account(api_key)
            account.last_id = saved["last_id"]
            for row in saved["operations"]:
                operation = _loaded(row)
                account.operations[operation.id] = operation
                if operation.state not in _FINISHED:
                    operation.state = longrunning_pb2.ENQUEUED
                    account.in_progress += 1
                    self._start(account, operation)

    def _account(self, api_key: str) -> _Account:
        return self._accounts.setdefault(api_key, _Account())

    def _find(self, api_key: str, operation_id: str) -> _Operation:
        account = self._account(api_key)
        operation = account.operations.get(operation_id)
        if operation is not None and self._is_expired(operation):
            self._drop(account, operation)
            operation = None
        if operation is None:
            raise RefusedError(grpc.StatusCode.NOT_FOUND, "operation not found")
        return operation

    def _start(self, account: _Account, operation: _Operation) -> None:
        self._later(operation.queued_s, account, operation, longrunning_pb2.PROCESSING)

    def _later(
        self, delay_s: float, account: _Account, operation: _Operation, state: longrunning_pb2.OperationState
    ) -> None:
        _cancel_timer(operation)
        if delay_s < math.inf:
            loop = asyncio.get_running_loop()
            operation.timer = loop.call_later(delay_s, self._become, account, operation, state)

    def _become(self, account: _Account, operation: _Operation, state: longrunning_pb2.OperationState) -> None:
        operation.state = state
        if state == longrunning_pb2.PROCESSING:
            failed = isinstance(operation.outcome, longrunning_pb2.Status)
            end = longrunning_pb2.FAILED if failed else longrunning_pb2.DONE
            self._later(operation.processing_s, account, operation, end)
        else:
            account.in_progress -= 1
            operation.finished_at = self._clock.now
        self._tell(account, (operation.id, operation.message()))

    def _drop(self, account: _Account, operation: _Operation) -> None:
        _cancel_timer(operation)
        del account.operations[operation.id]
        if operation.state not in _FINISHED:
            account.in_progress -= 1
        self._tell(account, (operation.id, None))

    def _drop_expired(self, account: _Account) -> None:
        if self._clock.now is not None:
            for operation in [one for one in account.operations.values() if self._is_expired(one)]:
                self._drop(account, operation)

    def _is_expired(self, operation: _Operation) -> bool:
        now = self._clock.now
        return now is not None and operation.finished_at is not None and now - operation.finished_at > RETENTION

    @staticmethod
    def _tell(account: _Account, change: Change) -> None:
        for queue in account.listeners:
            queue.put_nowait(change)


def check_filter(wanted: longrunning_pb2.OperationFilter) -> None:
    """RefusedError (3) unless exact_id is set, or exact_group is set, or service_id, id and group are all set."""
    parts = [wanted.WhichOneof(part) for part in ("service_id", "id", "group")]
    if parts[1] == "exact_id" or parts[2] == "exact_group" or all(parts):
        return
    raise RefusedError(
        grpc.StatusCode.INVALID_ARGUMENT,
        "invalid filter: set exact_id, or exact_group, or all of service_id, id and group",
    )


def exact_id(wanted: longrunning_pb2.OperationFilter) -> str:
    """The id that a Delete or Cancel names; RefusedError (3) for any other filter, which these calls do not support."""
    if wanted.WhichOneof("id") != "exact_id":
        raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "invalid filter: only exact_id is supported")
    return wanted.exact_id


def matches(wanted: longrunning_pb2.OperationFilter, operation_id: str, group: str) -> bool:
    """Whether a valid filter names the operation; its `state` is ignored, as the service does."""
    service = wanted.WhichOneof("service_id") != "exact_service_id" or wanted.exact_service_id == SERVICE_ID
    by_id = wanted.WhichOneof("id") != "exact_id" or wanted.exact_id == operation_id
    by_group = wanted.WhichOneof("group") != "exact_group" or wanted.exact_group == group
    return service and by_id and by_group


def _cancel_timer(operation: _Operation) -> None:
    if operation.timer is not None:
        operation.timer.cancel()
        operation.timer = None


def _page_token(wanted: longrunning_pb2.OperationFilter, size: int, after: int) -> str:
    saved = [base64.b64encode(wanted.SerializeToString()).decode(), size, after]
    return base64.urlsafe_b64encode(json.dumps(saved).encode()).decode()


def _read_token(token: str) -> tuple[longrunning_pb2.OperationFilter, int, int]:
    try:
        saved, size, after = json.loads(base64.urlsafe_b64decode(token))
        return longrunning_pb2.OperationFilter.FromString(base64.b64decode(saved)), int(size), int(after)
    except (ValueError, TypeError, DecodeError):
        raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "invalid page_token") from None


def _dumped(operation: _Operation) -> dict[str, Any]:
    kind = "error" if isinstance(operation.outcome, longrunning_pb2.Status) else "response"
    return {
        "id": operation.id,
        "group": operation.group,
        "request_id": operation.request_id,
        "state": int(operation.state),
        "queued_s": operation.queued_s,
        "processing_s": operation.processing_s,
        "finished_at": operation.finished_at.isoformat() if operation.finished_at else None,
        kind: base64.b64encode(operation.outcome.SerializeToString()).decode(),
    }


def _loaded(row: dict[str, Any]) -> _Operation:
    if "error" in row:
        outcome: Outcome = longrunning_pb2.Status.FromString(base64.b64decode(row["error"]))
    else:
        outcome = stt_pb2.RecognizeResponse.FromString(base64.b64decode(row["response"]))
    return _Operation(
        id=row["id"],
        group=row["group"],
        request_id=row["request_id"],
        outcome=outcome,
        queued_s=row["queued_s"],
        processing_s=row["processing_s"],
        state=row["state"],
        finished_at=datetime.fromisoformat(row["finished_at"]) if row["finished_at"] else None,
    )
