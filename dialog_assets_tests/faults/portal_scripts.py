"""Random scripts of what goes wrong in a portal while it is read, the same for a seed (facts/bitrix24.md 8.6 to 8.8).

Here: which faults pass, how many attempts each may cost one request, which are final and with which error. A script of
passing faults never costs one request more than ATTEMPTS - 1 attempts, so whatever it strikes, the reading must succeed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dialog_assets.bitrix24.errors import (
    Bitrix24AccessError,
    Bitrix24Error,
    Bitrix24LimitError,
    Bitrix24RequestError,
    Bitrix24UnavailableError,
    RecordingUnavailableError,
)

ATTEMPTS = 5
"""The client's own default."""

STATISTIC = "voximplant.statistic.get"
COMMANDS: Mapping[str, str] = {
    "calls": STATISTIC,
    "last_days": STATISTIC,
    "users": "user.get",
    "entities": "list",
    "recordings": "disk.file.get",
}
"""What is in the names of a phase's commands."""

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
    """A fault that does not pass once it has begun, and the error that it must end with; `command`: of commands."""

    kind: str
    error: type[Bitrix24Error]
    code: str
    value: Any = None
    command: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.code}"


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


FINAL_DOWNLOAD: tuple[Final, ...] = (
    Final("401", Bitrix24AccessError, "INVALID_CREDENTIALS"),
    Final("503", Bitrix24LimitError, "QUERY_LIMIT_EXCEEDED"),
    Final("500", Bitrix24UnavailableError, "INTERNAL_SERVER_ERROR"),
    Final("502_html", Bitrix24UnavailableError, "http_502"),
    Final("200_error", Bitrix24UnavailableError, "INTERNAL_SERVER_ERROR"),
    Final("reset", Bitrix24UnavailableError, "connection"),
    Final("html_200", RecordingUnavailableError, "not_audio"),
    Final("json_200", RecordingUnavailableError, "refused"),
    Final("redirect", RecordingUnavailableError, "refused", "http://elsewhere.example"),
    Final("truncated", RecordingUnavailableError, "truncated"),
    Final("wrong_type", RecordingUnavailableError, "not_audio", "text/html"),
)
"""What no download gets over: each recording that it strikes ends with the error, on an application's other way too."""


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
            at_random = {"probability": round(chance.uniform(0.3, 1.0), 2), "seed": chance.randint(0, 10**6)}
            rules.append({**rule(kind, phase), **at_random, "after": chance.randint(0, 2)})
    return rules


def rule(kind: str, phase: str) -> Rule:
    """A fault that strikes the first request, command or download of the phase, and no other."""
    found: Rule = {"service": "bitrix24", "kind": kind, "times": 1}
    if kind in PASSING_COMMAND:
        found["match"] = COMMANDS[phase]
    if kind in MILLISECONDS:
        found["value"] = MILLISECONDS[kind] / 1000
    if kind == "command_error":
        found["value"] = "INTERNAL_SERVER_ERROR"
    return found


def final(chance: random.Random, phase: str) -> tuple[Final, Rule]:
    """A fault that begins somewhere in a phase and does not pass; in the recordings' phase, one of downloads."""
    if phase == "recordings":
        return final_rule(chance.choice(FINAL_DOWNLOAD), phase, after=chance.randint(0, 15))
    return final_rule(chance.choice(FINAL), phase, after=chance.randint(0, 1) if phase in ("calls", "entities") else 0)


def final_rule(fault: Final, phase: str, *, after: int = 0) -> tuple[Final, Rule]:
    """The rule of `fault` that strikes all but the first `after`."""
    whole = "download" if phase == "recordings" else "batch"
    match = COMMANDS[phase] if fault.command else whole
    return fault, {"service": "bitrix24", "kind": fault.kind, "match": match, "after": after, "value": fault.value}


def changes_of_calls(chance: random.Random, portal: str, ids: Sequence[int]) -> list[Rule]:
    """What happens among the calls while they are read: new ones, late recordings and votes, one that goes away."""
    late, deleted = chance.sample(list(ids), k=2)
    voted = ids[-chance.randint(1, 100)]
    moments = {"portal": portal, "match": STATISTIC}
    return [
        {
            **moments,
            "kind": "insert",
            "count": chance.randint(1, 40),
            "after": chance.randint(0, 30),
            "every": chance.randint(1, 15),
            "times": chance.randint(1, 4),
        },
        {**moments, "kind": "record", "call": late, "file": 2_000_000, "after": chance.randint(0, 60)},
        {
            **moments,
            "kind": "change",
            "call": voted,
            "fields": {"CALL_VOTE": "5", "COST": "1.2600"},
            "after": chance.randint(0, 60),
        },
        {**moments, "kind": "delete", "call": deleted, "after": chance.randint(0, 60)},
    ]


def changes_of_files(chance: random.Random, portal: str, files: Sequence[int], size: int) -> list[Rule]:
    """What happens to recordings while they are fetched: deleted, into the trash, replaced by longer and shorter ones."""
    deleted, trashed, longer, shorter = chance.sample(list(files), k=4)
    return [
        {"portal": portal, "kind": "delete_file", "file": deleted},
        {"portal": portal, "kind": "trash_file", "file": trashed},
        {"portal": portal, "kind": "replace", "file": longer, "size": size * 5 // 4},
        {"portal": portal, "kind": "replace", "file": shorter, "size": size // 2},
    ]
