"""Answers that go wrong on purpose (facts/bitrix24.md 8.6 to 8.8). Which one strikes when is `faults.py`'s script.

Here: what each kind looks like on the wire. The kinds are listed in bitrix24.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from dialog_assets.sandbox.bitrix24_calling import MethodError
from dialog_assets.sandbox.bitrix24_php import encode
from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.faults import Fault, Faults

DOWNLOAD_ANSWERS = ("503", "500", "502_html", "200_error", "json_200", "html_200", "redirect", "reset")
ANSWERS = (*DOWNLOAD_ANSWERS, "401")
DOWNLOAD_ONLY = ("truncated", "wrong_type")
COMMAND = ("command_error", "429")

TOO_MANY = MethodError("QUERY_LIMIT_EXCEEDED", "Too many requests", 503)
BLOCKED = MethodError("OPERATION_TIME_LIMIT", "Method is blocked due to operation time limit.", 429)
_BAD_WEBHOOK = "Invalid request credentials"
_INTERNAL = MethodError("INTERNAL_SERVER_ERROR", "Internal server error", 500)
_LINK = MethodError("ERROR_CORE", "Link check failed", 200)

_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1><hr>nginx</body></html>"
_PAGE = "<!DOCTYPE html><html><head><title>Bitrix24</title></head><body>Service is being updated</body></html>"


def bad_webhook(status: int = 401) -> MethodError:
    """The refusal of a webhook's wrong secret."""
    return MethodError("INVALID_CREDENTIALS", _BAD_WEBHOOK, status)


def refusal(error: MethodError, status: int | None = None) -> Response:
    """A MethodError as an HTTP answer."""
    return json_answer(error.body(), status or error.status)


def json_answer(body: Any, status: int = 200, *, hex_quotes: bool = False, headers: Any = None) -> Response:
    """JSON with the portal's Content-Type."""
    return Response(encode(body, hex_quotes=hex_quotes), status, headers, media_type="application/json; charset=utf-8")


def faulty_answer(fault: Fault, request: Request) -> Response:
    """The answer of a fault of one of the kinds ANSWERS."""
    makers: dict[str, Callable[[], Response]] = {
        "503": lambda: refusal(TOO_MANY),
        "500": lambda: refusal(_INTERNAL),
        "502_html": lambda: HTMLResponse(_GATEWAY, 502),
        "200_error": lambda: refusal(_INTERNAL, 200),
        "json_200": lambda: refusal(_LINK),
        "html_200": lambda: HTMLResponse(_PAGE, 200),
        "401": lambda: refusal(bad_webhook()),
        "redirect": lambda: moved(request, str(fault.value)),
        "reset": Reset,
    }
    return makers[fault.kind]()


def struck(faults: Faults, books: Books, label: str, *kinds: str) -> Fault | None:
    """The fault of one of `kinds` that strikes a request, written into the books; None: it goes well."""
    fault = faults.strike("bitrix24", label, kinds)
    if fault is not None:
        books.count("bitrix24", "faults")
        books.item("bitrix24", "fault", fault.kind)
    return fault


def faulty_file(
    make: Callable[[str | None], Response], file_id: int, label: str, books: Books, faults: Faults
) -> Response:
    """A download's answer, cut or under a wrong type if the script says so; `make` takes the type to send instead."""
    fault = struck(faults, books, label, *DOWNLOAD_ONLY)
    if fault is None:
        answer = make(None)
    elif fault.kind == "truncated":
        answer = Truncated(make(None))
    else:
        answer = make(str(fault.value or "text/plain"))
    return Weighed(answer, lambda size: books.item("bitrix24", "bytes", str(file_id), size))


def moved(request: Request, base_url: str) -> Response:
    """302 to the same path and query at another address."""
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"{base_url}{request.url.path}{query}", 302)


def command_error(fault: Fault) -> MethodError:
    """The error of one command; `value` is its code."""
    return MethodError(str(fault.value or "ERROR_CORE"), "Struck by a fault of the sandbox")


class Reset(Response):
    """No answer at all: the connection is closed."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Close the connection under the request."""
        await _hang_up(receive)


class Weighed(Response):
    """Another answer whose bytes are told to `note` as they leave."""

    def __init__(self, whole: Response, note: Callable[[int], None]) -> None:
        super().__init__()
        self._whole = whole
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the answer on."""

        async def weighed(message: Message) -> None:
            if message["type"] == "http.response.body":
                self._note(len(message.get("body", b"")))
            await send(message)

        await self._whole(scope, receive, weighed)


class Truncated(Response):
    """The first half of another answer under its full Content-Length, then the end of the connection."""

    def __init__(self, whole: Response) -> None:
        super().__init__()
        self._whole = whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the answer on until half of it is out."""
        left = int(self._whole.headers.get("content-length", "0")) // 2

        async def half(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.body":
                body = message.get("body", b"")[:left]
                left -= len(body)
                if body:
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            else:
                await send(message)

        await self._whole(scope, receive, half)
        await _hang_up(receive)


class SlowHeaders(Response):
    """Another answer whose status line and headers come in ten pieces over `seconds`; then the connection is closed."""

    def __init__(self, whole: Response, seconds: float) -> None:
        super().__init__()
        self._whole = whole
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Write the answer past the server, which would send all headers at once."""
        transport = _transport(receive)

        async def dribble(message: Message) -> None:
            if message["type"] == "http.response.body":
                transport.write(message.get("body", b""))
                return
            status = HTTPStatus(message["status"])
            lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
            lines += [name + b": " + value for name, value in message["headers"]]
            head = b"\r\n".join([*lines, b"connection: close", b"", b""])
            step = -(-len(head) // 10)
            for at in range(0, len(head), step):
                transport.write(head[at : at + step])
                await asyncio.sleep(self._seconds / 10)

        await self._whole(scope, receive, dribble)
        await _hang_up(receive)


def _transport(receive: Receive) -> Any:
    """ASGI has no word for the connection, so this takes uvicorn's transport, which `receive` is bound to."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("reset, truncated and slow_headers need a real connection: run the app with uvicorn")
    return transport


async def _hang_up(receive: Receive) -> None:
    """Close the connection and wait until the server knows, so that it does not answer 500 on its own."""
    _transport(receive).close()
    while (await receive())["type"] != "http.disconnect":
        pass
