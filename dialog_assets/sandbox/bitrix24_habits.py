"""What differs between real portals, as switches of a portal of the stand-in.

Here: the switches, their meaning and their check. Not here: what they change; each is read where it acts.
Source: facts/bitrix24.md 1.1 to 1.3, 2.2, 2.4, 3.1 and 8; the defaults are a cloud portal of 2026.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from dialog_assets.errors import DialogAssetsError


class HabitError(DialogAssetsError):
    """A switch that does not exist, or a value that it does not take."""


@dataclass(frozen=True)
class Habits:
    r"""The switches of one portal.

    | switch | meaning |
    |---|---|
    | limiter | operating time is counted and limited; off, as on self-hosted portals, `time` has no operating fields |
    | operating_shown | `time` has the operating fields |
    | operating_limit | seconds after which a method is blocked |
    | operating_window | seconds until counted time leaves; a tenth of it is one bucket. Small values make tests quick |
    | operating_scale | counted seconds per second that a command took |
    | operating_small | commands that took so many seconds, scaled, or fewer are not counted |
    | billing | "commands": each command of a batch is counted for its method; "batch": all of it for `batch` |
    | integer_start | `time.start` is an integer and `processing` 0; else both are floats |
    | errors_with_200 | a method's errors come with HTTP 200, as from older builds |
    | bad_webhook_status | HTTP status of INVALID_CREDENTIALS: 401 or 403 |
    | hex_quotes | quotes inside JSON strings come as \u0022 |
    | https_required | a webhook over http gives INVALID_REQUEST |
    | keyset | the call statistics honour start=-1; else it counts, and gives `next`, as start=0 does |
    | visible_users | employees whose calls the webhook's user, then no administrator, may see, in spite of any filter; empty: all |
    | renamed_to | scheme://host:port of the portal's new address: every request elsewhere gives 302; "" : not renamed |
    | disk_records | recordings are on the Disk; else RECORD_FILE_ID is empty |
    | provider_urls | CALL_RECORD_URL leads to the provider's host |
    | file_fields | rows of crm.*.list have a field of type file, whose links hold the caller's credential |
    """

    limiter: bool = True
    operating_shown: bool = True
    operating_limit: float = 480.0
    operating_window: float = 600.0
    operating_scale: float = 1.0
    operating_small: float = 0.1
    billing: Literal["commands", "batch"] = "commands"
    integer_start: bool = True
    errors_with_200: bool = False
    bad_webhook_status: int = 401
    hex_quotes: bool = False
    https_required: bool = False
    keyset: bool = True
    visible_users: tuple[int, ...] = ()
    renamed_to: str = ""
    disk_records: bool = True
    provider_urls: bool = False
    file_fields: bool = False

    def changed(self, switches: dict[str, Any]) -> Habits:
        """These habits with some switches set anew. Raises HabitError."""
        hints = get_type_hints(Habits)
        known = [one.name for one in fields(Habits)]
        ready = {}
        for name, value in switches.items():
            if name not in hints:
                raise HabitError(f"habit {name!r} is not known; known are {', '.join(known)}")
            ready[name] = _checked(name, value, hints[name])
        return replace(self, **ready)


def _checked(name: str, value: Any, hint: Any) -> Any:
    if name == "visible_users" and isinstance(value, list | tuple) and all(type(one) is int for one in value):
        return tuple(value)
    if name == "billing" and value in get_args(hint):
        return value
    if hint is float and type(value) in (int, float) and value >= 0:
        return float(value)
    if hint in (bool, int, str) and type(value) is hint:
        return value.rstrip("/") if isinstance(value, str) else value
    expected = {"visible_users": "a list of user ids", "billing": "commands or batch"}.get(name) or hint.__name__
    raise HabitError(f"habit {name} has the value {value!r}; expected {expected}")
