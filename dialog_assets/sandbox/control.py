"""The sandbox's own HTTP: what it was asked (books), what shall go wrong (faults), what time it is (clock).

GET /health, /books, /addresses · POST /books/reset, /reset, /faults (JSON list of Fault fields), /clock {"now": ISO or null}.
For the Bitrix24 portals: GET /habits · POST /habits {"portal": name or null for all, switch: value, …} (bitrix24_habits.py),
/events (JSON list of what happens while a client reads, bitrix24_events.py).
For VoiceKit: GET /voicekit · POST /voicekit {switch: value, …} (voicekit_behaviour.py).
Bad input is answered with 400 and `{"error": one sentence}`. Not here: the services themselves.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dialog_assets.errors import DialogAssetsError
from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.clock import Clock
from dialog_assets.sandbox.faults import Fault, Faults

if TYPE_CHECKING:
    from dialog_assets.sandbox.voicekit_behaviour import Behaviour

SERVICES = ("bitrix24", "voicekit", "s3", "openai", "anthropic", "deepseek")
_FIELDS: dict[str, tuple[type, ...]] = {
    "service": (str,),
    "kind": (str,),
    "match": (str,),
    "probability": (int, float),
    "times": (int, type(None)),
    "after": (int,),
    "seed": (int,),
}
_KNOWN = {one.name for one in fields(Fault) if one.init}


class Portals(Protocol):
    """What the control changes in the portals."""

    def all_habits(self) -> dict[str, dict[str, Any]]:
        """Every portal's switches."""

    def set_habits(self, switches: Mapping[str, Any], portal: str | None = None) -> None:
        """Change switches of one portal, or of all. Raises DialogAssetsError."""

    def set_events(self, rules: object) -> int:
        """Replace the script of events; gives their number. Raises DialogAssetsError."""


class SpeechService(Protocol):
    """What the control changes in VoiceKit."""

    behaviour: Behaviour


def control_app(
    books: Books,
    faults: Faults,
    clock: Clock,
    addresses: Mapping[str, str],
    reset: Callable[[], Awaitable[None]],
    portals: Portals,
    voicekit: SpeechService,
) -> Starlette:
    """The app; `reset` brings services back to their start, books, faults and clock are reset here."""

    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"ok": True})

    async def show_books(_request: Request) -> JSONResponse:
        return JSONResponse(books.as_dict())

    async def show_addresses(_request: Request) -> JSONResponse:
        return JSONResponse(dict(addresses))

    async def reset_books(_request: Request) -> JSONResponse:
        books.reset()
        return JSONResponse({"ok": True})

    async def reset_all(_request: Request) -> JSONResponse:
        await reset()
        books.reset()
        faults.set([])
        clock.now = None
        return JSONResponse({"ok": True})

    async def set_faults(request: Request) -> JSONResponse:
        rules = check_rules(await _json(request))
        faults.set(rules)
        return JSONResponse({"ok": True, "rules": len(rules)})

    async def set_clock(request: Request) -> JSONResponse:
        clock.now = check_now(await _json(request))
        return JSONResponse({"ok": True, "now": clock.now.isoformat() if clock.now else None})

    async def show_habits(_request: Request) -> JSONResponse:
        return JSONResponse(portals.all_habits())

    async def set_habits(request: Request) -> JSONResponse:
        given = await _json(request)
        if not isinstance(given, dict):
            raise _bad('expected {"portal": name or null, switch: value}')
        portal = given.pop("portal", None)
        with _told():
            portals.set_habits(given, portal)
        return JSONResponse({"ok": True})

    async def set_events(request: Request) -> JSONResponse:
        with _told():
            number = portals.set_events(await _json(request))
        return JSONResponse({"ok": True, "events": number})

    return Starlette(
        routes=[
            *_voicekit_routes(voicekit),
            Route("/habits", show_habits),
            Route("/habits", set_habits, methods=["POST"]),
            Route("/events", set_events, methods=["POST"]),
            Route("/health", health),
            Route("/books", show_books),
            Route("/books/reset", reset_books, methods=["POST"]),
            Route("/faults", set_faults, methods=["POST"]),
            Route("/clock", set_clock, methods=["POST"]),
            Route("/reset", reset_all, methods=["POST"]),
            Route("/addresses", show_addresses),
        ],
        exception_handlers={HTTPException: _error},
    )


def _voicekit_routes(voicekit: SpeechService) -> list[Route]:
    async def show_behaviour(_request: Request) -> JSONResponse:
        return JSONResponse(asdict(voicekit.behaviour))

    async def set_behaviour(request: Request) -> JSONResponse:
        given = await _json(request)
        if not isinstance(given, dict):
            raise _bad("expected {switch: value}")
        with _told():
            voicekit.behaviour = voicekit.behaviour.changed(given)
        return JSONResponse({"ok": True})

    return [Route("/voicekit", show_behaviour), Route("/voicekit", set_behaviour, methods=["POST"])]


def check_rules(value: object) -> list[dict[str, Any]]:
    """The fault rules of a request; HTTPException (400) names the first mistake."""
    if not isinstance(value, list):
        raise _bad("expected a JSON list of fault rules")
    for place, rule in enumerate(value):
        if not isinstance(rule, dict):
            raise _bad(f"rule {place}: expected a JSON object")
        unknown = sorted(rule.keys() - _KNOWN)
        if unknown:
            raise _bad(f"rule {place}: unknown field {unknown[0]!r}; known are {', '.join(sorted(_KNOWN))}")
        missing = sorted({"service", "kind"} - rule.keys())
        if missing:
            raise _bad(f"rule {place}: {missing[0]} is missing")
        for name, kinds in _FIELDS.items():
            if name in rule and (not isinstance(rule[name], kinds) or isinstance(rule[name], bool)):
                raise _bad(f"rule {place}: {name} has the wrong type {type(rule[name]).__name__}")
        if rule["service"] not in SERVICES:
            raise _bad(f"rule {place}: unknown service {rule['service']!r}; known are {', '.join(SERVICES)}")
        if not 0 <= rule.get("probability", 1) <= 1:
            raise _bad(f"rule {place}: probability is not between 0 and 1")
    return value


def check_now(value: object) -> datetime | None:
    """The moment of `{"now": ISO with a zone or null}`; HTTPException (400) for anything else."""
    if not isinstance(value, dict) or value.keys() != {"now"}:
        raise _bad('expected {"now": "2026-03-02T09:00:00+03:00"} or {"now": null}')
    now = value["now"]
    if now is None:
        return None
    try:
        moment = datetime.fromisoformat(now)
    except (TypeError, ValueError):
        raise _bad("now is not an ISO 8601 time") from None
    if moment.tzinfo is None:
        raise _bad("now has no time zone; write it as 2026-03-02T09:00:00+03:00")
    return moment


@contextmanager
def _told() -> Iterator[None]:
    """A mistake that a portal finds is the request's."""
    try:
        yield
    except DialogAssetsError as error:
        raise _bad(str(error)) from error


async def _json(request: Request) -> object:
    try:
        return json.loads(await request.body())
    except ValueError:
        raise _bad("the body is not JSON") from None


def _bad(text: str) -> HTTPException:
    return HTTPException(400, text)


async def _error(_request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return JSONResponse({"error": error.detail if isinstance(error, HTTPException) else "internal error"}, status)
