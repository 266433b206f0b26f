"""Late facts by script: what happens in a portal while a client reads it (facts/bitrix24.md 3.1 and 8.6).

Here: the kinds of events, when they come, and their check. Not here: tables and files themselves, the control service.

| kind | what happens | fields |
|---|---|---|
| insert | new calls: `fields` over a copy of the newest; ids grow, starts are a second apart, unless said | fields, count |
| change | fields of a call change: votes, costs, CRM links, CALL_RECORD_URL | call, fields |
| delete | a call's row goes away | call |
| record | a recording appears on the Disk and in the call's row | call, file, size |
| replace | a recording gets new content: another size, the next version | file, size |
| delete_file | a recording is deleted, the call's row still names it | file |
| trash_file | a recording is in the trash: disk.file.get has it, the download does not | file |
| crm | fields of a CRM object change, or it appears; DATE_MODIFY is now unless `fields` says | entity, id, fields |
| crm_delete | a CRM object goes away | entity, id |

Without `after` an event happens at once. With it, just before a command whose method contains `match` is carried out,
after so many of them; then again after `every` of them, `times` times in all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path

from dialog_assets.errors import DialogAssetsError
from dialog_assets.sandbox.bitrix24_calling import CRM_TYPES, PortalState
from dialog_assets.sandbox.bitrix24_rows import Row
from dialog_assets.sandbox.generated import MadeRecording
from dialog_assets.sandbox.world.model import Recording


class EventError(DialogAssetsError):
    """An event that cannot happen."""


@dataclass
class Event:
    """One line of the script; see the module's table."""

    portal: str
    kind: str
    call: int = 0
    file: int = 0
    size: int = 20_000
    path: str = ""  # content of record and replace; empty: generated, `size` bytes or a little more
    entity: str = ""
    id: int = 0
    fields: Row = field(default_factory=dict)
    count: int = 1
    match: str = ""
    after: int | None = None
    every: int = 1
    times: int = 1


KNOWN = {one.name: str(one.type) for one in fields(Event)}
_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "Row": (dict,), "int | None": (int, type(None))}


def read_events(rules: object) -> list[Event]:
    """Events of a JSON list. Raises EventError that names the first mistake."""
    if not isinstance(rules, list):
        raise EventError("expected a JSON list of events")
    found = []
    for place, rule in enumerate(rules):
        if not isinstance(rule, dict) or not {"portal", "kind"} <= rule.keys():
            raise EventError(f"event {place}: expected an object with portal and kind")
        for name, value in rule.items():
            if name not in KNOWN:
                raise EventError(f"event {place}: unknown field {name!r}; known are {', '.join(KNOWN)}")
            if not isinstance(value, _TYPES[KNOWN[name]]) or isinstance(value, bool):
                raise EventError(f"event {place}: {name} has the wrong type {type(value).__name__}")
        if rule["kind"] not in _KINDS:
            raise EventError(f"event {place}: unknown kind {rule['kind']!r}; known are {', '.join(_KINDS)}")
        found.append(Event(**rule))
    return found


class Events:
    """The script in force."""

    def __init__(self, portals: Mapping[str, PortalState]) -> None:
        self._portals = portals
        self._pending: list[Event] = []

    def set(self, rules: object) -> int:
        """Replace the script; what has no `after` happens now. Gives the number of events. Raises EventError."""
        events = read_events(rules)
        for event in events:
            if event.portal not in self._portals:
                raise EventError(f"portal {event.portal!r} is not known; known are {', '.join(self._portals)}")
        self._pending = [event for event in events if event.after is not None]
        for event in events:
            if event.after is None:
                for _ in range(event.times):
                    happen(self._portals[event.portal], event)
        return len(events)

    def before(self, portal: str, method: str) -> None:
        """Let happen what is due before a command of `method`."""
        for event in self._pending:
            if event.portal != portal or event.match not in method or event.times <= 0 or event.after is None:
                continue
            if event.after > 0:
                event.after -= 1
                continue
            event.times -= 1
            event.after = event.every - 1
            happen(self._portals[portal], event)


def happen(state: PortalState, event: Event) -> None:
    """Let one event happen. Raises EventError for a call or object that is not there."""
    _KINDS[event.kind](state, event)


def _insert(state: PortalState, event: Event) -> None:
    calls = state.calls
    for _ in range(event.count):
        newest = calls.row(calls.ids[-1]) if calls.ids else None
        if newest is None and not {"ID", "CALL_START_DATE"} <= event.fields.keys():
            raise EventError("insert into an empty portal needs ID and CALL_START_DATE in its fields")
        row = {**(newest or {}), **event.fields}
        if "ID" not in event.fields and newest is not None:
            row["ID"] = str(int(newest["ID"]) + 1)
        if "CALL_START_DATE" not in event.fields and newest is not None:
            start = datetime.fromisoformat(str(newest["CALL_START_DATE"])) + timedelta(seconds=1)
            row["CALL_START_DATE"] = start.isoformat()
        if "CALL_ID" not in event.fields:
            row["CALL_ID"] = f"externalCall.{hashlib.sha256(str(row['ID']).encode()).hexdigest()[:32]}.{row['ID']}"
        for name in ("RECORD_FILE_ID", "RECORD_DURATION", "CRM_ACTIVITY_ID"):
            row[name] = event.fields.get(name)
        calls.put(int(row["ID"]), row)


def _call(state: PortalState, event: Event) -> Row:
    row = state.calls.row(event.call)
    if row is None:
        raise EventError(f"{event.kind}: portal {event.portal} has no call {event.call}")
    return row


def _change(state: PortalState, event: Event) -> None:
    state.calls.put(event.call, {**_call(state, event), **event.fields, "ID": str(event.call)})


def _delete(state: PortalState, event: Event) -> None:
    _call(state, event)
    state.calls.remove(event.call)


def _record(state: PortalState, event: Event) -> None:
    row = _call(state, event)
    state.files.put(_content(state, event, 1), datetime.now(state.zone))
    state.calls.put(event.call, {**row, "RECORD_FILE_ID": event.file, **event.fields})


def _replace(state: PortalState, event: Event) -> None:
    before = state.files.get(event.file)
    if before is None:
        raise EventError(f"replace: portal {event.portal} has no file {event.file}")
    state.files.put(_content(state, event, before.version + 1), datetime.now(state.zone))


def _content(state: PortalState, event: Event, version: int) -> Recording:
    moment = datetime.fromtimestamp(0, state.zone)
    if event.path:
        path = Path(event.path)
        return Recording(event.file, path, path.name, "silence", 2, 0, None, moment)
    return MadeRecording.of(event.file, event.size, moment, version)


def _crm(state: PortalState, event: Event) -> None:
    table = state.crm[_entity(event)]
    now = datetime.now(state.zone).isoformat(timespec="seconds")
    before = table.row(event.id) or {"DATE_CREATE": now}
    table.put(event.id, {**before, "DATE_MODIFY": now, **event.fields, "ID": str(event.id)})


def _crm_delete(state: PortalState, event: Event) -> None:
    table = state.crm[_entity(event)]
    if event.id not in table:
        raise EventError(f"crm_delete: portal {event.portal} has no {event.entity} {event.id}")
    table.remove(event.id)


def _entity(event: Event) -> str:
    if event.entity not in CRM_TYPES or event.id <= 0:
        raise EventError(f"{event.kind}: expected entity as one of {', '.join(CRM_TYPES)}, and an id above 0")
    return event.entity


_KINDS: dict[str, Callable[[PortalState, Event], None]] = {
    "insert": _insert,
    "change": _change,
    "delete": _delete,
    "record": _record,
    "replace": _replace,
    "delete_file": lambda state, event: state.files.delete(event.file),
    "trash_file": lambda state, event: state.files.trash(event.file),
    "crm": _crm,
    "crm_delete": _crm_delete,
}
