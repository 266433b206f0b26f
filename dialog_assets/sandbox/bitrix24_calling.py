"""What a REST method of the stand-in gets and gives: portal, call, answer, error, time.

Here: values shared by the method modules. Not here: methods, HTTP.
Source: facts/bitrix24.md 1.2, 1.3 and 2.4.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from dialog_assets.sandbox.bitrix24_bucket import Bucket
from dialog_assets.sandbox.bitrix24_files import Files
from dialog_assets.sandbox.bitrix24_habits import Habits
from dialog_assets.sandbox.bitrix24_operating import Level, Operating
from dialog_assets.sandbox.bitrix24_php import to_int
from dialog_assets.sandbox.bitrix24_rows import RowPage, rows_of
from dialog_assets.sandbox.bitrix24_table import Found, Table
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.world.model import SandboxPortal

SCOPES = ("crm", "disk", "telephony", "user")
CRM_TYPES = ("lead", "deal", "contact", "company")
_Made = TypeVar("_Made")
_LINKS = ("CONTACT_ID", "COMPANY_ID", "LEAD_ID")


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
    """One portal: its data with what changed since, its limits, its habits.

    `bucket_size` and `drain_per_second` are the leaky bucket of each source. `provider_url` is where the provider's
    copies of recordings are, once the sandbox is up.
    """

    portal: SandboxPortal
    clock: Clock
    bucket_size: float = 50
    drain_per_second: float = 2.0
    seed: int = 0
    given_habits: Habits = field(default_factory=Habits)
    scopes: list[str] = field(default_factory=lambda: list(SCOPES))
    provider_url: str = ""

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Back to the world as it was written, with empty limits and the first habits."""
        self.habits = self.given_habits
        self.operating = Operating(lambda: self.habits)
        self.busy_until = 0.0
        self._buckets: dict[str, Bucket] = {}
        self.files = Files(self.portal.recordings)
        self._memos: dict[str, tuple[Hashable, Any]] = {}
        for name in ("calls", "users", "crm"):
            self.__dict__.pop(name, None)

    @cached_property
    def zone(self) -> ZoneInfo:
        """Time zone of the portal's server."""
        return ZoneInfo(self.portal.time_zone)

    @cached_property
    def calls(self) -> Table:
        """The call statistics."""
        return Table(rows_of(self.portal.calls), moment="CALL_START_DATE", seed=self.seed)

    @cached_property
    def users(self) -> Table:
        """The employees."""
        return Table(rows_of(self.portal.users))

    @cached_property
    def crm(self) -> dict[str, Table]:
        """The tables of the CRM by type."""
        data = {
            "lead": self.portal.leads,
            "deal": self.portal.deals,
            "contact": self.portal.contacts,
            "company": self.portal.companies,
        }
        return {name: Table(rows_of(rows), links=_LINKS) for name, rows in data.items()}

    def memo(self, name: str, key: Hashable, make: Callable[[], _Made]) -> _Made:
        """What `make` gave for `key` when it was last asked for, or gives now."""
        if name not in self._memos or self._memos[name][0] != key:
            self._memos[name] = (key, make())
        made: _Made = self._memos[name][1]
        return made

    def bucket(self, source: str) -> Bucket:
        """The leaky bucket of one source address (facts 2.1)."""
        if source not in self._buckets:
            self._buckets[source] = Bucket(self.bucket_size, self.drain_per_second)
        return self._buckets[source]


@dataclass(frozen=True)
class Access:
    """By what right a command is carried out: `credential` keys the operating time; `token` is an OAuth access token."""

    credential: str
    user: int
    token: str | None = None


@dataclass(frozen=True)
class MethodCall:
    """One command: the portal, the parameters without `start`, and the address under which the client sees the portal."""

    state: PortalState
    params: dict[str, Any]
    start: int | None
    base_url: str
    access: Access

    @classmethod
    def of(cls, state: PortalState, params: dict[str, Any], base_url: str, access: Access) -> MethodCall:
        """Take `start` out of the parameters and cast it, as the portal does for every method (facts 1.1)."""
        rest = {key: value for key, value in params.items() if key != "start"}
        return cls(state, rest, to_int(params["start"]) if "start" in params else None, base_url, access)

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

    @classmethod
    def page(cls, found: Found, text: Callable[[int], str]) -> Answer:
        """A page of a list; `text` gives a row as JSON by id."""
        return cls(
            RowPage([text(number) for number in found.ids]), found.total, found.next, found.counted, found.skipped
        )

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


class Stopwatch:
    """The `time` field of an answer or of one command, from creation to `stop`."""

    def __init__(self, state: PortalState) -> None:
        self._state = state
        self._start = time.time()

    @property
    def seconds(self) -> float:
        """Since creation."""
        return time.time() - self._start

    def stop(self, level: Level) -> dict[str, Any]:
        """The field in the form that the portal's habits ask for, dates in the server's offset (facts 1.2)."""
        habits = self._state.habits
        finish = time.time()
        start = int(self._start) if habits.integer_start else self._start
        told: dict[str, Any] = {
            "start": start,
            "finish": finish,
            "duration": finish - start,
            "processing": 0 if habits.integer_start else (finish - start) / 2,
            "date_start": self._iso(self._start),
            "date_finish": self._iso(finish),
        }
        if habits.limiter and habits.operating_shown:
            told["operating_reset_at"] = int(level.reset_at)
            told["operating"] = level.operating
        return told

    def _iso(self, moment: float) -> str:
        return datetime.fromtimestamp(int(moment), self._state.zone).isoformat()
