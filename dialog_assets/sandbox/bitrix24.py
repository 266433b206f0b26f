"""The stand-in Bitrix24 portals over HTTP: requests, limits, faults, answers.

Here: the way of a request from arrival to its envelope. Who asks for what is in bitrix24_access.py, the methods in
bitrix24_{statistic,crm,items,activities,users,disk}.py, batches in bitrix24_batch.py, PHP's ways in bitrix24_php.py.
A new method goes into one of the METHODS tables; what belongs to a portal (data, limits, counters) into PortalState;
a difference between real portals is a switch of Habits; what happens while a client reads is an event.
Source: facts/bitrix24.md, above all sections 1, 2 and 8.

Fault kinds, for the service "bitrix24"; the label is the method in lower case, "batch", "oauth/token", "download" of the
Disk, "download.activity" of an activity, or "provider" (see bitrix24_provider.py):

| kind | what happens |
|---|---|
| slow | the answer comes `value` seconds later, and may be struck by another fault |
| slow_headers | status line and headers come in pieces over `value` seconds, then the connection is closed |
| 503 | QUERY_LIMIT_EXCEEDED although the bucket is not full |
| 503_burst | the same for every request to the portal for `value` seconds (default 1) |
| 500 | INTERNAL_SERVER_ERROR |
| 502_html | a gateway's HTML page with 502 |
| 200_error | an error body under status 200 |
| json_200 | a download's JSON error ("Link check failed") under status 200 |
| html_200 | an HTML page under status 200 |
| 401 | INVALID_CREDENTIALS |
| expired_token | every access token of the portal expires now; webhooks are not struck |
| redirect | 302 to the same path at `value`, e.g. "http://localhost:9001" |
| reset | the connection is closed without an answer |
| truncated | downloads only: half of the body under the full Content-Length, then the connection is closed |
| wrong_type | downloads only: the right body as `value` (a media type; default text/plain) |
| command_error | one command fails, inside a batch too, with code `value` (default ERROR_CORE); the label is its method |
| 429 | one command, inside a batch too, gives OPERATION_TIME_LIMIT; its method stays blocked for `value` s (default 5) |
| operating | one command finishes and uses its method's time up; its `time` tells the reset in `value` s (default 5) |
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from dialog_assets.sandbox import (
    bitrix24_activities,
    bitrix24_crm,
    bitrix24_disk,
    bitrix24_items,
    bitrix24_statistic,
    bitrix24_users,
)
from dialog_assets.sandbox.bitrix24_access import ACTIVITY_FILE, DOWNLOAD, Door, Visit, check_auth_type, read_params
from dialog_assets.sandbox.bitrix24_batch import run_batch
from dialog_assets.sandbox.bitrix24_calling import Answer, MethodCall, MethodError, PortalState, Stopwatch
from dialog_assets.sandbox.bitrix24_events import Events
from dialog_assets.sandbox.bitrix24_faults import (
    ANSWERS,
    BLOCKED,
    COMMAND,
    TOO_MANY,
    SlowHeaders,
    command_error,
    faulty_answer,
    faulty_file,
    json_answer,
    moved,
    refusal,
    struck,
)
from dialog_assets.sandbox.bitrix24_file_fields import with_file_fields
from dialog_assets.sandbox.bitrix24_habits import HabitError, Habits
from dialog_assets.sandbox.bitrix24_oauth import OAuth
from dialog_assets.sandbox.bitrix24_pace import Pace
from dialog_assets.sandbox.bitrix24_php import to_int
from dialog_assets.sandbox.bitrix24_provider import provider_answer
from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.faults import Fault, Faults
from dialog_assets.sandbox.world.model import World

SERVICE = "bitrix24"
METHODS = {
    **bitrix24_statistic.METHODS,
    **bitrix24_crm.METHODS,
    **bitrix24_items.METHODS,
    **bitrix24_activities.METHODS,
    **bitrix24_users.METHODS,
    **bitrix24_disk.METHODS,
}


class Bitrix24Server:
    """All portals of the world on one HTTP server; the credential of a request names the portal.

    `bucket_size` and `drain_per_second` are each portal's leaky bucket. `latency_ms` is what every command costs, in a
    batch too. Counting rows and passing over rows (offset) cost `count_ms_per_1000` and `offset_ms_per_1000` more. Their
    default is a tenth of the latency each: so the documentation's example of an offset deep in 2.39 million leads,
    49.9 s against 0.097 s by keyset, comes out alike (facts 2.4). `seed` fixes the order of rows nobody asked to sort.
    `habits` are every portal's switches at the start.

    `app` are the portals and the token endpoint, `provider_app` the provider's host. `set_habits`, `events` and `oauth`
    change portals while they run; `reset` brings all of that back.

    Books: counts "requests", "commands", "refused" (by the bucket), "blocked" (by operating time), "unauthorised",
    "expired" (tokens), "refreshes", "moved", "downloads", "provider_downloads", "faults"; items "method" by method,
    "record" (times it was asked for) and "bytes" (sent of it) by Disk object id, "fault" by kind.
    """

    def __init__(
        self,
        world: World,
        books: Books,
        faults: Faults,
        clock: Clock,
        *,
        bucket_size: float = 50,
        drain_per_second: float = 2.0,
        latency_ms: float = 0,
        seed: int = 0,
        habits: Habits | None = None,
    ) -> None:
        self._books = books
        self._faults = faults
        self.latency_ms = latency_ms
        self.count_ms_per_1000 = latency_ms / 10
        self.offset_ms_per_1000 = latency_ms / 10
        self.portals = {
            name: PortalState(portal, clock, bucket_size, drain_per_second, seed, habits or Habits())
            for name, portal in world.portals.items()
        }
        self.oauth = OAuth(self.portals, clock)
        self.events = Events(self.portals)
        self._door = Door(self.portals, self.oauth)
        self.app = Starlette(routes=[Mount("/", app=self._serve)])
        self.provider_app = Starlette(routes=[Mount("/", app=self._provide)])

    def reset(self) -> None:
        """Everything back to the start: data, habits, limits, tokens, events."""
        for state in self.portals.values():
            state.reset()
        self.oauth.reset()
        self.events.set([])

    def all_habits(self) -> dict[str, dict[str, Any]]:
        """Every portal's switches."""
        return {name: asdict(state.habits) for name, state in self.portals.items()}

    def set_habits(self, switches: Mapping[str, Any], portal: str | None = None) -> None:
        """Change switches of one portal, or of all. Raises HabitError."""
        if portal is not None and portal not in self.portals:
            raise HabitError(f"portal {portal!r} is not known; known are {', '.join(self.portals)}")
        chosen = [self.portals[portal]] if portal is not None else list(self.portals.values())
        changed = [state.habits.changed(dict(switches)) for state in chosen]
        for state, habits in zip(chosen, changed, strict=True):
            state.habits = habits

    def set_events(self, rules: object) -> int:
        """Replace the script of events; gives their number. Raises EventError."""
        return self.events.set(rules)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _provide(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await provider_answer(Request(scope, receive), self.portals, self._books, self._faults)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        self._books.count(SERVICE, "requests")
        if request.url.path.startswith("/oauth/"):
            return await self._authorize(request)
        try:
            visit = await self._door.visit(request)
        except MethodError as error:
            self._books.count(SERVICE, "unauthorised")
            return refusal(error)
        state, habits = visit.state, visit.state.habits
        if habits.renamed_to and base_url(request) != habits.renamed_to:
            self._books.count(SERVICE, "moved")
            return moved(request, habits.renamed_to)
        if habits.https_required and request.url.scheme == "http" and visit.access.token is None:
            return refusal(MethodError("INVALID_REQUEST", "Https required.", 400))
        if not state.bucket(request.client.host if request.client else "").admit():
            self._books.count(SERVICE, "refused")
            return refusal(TOO_MANY)
        await self._dawdle(visit.method)
        slowly = self._struck(visit.method, "slow_headers")
        response = await self._beyond_limits(visit, request)
        return response if slowly is None else SlowHeaders(response, float(slowly.value or 1))

    async def _beyond_limits(self, visit: Visit, request: Request) -> Response:
        state, method = visit.state, visit.method
        burst = self._struck(method, "503_burst")
        if burst is not None:
            state.busy_until = time.monotonic() + float(burst.value or 1)
        if time.monotonic() < state.busy_until:
            return refusal(TOO_MANY)
        fault = self._struck(method, *ANSWERS)
        if fault is not None:
            return faulty_answer(fault, request)
        if visit.access.token is not None:
            if self._struck(method, "expired_token") is not None:
                self.oauth.expire(state.portal.portal)
            try:
                self.oauth.check(visit.access.token)
            except MethodError as error:
                self._books.count(SERVICE, "expired")
                return refusal(error)
        if method in (DOWNLOAD, ACTIVITY_FILE):
            return self._download(visit, request)
        return await self._answer(visit, request)

    async def _dawdle(self, label: str) -> None:
        slow = self._struck(label, "slow")
        if slow is not None:
            await asyncio.sleep(float(slow.value or 1))

    def _struck(self, label: str, *kinds: str) -> Fault | None:
        return struck(self._faults, self._books, label, *kinds)

    async def _authorize(self, request: Request) -> Response:
        """The vendor's OAuth server; it knows no bucket and is never renamed."""
        label = request.url.path.strip("/")
        await self._dawdle(label)
        fault = self._struck(label, *ANSWERS)
        if fault is not None:
            return faulty_answer(fault, request)
        params = await read_params(request)
        try:
            if label == "oauth/authorize":
                return RedirectResponse(self.oauth.authorize(params, base_url(request)), 302)
            if label != "oauth/token":
                raise MethodError("invalid_request", "Unknown endpoint", 404)
            answer = self.oauth.token(params, base_url(request))
        except MethodError as error:
            self._books.count(SERVICE, "unauthorised")
            return refusal(error)
        self._books.count(SERVICE, "refreshes" if params.get("grant_type") == "refresh_token" else "authorisations")
        return json_answer(answer)

    async def _answer(self, visit: Visit, request: Request) -> Response:
        state, habits = visit.state, visit.state.habits
        command = _Command(self, visit, base_url(request))
        watch = Stopwatch(state)
        try:
            body = await (command.batch() if visit.method == "batch" else command.single())
        except MethodError as error:
            return refusal(error, 200 if habits.errors_with_200 else None)
        finally:
            await command.pace.settle()
        headers = {
            "X-Bitrix-Rest-Application": visit.access.credential.partition(" ")[0],
            "X-Bitrix-Rest-Time": f"{watch.seconds:.6f}",
            "X-Bitrix-Rest-User-Time": "0.000000",
            "X-Bitrix-Rest-System-Time": "0.000000",
        }
        return json_answer(body, hex_quotes=habits.hex_quotes, headers=headers)

    async def carry(self, name: str, call: MethodCall, pace: Pace, billed: str) -> tuple[Answer, dict[str, Any]]:
        """Do one command for its price in time; `billed` is the method whose operating time it uses."""
        state, habits = call.state, call.state.habits
        self.events.before(state.portal.portal, name)
        check_auth_type(name, call.access)
        method = METHODS.get(name)
        if method is None:
            raise MethodError("ERROR_METHOD_NOT_FOUND", "Method not found!", 404)
        self._books.count(SERVICE, "commands")
        self._books.item(SERVICE, "method", name)
        if method.scopes and not set(method.scopes) & set(state.scopes):
            raise MethodError(
                "insufficient_scope", "The request requires higher privileges than provided by the webhook token", 403
            )
        key = (call.access.credential, billed)
        if billed == name:
            self.refuse_blocked(state, key)
        fault = self._struck(name, *COMMAND)
        if fault is not None and fault.kind == "429":
            state.operating.exhaust(key, float(fault.value or 5))
            raise BLOCKED
        if fault is not None:
            raise command_error(fault)
        watch = Stopwatch(state)
        # Processor time: waiting for this one process' other requests, or for a busy machine, is no operating time.
        begun = time.process_time()
        answer = method.run(call)
        worked = time.process_time() - begun
        if habits.file_fields:
            answer = with_file_fields(name, call, answer)
        rows_ms = answer.counted * self.count_ms_per_1000 + answer.skipped * self.offset_ms_per_1000
        cost = (self.latency_ms + rows_ms / 1000) / 1000
        await pace.spend(cost)
        exhausted = self._struck(name, "operating")
        if exhausted is not None:
            state.operating.exhaust(key, float(exhausted.value or 5))
        elif billed == name and habits.limiter:
            state.operating.add(key, max(cost, worked))
        return answer, watch.stop(state.operating.level((call.access.credential, name)))

    def refuse_blocked(self, state: PortalState, key: tuple[str, str]) -> None:
        """Raise MethodError if a method's operating time is used up."""
        if state.operating.blocked(key):
            self._books.count(SERVICE, "blocked")
            raise BLOCKED

    def note(self, method: str) -> None:
        """Write a method into the books."""
        self._books.item(SERVICE, "method", method)

    def _download(self, visit: Visit, request: Request) -> Response:
        if not bitrix24_disk.looks_like_a_browser(dict(request.headers)):
            return bitrix24_disk.nginx_not_found()
        try:
            if visit.method == ACTIVITY_FILE:
                recording = bitrix24_disk.open_file(visit.state, to_int(visit.params.get("fileId")))
            else:
                token = request.query_params.get("token", "")
                recording = bitrix24_disk.open_token(token, visit.state, visit.access.user)
        except MethodError as error:
            return refusal(error)
        self._books.count(SERVICE, "downloads")
        self._books.item(SERVICE, "record", str(recording.file_id))
        asked = request.headers.get("range")
        return faulty_file(
            lambda media_type: bitrix24_disk.file_answer(recording, asked, media_type),
            recording.file_id,
            visit.method,
            self._books,
            self._faults,
        )


class _Command:
    """One request's commands, single or in a batch."""

    def __init__(self, server: Bitrix24Server, visit: Visit, url: str) -> None:
        self.pace = Pace()
        self._server = server
        self._visit = visit
        self._url = url

    async def single(self) -> dict[str, Any]:
        """The body of a plain call."""
        answer, told = await self._server.carry(
            self._visit.method, self._call(self._visit.params), self.pace, self._visit.method
        )
        return answer.envelope(told)

    async def batch(self) -> dict[str, Any]:
        """The body of a batch, its time counted for the commands' methods or for `batch` (facts 2.2)."""
        state, server = self._visit.state, self._server
        whole = state.habits.billing == "batch"
        key = (self._visit.access.credential, "batch")
        server.note("batch")
        if whole:
            server.refuse_blocked(state, key)
        watch = Stopwatch(state)

        async def carry(name: str, given: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
            return await server.carry(name, self._call(given), self.pace, "batch" if whole else name)

        result = await run_batch(self._visit.params, carry)
        await self.pace.settle()
        if whole:
            state.operating.add(key, watch.seconds)
            same = watch.stop(state.operating.level((key[0], "")))
            times = result["result_time"]
            result["result_time"] = [same] * len(times) if isinstance(times, list) else dict.fromkeys(times, same)
        return Answer(result).envelope(watch.stop(state.operating.level(key)))

    def _call(self, params: dict[str, Any]) -> MethodCall:
        return MethodCall.of(self._visit.state, params, self._url, self._visit.access)


def base_url(request: Request) -> str:
    """The address at which the client sees the server."""
    return f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}"
