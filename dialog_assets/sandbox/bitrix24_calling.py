"""What a REST method of the stand-in gets and gives: call, answer, error, page.

Here: values shared by the method modules. Not here: methods, HTTP.
Source: facts/bitrix24.md 1.2, 1.3 and 2.4.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from dialog_assets.sandbox.bitrix24_bucket import Bucket
from dialog_assets.sandbox.bitrix24_php import to_int
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.world.model import Call, Recording, SandboxPortal

PAGE_SIZE = 50
SCOPES = ("crm", "disk", "telephony", "user")


class MethodError(Exception):
    """A refusal as the portal words it: `error`, `error_description`, HTTP status."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        self.error = error
        self.description = description
        self.status = status
        super().__init__(f"{error}: {description}")

    def body(self) -> dict[str, str]:
        """The answer's JSON, also an entry of a batch's result_error."""
        return {"error": self.error, "error_description": self.description}


@dataclass
class PortalState:
    """One portal behind its webhook: its data, its bucket, and what the webhook may do."""

    portal: SandboxPortal
    clock: Clock
    bucket: Bucket
    seed: int = 0
    scopes: list[str] = field(default_factory=lambda: list(SCOPES))

    @cached_property
    def zone(self) -> ZoneInfo:
        """Time zone of the portal's server."""
        return ZoneInfo(self.portal.time_zone)

    @cached_property
    def unordered_calls(self) -> list[Call]:
        """The calls as a database gives them when nobody asks for an order: scattered, but the same each time."""
        calls = list(self.portal.calls)
        random.Random(self.seed).shuffle(calls)
        return calls

    @cached_property
    def recordings(self) -> dict[int, Recording]:
        """The portal's recordings by Disk object id."""
        return {call.recording.file_id: call.recording for call in self.portal.calls if call.recording is not None}


@dataclass(frozen=True)
class MethodCall:
    """One command: the portal, the parameters without `start`, and the address under which the client sees the portal."""

    state: PortalState
    params: dict[str, Any]
    start: int | None
    base_url: str

    @classmethod
    def of(cls, state: PortalState, params: dict[str, Any], base_url: str) -> MethodCall:
        """Take `start` out of the parameters and cast it, as the portal does for every method (facts 1.1)."""
        rest = {key: value for key, value in params.items() if key != "start"}
        return cls(state, rest, to_int(params["start"]) if "start" in params else None, base_url)

    def param(self, name: str) -> Any:
        """A parameter whose case does not matter; of several spellings the last one wins and the others are lost."""
        return next((value for key, value in reversed(self.params.items()) if key.upper() == name), None)


@dataclass(frozen=True)
class Answer:
    """A method's result; `counted` and `skipped` are the rows that the database had to count and to pass over."""

    result: Any
    total: int | None = None
    next: int | None = None
    counted: int = 0
    skipped: int = 0

    def envelope(self, time_field: dict[str, Any]) -> dict[str, Any]:
        """The body of a plain request's answer."""
        body: dict[str, Any] = {"result": self.result}
        if self.next is not None:
            body["next"] = self.next
        if self.total is not None:
            body["total"] = self.total
        return {**body, "time": time_field}


@dataclass(frozen=True)
class Method:
    """A REST method: what it does, and the scopes of which it needs one (none: free to all)."""

    scopes: tuple[str, ...]
    run: Callable[[MethodCall], Answer]


def page(rows: Sequence[Any], start: int | None) -> Answer:
    """One page of 50 rows; a negative start is answered without count and without `next` (facts 2.4)."""
    if start is not None and start < 0:
        return Answer(list(rows[:PAGE_SIZE]), total=0)
    offset = start or 0
    found = list(rows[offset : offset + PAGE_SIZE])
    following = offset + len(found)
    more = bool(found) and following < len(rows)
    return Answer(found, len(rows), following if more else None, counted=len(rows), skipped=min(offset, len(rows)))


class Stopwatch:
    """The `time` field of an answer or of one command, from creation to `stop`."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._start = time.time()

    def stop(self) -> dict[str, Any]:
        """The field in its 2026 form: integer `start`, processing 0, dates in the portal server's offset (facts 1.2)."""
        finish = time.time()
        return {
            "start": int(self._start),
            "finish": finish,
            "duration": finish - int(self._start),
            "processing": 0,
            "date_start": self._iso(self._start),
            "date_finish": self._iso(finish),
        }

    def _iso(self, moment: float) -> str:
        return datetime.fromtimestamp(int(moment), self._zone).isoformat()
