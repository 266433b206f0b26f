"""The stand-in Bitrix24 portals over HTTP: webhook paths, requests, limits, answers.

Here: from the path to the portal, from the request to the method, from its answer to the envelope. The methods are in
bitrix24_{statistic,crm,users,disk}.py, batches in bitrix24_batch.py, PHP's ways in bitrix24_php.py. A new method goes
into one of the METHODS tables; what belongs to a portal (limits, counters) into PortalState.
Source: facts/bitrix24.md, above all sections 1, 2 and 8.

Fault kinds, for the service "bitrix24"; the label is the method in lower case, "batch", or "download":

| kind | what happens |
|---|---|
| slow | the answer comes `value` seconds later, and may be struck by another fault |
| 503 | QUERY_LIMIT_EXCEEDED although the bucket is not full |
| 500 | INTERNAL_SERVER_ERROR |
| 502_html | a gateway's HTML page with 502 |
| 200_error | an error body under status 200 |
| json_200 | a download's JSON error ("Link check failed") under status 200 |
| html_200 | an HTML page under status 200 |
| 401 | INVALID_CREDENTIALS |
| redirect | 302 to the same path at `value`, e.g. "http://localhost:9001" |
| reset | the connection is closed without an answer |
| truncated | downloads only: half of the body under the full Content-Length, then the connection is closed |
| wrong_type | downloads only: the right body as `value` (a media type; default text/plain) |
| command_error | one command fails, inside a batch too, with code `value` (default ERROR_CORE); the label is its method |
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from dialog_assets.sandbox import bitrix24_crm, bitrix24_disk, bitrix24_statistic, bitrix24_users
from dialog_assets.sandbox.bitrix24_batch import method_name, run_batch
from dialog_assets.sandbox.bitrix24_bucket import Bucket
from dialog_assets.sandbox.bitrix24_calling import Answer, MethodCall, MethodError, PortalState, Stopwatch
from dialog_assets.sandbox.bitrix24_faults import (
    ANSWERS,
    BAD_WEBHOOK,
    COMMAND,
    DOWNLOAD_ONLY,
    TOO_MANY,
    Truncated,
    command_error,
    faulty_answer,
    json_answer,
    refusal,
)
from dialog_assets.sandbox.bitrix24_php import parse_json, parse_query
from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.world.model import World

SERVICE = "bitrix24"
METHODS = {**bitrix24_statistic.METHODS, **bitrix24_crm.METHODS, **bitrix24_users.METHODS, **bitrix24_disk.METHODS}
_WEBHOOK_PATH = re.compile(r"/rest/(\d+)/([^/]+)/([^/]+)/?")


class Bitrix24Server:
    """All portals of the world on one HTTP server; a webhook's user and secret in the path name the portal.

    `bucket_size` and `drain_per_second` are each portal's leaky bucket. `latency_ms` is what every command costs, in a
    batch too. Counting rows and passing over rows (offset) cost `count_ms_per_1000` and `offset_ms_per_1000` more. Their
    default is a tenth of the latency each: so the documentation's example of an offset deep in 2.39 million leads,
    49.9 s against 0.097 s by keyset, comes out alike (facts 2.4). `seed` fixes the order of rows nobody asked to sort.

    Books: counts "requests", "commands", "refused", "unauthorised", "downloads", "faults"; items "method" by method
    and "record" by Disk object id.
    """

    def __init__(
        self,
        world: World,
        books: Books,
        faults: Faults,
        clock: Clock,
        *,
        bucket_size: int = 50,
        drain_per_second: float = 2.0,
        latency_ms: float = 0,
        seed: int = 0,
    ) -> None:
        self._books = books
        self._faults = faults
        self.latency_ms = latency_ms
        self.count_ms_per_1000 = latency_ms / 10
        self.offset_ms_per_1000 = latency_ms / 10
        self.portals = {
            name: PortalState(portal, clock, Bucket(bucket_size, drain_per_second), seed)
            for name, portal in world.portals.items()
        }
        self._by_webhook = {
            (state.portal.webhook_user, state.portal.webhook_secret): state for state in self.portals.values()
        }
        self.app = Starlette(routes=[Mount("/", app=self._serve)])

    def reset(self) -> None:
        """Empty every portal's bucket."""
        for state in self.portals.values():
            state.bucket.empty()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        self._books.count(SERVICE, "requests")
        path = _WEBHOOK_PATH.fullmatch(request.url.path)
        if path is None:
            self._books.count(SERVICE, "unauthorised")
            return refusal(MethodError("NO_AUTH_FOUND", "Wrong authorization data", 401))
        user, secret, name = path.groups()
        state = self._by_webhook.get((int(user), secret))
        if state is None:
            self._books.count(SERVICE, "unauthorised")
            return refusal(BAD_WEBHOOK)
        method = method_name(name)
        if not state.bucket.admit():
            self._books.count(SERVICE, "refused")
            return refusal(TOO_MANY)
        await self._dawdle(method)
        fault = self._faults.strike(SERVICE, method, ANSWERS)
        if fault is not None:
            self._books.count(SERVICE, "faults")
            return faulty_answer(fault, request)
        if method == "download":
            return self._download(state, request)
        return await self._answer(state, method, request)

    async def _dawdle(self, label: str) -> None:
        slow = self._faults.strike(SERVICE, label, ("slow",))
        if slow is not None:
            self._books.count(SERVICE, "faults")
            await asyncio.sleep(float(slow.value or 1))

    async def _answer(self, state: PortalState, method: str, request: Request) -> Response:
        watch = Stopwatch(state.zone)
        base_url = f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}"
        params = await read_params(request)

        async def carry(name: str, given: dict[str, Any]) -> Answer:
            return await self._carry(name, MethodCall.of(state, given, base_url))

        try:
            if method == "batch":
                self._books.item(SERVICE, "method", method)
                answer = Answer(await run_batch(params, carry, state.zone))
            else:
                answer = await carry(method, params)
        except MethodError as error:
            return refusal(error)
        return json_answer(answer.envelope(watch.stop()))

    async def _carry(self, name: str, call: MethodCall) -> Answer:
        """Do one command, for its price in time."""
        method = METHODS.get(name)
        if method is None:
            raise MethodError("ERROR_METHOD_NOT_FOUND", "Method not found!", 404)
        self._books.count(SERVICE, "commands")
        self._books.item(SERVICE, "method", name)
        if method.scopes and not set(method.scopes) & set(call.state.scopes):
            raise MethodError(
                "insufficient_scope", "The request requires higher privileges than provided by the webhook token", 403
            )
        fault = self._faults.strike(SERVICE, name, (COMMAND,))
        if fault is not None:
            self._books.count(SERVICE, "faults")
            raise command_error(fault)
        answer = method.run(call)
        rows_ms = answer.counted * self.count_ms_per_1000 + answer.skipped * self.offset_ms_per_1000
        await asyncio.sleep((self.latency_ms + rows_ms / 1000) / 1000)
        return answer

    def _download(self, state: PortalState, request: Request) -> Response:
        if not bitrix24_disk.looks_like_a_browser(dict(request.headers)):
            return bitrix24_disk.nginx_not_found()
        try:
            recording = bitrix24_disk.open_token(request.query_params.get("token", ""), state)
        except MethodError as error:
            return refusal(error)
        self._books.count(SERVICE, "downloads")
        self._books.item(SERVICE, "record", str(recording.file_id))
        fault = self._faults.strike(SERVICE, "download", DOWNLOAD_ONLY)
        range_header = request.headers.get("range")
        if fault is None:
            return bitrix24_disk.file_answer(recording, range_header)
        self._books.count(SERVICE, "faults")
        if fault.kind == "truncated":
            return Truncated(bitrix24_disk.file_answer(recording, range_header))
        return bitrix24_disk.file_answer(recording, range_header, str(fault.value or "text/plain"))


async def read_params(request: Request) -> dict[str, Any]:
    """Parameters of query and body, the body's over the query's; a broken JSON body has none (facts 1.1)."""
    params = parse_query(request.url.query)
    if request.method != "POST":
        return params
    content_type = request.headers.get("content-type", "").lower()
    body = await request.body()
    readers: dict[str, Callable[[bytes], dict[str, Any]]] = {
        "application/json": parse_json,
        "application/x-www-form-urlencoded": lambda data: parse_query(data.decode(errors="replace")),
    }
    reader = readers.get(content_type.partition(";")[0].strip())
    return {**params, **reader(body)} if reader is not None else params
