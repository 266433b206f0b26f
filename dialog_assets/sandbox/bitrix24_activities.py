"""crm.activity.get and crm.activity.list of the stand-in: the activities of calls (facts/bitrix24.md 4.1 and 4.5).

Here: an activity made of a call's row, FILES with their url. Not here: the download behind it (bitrix24_disk.py), other
activities than calls, filters by BINDINGS.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from dialog_assets.sandbox.bitrix24_calling import Answer, Method, MethodCall, MethodError, PortalState
from dialog_assets.sandbox.bitrix24_crm import classic_page
from dialog_assets.sandbox.bitrix24_filter import Kind
from dialog_assets.sandbox.bitrix24_php import as_list, to_int
from dialog_assets.sandbox.bitrix24_rows import Row, Select, row_text
from dialog_assets.sandbox.bitrix24_statistic import seen_call
from dialog_assets.sandbox.bitrix24_table import Table

OWNER_TYPES = {"LEAD": "1", "DEAL": "2", "CONTACT": "3", "COMPANY": "4"}
_NAMED_ONLY = ("FILES", "COMMUNICATIONS")
_NUMBERS = ("ID", "OWNER_ID", "OWNER_TYPE_ID", "TYPE_ID", "RESPONSIBLE_ID", "AUTHOR_ID", "DIRECTION", "STATUS")
_DATES = ("CREATED", "LAST_UPDATED", "START_TIME", "END_TIME", "DEADLINE")


class _Activities:
    """A source of rows over the calls of a portal as they are now; `token` and `base_url` go into the files' url."""

    def __init__(self, state: PortalState, index: dict[int, int], base_url: str, token: str) -> None:
        self._state = state
        self._index = index
        self._url = f"{base_url}/bitrix/tools/crm_show_file.php"
        self._token = token
        self.fields = frozenset(self.row(next(iter(index)))) if index else frozenset()

    def ids(self) -> array[int]:
        """Of the activities."""
        return array("q", sorted(self._index))

    def moments(self) -> array[float]:
        """None: activities are found by id."""
        return array("d")

    def row(self, number: int) -> Row:
        """One activity with everything."""
        return _activity(number, seen_call(self._state, self._index[number]), self._url, self._token)

    def text(self, number: int, select: Select | None) -> str:
        """The selected part as JSON."""
        row = self.row(number)
        return row_text(row if select is None else select.of(row))

    def linked(self, field: str, value: int) -> Iterable[int]:  # noqa: ARG002 - the interface of Rows
        """Nothing: no field of activities is indexed."""
        return ()

    def column(self, field: str) -> Iterable[tuple[int, Any]]:
        """Id and one field of every activity."""
        return ((number, self.row(number).get(field)) for number in self._index)


def _activity(number: int, call: Row, url: str, token: str) -> Row:
    start = str(call["CALL_START_DATE"])
    end = (datetime.fromisoformat(start) + timedelta(seconds=to_int(call.get("CALL_DURATION")))).isoformat()
    incoming = str(call.get("CALL_TYPE")) in ("2", "3")
    user, owner_type = str(call["PORTAL_USER_ID"]), OWNER_TYPES.get(str(call.get("CRM_ENTITY_TYPE")), "0")
    owner, file_id = str(call.get("CRM_ENTITY_ID") or "0"), to_int(call.get("RECORD_FILE_ID"))
    files = [
        {"id": file_id, "url": f"{url}?fileId={file_id}&ownerTypeId=6&ownerId={number}&auth={token}"},
    ]
    talk: dict[str, Any] = {
        "ID": str(number * 10),
        "TYPE": "PHONE",
        "VALUE": call["PHONE_NUMBER"],
        "ENTITY_ID": owner,
        "ENTITY_TYPE_ID": owner_type,
    }
    return {
        "ID": str(number),
        "OWNER_ID": owner,
        "OWNER_TYPE_ID": owner_type,
        "TYPE_ID": "2",
        "PROVIDER_ID": "VOXIMPLANT_CALL",
        "PROVIDER_TYPE_ID": "CALL",
        "PROVIDER_GROUP_ID": None,
        "ASSOCIATED_ENTITY_ID": "0",
        "SUBJECT": f"{'Входящий' if incoming else 'Исходящий'} звонок",
        "CREATED": start,
        "LAST_UPDATED": end,
        "START_TIME": start,
        "END_TIME": end,
        "DEADLINE": start,
        "COMPLETED": "Y",
        "STATUS": "2",
        "RESPONSIBLE_ID": user,
        "PRIORITY": "2",
        "DESCRIPTION": "",
        "DESCRIPTION_TYPE": "1",
        "DIRECTION": "1" if incoming else "2",
        "LOCATION": "",
        "SETTINGS": [],
        "ORIGINATOR_ID": None,
        "ORIGIN_ID": f"VI_{call['CALL_ID']}",
        "AUTHOR_ID": user,
        "EDITOR_ID": user,
        "PROVIDER_PARAMS": [],
        "PROVIDER_DATA": None,
        "FILES": files if file_id else [],
        "COMMUNICATIONS": [talk],
    }


def activity_calls(state: PortalState) -> dict[int, int]:
    """Call id by activity id, as the call statistics are now."""

    def make() -> dict[int, int]:
        found = ((to_int(activity), number) for number, activity in state.calls.column("CRM_ACTIVITY_ID"))
        return {activity: number for activity, number in found if activity}

    return state.memo("activities", state.calls.version, make)


def _table(call: MethodCall) -> Table:
    state, now, token = call.state, call.state.clock.now, call.access.token or ""

    def make() -> Table:
        index = activity_calls(state)
        if now is not None:
            index = {activity: number for activity, number in index.items() if _start(state, number) <= now}
        return Table(_Activities(state, index, call.base_url, token))

    return state.memo("activity table", (state.calls.version, now, call.base_url, token), make)


def _start(state: PortalState, number: int) -> datetime:
    return datetime.fromisoformat(str(seen_call(state, number)["CALL_START_DATE"]))


def _kind(field: str) -> Kind:
    if field in _NUMBERS:
        return "number"
    return "date" if field in _DATES else "text"


def _list(call: MethodCall) -> Answer:
    table = _table(call)
    return classic_page(call, table, table.fields, _kind, _NAMED_ONLY)


def _get(call: MethodCall) -> Answer:
    number = to_int(call.param("ID"))
    if number <= 0:
        raise MethodError("", "ID is not defined or invalid.")
    row = _table(call).row(number)
    if row is None:
        raise MethodError("", "Activity is not found.")
    named = frozenset(str(field) for field in as_list(call.param("SELECT")))
    return Answer(Select(named, star=True, custom=True, hidden=frozenset(_NAMED_ONLY)).of(row))


METHODS = {
    "crm.activity.list": Method(("crm",), _list),
    "crm.activity.get": Method(("crm",), _get),
}
