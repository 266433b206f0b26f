"""The transport: one HTTP client, one credential, one pacer; single calls and batches, with retries.

Here: everything between a method's name and its answer. Not here: which methods make a call history (reading.py), files
(downloads.py), what an answer's rows mean (rows.py). Retrying assumes reads: a write that timed out may have happened.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx2

from dialog_assets.bitrix24.errors import (
    Bitrix24Error,
    Bitrix24LimitError,
    Bitrix24UnavailableError,
    classify,
)
from dialog_assets.bitrix24.pacing import Pacer
from dialog_assets.bitrix24.paging import COMMANDS, Command, chunks, command_text
from dialog_assets.bitrix24.quiet import silence_urls
from dialog_assets.bitrix24.retries import pause_s
from dialog_assets.bitrix24.webhook import Webhook

USER_AGENT = "dialog-assets/0.1"

TIMEOUT = httpx2.Timeout(10.0, read=70.0)
"""Seconds. The cloud itself ends a request after 60, so a longer silence is a lost connection."""

_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=32)
"""No limit of connections: a request that waits for one after it was paced would leave later than counted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: `result` as decoded, `total` rows and offset of the `next` page where the method counts."""

    result: Any = field(repr=False)
    total: int | None = None
    next: int | None = None


class Bitrix24Client:
    """One portal through one inbound webhook; use as `async with`.

    `webhook_url`: the whole URL, a secret. `pacer` lets each request leave, batches and downloads included. `attempts`
    bounds how often one request is sent. `timeout` in seconds by phase. `sleep` and `transport` are seams for tests.
    Raises Bitrix24AccessError at once when the URL has not the form of a webhook.
    """

    def __init__(
        self,
        webhook_url: str,
        *,
        pacer: Pacer,
        attempts: int = 5,
        timeout: httpx2.Timeout = TIMEOUT,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        silence_urls()
        self._webhook = Webhook(webhook_url)
        self._pacer = pacer
        self.attempts = attempts
        self._sleep = sleep
        self._http = httpx2.AsyncClient(
            headers={"User-Agent": USER_AGENT}, timeout=timeout, limits=_LIMITS, transport=transport
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
        return self._webhook.origin

    async def call(self, method: str, params: Mapping[str, Any] | None = None) -> Answer:
        """Call one reading method with `params` as JSON.

        Raises a Bitrix24Error: at once when a repetition cannot help, else after `attempts`.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                body = await self._send(method, params or {})
            except Bitrix24Error as error:
                if not error.retryable or attempt >= self.attempts:
                    raise
                await self.rest(error, attempt)
            else:
                return Answer(body["result"], _count(body.get("total")), _count(body.get("next")))

    async def batch(self, commands: Mapping[str, Command]) -> dict[str, Answer | Bitrix24Error]:
        """Run independent commands, 50 a request: every key of `commands` comes back, in order, with answer or error.

        Commands that failed but may succeed later, and commands that the portal did not run, are sent again, and only
        those. Raises a Bitrix24Error when a batch fails as a whole. For linked commands use `chain`.
        """
        outcomes: dict[str, Answer | Bitrix24Error] = {}
        for keys in chunks(commands, COMMANDS):
            outcomes |= await self._batch({key: commands[key] for key in keys})
        return {key: outcomes[key] for key in commands}

    async def chain(self, commands: Mapping[str, Command]) -> dict[str, Answer | Bitrix24Error]:
        """Run at most 50 commands that link to each other, once and up to the first error.

        Keys that are absent were not run. Nothing is sent again, because links reach only into their own batch.
        """
        return await self._run(commands, halt=True)

    async def rest(self, error: Bitrix24Error, attempt: int) -> None:
        """Wait as long as `error` at attempt number `attempt` (from 1) asks for."""
        await self._sleep(pause_s(error, attempt))

    @asynccontextmanager
    async def stream(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[httpx2.Response]:
        """Open a GET of a whole URL, paced, without following redirects; raises httpx2.RequestError."""
        await self._pacer.take()
        async with self._http.stream("GET", url, headers=dict(headers), follow_redirects=False) as response:
            yield response

    async def _batch(self, commands: Mapping[str, Command]) -> dict[str, Answer | Bitrix24Error]:
        done: dict[str, Answer | Bitrix24Error] = {}
        pending = dict(commands)
        attempt = 0
        while pending:
            attempt += 1
            found = await self._run(pending, halt=False)
            failures: list[Bitrix24Error] = []
            for key in list(pending):
                outcome = found.get(key) or _not_run(pending[key][0])
                if isinstance(outcome, Bitrix24Error) and outcome.retryable and attempt < self.attempts:
                    failures.append(outcome)
                else:
                    done[key] = outcome
                    del pending[key]
            if failures:
                # A limit asks for the longest wait; the others can wait with it.
                await self.rest(max(failures, key=lambda failure: isinstance(failure, Bitrix24LimitError)), attempt)
        return done

    async def _run(self, commands: Mapping[str, Command], *, halt: bool) -> dict[str, Answer | Bitrix24Error]:
        texts = {key: command_text(command) for key, command in commands.items()}
        answer = await self.call("batch", {"halt": int(halt), "cmd": texts})
        sections = answer.result if isinstance(answer.result, Mapping) else {}
        results, errors, totals, nexts = (
            _by_key(sections.get(name)) for name in ("result", "result_error", "result_total", "result_next")
        )
        outcomes: dict[str, Answer | Bitrix24Error] = {}
        for key, (method, _) in commands.items():
            if key in errors:
                entry = errors[key] if isinstance(errors[key], Mapping) else {"error": errors[key]}
                failure = classify(None, self._hidden(entry), method=method)
                if failure is not None:
                    outcomes[key] = failure
            elif key in results:
                outcomes[key] = Answer(results[key], _count(totals.get(key)), _count(nexts.get(key)))
        return outcomes

    async def _send(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        content = json.dumps(params, ensure_ascii=False).encode()
        response = await self._post(method, content)
        location = response.headers.get("location")
        if response.is_redirect and location and self._webhook.follow(method, location):
            response = await self._post(method, content)
        body = self._hidden(_decoded(response.content))
        failure = classify(response.status_code, body, method=method)
        if failure is not None:
            raise failure
        assert isinstance(body, Mapping)  # noqa: S101 -- classify promises it, mypy cannot see it
        return body

    async def _post(self, method: str, content: bytes) -> httpx2.Response:
        await self._pacer.take()
        try:
            return await self._http.post(
                self._webhook.endpoint(method),
                content=content,
                headers={"Content-Type": "application/json", "Accept": "application/json"},
                follow_redirects=False,
            )
        except httpx2.RequestError as error:
            failure = unavailable(method, error)
        # Raised here and not in the handler: even as a context the library's exception would carry the URL along.
        raise failure

    def _hidden(self, body: Any) -> Any:
        """An error body without this webhook's secret in its texts; other bodies as they are."""
        if not isinstance(body, Mapping) or body.get("error") is None:
            return body
        return json.loads(self._webhook.hide(json.dumps(body)))


def _not_run(method: str) -> Bitrix24UnavailableError:
    return Bitrix24UnavailableError(
        "not_run", method=method, advice="the portal left this command of a batch out", retryable=True
    )


def unavailable(method: str, error: httpx2.RequestError) -> Bitrix24UnavailableError:
    """A failure of the network in our words: the library's own texts may hold the URL."""
    return Bitrix24UnavailableError(
        "timeout" if isinstance(error, httpx2.TimeoutException) else "connection",
        method=method,
        description=type(error).__name__,
        advice="check that the portal can be reached; the next run tries again",
        retryable=True,
    )


def _decoded(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _by_key(section: object) -> Mapping[str, Any]:
    """A section of a batch's answer by command key: PHP sends an empty map, and keys 0..n-1, as a list."""
    if isinstance(section, Mapping):
        return section
    if isinstance(section, list):
        return {str(number): value for number, value in enumerate(section)}
    return {}


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return int(value)
    except ValueError:
        return None
