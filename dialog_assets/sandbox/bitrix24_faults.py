"""Answers that go wrong on purpose (facts/bitrix24.md 8.6 to 8.8). Which one strikes when is `faults.py`'s script.

Here: what each kind looks like on the wire. The kinds are listed in bitrix24.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from dialog_assets.sandbox.bitrix24_calling import MethodError
from dialog_assets.sandbox.bitrix24_php import encode
from dialog_assets.sandbox.faults import Fault

ANSWERS = ("503", "500", "502_html", "200_error", "json_200", "html_200", "401", "redirect", "reset")
DOWNLOAD_ONLY = ("truncated", "wrong_type")
COMMAND = "command_error"

TOO_MANY = MethodError("QUERY_LIMIT_EXCEEDED", "Too many requests", 503)
BAD_WEBHOOK = MethodError("INVALID_CREDENTIALS", "Invalid request credentials", 401)
_INTERNAL = MethodError("INTERNAL_SERVER_ERROR", "Internal server error", 500)
_LINK = MethodError("ERROR_CORE", "Link check failed", 200)

_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1><hr>nginx</body></html>"
_PAGE = "<!DOCTYPE html><html><head><title>Bitrix24</title></head><body>Service is being updated</body></html>"


def refusal(error: MethodError, status: int | None = None) -> Response:
    """A MethodError as an HTTP answer."""
    return json_answer(error.body(), status or error.status)


def json_answer(body: Any, status: int = 200) -> Response:
    """JSON with the portal's Content-Type."""
    return Response(encode(body), status, media_type="application/json; charset=utf-8")


def faulty_answer(fault: Fault, request: Request) -> Response:
    """The answer of a fault of one of the kinds ANSWERS."""
    makers: dict[str, Callable[[], Response]] = {
        "503": lambda: refusal(TOO_MANY),
        "500": lambda: refusal(_INTERNAL),
        "502_html": lambda: HTMLResponse(_GATEWAY, 502),
        "200_error": lambda: refusal(_INTERNAL, 200),
        "json_200": lambda: refusal(_LINK),
        "html_200": lambda: HTMLResponse(_PAGE, 200),
        "401": lambda: refusal(BAD_WEBHOOK),
        "redirect": lambda: RedirectResponse(f"{fault.value}{request.url.path}?{request.url.query}", 302),
        "reset": Reset,
    }
    return makers[fault.kind]()


def command_error(fault: Fault) -> MethodError:
    """The error of one command; `value` is its code."""
    return MethodError(str(fault.value or "ERROR_CORE"), "Struck by a fault of the sandbox")


class Reset(Response):
    """No answer at all: the connection is closed."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Close the connection under the request."""
        await _hang_up(receive)


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

        async def never() -> Message:
            return await asyncio.Future()

        await self._whole(scope, never, half)
        await _hang_up(receive)


async def _hang_up(receive: Receive) -> None:
    """Close the connection and wait until the server knows, so that it does not answer 500 on its own.

    ASGI has no word for this, so it takes uvicorn's transport, which `receive` is bound to.
    """
    cycle = getattr(receive, "__self__", None)
    transport = getattr(cycle, "transport", None)
    if transport is None:
        raise RuntimeError("the faults reset and truncated need a real connection: run the app with uvicorn")
    transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass
