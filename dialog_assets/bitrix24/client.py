"""The transport: one HTTP client, one credential, one pacer; single calls and batches, with retries.

Here: everything between a method's name and its answer. Not here: which methods make a call history (history.py), files
(downloads.py), what an answer's rows mean (rows.py). Retrying assumes reads: a write that timed out may have happened.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin

import httpx2

from dialog_assets import certificates
from dialog_assets.bitrix24.answers import MAX_BYTES, MAX_S, TooLargeError, decoded, read
from dialog_assets.bitrix24.credentials import Access, Credential
from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24Error,
    Bitrix24LimitError,
    Bitrix24UnavailableError,
    classify,
    is_operating,
)
from dialog_assets.bitrix24.operating import LIMIT_S, OperatingTime
from dialog_assets.bitrix24.pacing import Pacer
from dialog_assets.bitrix24.paging import COMMANDS, Command, chunks, command_text
from dialog_assets.bitrix24.quiet import silence_urls
from dialog_assets.bitrix24.retries import pause_s
from dialog_assets.bitrix24.side_by_side import Gate
from dialog_assets.bitrix24.webhook import Webhook
from dialog_assets.bitrix24.wire import whole_number
from dialog_assets.hosts import origin_of

USER_AGENT = "dialog-assets/0.1"

TIMEOUT = httpx2.Timeout(10.0, read=70.0)
"""Seconds. The cloud itself ends a request after 60, so a longer silence is a lost connection."""

PATIENCE_S = 900.0
"""How long one call or batch may wait for operating time, seconds: the window of ten minutes, and half as much again."""

_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=32)
"""No limit of connections: a request that waits for one after it was paced would leave later than counted."""

_LINKING = frozenset({"disk.file.get", "crm.activity.list"})
"""Methods whose answers have links that are used, and hold the credential for that."""

_RENEWALS = 2
"""How often one request may find its token expired: once by age, once more when it waited that long."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: `result` as decoded, `total` rows and offset of the `next` page where the method counts."""

    result: Any = field(repr=False)
    total: int | None = None
    next: int | None = None


class Bitrix24Client:
    """One portal through one credential; use as `async with`.

    `credential`: an inbound webhook's whole URL (a secret), or any Credential such as oauth.OAuth. `pacer` lets each
    request leave, batches and, unless `downloads_count` is off, downloads included. `attempts` bounds how often one
    request is sent. `link_hosts` are other names of the portal in its links.
    `operating_limit_s` is the portal's limit of operating time, `patience_s` how long one call may wait
    for it. `timeout` in seconds by phase. `sleep`, `operating` and `transport` are seams for tests.
    Raises Bitrix24AccessError at once when the URL has not the form of a webhook.
    """

    def __init__(
        self,
        credential: Credential | str,
        *,
        pacer: Pacer,
        attempts: int = 5,
        timeout: httpx2.Timeout = TIMEOUT,
        operating_limit_s: float = LIMIT_S,
        patience_s: float = PATIENCE_S,
        downloads_count: bool = True,
        link_hosts: Iterable[str] = (),
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        operating: OperatingTime | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        silence_urls()
        self._credential: Credential = Webhook(credential) if isinstance(credential, str) else credential
        self._pacer = pacer
        self.attempts = attempts
        self._downloads_count = downloads_count
        self.link_hosts = tuple(link_hosts)
        self._patience_s = patience_s
        self._sleep = sleep
        self._operating = operating or OperatingTime(operating_limit_s)
        self._http = httpx2.AsyncClient(
            headers={"User-Agent": USER_AGENT},
            timeout=timeout,
            limits=_LIMITS,
            transport=transport,
            verify=certificates.context(),
        )

    def __repr__(self) -> str:
        return f"Bitrix24Client({self.origin})"

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, traceback)

    @property
    def origin(self) -> str:
        """`https://host[:port]` of the portal, as it is now; no secret."""
        return self._credential.origin

    @property
    def is_application(self) -> bool:
        """Whether the portal sees an OAuth application."""
        return self._credential.is_application

    async def call(self, method: str, params: Mapping[str, Any] | None = None) -> Answer:
        """Call one reading method with `params` as JSON.

        Raises a Bitrix24Error: at once when a repetition cannot help, else after `attempts` or `patience_s`.
        """
        return _answer(await self._call(method, params or {}, {method: 1}, Patience(self._patience_s)))

    async def batch(
        self, commands: Mapping[str, Command], *, before_body: Gate | None = None
    ) -> dict[str, Answer | Bitrix24Error]:
        """Run independent commands, 50 a request: every key of `commands` comes back, in order, with answer or error.

        Commands that failed but may succeed later, and commands that the portal did not run, are sent again, and only
        those. Raises a Bitrix24Error when a batch fails as a whole. For linked commands use `linked`.
        """
        outcomes: dict[str, Answer | Bitrix24Error] = {}
        for keys in chunks(commands, COMMANDS):
            outcomes |= await self._batch({key: commands[key] for key in keys}, before_body)
        return {key: outcomes[key] for key in commands}

    def patience(self) -> Patience:
        """What may be shared by requests that are parts of one and wait for operating time together."""
        return Patience(self._patience_s)

    async def linked(
        self, commands: Mapping[str, Command], patience: Patience, *, before_body: Gate | None = None
    ) -> dict[str, Answer | Bitrix24Error]:
        """Run at most 50 commands that link to each other, once.

        Keys that are absent were not run. Nothing is sent again, because links reach only into their own batch; after
        commands that were blocked for operating time (errors.is_operating) the next ones of their method wait here for it.
        """
        outcomes = await self._run(commands, patience, before_body)
        for key, outcome in outcomes.items():
            if isinstance(outcome, Bitrix24Error) and is_operating(outcome):
                self._operating.refuse(commands[key][0])
        return outcomes

    async def rest(self, error: Bitrix24Error, attempt: int) -> None:
        """Wait as long as `error` at attempt number `attempt` (from 1) asks for."""
        await self._sleep(pause_s(error, attempt))

    @asynccontextmanager
    async def stream(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[httpx2.Response]:
        """Open a GET of a whole URL of the portal, paced, without following redirects; raises httpx2.RequestError."""
        if self._downloads_count:
            await self._pacer.take()
        async with self._http.stream("GET", url, headers=dict(headers), follow_redirects=False) as response:
            yield response

    async def _batch(
        self, commands: Mapping[str, Command], before_body: Gate | None
    ) -> dict[str, Answer | Bitrix24Error]:
        done: dict[str, Answer | Bitrix24Error] = {}
        pending = dict(commands)
        patience = Patience(self._patience_s)
        attempt = 0
        while pending:
            attempt += 1
            # A method that rests for its operating time does not hold up the others.
            ready = {key: one for key, one in pending.items() if not self._operating.is_blocked(one[0])} or pending
            found = await self._run(ready, patience, before_body)
            failures: list[Bitrix24Error] = []
            for key in list(ready):
                outcome = found.get(key) or not_run(pending[key][0])
                if isinstance(outcome, Bitrix24Error) and is_operating(outcome):
                    self._operating.refuse(pending[key][0])
                elif isinstance(outcome, Bitrix24Error) and outcome.retryable and attempt < self.attempts:
                    failures.append(outcome)
                else:
                    done[key] = outcome
                    del pending[key]
            if failures:
                # A limit asks for the longest wait; the others can wait with it.
                await self.rest(max(failures, key=lambda failure: isinstance(failure, Bitrix24LimitError)), attempt)
            elif pending:
                attempt -= 1
        return done

    async def _run(
        self, commands: Mapping[str, Command], patience: Patience, before_body: Gate | None
    ) -> dict[str, Answer | Bitrix24Error]:
        texts = {key: command_text(command) for key, command in commands.items()}
        methods = Counter(method for method, _ in commands.values())
        body = await self._call(
            "batch", {"halt": 0, "cmd": texts}, {"batch": 1, **methods}, patience, before_body=before_body
        )
        sections = body["result"] if isinstance(body["result"], Mapping) else {}
        results, errors, totals, nexts, times = (
            _by_key(sections.get(name))
            for name in ("result", "result_error", "result_total", "result_next", "result_time")
        )
        outcomes: dict[str, Answer | Bitrix24Error] = {}
        last_times: dict[str, Any] = {}
        for key, (method, _) in commands.items():
            last_times[method] = times.get(key, last_times.get(method))
            if key in errors:
                entry = errors[key] if isinstance(errors[key], Mapping) else {"error": errors[key]}
                failure = classify(None, self._hidden(entry), method=method)
                if failure is not None:
                    outcomes[key] = failure
            elif key in results:
                outcomes[key] = Answer(results[key], _count(totals.get(key)), _count(nexts.get(key)))
        for method, told in last_times.items():
            self._operating.note(method, told, methods[method])
        return outcomes

    async def _call(
        self,
        method: str,
        params: Mapping[str, Any],
        counted: Mapping[str, int],
        patience: Patience,
        *,
        before_body: Gate | None = None,
    ) -> Mapping[str, Any]:
        """The body of a successful answer; `counted` are the calls by method whose operating time this request uses."""
        attempt = 0
        while True:
            attempt += 1
            await patience.sleep(self._operating.wait_s(counted), self._sleep, method)
            try:
                body = await self._send(method, params, before_body, links=not _LINKING.isdisjoint(counted))
            except Bitrix24Error as error:
                if is_operating(error):
                    self._operating.refuse(method)
                    attempt -= 1
                    continue
                if not error.retryable or attempt >= self.attempts:
                    raise
                await self.rest(error, attempt)
            else:
                self._operating.note(method, body.get("time"))
                return body

    async def _send(
        self, method: str, params: Mapping[str, Any], before_body: Gate | None, *, links: bool
    ) -> Mapping[str, Any]:
        """The body of a successful answer; without `links`, no value of it holds this credential's secrets."""
        access = await self._credential.access()
        renewals = 0
        while True:
            response, content = await self._post(access, method, params, before_body)
            location = response.headers.get("location")
            if response.is_redirect and location and self._credential.follow(access, method, location):
                access = await self._credential.access()
                response, content = await self._post(access, method, params, before_body)
            value, odd = decoded(content if links else self._without_secrets(content))
            body = self._hidden(value)
            failure = classify(response.status_code, body, method=method, odd=odd)
            if failure is not None and response.is_redirect and location:
                failure.description = _where(access.base, location)
            if failure is None:
                assert isinstance(body, Mapping)  # noqa: S101 -- classify promises it, mypy cannot see it
                return body
            if failure.code.lower() != "expired_token" or renewals >= _RENEWALS:
                raise failure
            renewals += 1
            fresh = await self._credential.renewed(access)
            if fresh is None:
                raise failure
            access = fresh

    async def _post(
        self, access: Access, method: str, params: Mapping[str, Any], before_body: Gate | None
    ) -> tuple[httpx2.Response, bytes]:
        given = params if access.token is None else {**params, "auth": access.token}
        await self._pacer.take()
        failure: Bitrix24Error
        try:
            async with (
                asyncio.timeout(MAX_S) as clock,
                self._http.stream(
                    "POST",
                    f"{access.base}{method}.json",
                    content=json.dumps(given, ensure_ascii=False).encode(),
                    headers={"Content-Type": "application/json", "Accept": "application/json"},
                    follow_redirects=False,
                ) as response,
            ):
                if before_body is not None:
                    clock.reschedule(None)
                    await before_body()
                clock.reschedule(asyncio.get_running_loop().time() + MAX_S)
                return response, await read(response)
        except httpx2.RequestError as error:
            failure = unavailable(method, error)
        except TimeoutError:
            failure = Bitrix24UnavailableError(
                "timeout",
                method=method,
                advice=f"the answer is not whole after {MAX_S:.0f} s; if it stays so, look at the network and the portal's load",
                retryable=True,
            )
        except TooLargeError:
            failure = Bitrix24AccessError(
                "answer_too_large",
                method=method,
                advice=f"the answer is larger than {MAX_BYTES >> 20} MB, which none of a portal is: look at what answers there",
            )
        # Raised here and not in the handler: even as a context the library's exception would carry the URL along.
        raise failure

    def _without_secrets(self, content: bytes) -> bytes:
        """Rows may hold the credential anywhere: in links of file fields, in what somebody wrote."""
        return self._credential.hide(content.decode(errors="surrogateescape")).encode(errors="surrogateescape")

    def _hidden(self, body: Any) -> Any:
        """An error body without this credential's secrets in its texts; other bodies as they are."""
        if not isinstance(body, Mapping) or body.get("error") is None:
            return body
        try:
            return _mapped(body, self._credential.hide)
        except RecursionError:
            return {"error": self._credential.hide(str(body["error"])) if isinstance(body["error"], str) else "nested"}


class Patience:
    """How long one call may still wait for operating time."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    async def sleep(self, seconds: float, sleep: Callable[[float], Awaitable[object]], method: str) -> None:
        """Wait; raises Bitrix24LimitError when that is longer than the rest of the patience."""
        if seconds <= 0:
            return
        if seconds > self._left:
            raise Bitrix24LimitError(
                "OPERATION_TIME_LIMIT",
                method=method,
                description="the method's operating time on the portal is used up",
                advice="the next run goes on",
                retryable=True,
            )
        self._left -= seconds
        await sleep(seconds)


def _answer(body: Mapping[str, Any]) -> Answer:
    return Answer(body["result"], _count(body.get("total")), _count(body.get("next")))


def not_run(method: str) -> Bitrix24UnavailableError:
    """The error of a command that is neither among a batch's results nor among its errors."""
    return Bitrix24UnavailableError(
        "not_run", method=method, advice="the portal left this command of a batch out", retryable=True
    )


def unavailable(method: str, error: httpx2.RequestError) -> Bitrix24AccessError | Bitrix24UnavailableError:
    """A failure of the network in our words: the library's own texts may hold the URL. A wrong certificate is no outage."""
    fault = certificates.fault(error)
    if fault is not None:
        return Bitrix24AccessError("certificate", method=method, advice=fault)
    return Bitrix24UnavailableError(
        "timeout" if isinstance(error, httpx2.TimeoutException) else "connection",
        method=method,
        description=type(error).__name__,
        advice="check that the portal can be reached; the next run tries again",
        retryable=True,
    )


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The value with its texts changed, at any depth that JSON can have."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(name): _mapped(inner, change) for name, inner in value.items()}
    if isinstance(value, list):
        return [_mapped(inner, change) for inner in value]
    return value


def _where(base: str, location: str) -> str:
    """Where a redirect leads, without what may be secret of it."""
    try:
        place = origin_of(urljoin(base, location))
    except ValueError:
        place = None
    if place is None:
        return "it leads to no address"
    return "it leads to another page of the same portal" if place == origin_of(base) else f"it leads to {place}"


def _by_key(section: object) -> Mapping[str, Any]:
    """A section of a batch's answer by command key: PHP sends an empty map, and keys 0..n-1, as a list."""
    if isinstance(section, Mapping):
        return section
    if isinstance(section, list):
        return {str(number): value for number, value in enumerate(section)}
    return {}


def _count(value: object) -> int | None:
    """A number of rows, None for what is none: nothing can be computed with one of hundreds of digits, or below nothing."""
    number = whole_number(value)
    return None if number is None or number < 0 else number
