"""Random scripts of what goes wrong in a portal while it is read, the same for a seed (facts/bitrix24.md 8.6 to 8.8).

Here: which faults pass, how many attempts each may cost one request, which are final and with which error. A script of
passing faults never costs one request more than ATTEMPTS - 1 attempts, so whatever it strikes, the reading must succeed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24Error,
    Bitrix24LimitError,
    Bitrix24RequestError,
    Bitrix24UnavailableError,
)

ATTEMPTS = 5
"""The client's own default."""

STATISTIC = "voximplant.statistic.get"
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "calls": (STATISTIC,),
    "users": ("user.get",),
    "entities": ("list",),
    "recordings": ("disk.file.get",),
}
"""What names the commands of a phase."""

MILLISECONDS: Mapping[str, float] = {"slow": 3, "slow_headers": 5, "503_burst": 4, "429": 40, "operating": 40}
"""How long a fault lasts; a millisecond is a second of the client's (portal.SPEED)."""

PASSING: Mapping[str, int] = {
    "503": 1,
    "503_burst": 2,
    "500": 1,
    "502_html": 1,
    "200_error": 1,
    "html_200": 1,
    "reset": 1,
    "slow": 0,
    "slow_headers": 0,
}
"""Faults of a whole request, and how many attempts each costs the request that it strikes."""

PASSING_COMMAND: Mapping[str, int] = {"command_error": 1, "429": 0, "operating": 0}
PASSING_DOWNLOAD: Mapping[str, int] = {"truncated": 1, "wrong_type": 0}
PASSING_TOKEN: Mapping[str, int] = {"expired_token": 0}

Rule = dict[str, Any]


@dataclass(frozen=True)
class Final:
    """A fault that does not pass: from the request number `after` on every one; the error that it must end with."""

    kind: str
    error: type[Bitrix24Error]
    code: str
    value: Any = None
    command: bool = False


FINAL: tuple[Final, ...] = (
    Final("401", Bitrix24AccessError, "INVALID_CREDENTIALS"),
    Final("503", Bitrix24LimitError, "QUERY_LIMIT_EXCEEDED"),
    Final("500", Bitrix24UnavailableError, "INTERNAL_SERVER_ERROR"),
    Final("502_html", Bitrix24UnavailableError, "http_502"),
    Final("200_error", Bitrix24UnavailableError, "INTERNAL_SERVER_ERROR"),
    Final("html_200", Bitrix24UnavailableError, "not_json"),
    Final("reset", Bitrix24UnavailableError, "connection"),
    Final("redirect", Bitrix24AccessError, "http_302", "https://elsewhere.example"),
    Final("command_error", Bitrix24RequestError, "ERROR_CORE", "ERROR_CORE", command=True),
    Final("command_error", Bitrix24AccessError, "insufficient_scope", "insufficient_scope", command=True),
    Final("command_error", Bitrix24UnavailableError, "INTERNAL_SERVER_ERROR", "INTERNAL_SERVER_ERROR", command=True),
    Final("429", Bitrix24LimitError, "OPERATION_TIME_LIMIT", 0.01, command=True),
)


def passing(chance: random.Random, phase: str, *, oauth: bool) -> list[Rule]:
    """Faults that strike a phase at random, and pass."""
    kinds = {**PASSING, **PASSING_COMMAND, **(PASSING_TOKEN if oauth else {})}
    if phase == "recordings":
        kinds |= PASSING_DOWNLOAD
    left = ATTEMPTS - 1
    rules = []
    for kind in chance.sample(sorted(kinds), k=len(kinds)):
        if kinds[kind] <= left and chance.random() < 0.7:
            left -= kinds[kind]
            rules.append(_rule(chance, kind, phase))
    return rules


def final(chance: random.Random, phase: str) -> tuple[Final, Rule]:
    """A fault that does not pass, and its rule."""
    one = chance.choice(FINAL)
    match = chance.choice(COMMANDS[phase]) if one.command else ""
    rule = {"service": "bitrix24", "kind": one.kind, "match": match, "after": chance.randint(0, 1)}
    return one, {**rule, "value": one.value}


def _rule(chance: random.Random, kind: str, phase: str) -> Rule:
    rule: Rule = {
        "service": "bitrix24",
        "kind": kind,
        "match": chance.choice(COMMANDS[phase]) if kind in PASSING_COMMAND else "",
        "times": 1,
        "probability": round(chance.uniform(0.3, 1.0), 2),
        "after": chance.randint(0, 2),
        "seed": chance.randint(0, 10**6),
    }
    if kind in MILLISECONDS:
        rule["value"] = MILLISECONDS[kind] / 1000
    if kind == "command_error":
        rule["value"] = "INTERNAL_SERVER_ERROR"
    if kind == "wrong_type":
        rule["value"] = chance.choice(["text/plain", "application/octet-stream", "audio/x-unknown"])
    return rule
