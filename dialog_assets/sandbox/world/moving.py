"""The fictional week moved to other days, so that it can end yesterday: whole days, every date of the world by as many.

Not moved: what is said in the calls and about them. Somebody who books a visit for the sixth of March still does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from dialog_assets.sandbox.world.model import Call, SandboxPortal, World

_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}(?=$|[T_]\d\d[:-]\d\d[:-]\d\d)")
"""The date at the start of a row's date, its date with time, or a recording's name."""


def week_of(world: World) -> tuple[date, date]:
    """The first and the last day with a call, each call's day taken where its portal is."""
    days = [
        call.start.astimezone(ZoneInfo(portal.time_zone)).date()
        for portal in world.portals.values()
        for call in portal.calls
    ]
    return min(days), max(days)


def yesterday(world: World, now: datetime) -> date:
    """The last day that is over in every portal at `now` (timezone-aware)."""
    return min(now.astimezone(ZoneInfo(portal.time_zone)).date() for portal in world.portals.values()) - timedelta(1)


def ending(world: World, last: date) -> World:
    """The world whose last day with a call is `last`; the clock times and the weekday order of the calls stay."""
    shift = last - week_of(world)[1]
    if not shift:
        return world
    return replace(world, portals={name: _portal(portal, shift) for name, portal in world.portals.items()})


def _portal(portal: SandboxPortal, shift: timedelta) -> SandboxPortal:
    def moved(rows: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        return {number: _value(row, shift) for number, row in rows.items()}

    return replace(
        portal,
        users=moved(portal.users),
        contacts=moved(portal.contacts),
        leads=moved(portal.leads),
        companies=moved(portal.companies),
        deals=moved(portal.deals),
        calls=tuple(_call(call, shift) for call in portal.calls),
    )


def _call(call: Call, shift: timedelta) -> Call:
    recording = call.recording
    if recording is not None:
        recording = replace(recording, name=_value(recording.name, shift), ready_at=recording.ready_at + shift)
    return Call(call.id, call.start + shift, _value(call.fields, shift), recording)


def _value(value: Any, shift: timedelta) -> Any:
    if isinstance(value, dict):
        return {name: _value(inner, shift) for name, inner in value.items()}
    if isinstance(value, list):
        return [_value(inner, shift) for inner in value]
    if isinstance(value, str) and (match := _MOMENT.match(value)):
        return f"{date.fromisoformat(match[0]) + shift}{value[match.end() :]}"
    return value
